"""The keyboard and the screen are the box's while it is attached, and the person's own after."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubox.engine.streams import SocketStream
from gpubox.errors import EngineError, GpuboxError
from gpubox.screen import terminal
from gpubox.screen.keys import DetachKeys, detach_sequence
from gpubox.screen.signals import Signals, stoppable
from gpubox.screen.standard import window_size
from gpubox.screen.terminal import Ending, How
from lab.frames import frame
from lab.waiting import PATIENCE, wait_until

MB = 1_000_000

# --- detach keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-@", b"\x00"),
        ("a,b", b"ab"),
        ("ctrl-[", b"\x1b"),
        ("ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x1c\x1d\x1e\x1f"),
        ("DEL", b"\x7f"),
    ],
)
def test_detach_keys_are_read_as_docker_reads_them(text: str, keys: bytes) -> None:
    assert detach_sequence(text) == keys


@pytest.mark.parametrize("text", ["", "a,,b", "ctrl-", "ctrl-P", "ctrl-1", "é", "del", "ab"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="unknown key"):
        detach_sequence(text)


few_keys = st.text("ab", max_size=6).map(str.encode)


@given(few_keys.filter(bool), few_keys, st.booleans(), st.lists(st.integers(1, 3), max_size=9))
def test_the_detach_keys_are_found_however_they_are_split(
    sequence: bytes, typed: bytes, detach: bool, cuts: list[int]
) -> None:
    typed += sequence * detach + b"a"
    before, found, _ = typed.partition(sequence)
    keys, passed, detached = DetachKeys(sequence), b"", False
    for cut in [*cuts, len(typed)]:
        if not detached:
            to_box, detached = keys.find(typed[:cut])
            passed, typed = passed + to_box, typed[cut:]
    held = before.removeprefix(passed)
    assert (passed + held, detached) == (before, bool(found))
    assert sequence.startswith(held)  # only what may still become the sequence is held back
    assert not (found and held)


# --- pipes: attach() in this process, the box on the other end of a socket pair


class Pipes:
    """Our standard streams as pipes, and a box. `end` is how attach() ended."""

    def __init__(self) -> None:
        ours, self.box = socket.socketpair()
        self.box.settimeout(PATIENCE)
        self.stream = SocketStream(ours)
        stdin, self.keys = os.pipe()
        self.out, stdout = os.pipe()
        self.err, stderr = os.pipe()
        self.fds = [stdin, stdout, stderr]
        self.forwarded: list[signal.Signals] = []
        self.ours, self._threads = ours, list[threading.Thread]()

    def meanwhile(self, act: Callable[[], object]) -> None:
        self._threads.append(threading.Thread(target=act))
        self._threads[-1].start()

    def attach(self, *, stdin: bool = True, **more: Any) -> Ending:
        with Signals() as signals:
            return self.attach_with(signals, stdin=stdin, **more)

    def attach_with(self, signals: Signals, *, stdin: bool = True, **more: Any) -> Ending:
        forward = more.pop("forward", self.forwarded.append)
        fds = (self.fds[0], self.fds[1], self.fds[2])
        more = {"tty": False, "stdin": stdin, "forward": forward, "fds": fds} | more
        too_late = threading.Timer(PATIENCE, self.box.shutdown, [socket.SHUT_RDWR])
        too_late.start()
        try:
            return terminal.attach(self.stream, signals, **more)
        finally:
            assert too_late.is_alive(), "the loop would have gone on for ever"
            too_late.cancel()

    def close(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        for open_socket in (self.ours, self.box):
            open_socket.close()
        for fd in {*self.fds, self.keys, self.out, self.err}:
            with suppress(OSError):
                os.close(fd)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    made = Pipes()
    yield made
    made.close()


def read_all(fd: int) -> bytes:
    """Read what is there now; for a pipe that nobody writes any more."""
    os.set_blocking(fd, False)
    data = b""
    with suppress(BlockingIOError):
        while part := os.read(fd, MB):
            data += part
    return data


def received(box: socket.socket) -> bytes:
    data = bytearray()
    while part := box.recv(MB):
        data += part
    return bytes(data)


def test_output_and_errors_go_to_their_own_streams(pipes: Pipes) -> None:
    pipes.box.sendall(frame(1, b"out\xff") + frame(2, b"err") + frame(0, b"echo") + frame(1, b""))
    pipes.box.close()
    assert pipes.attach(stdin=False) == Ending(How.ENDED)
    assert (read_all(pipes.out), read_all(pipes.err)) == (b"out\xffecho", b"err")


def test_output_that_came_with_the_answer_is_first(pipes: Pipes) -> None:
    whole = frame(1, b"early") + frame(1, b", late")
    pipes.stream = SocketStream(pipes.ours, early=whole[:5])
    assert pipes.stream.pending()
    pipes.box.sendall(whole[5:])
    pipes.box.close()
    assert pipes.attach(stdin=False).how is How.ENDED
    assert read_all(pipes.out) == b"early, late"


def test_early_output_does_not_wait_for_more(pipes: Pipes) -> None:
    pipes.stream = SocketStream(pipes.ours, early=frame(1, b"early"))

    def waits_for_it() -> None:
        assert os.read(pipes.out, 5) == b"early"
        pipes.box.close()

    pipes.meanwhile(waits_for_it)
    assert pipes.attach(stdin=False).how is How.ENDED


def test_the_end_of_the_input_is_the_end_of_the_boxs_and_its_output_goes_on(pipes: Pipes) -> None:
    os.write(pipes.keys, b"abc\n")
    os.close(pipes.keys)

    def cat_then_more() -> None:
        text = received(pipes.box)  # to the half-close
        pipes.box.sendall(frame(1, text + b"tail"))
        pipes.box.close()

    pipes.meanwhile(cat_then_more)
    assert pipes.attach() == Ending(How.ENDED)
    assert read_all(pipes.out) == b"abc\ntail"


def test_a_closed_standard_input_is_an_ended_one(pipes: Pipes) -> None:
    closed = os.dup2(pipes.fds[0], 500)  # a number that nothing else will take
    for fd in (pipes.fds[0], closed):
        os.close(fd)
    pipes.fds[0] = closed

    def ends_with_its_input() -> None:
        assert received(pipes.box) == b""
        pipes.box.close()

    pipes.meanwhile(ends_with_its_input)
    assert pipes.attach().how is How.ENDED


def test_a_file_is_an_input_and_files_are_outputs(pipes: Pipes, tmp_path: Path) -> None:
    asked, answer = tmp_path / "in", tmp_path / "out"
    asked.write_bytes(b"from a file" * 50_000)
    answer.write_bytes(b"kept, ")
    for n, (path, flags) in enumerate([(asked, os.O_RDONLY), (answer, os.O_WRONLY | os.O_APPEND)]):
        os.close(pipes.fds[n])
        pipes.fds[n] = os.open(path, flags)

    def echo() -> None:
        pipes.box.sendall(frame(1, received(pipes.box)))
        pipes.box.close()

    pipes.meanwhile(echo)
    assert pipes.attach().how is How.ENDED
    assert answer.read_bytes() == b"kept, " + asked.read_bytes()


def test_an_unreadable_input_is_said(pipes: Pipes, tmp_path: Path) -> None:
    os.close(pipes.fds[0])
    pipes.fds[0] = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(GpuboxError, match="standard input: is a directory"):
        pipes.attach()


def test_a_full_disk_is_said(pipes: Pipes) -> None:
    os.close(pipes.fds[1])
    pipes.fds[1] = os.open("/dev/full", os.O_WRONLY)
    pipes.box.sendall(frame(1, b"result"))
    with pytest.raises(GpuboxError, match="output: no space left on device"):
        pipes.attach()


def test_a_box_that_reads_no_more_still_has_its_output_shown(pipes: Pipes) -> None:
    """`yes | gpubox run -i ...`: the input is broken off, the output is not."""
    shown = bytearray()

    def deaf() -> None:
        pipes.box.shutdown(socket.SHUT_RD)
        wait_until(lambda: _full(pipes.keys))  # nobody reads our input any more
        pipes.box.sendall(frame(1, b"o" * MB))
        pipes.box.close()

    os.set_blocking(pipes.keys, False)
    pipes.meanwhile(deaf)
    pipes.meanwhile(lambda: _read(pipes.out, shown, MB))
    assert pipes.attach().how is How.ENDED
    wait_until(lambda: len(shown) == MB)


def _full(pipe: int) -> bool:
    try:
        os.write(pipe, b"y\n" * 1000)
    except BlockingIOError:
        return True
    return False


def test_nothing_that_was_output_is_lost_when_the_box_left_input_unread(pipes: Pipes) -> None:
    os.write(pipes.keys, b"never read")

    def ends() -> None:
        wait_until(lambda: pipes.box.recv(1, socket.MSG_PEEK))
        pipes.box.sendall(frame(1, b"result"))
        pipes.box.close()  # with bytes unread: our next recv may be a reset

    pipes.meanwhile(ends)
    assert pipes.attach().how is How.ENDED
    assert read_all(pipes.out) == b"result"


def test_a_broken_connection_is_said(pipes: Pipes) -> None:
    with socket.socket() as never_connected:
        pipes.stream = SocketStream(never_connected)
        with pytest.raises(EngineError, match="connection to the box broke"):
            pipes.attach()


def test_nobody_reads_the_output_any_more(pipes: Pipes) -> None:
    """`gpubox run ... yes | head -1`"""
    os.close(pipes.out)
    pipes.box.sendall(frame(1, b"y\n"))
    assert pipes.attach() == Ending(How.OUTPUT_GONE)


@pytest.mark.parametrize("kind", ["pipe", "O_NONBLOCK", "socket"])
def test_50_mb_go_both_ways_byte_for_byte(pipes: Pipes, kind: str) -> None:
    chance = random.Random(7)
    data = chance.randbytes(50 * MB)
    if kind == "socket":
        reader, writer = socket.socketpair()
        for fd in (pipes.out, pipes.fds[1]):
            os.close(fd)
        pipes.out, pipes.fds[1] = reader.detach(), writer.detach()
    os.set_blocking(pipes.fds[1], kind != "O_NONBLOCK")
    os.set_blocking(pipes.fds[0], kind != "O_NONBLOCK")

    def cat() -> None:
        """The input, framed at random, in writes cut at random."""
        while part := pipes.box.recv(chance.randrange(1, 200_000)):
            framed = memoryview(frame(1, part))
            while framed:
                framed = framed[pipes.box.send(framed[: chance.randrange(1, 90_000)]) :]
        pipes.box.shutdown(socket.SHUT_WR)

    got = bytearray()
    pipes.meanwhile(cat)
    pipes.meanwhile(lambda: _write(pipes.keys, data))
    pipes.meanwhile(lambda: _read(pipes.out, got, len(data)))
    assert pipes.attach().how is How.ENDED
    wait_until(lambda: len(got) == len(data))
    assert bytes(got) == data


def _write(fd: int, data: bytes) -> None:
    with open(fd, "wb") as file:
        file.write(data)


def _read(fd: int, into: bytearray, size: int) -> None:
    while len(into) < size:
        into += os.read(fd, MB)


def test_our_streams_are_left_blocking_for_those_who_share_them(pipes: Pipes) -> None:
    pipes.box.sendall(frame(1, b"x"))
    pipes.box.close()
    pipes.attach()
    assert all(map(os.get_blocking, pipes.fds))


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_output_that_nobody_takes_holds_up_neither_input_nor_signals(
    pipes: Pipes, kind: str
) -> None:
    """`gpubox run ... | less`, and Ctrl-C."""
    if kind == "socket":
        reader, writer = socket.socketpair()
        for fd in (pipes.out, pipes.fds[1]):
            os.close(fd)
        pipes.out, pipes.fds[1] = reader.detach(), writer.detach()

    def box() -> None:
        pipes.box.settimeout(0.0)
        with suppress(BlockingIOError):
            while True:
                pipes.box.send(frame(1, b"o" * 250_000))
        pipes.box.settimeout(PATIENCE)
        os.write(pipes.keys, b"typed")
        assert pipes.box.recv(5) == b"typed"
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: pipes.forwarded)
        os.close(pipes.out)

    pipes.meanwhile(box)
    assert pipes.attach().how is How.OUTPUT_GONE
    assert pipes.forwarded == [signal.SIGINT]


# --- signals


def test_signals_go_to_the_box_without_a_terminal(pipes: Pipes) -> None:
    sent = [signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM]

    def person() -> None:
        for number, one in enumerate(sent, 1):
            os.kill(os.getpid(), one)
            wait_until(lambda n=number: len(pipes.forwarded) == n)  # type: ignore[misc]
        pipes.box.close()

    with Signals() as signals:
        pipes.meanwhile(person)
        assert pipes.attach_with(signals).how is How.ENDED
    assert pipes.forwarded == sent


def test_the_size_of_our_window_is_no_business_of_a_box_without_one(pipes: Pipes) -> None:
    with Signals() as signals:
        signal.raise_signal(signal.SIGWINCH)
        signal.raise_signal(signal.SIGUSR2)
        pipes.box.close()
        pipes.attach_with(signals)
    assert signal.SIGWINCH not in pipes.forwarded


def test_the_third_interrupt_leaves_a_box_that_minds_none(pipes: Pipes) -> None:
    with Signals() as signals:
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(one)
        ending = pipes.attach_with(signals)
    assert ending == Ending(How.FORCED, signal.SIGINT)
    assert pipes.forwarded == [signal.SIGINT, signal.SIGTERM]


def test_a_signal_before_the_attach_is_held_for_it(pipes: Pipes) -> None:
    def forward(arrived: signal.Signals) -> None:
        pipes.forwarded.append(arrived)
        pipes.box.close()

    with Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        assert pipes.attach_with(signals, forward=forward).how is How.ENDED
    assert pipes.forwarded == [signal.SIGTERM]


def test_the_caller_may_take_the_signals_first() -> None:
    with Signals() as signals:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)
        assert signals.arrived() == (signal.SIGINT, signal.SIGHUP)
        assert signals.arrived() == ()


def test_a_signal_that_nobody_took_strikes_afterwards() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), Signals():
        signal.raise_signal(signal.SIGINT)
        reached = True
    assert reached


def test_handlers_are_as_before_afterwards(pipes: Pipes) -> None:
    before = {one: signal.getsignal(one) for one in signal.valid_signals()}
    with Signals() as signals:
        pipes.box.close()
        pipes.attach_with(signals)
        signal.raise_signal(signal.SIGTERM)  # late: the box has ended
    assert {one: signal.getsignal(one) for one in signal.valid_signals()} == before
    assert signal.set_wakeup_fd(-1) == -1


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.arrived() == ()
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        with stoppable():
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_go_on_to_a_box_that_outlasts_its_output() -> None:
    exited, exits = os.pipe()

    def forward(arrived: signal.Signals) -> None:
        assert arrived == signal.SIGTERM
        os.close(exits)

    with Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        ending = terminal.outlast(exited, signals, tty=False, forward=forward)
    os.close(exited)
    assert ending == Ending(How.ENDED)


def test_the_third_interrupt_leaves_also_a_box_without_output() -> None:
    never, open_end = os.pipe()
    forwarded: list[signal.Signals] = []
    with Signals() as signals:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        ending = terminal.outlast(never, signals, tty=False, forward=forwarded.append)
    for fd in (never, open_end):
        os.close(fd)
    assert (ending, forwarded) == (Ending(How.FORCED, signal.SIGINT), [signal.SIGINT] * 2)


# --- a terminal: attach() in a program of its own, on a pty

PROGRAM = """
import fcntl, json, os, signal, socket, sys, termios
from gpubox.engine.streams import SocketStream
from gpubox.screen import terminal
from gpubox.screen.keys import detach_sequence
from gpubox.screen.signals import Signals

