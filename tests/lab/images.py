"""The stand-in for nvidia/cuda, built without a registry. Knows no GPUs."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import docker
from docker import DockerClient

from lab.errors import LabError
from lab.machine import INSTALL
from lab.newer import CACHE, REPOSITORY

STAND_IN = "nvidia/cuda:8.0-cudnn5-devel"
DOCKERFILE = REPOSITORY / "Dockerfile.test"


def build_stand_in(host: str, *tags: str) -> str:
    """Builds `Dockerfile.test` on the engine at `host` as STAND_IN and as `tags`; its image id."""
    context = tarred({"Dockerfile": DOCKERFILE.read_bytes(), "busybox": busybox().read_bytes()})
    api: Any = docker.APIClient(base_url=host, version="auto")
    try:
        events = api.build(
            fileobj=context, custom_context=True, tag=STAND_IN, rm=True, forcerm=True, decode=True
        )
        for event in events:
            if "error" in event:
                raise LabError(f"{DOCKERFILE.name}: {event['error']}", "see the file's header")
        tag(api, STAND_IN, tags)
        return str(api.inspect_image(STAND_IN)["Id"])
    finally:
        api.close()


def tag(api: Any, image: str, names: tuple[str, ...]) -> None:
    for name in names:
        repository, _, version = name.rpartition(":")
        api.tag(image, repository, version)


def busybox() -> Path:
    """A static one: the usual busybox package's needs a libc that the image has not."""
    for path in (*CACHE.glob("busybox/**/bin/busybox"), Path("/bin/busybox")):
        if path.exists() and b"/ld-linux" not in path.read_bytes()[:4096]:
            return path
    raise LabError("no static busybox on this machine", INSTALL)


def tarred(files: dict[str, bytes]) -> io.BytesIO:
    """A build context in memory; times are zero, so that the engine's build cache holds."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    packed.seek(0)
    return packed


def hand_over(client: DockerClient, image: str) -> None:
    """Push an image to the registry that its name begins with, and forget it here."""
    assert '"error"' not in client.images.push(image)
    client.images.remove(image)
