"""CDI specifications: which GPUs a file promises, and whether those are the machine's.

Pure: a file's text and a machine's GPUs in, names out. Knows no folders and no engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gpubox.errors import ProfileError
from gpubox.gpus.machine import Gpu
from gpubox.profile.layers import read as read_yaml

KIND = "nvidia.com/gpu"
FOLDERS = ("/etc/cdi", "/var/run/cdi")  # where engines look unless they are told otherwise


class Spec(msgspec.Struct, frozen=True):
    """What a file says of NVIDIA's GPUs. `driver` is the version of the libraries that it mounts;
    `trouble` says why it cannot be read."""

    path: str
    devices: tuple[str, ...] = ()
    driver: str = ""
    trouble: str = ""


def spec(path: str, text: str) -> Spec | None:
    """A file's text as a specification; None where it is of other devices."""
    try:
        content = _parsed(path, text)
        if content.get("kind") != KIND:
            return None
        devices = tuple(str(device["name"]) for device in content["devices"])
    except ProfileError as error:  # of YAML, with its file and line
        return Spec(path, trouble=error.problem)
    except ValueError as error:
        return Spec(path, trouble=f"{path}: not JSON: {error}")
    except (TypeError, LookupError, AttributeError):
        return Spec(path, trouble=f"{path}: no CDI specification")
    library = re.search(r"/libcuda\.so\.(\d+(?:\.\d+)+)", text)
    return Spec(path, devices, library[1] if library else "")


def _parsed(path: str, text: str) -> Any:
    if path.endswith(".json"):
        return json.loads(text)
    return {key: value.plain() for key, value in read_yaml(text, path, Path("/")).items()}


def names(devices: Iterable[str]) -> tuple[str, ...]:
    """The names of NVIDIA's GPUs among an engine's CDI devices, without the kind in front."""
    prefix = f"{KIND}="
    return tuple(name.removeprefix(prefix) for name in devices if name.startswith(prefix))


def missing(devices: Sequence[str], gpus: Iterable[Gpu]) -> list[Gpu]:
    """The machine's GPUs that are not among the devices; any MIG instance of one is enough.

    Under WSL the only device is `all`, which cannot be compared.
    """
    if set(devices) == {"all"}:
        return []
    by_uuid = any(name.startswith("GPU-") for name in devices)
    divided = {name.partition(":")[0] for name in devices if ":" in name}
    return [
        gpu
        for gpu in gpus
        if not gpu.trouble
        and str(gpu.index) not in divided
        and (gpu.uuid if by_uuid and gpu.uuid else str(gpu.index)) not in devices
    ]


def surplus(devices: Iterable[str], gpus: Sequence[Gpu]) -> list[str]:
    """The devices that are no GPU of the machine; MIG instances are not looked at."""
    whole = {str(gpu.index) for gpu in gpus} | {gpu.uuid for gpu in gpus}
    unread = any(not gpu.uuid for gpu in gpus)
    return [
        name
        for name in devices
        if name not in whole and (name.isdigit() or (name.startswith("GPU-") and not unread))
    ]
