"""Asks registries about an image: through the engine, and Docker Hub by its own API as well.

An image is unknown, and never missing, if nobody can be asked. Knows no command and no screen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Literal

import msgspec

from gpubox import values
from gpubox.engine.engine import Engine
from gpubox.errors import GpuboxError
from gpubox.images import catalog, hub

_NEAR = 5  # at most so many similar names are shown


class Remote(msgspec.Struct, frozen=True, kw_only=True):
    """An image as registries know it. `sizes` are bytes to download, by architecture.

    `near` are names of tags like the one that is missing, `reasons` say what could not be asked.
    """

    image: str
    state: Literal["there", "missing", "unknown"]
    digest: str = ""
    platforms: tuple[str, ...] = ()
    sizes: Mapping[str, int] = {}
    pushed: str = ""
    near: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


def ask(
    image: str, source: str, engine: Engine | GpuboxError, warn: Callable[[str], None]
) -> Remote:
    """Ask for an image in the registry of `source`, the name by which it is pulled.

    The engine asks it; if it is Docker Hub, the Hub's own API is asked as well. An `engine` that is
    an error becomes one of the reasons.
    """
    reasons, answers = list[str](), list[bool]()
    published = tag = None
    reference = values.reference(image)
    try:
        published = _of_the_engine(engine).published(source, warn)
        answers.append(published is not None)
    except GpuboxError as error:
        reasons.append(error.problem)
    if source == image and not reference.registry and not reference.digest:
        try:
            tag = hub.tag(reference.repository, reference.tag)
            answers.append(tag is not None)
        except GpuboxError as error:
            reasons.append(error.problem)
    missing = bool(answers) and not any(answers)
    hubs = tuple(f"linux/{kind}" for kind in tag.sizes) if tag else ()
    return Remote(
        image=image,
        state="missing" if missing else "there" if answers else "unknown",
        digest=published.digest if published else tag.digest if tag else "",
        platforms=(published and published.platforms) or hubs,
        sizes=tag.sizes if tag else {},
        pushed=tag.pushed[:10] if tag else "",
        near=_near(reference) if missing and reference.tag else (),
        reasons=tuple(reasons),
    )


def _of_the_engine(engine: Engine | GpuboxError) -> Engine:
    if isinstance(engine, GpuboxError):
        raise engine
    return engine


def _near(reference: values.Reference) -> tuple[str, ...]:
    """The existing tags most like a missing one, as the Hub and the catalogue know them."""
    repository, tag = reference.repository, reference.tag
    live = [str(listed.tag) for listed in catalog.listed() if listed.state == "live"]
    known = live if repository == "nvidia/cuda" else []
    short = catalog.parse_name(catalog.nearest_name(tag))  # such as `12.4-cudnn`
    meant = catalog.image(short).partition(":")[2] if short else ""
    if not reference.registry:
        with suppress(GpuboxError):  # then the catalogue must do
            tags = hub.like(repository, tag.split("-")[0]) or hub.like(repository, "")
            known += [other.name for other in tags]
    others = dict.fromkeys(name for name in known if name != tag)
    near = dict.fromkeys((meant, *get_close_matches(tag, others, _NEAR, 0.5)))
    return tuple(name for name in near if name in others)[:_NEAR]
