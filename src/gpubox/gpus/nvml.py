"""NVIDIA's management library (NVML): what it says of this machine's driver and GPUs, as records.

The only module with nvidia-ml-py, which is loaded when it is needed. Knows no engine and no claims.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from gpubox.errors import GpuboxError
from gpubox.gpus.machine import Device, Gpu, Machine, Process

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
    """NVML cannot be asked. `code` is its error number, 0 where not even its library was loaded."""

    code = 0


class NoDriver(NoNvml):
    """There is no driver to ask."""


def machine() -> Machine:
    """This machine's driver and GPUs; what an old driver, or a GPU, does not tell stays empty."""
    library = _library()  # first: without it there is no use in loading pynvml, which is large
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
    """NVML, started and at the end shut down; its errors become NoNvml."""
    import pynvml

    pynvml.nvmlLib = pynvml.nvmlLib or library
    try:
        _start()
        try:
            yield
        finally:
            with suppress(pynvml.NVMLError):  # the answers are here already
                pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        failed = f"NVIDIA's management library failed: {error}"
        no_nvml = NoNvml(*TROUBLES.get(error.value, (failed, "nvidia-smi must work first")))
        no_nvml.code = error.value
        raise no_nvml from error


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


# --- what a GPU is

Questions = Mapping[str, Callable[[Any], Any]]


def _gpu(index: int) -> Gpu:
    """One GPU; one that cannot be read is in the list all the same, with its trouble."""
    import pynvml

    questions: Questions = {
        "uuid": pynvml.nvmlDeviceGetUUID,
        "name": pynvml.nvmlDeviceGetName,
        "brand": lambda device: _brand(pynvml.nvmlDeviceGetBrand(device)),
        "capability": pynvml.nvmlDeviceGetCudaComputeCapability,
        "memory": lambda device: pynvml.nvmlDeviceGetMemoryInfo(device).total,
    }
    try:
        return Gpu(index=index, **_answers(pynvml.nvmlDeviceGetHandleByIndex(index), questions))
    except pynvml.NVMLError as error:
        return Gpu(index=index, trouble=str(error))


def _answers(device: Any, questions: Questions) -> dict[str, Any]:
    """The answers about a device, by field; without those that it does not give."""
    import pynvml

    known: dict[str, Any] = {}
    for field, question in questions.items():
        try:
            answer = _told(question, device)
        except pynvml.NVMLError as error:
            known["trouble"] = str(error)
        else:
            if answer is not None:
                known[field] = answer
    return known


def _brand(number: int) -> str:
    return BRANDS[number] if number < len(BRANDS) else "unknown"


def _told(question: Callable[..., Any], *about: object) -> Any:
    """The answer; None where this driver or this GPU has none."""
    import pynvml

    try:
        return question(*about)
    except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NotSupported):
        return None


# --- what happens on it


def devices() -> tuple[Device, ...]:
    """All GPUs, each with its MIG instances behind it, and who uses them now."""
    library = _library()
    import pynvml

    with _opened(library):
        count = pynvml.nvmlDeviceGetCount()
        return tuple(device for index in range(count) for device in _with_instances(index))


@contextmanager
def awake() -> Iterator[None]:
    """Keep NVML open for several looks: unused GPUs fall asleep, and each look would wake them."""
    with ExitStack() as held:
        with suppress(NoNvml):  # the looks themselves will say why
            held.enter_context(_opened(_library()))
        yield


def _with_instances(index: int) -> Iterator[Device]:
    import pynvml

    try:
        gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError as error:
        yield Device(index=str(index), trouble=str(error))
        return
    whole = _device(gpu, str(index))
    yield whole
    if whole.divided:
        most = _answers(gpu, {"instances": pynvml.nvmlDeviceGetMaxMigDeviceCount})
        for number in range(most.get("instances", 0)):
            with suppress(pynvml.NVMLError):  # not every number has an instance
                instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, number)
                yield _device(instance, f"{index}:{number}")


def _device(device: Any, index: str) -> Device:
    import pynvml

    questions: Questions = {
        "uuid": pynvml.nvmlDeviceGetUUID,
        "name": pynvml.nvmlDeviceGetName,
        "minor": pynvml.nvmlDeviceGetMinorNumber,
        "memory": _memory,
        "utilization": lambda device: pynvml.nvmlDeviceGetUtilizationRates(device).gpu,
        "temperature": lambda device: pynvml.nvmlDeviceGetTemperature(
            device, pynvml.NVML_TEMPERATURE_GPU
        ),
        "divided": lambda device: bool(pynvml.nvmlDeviceGetMigMode(device)[0]),
        "processes": _processes,
    }
    known = _answers(device, questions)
    total, used = known.pop("memory", (None, None))
    return Device(index=index, memory=total, used=used, **known)


def _memory(device: Any) -> tuple[int, int]:
    """Bytes in all, and bytes in use: without the driver's own, where it tells them apart."""
    import pynvml

    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(device, pynvml.nvmlMemory_v2)
    except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NotSupported):
        memory = pynvml.nvmlDeviceGetMemoryInfo(device)
    return memory.total, memory.used


def _processes(device: Any) -> tuple[Process, ...] | None:
    """Who uses it; None where the driver does not tell, or only root may ask."""
    import pynvml

    try:
        computing = _listed(device, "Compute")
        if computing is None:
            return None
        shared = _listed(device, "MPSCompute") or {}
        drawing = _listed(device, "Graphics") or {}
    except pynvml.NVMLError_NoPermission:
        return None
    working = shared | computing
    return (
        *(Process(pid, memory) for pid, memory in working.items()),
        *(Process(pid, memory, True) for pid, memory in drawing.items() if pid not in working),
    )


def _listed(device: Any, kind: str) -> dict[int, int | None] | None:
    """The bytes of each process of a kind, by its number: asked by the newest call that it has."""
    import pynvml

    name = f"nvmlDeviceGet{kind}RunningProcesses"
    for call in (getattr(pynvml, f"{name}_v3"), getattr(pynvml, f"{name}_v2")):
        with suppress(pynvml.NVMLError_FunctionNotFound):
            try:
                return {process.pid: process.usedGpuMemory for process in call(device)}
            except pynvml.NVMLError_NotSupported:
                return None
    first = getattr(pynvml.nvmlLib, name, None)
    return _first_listed(first, device) if first else None


class _FirstProcess(ctypes.Structure):
    """A process as drivers before branch 455 tell it; nvidia-ml-py knows only later records."""

    _fields_ = (("pid", ctypes.c_uint), ("memory", ctypes.c_ulonglong))


def _first_listed(call: Any, device: Any) -> dict[int, int | None] | None:
    import pynvml

    room = 0
    while True:
        count, records = ctypes.c_uint(room), (_FirstProcess * room)()
        code = call(device, ctypes.byref(count), records if room else None)
        if code == pynvml.NVML_ERROR_NOT_SUPPORTED:
            return None
        if code == pynvml.NVML_SUCCESS:
            untold = pynvml.NVML_VALUE_NOT_AVAILABLE_ulonglong.value
            listed = records[: count.value]
            return {it.pid: None if it.memory == untold else it.memory for it in listed}
        if code != pynvml.NVML_ERROR_INSUFFICIENT_SIZE:
            raise pynvml.NVMLError(code)
        room = 2 * count.value + 5  # more processes may have come meanwhile
