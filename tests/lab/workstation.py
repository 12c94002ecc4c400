"""A shared workstation in the tests: a machine with GPUs, an engine, and the people on it.

Boxes and containers sleep; a test says which processes compute on which GPU.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.engine import PrivateEngine
from lab.images import STAND_IN
from lab.nvml import GIB, MACHINES, Machine, Process
from lab.program import Gpubox
from lab.waiting import wait_until

PROFILE = "cuda8-cudnn5"
BOX = f"{PROFILE}-root"  # the profile, and who runs these tests
MACHINE = MACHINES["1080ti-535"]
UUIDS = [card.uuid for card in MACHINE.cards]
SOMEBODY = 65534  # Debian's `nobody`
Done = subprocess.CompletedProcess[bytes]


def using(machine: Machine, *pids: int | None, memory: int = 2 * GIB) -> Machine:
    """The machine with a computing process on each of its first GPUs, or none on it."""
    for index, pid in enumerate(pids):
        if pid:
            machine = machine.with_card(
                index, used=memory, utilization=(90, 30), processes=(Process(pid, memory),)
            )
    return machine


class Workstation:
    """A machine, an engine, and the people on it."""

    def __init__(
        self, engine: PrivateEngine, gpubox: Gpubox, serve: Callable[[Machine], dict[str, str]]
    ) -> None:
        self.engine, self.gpubox, self._serve = engine, gpubox, serve
        self.on(MACHINE)

    def on(self, machine: Machine) -> None:
        self.gpubox.env |= self._serve(machine)

    def box(self, *words: str, uid: int = 0) -> str:
        """The name of a box of root's, or of somebody's, which sleeps."""
        caller: list[str | Path] = []
        if uid:
            can = ("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override")
            caller = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", *can]
        command = ("run", "-d", *words, PROFILE, "sleep", "600")
        return self._said(*caller, self.gpubox.program, *command)

    def docker(self, *words: str) -> str:
        return self._said(self.engine.docker, *words)

    def container(self, name: str, *words: str) -> str:
        """The name of a container that docker itself started, and that sleeps."""
        self.docker("run", "-d", "--name", name, *words, STAND_IN, "sleep", "600")
        return name

    def inspect(self, name: str) -> dict[str, Any]:
        """What the engine says of a container or an image."""
        (found,) = json.loads(self.docker("inspect", name))
        return dict(found)

    def labels(self, name: str) -> dict[str, str]:
        return dict(self.inspect(name)["Config"]["Labels"])

    def seen_in(self, box: str) -> list[str]:
        """The UUIDs of the GPUs that a program in the box sees."""
        listed = self.docker("exec", box, "sh", "-c", "nvidia-smi -L || true").splitlines()
        return [line.partition("UUID: ")[2].rstrip(")") for line in listed if "UUID" in line]

    def containers(self) -> dict[str, str]:
        """The state of each, running or not, half-made ones too."""
        rows = self.docker("ps", "-a", "--format", "{{.Names}} {{.State}}").splitlines()
        return dict(row.split() for row in rows)

    def images(self) -> set[str]:
        return set(self.docker("images", "-aq", "--no-trunc").split())

    def says(self, *words: str, **env: str) -> tuple[int, str, str]:
        """gpubox's exit code, what stands on standard output, and on standard error."""
        done = self.gpubox(*words, env=env)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def _said(self, *words: str | Path) -> str:
        done = subprocess.run(
            words, env=self.gpubox.env, cwd=self.gpubox.cwd, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def pid(self, name: str) -> int:
        """The number that this machine gives to what sleeps in a container.

        The engine has numbers of its own, and a small first process is around what sleeps.
        """
        inside = self.docker("inspect", "-f", "{{.State.Pid}}", name)
        return wait_until(lambda: self._sleeper(inside), what=f"the process of {name}")

    def _sleeper(self, inside: str) -> int:
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                lines = status.read_text().splitlines()
                (numbers,) = [line.split()[1:] for line in lines if line.startswith("NSpid:")]
                if numbers[1:2] == [inside] and self._is_below(int(numbers[0])):
                    outer = numbers[0]
                    children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
                    family = [int(number) for number in (outer, *children)]
                    return next((pid for pid in family if program_of(pid)[0] == "sleep"), 0)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
        return 0

    def _is_below(self, pid: int) -> bool:
        while pid > 1 and pid != self.engine.pid:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            pid = next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))
        return pid == self.engine.pid

    def __call__(self, *words: str, env: Mapping[str, str] | None = None) -> Done:
        return self.gpubox("gpus", *words, env=env)

    def json(self) -> list[dict[str, Any]]:
        done = self("--json")
        assert (done.returncode, done.stderr) == (0, b"")
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def states(self) -> list[str]:
        return [row["sentence"] for row in self.json()]


@contextmanager
def outsider(*words: str | Path, uid: int = 0) -> Iterator[int]:
    """A process that is in no container."""
    caller = ("setpriv", "--reuid", str(uid), "--clear-groups") if uid else ()
    process = subprocess.Popen([*caller, *words])
    try:
        wait_until(lambda: program_of(process.pid) == [*map(str, words)], what="its program")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def program_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
