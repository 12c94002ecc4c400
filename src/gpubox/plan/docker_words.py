"""Writes each setting in three ways: for docker-py, as words of `docker run`, for a Compose file.

The three stand side by side here and nowhere else. Pure: plain data only, so it needs neither
docker-py nor an engine.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from gpubox import values
from gpubox.errors import GpuboxError

Words = list[str]
Service = dict[str, Any]


class Arguments(msgspec.Struct, frozen=True):
    """What docker-py is given: `run` is `containers.run`'s keyword arguments.

    `host_config` holds keys of the engine's API, for what that call cannot express.
    """

    run: dict[str, Any] = {}
    host_config: dict[str, Any] = {}


NVIDIA_GPU = "nvidia.com/gpu="  # a CDI device's name begins so; its index or UUID follows


class Say(NamedTuple):
    """How one setting is passed on: `api` to docker-py, `line` as options of `docker run` (a list
    of words for each), `compose` as keys of a service."""

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


# only `docker run` and Compose pull by themselves; the API's call to create a container does not
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
    keys: dict[str, Any] = {"Type": "bind" if mount.bind else "volume", "Target": mount.target}
    if mount.source:
        keys["Source"] = mount.source
    if mount.read_only:
        keys["ReadOnly"] = True
    if mount.consistency:
        keys["Consistency"] = mount.consistency
    if mount.propagation:
        keys["BindOptions"] = {"Propagation": mount.propagation}
    if mount.nocopy:
        keys["VolumeOptions"] = {"NoCopy": True}
    return keys


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
    # not as docker-py's `volumes`: with a mode other than ro and rw that makes a stray volume
    return Arguments({"mounts": plain} if plain else {}, {"Binds": binds} if binds else {})


def _mount_compose(mount: values.Mount) -> Any:
    if mount.relabels:  # the short form, which alone keeps Compose from making a missing folder
        return str(mount)
    keys: dict[str, Any] = {"type": "bind" if mount.bind else "volume"}
    keys |= {"source": mount.source} if mount.source else {}
    keys |= {"target": mount.target}
    keys |= {"read_only": True} if mount.read_only else {}
    keys |= {"consistency": mount.consistency} if mount.consistency else {}
    if mount.bind:
        keys["bind"] = {"create_host_path": False}
        keys["bind"] |= {"propagation": mount.propagation} if mount.propagation else {}
    return keys | ({"volume": {"nocopy": True}} if mount.nocopy else {})


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
    """`NAME=value` for the box.

    Of a `secret` one a printed line shows the name alone. An `inherited` one has the value that it
    has in the caller's shell, so `-e NAME` sets it.
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
    """A file of variables: a printed line names its path, docker-py gets its `NAME=value` lines."""

    path: str
    variables: tuple[str, ...]


env_files = Say(
    lambda files: Arguments({"environment": [text for file in files for text in file.variables]}),
    lambda files: [["--env-file", file.path] for file in files],
    # raw: as `docker run` reads them, without the quotes and variables that Compose knows
    lambda files: {"env_file": [{"path": file.path, "format": "raw"} for file in files]},
)


class SecurityOption(NamedTuple):
    """A value of `--security-opt`; the API takes a seccomp file's `content`, not its path."""

    text: str
    content: str = ""


def _compact(option: SecurityOption) -> str:
    try:
        return json.dumps(json.loads(option.content), separators=(",", ":"), ensure_ascii=False)
    except ValueError as error:
        raise GpuboxError(f"{option.text.partition('=')[2]} is not JSON: {error}") from None


def _security_opt_api(options: Sequence[SecurityOption]) -> Arguments:
    rest = [option for option in options if option.text != SYSTEM_PATHS]
    texts = [f"seccomp={_compact(each)}" if each.content else each.text for each in rest]
    # the `docker` program makes empty masks of systempaths=unconfined, which the API does not know
    masks: dict[str, Any] = {"MaskedPaths": [], "ReadonlyPaths": []}
    return Arguments({"security_opt": texts}, masks if len(rest) < len(options) else {})


SYSTEM_PATHS = "systempaths=unconfined"
security_opt = Say(
    _security_opt_api,
    lambda options: [["--security-opt", option.text] for option in options],
    lambda options: {"security_opt": [option.text for option in options]},
)


# --- GPUs


class GpuRequest(msgspec.Struct, frozen=True):
    """GPUs, and how the engine is asked for them.

    `hook`: by a device request, for NVIDIA's runtime hook or an engine that maps it to CDI itself.
    `cdi`: by the names of CDI devices. No GPUs are no request at all.
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
    keywords: dict[str, Any] = {"devices": plain} if plain else {}
    if cdi:
        keywords["device_requests"] = [{"Driver": "cdi", "DeviceIDs": cdi}]
    return Arguments(keywords)


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
        {"ulimits": [{"Name": each.name, "Soft": each.soft, "Hard": each.hard} for each in items]}
    ),
    lambda items: [["--ulimit", str(item)] for item in items],
    lambda items: {
        "ulimits": {each.name: {"soft": each.soft, "hard": each.hard} for each in items}
    },
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
    lambda _: {},  # no such key: `docker compose down` removes a service's containers
)
labels = Say(
    lambda items: Arguments({"labels": dict(items)}),
    lambda items: [["--label", f"{key}={text}" if text else key] for key, text in items],
    # a list, because in a mapping Compose takes names like x-y for its extension fields
    lambda items: {"labels": [f"{key}={text}" for key, text in items]},
)


# --- all of them

# In the order of a printed line. What is not here the plan turns into other settings.
BY_KEY: Mapping[str, Say] = {
    "pull_policy": pull,
    "gpus": gpus,
    "entrypoint": entrypoint,
    "working_dir": option("--workdir", "working_dir"),
    "env_file": env_files,
    "environment": environment,
    "user": option("--user", "user"),
    "ports": ports,
    "volumes": mounts,
    "shm_size": option("--shm-size", "shm_size", text=values.size_written),
    "ipc": option("--ipc", "ipc_mode", key="ipc"),
    "ulimits": ulimits,
    "mem_limit": option("--memory", "mem_limit", text=values.size_written),
    "cpus": option("--cpus", "nano_cpus", text=values.cpus_written, key="cpus"),
    "network_mode": option("--network", "network_mode"),
    "hostname": option("--hostname", "hostname"),
    "labels": labels,
    "restart": restart,
    "init": init,
    "rm": remove,
    "cap_add": each("--cap-add", "cap_add"),
    "security_opt": security_opt,
    "devices": devices,
}


def service(parts: Iterable[Service]) -> Service:
    """All keys together; lists to which two settings add, like `devices`, are joined."""
    whole: Service = {}
    for part in parts:
        for key, value in part.items():
            whole[key] = whole[key] + value if key in whole else value
    return whole


def merged(parts: Iterable[Arguments]) -> Arguments:
    """All arguments together; what two settings add to is joined as the `docker` program does.

    That is `environment` and `device_requests`, of which all CDI devices become one request.
    """
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
