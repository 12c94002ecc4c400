"""`ps`: the boxes that there are, from their labels alone."""

from __future__ import annotations

from typing import Any

import click
from msgspec.structs import asdict

from gpubox import render
from gpubox.cli.app import app


@click.command("ps")
@click.option("-a", "--all", "stopped", is_flag=True, help="Stopped ones too.")
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@click.option("--json", "as_json", is_flag=True, help="A list of objects.")
@click.pass_context
def ps_command(context: click.Context, stopped: bool, quiet: bool, as_json: bool) -> None:
    """The boxes that run on this engine, whoever started them."""
    boxes = app(context).connect().boxes(stopped=stopped)
    if as_json:
        render.print_json([asdict(box) for box in boxes])
    elif quiet:
        click.echo("".join(f"{box.name}\n" for box in boxes), nl=False)
    elif boxes:
        columns = ("NAME", "PROFILE", "OWNER", "GPUS", "PORTS", "STATUS", "FOLDER")
        render.print_table(columns, [_row(box) for box in boxes])
    else:
        app(context).screen.say("no box runs" if not stopped else "no boxes")


def _row(box: Any) -> tuple[str, ...]:
    ports = ", ".join(box.ports)
    gpus = box.gpus.replace("index:", "")
    return (box.name, box.profile, box.owner, gpus, ports, box.status, box.folder)
