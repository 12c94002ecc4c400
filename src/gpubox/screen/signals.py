"""Signals that wait until somebody asks what has arrived, and those that are taken for Ctrl-C.

Knows which ones would end us; knows no box and no terminal.
"""

from __future__ import annotations

import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Not: WINCH, which makes Apache-like servers stop (https://github.com/moby/moby/issues/40871), what
# stops only us (TSTP, TTIN, TTOU), and what tells of ourselves (CHLD, PIPE, URG, XFSZ, faults).
_FORWARDED = ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "CONT")
_HELD = frozenset(signal.Signals[f"SIG{name}"] for name in (*_FORWARDED, "WINCH"))
_ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})


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
def stoppable() -> Iterator[None]:
    """Take SIGTERM and SIGHUP (a closed terminal) for Ctrl-C; one that was ignored stays so."""
    wanted = (signal.SIGTERM, signal.SIGHUP)
    before = {
        number: signal.signal(number, signal.default_int_handler)
        for number in wanted
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
