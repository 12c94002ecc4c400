"""One value, said twice: as docker-py's keyword arguments and as words of `docker run`.

The two tongues stand side by side here and nowhere else. Pure; plain data only, so that neither
docker-py nor an engine is needed to say anything.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from gpubox import values
from gpubox.errors import GpuboxError

Words = list[str]


class Arguments(msgspec.Struct, frozen=True):
    """What docker-py is given: `run` is `containers.run`'s keyword arguments.

    `host_config` holds the engine's own keys for what that call cannot say.
    """

    run: dict[str, Any] = {}
    host_config: dict[str, Any] = {}


class Say(NamedTuple):
    """How one setting is said: to docker-py, and to `docker run`, an option with its value each."""

    api: Callable[[Any], Arguments]
    line: Callable[[Any], list[Words]]


def option(
    flag: str, keyword: str, *, api: Callable[[Any], Any] = lambda v: v, text: Any = str
) -> Say:
    """A setting with one value, one keyword and one flag."""
    return Say(lambda value: Arguments({keyword: api(value)}), lambda value: [[flag, text(value)]])


def each(flag: str, keyword: str, *, api: Callable[[Any], Any], text: Any = str) -> Say:
    """A list, with the flag repeated."""
    return Say(
        lambda items: Arguments({keyword: [api(item) for item in items]}),
        lambda items: [[flag, text(item)] for item in items],
    )


# --- mounts


def _mount_api(mount: values.Mount) -> dict[str, Any]:
    said: dict[str, Any] = {"Type": "bind" if mount.bind else "volume", "Target": mount.target}
    if mount.source:
        said["Source"] = mount.source
    if mount.read_only:
        said["ReadOnly"] = True
    if mount.consistency:
        said["Consistency"] = mount.consistency
    if mount.propagation:
        said["BindOptions"] = {"Propagation": mount.propagation}
    if mount.nocopy:
        said["VolumeOptions"] = {"NoCopy": True}
    return said


def _mount_line(mount: values.Mount) -> Words:
    if mount.relabels:  # --mount cannot say z and Z
        return ["-v", str(mount)]
    fields = [f"type={'bind' if mount.bind else 'volume'}"]
    fields += [f"source={mount.source}"] if mount.source else []
    fields += [f"target={mount.target}"]
    fields += ["readonly"] if mount.read_only else []
    fields += [f"consistency={mount.consistency}"] if mount.consistency else []
    fields += [f"bind-propagation={mount.propagation}"] if mount.propagation else []
    fields += ["volume-nocopy"] if mount.nocopy else []
    return ["--mount", _comma_separated(fields)]


def _comma_separated(fields: Iterable[str]) -> str:
    """One line of CSV, which is how `--mount` and `--gpus` are read."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(fields)
    return text.getvalue()


def _mounts_api(mounts: Sequence[values.Mount]) -> Arguments:
    plain = [_mount_api(mount) for mount in mounts if not mount.relabels]
    binds = [str(mount) for mount in mounts if mount.relabels]
    # docker-py's own `volumes` makes a stray volume of every mode but ro and rw
    return Arguments({"mounts": plain} if plain else {}, {"Binds": binds} if binds else {})


mounts = Say(_mounts_api, lambda items: [_mount_line(item) for item in items])


# --- ports


def _ports_api(items: Sequence[values.Port]) -> Arguments:
    bindings: dict[str, list[tuple[str, ...]]] = {}
    for port in items:
        bound = (port.address, port.host) if port.host else (port.address,)
        bindings.setdefault(port.key, []).append(bound)
    return Arguments({"ports": bindings})


ports = Say(_ports_api, lambda items: [["-p", str(item)] for item in items])


# --- environment


class Variable(NamedTuple):
    """`NAME=value` for the box. A secret one is named on a printed line, never shown.

    An inherited one is the caller's own, so naming it is enough.
    """

    name: str
    value: str
    secret: bool = False
    inherited: bool = False

    def __str__(self) -> str:
        return self.name if self.secret else f"{self.name}={self.value}"


environment = Say(
    lambda items: Arguments({"environment": [f"{item.name}={item.value}" for item in items]}),
    lambda items: [["-e", str(item)] for item in items],
)


class EnvFile(NamedTuple):
    """A file of variables: named on the printed line, and its `NAME=value` lines for docker-py."""

    path: str
    variables: tuple[str, ...]


env_files = Say(
    lambda files: Arguments({"environment": [text for file in files for text in file.variables]}),
    lambda files: [["--env-file", file.path] for file in files],
)


class SecurityOption(NamedTuple):
    """An option of `--security-opt`; `content` is a seccomp file's text, which the API wants."""

    text: str
    content: str = ""


