"""Who has the keyboard: bytes are copied between our standard streams and a box's.

One thread and one poll loop for bytes, window size and signals. Knows no Docker: it is handed a
stream and what to call. Prints nothing.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import stat
import termios
import tty as tty_modes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from enum import Enum, auto
from time import monotonic

import msgspec

from gpubox.engine.streams import STDERR, STDOUT, BoxStream, Frames
from gpubox.errors import GpuboxError, why

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


# --- our side


def window_size(fd: int) -> tuple[int, int] | None:
    """Rows and columns of the terminal, if it is one and knows them."""
    try:
        size = os.get_terminal_size(fd)
    except OSError:
        return None
    return (size.lines, size.columns) if size.lines and size.columns else None


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """Raw mode: each key is bytes for us. What was typed ahead is kept; a hang-up is no error."""
    before = None
    with suppress(termios.error):
        before = termios.tcgetattr(fd)
    try:
        _set_raw(fd)
        yield
    finally:
        with suppress(termios.error):
            if before:
                termios.tcsetattr(fd, termios.TCSANOW, before)


def _set_raw(fd: int) -> None:
    with suppress(termios.error):
        tty_modes.setraw(fd, termios.TCSANOW)


def _is_terminal(fd: int) -> bool:
    """Whether it is a terminal, also one that has hung up: isatty() says no to that."""
    try:
        termios.tcgetattr(fd)
    except termios.error as error:
        return bool(error.args[0] == errno.EIO)
    return True


class _Standard:
    """One of our standard streams, for one direction, so that no use of it blocks the loop.

    O_NONBLOCK on the descriptor itself would hit all that share it, the shell too: a pipe or a
    terminal is opened anew. Where that fails (a socket, another user's terminal), only as much is
    written at a time as a poll vouches for.
    """

    def __init__(self, fd: int, flags: int) -> None:
        self.fd = self._given = fd
        self.is_terminal = _is_terminal(fd)
        self._careful = False
        with suppress(OSError):
            mode = os.fstat(fd).st_mode
            self._careful = self.is_terminal or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
            if self._careful:
                again = flags | os.O_NONBLOCK | os.O_NOCTTY
                self.fd = os.open(f"/proc/self/fd/{fd}", again)
                self._careful = False

    def close(self) -> None:
        if self.fd != self._given:
            os.close(self.fd)

    def read(self, limit: int) -> bytes | None:
        """None: nothing now; empty: the end, or a terminal that is gone."""
        try:
            return os.read(self.fd, limit)
        except BlockingIOError:
            return None
        except OSError as error:
            if self.is_terminal or error.errno == errno.EBADF:
                return b""
            raise GpuboxError(f"standard input: {why(error)}") from None

    def hung_up(self) -> bool:
        """Whether this was a terminal, and is gone: to a read that looks like Ctrl-D."""
        if self.is_terminal:
            try:
                termios.tcgetattr(self.fd)
            except termios.error:
                return True
        return False

    def write(self, data: memoryview) -> int:
        """How many bytes went; 0: none now."""
        if self._careful:
            if not select.select([], [self.fd], [], 0)[1]:
                return 0
            data = data[: select.PIPE_BUF]
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0


# --- detach keys

_CONTROL = [f"ctrl-{key}" for key in "@abcdefghijklmnopqrstuvwxyz[\\]^_"]
"""By their codes; https://github.com/moby/term/blob/main/ascii.go"""


def detach_sequence(text: str) -> bytes:
    """The bytes of Docker's `detachKeys` (`ctrl-p,ctrl-q`); ValueError for what is none."""
    return bytes(_code(key) for key in text.split(","))


def _code(key: str) -> int:
    if key == "DEL":
        return 127
    if len(key) == 1 and key.isascii():
        return ord(key)
    if key not in _CONTROL:
        raise ValueError(f"unknown key '{key}'")
    return _CONTROL.index(key)


class DetachKeys:
    """Looks for the sequence in what is typed, and holds back what may be its beginning."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence, self._held = sequence, b""

    def find(self, typed: bytes) -> tuple[bytes, bool]:
        """What goes to the box, and whether the sequence was typed behind it."""
        typed = self._held + typed
        passed, found, _ = typed.partition(self._sequence)
        if found:
            return passed, True
        longest = len(self._sequence) - 1
        held = next(n for n in range(longest, -1, -1) if typed.endswith(self._sequence[:n]))
        passed, self._held = typed[: len(typed) - held], typed[len(typed) - held :]
        return passed, False


# --- signals

# Not: WINCH, which makes Apache-like servers stop (https://github.com/moby/moby/issues/40871), what
# stops only us (TSTP, TTIN, TTOU), and what tells of ourselves (CHLD, PIPE, URG, XFSZ, faults).
_FORWARDED = ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "CONT")
_HELD = frozenset(signal.Signals[f"SIG{name}"] for name in (*_FORWARDED, "WINCH"))
_ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
_ENOUGH = 3


class Signals:
    """While this is entered, signals do nothing but wait for `arrived`, `heed` and `attach`.

    One that was ignored before stays so (`nohup`). On leaving, those that have arrived are raised
    again, unless `attach` has attended to them.
    """

    def __enter__(self) -> Signals:
        self.attended = False
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        with _blocked():
            self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
            self._handlers = {
                held: signal.signal(held, lambda *_: None)
                for held in _HELD
                if signal.getsignal(held) not in (signal.SIG_IGN, None)
            }
        return self

    def __exit__(self, *_: object) -> None:
        with _blocked():
            left = () if self.attended else self.arrived()
            for held, handler in self._handlers.items():
                signal.signal(held, handler)
            signal.set_wakeup_fd(self._wakeup)
            self._read.close()
            self._write.close()
            for late in left:
                signal.raise_signal(late)

    def fileno(self) -> int:
        """Readable when a signal has arrived."""
        return self._read.fileno()

    def arrived(self) -> tuple[signal.Signals, ...]:
        """Take the signals that have arrived since the last time, in order."""
        return self._arrived(0)

    def end_us(self) -> bool:
        """Whether one has arrived that would have ended us; it is left for others to take."""
        return not _ENDING.isdisjoint(self._arrived(socket.MSG_PEEK))

    def heed(self, seconds: float = 0) -> None:
        """Wait so long, or until a signal arrives; KeyboardInterrupt for one that would end us.

        That stays to be taken, so on leaving it is raised again.
        """
        select.select([self], [], [], seconds)
        if self.end_us():
            raise KeyboardInterrupt

    def _arrived(self, how: int) -> tuple[signal.Signals, ...]:
        with suppress(BlockingIOError):
            numbers = self._read.recv(4096, how)
            return tuple(signal.Signals(n) for n in numbers if n in self._handlers)
        return ()


@contextmanager
def _blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
_TRIES, _PAUSE = 10, 0.02  # to tell the size, and seconds between: a box has none until it runs


class Window:
    """Tells the box the size of our window, a few times over while the box refuses it."""

    def __init__(self, resize: Resize | None, fds: tuple[int, ...]) -> None:
        self._resize, self._fds = resize, fds
        self.changed()

    def changed(self) -> None:
        self._tries, self._due = _TRIES, monotonic()

    def tell(self) -> float | None:
        """Tell the box the size if that is due; the milliseconds to the next time, None if none."""
        if not self._resize or not self._tries:
            return None
        if monotonic() >= self._due:
            size = next(filter(None, map(window_size, self._fds)), None)
            told = not size or self._resize(*size)
            self._tries, self._due = 0 if told else self._tries - 1, monotonic() + _PAUSE
        return max(0, self._due - monotonic()) * 1000 if self._tries else None


class _Input:
    """From our standard input to the box; detach keys are looked for on the way."""

    def __init__(
        self,
        source: _Standard,
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
            _set_raw(self.fd)

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

    def __init__(self, out: _Standard, err: _Standard, frames: Frames | None) -> None:
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
        source = held.enter_context(closing(_Standard(fds[0], os.O_RDONLY)))
        out, err = (held.enter_context(closing(_Standard(fd, os.O_WRONLY))) for fd in fds[1:])
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
    heed = _Heed(forward, keyboard=tty, at_terminal=_is_terminal(stdin_fd))
    poll = select.poll()
    for fd in (exited, signals.fileno()):
        poll.register(fd, select.POLLIN)
    while exited not in {fd for fd, _ in poll.poll()}:
        for arrived in signals.arrived():
            if ending := heed(arrived):
                return ending
    return Ending(How.ENDED)
