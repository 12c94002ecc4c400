"""Anna, who starts boxes in the unit tests: who she is, her files' settings, and idle GPUs.

Knows no engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from gpubox.gpus.machine import Device, Gpu
from gpubox.plan.facts import Caller
from gpubox.profile.config import Config
from gpubox.profile.layers import Layer, read_all

WORK = Path("/home/anna/work")
ANNA = Caller(
    name="anna",
    uid=1000,
    gid=1000,
    groups={1000: "anna"},
    home=WORK.parent,
    folder=WORK,
    environ={"HOME": "/home/anna", "USER": "anna", "WANDB_API_KEY": "s3cret"},
    stdin_is_terminal=False,
    stdout_is_terminal=False,
)


def config(*own: Layer, environ: Mapping[str, str] = ANNA.environ, folder: Path = WORK) -> Config:
    """The built-in layer, and these above it."""
    built_in, *_ = read_all(cwd=Path("/"), home=Path("/"), environ={}, uid=0).layers
    return Config((built_in, *own), environ, folder)


def idle(gpus: Iterable[Gpu]) -> list[Device]:
    return [Device(index=str(gpu.index), uuid=gpu.uuid, processes=()) for gpu in gpus]
