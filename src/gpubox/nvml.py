"""NVIDIA's management library: what it says of this machine's driver and GPUs, as our records.

The only room with nvidia-ml-py, loaded when asked. Knows no images, no engine and no claims.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from gpubox.errors import GpuboxError
from gpubox.gpus import Gpu, Machine

# Under WSL the driver is Windows', and its library lies where the linker may not look.
LIBRARIES = ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")

# What a GPU is sold as, by NVML's number, in the words of an image's NVIDIA_REQUIRE_CUDA.
BRANDS = (
    *("unknown", "quadro", "tesla", "nvs", "grid", "geforce", "titan"),
    *("vapps", "vpc", "vcs", "vws", "cloudgaming"),
    *("quadrortx", "nvidiartx", "nvidia", "geforcertx", "titanrtx"),
)

# NVML's error numbers
NO_PERMISSION, DRIVER_NOT_LOADED, VERSION_MISMATCH = 4, 9, 18

TROUBLES = {
    DRIVER_NOT_LOADED: (
        "the NVIDIA driver is not loaded on this machine",
        "sudo modprobe nvidia; nvidia-smi says when it works",
    ),
    VERSION_MISMATCH: (
        "the NVIDIA driver was updated and the old one is still loaded",
        "reboot the machine",
    ),
    NO_PERMISSION: (
        "no permission to ask the NVIDIA driver",
        "ls -l /dev/nvidia* shows who may",
    ),
}


class NoNvml(GpuboxError):
    """The driver tells nothing of this machine."""


class NoDriver(NoNvml):
    """There is no driver to ask."""


def machine() -> Machine:
    """This machine's driver and GPUs; what an old driver, or a GPU, does not tell is not known."""
    library = _library()  # a machine without it must not wait for the binding, which is large
    import pynvml

    with _opened(library):
        cuda = _told(pynvml.nvmlSystemGetCudaDriverVersion)
        return Machine(
            driver=_told(pynvml.nvmlSystemGetDriverVersion) or "",
            cuda=(cuda // 1000, cuda % 1000 // 10) if cuda else None,
            gpus=tuple(_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())),
        )


@contextmanager
def _opened(library: ctypes.CDLL) -> Iterator[None]:
    """NVML between its start and its end; its errors become ours."""
    import pynvml

    pynvml.nvmlLib = pynvml.nvmlLib or library
    try:
        _start()
        try:
            yield
        finally:
            with suppress(pynvml.NVMLError):  # what it told is known all the same
                pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        failed = f"NVIDIA's management library failed: {error}"
        raise NoNvml(*TROUBLES.get(error.value, (failed, "nvidia-smi must work first"))) from error


def _library() -> ctypes.CDLL:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            reason = str(error)
        if not (reason.startswith(f"{name}: ") and reason.endswith("No such file or directory")):
            raise NoNvml(
                f"NVIDIA's library cannot be loaded: {reason}", "install the NVIDIA driver again"
            )
    raise NoDriver(
        "this machine has no NVIDIA driver: there is no libnvidia-ml.so.1",
        "install the driver, until nvidia-smi lists the GPUs",
    )


def _start() -> None:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_FunctionNotFound:  # old drivers take no flags
        if code := pynvml.nvmlLib.nvmlInit_v2():
            raise pynvml.NVMLError(code) from None


def _gpu(index: int) -> Gpu:
    """One GPU; one that cannot be read keeps its place, and says why."""
    import pynvml

    try:
        device = pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError as error:
        return Gpu(index=index, trouble=str(error))
    questions: dict[str, Callable[[Any], Any]] = {
        "uuid": pynvml.nvmlDeviceGetUUID,
        "name": pynvml.nvmlDeviceGetName,
        "brand": lambda device: _brand(pynvml.nvmlDeviceGetBrand(device)),
        "capability": pynvml.nvmlDeviceGetCudaComputeCapability,
        "memory": lambda device: pynvml.nvmlDeviceGetMemoryInfo(device).total,
    }
    known: dict[str, Any] = {}
    for field, question in questions.items():
        try:
            answer = _told(question, device)
        except pynvml.NVMLError as error:
            known["trouble"] = str(error)
        else:
            if answer is not None:
                known[field] = answer
    return Gpu(index=index, **known)


def _brand(number: int) -> str:
    return BRANDS[number] if number < len(BRANDS) else "unknown"


def _told(question: Callable[..., Any], *about: object) -> Any:
    """The answer; None where this driver or this GPU has none."""
    import pynvml

    try:
        return question(*about)
    except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NotSupported):
        return None
