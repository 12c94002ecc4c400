"""Looks at this machine: the caller, their streams, processes, the files that a profile names.

Reads and reports; does not know what profiles mean, and asks no engine.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shutil
import socket
import stat
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import msgspec

from gpubox.checks import SOCKETS, Room, Seen
from gpubox.errors import GpuboxError, why
from gpubox.gpus.holders import Program
from gpubox.plan.facts import Caller
from gpubox.screen.standard import window_size

_ANSWER_SECONDS = 1


def caller() -> Caller:
    """Who runs gpubox here, with which streams."""
    uid = os.getuid()
    return Caller(
        name=user_name(uid),
        uid=uid,
        gid=os.getgid(),
        groups={gid: _group_name(gid) for gid in (os.getgid(), *os.getgroups())},
        home=Path.home(),
        folder=Path.cwd(),
        environ=dict(os.environ),
        stdin_is_terminal=os.isatty(0),
        stdout_is_terminal=os.isatty(1),
        rows_columns=window_size(1) or window_size(0),
    )


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


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


# --- processes

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


def other_engines(socket_path: str) -> list[str]:
    """Users who run a Docker Engine here other than the one of this socket: rootless, mostly."""
    uids = set[int]()
    for name in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):  # it ended meanwhile
            if name.read_text() == "dockerd\n":
                uids.add(name.parent.stat().st_uid)
    with suppress(OSError):
        uids.discard(Path(socket_path).stat().st_uid)
    return sorted(map(user_name, uids))


# --- engines


class Server(NamedTuple):
    """The process that serves a socket: its PATH, and when it started (Unix seconds).

    What the caller may not see is empty, or None.
    """

    path: str
    since: float | None


def server(socket_path: str) -> Server:
    """The process that serves a socket of this machine, as far as the caller may see it."""
    pid = _server_pid(socket_path)
    if pid is None:
        return Server("", None)
    process = Path("/proc") / str(pid)
    path, since = "", None
    with suppress(OSError):
        variables = (process / "environ").read_bytes().split(b"\0")
        paths = (line.removeprefix(b"PATH=") for line in variables if line.startswith(b"PATH="))
        path = os.fsdecode(next(paths, b""))
    with suppress(OSError, ValueError, IndexError):
        ticks = int((process / "stat").read_text().rpartition(")")[2].split()[19])
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        since = booted + ticks / os.sysconf("SC_CLK_TCK")
    return Server(path, since)


def _server_pid(path: str) -> int | None:
    """The listening process; where systemd listens for Docker, the number in dockerd's pid file."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_SECONDS)
        connection.connect(path)
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid = int(struct.unpack("3i", peer)[0])  # then its user and its group
        if pid > 1:
            return pid
    with suppress(OSError, ValueError):
        return int(Path("/run/docker.pid").read_text()) if path in SOCKETS else None
    return None


def engine_sockets(environ: Mapping[str, str], home: Path, excluding: str) -> tuple[str, ...]:
    """Engines' sockets at the usual places of this machine that the caller may use."""
    own = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    places = (
        *(Path("/var/run/docker.sock"), own / "docker.sock"),
        *(home / ".docker/desktop/docker.sock", home / ".docker/run/docker.sock"),
        *(own / "podman/podman.sock", Path("/run/podman/podman.sock")),
    )
    return tuple(str(path) for path in places if str(path) != excluding and _is_socket(path))


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode) and os.access(path, os.R_OK | os.W_OK)
    except OSError:
        return False


def has_program(name: str) -> bool:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def read_files(paths: Iterable[str]) -> dict[str, str]:
    """The text of each file, by path; an unreadable one is an error that names it."""
    texts = {}
    for path in paths:
        try:
            texts[path] = Path(path).read_text("utf-8")
        except FileNotFoundError:
            raise GpuboxError(f"no file {path}", nearest(path), exit_code=125) from None
        except OSError as error:
            raise GpuboxError(f"{path}: {why(error)}", exit_code=125) from None
        except UnicodeDecodeError:
            raise GpuboxError(f"{path} is not a UTF-8 text", exit_code=125) from None
    return texts


