"""An image that the engine has not got: where it comes from, and how it gets here.

Knows the order of things and what to say of an image that is not to be had; the engine pulls, the
screen is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from msgspec.structs import replace

from gpubox import values
from gpubox.checks import DELETED, of_deletion
from gpubox.engine import Engine
from gpubox.errors import EngineError
from gpubox.faults import EngineSaid

Events = Iterator[Mapping[str, Any]]


class Screen(Protocol):
    """What a pull tells the person while it goes on."""

    def warn(self, sentence: str) -> None: ...
    def pulling(self, image: str, events: Events) -> None: ...


def get(
    engine: Engine, image: str, registry: str | None, screen: Screen, ignored: frozenset[str]
) -> None:
    """Pull an image, through the `registry` where there is one; then it has its plain name."""
    origin = source(image, registry)
    gone = _deleted(image)
    hopeless = origin == image and DELETED not in ignored
    if gone and hopeless and not engine.facts().mirrors:
        raise gone
    try:
        screen.pulling(origin, engine.pull(origin, screen.warn))
    except EngineSaid as refusal:
        raise gone or refusal from refusal
    if origin != image:
        engine.rename_image(origin, image)


def source(image: str, registry: str | None) -> str:
    """Where an image is pulled from: Docker Hub's come through the `registry`, if there is one."""
    reference = values.reference(image)
    if not registry or reference.registry:
        return image
    repository = reference.repository
    path = repository if "/" in repository else f"library/{repository}"
    return str(replace(reference, registry=registry, repository=path))


def _deleted(image: str) -> EngineError | None:
    gone = of_deletion(image)
    return EngineError(gone.problem, gone.hint) if gone else None


def missing(image: str) -> EngineError:
    return EngineError(f"no image {image} on the engine", f"docker pull {image}")
