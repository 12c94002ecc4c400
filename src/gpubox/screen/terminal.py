"""Who has the keyboard: bytes are copied between our standard streams and a box's.

One thread and one poll loop for bytes, window size and signals. Knows no Docker: it is handed a
stream and what to call. Prints nothing.
"""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from enum import Enum, auto
from time import monotonic

import msgspec

from gpubox.engine.streams import STDERR, STDOUT, BoxStream, Frames
from gpubox.errors import GpuboxError, why
from gpubox.screen.keys import DetachKeys
from gpubox.screen.signals import Signals
from gpubox.screen.standard import Standard, is_terminal, raw, set_raw, window_size

Resize = Callable[[int, int], bool]
"""Tell the box (rows, columns); False where it does not run yet, and is to be told again."""
Forward = Callable[[signal.Signals], None]


class How(Enum):
    """Why we are no longer attached to the box. In all but the first it may still be running."""

    ENDED = auto()
    DETACHED = auto()
    OUTPUT_GONE = auto()  # nobody reads our output: `gpubox run ... | head -1`
    TERMINAL_GONE = auto()
    TERMINATED = auto()  # by a signal, while the keyboard was the box's
    FORCED = auto()  # the third SIGINT or SIGTERM


class Ending(msgspec.Struct, frozen=True):
    """How it ended, with the signal that has ended it, if one has."""

    how: How
    signal: signal.Signals | None = None


_ENOUGH = 3  # SIGINT or SIGTERM, and we give up the box


class _Heed(msgspec.Struct):
    """Decides about a signal: it goes to the box, means nothing, or ends the attachment."""

    forward: Forward
    keyboard: bool
    at_terminal: bool
    interrupts: int = 0

    def __call__(self, arrived: signal.Signals) -> Ending | None:
        if arrived == signal.SIGHUP and self.at_terminal:
            return Ending(How.TERMINAL_GONE, arrived)
        if arrived == signal.SIGWINCH or (self.keyboard and arrived == signal.SIGCONT):
            return None
        if self.keyboard:
            return Ending(How.TERMINATED, arrived)
        if arrived in (signal.SIGINT, signal.SIGTERM):
            self.interrupts += 1
        if self.interrupts == _ENOUGH:
            return Ending(How.FORCED, arrived)
        self.forward(arrived)
        return None


# --- the loop

_CHUNK = 1 << 18
# To tell the size: a box has none until it runs. The seconds between double, up to ten in all.
_TRIES, _PAUSE = 10, 0.02


class Window:
    """Tells the box the size of our window, a few times over while the box refuses it."""

    def __init__(self, resize: Resize | None, fds: tuple[int, ...]) -> None:
        self._resize, self._fds = resize, fds
        self.changed()

    def changed(self) -> None:
        self._tries, self._due, self._pause = _TRIES, monotonic(), _PAUSE

    def tell(self) -> float | None:
        """Tell the box the size if that is due; the milliseconds to the next time, None if none."""
        if not self._resize or not self._tries:
            return None
        if monotonic() >= self._due:
            size = next(filter(None, map(window_size, self._fds)), None)
            told = not size or self._resize(*size)
            self._tries, self._due = 0 if told else self._tries - 1, monotonic() + self._pause
            self._pause *= 2
        return max(0, self._due - monotonic()) * 1000 if self._tries else None


class _Input:
    """From our standard input to the box; detach keys are looked for on the way."""

    def __init__(
        self,
        source: Standard,
        stream: BoxStream,
        *,
        keyboard: bool,
        keys: bytes | None,
        open: bool,
    ) -> None:
        self.fd, self._source, self._stream, self._keyboard = source.fd, source, stream, keyboard
        self._keys = DetachKeys(keys) if keyboard and keys else None
        self._open, self.unsent = open, memoryview(b"")
        self._closing = False

    @property
    def wanted(self) -> bool:
        return self._open and not self.unsent

    @property
    def sending(self) -> bool:
        return bool(self.unsent) or self._closing

    def resume(self) -> None:
        """Raw again, after the shell had the terminal while we were stopped."""
        if self._keyboard:
            set_raw(self.fd)

    def read(self) -> Ending | None:
        data = self._source.read(_CHUNK)
        if data == b"":
            return self._end()
        typed, detached = self._keys.find(data or b"") if self._keys else (data or b"", False)
        self.unsent = memoryview(typed)
        self.send()
        return Ending(How.DETACHED) if detached else None

    def _end(self) -> Ending | None:
        if self._keyboard or self._source.hung_up():
            return Ending(How.TERMINAL_GONE)
        self._open = False
        self._closing = not self._stream.close_write()  # we read only when all before is sent
        return None

    def send(self) -> None:
        if self._closing:
            self._closing = not self._stream.close_write()
        try:
            while self.unsent and (sent := self._stream.send(self.unsent)):
                self.unsent = self.unsent[sent:]
        except OSError:  # if more than the input is gone, recv will say so
            self._open, self.unsent = False, memoryview(b"")


