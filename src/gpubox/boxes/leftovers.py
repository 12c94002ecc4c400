"""What of somebody's can be removed: boxes that are stopped, and images that nothing needs.

Pure: what an engine has goes in, what can go and why comes out. Knows no engine, only its words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from gpubox import values
from gpubox.boxes import boxes, saved
from gpubox.boxes.boxes import Box, Inspection
from gpubox.gpus import claims

_STARTING = 60  # seconds for which a box that has never run may be about to
_SHORT_ID = 12


class Made(msgspec.Struct, frozen=True):
    """An image that gpubox made, by whom, and the bytes that no other image has.

    It is `built`, or of a box's files.
    """

    id: str
    names: tuple[str, ...]
    alone: int
    by: str
    built: bool = False


class Disk(msgspec.Struct, frozen=True):
    """What takes room: images that gpubox made, volumes by name; and each container's image."""

    made: tuple[Made, ...]
    volumes: Mapping[str, int]
    images: Mapping[str, str]


class Spare(msgspec.Struct, frozen=True):
    """What can go: a box, or else an image, which has its name as its id if it has one.

    `what` it is, is for a person to read.
    """

    id: str
    name: str
    size: int
    what: str
    box: bool


def stopped(them: Iterable[Box], me: str, now: float) -> list[Box]:
    """Mine that do not run, and are not about to."""
    return [
        box
        for box in them
        if box.owner == me
        and not box.alive
        and (box.state != "created" or now - box.created > _STARTING)
    ]


def has_volumes(found: Inspection) -> bool:
    """Whether it has some that go with it."""
    return any(map(saved.is_nameless, found.get("Mounts") or ()))


def of_boxes(them: Iterable[tuple[Box, Inspection]], volumes: Mapping[str, int]) -> list[Spare]:
    """Stopped boxes: those in which nothing was written first, then those that ended first."""
    ended = {box.id: str(found["State"].get("FinishedAt") or "") for box, found in them}
    found = [_of_box(box, found, volumes) for box, found in them]
    return sorted(found, key=lambda it: (it.size > 0, ended[it.id]))


def _of_box(box: Box, found: Inspection, volumes: Mapping[str, int]) -> Spare:
    nameless = [it for it in found.get("Mounts") or () if saved.is_nameless(it)]
    policy = boxes.restart_policy(found)
    holds = policy and claims.of_label(box.gpus) != values.NO_GPUS
    what = [
        f"box, {boxes.status(box)}",
        *([f"keeps its GPUs while it is stopped (restart: {policy})"] if holds else []),
        *(f"with its volume on {it['Destination']}" for it in nameless),
    ]
    size = (box.written or 0) + sum(volumes.get(it["Name"], 0) for it in nameless)
    return Spare(box.id, box.name, size, "; ".join(what), box=True)


def of_images(
    disk: Disk, going: Iterable[Spare], needed: Iterable[str], me: str
) -> Iterator[Spare]:
    """Mine that only boxes have that are going, and no profile by a `needed` name."""
    leaving = {it.id for it in going}
    used = {image for container, image in disk.images.items() if container not in leaving}
    names = {str(values.reference(name)) for name in needed}
    for made in disk.made:
        if made.by == me and made.id not in used and _is_spare(made.names, names):
            name = "".join(made.names).removesuffix(":latest")
            short = made.id.removeprefix("sha256:")[:_SHORT_ID]
            yield Spare(name or made.id, name or short, made.alone, _what(made), box=False)


def _is_spare(names: Sequence[str], needed: set[str]) -> bool:
    """Who has given it a second name wants to keep it."""
    return len(names) <= 1 and not any(str(values.reference(it)) in needed for it in names)


def _what(made: Made) -> str:
    if not made.names:
        return "image without a name: files of a box that was moved, or saved anew"
    return f"image, {'built' if made.built else 'saved'}; no profile here has it"
