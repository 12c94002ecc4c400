"""Says what speaks against a start: a missing folder, an unsafe mount, an image that cannot come.

Pure: what was seen comes in, a Check that warns or stops comes out. Knows no files and no engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Literal

import msgspec

from gpubox.figures import size_text
from gpubox.images import catalog, demands, recipe
from gpubox.values import Mount

Use = Literal["volume", "data", "workspace"]
Verdict = Literal["ok", "warn", "fail", "not known"]
Trouble = Literal["", "missing", "dangling", "loop", "barred", "broken"]

FOLDERS, IMAGE, SOCKET, ROOT_SQUASH = "folders", "image", "socket", "root-squash"
DELETED, DISK, DRIVER, GPU, RATE_LIMIT = "deleted", "disk", "driver", "gpu", "rate-limit"
# the checks that --ignore can skip
OF_IMAGES = (DELETED, DISK, DRIVER, GPU, RATE_LIMIT)
IGNORABLE = (*OF_IMAGES, ROOT_SQUASH, SOCKET)
_LITTLE_ROOM, _FEW_FILES = 10**9, 50_000  # bytes; a CUDA image has some 20,000 files
SOCKETS = ("/var/run/docker.sock", "/run/docker.sock")
FREE_SOME = "docker system df shows what takes it, docker image prune frees some"


class Check(msgspec.Struct, frozen=True):
    """One question that was asked, before a start or by `doctor`.

    `id` stays the same from version to version. A question with several answers, such as one for
    each box, is as many checks. `brief` is the evidence in a few words, for tables of images.
    """

    id: str
    verdict: Verdict
    evidence: str
    fix: str = ""
    brief: str = ""

    @property
    def stops(self) -> bool:
        """Whether a start goes no further."""
        return self.verdict == "fail"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A host path as the caller sees it; without `trouble` it exists.

    `at` is the path where the trouble lies (if `broken`, the system's message) and `hint` advice on
    it. `real` is the path with all links resolved; `steps` are the folders from the root down to
    it, each with its mode, `real` itself last.
    """

    trouble: Trouble = ""
    at: str = ""
    hint: str = ""
    real: str = ""
    folder: bool = True
    readable: bool = False
    writable: bool = False
    steps: tuple[tuple[str, int], ...] = ()


class Source(msgspec.Struct, frozen=True):
    """The host side of one mount: its use, where that was written, and what the caller sees there.

    `seen` is None if the engine is on another machine.
    """

    mount: Mount
    use: Use
    where: str = ""
    seen: Seen | None = None

    @property
    def path(self) -> str:
        return self.mount.source or ""


def of_never_pulled(image: str, where: str) -> Check:
    """The image is not on the engine, and its profile's `pull_policy` forbids pulling it."""
    return Check(
        IMAGE,
        "fail",
        f"no image {image} on the engine",
        f"{where} keeps it from being pulled (pull_policy), for gpubox save made it here: save its"
        " box again, or remove that profile",
    )


def of_absent_gpus(words: Sequence[str]) -> Check:
    """The request names GPUs that the engine's machine does not have."""
    return Check(
        GPU,
        "fail",
        f"this machine has no GPU {' and no GPU '.join(words)}",
        "gpubox gpus lists its GPUs",
    )


def of_sources(
    sources: Iterable[Source],
    *,
    sockets: Sequence[str] = SOCKETS,
    mountinfo: str = "",
    as_caller: bool = False,
) -> Iterator[Check]:
    """All checks that speak against mounting these folders, in their order.

    `sockets` are the engine's, with links resolved; `mountinfo` is the text of proc(5)'s file.
    A box that runs `as_caller` does not need root to read the folders.
    """
    for source in sources:
        place = f"{source.where}: " if source.where else ""
        for check in (
            *_of_the_path(source),
            *_of_sockets(source, sockets),
            *_of_root_squash(source, mountinfo, as_caller),
        ):
            yield msgspec.structs.replace(check, evidence=place + check.evidence)


