"""What a plan depends on besides the profile: the caller, the machine, the engine, this one start.

Records alone: `host`, `nvml`, `survey` and `engine` find these things out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from gpubox.gpus.holders import Holding
from gpubox.gpus.machine import Machine
from gpubox.plan import notebook
from gpubox.slurm import jobs

Kind = Literal["shell", "command", "jupyter"]


def home_of(name: str) -> str:
    """A person's home in a box that runs as them."""
    return f"/home/{name}"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who runs gpubox, where, and what their standard streams are. `groups` are names by number."""

    name: str
    uid: int
    gid: int
    groups: Mapping[int, str]
    home: Path
    folder: Path
    environ: Mapping[str, str]
    stdin_is_terminal: bool
    stdout_is_terminal: bool
    rows_columns: tuple[int, int] | None = None

    @property
    def at_terminal(self) -> bool:
        return self.stdin_is_terminal and self.stdout_is_terminal

    @property
    def numbers(self) -> str:
        """Who they are to the kernel: `1000:1000`."""
        return f"{self.uid}:{self.gid}"

    @property
    def box_home(self) -> str:
        """The caller's home in a box that runs as them: a folder of the box, not the host's."""
        return home_of(self.name)


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says of itself. `cdi_devices` are names like `nvidia.com/gpu=0`.

    `podman` is the version of Podman behind a Docker-compatible service, or empty. An engine that
    `mirrors` pulls through a mirror of Docker Hub; a `local` one is on this machine. Images go into
    the folder `root` of its machine, empty if that is not known.
    """

    api: tuple[int, int]
    podman: str = ""
    runtimes: tuple[str, ...] = ()
    cdi_devices: tuple[str, ...] = ()
    cdi_enabled: bool = False
    mirrors: bool = False
    local: bool = True
    root: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a plan depends on besides the profile. Without an engine, `engine` is None.

    `files` holds the text of each file that the profile names; `taken` are container names in use.
    `hook_refused`: the engine has just refused the usual GPU request. `jupyter_port` is the first
    port from 8888 on that was not found in use. If `machine` is None, `unseen` says why.

    `holdings` say who has which GPU. `last` are the UUIDs of the GPUs that the caller had last,
    `wanted` the keys of those that other starters are about to take. A `printed` plan is only
    shown; an `exported` one is carried out by other programs, at any time, on any machine.
    """

    caller: Caller
    engine: EngineFacts | None = None
    machine: Machine | None = None
    unseen: str = ""
    holdings: tuple[Holding, ...] = ()
    last: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()
    printed: bool = False
    exported: bool = False
    files: Mapping[str, str] | None = None
    taken: frozenset[str] = frozenset()
    hook_refused: bool = False
    jupyter_port: int = notebook.PORT
    job: jobs.Job | None = None


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What was typed that belongs to this one start, and to no profile."""

    command: tuple[str, ...] = ()
    kind: Kind | None = None
    name: str | None = None
    detach: bool = False
    interactive: bool = False
    tty: bool | None = None
    token: str | None = None
    port: int | None = None
    public: bool = False
    share: bool = False