def look(path: str) -> Seen:
    """What the caller sees of a path that is to be mounted, or what keeps them from it."""
    wanted = Path(path)
    for part in (*reversed(wanted.parents), wanted):
        try:
            status = part.stat()
        except (FileNotFoundError, NotADirectoryError):
            if part.is_symlink():
                leads = os.path.realpath(part)
                return Seen(trouble="dangling", at=leads, hint=nearest(leads))
            return Seen(trouble="missing", at=str(part), hint=nearest(path))
        except PermissionError:
            bar = _bar(part)
            return Seen(trouble="barred", at=str(bar), hint=_whose(bar))
        except OSError as error:
            if error.errno == errno.ELOOP:
                return Seen(trouble="loop", at=str(part), hint=f"ls -l {part} shows it")
            return Seen(trouble="broken", at=why(error))
    real = wanted.resolve()
    folder = stat.S_ISDIR(status.st_mode)
    passes = os.X_OK if folder else 0
    readable, writable = (os.access(real, may | passes) for may in (os.R_OK, os.W_OK))
    return Seen(
        real=str(real),
        folder=folder,
        readable=readable,
        writable=writable,
        hint="" if readable and writable else _why_not(real, readable),
        steps=tuple((str(step), step.stat().st_mode) for step in (*reversed(real.parents), real)),
    )


def _bar(path: Path) -> Path:
    """The first folder on the way to a path that the caller may not enter."""
    real = Path(os.path.realpath(path))
    ways = (*reversed(real.parents), *reversed(path.parents))
    return next((way for way in ways if not os.access(way, os.X_OK)), path.parent)


def _why_not(path: Path, readable: bool) -> str:
    if readable and os.statvfs(path).f_flag & os.ST_RDONLY:
        return "its file system is mounted read-only"
    return _whose(path)


def _whose(path: Path) -> str:
    """Whose a path is, and its mode: whom the caller can ask. Empty if that may not be seen."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"it belongs to {user_name(status.st_uid)} ({stat.filemode(status.st_mode)})"


def mountinfo() -> str:
    """What is mounted where, as proc(5) describes it; empty if it cannot be read."""
    try:
        return Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return ""


def room(path: str) -> Room | None:
    """What the file system of a path has left; the folders above are asked if it may not be seen.

    None if there is no such path: then it is another machine's.
    """
    for place in (Path(path), *Path(path).parents):
        try:
            status = os.statvfs(place)
        except FileNotFoundError:
            return None
        except OSError:
            continue
        return Room(path, status.f_bavail * status.f_frsize, status.f_favail)
    return None


class Measured(msgspec.Struct, frozen=True):
    """The sums of a tree so far: bytes on disk, entries, folders that could not be read."""

    size: int = 0
    entries: int = 0
    closed: int = 0


def measure(path: str) -> Iterator[Measured]:
    """Walk a tree as `du` does, and yield the sums so far at each step.

    Symbolic links are not followed, and a file with several hard links counts once.
    """
    size = entries = closed = 0
    counted = set[tuple[int, int]]()
    root = os.path.realpath(path)
    folders = [root]
    with suppress(OSError):  # deleted meanwhile
        size, entries = os.lstat(root).st_blocks * 512, 1
    while folders:
        try:
            listing = os.scandir(folders.pop())
        except NotADirectoryError:
            break  # the dataset is one file
        except FileNotFoundError:
            continue
        except OSError:
            closed += 1
            continue
        with listing:
            for entry in listing:
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    key = (status.st_dev, status.st_ino)
                    if status.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                        if key in counted:
                            continue
                        counted.add(key)
                    size, entries = size + status.st_blocks * 512, entries + 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                yield Measured(size, entries, closed)
    yield Measured(size, entries, closed)


def nearest(path: str) -> str:
    """The hint for a missing path: the name most like its first part that does not exist."""
    wanted = Path(path)
    for part in reversed([wanted, *wanted.parents]):
        if part.exists():
            continue
        try:
            names = [path.name for path in part.parent.iterdir()]
        except NotADirectoryError:
            return f"{part.parent} is a file"
        except OSError:
            return f"{part.parent} cannot be read"
        if near := get_close_matches(part.name, names, n=1, cutoff=0.6):
            return f"did you mean {part.parent / near[0]}?"
        return f"nothing in {part.parent} is named {part.name}"
    return ""
