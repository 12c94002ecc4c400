"""Our standard streams: read and written without ever blocking, and the terminal that they may be.

Knows descriptors and terminals; knows nothing of boxes.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import termios
import tty as tty_modes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from gpubox.errors import GpuboxError, why


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
        set_raw(fd)
        yield
    finally:
        with suppress(termios.error):
            if before:
                termios.tcsetattr(fd, termios.TCSANOW, before)


def set_raw(fd: int) -> None:
    with suppress(termios.error):
        tty_modes.setraw(fd, termios.TCSANOW)


def is_terminal(fd: int) -> bool:
    """Whether it is a terminal, also one that has hung up: isatty() says no to that."""
    try:
        termios.tcgetattr(fd)
    except termios.error as error:
        return bool(error.args[0] == errno.EIO)
    return True


class Standard:
    """One of our standard streams, for one direction, so that no use of it blocks the loop.

    O_NONBLOCK on the descriptor itself would hit all that share it, the shell too: a pipe or a
    terminal is opened anew. Where that fails (a socket, another user's terminal), only as much is
    written at a time as a poll vouches for.
    """

    def __init__(self, fd: int, flags: int) -> None:
        self.fd = self._given = fd
        self.is_terminal = is_terminal(fd)
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
