"""A box as it will be on other GPUs: of what the engine says of it becomes the call for the next.

What the image of its files must not keep is said here, too. Pure: knows no engine, only its words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from gpubox import values
from gpubox.boxes.boxes import Inspection
from gpubox.gpus import claims
from gpubox.gpus.holders import holds, without
from gpubox.plan import docker_words
from gpubox.plan.allocation import Allocation, allocate
from gpubox.plan.backend import refuse
from gpubox.plan.docker_words import GpuRequest
from gpubox.plan.facts import Facts
from gpubox.plan.plan import BY_PLACE, LABEL, NOTHING_VISIBLE, ORDER, VISIBLE
from gpubox.values import NO_GPUS, Gpus

GPUS, CLAIM = f"{LABEL}gpus", f"{LABEL}claim"
_SHORT_ID = 12


# --- its GPUs


def others(
    found: Inspection, asked: Gpus, facts: Facts, *, share: bool = False
) -> Allocation | None:
    """The GPUs that the box is to have; None where it has them already.

    Its own count as free for it. Only of as many as it has they do not, for then it is to leave.
    """
    labels, me = found["Config"]["Labels"], facts.caller.name
    has = claims.of_label(labels[GPUS])
    devices = [holding.device for holding in facts.holdings]
    own = [it.key for it in devices if holds(has, it, devices)]
    alone = replace(facts, holdings=without(facts.holdings, found["Id"], me), last=has.ids)
    images = (str(found["Config"]["Image"]),)
    leaves = own if asked.count == len(own) else ()
    new = allocate(asked, alone, images, share=share, but=leaves)
    refuse(new.gpus, facts.engine)
    same = set(new.label.split(",")) == set(labels[GPUS].split(","))
    return None if same and new.claim == labels.get(CLAIM, "") else new


def claim(given: Allocation) -> dict[str, str]:
    """Its labels, of which it loses none, for the image of its files has them empty."""
    return {GPUS: given.label, CLAIM: given.claim}


def by_cdi(found: Inspection) -> bool:
    """Whether it was given its GPUs as CDI devices, so that this engine refuses the usual way."""
    return any(one.get("Driver") == "cdi" for one in _gpu_requests(found["HostConfig"]))


# --- the image of its files


def forgotten(found: Inspection, image: Mapping[str, str]) -> dict[str, Any]:
    """What the image of its files says instead of the box: no claim, and none of its variables.

    An engine adds all that is not said here, so what must not be kept is said empty. `image` are
    the variables of the image that it came from.
    """
    said = variables(found["Config"])
    own = {name: image.get(name, "") for name, text in said.items() if image.get(name) != text}
    labels = found["Config"].get("Labels") or {}
    return {
        "Env": _lines(own),
        "Labels": {name: "" for name in labels if name.startswith(LABEL)},
    }


def is_of_files(labels: Mapping[str, str]) -> bool:
    """Whether an image is of a box's files alone, by the labels that it does not keep."""
    return labels.get(GPUS) == ""


# --- the next box


def successor(
    found: Inspection, files: str, new: Allocation, request: GpuRequest, image: Mapping[str, str]
) -> dict[str, Any]:
    """The body of the call that creates it, from the image of its `files`, while the old one is.

    Volumes come from the old box, so that a nameless one stays nameless.
    """
    config, host = dict(found["Config"]), dict(found["HostConfig"])
    config |= {
        "Image": files,
        "Labels": {**(config.get("Labels") or {}), **claim(new)},
        "Env": _lines(_environment(variables(config), new, image)),
    }
    nobody_said = config.get("Hostname") == found["Id"][:_SHORT_ID]
    if nobody_said or str(host.get("NetworkMode")).startswith("container:"):
        config.pop("Hostname", None)
    config.pop("MacAddress", None)
    kept = [one for one in host.get("DeviceRequests") or () if one not in _gpu_requests(host)]
    asked = docker_words.gpus.api(request).run.get("device_requests", [])
    host |= {
        "DeviceRequests": [*kept, *asked],
        "VolumesFrom": [found["Id"]],
        "Mounts": [it for it in host.get("Mounts") or () if it.get("Source") or _is_tmpfs(it)],
        "Binds": [it for it in host.get("Binds") or () if ":" in it],
        "PortBindings": _ports(found),
    }
    first = {name: it for name, it in _endpoints(found).items() if name == _network(host)}
    return {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": first}}


def further_networks(found: Inspection) -> dict[str, dict[str, Any]]:
    """Those that it was put into beside the one of its start."""
    first = _network(found["HostConfig"])
    return {name: it for name, it in _endpoints(found).items() if name != first}


def _environment(
    variables: dict[str, str], new: Allocation, image: Mapping[str, str]
) -> dict[str, str]:
    if new.gpus == NO_GPUS:
        return variables | {VISIBLE: NOTHING_VISIBLE}
    if variables.get(VISIBLE) == NOTHING_VISIBLE:
        del variables[VISIBLE]
        variables |= {VISIBLE: image[VISIBLE]} if VISIBLE in image else {}
    return {**({ORDER: BY_PLACE} if new.by_place else {}), **variables}


def _ports(found: Inspection) -> dict[str, Any]:
    """As they were asked for; one that the engine chose stays the number that it has."""
    asked = found["HostConfig"].get("PortBindings") or {}
    bound = found["NetworkSettings"].get("Ports") or {}
    return {
        key: [_as_bound(one, bound.get(key) or ()) for one in bindings or ()]
        for key, bindings in asked.items()
    }


def _as_bound(asked: Inspection, bound: Iterable[Inspection]) -> dict[str, Any]:
    """Docker says every address as 0.0.0.0, and again as ::."""
    if (number := str(asked.get("HostPort") or "0")) != "0" and number.isdigit():
        return dict(asked)
    address = asked.get("HostIp") or "0.0.0.0"
    ports = [one["HostPort"] for one in bound if one.get("HostIp") == address]
    return {**asked, **({"HostPort": ports[0]} if ports else {})}


def _endpoints(found: Inspection) -> dict[str, dict[str, Any]]:
    """What was asked of each network, without what came of it."""
    short = found["Id"][:_SHORT_ID]
    known = found["NetworkSettings"].get("Networks") or {}
    return {name: _endpoint(said, short) for name, said in known.items()}


def _endpoint(said: Inspection, short: str) -> dict[str, Any]:
    asked = {key: said[key] for key in ("IPAMConfig", "Links", "DriverOpts") if said.get(key)}
    aliases = [alias for alias in said.get("Aliases") or () if alias != short]
    return {**asked, **({"Aliases": aliases} if aliases else {})}


def _network(host: Inspection) -> str:
    mode = str(host.get("NetworkMode") or "default")
    return "bridge" if mode == "default" else mode


def _gpu_requests(host: Inspection) -> list[Inspection]:
    return [one for one in host.get("DeviceRequests") or () if claims.is_for_gpus(one)]


def _is_tmpfs(mount: Inspection) -> bool:
    return mount.get("Type") == "tmpfs"


def variables(config: Inspection) -> dict[str, str]:
    """Those of a container or an image."""
    return values.variables(config.get("Env") or ())


def _lines(variables: Mapping[str, str]) -> list[str]:
    return [f"{name}={text}" for name, text in variables.items()]
