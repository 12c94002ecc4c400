"""`ps`: the boxes that there are, from their labels alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
from msgspec.structs import asdict

from gpubox.boxes import inspection
from gpubox.boxes.box import KILLED, out_of_memory, status
from gpubox.cli.app import app
from gpubox.errors import EngineError
from gpubox.figures import size_text
from gpubox.gpus.machine import SHORT_UUID
from gpubox.screen import render

if TYPE_CHECKING:
    from gpubox.boxes.box import Box
    from gpubox.engine.engine import Engine

_COLUMNS = ("NAME", "PROFILE", "OWNER", "JOB", "GPUS", "PORTS", "STATUS", "FOLDER", "WRITTEN")
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
        render.print_json([object_of(box, urls, ends) for box in shown])
        return
    if shown:
        empty = {*([] if sizes else ["WRITTEN"]), *([] if any(it.job for it in shown) else ["JOB"])}
        columns = [column for column in _COLUMNS if column not in empty]
        rows = [[row[column] for column in columns] for row in (_row(it, ends) for it in shown)]
        left_out = render.print_table(columns, rows, _SPARE)
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
    from gpubox.boxes import jupyter

    found = {}
    for box in boxes:
        if (box.kind, box.owner, box.state) == ("jupyter", caller, "running"):
            served = inspection.served(engine.inspect(box.id))
            found[box.id] = jupyter.url(served.address, served.port, served.token)
    return found


def _ends(engine: Engine, boxes: Iterable[Box]) -> dict[str, str]:
    """Why boxes were killed, by their ids, where memory ran out."""
    found = {}
    for box in boxes:
        if box.exit_code == KILLED:
            try:
                limit = inspection.killed_for_memory(engine.inspect(box.id))
            except EngineError:  # removed meanwhile
                continue
            if limit is not None:
                found[box.id] = out_of_memory(limit)
    return found


def object_of(box: Box, urls: dict[str, str], ends: dict[str, str]) -> dict[str, object]:
    """What --json says of it."""
    how = {"status": status(box, ends.get(box.id, "")), "exit_code": box.exit_code}
    return asdict(box) | how | {"url": urls.get(box.id, "")}


def _row(box: Box, ends: dict[str, str]) -> dict[str, str]:
    gpus = ",".join(gpu.removeprefix("index:")[:SHORT_UUID] for gpu in box.gpus.split(","))
    return {
        "NAME": box.name,
        "PROFILE": box.profile,
        "OWNER": box.owner,
        "JOB": box.job,
        "GPUS": gpus,
        "PORTS": ", ".join(box.ports),
        "STATUS": status(box, ends.get(box.id, "")),
        "FOLDER": box.folder,
        "WRITTEN": size_text(box.written or 0),
    }
