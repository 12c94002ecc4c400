"""How an engine gives a box GPUs: by NVIDIA's hook, or as CDI devices.

Pure: what the engine says of itself comes in.
"""

from __future__ import annotations

import re
from typing import Literal

from gpubox import values
from gpubox.errors import EngineError
from gpubox.gpus.machine import Device
from gpubox.plan.docker_words import NVIDIA_GPU, GpuRequest
from gpubox.plan.facts import EngineFacts

Backend = Literal["hook", "cdi"]

_KNOWS_REQUESTS = (1, 40)  # Docker's API that brought `--gpus`
_TURNS_REQUESTS = (1, 53)  # from here on an engine turns `--gpus` into CDI devices if it has them
_PODMAN_KNOWS = (5, 4)


def backend(
    gpus: values.Gpus, engine: EngineFacts | None, *, hook_refused: bool = False
) -> Backend:
    """How to ask for these GPUs: by the hook, unless the engine is known to need CDI for them.

    `hook_refused`: it has just refused the usual request.
    """
    if gpus == values.NO_GPUS or gpus.count or engine is None:
        return "hook"
    if engine.podman:
        return "cdi"
    listed = set(GpuRequest(gpus, "cdi").cdi_names) <= set(engine.cdi_devices)
    if hook_refused:
        return "cdi" if engine.cdi_enabled or listed else "hook"
    by_name = listed and "nvidia" not in engine.runtimes and engine.api < _TURNS_REQUESTS
    return "cdi" if by_name else "hook"


def is_gated(by: Backend, engine: EngineFacts | None) -> bool:
    """Whether NVIDIA's hook gives the box its GPUs: it refuses images that ask for newer drivers.

    CDI refuses none, and a newer engine turns the usual request into CDI devices if it has them.
    """
    turned = engine is not None and engine.api >= _TURNS_REQUESTS and has_cdi(engine)
    return by == "hook" and not turned


def has_cdi(engine: EngineFacts) -> bool:
    """Whether the engine has CDI devices of NVIDIA's."""
    return any(name.startswith(NVIDIA_GPU) for name in engine.cdi_devices)


def ignores_devices(podman: str) -> bool:
    """Whether this version of Podman starts a box without the GPUs and CDI devices it asks for."""
    numbers = re.findall(r"\d+", podman)  # `5.4.0-dev` has them too
    return bool(podman) and tuple(map(int, numbers[:2])) < _PODMAN_KNOWS


def knows_requests(engine: EngineFacts) -> bool:
    """Whether GPUs can be requested of the engine; of Podman's service, whatever API it speaks."""
    return bool(engine.podman) or engine.api >= _KNOWS_REQUESTS


def refuse(gpus: values.Gpus, engine: EngineFacts | None) -> None:
    """Raise if this engine would start a box without these GPUs."""
    if engine is None or gpus == values.NO_GPUS:
        return
    if ignores_devices(engine.podman):
        raise EngineError(
            f"Podman {engine.podman} ignores GPU requests: the box would run without a GPU",
            "use Podman 5.4 or newer, a Docker Engine, or --gpus none",
        )
    if not knows_requests(engine):
        raise EngineError(
            f"this engine (API {engine.api[0]}.{engine.api[1]}) knows no GPU requests",
            "upgrade to Docker 20.10 or newer, or use --gpus none",
        )


def spelt(device: Device, engine: EngineFacts | None) -> str:
    """How this engine is asked for a GPU: by its UUID, unless its CDI devices are only numbered."""
    listed = set(engine.cdi_devices) if engine else set()
    numbered = f"{NVIDIA_GPU}{device.index}" in listed
    by_uuid = device.uuid and (not numbered or f"{NVIDIA_GPU}{device.uuid}" in listed)
    return device.uuid if by_uuid else device.index
