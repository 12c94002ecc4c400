"""Images that an engine makes: of a Dockerfile, and of a box's files."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from typing import Any

from gpubox.engine.connection import translated
from gpubox.engine.containers import Containers
from gpubox.engine.faults import explain, explain_build
from gpubox.engine.images import Images
from gpubox.errors import EngineError
from gpubox.images.building import Building


class Builds(Images, Containers):
    """What an engine makes images by."""

    def architecture(self) -> str:
        with translated("the engine"):
            return str(self.api.info()["Architecture"])

    def build(
        self, dockerfile: str, image: str, *, network: str | None = None, fresh: bool = False
    ) -> Generator[Building]:
        """A build as it goes on. One that fails or is left leaves nothing on the engine.

        `fresh` takes nothing from earlier builds, and what was called `image` makes way.
        """
        building, before = Building(), self._image_ids()
        former = self.image(image)
        try:
            for event in self._build_events(dockerfile, image, network, fresh):
                if "error" in event:
                    raise explain_build(building.output, str(event["error"]), image)
                building.add(event)
                yield building
            with translated(image):
                building.size = int(self.api.inspect_image(image)["Size"])
        except BaseException:
            self._discard(building, before)
            raise
        if former and former != self.image(image):
            self._remove_images(former.id)
        yield building

    def _build_events(
        self, dockerfile: str, image: str, network: str | None, fresh: bool
    ) -> Iterator[Mapping[str, Any]]:
        """As docker-py's own call, which would hand over every login of the caller's, and fail
        where one of them cannot be read."""
        proxies = self.api._proxy_configs.get_environment()
        wanted = {
            **{"t": image, "rm": True, "forcerm": True, "nocache": fresh},
            **({"networkmode": network} if network else {}),
            **({"buildargs": json.dumps(proxies)} if proxies else {}),
        }
        with translated(image):
            answer = self.api._post(
                self.api._url("/build"),
                data=_context(dockerfile),
                params=wanted,
                headers={"Content-Type": "application/x-tar"},
                stream=True,
                timeout=None,  # apt says nothing while it fetches a gigabyte
            )
            with closing(answer):
                self.api._raise_for_status(answer)
                yield from self.api._stream_helper(answer, decode=True)

    def _discard(self, building: Building, before: frozenset[str]) -> None:
        """Remove what a build has made that came to nothing."""
        if building.container:  # the engine ends it, and may yet keep what it has done
            with suppress(EngineError):
                self.wait_removed(building.container)
        with suppress(EngineError), translated("the engine"):
            unnamed = self.api.images(filters={"dangling": True})
            last = f"sha256:{building.image or '-'}"
            late = [
                str(item["Id"])
                for item in unnamed
                if item["Id"] not in before and str(item.get("ParentId")).startswith(last)
            ]
            self._remove_images(*late, *([building.made] if building.made else []))

    def _image_ids(self) -> frozenset[str]:
        with translated("the engine"):
            return frozenset(self.api.images(quiet=True))

    def commit(self, box: str, said: Mapping[str, Any], author: str) -> str:
        """An unnamed image of a box's files, with what is `said` of it instead; its id.

        Whose it is, an image says as its author, which no container inherits as it does labels.
        """
        with translated(box):
            made = self.api._post_json(
                self.api._url("/commit"),
                data=dict(said),
                params={"container": box, "author": author},
                timeout=None,  # as long as the files are many
            )
            files = str(self.api._result(made, True)["Id"])
            try:
                return self._without_container(files)
            except BaseException:
                self.remove_image(files)
                raise

    def _without_container(self, image: str) -> str:
        """The image without the record of its container, which engines add; its id.

        There all of the container's variables and labels are kept beside those of the image.
        """
        found = self._as_before(f"/images/{image}/json")
        past = found.get("ContainerConfig") or {}
        if not past.get("Env") and not past.get("Labels"):
            return image
        record = _record(found)
        made = f"sha256:{hashlib.sha256(record).hexdigest()}"
        for event in self.api.load_image(_archive(record, len(found["RootFS"]["Layers"]))):
            if "error" in event:
                raise explain(str(event["error"]), image)
        self.api.inspect_image(made)
        self.api.remove_image(image)
        return made


def _context(dockerfile: str) -> bytes:
    """What a build is sent: the Dockerfile alone."""
    return _packed({"Dockerfile": dockerfile.encode()})


def _packed(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _record(image: Mapping[str, Any]) -> bytes:
    """What an image says of itself, as it lies in an engine and in an archive."""
    said = {
        "architecture": image["Architecture"],
        "os": image["Os"],
        "created": image["Created"],
        "author": image.get("Author") or "",
        "config": image["Config"],
        "rootfs": {"type": "layers", "diff_ids": image["RootFS"]["Layers"]},
    }
    return json.dumps(said).encode()


def _archive(record: bytes, layers: int) -> bytes:
    """An image to be loaded of which the engine has all layers, so that none is in it."""
    name = f"{hashlib.sha256(record).hexdigest()}.json"
    files = [f"{number}/layer.tar" for number in range(layers)]
    manifest = [{"Config": name, "RepoTags": None, "Layers": files}]
    return _packed({name: record, "manifest.json": json.dumps(manifest).encode()})
