"""Images that an engine makes: from a Dockerfile, and from a box's files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from typing import Any

from gpubox.engine.archives import Entry, packed
from gpubox.engine.build_faults import explain_build
from gpubox.engine.connection import translated
from gpubox.engine.containers import Containers
from gpubox.engine.faults import explain
from gpubox.engine.images import Images
from gpubox.errors import EngineError
from gpubox.images.building import Building


class Builds(Images, Containers):
    """The calls by which an engine makes images."""

    def architecture(self) -> str:
        with translated("the engine"):
            return str(self.api.info()["Architecture"])

    def build(
        self, dockerfile: str, image: str, *, network: str | None = None, fresh: bool = False
    ) -> Generator[Building]:
        """Build, and yield the state of the build as it goes on.

        A build that fails or is broken off leaves nothing on the engine. `fresh` uses nothing from
        earlier builds. An older image of this name is removed, unless something else needs it.
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
        """The events of a build.

        docker-py's own call would send all logins of the caller's along, and fail where one cannot
        be read.
        """
        proxies = self.api._proxy_configs.get_environment()
        wanted = {
            **{"t": image, "rm": True, "forcerm": True, "nocache": fresh},
            **({"networkmode": network} if network else {}),
            **({"buildargs": json.dumps(proxies)} if proxies else {}),
        }
        with translated(image):
            answer = self.api._post(
                self.api._url("/build"),
                data=packed([Entry("Dockerfile", dockerfile.encode())]),  # the whole context
                params=wanted,
                headers={"Content-Type": "application/x-tar"},
                stream=True,
                timeout=None,  # apt says nothing while it fetches a gigabyte
            )
            with closing(answer):
                self.api._raise_for_status(answer)
                yield from self.api._stream_helper(answer, decode=True)

    def _discard(self, building: Building, before: frozenset[str]) -> None:
        """Remove what a failed build has made, but none of the images that were there `before`."""
        if building.container:  # until it has ended, the engine may make an image of this step
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

    def commit(self, box: str, config: Mapping[str, Any], author: str) -> str:
        """Make an unnamed image of a box's files; its id.

        `config` is said of it instead of what the box was run with. Its owner is its `author`,
        for a label would be inherited by the containers that start from it.
        """
        with translated(box):
            made = self.api._post_json(
                self.api._url("/commit"),
                data=dict(config),
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
        """Replace an image by one without the record of the container that it was made of; its id.

        Engines add that record, with all of the container's variables, secrets too, and labels.
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


def _record(image: Mapping[str, Any]) -> bytes:
    """An image's configuration, as JSON; its SHA-256 is the image's id."""
    config = {
        "architecture": image["Architecture"],
        "os": image["Os"],
        "created": image["Created"],
        "author": image.get("Author") or "",
        "config": image["Config"],
        "rootfs": {"type": "layers", "diff_ids": image["RootFS"]["Layers"]},
    }
    return json.dumps(config).encode()


def _archive(record: bytes, layers: int) -> bytes:
    """An archive for the engine to load, without the layers, which the engine has already."""
    name = f"{hashlib.sha256(record).hexdigest()}.json"
    files = [f"{number}/layer.tar" for number in range(layers)]
    manifest = [{"Config": name, "RepoTags": None, "Layers": files}]
    return packed([Entry(name, record), Entry("manifest.json", json.dumps(manifest).encode())])
