"""At a real terminal a box feels like one's own shell, and the terminal is itself afterwards."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from docker import DockerClient
from pexpect import fdpexpect

from lab.engine import PrivateEngine
from lab.program import Gpubox
from lab.waiting import PATIENCE
from lab.workstation import BOX, PROFILE

PROMPT = r"/ # "
CTRL_C, CTRL_D, DETACH = b"\x03", b"\x04", b"\x10\x11"
ROWS, COLUMNS = 37, 123


class Terminal:
    """A terminal with gpubox in it: its slave stays open, as a shell's does."""

    def __init__(
        self, gpubox: Gpubox, words: tuple[str, ...], typed_ahead: bytes, size: tuple[int, int]
    ) -> None:
        self.master, self.slave = os.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(self.slave)
        self.screen: Any = fdpexpect.fdspawn(self.master, timeout=PATIENCE)
        self.type(typed_ahead)
        self.program = subprocess.Popen(
            ["setsid", "--ctty", gpubox.program, *words],
            env=gpubox.env,
            cwd=gpubox.cwd,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
        )

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def shows(self, pattern: str) -> str:
        """What was on the screen before, once `pattern` is there."""
        self.screen.expect(pattern.encode())
        return str(self.screen.before.decode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def ends(self) -> int:
        """gpubox's exit code; the terminal must be as it was before."""
        code = self.program.wait(PATIENCE)
        assert termios.tcgetattr(self.slave) == self.before
        return code

    def rest(self) -> str:
        """What is on the screen behind the last pattern, after the end."""
        os.write(self.slave, b"<end>")
        return self.shows("<end>")

    def close(self) -> None:
        """As by a click on the window's X."""
        for end in (self.slave, self.master):
            os.close(end)
        self.slave = self.master = -1


@contextmanager
def at_terminal(
    gpubox: Gpubox, *words: str, typed_ahead: bytes = b"", size: tuple[int, int] = (ROWS, COLUMNS)
) -> Iterator[Terminal]:
    made = Terminal(gpubox, words, typed_ahead, size)
    try:
        yield made
    finally:
        if made.program.poll() is None:
            made.program.kill()
        made.program.wait()
        if made.slave >= 0:
            made.close()


def is_running(client: DockerClient, name: str = BOX) -> bool:
    return bool(client.containers.get(name).status == "running")


# A shell ---------------------------------------------------------------------------------------


def test_a_profiles_name_gives_a_shell_and_its_exit_code(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    with at_terminal(gpubox, "run", PROFILE) as terminal:
        terminal.shows(PROMPT)
        terminal.type(b"echo $((6*7)); hostname; tty\r")
        assert terminal.shows("/dev/pts/0").split()[-2:] == ["42", BOX]
        terminal.type(b"exit 7\r")
        assert terminal.ends() == 7
        last = terminal.rest().splitlines()[-1]
        assert BOX in last and "rm" in last  # how to come back, and how to remove it
    assert not is_running(client)


def test_with_rm_nothing_is_left_to_come_back_to(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    with at_terminal(gpubox, "run", "--rm", PROFILE) as terminal:
        terminal.shows(PROMPT)
        terminal.type(b"exit\r")
        assert terminal.ends() == 0
        assert BOX not in terminal.rest().partition("exit")[2]
    assert client.containers.list(all=True) == []


def test_nvidias_own_line_works_with_gpubox_for_docker(
    engine: PrivateEngine, gpubox: Gpubox
) -> None:
    # without its memlock=-1, which an engine in a container may not set
    line = "run --gpus all -it --rm --ipc=host --ulimit stack=67108864"
    with at_terminal(gpubox, *line.split(), PROFILE, "nvidia-smi", "-L") as terminal:
        terminal.shows(engine.gpus[3])
        assert terminal.ends() == 0


def test_what_was_typed_ahead_reaches_the_shell(engine: PrivateEngine, gpubox: Gpubox) -> None:
    with at_terminal(gpubox, "run", PROFILE, typed_ahead=b"echo a''head; exit 3\r") as terminal:
        terminal.shows(r"\nahead\r")
        assert terminal.ends() == 3


def test_the_first_command_knows_the_size_where_the_engine_can_tell_it(
    cdi_engine: PrivateEngine, gpubox: Gpubox
) -> None:
    for rows, columns in ((ROWS, COLUMNS), (2, 2), (300, 500)):
        words = ("run", "--rm", PROFILE, "stty", "size")
        with at_terminal(gpubox, *words, size=(rows, columns)) as terminal:
            terminal.shows(f"{rows} {columns}\r\n")
            assert terminal.ends() == 0


def size_reached(rows: int, columns: int) -> str:
    return f'until [ "$(stty size)" = "{rows} {columns}" ]; do sleep .05; done; echo rig""ht'


def test_the_size_is_right_in_a_moment_on_every_engine(
    engine: PrivateEngine, gpubox: Gpubox
) -> None:
    with at_terminal(gpubox, "run", PROFILE, "sh", "-c", size_reached(ROWS, COLUMNS)) as terminal:
        terminal.shows("right")
        assert terminal.ends() == 0


def test_a_new_size_reaches_the_box(engine: PrivateEngine, gpubox: Gpubox) -> None:
    with at_terminal(gpubox, "run", PROFILE) as terminal:
        terminal.shows(PROMPT)
        terminal.resize(41, 97)
        os.kill(terminal.program.pid, signal.SIGWINCH)
        terminal.type(size_reached(41, 97).encode() + b"\r")
        terminal.shows("right")
        terminal.type(b"exit\r")
        assert terminal.ends() == 0


def test_ctrl_c_interrupts_the_command_in_the_box_and_not_gpubox(
    engine: PrivateEngine, gpubox: Gpubox
) -> None:
    with at_terminal(gpubox, "run", PROFILE) as terminal:
        terminal.shows(PROMPT)
        terminal.type(b"sh -c 'echo be\"\"gun; exec sleep 600'\r")
        terminal.shows("begun")
        terminal.type(CTRL_C)
        terminal.shows(PROMPT)
        terminal.type(b"echo $?; exit 5\r")
        terminal.shows("130")
        assert terminal.ends() == 5


def test_several_screenfuls_arrive_whole(engine: PrivateEngine, gpubox: Gpubox) -> None:
    with at_terminal(gpubox, "run", "--gpus", "none", PROFILE, "seq", "20000") as terminal:
        shown = terminal.shows("20000\r\n")
        assert shown.split() == [str(n) for n in range(1, 20000)]
        assert terminal.ends() == 0


def test_every_byte_that_is_typed_reaches_the_box(engine: PrivateEngine, gpubox: Gpubox) -> None:
    typed = bytes(range(255, -1, -1)) * 400  # 100 kB; in this order it never detaches
    script = f"stty raw -echo; echo ready; head -c {len(typed)} | sha256sum"
    with at_terminal(gpubox, "run", PROFILE, "sh", "-c", script) as terminal:
        terminal.shows("ready")
        terminal.type(typed)
        terminal.shows(hashlib.sha256(typed).hexdigest())
        assert terminal.ends() == 0


def test_pasted_pages_arrive_whole(engine: PrivateEngine, gpubox: Gpubox) -> None:
    pasted = "".join(f"{n}: " + "größe, " * 10 + "\n" for n in range(1200)).encode()
    script = "stty -echo; echo ready; tee /tmp/pasted; sha256sum /tmp/pasted"
    with at_terminal(gpubox, "run", PROFILE, "sh", "-c", script) as terminal:
        terminal.shows("ready")
        terminal.type(pasted)
        shown = terminal.shows(r"\r\n1199: .*\r\n").encode()
        terminal.type(CTRL_D)
        terminal.shows(hashlib.sha256(pasted).hexdigest())
        assert shown.splitlines()[1:] == pasted.splitlines()[:-1]
        assert terminal.ends() == 0


# Leaving ---------------------------------------------------------------------------------------


def test_ctrl_p_ctrl_q_leaves_the_box_running_and_says_how_to_come_back(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    with at_terminal(gpubox, "run", PROFILE) as terminal:
        terminal.shows(PROMPT)
        terminal.type(DETACH)
        assert terminal.ends() == 0
        assert re.search(rf"\n.*{BOX}.*\n", terminal.rest())
    assert is_running(client)


def set_detach_keys(gpubox: Gpubox, keys: str) -> None:
    folder = gpubox.home / ".docker"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"detachKeys": keys}))
    gpubox.env["DOCKER_CONFIG"] = str(folder)


@pytest.mark.parametrize(("keys", "typed"), [("ctrl-e,e", b"\x05e"), ("ctrl-]", b"\x1d")])
def test_the_persons_own_detach_keys_are_docker_configs(
    stable_engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, keys: str, typed: bytes
) -> None:
    set_detach_keys(gpubox, keys)
    with at_terminal(gpubox, "run", PROFILE) as terminal:
        terminal.shows(PROMPT)
        terminal.type(typed)
        assert terminal.ends() == 0
    assert is_running(client)


def test_detach_keys_that_nobody_can_type_are_said_before_there_is_a_box(
    stable_engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    set_detach_keys(gpubox, "ctrl-p,ctrl-?")
    with at_terminal(gpubox, "run", PROFILE) as terminal:
        assert terminal.ends() == 125
        rest = terminal.rest()
    assert "detachKeys in Docker's config.json is 'ctrl-p,ctrl-?'" in rest
    assert "ctrl-p,ctrl-q" in rest  # as it is to be written
    assert client.containers.list(all=True) == []


def test_a_closed_terminal_leaves_the_box_running(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    with at_terminal(gpubox, "run", PROFILE) as terminal:
        terminal.shows(PROMPT)
        terminal.close()
        assert terminal.program.wait(PATIENCE) == 128 + signal.SIGHUP
    assert is_running(client)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_gpubox_and_not_the_box(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, sent: signal.Signals
) -> None:
    with at_terminal(gpubox, "run", PROFILE) as terminal:
        terminal.shows(PROMPT)
        terminal.program.send_signal(sent)
        assert terminal.ends() == 128 + sent
        assert BOX in terminal.rest()
    assert is_running(client)


# Ends that nobody asked for --------------------------------------------------------------------


def test_a_box_that_is_killed_gives_the_terminal_back(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    with at_terminal(gpubox, "run", PROFILE) as terminal:
        terminal.shows(PROMPT)
        client.containers.get(BOX).kill()
        assert terminal.ends() == 128 + signal.SIGKILL


def test_an_engine_that_dies_gives_the_terminal_back_and_is_said_so(
    engine: PrivateEngine, gpubox: Gpubox
) -> None:
    with at_terminal(gpubox, "run", PROFILE) as terminal:
        terminal.shows(PROMPT)
        engine.kill()
        assert terminal.ends() == 125
        rest = terminal.rest()
        assert "the connection to the engine broke" in rest
        assert "Traceback" not in rest
        assert "invalid literal" not in rest


def test_a_failed_start_gives_the_terminal_back(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    with at_terminal(gpubox, "run", "--no-init", PROFILE, "/opt/no/such") as terminal:
        assert terminal.ends() == 127
        assert "'/opt/no/such'" in terminal.rest()
    assert client.containers.list(all=True) == []


# Detached --------------------------------------------------------------------------------------


def test_detached_at_a_terminal_prints_the_name_and_returns(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    with at_terminal(gpubox, "run", "-d", PROFILE) as terminal:
        assert terminal.ends() == 0
        shown = terminal.rest()
    assert shown.splitlines()[-1] == BOX
    assert is_running(client)
