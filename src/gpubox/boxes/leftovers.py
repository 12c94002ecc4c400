"""What a person can have removed: their boxes that are stopped, their images that nothing needs.

Pure: what an engine has goes in, what can go and why comes out. Knows no engine, only its words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from gpubox import values
from gpubox.boxes import saved
from gpubox.boxes.box import SHORT_ID, Box, status
from gpubox.boxes.inspection import Inspection, restart_policy

_STARTING = 60  # seconds since its creation for which a box may still be about to start


class Made(msgspec.Struct, frozen=True):
    """An image that gpubox made, for whom (`by`), and the bytes that it has `alone`.

    `built`: from a Dockerfile; else from a box's files.
    """

    id: str
    names: tuple[str, ...]
    alone: int
    by: str
    built: bool = False


class Disk(msgspec.Struct, frozen=True):
    """What takes room on an engine's disk.

    `made` are the images that gpubox made; `volumes` are bytes by name; `images` has the image's id
    for each container's.
    """

    made: tuple[Made, ...]
    volumes: Mapping[str, int]
    images: Mapping[str, str]


class Spare(msgspec.Struct, frozen=True):
    """A box or an image that can go; `what` describes it to a person.

    `id` is what the engine removes it by: of an image with a name, this.
    """

    id: str
    name: str
    size: int
    what: str
    box: bool


def stopped(there: Iterable[Box], me: str, now: float) -> list[Box]:
    """The boxes of `me` that do not run, and are not about to; `now` is in Unix seconds."""
    return [
        box
        for box in there
        if box.owner == me
        and not box.alive
        and (box.state != "created" or now - box.created > _STARTING)
    ]


def has_volumes(inspection: Inspection) -> bool:
    """Whether it has nameless volumes, which are removed with it."""
    return any(map(saved.is_nameless, inspection.get("Mounts") or ()))


def of_boxes(
    inspected: Sequence[tuple[Box, Inspection]], volumes: Mapping[str, int]
) -> list[Spare]:
    """Stopped boxes: those in which nothing was written first, then those that ended first."""
    ended = {box.id: str(said["State"].get("FinishedAt") or "") for box, said in inspected}
    spares = [_of_box(box, said, volumes) for box, said in inspected]
    return sorted(spares, key=lambda it: (it.size > 0, ended[it.id]))


def _of_box(box: Box, inspection: Inspection, volumes: Mapping[str, int]) -> Spare:
    nameless = [it for it in inspection.get("Mounts") or () if saved.is_nameless(it)]
    policy = restart_policy(inspection)
    holds = policy and box.has_gpus
    what = [
        f"box, {status(box)}",
        *([f"keeps its GPUs while it is stopped (restart: {policy})"] if holds else []),
        *(f"with its volume on {it['Destination']}" for it in nameless),
    ]
    size = (box.written or 0) + sum(volumes.get(it["Name"], 0) for it in nameless)
    return Spare(box.id, box.name, size, "; ".join(what), box=True)


def of_images(
    disk: Disk, going: Iterable[Spare], needed: Iterable[str], me: str
) -> Iterator[Spare]:
    """The images of `me` that no container has but those that are `going`.

    `needed` are the names of images that profiles have.
    """
    leaving = {it.id for it in going}
    used = {image for container, image in disk.images.items() if container not in leaving}
    names = {str(values.reference(name)) for name in needed}
    for made in disk.made:
        if made.by == me and made.id not in used and _is_spare(made.names, names):
            name = "".join(made.names).removesuffix(":latest")
            short = made.id.removeprefix("sha256:")[:SHORT_ID]
            yield Spare(name or made.id, name or short, made.alone, _what(made), box=False)


def _is_spare(names: Sequence[str], needed: set[str]) -> bool:
    """Whether no profile needs it, and it has no second name: who gave one wants to keep it."""
    return len(names) <= 1 and not any(str(values.reference(it)) in needed for it in names)


def _what(made: Made) -> str:
    if not made.names:
        return "image without a name: files of a box that was moved, or saved anew"
    return f"image, {'built' if made.built else 'saved'}; no profile here has it"
