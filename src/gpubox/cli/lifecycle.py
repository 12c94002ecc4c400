"""`stop`, `start`, `restart` and `rm`: several boxes at once, and a line for each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import TYPE_CHECKING

import click

from gpubox.boxes.box import Box, paused
from gpubox.boxes.inspection import removes_itself, restart_policy
from gpubox.cli import candidates
from gpubox.cli.app import App, app
from gpubox.cli.chosen import BOXES, OWNER, chosen
from gpubox.cli.words import WAIT, patience
from gpubox.errors import GpuboxError, UsageError
from gpubox.gpus.machine import called

if TYPE_CHECKING:
    from gpubox.engine.engine import Engine
    from gpubox.gpus.race import Race
    from gpubox.plan.facts import Facts

_pool = partial(ThreadPoolExecutor, max_workers=8)
_TIME = click.Option(
    ["-t", "--time"],
    type=click.IntRange(0),
    metavar="SECONDS",
    help="For it to end by itself (10, unless its image says otherwise); then it is killed.",
)
_PROFILE = click.Option(
    ["--profile"],
    metavar="NAME",
    shell_complete=candidates.profiles,
    help="All that run of this profile.",
)
_FORCE = click.Option(["-f", "--force"], is_flag=True, help="Although it runs; yours only.")


# --- stop


@click.command("stop", params=[BOXES, _TIME, _PROFILE, OWNER])
@click.pass_context
def stop_command(
    context: click.Context,
    names: Sequence[str],
    time: int | None,
    profile: str | None,
    owner: str | None,
) -> int:
    """Stop boxes; they and their files are kept, and their GPUs are free again."""
    this = app(context)
    engine = this.connect()
    if profile is None:
        boxes = chosen(this, engine, names, owner)
    else:
        boxes = _of_profile(this, engine, profile, names, owner)
    return _each(this, _pool(), boxes, partial(_stop, engine, time))


def _of_profile(
    this: App, engine: Engine, profile: str, names: Sequence[str], owner: str | None
) -> list[Box]:
    if names:
        raise UsageError(f"boxes by name, and by --profile {profile}", "take one of the two")
    whose = owner or this.caller.name
    there = [box for box in engine.boxes(stopped=False) if box.owner == whose]
    boxes = [box for box in there if box.profile == profile]
    if not boxes:
        this.screen.say(f"no box of the profile {profile} runs")
    return boxes


def _stop(engine: Engine, seconds: int | None, box: Box) -> str:
    if not box.alive:
        return f"{box.name} does not run"
    found = engine.inspect(box.id)
    engine.stop(box.id, seconds)
    if removes_itself(found):
        return f"{box.name} is stopped, and removed: it was started with --rm"
    policy = restart_policy(found)
    if policy and box.has_gpus:
        return (
            f"{box.name} is stopped, and keeps its GPUs: it starts again by itself"
            f" (--restart {policy}); gpubox rm {box.name} frees them"
        )
    return f"{box.name} is stopped"


# --- start, restart


@click.command("start", params=[BOXES, *WAIT, OWNER])
@click.pass_context
def start_command(
    context: click.Context,
    names: Sequence[str],
    wait: bool,
    wait_for: float | None,
    owner: str | None,
) -> int:
    """Start stopped boxes again in the background, each by its own command.

    A box gets the GPUs that it had, if nobody has taken them meanwhile. To come back to the shell
    of one: gpubox enter.
    """
    this = app(context)
    engine = this.connect()
    boxes = chosen(this, engine, names, owner)
    return _again(this, this.race(engine, patience(wait, wait_for)), boxes, _start)


@click.command("restart", params=[BOXES, _TIME, *WAIT, OWNER])
@click.pass_context
def restart_command(
    context: click.Context,
    names: Sequence[str],
    time: int | None,
    wait: bool,
    wait_for: float | None,
    owner: str | None,
) -> int:
    """Stop boxes and start them again; nobody gets their GPUs in between."""
    this = app(context)
    engine = this.connect()
    boxes = chosen(this, engine, names, owner)
    race = this.race(engine, patience(wait, wait_for))
    return _again(this, race, boxes, partial(_restart, time))


Begin = Callable[["App", "Race", "Facts", "Box"], str]


def _again(this: App, race: Race, boxes: Sequence[Box], begin: Begin) -> int:
    from gpubox.screen.signals import Signals

    this.refuse_to_start_past_slurm(boxes)
    facts = this.surveyed(race, boxes)
    with Signals() as signals, _pool() as pool:  # no ticket is left, however this ends
        return _each(this, pool, boxes, partial(begin, this, race.heeding(signals), facts))


def _start(this: App, race: Race, facts: Facts, box: Box) -> str:
    from gpubox.boxes.again import Again

    if box.state == "paused":
        raise paused(box)
    if box.alive:
        return f"{box.name} runs already"
    Again(race, facts).start(box)
    return f"{box.name} runs{_where(this, box)}"


def _restart(seconds: int | None, this: App, race: Race, facts: Facts, box: Box) -> str:
    from gpubox.boxes.again import Again

    Again(race, facts).restart(box, seconds)
    return f"{box.name} runs{_where(this, box)}, started anew"


def _where(this: App, box: Box) -> str:
    return f" on {called(box.gpus, this.machine)}" if box.has_gpus else ""


# --- rm


@click.command("rm", params=[BOXES, _FORCE, OWNER])
@click.pass_context
def rm_command(context: click.Context, names: Sequence[str], force: bool, owner: str | None) -> int:
    """Remove stopped boxes, with all that was written in them.

    Named volumes and mounted folders stay. To keep what is in a box: gpubox save.
    """
    this = app(context)
    if force and owner not in (None, this.caller.name):
        raise UsageError(
            "-f removes boxes of yours only",
            f"gpubox stop --owner {owner} NAME, then rm without it",
        )
    engine = this.connect()
    boxes = chosen(this, engine, names, owner)
    return _each(this, _pool(), boxes, partial(_remove, engine, force))


def _remove(engine: Engine, force: bool, box: Box) -> str:
    if box.alive and not force:
        raise GpuboxError(
            f"{box.name} runs", f"gpubox stop {box.name} first, or gpubox rm -f {box.name}"
        )
    engine.remove(box.id)
    return f"{box.name} is removed"


# --- all at once


def _each(
    this: App, pool: ThreadPoolExecutor, boxes: Sequence[Box], act: Callable[[Box], str]
) -> int:
    """Do it to all, and say of each what became of it as soon as that is known.

    In a pipe their names go to standard output, too, as those of `docker stop` do.
    """
    failed = 0
    doing = {pool.submit(act, box): box for box in boxes}
    for done in as_completed(doing):
        try:
            this.screen.say(done.result())
        except GpuboxError as error:
            this.screen.fail(error)
            failed += 1
        else:
            if not sys.stdout.isatty():
                click.echo(doing[done].name)
    return 1 if failed else 0
