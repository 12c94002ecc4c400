"""`enter`: come back to a box, to its own shell or to another one beside that."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import click
from click.shell_completion import CompletionItem

from gpubox.boxes.box import KILLED, Box, meant, out_of_memory, paused, way_back
from gpubox.boxes.inspection import has_terminal, killed_for_memory, removes_itself
from gpubox.cli import candidates
from gpubox.cli.app import App, app
from gpubox.cli.chosen import OWNER
from gpubox.cli.words import DASHES, WAIT, BoxCommand, patience
from gpubox.errors import GpuboxError, UsageError

if TYPE_CHECKING:
    from gpubox.boxes.foreground import Outcome, Process
    from gpubox.engine.engine import Engine
    from gpubox.plan.facts import Caller

_SHELL = ("sh", "-c", 'exec "$(command -v bash || command -v sh)"')

# What the engine prints as the program's output, if it cannot run the program.
_NOT_RUN = re.compile("OCI runtime exec failed|unable to find user")

_OPTIONS = [
    click.Option(["-u", "--user"], default="", metavar="USER", help="As whom, if not as the box."),
    click.Option(
        ["-w", "--workdir"], default="", metavar="DIR", help="In which folder of the box."
    ),
    click.Option(["-e", "--env"], multiple=True, metavar="NAME=VALUE", help="A variable."),
    click.Option(["-i", "--interactive"], is_flag=True, help="Forward standard input."),
    click.Option(["--attach"], is_flag=True, help="To what it was started with, not beside it."),
    *WAIT,
    OWNER,
]


def enter(app: App, parameters: Mapping[str, Any]) -> int:
    engine = app.connect()
    dashes = bool(click.get_current_context().meta.get(DASHES))
    box, command = _chosen(app, engine, parameters["words"], parameters["owner"], dashes)
    if box.state == "paused":
        raise paused(box)
    if box.alive and not parameters["attach"]:
        return _beside(app, engine, box, command, parameters)
    if command:
        raise _takes_no_command(box, command)
    if box.alive:
        return _attach(app, engine, box)
    return _come_back(app, engine, box, patience(parameters["wait"], parameters["wait_for"]))


# --- which


def _chosen(
    app: App, engine: Engine, words: Sequence[str], owner: str | None, dashes: bool
) -> tuple[Box, Sequence[str]]:
    """The box and the command; without a name the one of this folder, or the latest."""
    there = engine.boxes(stopped=True)
    if not words or dashes:
        if owner:
            raise UsageError(f"which box of {owner}'s?", "another person's box has its full name")
        return _mine(app, there), words
    try:
        box = meant(words[0], there, app.caller.name, owner)
        command = words[1:]
        return box, command[1:] if command and command[0] == "--" else command
    except UsageError as error:
        error.hint += f"; as a command: gpubox enter -- {shlex.join(words)}"
        raise


def _mine(app: App, there: Sequence[Box]) -> Box:
    mine = [box for box in there if box.owner == app.caller.name and _can_be_entered(box)]
    here = [box for box in mine if box.folder == str(app.caller.folder)]
    if not mine:
        raise GpuboxError("you have no box to enter", "gpubox run starts one")
    box = (here or mine)[0]
    more = f" of {len(here)}" if len(here) > 1 else ""
    which = f"the latest{more} of this folder" if here else "your latest; this folder has none"
    app.screen.say(f"entering {box.name} ({which})")
    return box


def _can_be_entered(box: Box) -> bool:
    return box.alive or box.kind == "shell"


# --- a stopped one


def _come_back(app: App, engine: Engine, box: Box, seconds: float) -> int:
    """Start its own shell again, attached to our terminal."""
    from gpubox.boxes import foreground
    from gpubox.boxes.again import Again
    from gpubox.screen.signals import Signals

    _refuse_to_run_again(box)
    if not has_terminal(engine.inspect(box.id)):
        raise GpuboxError(
            f"{box.name} was made without a terminal, and its shell would end at once",
            f"gpubox save {box.name} NAME and gpubox run NAME give one to its files",
        )
    if not app.caller.at_terminal:
        raise GpuboxError(
            f"{box.name} is stopped, and its shell wants a terminal",
            f"gpubox start {box.name}, then gpubox enter {box.name} COMMAND",
        )
    app.refuse_to_start_past_slurm([box])
    keys, race = foreground.detach_keys(engine), app.race(engine, seconds)
    facts = app.surveyed(race, [box])
    with Signals() as signals:

        def start() -> Process:
            process = foreground.attached(engine, box.id, box.image, stdin=True)
            engine.start(box.id, box.image)
            return process

        process = Again(race.heeding(signals), facts).begin(box, start)
        if signal.SIGINT in signals.arrived():
            raise KeyboardInterrupt  # typed before the keyboard was the box's
        outcome = foreground.accompany(process, signals, tty=True, stdin=True, keys=keys)
    return _leave(app, engine, box, outcome)


def _refuse_to_run_again(box: Box) -> None:
    if box.kind == "jupyter":
        raise GpuboxError(
            f"{box.name} is a notebook, and stopped",
            f"gpubox start {box.name}, or gpubox jupyter in {box.folder}, starts it again",
        )
    if box.kind != "shell":
        raise GpuboxError(
            f"{box.name} has run its command, and enter does not run it again",
            f"gpubox start {box.name} does; gpubox save {box.name} NAME and gpubox run NAME look"
            " inside",
        )


def _takes_no_command(box: Box, command: Sequence[str]) -> GpuboxError:
    line = f"gpubox enter {box.name} {shlex.join(command)}"
    if box.alive:
        return UsageError("--attach takes no COMMAND", line)
    return GpuboxError(f"{box.name} does not run", f"gpubox start {box.name}, then {line}")


# --- one that runs


def _attach(app: App, engine: Engine, box: Box) -> int:
    """Be the terminal, or the pipes, of the process that the box was started with."""
    from gpubox.boxes import foreground
    from gpubox.screen.signals import Signals

    found = engine.inspect(box.id)
    tty, stdin = has_terminal(found), bool(found["Config"]["OpenStdin"])
    if tty and stdin and not app.caller.at_terminal:
        raise GpuboxError(
            f"{box.name} has a terminal, and here is none",
            f"gpubox logs {box.name} shows its output",
        )
    keys = foreground.detach_keys(engine)
    with Signals() as signals:
        process = foreground.attached(engine, box.id, box.image, stdin=stdin)
        if tty and app.caller.rows_columns:
            rows, columns = app.caller.rows_columns
            process.resize(rows, columns + 1)  # programs draw their screen anew if its size changes
        outcome = foreground.accompany(process, signals, tty=tty, stdin=stdin, keys=keys)
    return _leave(app, engine, box, outcome, kept=not removes_itself(found))


def _beside(
    app: App, engine: Engine, box: Box, command: Sequence[str], parameters: Mapping[str, Any]
) -> int:
    """Start another shell or COMMAND in it."""
    from gpubox.boxes import foreground
    from gpubox.engine.faults import explain
    from gpubox.engine.processes import Exec
    from gpubox.screen.signals import Signals

    tty = app.caller.at_terminal
    if not command and not tty and not parameters["interactive"]:
        raise UsageError(
            "a shell wants a terminal", f"-i forwards standard input; or: {_example(box)}"
        )
    wanted = Exec(
        command=tuple(command) or _SHELL,
        tty=tty,
        stdin=tty or parameters["interactive"],
        user=app.caller.numbers if parameters["user"] == "host" else parameters["user"],
        folder=parameters["workdir"],
        variables=tuple(_variables(app.caller, parameters["env"])),
    )
    keys = foreground.detach_keys(engine)
    if not command and box.kind == "shell":
        app.screen.say(
            f"another shell in {box.name}, which ends with the first one"
            f" (gpubox enter --attach {box.name} comes to that)"
        )
    with Signals() as signals:
        process = foreground.beside(engine, box.id, box.image, wanted, signals)
        outcome = foreground.accompany(process, signals, tty=tty, stdin=wanted.stdin, keys=keys)
    if outcome.exit_code in (126, 127) and _NOT_RUN.search(outcome.last_words):
        raise explain(outcome.last_words, box.image)
    if outcome.runs_on and sys.stderr.isatty():
        app.screen.say("")
        app.screen.say(
            f"it runs on in {box.name}, as long as that does, and cannot be come back to"
        )
    return outcome.exit_code


def _example(box: Box) -> str:
    return f"gpubox enter {box.name} nvidia-smi"


def _variables(caller: Caller, texts: Sequence[str]) -> Iterator[str]:
    """NAME=VALUE for each; a NAME alone takes the caller's value, or is left out."""
    for text in texts:
        name, equals, _ = text.partition("=")
        if equals or name in caller.environ:
            yield text if equals else f"{name}={caller.environ[name]}"


