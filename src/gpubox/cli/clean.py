"""`clean`: the caller's own stopped boxes go, and images of theirs that nothing needs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from gpubox.cli.app import App, app
from gpubox.cli.confirm import agreed
from gpubox.errors import EngineError, GpuboxError
from gpubox.figures import counted, size_text
from gpubox.screen import render

if TYPE_CHECKING:
    from gpubox.boxes.leftovers import Spare
    from gpubox.engine.engine import Engine


@click.command("clean")
@click.option("--images", is_flag=True, help="Images that nothing needs, too.")
@click.option("-y", "--yes", is_flag=True, help="Remove without asking.")
@click.pass_context
def clean_command(context: click.Context, images: bool, yes: bool) -> int:
    """Remove your stopped boxes, after showing what they take.

    Those in which nothing was written come first, then the oldest. Never what runs, what is
    another person's, or what gpubox did not start.

    With --images also those that gpubox made for you, by save, move or build, and that no other
    container and no profile here has.
    """
    this = app(context)
    engine = this.connect()
    spares = _spares(this, engine, images)
    if not spares:
        this.screen.say("nothing to remove")
        return 0
    rows = [(it.name, size_text(it.size), it.what) for it in spares]
    render.print_table(("NAME", "SIZE", "WHAT"), rows)
    what = _counted(spares)
    typed = f"gpubox clean{' --images' if images else ''} --yes removes them"
    size = size_text(sum(it.size for it in spares))
    if not yes and not agreed(f"remove {what} ({size})?", f"{what} would be removed", typed):
        this.screen.say("nothing was removed")
        return 1
    removed = [it for it in spares if _is_removed(this, engine, it)]
    this.screen.say(f"{size_text(sum(it.size for it in removed))} freed")
    return 0 if removed == spares else 1


def _spares(this: App, engine: Engine, images: bool) -> list[Spare]:
    from gpubox.boxes import leftovers

    me, found = this.caller.name, []
    for box in leftovers.stopped(engine.boxes(stopped=True, sizes=True), me, time.time()):
        with suppress(EngineError):  # gone meanwhile
            if not engine.tickets(box.id):  # else it is being moved, or started
                found.append((box, engine.inspect(box.id)))
    if not images and not any(leftovers.has_volumes(said) for _, said in found):
        return leftovers.of_boxes(found, {})
    disk = engine.disk()
    boxes = leftovers.of_boxes(found, disk.volumes)
    needed = _needed(this) if images else ()
    return [*boxes, *(leftovers.of_images(disk, boxes, needed, me) if images else ())]


def _needed(this: App) -> set[str]:
    """The images of all profiles that the caller's files define."""
    config = this.config
    defaults = (config.default(), config.default("default_jupyter"))
    return {image for name in (*config.names(), *defaults) for image in config.profile(name).images}


def _counted(spares: Sequence[Spare]) -> str:
    """`2 boxes and 1 image`."""
    boxes = sum(spare.box for spare in spares)
    images = len(spares) - boxes
    parts = []
    if boxes:
        parts.append(counted(boxes, "box", "boxes"))
    if images:
        parts.append(counted(images, "image"))
    return " and ".join(parts)


def _is_removed(this: App, engine: Engine, spare: Spare) -> bool:
    """Remove it, and say why if that fails; whether it is gone."""
    try:
        if spare.box and engine.tickets(spare.id):
            raise EngineError(f"{spare.name} is being started, or moved")
        remove = engine.remove_stopped if spare.box else engine.remove_image
        remove(spare.id)
    except GpuboxError as error:
        this.screen.fail(GpuboxError(f"{spare.name} is kept: {error.problem}", error.hint))
        return False
    return True