box, report, refusals, wanted = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
fcntl.ioctl(0, termios.TIOCSCTTY, 0)

def say(*words):
    os.write(report, json.dumps(words).encode() + b"\\n")

def resize(rows, columns):
    global refusals
    refusals -= 1
    say("resize", rows, columns)
    return refusals < 0

with Signals() as signals:
    say("ready")
    ending = terminal.attach(
        SocketStream(socket.socket(fileno=box)), signals, resize=resize,
        forward=lambda arrived: say("forward", arrived.name),
        detach_keys=detach_sequence("ctrl-p,ctrl-q"), **json.loads(wanted),
    )
say("ending", ending.how.name, ending.signal and ending.signal.name)
"""


class Person:
    """Somebody at a terminal with gpubox attached to a box."""

    def __init__(self, *, refusals: int = 0, tty: bool = True, stdout: int | None = None) -> None:
        self.master, self.slave = pty.openpty()
        self.resized(24, 80)
        self.before = termios.tcgetattr(self.slave)
        self.box, ours = socket.socketpair()
        self.box.settimeout(PATIENCE)
        self._report, report = os.pipe()
        self._heard = b""
        self.gpubox = subprocess.Popen(
            [
                *(sys.executable, "-c", PROGRAM, str(ours.fileno()), str(report), str(refusals)),
                json.dumps({"tty": tty, "stdin": True}),
            ],
            stdin=self.slave,
            stdout=self.slave if stdout is None else stdout,
            stderr=subprocess.PIPE,
            pass_fds=(ours.fileno(), report),
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(terminal.__file__).parents[1])},
        )
        ours.close()
        os.close(report)
        assert self.told() == ["ready"]
        if tty:
            wait_until(self.is_raw)

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ISIG | termios.ECHO)

    def types(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def resized(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def sees(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            assert select.select([self.master], [], [], PATIENCE)[0], data
            data += os.read(self.master, MB)
        return data

    def told(self) -> list[Any]:
        """What the program reported next."""
        while b"\n" not in self._heard:
            assert select.select([self._report], [], [], PATIENCE)[0], "no report"
            part = os.read(self._report, 4096)
            assert part, self.gpubox.communicate(timeout=PATIENCE)[1].decode()
            self._heard += part
        line, self._heard = self._heard.split(b"\n", 1)
        answer = json.loads(line)
        assert isinstance(answer, list)
        return answer

    def ending(self) -> tuple[str, str | None]:
        """How it ended, with the program gone and silent."""
        while (words := self.told())[0] != "ending":
            pass
        _, problems = self.gpubox.communicate(timeout=PATIENCE)
        assert (problems, self.gpubox.returncode) == (b"", 0)
        return words[1], words[2]

    def hangs_up(self) -> None:
        for fd in (self.master, self.slave):
            os.close(fd)
        self.master = self.slave = -1

    def close(self) -> None:
        if self.gpubox.poll() is None:
            self.gpubox.kill()
        self.gpubox.communicate(timeout=PATIENCE)
        self.box.close()
        for fd in (self.master, self.slave, self._report):
            if fd >= 0:
                os.close(fd)


@contextmanager
def at_terminal(
    *, refusals: int = 0, tty: bool = True, stdout: int | None = None
) -> Iterator[Person]:
    person = Person(refusals=refusals, tty=tty, stdout=stdout)
    try:
        yield person
    finally:
        person.close()


def box_sees(box: socket.socket, size: int) -> bytes:
    seen = b""
    while len(seen) < size and (more := box.recv(size - len(seen))):
        seen += more
    return seen


def test_ctrl_c_and_its_like_are_keys_of_the_box() -> None:
    with at_terminal() as person:
        person.types(b"\x03\x1a\x1c\x04\r")
        assert box_sees(person.box, 5) == b"\x03\x1a\x1c\x04\r"


def test_the_screen_is_the_boxs_and_its_end_gives_the_terminal_back() -> None:
    with at_terminal() as person:
        person.box.sendall(b"# \x1b[31mred\n")
        assert person.sees(11) == b"# \x1b[31mred\n"  # not \r\n: it has a terminal of its own
        person.box.sendall(b"last words")
        person.box.close()
        assert person.ending() == ("ENDED", None)
        assert person.sees(10) == b"last words"
        assert termios.tcgetattr(person.slave) == person.before


def test_the_boxs_window_has_our_size_from_the_start_and_after_each_change() -> None:
    with at_terminal() as person:
        assert person.told() == ["resize", 24, 80]
        person.resized(50, 132)
        assert person.told() == ["resize", 50, 132]


def test_the_size_is_told_again_until_the_box_runs() -> None:
    with at_terminal(refusals=3) as person:
        assert [person.told() for _ in range(4)] == [["resize", 24, 80]] * 4
        person.resized(30, 90)
        assert person.told() == ["resize", 30, 90]


def test_a_box_that_never_takes_a_size_is_asked_ten_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(terminal, "_PAUSE", 0.001)

    def refuse(rows: int, columns: int) -> bool:
        asked.append((rows, columns))
        return False

    with at_terminal() as person:
        window = terminal.Window(refuse, (person.slave,))
        wait_until(lambda: window.tell() is None)
    assert asked == [(24, 80)] * 10


def test_detach_keys_split_over_reads_leave_the_box() -> None:
    with at_terminal() as person:
        person.types(b"ls\r\x10")
        assert box_sees(person.box, 3) == b"ls\r"
        person.types(b"\x11never sent")
        assert person.ending() == ("DETACHED", None)
        assert received(person.box) == b""
        assert termios.tcgetattr(person.slave) == person.before


def test_a_beginning_of_the_detach_keys_is_passed_on_when_it_was_none() -> None:
    with at_terminal() as person:
        for keys in (b"a\x10", b"b\x10", b"\x10c"):
            person.types(keys)
        assert box_sees(person.box, 6) == b"a\x10b\x10\x10c"


@pytest.mark.parametrize("one", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_us_gives_the_terminal_back_and_leaves_the_box(one: signal.Signals) -> None:
    with at_terminal() as person:
        person.gpubox.send_signal(one)
        assert person.ending() == ("TERMINATED", one.name)
        assert termios.tcgetattr(person.slave) == person.before


def test_sighup_gives_the_terminal_back_and_leaves_the_box() -> None:
    with at_terminal() as person:
        person.gpubox.send_signal(signal.SIGHUP)
        assert person.ending() == ("TERMINAL_GONE", "SIGHUP")
        assert termios.tcgetattr(person.slave) == person.before


@pytest.mark.parametrize("tty", [True, False])
def test_a_closing_terminal_leaves_the_box_without_a_word(tty: bool) -> None:
    with at_terminal(tty=tty) as person:
        person.hangs_up()
        assert person.ending()[0] == "TERMINAL_GONE"
        assert received(person.box) == b""


@pytest.mark.parametrize("tty", [True, False])
def test_a_terminal_that_closed_before_we_had_it_leaves_the_box_too(
    pipes: Pipes, tty: bool
) -> None:
    master, slave = pty.openpty()
    os.close(pipes.fds[0])
    pipes.fds[0] = slave
    os.close(master)
    assert pipes.attach(tty=tty) == Ending(How.TERMINAL_GONE)


def test_a_screen_that_closed_leaves_the_box_too(pipes: Pipes) -> None:
    master, slave = pty.openpty()
    os.close(pipes.fds[1])
    pipes.fds[1] = slave
    os.close(master)
    pipes.box.sendall(frame(1, b"result"))
    assert pipes.attach() == Ending(How.TERMINAL_GONE)


def test_output_to_a_closed_pipe_gives_the_terminal_back() -> None:
    reader, writer = os.pipe()
    with at_terminal(stdout=writer) as person:
        os.close(writer)
        os.close(reader)
        person.box.sendall(b"y\n")
        assert person.ending() == ("OUTPUT_GONE", None)
        assert termios.tcgetattr(person.slave) == person.before


def test_a_box_without_a_terminal_leaves_ours_as_it_is() -> None:
    with at_terminal(tty=False) as person:
        assert not person.is_raw()
        person.types(b"a line\n\x04")  # Ctrl-D
        assert box_sees(person.box, 100) == b"a line\n"
        person.types(b"\x03")
        assert person.told() == ["resize", 24, 80]
        assert person.told() == ["forward", "SIGINT"]
        assert termios.tcgetattr(person.slave) == person.before


def test_after_a_stop_the_keyboard_is_the_boxs_again() -> None:
    with at_terminal() as person:
        assert person.told() == ["resize", 24, 80]
        person.gpubox.send_signal(signal.SIGSTOP)
        termios.tcsetattr(person.slave, termios.TCSANOW, person.before)  # as a shell does
        person.resized(25, 81)
        person.gpubox.send_signal(signal.SIGCONT)
        wait_until(person.is_raw)
        assert person.told() == ["resize", 25, 81]


def test_what_is_no_terminal_has_no_size(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert window_size(file.fileno()) is None


def test_a_terminal_that_does_not_know_its_size_has_none() -> None:
    with at_terminal() as person:
        person.resized(0, 0)
        assert window_size(person.slave) is None


def test_the_callers_window_is_the_keyboards_where_the_output_is_a_pipe() -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
    program = "from gpubox.host.caller import caller; print(caller().rows_columns)"
    for stdin, known in ((slave, b"(31, 97)"), (subprocess.DEVNULL, b"None")):
        asked = subprocess.run(
            [sys.executable, "-c", program],
            stdin=stdin,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(Path(terminal.__file__).parents[1])},
            check=True,
        )
        assert asked.stdout.strip() == known
    for fd in (master, slave):
        os.close(fd)
