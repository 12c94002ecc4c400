"""One value, said three times: to docker-py, as words of `docker run`, and in a Compose file.

The three tongues stand side by side here and nowhere else. Pure; plain data only, so that neither
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
Service = dict[str, Any]


class Arguments(msgspec.Struct, frozen=True):
    """What docker-py is given: `run` is `containers.run`'s keyword arguments.

    `host_config` holds the engine's own keys for what that call cannot say.
    """

    run: dict[str, Any] = {}
    host_config: dict[str, Any] = {}


NVIDIA_GPU = "nvidia.com/gpu="  # and which: the name of a CDI device


class Say(NamedTuple):
    """How one setting is said: to docker-py, to `docker run`, an option with its value each, and
    to Compose, as keys of a service."""

    api: Callable[[Any], Arguments]
    line: Callable[[Any], list[Words]]
    compose: Callable[[Any], Service]


def option(
    flag: str,
    keyword: str,
    *,
    api: Callable[[Any], Any] = lambda v: v,
    text: Any = str,
    key: str = "",
) -> Say:
    """A setting with one value, one keyword and one flag; `key` is Compose's where it differs."""
    return Say(
        lambda value: Arguments({keyword: api(value)}),
        lambda value: [[flag, text(value)]],
        lambda value: {key or keyword: text(value)},
    )


# for the `docker` program and Compose, which pull by themselves; the engine's own call does not
pull = Say(
    lambda _: Arguments(),
    lambda value: [["--pull", value]] if value != "missing" else [],
    lambda value: {"pull_policy": value} if value != "missing" else {},
)


def each(flag: str, keyword: str) -> Say:
    """A list of texts, with the flag repeated."""
    return Say(
        lambda items: Arguments({keyword: list(items)}),
        lambda items: [[flag, item] for item in items],
        lambda items: {keyword: list(items)},
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


def _mount_compose(mount: values.Mount) -> Any:
    if mount.relabels:  # only short, or Compose would make a folder that is not there
        return str(mount)
    said: dict[str, Any] = {"type": "bind" if mount.bind else "volume"}
    said |= {"source": mount.source} if mount.source else {}
    said |= {"target": mount.target}
    said |= {"read_only": True} if mount.read_only else {}
    said |= {"consistency": mount.consistency} if mount.consistency else {}
    if mount.bind:
        said["bind"] = {"create_host_path": False}
        said["bind"] |= {"propagation": mount.propagation} if mount.propagation else {}
    return said | ({"volume": {"nocopy": True}} if mount.nocopy else {})


mounts = Say(
    _mounts_api,
    lambda items: [_mount_line(item) for item in items],
    lambda items: {"volumes": [_mount_compose(item) for item in items]},
)


# --- ports


def _ports_api(items: Sequence[values.Port]) -> Arguments:
    bindings: dict[str, list[tuple[str, ...]]] = {}
    for port in items:
        bound = (port.address, port.host) if port.host else (port.address,)
        bindings.setdefault(port.key, []).append(bound)
    return Arguments({"ports": bindings})


ports = Say(
    _ports_api,
    lambda items: [["-p", str(item)] for item in items],
    lambda items: {"ports": [str(item) for item in items]},
)


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
    lambda items: {"environment": [str(item) for item in items]},
)


class EnvFile(NamedTuple):
    """A file of variables: named on the printed line, and its `NAME=value` lines for docker-py."""

    path: str
    variables: tuple[str, ...]


env_files = Say(
    lambda files: Arguments({"environment": [text for file in files for text in file.variables]}),
    lambda files: [["--env-file", file.path] for file in files],
    # raw: as `docker run` reads them, for Compose's own language has quotes and variables
    lambda files: {"env_file": [{"path": file.path, "format": "raw"} for file in files]},
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
    _security_opt_api,
    lambda options: [["--security-opt", option.text] for option in options],
    lambda options: {"security_opt": [option.text for option in options]},
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
        return [f"{NVIDIA_GPU}{gpu}" for gpu in wanted]


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


def _gpus_compose(request: GpuRequest) -> Service:
    if request.gpus == values.NO_GPUS:
        return {}
    if request.backend == "cdi":
        return {"devices": request.cdi_names}
    ids, count = list(request.gpus.ids), "all" if request.gpus.all else request.gpus.count
    wanted = {"capabilities": ["gpu"]} | ({"device_ids": ids} if ids else {"count": count})
    return {"deploy": {"resources": {"reservations": {"devices": [wanted]}}}}


gpus = Say(_gpus_api, _gpus_line, _gpus_compose)


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


devices = Say(
    _devices_api,
    lambda items: [["--device", str(item)] for item in items],
    lambda items: {"devices": [str(item) for item in items]},
)


# --- the rest


entrypoint = Say(
    lambda items: Arguments({"entrypoint": list(items)}),
    lambda items: [["--entrypoint", "".join(items[:1])]],
    lambda items: {"entrypoint": list(items)},
)
ulimits = Say(
    lambda items: Arguments(
        {"ulimits": [{"Name": it.name, "Soft": it.soft, "Hard": it.hard} for it in items]}
    ),
    lambda items: [["--ulimit", str(item)] for item in items],
    lambda items: {"ulimits": {it.name: {"soft": it.soft, "hard": it.hard} for it in items}},
)


def _restart_api(text: str) -> dict[str, Any]:
    name, _, times = text.partition(":")
    return {"Name": name, "MaximumRetryCount": int(times or 0)}


restart = option("--restart", "restart_policy", api=_restart_api, key="restart")

init = Say(
    lambda value: Arguments({"init": value}),
    lambda value: [["--init" if value else "--init=false"]],
    lambda value: {"init": value},
)
remove = Say(
    lambda value: Arguments({"auto_remove": True} if value else {}),
    lambda value: [["--rm"]] if value else [],
    lambda _: {},  # a service is what `docker compose down` removes
)
labels = Say(
    lambda items: Arguments({"labels": dict(items)}),
    lambda items: [["--label", f"{key}={text}" if text else key] for key, text in items],
    # in a list, for in a mapping Compose takes names like x-y for extensions of the file
    lambda items: {"labels": [f"{key}={text}" for key, text in items]},
)


def service(parts: Iterable[Service]) -> Service:
    """All keys together; what two settings add to, as to `devices`, is a list."""
    whole: Service = {}
    for part in parts:
        for key, value in part.items():
            whole[key] = whole[key] + value if key in whole else value
    return whole


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
