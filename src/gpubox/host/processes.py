"""Looks at this machine's processes, as far as the caller may see them: what runs, who listens.

Reads /proc; does not know what a process has to do with a GPU or a box.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from gpubox.gpus.holders import Program
from gpubox.host.accounts import user_name

_FIRST_NAMESPACE = "pid:[4026531836]"  # the host's, whose process numbers the driver reports


def programs(pids: Iterable[int]) -> dict[int, Program]:
    """The programs of these processes; one that has ended or is hidden is left out."""
    try:
        if str(Path("/proc/self/ns/pid").readlink()) != _FIRST_NAMESPACE:
            return {}  # in a container the same numbers are other processes
    except OSError:
        return {}
    known = {}
    for pid in pids:
        with suppress(OSError, LookupError):
            known[pid] = _program(pid)
    return known


def _program(pid: int) -> Program:
    process = Path("/proc", str(pid))
    lines = (process / "status").read_text("utf-8", "replace").splitlines()
    status = dict(line.split(":", 1) for line in lines)
    words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    command = " ".join(words).strip() or f"[{status['Name'].strip()}]"  # a zombie has none
    return Program(
        pid=pid,
        user=user_name(int(status["Uid"].split()[0])),
        command="".join(letter if letter.isprintable() else " " for letter in command),
        cgroup=(process / "cgroup").read_text("utf-8", "replace"),
    )


def port_holder(number: int) -> str | None:
    """The program that listens on a TCP port, as far as the caller may see: `python3 (pid 7)`."""
    sockets = {f"socket:[{inode}]" for inode in _listening(number)}
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(descriptor.readlink()) in sockets:
                process = descriptor.parents[1]
                name = (process / "comm").read_text().strip()
                return f"{name} (pid {process.name})"
        except OSError:
            continue  # ended meanwhile, or another user's
    return None


def _listening(number: int) -> Iterable[str]:
    """The inodes of sockets that listen on a port, by proc(5)'s tables."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == number:
                yield fields[9]
