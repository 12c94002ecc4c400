"""A base image with apt and no sources, made of Debian's packages without a registry.

Knows no gpubox and no tests. Made once from this machine's mirror, then kept under .lab/.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import docker

from lab.errors import LabError
from lab.machine import SYSTEM, found
from lab.newer import CACHE, locked, mirror
from lab.waiting import PATIENCE

DEBIAN = "gpubox-lab/debian:latest"
MAKE = (
    *("--quiet", "--variant=minbase", "--include=apt-transport-https,ca-certificates,gnupg"),
    # what a build installs is to come from the test's repository alone
    "--customize-hook=rm -rf $1/etc/apt/sources.list $1/etc/apt/sources.list.d/*",
    "--customize-hook=rm -rf $1/var/lib/apt/lists/* $1/usr/share/doc $1/usr/share/locale",
    "bookworm",
)


def import_debian(host: str) -> str:
    """Debian as DEBIAN on the engine at `host`; its image id."""
    api: Any = docker.APIClient(base_url=host, version="auto", timeout=PATIENCE)
    try:
        repository, _, version = DEBIAN.rpartition(":")
        api.import_image(str(debian_tar()), repository=repository, tag=version)
        return str(api.inspect_image(DEBIAN)["Id"])
    finally:
        api.close()


def debian_tar() -> Path:
    recipe = hashlib.sha256("\n".join(MAKE).encode()).hexdigest()[:12]
    packed = CACHE / f"debian-{recipe}.tar"
    CACHE.mkdir(exist_ok=True)
    with locked(CACHE / "debian.lock"):
        if not packed.exists():
            print("gpubox lab: making a Debian image (half a minute, once)", file=sys.stderr)
            part = packed.with_suffix(".part.tar")
            _run([found("mmdebstrap", SYSTEM), *MAKE, str(part), mirror()])
            part.rename(packed)
    return packed


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(
            f"no Debian image could be made: {done.stderr.strip()}",
            "see whether `apt-get update` reaches a mirror, then try again",
        )
