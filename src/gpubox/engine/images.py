"""Images on an engine and at its registries: looked at, pulled, named, removed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker.auth
import docker.errors
import msgspec

from gpubox import values
from gpubox.boxes.leftovers import Disk, Made
from gpubox.boxes.moved import is_of_files
from gpubox.engine.connection import (
    NOT_AS_DOCKER_WRITES,
    Connection,
    ImageMissing,
    api_version,
    config_file,
    translated,
)
from gpubox.engine.faults import EngineSaid, explain, is_image_absent
from gpubox.errors import EngineError
from gpubox.images.recipe import BUILT_BY

_UNNAMED = "<none>:<none>"
_LAST_TO_TELL = (1, 44)  # version of the API; later ones do not tell an image's ContainerConfig


class LocalImage(msgspec.Struct, frozen=True):
    """An image that the engine has; `size` is bytes on its disk.

    `config`, in the engine's words, is what its boxes begin with, also `variables` and `labels`.
    `digests` are what registries have it as, like `registry/nvidia/cuda@sha256:1f3b`.
    """

    id: str
    size: int
    variables: Mapping[str, str]
    labels: Mapping[str, str]
    config: Mapping[str, Any]
    author: str
    digests: tuple[str, ...]


class Published(msgspec.Struct, frozen=True):
    """What a registry says of an image; `platforms` are like `linux/amd64`, where it tells them."""

    digest: str
    platforms: tuple[str, ...]


class Images(Connection):
    """The calls by which an engine shows, pulls, names and removes images."""

    def image(self, name: str) -> LocalImage | None:
        """An image that the engine has; None where it has none of this name."""
        try:
            with translated(name):
                found = self.api.inspect_image(name)
        except ImageMissing:
            return None
        config = found.get("Config") or {}
        return LocalImage(
            id=found["Id"],
            size=int(found.get("Size") or 0),
            variables=values.variables(config.get("Env") or ()),
            labels=config.get("Labels") or {},
            config=config,
            author=found.get("Author") or "",
            digests=tuple(found.get("RepoDigests") or ()),
        )

    def images(self) -> list[str]:
        """The names of all images that are here, the latest first; one call."""
        with translated("the engine"):
            found = self.api.images()
        names = [name for item in found for name in item.get("RepoTags") or ()]
        return [values.familiar(name) for name in names if name != _UNNAMED]

    def published(self, image: str, warn: Callable[[str], None]) -> Published | None:
        """What the registry has of an image, asked by the engine; None where it has none."""
        try:
            with translated(image):
                found = self.api.inspect_distribution(image, auth_config=self._login(image, warn))
                return Published(
                    digest=str(found["Descriptor"]["digest"]),
                    platforms=tuple(map(_platform, found.get("Platforms") or ())),
                )
        except EngineSaid as refusal:
            if self.podman and refusal.text == "Not Found":
                raise EngineError("Podman's service asks no registry for others") from None
            if not is_image_absent(refusal.text):
                raise
            return None

    def is_current(self, image: str, here: LocalImage, warn: Callable[[str], None]) -> bool:
        """Whether what is `here` is what the registry has; no, if that cannot be known."""
        with suppress(EngineError):
            found = self.published(image, warn)
            return found is not None and any(it.endswith(found.digest) for it in here.digests)
        return False

    def pull(self, image: str, warn: Callable[[str], None]) -> Iterator[Mapping[str, Any]]:
        """The events of a pull; one that carries an error is raised, explained."""
        return self._pulled(image, self._login(image, warn))

    def has_login(self, image: str) -> bool:
        """Whether the caller has logged in to an image's registry."""
        dropped = list[str]()  # warnings, which the pull itself will say
        return bool(self._login(image, dropped.append))

    def _login(self, image: str, warn: Callable[[str], None]) -> Mapping[str, Any]:
        """The caller's login at an image's registry; empty where there is none, or none to be had.

        A configuration or a helper that fails is warned of; the docker program says nothing then.
        """
        registry = values.reference(image).registry or docker.auth.INDEX_NAME
        (written, problem), login = _written(), None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # docker-py's own warning of the same
                login = self.api._auth_configs.resolve_authconfig(registry)
                login = login or written.resolve_authconfig(registry)
        except docker.errors.DockerException as error:
            problem = str(error.__cause__ or error)
        except NOT_AS_DOCKER_WRITES:
            problem = "what credsStore or credHelpers in Docker's config.json names gives none"
        if problem:
            warn(f"pulling without a login: {problem}")
        return login or {}

    def _pulled(self, image: str, login: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        with translated(image):
            for event in self.api.pull(image, stream=True, decode=True, auth_config=login):
                if "error" in event:
                    raise explain(str(event["error"]), image)
                yield event

    def name_image(self, image: str, name: str, *, keep: bool) -> None:
        """Give an image its plain name; unless `keep`, the one that it was pulled by is removed.

        Another pull of the same image may have done either already, which is no error.
        """
        plain = values.reference(name)
        try:
            with translated(image):
                # with the registry, and the tag apart: else Podman reports success and does nothing
                path = f"{plain.registry or 'docker.io'}/{plain.repository}"
                self.api.tag(image, path, plain.tag)
        except ImageMissing:
            if not self.image(name):
                raise
        if not keep:
            self.remove_image(image)

    def remove_image(self, image: str) -> None:
        with translated(image), suppress(docker.errors.NotFound):
            self.api.remove_image(image)

    def remove_unnamed(self, image: str) -> None:
        """Remove an image that nobody has named, and that no container needs."""
        self._remove_images(image)

    def _remove_images(self, *images: str) -> None:
        """Remove images with the layers that nothing else needs; one with a name or a use stays."""
        for image in images:
            with suppress(EngineError), translated(image):
                if not self.api.inspect_image(image)["RepoTags"]:
                    self.api.remove_image(image)

    def disk(self) -> Disk:
        """What takes room on the engine's disk; the engine counts, which takes it seconds."""
        with translated("the engine"):
            found = self._as_before("/system/df")
            return Disk(
                made=tuple(self._made(item) for item in found["Images"] or () if _is_made(item)),
                volumes={
                    item["Name"]: max(0, (item.get("UsageData") or {}).get("Size") or 0)
                    for item in found["Volumes"] or ()
                },
                images={item["Id"]: item["ImageID"] for item in found["Containers"] or ()},
            )

    def _made(self, item: Mapping[str, Any]) -> Made:
        builder = item["Labels"].get(BUILT_BY)
        return Made(
            id=item["Id"],
            names=tuple(name for name in item.get("RepoTags") or () if name != _UNNAMED),
            alone=max(0, item["Size"] - max(0, item.get("SharedSize") or 0)),
            by=builder or self.api.inspect_image(item["Id"]).get("Author") or "",
            built=bool(builder),
        )

    def _as_before(self, path: str) -> Any:
        """An answer as the last API gave it that still told all of it."""
        least = min(api_version(self.api._version), _LAST_TO_TELL)
        url = f"{self.api.base_url}/v{least[0]}.{least[1]}{path}"
        return self.api._result(self.api._get(url, timeout=None), True)


def _written() -> tuple[docker.auth.AuthConfig, str]:
    """Logins as Docker's config.json has them; or none, and why it cannot be read.

    docker-py ignores such a file, and of each login all but `auth` and `identitytoken`.
    """
    path = config_file()
    try:
        found = json.loads((Path(path).read_text("utf-8") if path else "").strip() or "{}")
    except (OSError, ValueError) as error:
        return docker.auth.AuthConfig({}), f"{path} cannot be read: {error}"
    return docker.auth.AuthConfig({"auths": found.get("auths") or {}}), ""


def _is_made(item: Mapping[str, Any]) -> bool:
    """Whether gpubox made an image: by a build, or from a box's files."""
    labels = item.get("Labels") or {}
    return bool(labels.get(BUILT_BY)) or is_of_files(labels)


def _platform(item: Mapping[str, Any]) -> str:
    parts = (item.get("os"), item.get("architecture"), item.get("variant"))
    return "/".join(filter(None, parts))
