"""`ps`: the boxes that there are, from their labels alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click
from msgspec.structs import asdict

from gpubox import boxes as records
from gpubox import render
from gpubox.cli.app import app
from gpubox.errors import EngineError
from gpubox.figures import size_text
from gpubox.gpus import SHORT_UUID

if TYPE_CHECKING:
    from gpubox.boxes import Box
    from gpubox.engine import Engine

_COLUMNS = ("NAME", "PROFILE", "OWNER", "GPUS", "PORTS", "STATUS", "FOLDER")
_SPARE = ("FOLDER", "PORTS", "PROFILE")  # left out first where the window is narrow


@click.command("ps")
@click.option("-a", "--all", "stopped", is_flag=True, help="Stopped ones too.")
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@click.option("--size", "sizes", is_flag=True, help="What each has written; takes longer.")
@click.option("--json", "as_json", is_flag=True, help="A list of objects.")
@click.pass_context
def ps_command(
    context: click.Context, stopped: bool, quiet: bool, sizes: bool, as_json: bool
) -> None:
    """The boxes that run on this engine, whoever started them."""
    this = app(context)
    engine, me = this.connect(), this.caller.name
    all_boxes = engine.boxes(stopped=True, sizes=sizes)
    shown = [box for box in all_boxes if stopped or box.alive]
    if quiet:
        click.echo("".join(f"{box.name}\n" for box in shown), nl=False)
        return
    urls, ends = _urls(engine, shown, me), _ends(engine, shown)
    if as_json:
        render.print_json([_object(box, urls, ends) for box in shown])
        return
    if shown:
        columns = (*_COLUMNS, *(["WRITTEN"] if sizes else []))
        left_out = render.print_table(columns, [_row(box, ends) for box in shown], _SPARE)
        for box in shown:
            if box.id in urls:  # on a line of its own, so that it can be copied whole
                click.echo(f"{box.name}: {urls[box.id]}")
        if left_out:
            this.screen.say(render.wider(left_out))
    mine = sum(box.owner == me and not box.alive for box in all_boxes)
    if not shown:
        this.screen.say("no boxes" if stopped else "no box runs")
    if mine and not stopped:
        this.screen.say(f"{mine} of yours {'is' if mine == 1 else 'are'} stopped: gpubox ps -a")


def _urls(engine: Engine, boxes: Iterable[Box], caller: str) -> dict[str, str]:
    """The addresses, with their tokens, of the caller's own notebooks that run."""
    from gpubox import jupyter, notebook

    found = {}
    for box in boxes:
        if (box.kind, box.owner, box.state) == ("jupyter", caller, "running"):
            served = engine.served(box.id, notebook.KEY)
            found[box.id] = jupyter.url(served.address, served.port, served.token)
    return found


def _ends(engine: Engine, boxes: Iterable[Box]) -> dict[str, str]:
    """What killed those that were killed, where it was want of memory."""
    found = {}
    for box in boxes:
        if box.exit_code == records.KILLED:
            try:
                limit = engine.killed_for_memory(box.id)
            except EngineError:  # removed meanwhile
                continue
            if limit is not None:
                found[box.id] = records.out_of_memory(limit)
    return found


def _object(box: Box, urls: dict[str, str], ends: dict[str, str]) -> dict[str, object]:
    how = {"status": records.status(box, ends.get(box.id, "")), "exit_code": box.exit_code}
    return asdict(box) | how | {"url": urls.get(box.id, "")}


def _row(box: Box, ends: dict[str, str]) -> Sequence[str]:
    gpus = ",".join(gpu.removeprefix("index:")[:SHORT_UUID] for gpu in box.gpus.split(","))
    how = records.status(box, ends.get(box.id, ""))
    row = (box.name, box.profile, box.owner, gpus, ", ".join(box.ports), how, box.folder)
    return row if box.written is None else (*row, size_text(box.written))
