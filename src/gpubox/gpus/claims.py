"""Which GPUs a running container was given: by a box's label, or by what Docker says of any other.

Pure: Docker's words in, the GPUs that they mean out. Knows no machine: an index, a UUID and a
device file stay what they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gpubox import values
from gpubox.values import ALL_GPUS, NO_GPUS, Gpus

SHARED, NO_CLAIM = "shared", "none"  # what a box's label says of its claim; else it is exclusive
VISIBLE = "NVIDIA_VISIBLE_DEVICES"
NOTHING = ("", "none", "void")

# A CDI name, and the ways in which `nvidia-ctk cdi generate` counts: 0, gpu0, 0:1, mig0:1, GPU-...
_CDI = re.compile(r"(?:runtime\.)?nvidia\.com/[^=]+=(?:(?:gpu|mig)(?=\d))?(?P<id>.+)")
_NODE = re.compile(r"/dev/nvidia\d+")  # not nvidiactl and nvidia-uvm, which are no GPU's


def of_label(text: str) -> Gpus:
    """What a box's label says: UUIDs, `index:N`, `all` or `none`."""
    return _gpus(word.strip().removeprefix("index:") for word in text.split(","))


def of_container(found: Mapping[str, Any]) -> Gpus:
    """What Docker's answer to `inspect` says; a privileged container sees every GPU there is."""
    host = found.get("HostConfig") or {}
    if host.get("Privileged"):
        return ALL_GPUS
    requests = [one for one in host.get("DeviceRequests") or () if is_for_gpus(one)]
    words = [word for request in requests for word in _requested(request)]
    words += _files(host.get("Devices") or ())
    if not words and (_runs_the_hook(host) or requests):  # a request for 0 leaves it to the image
        words = _visible((found.get("Config") or {}).get("Env") or ())
    return _gpus(words)


def is_for_gpus(request: Mapping[str, Any]) -> bool:
    """Whether NVIDIA's GPUs are asked for; `gpu` alone is what `--gpus` says on every machine."""
    driver = request.get("Driver") or ""
    if driver == "cdi":
        return any(_CDI.fullmatch(word) for word in request.get("DeviceIDs") or ())
    wanted = {word for group in request.get("Capabilities") or () for word in group}
    return driver.startswith("nvidia") or (not driver and bool(wanted & {"gpu", "nvidia"}))


def _requested(request: Mapping[str, Any]) -> Iterator[str]:
    """A count is of the first GPUs, for Docker's own choice knows nothing of who uses them."""
    count = request.get("Count") or 0
    ids = request.get("DeviceIDs") or ("all",) * (count < 0)
    yield from ids or map(str, range(count))


def _files(devices: Iterable[Mapping[str, Any]]) -> list[str]:
    """Podman tells CDI names here too."""
    paths = [str(device.get("PathOnHost") or "") for device in devices]
    return [path for path in paths if _NODE.fullmatch(path) or _CDI.fullmatch(path)]


def _runs_the_hook(host: Mapping[str, Any]) -> bool:
    """Whether its runtime is NVIDIA's, by itself or as the engine's default."""
    return "nvidia" in (host.get("Runtime") or "")


def _visible(environment: Iterable[str]) -> list[str]:
    """Images of before there was the variable get all GPUs without it."""
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
