"""Which GPUs a running container was given: by a box's label, or by what Docker says of any other.

Pure: Docker's words in, the GPUs that they mean out. Knows no machine, so an index, a UUID and a
device file are not resolved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gpubox import values
from gpubox.values import ALL_GPUS, NO_GPUS, Gpus

SHARED, NO_CLAIM = "shared", "none"  # what the label CLAIM says; else it is exclusive
VISIBLE = "NVIDIA_VISIBLE_DEVICES"
NOTHING = ("", "none", "void")

# A CDI name; `nvidia-ctk cdi generate` calls the devices 0, gpu0, 0:1, mig0:1 or GPU-...
_CDI = re.compile(r"(?:runtime\.)?nvidia\.com/[^=]+=(?:(?:gpu|mig)(?=\d))?(?P<id>.+)")
_NODE = re.compile(r"/dev/nvidia\d+")  # not nvidiactl and nvidia-uvm, which belong to all GPUs


def of_label(text: str) -> Gpus:
    """What a box's label says: UUIDs, `index:N`, `all` or `none`."""
    return _gpus(word.strip().removeprefix("index:") for word in text.split(","))


def of_container(inspection: Mapping[str, Any]) -> Gpus:
    """What Docker's answer to `inspect` says; a privileged container sees every GPU there is."""
    host = inspection.get("HostConfig") or {}
    if host.get("Privileged"):
        return ALL_GPUS
    requests = [one for one in host.get("DeviceRequests") or () if is_for_gpus(one)]
    words = [word for request in requests for word in _requested(request)]
    words += _files(host.get("Devices") or ())
    if not words and (_runs_the_hook(host) or requests):  # after a request for 0 the image decides
        words = _visible((inspection.get("Config") or {}).get("Env") or ())
    return _gpus(words)


def is_for_gpus(request: Mapping[str, Any]) -> bool:
    """Whether a device request is for NVIDIA's GPUs; `--gpus` alone says no more than `gpu`."""
    driver = request.get("Driver") or ""
    if driver == "cdi":
        return any(_CDI.fullmatch(word) for word in request.get("DeviceIDs") or ())
    wanted = {word for group in request.get("Capabilities") or () for word in group}
    return driver.startswith("nvidia") or (not driver and bool(wanted & {"gpu", "nvidia"}))


def _requested(request: Mapping[str, Any]) -> Iterator[str]:
    """The GPUs of a request; a count means the first ones, which Docker gives whoever uses them."""
    count = request.get("Count") or 0
    ids = request.get("DeviceIDs") or ("all",) * (count < 0)
    yield from ids or map(str, range(count))


def _files(devices: Iterable[Mapping[str, Any]]) -> list[str]:
    """The files of GPUs among a container's devices, and CDI names, which Podman lists there."""
    paths = [str(device.get("PathOnHost") or "") for device in devices]
    return [path for path in paths if _NODE.fullmatch(path) or _CDI.fullmatch(path)]


def _runs_the_hook(host: Mapping[str, Any]) -> bool:
    """Whether its runtime is NVIDIA's, asked for or the engine's default."""
    return "nvidia" in (host.get("Runtime") or "")


def _visible(environment: Iterable[str]) -> list[str]:
    """What the variable says. NVIDIA's hook gives all GPUs to CUDA images older than it."""
    variables = values.variables(environment)
    old = "CUDA_VERSION" in variables and "NVIDIA_REQUIRE_CUDA" not in variables
    return variables.get(VISIBLE, "all" if old else "").split(",")


def _gpus(words: Iterable[str]) -> Gpus:
    ids = list[str]()
    for word in words:
        name = _CDI.fullmatch(word)
        gpu = name["id"] if name else word
        if gpu == "all":
            return ALL_GPUS
        if gpu not in NOTHING:
            ids.append(gpu)
    return Gpus(tuple(dict.fromkeys(ids))) if ids else NO_GPUS
