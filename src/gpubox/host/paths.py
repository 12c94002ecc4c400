"""Looks at paths on this machine, as the caller sees them: what is there, how large, how much room.

Reads and reports; does not know what a path is wanted for.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

import msgspec

from gpubox.checks import Room, Seen
from gpubox.errors import GpuboxError, why
from gpubox.host.accounts import user_name


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
