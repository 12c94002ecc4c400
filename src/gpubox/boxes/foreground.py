"""Staying with a process of a box: its streams are our terminal or our pipes until it ends.

Connects the streams that the engine hands out with the terminal. Knows no plan, and not how the
box came to be.
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
from gpubox.screen.keys import detach_sequence
from gpubox.screen.signals import Signals
from gpubox.screen.terminal import Ending, How

_PULSE = 0.1  # seconds between two questions whether an exec has ended: no call waits for that


class Process(msgspec.Struct, frozen=True):
    """A process of a box whose streams are ours.

    `code` waits for its end; the descriptor `ended` is readable then. Where that is None, the end
    of its output counts as its end.
    """

    streams: Hijacked
    code: Callable[[], int]
    signal: Callable[[str], None]
    resize: Callable[[int, int], bool]
    ended: int | None = None


class Outcome(msgspec.Struct, frozen=True):
    """How staying with it ended: our own exit code, whether it runs on, and its last output."""

    exit_code: int
    runs_on: bool
    last_words: str = ""


def attached(engine: Engine, box: str, image: str, *, stdin: bool) -> Process:
    """A box's own process; before its start, so that neither its output nor its end is missed."""
    streams = engine.attach(box, image, stdin=stdin)
    end = engine.exit_of(box)
    return Process(
        streams, end.code, partial(engine.signal, box), partial(engine.resize, box), end.fileno()
    )


def beside(engine: Engine, box: str, image: str, wanted: Exec, signals: Signals) -> Process:
    """Start another process in a running box.

    An engine sends signals only to a box's own process. So this one has a mark in its environment,
    which its children inherit, and a `kill` in the box reaches all that have it. A terminal needs
    none: there Ctrl-C is a key.
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


# One kill, parents first, as Ctrl-C on a terminal reaches all: a shell goes on if only its child
# dies.
_SEND = """
kill -"$2" $(for it in /proc/[0-9]*; do
    grep -qs "$1" "$it/environ" && echo "${it#/proc/}"
done | sort -n)"""


def detach_keys(engine: Engine) -> bytes:
    """The keys that leave a box. Asked for before there is one: a wrong setting is an error."""
    try:
        return detach_sequence(engine.detach_keys)
    except ValueError as error:
        raise EngineError(
            f"detachKeys in Docker's config.json is '{engine.detach_keys}': {error}",
            'write keys with commas between them: "ctrl-p,ctrl-q"',
            exit_code=125,
        ) from None


def accompany(
    process: Process, signals: Signals, *, tty: bool, stdin: bool, keys: bytes
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
        # a process may close its output long before it ends
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
