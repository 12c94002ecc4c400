"""The GPUs of a machine and the driver under them, as records.

Pure: who has seen them is `nvml`'s to know, what runs on them `fits`'.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

Capability = tuple[int, int]


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
    """What NVML says of a machine: `driver` is "535.183.01", `cuda` the newest that it knows.

    Drivers before branch 390 do not tell their CUDA: None.
    """

    driver: str
    cuda: tuple[int, int] | None = None
    gpus: tuple[Gpu, ...] = ()


def chosen(machine: Machine | None, ids: Sequence[str], *, all: bool) -> tuple[Gpu, ...]:
    """The GPUs that a request means: by index, by UUID, or by the index of a MIG instance (0:1)."""
    if machine is None:
        return ()
    named = {gpu_id.partition(":")[0] for gpu_id in ids}
    return tuple(gpu for gpu in machine.gpus if all or str(gpu.index) in named or gpu.uuid in named)
