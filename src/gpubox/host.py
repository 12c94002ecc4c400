"""What this machine says: the caller, their streams, the files and folders a profile names.

Reads and reports; knows no profiles' meaning and no engine.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from gpubox.errors import GpuboxError
from gpubox.plan import Caller
from gpubox.values import Mount


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
        stdin_is_terminal=_is_terminal(0),
        stdout_is_terminal=_is_terminal(1),
        rows_columns=_window(),
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


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def _window() -> tuple[int, int] | None:
    """Rows and columns of the terminal; also where only standard input is one."""
    for descriptor in (1, 0):
        with suppress(OSError):
            size = os.get_terminal_size(descriptor)
            if size.lines and size.columns:
                return size.lines, size.columns
    return None


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


def read_files(paths: Iterable[str]) -> dict[str, str]:
    """The text of each file, by path; an unreadable one is an error that names it."""
    found = {}
    for path in paths:
        try:
            found[path] = Path(path).read_text("utf-8")
        except FileNotFoundError:
            raise GpuboxError(f"no file {path}", nearest(path), exit_code=125) from None
        except OSError as error:
            raise GpuboxError(f"{path}: {error.strerror}", exit_code=125) from None
        except UnicodeDecodeError:
            raise GpuboxError(f"{path} is not a UTF-8 text", exit_code=125) from None
    return found


def check_folders(mounts: Iterable[Mount]) -> None:
    """Refuse a mount whose host side is not there: Docker would make it, and root would own it."""
    for mount in mounts:
        path = Path(mount.source or "")
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise GpuboxError(
                f"no folder {path} on this machine to mount on {mount.target}", nearest(str(path))
            ) from None
        except OSError as error:
            raise GpuboxError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def nearest(path: str) -> str:
    """The hint for a missing path: the existing name nearest to where it goes wrong."""
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
