"""What registries say of an image now: through the engine, and Docker Hub's own API of its images.

Who cannot be asked makes it unknown, never missing. Knows no command and no screen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Literal

import msgspec

from gpubox import catalog, hub, values
from gpubox.engine import Engine
from gpubox.errors import GpuboxError

_NEAR = 5  # names that are worth to be shown


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
    """The registry that an image is pulled from, its `source`; the Hub too where it is that."""
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
    return Remote(
        image=image,
        state="missing" if missing else "there" if answers else "unknown",
        digest=published.digest if published else tag.digest if tag else "",
        platforms=published.platforms if published else (),
        sizes=tag.sizes if tag else {},
        pushed=tag.pushed[:10] if tag else "",
        near=_near(reference) if missing else (),
        reasons=tuple(reasons),
    )


def _of_the_engine(engine: Engine | GpuboxError) -> Engine:
    if isinstance(engine, GpuboxError):
        raise engine
    return engine


def _near(reference: values.Reference) -> tuple[str, ...]:
    """The nearest tags that there are: by the Hub, or by the catalogue of NVIDIA's."""
    names = [it.tag for it in catalog.listed() if it.state == "live"]
    known = [str(tag) for tag in names] if reference.repository == "nvidia/cuda" else []
    if not reference.registry:
        with suppress(GpuboxError):  # then what is known must do
            known += [it.name for it in hub.like(reference.repository, reference.tag.split("-")[0])]
    return tuple(get_close_matches(reference.tag, dict.fromkeys(known), _NEAR, 0.5))
