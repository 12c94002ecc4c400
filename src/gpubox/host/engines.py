"""Looks for Docker Engines on this machine: their sockets, and the processes behind those.

Speaks to none.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gpubox.checks import SOCKETS
from gpubox.host.accounts import user_name

_ANSWER_SECONDS = 1


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


def others(socket_path: str) -> list[str]:
    """Users who run a Docker Engine here other than the one of this socket: rootless, mostly."""
    uids = set[int]()
    for name in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):  # it ended meanwhile
            if name.read_text() == "dockerd\n":
                uids.add(name.parent.stat().st_uid)
    with suppress(OSError):
        uids.discard(Path(socket_path).stat().st_uid)
    return sorted(map(user_name, uids))


def sockets(environ: Mapping[str, str], home: Path, excluding: str) -> tuple[str, ...]:
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


def is_installed() -> bool:
    """Whether there is a Docker Engine that might run."""
    places = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return bool(shutil.which("dockerd", path=places)) or Path("/snap/docker").exists()