class _Output:
    """From the box to our standard output and error; without `frames` all goes to the first."""

    def __init__(self, out: Standard, err: Standard, frames: Frames | None) -> None:
        self._frames, self._targets = frames, {0: out, STDOUT: out, STDERR: err}
        self._pieces: Iterator[tuple[int, memoryview]] = iter(())
        self._target, self._unwritten = out, memoryview(b"")

    @property
    def blocked(self) -> int | None:
        """The descriptor that must take what is unwritten before anything else is received."""
        return self._target.fd if self._unwritten else None

    def take(self, data: bytes) -> Ending | None:
        whole = ((STDOUT, memoryview(data)),)
        self._pieces = self._frames.pieces(data) if self._frames else iter(whole)
        return self.write()

    def write(self) -> Ending | None:
        try:
            while self._unwritten or self._next():
                if not (written := self._target.write(self._unwritten)):
                    break
                self._unwritten = self._unwritten[written:]
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.ECONNRESET):
                return Ending(How.OUTPUT_GONE)
            if self._target.hung_up():
                return Ending(How.TERMINAL_GONE)
            raise GpuboxError(f"output: {why(error)}") from None
        return None

    def _next(self) -> bool:
        stream, self._unwritten = next(self._pieces, (STDOUT, memoryview(b"")))
        self._target = self._targets[stream]
        return bool(self._unwritten)


class _Attachment(msgspec.Struct):
    stream: BoxStream
    signals: Signals
    input: _Input
    output: _Output
    window: Window
    heed: _Heed

    def run(self) -> Ending:
        while True:
            ready = self._wait()
            if ending := self._hear(ready) or self._type(ready) or self._show(ready):
                return ending

    def _wait(self) -> set[int]:
        """The descriptors that are ready, of those that something can be done with now.

        No other is polled: a poll always tells of a hang-up, and the loop would spin.
        """
        poll, blocked = select.poll(), self.output.blocked
        poll.register(self.signals, select.POLLIN)
        if self.input.wanted:
            poll.register(self.input.fd, select.POLLIN)
        if blocked is not None:
            poll.register(blocked, select.POLLOUT)
        events = select.POLLIN if blocked is None else 0
        events |= select.POLLOUT if self.input.sending else 0
        if events:
            poll.register(self.stream, events)
        due = self.window.tell()
        at_hand = {self.stream.fileno()} if blocked is None and self.stream.pending() else set()
        return at_hand | {fd for fd, _ in poll.poll(0 if at_hand else due)}

    def _hear(self, ready: set[int]) -> Ending | None:
        if self.signals.fileno() not in ready:
            return None
        for arrived in self.signals.arrived():
            if arrived in (signal.SIGWINCH, signal.SIGCONT):
                self.input.resume()
                self.window.changed()
            if ending := self.heed(arrived):
                return ending
        return None

    def _type(self, ready: set[int]) -> Ending | None:
        return self.input.read() if self.input.wanted and self.input.fd in ready else None

    def _show(self, ready: set[int]) -> Ending | None:
        if self.output.blocked in ready and (ending := self.output.write()):
            return ending
        if self.stream.fileno() in ready:
            self.input.send()
            if self.output.blocked is None and (data := self.stream.recv(_CHUNK)) is not None:
                return self.output.take(data) if data else Ending(How.ENDED)
        return None


def attach(
    stream: BoxStream,
    signals: Signals,
    *,
    tty: bool,
    stdin: bool,
    forward: Forward,
    resize: Resize | None = None,
    detach_keys: bytes | None = None,
    fds: tuple[int, int, int] = (0, 1, 2),
) -> Ending:
    """Be the box's keyboard and screen (`tty`), or its pipes, until its output ends or we leave.

    With `tty` and `stdin` the terminal is raw meanwhile, and signals end us instead of being
    forwarded to the box.
    Raises GpuboxError when a standard stream fails (a full disk) or the engine reports an error.
    """
    signals.attended = True
    keyboard = tty and stdin
    with ExitStack() as held:
        source = held.enter_context(closing(Standard(fds[0], os.O_RDONLY)))
        out, err = (held.enter_context(closing(Standard(fd, os.O_WRONLY))) for fd in fds[1:])
        if keyboard:
            held.enter_context(raw(source.fd))
        return _Attachment(
            stream,
            signals,
            _Input(source, stream, keyboard=keyboard, keys=detach_keys, open=stdin),
            _Output(out, err, None if tty else Frames()),
            Window(resize, (fds[1], fds[0])),
            _Heed(forward, keyboard, at_terminal=source.is_terminal),
        ).run()


def outlast(
    exited: int, signals: Signals, *, tty: bool, forward: Forward, stdin_fd: int = 0
) -> Ending:
    """Go on heeding signals until the descriptor `exited` is readable.

    A box may close its output long before it ends: `exec >/dev/null 2>&1; sleep 1000`.
    """
    heed = _Heed(forward, keyboard=tty, at_terminal=is_terminal(stdin_fd))
    poll = select.poll()
    for fd in (exited, signals.fileno()):
        poll.register(fd, select.POLLIN)
    while exited not in {fd for fd, _ in poll.poll()}:
        for arrived in signals.arrived():
            if ending := heed(arrived):
                return ending
    return Ending(How.ENDED)
