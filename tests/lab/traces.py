"""All that the lab leaves on a machine while it works, and its removal: folders, bridges, cgroups.

One name ties them together, so that the next run finds what a killed one could not remove.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from lab.errors import LabError
from lab.machine import INSTALL, SYSTEM, found
from lab.waiting import wait_until

CGROUPS = Path("/sys/fs/cgroup")

_numbers = itertools.count()


def new_folder() -> tuple[Path, int]:
    """Short, since a socket's path ends at 107 bytes; locked by this process while it lives."""
    while True:
        prefix = f"gbx{os.getpid()}x{next(_numbers)}_"
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():  # else another run swept it away before it was locked
            folder.chmod(0o711)
            return folder, lock
        os.close(lock)


def sweep() -> None:
    """Removes what engines of dead runs left: a lock that can be had has no owner any more."""
    for folder in Path("/tmp").glob("gbx[0-9]*x[0-9]*_*"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)
            finally:
                os.close(lock)


def remove(folder: Path) -> None:
    """The folder last: while it is there, the next run's sweep finds the rest."""
    name = folder.name.split("_")[0]
    if f" {name}: " in _ip("-o", "link"):
        _ip("link", "delete", name)
    wait_until(lambda: _remove_cgroups(name), what=f"the end of the processes of {name}")
    shutil.rmtree(folder)  # errors are not ignored: a mount that leaked is to be seen


def add_cgroups(name: str) -> list[Path]:
    """One for an engine that makes none by itself, in each hierarchy; their tops are returned."""
    unified = (CGROUPS / "cgroup.procs").exists()
    tops = [CGROUPS] if unified else [top for top in CGROUPS.iterdir() if not top.is_symlink()]
    for top in tops:
        (top / name).mkdir()
        for key in ("cpuset.cpus", "cpuset.mems"):  # empty in a new one of version 1
            if (top / key).exists():
                (top / name / key).write_text((top / key).read_text())
    return tops


def _remove_cgroups(name: str) -> bool:
    tops = [*CGROUPS.glob(name), *CGROUPS.glob(f"*/{name}")]
    for top in tops:
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):  # still busy: the caller comes again
                Path(folder).rmdir()
    return not any(top.exists() for top in tops)


def add_bridge(name: str) -> None:
    """In 198.18.0.0/15, which RFC 2544 keeps for tests; engines side by side get one /24 each."""
    addresses = _ip("-o", "-4", "address")
    process, _, number = name.removeprefix("gbx").partition("x")
    first = int(process) * 8 + int(number)
    subnets = (f"198.{18 + n % 512 // 256}.{n % 256}" for n in range(first, first + 512))
    subnet = next(subnet for subnet in subnets if f" {subnet}." not in addresses)
    _ip("link", "add", name, "type", "bridge")
    _ip("address", "add", f"{subnet}.1/24", "dev", name)
    _ip("link", "set", name, "up")


def _ip(*words: str) -> str:
    command = [found("ip", SYSTEM), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"`ip {' '.join(words)}` failed: {done.stderr.strip()}", INSTALL)
    return done.stdout