# --- paths


def _of_the_path(source: Source) -> Iterator[Check]:
    """At most one check. A missing folder fails: Docker would make it, owned by root."""
    seen = source.seen
    if seen is None:
        return
    if source.use == "workspace" and not seen.trouble and not seen.folder:
        problem = f"{source.path} is a file, and a workspace is a folder"
        yield Check(FOLDERS, "fail", problem, f"its folder is {PurePosixPath(source.path).parent}")
    elif problem := _trouble(source, seen) if seen.trouble else _forbidden(source, seen):
        yield Check(FOLDERS, "fail", problem, seen.hint)


def _trouble(source: Source, seen: Seen) -> str:
    path, at = source.path, seen.at
    match seen.trouble:
        case "missing":
            return f"no folder {path} on this machine to mount on {source.mount.target}"
        case "dangling":
            return f"{path} leads by a symbolic link to {at}, and that is not there"
        case "loop":
            return f"{at} is a symbolic link that leads back to itself"
        case "barred":
            return f"you may not look into {at}, so {path} cannot be mounted"
        case _:
            return f"{path}: {at}"


def _forbidden(source: Source, seen: Seen) -> str:
    """That the caller may not read or write what this use needs to; empty if they may.

    A plain `-v` is not checked, as with Docker: root in the box may do what the caller may not.
    """
    path, mount = source.path, source.mount
    if source.use == "volume":
        return ""
    if not seen.readable:
        return f"you may not read {path}, which is to be mounted on {mount.target}"
    if source.use == "data" and not mount.read_only and not seen.writable:
        return f"you may not write in {path}, which is to be mounted on {mount.target} with :rw"
    return ""


# --- the engine's socket


def _of_sockets(source: Source, sockets: Sequence[str]) -> Iterator[Check]:
    places = {source.path, source.seen.real if source.seen else ""}
    for socket in sockets:
        if socket in places:
            holds = "is the engine's socket"
        elif any(_is_below(socket, place) for place in places):
            holds = f"holds the engine's socket, {socket}"
        else:
            continue
        yield Check(
            SOCKET,
            "fail",
            f"{source.path} {holds}: who has it in a box is root on this machine,"
            " read-only mount or not",
            f"leave it out, or go past this check: --ignore {SOCKET}",
        )
        return


def _is_below(path: str, folder: str) -> bool:
    return bool(folder) and PurePosixPath(path).is_relative_to(folder)


# --- a network file system that mistrusts root


def _of_root_squash(source: Source, mountinfo: str, as_caller: bool) -> Iterator[Check]:
    """At most one check: an NFS folder that is closed to the engine.

    The engine is root, and NFS servers commonly treat root as a stranger ("root squash"). So others
    must be allowed to pass every folder on the way, and to read the last one if the box runs as
    root too.
    """
    if source.seen is None or source.seen.trouble:
        return
    for folder, mode in source.seen.steps:
        kind = file_system(folder, mountinfo)
        last = folder == source.seen.real
        needed = (0o004 if not source.seen.folder else 0o005) if last else 0o001
        if last and as_caller:
            needed = 0
        if kind not in ("nfs", "nfs4") or mode & needed == needed:
            continue
        yield Check(
            ROOT_SQUASH,
            "warn",
            f"{folder} is on {kind} and closed to others, so the engine, which is root, may not"
            f" {'read' if last else 'pass'} it where root is squashed",
            f"chmod o+{_LETTERS[needed]} {folder}" + (", or --user host" if last else ""),
        )
        return


_LETTERS = {0o001: "x", 0o004: "r", 0o005: "rx"}


def file_system(path: str, mountinfo: str) -> str:
    """The type of the file system that a path lies on, like `nfs4`; empty if unknown."""
    nearest, depth = "", 0
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")[0]
        if len(fields) < 6:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        # of two mounts on one folder the later one hides the other
        if _is_below(path, point) and len(PurePosixPath(point).parts) >= depth:
            nearest, depth = kind, len(PurePosixPath(point).parts)
    return nearest


