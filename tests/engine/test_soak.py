"""Hundreds of short runs, eight at a time: every byte and exit code right, and nothing is left.

GPUBOX_SOAK is how many on each engine.
"""

from __future__ import annotations

import errno
import os
import pty
import random
import subprocess
import tty
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from docker import DockerClient

from lab.engine import PrivateEngine
from lab.program import Gpubox
from lab.waiting import PATIENCE, wait_until
from lab.workstation import PROFILE

RUN = ("run", "--gpus", "none")  # so that there is nothing to say of GPUs
RUNS = int(os.environ.get("GPUBOX_SOAK") or 64)
AT_ONCE = 8
BUS_ERROR = 135  # from this exit code on gpubox has words of its own to say
KINDS = ("output", "kept", "echo", "terminal")
LARGEST = 400_000  # bytes


@dataclass(frozen=True)
class Run:
    """One run in the foreground, and what must come of it."""

    words: tuple[str, ...]
    code: int
    out: bytes
    err: bytes = b""
    typed: bytes = b""

    def fault(self, gpubox: Gpubox) -> str:
        """What is wrong with it; empty when nothing is."""
        code, out, err = (in_terminal if "-it" in self.words else in_pipes)(gpubox, self)
        if (code, out, err) == (self.code, self.out, self.err):
            return ""
        return (
            f"{' '.join(self.words)}: exit code {code} for {self.code}, {len(out)} bytes for"
            f" {len(self.out)} and {len(err)} for {len(self.err)}: {out[-300:]!r} {err[-300:]!r}"
        )


def in_pipes(gpubox: Gpubox, run: Run) -> tuple[int, bytes, bytes]:
    done = gpubox(*run.words, stdin=run.typed, timeout=PATIENCE)
    return done.returncode, done.stdout, done.stderr


def in_terminal(gpubox: Gpubox, run: Run) -> tuple[int, bytes, bytes]:
    """At a raw pty, which shows bytes as they come; nothing is left of it either."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    with os.fdopen(master, "rb", buffering=0) as screen:
        try:
            child = subprocess.Popen(
                [gpubox.program, *run.words],
                env=gpubox.env,
                cwd=gpubox.cwd,
                stdin=slave,
                stdout=slave,
                stderr=slave,
            )
        finally:
            os.close(slave)
        out = b"".join(iter(lambda: shown(screen.fileno()), b""))
    return child.wait(PATIENCE), out, b""


def shown(master: int) -> bytes:
    try:
        return os.read(master, 1 << 16)
    except OSError as error:
        if error.errno != errno.EIO:  # nobody has the other end any more
            raise
        return b""


def a_run(number: int, data: bytes, folder: Path) -> Run:
    """Each has its own pieces of `data` for its output, and its own exit code."""
    chance = random.Random(number)
    kind, code = KINDS[number // AT_ONCE % len(KINDS)], number * 37 % BUS_ERROR
    (out, show), (err, complain) = (piece(chance, data) for _ in range(2))
    mount = ("--gpus", "none", "-v", f"{folder}:/data:ro")
    # runs of one worker follow each other: as soon as one is over, its name must be free
    reused = ("--rm", "--name", f"soak-{number % AT_ONCE}")
    apart = f"{show} & {complain} >&2; wait; exit {code}"
    match kind:
        case "output":
            return Run((*RUN, *reused, *mount, PROFILE, "sh", "-c", apart), code, out, err)
        case "kept":
            return Run((*RUN, *mount, PROFILE, "sh", "-c", apart), code, out, err)
        case "echo":
            words = (*RUN, "-i", *reused, PROFILE, "sh", "-c", f"cat; exit {code}")
            return Run(words, code, out, typed=out)
        case _:
            script = f"stty raw; {show}; exit {code}"
            return Run((*RUN, "-it", *reused, *mount, PROFILE, "sh", "-c", script), code, out)


def piece(chance: random.Random, data: bytes) -> tuple[bytes, str]:
    """Mostly little, at times nothing, at times a lot; and the command in the box that shows it."""
    start, size = chance.randrange(len(data) // 2), int(LARGEST ** chance.random()) - 1
    return data[start : start + size], f"tail -c +{start + 1} /data/bytes | head -c {size}"


def descendants(pid: int) -> set[int]:
    """The processes of an engine. A shim outlives the call that removes its box, for a moment."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
        except (FileNotFoundError, ProcessLookupError):
            continue
    found, before = {pid}, set[int]()
    while found != before:
        before = set(found)
        found |= {child for child, parent in parents.items() if parent in before}
    return found


def test_short_runs_side_by_side_lose_no_byte_and_leave_nothing(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, tmp_path: Path
) -> None:
    data = os.urandom(2 * LARGEST)
    (shared := tmp_path / "data").mkdir()
    (shared / "bytes").write_bytes(data)
    (temporary := tmp_path / "tmp").mkdir()
    gpubox.env["TMPDIR"] = str(temporary)
    processes = descendants(engine.pid)
    every = [a_run(number, data, shared) for number in range(RUNS)]

    def work(worker: int) -> list[str]:
        return [run.fault(gpubox) for run in every[worker::AT_ONCE]]

    with ThreadPoolExecutor(AT_ONCE) as workers:
        faults = [fault for each in workers.map(work, range(AT_ONCE)) for fault in each if fault]

    assert faults == []
    kept = [str(box.name) for box in client.containers.list(all=True)]
    suffixes = ["", *(f"-{number}" for number in range(2, RUNS))]
    names = [f"{PROFILE}-root{suffix}" for suffix in suffixes]
    expected = [run for run in every if "--rm" not in run.words]
    assert sorted(kept) == sorted(names[: len(expected)])
    for name in kept:
        client.containers.get(name).remove()
    assert client.containers.list(all=True) == []
    assert list((engine.folder / "data/containers").iterdir()) == []
    for folder in (temporary, gpubox.cwd, gpubox.home):
        assert list(folder.iterdir()) == []
    wait_until(lambda: descendants(engine.pid) <= processes, what="the end of the boxes' processes")
