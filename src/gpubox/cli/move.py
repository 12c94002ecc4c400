"""`move`: the same box on other GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gpubox import boxes
from gpubox.cli.app import App, app
from gpubox.cli.words import patience, seconds
from gpubox.errors import EngineError, UsageError

if TYPE_CHECKING:
    from gpubox.engine import Engine
    from gpubox.plan import Facts, Given
    from gpubox.values import Gpus


@click.command("move")
@click.argument("name", metavar="BOX")
@click.option("--gpus", required=True, metavar="GPUS", help="All, none, a number, or exact ones.")
@click.option("--share", is_flag=True, help="Share its GPUs with boxes that share, too.")
@click.option("--wait", is_flag=True, help="While the GPUs are not free, wait for them.")
@click.option(
    "--wait-for", callback=seconds, metavar="TIME", help="Wait, but no longer than 2h, say."
)
@click.option("--owner", metavar="NAME", help="Whose box it is, if it is not yours.")
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
    from gpubox.move import Move

    this = app(context)
    asked = _asked(gpus)
    engine = this.connect()
    if engine.podman:
        raise EngineError("boxes of Podman are not moved: it starts them without their GPUs")
    box = boxes.meant(name, engine.boxes(stopped=True), this.caller.name, owner)
    race = this.race(engine, patience(wait, wait_for))
    facts = race.survey.of(_facts(this, engine))
    new = Move(race).to(box, asked, facts, share=share)
    if new is None:
        this.screen.say(f"{box.name} has {_called(box.gpus)} already")
    else:
        this.screen.say(f"{box.name} runs on {_place(new)}")
    click.echo(box.name)


def _asked(text: str) -> Gpus:
    from gpubox import values

    try:
        return values.gpus(text)
    except ValueError as error:
        raise UsageError(f"--gpus: {error}") from None


def _facts(this: App, engine: Engine) -> Facts:
    from gpubox.plan import Facts

    return Facts(
        caller=this.caller, machine=this.machine, unseen=this.unseen, engine=engine.facts()
    )


def _place(new: Given) -> str:
    return next(iter(new.notes), "") or _called(new.label)


def _called(label: str) -> str:
    """The GPUs of a label, as people say them."""
    gpus = label.replace("index:", "").split(",")
    if gpus in (["none"], ["all"]):
        return "no GPU" if gpus == ["none"] else "all GPUs"
    return f"GPU{'s'[: len(gpus) != 1]} {', '.join(gpus)}"
