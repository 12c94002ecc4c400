"""`ps`: the boxes that there are, from their labels alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
from msgspec.structs import asdict

from gpubox import render
from gpubox.cli.app import app
from gpubox.gpus import SHORT_UUID

if TYPE_CHECKING:
    from gpubox.engine import Box, Engine


@click.command("ps")
@click.option("-a", "--all", "stopped", is_flag=True, help="Stopped ones too.")
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@click.option("--json", "as_json", is_flag=True, help="A list of objects.")
@click.pass_context
def ps_command(context: click.Context, stopped: bool, quiet: bool, as_json: bool) -> None:
    """The boxes that run on this engine, whoever started them."""
    this = app(context)
    engine = this.connect()
    boxes = engine.boxes(stopped=stopped)
    urls = {} if quiet else _urls(engine, boxes, this.caller.name)
    if as_json:
        render.print_json([asdict(box) | {"url": urls.get(box.id, "")} for box in boxes])
    elif quiet:
        click.echo("".join(f"{box.name}\n" for box in boxes), nl=False)
    elif boxes:
        columns = ("NAME", "PROFILE", "OWNER", "GPUS", "PORTS", "STATUS", "FOLDER")
        render.print_table(columns, [_row(box) for box in boxes])
        for box in boxes:
            if box.id in urls:  # on a line of its own, so that it can be copied whole
                click.echo(f"{box.name}: {urls[box.id]}")
    else:
        this.screen.say("no box runs" if not stopped else "no boxes")


def _urls(engine: Engine, boxes: Iterable[Box], caller: str) -> dict[str, str]:
    """The addresses, with their tokens, of the caller's own notebooks that run."""
    from gpubox import jupyter, notebook

    found = {}
    for box in boxes:
        if (box.kind, box.owner, box.state) == ("jupyter", caller, "running"):
            served = engine.served(box.id, notebook.KEY)
            found[box.id] = jupyter.url(served.address, served.port, served.token)
    return found


def _row(box: Box) -> tuple[str, ...]:
    ports = ", ".join(box.ports)
    gpus = ",".join(gpu.removeprefix("index:")[:SHORT_UUID] for gpu in box.gpus.split(","))
    return (box.name, box.profile, box.owner, gpus, ports, box.status, box.folder)
