"""Staying with a process of a box: its streams are our terminal or our pipes until it ends.

Joins what the engine hands out with the terminal. Knows no plan, and nothing of what was before.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from uuid import uuid4

import msgspec
from msgspec.structs import replace

from gpubox.engine.engine import Engine
from gpubox.engine.processes import Exec, Hijacked
from gpubox.engine.streams import stream
from gpubox.errors import EngineError, GpuboxError
from gpubox.screen import terminal
from gpubox.screen.terminal import Ending, How

_PULSE = 0.1  # seconds between two looks for an end that nothing tells of


class Process(msgspec.Struct, frozen=True):
    """A process of a box whose streams are ours.

    `code` waits for its end; `ended` is readable then. Without, its output's end is its own.
    """

    streams: Hijacked
    code: Callable[[], int]
    signal: Callable[[str], None]
    resize: Callable[[int, int], bool]
    ended: int | None = None


class Outcome(msgspec.Struct, frozen=True):
    """How it ended: the exit code for the shell, whether it runs on, the last that it said."""

    exit_code: int
    runs_on: bool
    last_words: str = ""


def attached(engine: Engine, box: str, image: str, *, stdin: bool) -> Process:
    """A box's own process, before it starts: neither its output nor its end is missed."""
    streams = engine.attach(box, image, stdin=stdin)
    end = engine.exit_of(box)
    return Process(
        streams, end.code, partial(engine.signal, box), partial(engine.resize, box), end.fileno()
    )


def beside(
    engine: Engine, box: str, image: str, wanted: Exec, signals: terminal.Signals
) -> Process:
    """Another process in a running box, started.

    An engine sends a signal to a box's own process only. Without a terminal, where Ctrl-C is one,
    all that have its mark get it, which are this one and its children.
    """
    mark = f"GPUBOX_ENTERED={uuid4().hex}"
    process = engine.exec(box, replace(wanted, variables=(*wanted.variables, mark)))

    def code() -> int:
        while (end := engine.exec_end(process, box)) is None:
            signals.heed(_PULSE)
        return end

    def send(name: str) -> None:
        with suppress(EngineError):  # the box has ended, or has no shell
            engine.run_in(box, "sh", "-c", _SEND, "sh", mark, str(int(signal.Signals[name])))

    streams = engine.exec_start(process, image, tty=wanted.tty)
    return Process(streams, code, send, partial(engine.exec_resize, process))


# Parents first and all at once, as from a keyboard: a shell goes on when only its child has died.
_SEND = """
kill -"$2" $(for it in /proc/[0-9]*; do
    grep -qs "$1" "$it/environ" && echo "${it#/proc/}"
done | sort -n)"""


def detach_keys(engine: Engine) -> bytes:
    """What leaves a box; said before there is one where it is nothing to type."""
    try:
        return terminal.detach_sequence(engine.detach_keys)
    except ValueError as error:
        raise EngineError(
            f"detachKeys in Docker's config.json is '{engine.detach_keys}': {error}",
            'write keys with commas between them: "ctrl-p,ctrl-q"',
            exit_code=125,
        ) from None


def accompany(
    process: Process, signals: terminal.Signals, *, tty: bool, stdin: bool, keys: bytes
) -> Outcome:
    """Be a process's terminal or pipes until it ends or is left by the detach `keys`."""

    def forward(arrived: signal.Signals) -> None:
        process.signal(arrived.name)

    connection = stream(process.streams.socket, process.streams.early)
    try:
        ending = terminal.attach(
            connection,
            signals,
            tty=tty,
            stdin=stdin,
            forward=forward,
            resize=process.resize if tty else None,
            detach_keys=keys,
        )
    except GpuboxError:
        # nobody can follow it any more: a full disk, a broken stream
        process.streams.hang_up()
        process.signal("SIGKILL")
        raise
    if ending.how is How.ENDED and process.ended is not None:
        # its output is over, which is not yet its end
        ending = terminal.outlast(process.ended, signals, tty=tty, forward=forward)
    return _outcome(process, ending, connection.last_words())


def _outcome(process: Process, ending: Ending, last_words: str) -> Outcome:
    match ending.how:
        case How.ENDED:
            return Outcome(process.code(), runs_on=False, last_words=last_words)
        case How.DETACHED:
            return Outcome(0, runs_on=True)
        case How.OUTPUT_GONE:
            process.streams.hang_up()
            process.signal("SIGKILL")
            return Outcome(128 + signal.SIGPIPE, runs_on=False)
        case How.TERMINAL_GONE:
            return Outcome(128 + signal.SIGHUP, runs_on=True)
        case How.TERMINATED | How.FORCED:
            return Outcome(128 + (ending.signal or 0), runs_on=True)
