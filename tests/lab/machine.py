"""What this machine must offer: root, namespaces, programs, a free port. Knows no engine."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess

from lab.errors import LabError

INSTALL = (
    "apt-get install docker.io iptables iproute2 busybox-static docker-registry apache2-utils"
    " gnupg mmdebstrap"
)
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"


def require_root() -> None:
    if os.geteuid() != 0:
        raise LabError("starting a private Docker Engine needs root", "sudo bash tests/run.sh")
    probe = ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(
            f"cannot unshare and mount here: {done.stderr.strip()}",
            "an unprivileged container cannot run an engine: use a machine, or --privileged",
        )


def found(program: str, search: str) -> str:
    if path := shutil.which(program, path=search):
        return path
    raise LabError(f"no {program} on this machine", INSTALL)


# Below those that the kernel gives to whoever asks for any; each process begins at its own.
_ports = itertools.islice(itertools.cycle(range(10_000, 30_000)), os.getpid() * 100 % 20_000, None)


def free_port() -> int:
    """One that nobody listens on, and that nobody else is given before it is used."""
    for port in _ports:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("the numbers go round")