# --- an image that must be pulled


class Room(msgspec.Struct, frozen=True):
    """What a file system has left for all but root: free bytes, and `files` that it can still hold.

    `files` is 0 where the file system sets no limit.
    """

    path: str
    free: int
    files: int


def of_deletion(image: str) -> Check | None:
    """That NVIDIA has deleted an image, and what to do instead; None if it has not."""
    status = catalog.status(image)
    if status.state != "deleted":
        return None
    when = f" in {status.when}" if status.when else ""
    instead = catalog.successor(image)
    ways = (
        f"gpubox build {image} makes it here" if recipe.is_possible(image) else "",
        f"for new code: gpubox run {instead}" if instead else "",
        "a registry that kept it goes into registry: in gpubox.yaml, or GPUBOX_REGISTRY",
    )
    problem = f"{image} cannot be pulled: it was deleted from Docker Hub{when}"
    return Check(DELETED, "fail", problem, "; ".join(filter(None, ways)))


def of_room(image: str, room: Room) -> Iterator[Check]:
    """At most one check: too little room for an image where the engine keeps its data.

    The image's size is an estimate, so the start is stopped only if not even the unpacked image
    would fit.
    """
    size = demands.size(image)
    if size and room.free < size.download + size.disk:
        yield Check(
            DISK,
            "fail" if room.free < size.disk else "warn",
            f"{image} takes about {size_text(size.disk)} on the disk and"
            f" {size_text(size.download)} while it comes, and {room.path} has"
            f" {size_text(room.free)} left",
            FREE_SOME,
        )
    elif few := of_little_room(room):
        yield few


def of_little_room(room: Room) -> Check | None:
    """A warning about a place where hardly any image fits."""
    few_files = 0 < room.files < _FEW_FILES
    if room.free >= _LITTLE_ROOM and not few_files:
        return None
    left = f"{room.files} files" if few_files else size_text(room.free)
    return Check(DISK, "warn", f"{room.path}, where images go, has {left} left", FREE_SOME)


def of_the_pull_limit(limit: int, remaining: int, seconds: int) -> Iterator[Check]:
    """A check if Docker Hub allows this address no more pulls without a login for now.

    `seconds` is the time in which `limit` pulls are allowed.
    """
    if remaining:
        return
    yield Check(
        RATE_LIMIT,
        "fail",
        f"Docker Hub gives nothing more to this address for now: of {limit} pulls in"
        f" {seconds / 3600:g} h none is left",
        "docker login has a limit of its own, or wait",
    )


# --- a program that is here and not in the box


def of_host_program(program: str, image: str) -> str:
    """The hint for a program that is on this machine but not in the box."""
    other = "; python3 may be there" if program == "python" else ""
    return f"it is on this machine, but not in {image}{other}; gpubox profiles lists other images"


def of_program(
    program: str, folder: str, mounts: Iterable[Mount], starts_in: str | None, image: str
) -> str:
    """The hint for a program in the caller's `folder` that the box does not find.

    `starts_in` is the folder in the box where the command starts; None is the image's own.
    """
    binds = [mount for mount in mounts if mount.bind and _is_below(folder, mount.source or "")]
    if not binds:
        return f"{program} is here, but the box sees nothing of this folder: add --workspace ."
    nearest = max(binds, key=lambda mount: len(mount.source or ""))
    inside = PurePosixPath(nearest.target, PurePosixPath(folder).relative_to(nearest.source or "/"))
    if str(inside) != starts_in:
        there = starts_in or f"the folder that {image} names"
        return (
            f"{program} is here and in {inside} of the box, but the command starts in {there}:"
            f" add -w {inside}"
        )
    where = f"{program} is here and in {inside} of the box, where the command starts"
    if program.endswith(".py"):
        return f"{where}: write python {program}"
    if "/" in program:
        return f"{where}; what its first line (#!) names is not in {image}"
    return f"{where}: write ./{program}"
