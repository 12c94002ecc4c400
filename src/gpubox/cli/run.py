"""`run`: a shell or a command in a new box, which is left or accompanied to its end."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from gpubox.boxes.box import way_back
from gpubox.boxes.inspection import published_ports
from gpubox.cli.app import App
from gpubox.cli.reach import say_ports
from gpubox.cli.start import go, say_notes
from gpubox.cli.words import Request, command, request
from gpubox.values import size_written

if TYPE_CHECKING:
    from gpubox.boxes.foreground import Outcome
    from gpubox.boxes.launch import Launch, Started
    from gpubox.engine.engine import Engine
    from gpubox.plan.facts import Facts
    from gpubox.plan.plan import Plan

_DOCKERS_SHM = 64 * 2**20  # bytes, where nobody says a size


def run(app: App, parameters: dict[str, Any]) -> int:
    return go(request(app, parameters, parameters["words"], {}, job=app.job), attend)


def attend(request: Request, launch: Launch, facts: Facts) -> int:
    """Start the box and leave it, or stay with it to its end."""
    engine, screen = launch.engine, request.app.screen
    if request.ask.detach:
        started = launch.detached(facts)
        _announce(request, engine, started)
        if started.plan.kind == "shell":
            screen.say(f"enter it: gpubox enter {started.plan.name}")
        click.echo(started.plan.name)
        return 0
    _mention_stopped(request, engine)
    started, outcome = launch.foreground(facts, lambda begun: _announce(request, engine, begun))
    _part(request, engine, started, outcome)
    return outcome.exit_code


def _mention_stopped(request: Request, engine: Engine) -> None:
    """Say how to come back to the last box: `run` always makes a new one, as docker run does."""
    caller = request.app.caller
    if not (caller.at_terminal and sys.stderr.isatty()) or request.ask.command:
        return
    mine = request.mine(engine.boxes(stopped=True), "shell")
    if stopped := next((box for box in mine if box.state == "exited"), None):
        request.app.screen.say(
            f"a new box; yours of this folder is still there: gpubox enter {stopped.name}"
        )


def _part(request: Request, engine: Engine, started: Started, outcome: Outcome) -> None:
    """The last lines: what became of the box, and how to come back to it."""
    screen, name, plan = request.app.screen, started.plan.name, started.plan
    patience = 1 if outcome.exit_code == 128 + signal.SIGKILL else 0
    if not outcome.runs_on and engine.out_of_memory(started.box, patience):
        limit = f"-m {size_written(plan.mem_limit)}" if plan.mem_limit else "the machine's memory"
        screen.warn(
            f"a process in {name} was killed: main memory (not the GPU's) ran out within {limit}"
        )
    if outcome.exit_code == 128 + signal.SIGBUS:
        screen.warn(f"{name} ended on a bus error: {_shared_memory(plan)}")
    if not sys.stderr.isatty():
        return
    if outcome.runs_on:
        screen.say("")  # the cursor stands behind the box's own prompt
        screen.say(way_back(name, plan.kind, runs_on=True))
    elif not plan.rm:
        screen.say(way_back(name, plan.kind, runs_on=False, contested=plan.contested))


def _shared_memory(plan: Plan) -> str:
    """What a bus error nearly always means: the shared memory is full."""
    if plan.ipc not in (None, "private", "shareable"):
        return f"its shared memory is that of --ipc {plan.ipc}, and is probably full"
    size = plan.shm_size or _DOCKERS_SHM
    return (
        f"its {size_written(size)} of shared memory probably ran out;"
        f" --shm-size {size_written(2 * size)} gives more"
    )


def _announce(request: Request, engine: Engine, started: Started) -> None:
    """Say what a person must know of a box that has just started: notes, and where it listens."""
    from gpubox.plan import translate

    if request.app.verbose:
        for reason in started.plan.reasons:
            request.app.screen.say(reason)
        request.app.screen.say(translate.docker_run_line(started.plan))
    say_notes(request, started.plan)
    if started.plan.ports:
        say_ports(request.app, published_ports(engine.inspect(started.box)))


run_command = command(
    "run",
    run,
    """A shell, or COMMAND, in a box.

    PROFILE is a name that `gpubox profiles` lists, one like cuda12.4-cudnn, or an image. Without
    it the default profile runs; with a COMMAND and no PROFILE write: gpubox run -- COMMAND.
    """,
)
