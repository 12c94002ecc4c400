"""A box on other GPUs: what the engine says of the old box becomes the call that makes the next.

Also says what the image of its files must not keep. Pure: knows no engine, only its words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from gpubox import checks
from gpubox.boxes import labels
from gpubox.boxes.box import SHORT_ID
from gpubox.boxes.inspection import Inspection, variables
from gpubox.errors import EngineError
from gpubox.gpus import claims
from gpubox.gpus.claims import VISIBLE
from gpubox.gpus.holders import holds, without
from gpubox.gpus.machine import absent
from gpubox.plan import docker_words
from gpubox.plan.allocation import Allocation, allocate
from gpubox.plan.backend import refuse
from gpubox.plan.docker_words import GpuRequest
from gpubox.plan.environment import BY_PLACE, NOTHING_VISIBLE, ORDER
from gpubox.plan.facts import Facts
from gpubox.values import NO_GPUS, Gpus

# --- its GPUs


def others(
    inspection: Inspection, asked: Gpus, facts: Facts, *, share: bool = False
) -> Allocation | None:
    """The GPUs that the box is to have; None where it has them already.

    Its own GPUs count as free for it: asked for more or fewer than it has, it may keep some. Asked
    for exactly as many, it gets others, for then it is meant to leave them.
    """
    said, me = inspection["Config"]["Labels"], facts.caller.name
    has = claims.of_label(said[labels.GPUS])
    devices = [holding.device for holding in facts.holdings]
    if facts.machine and (words := absent(asked.ids, devices)):
        missing = checks.of_absent_gpus(words)
        raise EngineError(missing.evidence, missing.fix)
    own = [it.key for it in devices if holds(has, it, devices)]
    alone = replace(facts, holdings=without(facts.holdings, inspection["Id"], me), last=has.ids)
    images = (str(inspection["Config"]["Image"]),)
    leaves = own if asked.count == len(own) else ()
    new = allocate(asked, alone, images, share=share, excluding=leaves)
    refuse(new.gpus, facts.engine)
    same = set(new.label.split(",")) == set(said[labels.GPUS].split(","))
    return None if same and new.claim == said.get(labels.CLAIM, "") else new


def claim(given: Allocation) -> dict[str, str]:
    """Its labels. Always both: from the image of its files a box would inherit empty ones."""
    return {labels.GPUS: given.label, labels.CLAIM: given.claim}


def by_cdi(inspection: Inspection) -> bool:
    """Whether it was given its GPUs as CDI devices: then this engine refuses the usual request."""
    return any(one.get("Driver") == "cdi" for one in _gpu_requests(inspection["HostConfig"]))


# --- the image of its files


def forgotten(inspection: Inspection, image: Mapping[str, str]) -> dict[str, Any]:
    """The configuration of the image of its files: no claim, and none of the box's own variables.

    An engine takes from the box all that is not given here, so what the image must not keep is
    given as empty. `image` are the variables of the image that the box came from.
    """
    said = variables(inspection["Config"])
    own = {name: image.get(name, "") for name, text in said.items() if image.get(name) != text}
    claimed = labels.own(inspection["Config"].get("Labels") or {})
    return {"Env": _lines(own), "Labels": dict.fromkeys(claimed, "")}


def is_of_files(image: Mapping[str, str]) -> bool:
    """Whether gpubox made it of a box's files, by its labels: the claim's are there, but empty."""
    return image.get(labels.GPUS) == ""


# --- the next box


def successor(
    inspection: Inspection,
    files: str,
    new: Allocation,
    request: GpuRequest,
    image: Mapping[str, str],
) -> dict[str, Any]:
    """The body of the call that creates the next box while the old one is still there.

    `files` is the image of the old box's files, `image` the variables of the one that it came from.
    Volumes come from the old box, so that a nameless one stays nameless.
    """
    config, host = dict(inspection["Config"]), dict(inspection["HostConfig"])
    config |= {
        "Image": files,
        "Labels": {**(config.get("Labels") or {}), **claim(new)},
        "Env": _lines(_environment(variables(config), new, image)),
    }
    nobody_said = config.get("Hostname") == inspection["Id"][:SHORT_ID]
    if nobody_said or str(host.get("NetworkMode")).startswith("container:"):
        config.pop("Hostname", None)
    config.pop("MacAddress", None)
    kept = [one for one in host.get("DeviceRequests") or () if one not in _gpu_requests(host)]
    asked = docker_words.gpus.api(request).run.get("device_requests", [])
    host |= {
        "DeviceRequests": [*kept, *asked],
        "VolumesFrom": [inspection["Id"]],
        "Mounts": [it for it in host.get("Mounts") or () if it.get("Source") or _is_tmpfs(it)],
        "Binds": [it for it in host.get("Binds") or () if ":" in it],
        "PortBindings": _ports(inspection),
    }
    first = {name: it for name, it in _endpoints(inspection).items() if name == _network(host)}
    return {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": first}}


def further_networks(inspection: Inspection) -> dict[str, dict[str, Any]]:
    """The networks that it is in, with its settings there, without the one that it started in."""
    first = _network(inspection["HostConfig"])
    return {name: it for name, it in _endpoints(inspection).items() if name != first}


def _environment(
    variables: dict[str, str], new: Allocation, image: Mapping[str, str]
) -> dict[str, str]:
    if new.gpus == NO_GPUS:
        return variables | {VISIBLE: NOTHING_VISIBLE}
    if variables.get(VISIBLE) == NOTHING_VISIBLE:
        del variables[VISIBLE]
        variables |= {VISIBLE: image[VISIBLE]} if VISIBLE in image else {}
    return {**({ORDER: BY_PLACE} if new.by_place else {}), **variables}


def _ports(inspection: Inspection) -> dict[str, Any]:
    """The ports as they were asked for; where the engine chose the number, it stays the same."""
    asked = inspection["HostConfig"].get("PortBindings") or {}
    bound = inspection["NetworkSettings"].get("Ports") or {}
    return {
        key: [_as_bound(one, bound.get(key) or ()) for one in bindings or ()]
        for key, bindings in asked.items()
    }


def _as_bound(asked: Inspection, bound: Iterable[Inspection]) -> dict[str, Any]:
    """A port with its number. Docker lists one on every address twice: as 0.0.0.0 and as ::."""
    if (number := str(asked.get("HostPort") or "0")) != "0" and number.isdigit():
        return dict(asked)
    address = asked.get("HostIp") or "0.0.0.0"
    ports = [one["HostPort"] for one in bound if one.get("HostIp") == address]
    return {**asked, **({"HostPort": ports[0]} if ports else {})}


def _endpoints(inspection: Inspection) -> dict[str, dict[str, Any]]:
    """What was asked for in each network, without the addresses that the engine chose."""
    short = inspection["Id"][:SHORT_ID]
    known = inspection["NetworkSettings"].get("Networks") or {}
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


def _lines(variables: Mapping[str, str]) -> list[str]:
    return [f"{name}={text}" for name, text in variables.items()]