def _compact(option: SecurityOption) -> str:
    try:
        return json.dumps(json.loads(option.content), separators=(",", ":"), ensure_ascii=False)
    except ValueError as error:
        raise GpuboxError(f"{option.text.partition('=')[2]} is not JSON: {error}") from None


def _security_opt_api(options: Sequence[SecurityOption]) -> Arguments:
    rest = [option for option in options if option.text != SYSTEM_PATHS]
    said = [f"seccomp={_compact(each)}" if each.content else each.text for each in rest]
    # the `docker` program's own word: the engine knows it as no masks
    masks: dict[str, Any] = {"MaskedPaths": [], "ReadonlyPaths": []}
    return Arguments({"security_opt": said}, masks if len(rest) < len(options) else {})


SYSTEM_PATHS = "systempaths=unconfined"
security_opt = Say(
    _security_opt_api, lambda options: [["--security-opt", option.text] for option in options]
)


# --- GPUs


class GpuRequest(msgspec.Struct, frozen=True):
    """GPUs as the engine in hand gives them.

    `hook`: device requests, for the NVIDIA runtime hook or an engine that maps them itself.
    `cdi`: names of CDI devices. No GPUs: the variable that keeps a default NVIDIA runtime away.
    """

    gpus: values.Gpus
    backend: Literal["hook", "cdi"] = "hook"

    @property
    def cdi_names(self) -> list[str]:
        wanted = ("all",) if self.gpus.all else self.gpus.ids
        return [f"nvidia.com/gpu={gpu}" for gpu in wanted]


def _gpus_api(request: GpuRequest) -> Arguments:
    if request.gpus == values.NO_GPUS:
        return Arguments()
    if request.backend == "cdi":
        wanted: dict[str, Any] = {"Driver": "cdi", "DeviceIDs": request.cdi_names}
    else:
        wanted = {"Capabilities": [["gpu"]]}
        ids, count = list(request.gpus.ids), -1 if request.gpus.all else request.gpus.count
        wanted |= {"DeviceIDs": ids} if ids else {"Count": count}
    return Arguments({"device_requests": [wanted]})


def _gpus_line(request: GpuRequest) -> list[Words]:
    if request.gpus == values.NO_GPUS:
        return []
    if request.backend == "cdi":
        return [["--device", name] for name in request.cdi_names]
    wanted = f"device={','.join(request.gpus.ids)}" if request.gpus.ids else str(request.gpus)
    return [["--gpus", _comma_separated([wanted])]]


gpus = Say(_gpus_api, _gpus_line)


# --- devices


def _devices_api(items: Sequence[values.Device]) -> Arguments:
    cdi = [item.source for item in items if item.is_cdi]
    plain = [
        {
            "PathOnHost": item.source,
            "PathInContainer": item.target,
            "CgroupPermissions": item.permissions,
        }
        for item in items
        if not item.is_cdi
    ]
    said: dict[str, Any] = {"devices": plain} if plain else {}
    if cdi:
        said["device_requests"] = [{"Driver": "cdi", "DeviceIDs": cdi}]
    return Arguments(said)


devices = Say(_devices_api, lambda items: [["--device", str(item)] for item in items])


# --- the rest


ulimits = each(
    "--ulimit",
    "ulimits",
    api=lambda item: {"Name": item.name, "Soft": item.soft, "Hard": item.hard},
)


def _restart_api(text: str) -> dict[str, Any]:
    name, _, times = text.partition(":")
    return {"Name": name, "MaximumRetryCount": int(times or 0)}


restart = option("--restart", "restart_policy", api=_restart_api)

init = Say(
    lambda value: Arguments({"init": value}),
    lambda value: [["--init" if value else "--init=false"]],
)
remove = Say(
    lambda value: Arguments({"auto_remove": True} if value else {}),
    lambda value: [["--rm"]] if value else [],
)
labels = Say(
    lambda items: Arguments({"labels": dict(items)}),
    lambda items: [["--label", f"{key}={text}" if text else key] for key, text in items],
)


def merged(parts: Iterable[Arguments]) -> Arguments:
    """All arguments together; what two settings add to is joined as the `docker` program does."""
    whole = Arguments()
    for part in parts:
        for key, value in part.run.items():
            added_to = key in ("environment", "device_requests") and key in whole.run
            whole.run[key] = whole.run[key] + value if added_to else value
        whole.host_config.update(part.host_config)
    if requests := whole.run.get("device_requests"):
        whole.run["device_requests"] = _one_cdi_request(requests)
    return whole


def _one_cdi_request(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    others = [request for request in requests if request.get("Driver") != "cdi"]
    names = [name for r in requests if r.get("Driver") == "cdi" for name in r["DeviceIDs"]]
    return others + ([{"Driver": "cdi", "DeviceIDs": names}] if names else [])
