"""Machines with NVIDIA GPUs, simulated below NVIDIA's own Python binding: `nvml.c`, built and fed.

A machine is written as a file and served by a small libnvidia-ml.so.1, which has the functions that
such a driver has. Knows no engine; its GTX 1080 Ti are those of `lab.gpus`.
"""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lab import gpus
from lab.errors import LabError

SOURCE = Path(__file__).with_name("nvml.c")
LIBRARY = "libnvidia-ml.so.1"
MIB = 1 << 20
GIB = 1 << 30

# NVML's own numbers, as far as machines here need them
TESLA, GEFORCE, NVIDIA = 2, 5, 14
NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED = 3, 4, 9
GPU_IS_LOST, VERSION_MISMATCH = 15, 18
NO_INSTANCE = 0xFFFFFFFF

# From which driver branch on a library has it; NVIDIA's headers and manuals date it, by and large.
SINCE = {
    "nvmlInitWithFlags": 384,
    "nvmlSystemGetCudaDriverVersion": 390,
    "nvmlDeviceGetPciInfo_v3": 390,
    "nvmlSystemGetCudaDriverVersion_v2": 410,
    "nvmlDeviceGetMigMode": 450,
    "nvmlDeviceGetMaxMigDeviceCount": 450,
    "nvmlDeviceGetMigDeviceHandleByIndex": 450,
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": 450,
    "nvmlDeviceIsMigDeviceHandle": 450,
    "nvmlDeviceGetGpuInstanceId": 450,
    "nvmlDeviceGetComputeInstanceId": 450,
    "nvmlDeviceGetAttributes": 450,
    "nvmlDeviceGetAttributes_v2": 450,
    "nvmlDeviceGetComputeRunningProcesses_v2": 455,
    "nvmlDeviceGetGraphicsRunningProcesses_v2": 455,
    "nvmlDeviceGetMPSComputeRunningProcesses": 455,
    "nvmlDeviceGetMPSComputeRunningProcesses_v2": 460,
    "nvmlDeviceGetMemoryInfo_v2": 510,
    "nvmlDeviceGetComputeRunningProcesses_v3": 510,
    "nvmlDeviceGetGraphicsRunningProcesses_v3": 510,
    "nvmlDeviceGetMPSComputeRunningProcesses_v3": 510,
    "nvmlDeviceGetTemperatureV": 570,
}


@dataclass(frozen=True)
class Process:
    """One that uses a GPU; `kind` is compute, graphics or mps. On no MIG device unless said."""

    pid: int
    memory: int = 0
    kind: str = "compute"
    instance: tuple[int, int] = (NO_INSTANCE, NO_INSTANCE)


