"""`move`: the same box on other GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from gpubox.cli import candidates
from gpubox.cli.app import App, app
from gpubox.cli.chosen import BOX, OWNER, chosen
from gpubox.cli.words import SHARE, WAIT, patience
from gpubox.errors import EngineError, GpuboxError, UsageError
from gpubox.gpus.machine import called
from gpubox.values import NO_GPUS
from gpubox.values import gpus as read_gpus

if TYPE_CHECKING:
    from gpubox.boxes.box import Box
    from gpubox.plan.allocation import Allocation
    from gpubox.values import Gpus


GPUS = click.Option(
    ["--gpus"],
    required=True,
    metavar="GPUS",
    shell_complete=candidates.gpus,
    help="All, none, a number, or exact ones.",
)


@click.command("move", params=[BOX, GPUS, SHARE, *WAIT, OWNER])
@click.pass_context
def move_command(
    context: click.Context,
    name: str,
    gpus: str,
    share: bool,
    wait: bool,
    wait_for: float | None,
    owner: str | None,
) -> None:
    """The same box on other GPUs.

    GPUS are as in `gpubox run`: 2 takes any two that are free, device=3 exactly this one. For as
    many as the box has it gets other ones; else it may keep its own among them.

    What runs in the box ends, with its memory: the box starts again from its own command. Its
    files, volumes, ports and name stay. A `gpubox run` that is in the foreground of it ends, too.
    If anything fails or is interrupted, the box runs again where it was.
    """
    from gpubox.boxes.move import Move

    this = app(context)
    asked = _asked(gpus)
    engine = this.connect()
    if engine.podman:
        raise EngineError("boxes of Podman are not moved: it starts them without their GPUs")
    (box,) = chosen(this, engine, [name], owner)
    _refuse_past_slurm(this, box, asked)
    race = this.race(engine, patience(wait, wait_for))
    facts = replace(this.surveyed(race), engine=engine.facts())
    new = Move(race).to(box, asked, facts, share=share)
    if new is None:
        this.screen.say(f"{box.name} has {called(box.gpus, this.machine)} already")
    else:
        this.screen.say(f"{box.name} runs on {_place(this, new)}")
    click.echo(box.name)


def _refuse_past_slurm(this: App, box: Box, asked: Gpus) -> None:
    if box.job:
        raise GpuboxError(
            f"{box.name} is the box of Slurm's job {box.job}, and its GPUs are the job's",
            f"scancel {box.job}, and gpubox submit again",
        )
    if asked != NO_GPUS:
        this.refuse_past_slurm("gpubox submit")


def _asked(text: str) -> Gpus:
    try:
        return read_gpus(text)
    except ValueError as error:
        raise UsageError(f"--gpus: {error}") from None


def _place(this: App, new: Allocation) -> str:
    return next(iter(new.notes), "") or called(new.label, this.machine)
