"""The GPUs of a machine and the driver under them, as records; and which of them overlap.

Pure. `nvml` reads them from the driver, `fits` knows which images they run, `holders` who has them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gpubox.figures import listed

Capability = tuple[int, int]
SHORT_UUID = 12  # characters: GPU- and the first eight of its own


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU. `brand` is spelt as images ask for it (`geforce`, `tesla`, `nvidia`, `quadrortx`).

    `capability` is CUDA's compute capability, (6, 1) for a GTX 1080 Ti; `memory` is bytes. What a
    driver does not tell is empty, None or 0; `trouble` is why a GPU cannot be read, if it cannot.
    """

    index: int
    uuid: str = ""
    name: str = ""
    brand: str = ""
    capability: Capability | None = None
    memory: int = 0
    trouble: str = ""


class Machine(msgspec.Struct, frozen=True):
    """What NVML says of a machine. `driver` is its version, like "535.183.01".

    `cuda` is the newest that this driver runs; None for drivers before branch 390, which tell none.
    """

    driver: str
    cuda: tuple[int, int] | None = None
    gpus: tuple[Gpu, ...] = ()

    @property
    def sound(self) -> tuple[Gpu, ...]:
        """The GPUs that can be read."""
        return tuple(gpu for gpu in self.gpus if not gpu.trouble)


class Process(msgspec.Struct, frozen=True):
    """A process on a GPU, by its number on the host.

    `memory` is its bytes on the GPU, None where they are not told; one that `draws` only has
    graphics there and computes nothing.
    """

    pid: int
    memory: int | None = None
    draws: bool = False


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """What a box can be given, and what happens on it now: a GPU, or a MIG instance of one.

    `index` is "0", of an instance "0:1". `minor` is the number of the GPU's file, /dev/nvidia0.
    `memory` and `used` are bytes, `utilization` percent, `temperature` degrees Celsius. What a
    driver does not tell is None, or empty. `divided`: the GPU is in MIG mode, so only its instances
    can be used. `trouble`: why it cannot be read.
    """

    index: str
    uuid: str = ""
    name: str = ""
    minor: int | None = None
    memory: int | None = None
    used: int | None = None
    utilization: int | None = None
    temperature: int | None = None
    processes: tuple[Process, ...] | None = None
    divided: bool = False
    trouble: str = ""

    @property
    def key(self) -> str:
        """Its index; the UUID where that is not known, for only a box's label names it."""
        return self.index or self.uuid


def overlap(one: str, other: str) -> bool:
    """Whether two keys mean the same device, or a GPU and an instance of it."""
    return other in (one, one.partition(":")[0]) or one == other.partition(":")[0]


def named(word: str, devices: Sequence[Device]) -> str:
    """The key of the device that a word means: an index, the beginning of a UUID, a device file.

    A word that means none of these devices comes back as it is.
    """
    if word.startswith("/dev/nvidia"):
        minor = word.removeprefix("/dev/nvidia")
        return next((it.index for it in devices if str(it.minor) == minor), minor)
    if "-" in word:
        uuids = [it for it in devices if it.uuid.lower().startswith(word.lower())]
        return uuids[0].key if uuids else word
    return word


def absent(words: Sequence[str], devices: Sequence[Device]) -> list[str]:
    """Those of the words that mean none of these devices."""
    keys = {device.key for device in devices}
    return [word for word in words if named(word, devices) not in keys]


def called(label: str, machine: Machine | None) -> str:
    """The GPUs of a box's label as people say them: `GPUs 0 and 2`, by what a machine has."""
    if label in ("none", "all", ""):
        return "all GPUs" if label == "all" else "no GPU"
    indexes = {gpu.uuid: str(gpu.index) for gpu in (machine.gpus if machine else ())}
    words = [word.removeprefix("index:") for word in label.split(",")]
    return gpus_text([indexes.get(word, word[:SHORT_UUID]) for word in words])


def gpus_text(names: Sequence[str]) -> str:
    """`GPUs 0, 1 and 3`."""
    return ("GPUs " if len(names) > 1 else "GPU ") + listed(names)


def chosen(machine: Machine | None, ids: Sequence[str], *, all: bool) -> tuple[Gpu, ...]:
    """The GPUs that a request means: by index, by UUID, or by the index of a MIG instance (0:1)."""
    if machine is None:
        return ()
    named = {gpu_id.partition(":")[0] for gpu_id in ids}
    return tuple(
        gpu for gpu in machine.sound if all or str(gpu.index) in named or gpu.uuid in named
    )