def _leave(app: App, engine: Engine, box: Box, outcome: Outcome, *, kept: bool = True) -> int:
    """The last lines: what became of the box, and how to come back to it."""
    killed = kept and outcome.exit_code == KILLED
    if killed and (limit := killed_for_memory(engine.inspect(box.id))) is not None:
        app.screen.warn(f"{box.name} was killed: {out_of_memory(limit)}")
    if sys.stderr.isatty() and (kept or outcome.runs_on):
        if outcome.runs_on:
            app.screen.say("")  # the cursor stands behind the box's own prompt
        app.screen.say(way_back(box.name, box.kind, runs_on=outcome.runs_on))
    return outcome.exit_code


def _next_word(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """BOX, and behind it what COMMAND may be about."""
    command = context.params.get("words") or context.meta[DASHES]
    return (candidates.files if command else candidates.my_boxes)(context, parameter, incomplete)


class EnterCommand(BoxCommand):
    """Answers `docker exec -it`."""

    instead: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("-t", "--tty"), "leave it out: where there is a terminal, the command has one by itself"
    )


enter_command = EnterCommand(
    "enter",
    callback=lambda **parameters: enter(app(click.get_current_context()), parameters),
    help="""Come back to a box.

    A stopped box with a shell starts again, with all its files, on the GPU that it had. In a box
    that runs, another shell or COMMAND starts, and ends with the box. Without BOX it is yours of
    this folder, or else your latest; with a COMMAND and no BOX write: gpubox enter -- COMMAND.
    """,
    params=[
        click.Argument(
            ["words"],
            nargs=-1,
            type=click.UNPROCESSED,
            metavar="[BOX] [COMMAND]...",
            shell_complete=_next_word,
        ),
        *_OPTIONS,
    ],
)