@dataclass(frozen=True, kw_only=True)
class Mig:
    """A MIG device: its GPU instance and compute instance, and what it has of its GPU."""

    uuid: str
    name: str
    instance: tuple[int, int]
    memory: int
    multiprocessors: int
    slices: tuple[int, int]  # of the GPU instance, of the compute instance
    used: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Card:
    """One GPU. `failures` are NVML's error numbers by function, `*` for every one."""

    name: str
    uuid: str
    brand: int
    capability: tuple[int, int]
    memory: int
    bus: str = "00000000:01:00.0"
    used: int = 0
    reserved: int = 0
    utilization: tuple[int, int] = (0, 0)  # percent: of the GPU, of its memory
    temperature: int = 40
    persistence: bool = False
    mig_mode: tuple[bool, bool] | None = None  # now, after the next reset; None: it cannot
    migs: tuple[Mig, ...] = ()
    processes: tuple[Process, ...] = ()
    failures: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A driver and its GPUs. `cuda` is the newest that the driver knows, whether it tells or not.

    `without` are functions that the library lacks, beside those that came after its driver.
    """

    driver: str
    cuda: tuple[int, int]
    cards: tuple[Card, ...] = ()
    without: frozenset[str] = frozenset()
    failures: Mapping[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> frozenset[str]:
        branch = int(self.driver.partition(".")[0])
        return self.without | {name for name, since in SINCE.items() if branch < since}

    def failing(self, function: str, code: int) -> Machine:
        return replace(self, failures={**self.failures, function: code})

    def card_failing(self, index: int, function: str, code: int) -> Machine:
        return self.with_card(index, failures={**self.cards[index].failures, function: code})

    def with_card(self, index: int, **changed: Any) -> Machine:
        cards = list(self.cards)
        cards[index] = replace(cards[index], **changed)
        return replace(self, cards=tuple(cards))


def write(machine: Machine, path: Path) -> None:
    """The file that the library reads; it sees another one, whole, at its next nvmlInit."""
    new = path.with_name(f"{path.name}.new")
    new.write_text("".join(f"{line}\n" for line in _lines(machine)))
    new.replace(path)


def _lines(machine: Machine) -> Iterator[str]:
    major, minor = machine.cuda
    yield f"driver {machine.driver}"
    yield f"nvml {major}.{machine.driver}"
    yield f"cuda {1000 * major + 10 * minor}"
    yield from _failures(machine.failures)
    for card in machine.cards:
        yield from _card(card)


def _card(card: Card) -> Iterator[str]:
    yield "gpu"
    yield f"name {card.name}"
    yield f"uuid {card.uuid}"
    yield f"brand {card.brand}"
    yield _numbers("capability", *card.capability)
    yield f"bus {card.bus}"
    yield _numbers("memory", card.memory, card.used, card.reserved)
    yield _numbers("utilization", *card.utilization)
    yield _numbers("temperature", card.temperature)
    yield _numbers("persistence", card.persistence)
    if card.mig_mode is not None:
        yield _numbers("mig-mode", *card.mig_mode, 7)
    for process in card.processes:
        yield _numbers(f"process {process.kind}", process.pid, process.memory, *process.instance)
    yield from _failures(card.failures)
    for mig in card.migs:
        yield from _mig(mig)


def _mig(mig: Mig) -> Iterator[str]:
    yield "mig"
    yield f"name {mig.name}"
    yield f"uuid {mig.uuid}"
    yield _numbers("memory", mig.memory, mig.used, 0)
    yield _numbers("instance", *mig.instance)
    engines = (1, 0, 0, 0, 0)  # copy, decoders, encoders, jpegs, ofas
    yield _numbers("attributes", mig.multiprocessors, *engines, *mig.slices, mig.memory // MIB)
    yield from _failures(mig.failures)


def _failures(failures: Mapping[str, int]) -> Iterator[str]:
    return (f"fail {function} {code}" for function, code in failures.items())


def _numbers(word: str, *numbers: int) -> str:
    return " ".join([word, *(str(int(number)) for number in numbers)])


class Libraries:
    """Built where first asked for: one folder for each set of functions that a driver lacks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built: dict[frozenset[str], Path] = {}

    def without(self, missing: frozenset[str]) -> Path:
        """The folder of a library; to be named in LD_LIBRARY_PATH."""
        if missing not in self._built:
            folder = self._folder / f"nvml-{len(self._built)}"
            folder.mkdir()
            _build(folder / LIBRARY, missing)
            self._built[missing] = folder
        return self._built[missing]

    def serve(self, machine: Machine, path: Path) -> dict[str, str]:
        """What a program's environment needs to be on this machine, which is written to `path`."""
        write(machine, path)
        library = self.without(machine.missing)
        return {"LD_LIBRARY_PATH": str(library), "SIMULATED_NVML": str(path)}


def _build(library: Path, missing: Iterable[str]) -> None:
    source = SOURCE.read_text()
    for name in missing:
        assert name in source, f"{SOURCE.name} has no {name}: a driver cannot lack it"
    hidden = library.with_name("hidden.map")
    hidden.write_text("{ local: _none; " + "".join(f"{name}; " for name in missing) + "};\n")
    compiler = shutil.which("cc")
    if compiler is None:
        raise LabError("the simulated NVML needs a C compiler", "apt-get install gcc libc6-dev")
    subprocess.run(
        [
            *(compiler, "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"),
            *(f"-Wl,-soname,{LIBRARY}", f"-Wl,--version-script={hidden}"),
            *("-o", str(library), str(SOURCE)),
        ],
        check=True,
    )


# --- machines ready made. What a driver calls each card was looked up in published `nvidia-smi -q`:
# GeForce cards are GeForce; Tesla up to Volta; from Turing on data-centre cards are NVIDIA with the
# drivers seen (470 an A16, 525 an A100, 530 and 535 a T4, 545 an H100). An A100 on 470 is a guess.


