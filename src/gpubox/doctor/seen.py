"""What is seen of a machine by those who look: `host`, `nvidia`, `nvml`, `engine` and `trial`.

Records alone; what is wrong with any of it the checks say.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gpubox.checks import Check
from gpubox.gpus.machine import Gpu, Machine
from gpubox.plan.facts import EngineFacts

NO_ANSWER = "no engine answers"


class EngineSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says of itself and its machine. `place` is its address, in words for people.

    `folders` are those of its images and boxes, as far as they are known; `runtime` is the program
    behind the runtime `nvidia`.
    """

    place: str
    version: str
    facts: EngineFacts
    system: str = ""
    kernel: str = ""
    rootless: bool = False
    cgroup_version: str = ""
    cgroup_driver: str = ""
    folders: tuple[str, ...] = ()
    cdi_folders: tuple[str, ...] = ()
    runtime: str = ""


class NoEngine(msgspec.Struct, frozen=True, kw_only=True):
    """Why no engine answers. `others` are sockets of other engines on this machine; whether dockerd
    is `installed` is only looked up if the engine should be this machine's."""

    problem: str
    hint: str = ""
    installed: bool = True
    others: tuple[str, ...] = ()


class DriverSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What NVML says of the driver, or the `problem` and what is `at_fault`; and what files say.

    `loaded` is the version of the driver in the kernel, `libraries` are the versions of those that
    are installed, `cards` counts NVIDIA's on the PCI bus. `elsewhere` is why the driver cannot be
    asked if the engine is on another machine.
    """

    machine: Machine | None = None
    problem: str = ""
    hint: str = ""
    at_fault: Literal["driver", "library", "no library"] = "driver"
    loaded: str = ""
    libraries: tuple[str, ...] = ()
    cards: int = 0
    elsewhere: str = ""

    @property
    def has_gpus(self) -> bool:
        return bool((self.machine and self.machine.gpus) or self.loaded or self.cards)


class Toolkit(msgspec.Struct, frozen=True, kw_only=True):
    """NVIDIA's container toolkit, where an engine of this machine looks for it.

    `hook` is the hook's path, `late` says that it was installed after the engine's start, and
    `runtime_gone` that the program of the runtime `nvidia` is missing. `no_cgroups` is a setting of
    the toolkit.
    """

    hook: str = ""
    late: bool = False
    runtime_gone: bool = False
    no_cgroups: bool = False


class BoxSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A running box; None is what could not be seen. `gpus` is its label, `ports` are as listed.

    `open_at` are addresses at which a Jupyter showed its state to somebody without a token. There
    is an `owner` only if it is not the caller.
    """

    name: str
    owner: str = ""
    gpus: str = ""
    ports: tuple[str, ...] = ()
    privileged: bool | None = False
    reaches_gpus: bool | None = True
    open_at: tuple[str, ...] | None = ()

    @property
    def meant(self) -> str:
        """The words that mean this box behind a command of gpubox's."""
        return f"--owner {self.owner} {self.name}" if self.owner else self.name


class ImageUse(msgspec.Struct, frozen=True, kw_only=True):
    """The image that a profile would start on this machine, and what speaks against that.

    Whether it is `here` is None without an engine; `pulled` is one that would come from Docker Hub.
    """

    profile: str
    where: str
    image: str
    here: bool | None
    pulled: bool
    unfit: tuple[Check, ...] = ()


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What a box on one GPU, or on all where none is named, has shown: device nodes, and the lines
    of `nvidia-smi -L`; or why it did not start."""

    gpu: Gpu | None
    image: str
    nodes: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    problem: str = ""
    hint: str = ""