def _uuid(kind: str, name: str) -> str:
    return f"{kind}-{uuid.uuid5(uuid.NAMESPACE_URL, f'gpubox/{name}')}"


def _bus(index: int) -> str:
    return f"00000000:{index + 1:02X}:00.0"


def _cards(count: int, model: Card) -> tuple[Card, ...]:
    return tuple(
        replace(model, uuid=_uuid("GPU", f"{model.name}/{index}"), bus=_bus(index))
        for index in range(count)
    )


def gtx_1080_ti(count: int) -> tuple[Card, ...]:
    """Those that the engines of the tests hand out."""
    return tuple(
        Card(
            name=gpu.name,
            uuid=gpu.uuid,
            brand=GEFORCE,
            capability=(6, 1),
            memory=11264 * MIB,
            bus=_bus(gpu.index),
        )
        for gpu in gpus.simulated(count)
    )


GTX_1080_TI = gtx_1080_ti(4)


def _model(name: str, brand: int, capability: tuple[int, int], memory: int) -> Card:
    return Card(name=name, uuid="", brand=brand, capability=capability, memory=memory)


T4 = _model("Tesla T4", NVIDIA, (7, 5), 15360 * MIB)
V100 = _model("Tesla V100-SXM2-16GB", TESLA, (7, 0), 16384 * MIB)
A100 = replace(
    _model("NVIDIA A100-SXM4-40GB", NVIDIA, (8, 0), 40960 * MIB),
    persistence=True,
    mig_mode=(False, False),
)
H100 = replace(
    _model("NVIDIA H100 80GB HBM3", NVIDIA, (9, 0), 81559 * MIB),
    persistence=True,
    mig_mode=(False, False),
)
RTX_4090 = _model("NVIDIA GeForce RTX 4090", GEFORCE, (8, 9), 24564 * MIB)
RTX_5090 = _model("NVIDIA GeForce RTX 5090", GEFORCE, (12, 0), 32607 * MIB)


def _mig_device(index: int, profile: str, instance: int, gib: int, sms: int, slices: int) -> Mig:
    return Mig(
        uuid=_uuid("MIG", f"{A100.name}/{profile}/{index}"),
        name=f"{A100.name} MIG {profile}",
        instance=(instance, 0),
        memory=gib * GIB,
        multiprocessors=sms,
        slices=(slices, slices),
    )


MIGS = (
    _mig_device(0, "3g.20gb", 2, 20, 42, 3),
    _mig_device(1, "1g.5gb", 9, 5, 14, 1),
    _mig_device(2, "1g.5gb", 10, 5, 14, 1),
)


def _on(driver: str, cuda: tuple[int, int], *cards: Card) -> Machine:
    return Machine(driver=driver, cuda=cuda, cards=cards)


MACHINES = {
    "1080ti-367.35": _on("367.35", (8, 0), *GTX_1080_TI),
    "1080ti-367.48": _on("367.48", (8, 0), *GTX_1080_TI),
    "1080ti-535": _on("535.183.01", (12, 2), *GTX_1080_TI),
    "1080ti-580": _on("580.65.06", (13, 0), *GTX_1080_TI),
    "t4-535": _on("535.183.01", (12, 2), *_cards(1, T4)),
    "v100-580": _on("580.65.06", (13, 0), *_cards(1, V100)),
    "a100-470": _on("470.57.02", (11, 4), *_cards(1, A100)),
    "a100-535": _on("535.183.01", (12, 2), *_cards(1, A100)),
    "h100-535": _on("535.183.01", (12, 2), *_cards(1, H100)),
    "4090-550": _on("550.54.14", (12, 4), *_cards(1, RTX_4090)),
    "5090-570": _on("570.26", (12, 8), *_cards(1, RTX_5090)),
    "1080ti+a100-535": _on(
        "535.183.01", (12, 2), GTX_1080_TI[0], replace(_cards(1, A100)[0], bus=_bus(1))
    ),
    "8xa100-535": _on("535.183.01", (12, 2), *_cards(8, A100)),
    "a100-mig-535": _on(
        "535.183.01", (12, 2), replace(_cards(1, A100)[0], mig_mode=(True, True), migs=MIGS)
    ),
}
