"""In a person's window a box looks as under `docker run -it`, and the shell is itself afterwards.

Where gpubox says nothing of its own, both programs get the same keys at the same time, and their
windows must come to look the same: text, colours, cursor.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest
from docker import DockerClient

from lab.engine import PrivateEngine
from lab.images import STAND_IN
from lab.person import at_window
from lab.program import Gpubox
from lab.tmux import Window
from lab.waiting import wait_until
from lab.workstation import BOX, PROFILE

GPUBOX = f'box() {{ gpubox run --rm --gpus none --hostname box {PROFILE} "$@"; }}'
DOCKER = f'box() {{ docker run -it --rm --init --hostname box {STAND_IN} "$@"; }}'
CTRL_C, CTRL_D, CTRL_Z, CTRL_BACKSLASH, ESCAPE = "\x03", "\x04", "\x1a", "\x1c", "\x1b"
DETACH = "\x10\x11"
# What is waited for is typed in two parts: sa''ne is not yet the answer.


class Pair:
    """The same `box` in two windows: gpubox's and docker's."""

    def __init__(self, ours: Window, theirs: Window) -> None:
        self.ours, self.theirs = ours, theirs

    def type(self, text: str) -> None:
        for each in (self.ours, self.theirs):
            each.type(text)

    def resize(self, rows: int, columns: int) -> None:
        for each in (self.ours, self.theirs):
            each.resize(rows, columns)

    def show(self, line: str) -> None:
        """Both show this line, and all the rest is the same too."""
        self.agree(lambda lines: line in lines, repr(line))

    def agree(self, condition: Callable[[list[str]], bool], what: str) -> None:
        self.ours.fulfils(condition, what)
        self.theirs.fulfils(condition, what)
        try:
            wait_until(lambda: self.ours.look() == self.theirs.look())
        except TimeoutError:
            both = f"gpubox:\n{self.ours.look()}\ndocker:\n{self.theirs.look()}"
            raise AssertionError(f"not the same with {what}\n{both}") from None


@pytest.fixture
def pair(gpubox: Gpubox) -> Iterator[Pair]:
    with at_window(gpubox, "ours", GPUBOX) as ours, at_window(gpubox, "theirs", DOCKER) as theirs:
        yield Pair(ours, theirs)


def last(line: str) -> Callable[[list[str]], bool]:
    return lambda lines: [text for text in lines if text][-1:] == [line]


# Beside docker run -it -------------------------------------------------------------------------


def test_a_session_looks_as_with_docker_run(engine: PrivateEngine, pair: Pair) -> None:
    pair.type("box\r")
    pair.show("/ #")
    pair.type("printf '\\033[1;32mgre\"\"en\\033[0m'; ls --color=always /\r")
    pair.agree(last("/ #"), "a listing")
    pair.type("clear; stty size; echo grüße; hostname\r")
    pair.show("box")
    pair.resize(31, 97)
    pair.type('until [ "$(stty size)" = \'31 97\' ]; do sleep .05; done; clear; echo res""ized\r')
    pair.show("resized")
    pair.type("exit 7\r")
    pair.show("[7]$")
    pair.type("echo sa''ne\r")
    pair.show("sane")


def test_keys_that_would_stop_a_program_go_inside_as_with_docker_run(
    engine: PrivateEngine, pair: Pair
) -> None:
    pair.type("box\r")
    pair.show("/ #")
    ends = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)
    for key, end in zip((CTRL_C, CTRL_BACKSLASH, CTRL_Z), ends, strict=True):
        pair.type("clear; cat\r")
        pair.agree(lambda lines: not any(lines), "an empty screen")
        pair.type("one\r")
        pair.agree(lambda lines: lines.count("one") == 2, "an echo")  # cat has the keyboard
        pair.type(key)
        pair.agree(last("/ #"), "a prompt")
        pair.type("echo left with $?\r")
        pair.show(f"left with {128 + end}")
    pair.type("jobs; fg\r")
    pair.agree(last("cat"), "the job again")
    pair.type("two\r")
    pair.agree(lambda lines: lines.count("two") == 2, "an echo")
    pair.type(CTRL_D)
    pair.agree(last("/ #"), "a prompt")
    pair.type(CTRL_D)  # the shell's end too
    pair.show("[0]$")


def test_full_screen_programs_look_as_with_docker_run(engine: PrivateEngine, pair: Pair) -> None:
    pair.type("echo before; box\r")
    pair.show("/ #")
    pair.type("vi /tmp/letter\r")
    pair.agree(lambda lines: lines[-1].startswith("- /tmp/letter"), "an empty letter")
    pair.type(f"idear box,\rgrüße{ESCAPE}")
    pair.agree(lambda lines: lines[:2] == ["dear box,", "grüße"], "a letter")
    pair.resize(15, 60)
    pair.agree(lambda lines: lines[14].startswith("- /tmp/letter"), "a smaller letter")
    pair.type(":wq\r")
    pair.show("before")  # the first screen, as it was
    pair.type("clear; cat /tmp/letter; seq 1000 | less\r")
    pair.agree(lambda lines: lines[0] == "1" and len(lines) == 15, "the first page")
    pair.type("/500\r")
    pair.agree(lambda lines: lines[0] == "500", "what was searched for")
    pair.resize(24, 80)
    pair.agree(lambda lines: len(lines) == 24 and lines[23] != "", "a larger page")
    pair.type("g")
    pair.agree(lambda lines: lines[0] == "1" and lines[22] == "23", "a larger first page")
    pair.type("q")
    pair.type("clear; cat /tmp/letter; exit 3\r")
    pair.show("grüße")
    pair.show("[3]$")


# gpubox alone ----------------------------------------------------------------------------------


def test_a_table_that_draws_itself_anew_keeps_to_the_window(
    engine: PrivateEngine, gpubox: Gpubox
) -> None:
    with at_window(gpubox, functions=GPUBOX) as person:
        person.type("box top -d 1\r")
        heads = ["Mem:", "CPU:", "Load"]
        person.fulfils(lambda lines: [line[:4] for line in lines[:3]] == heads, "table")
        person.resize(12, 40)  # too narrow for its lines, until they are drawn anew
        person.fulfils(lambda lines: [line[:4] for line in lines[:3]] == heads, "narrow table")
        person.type("q")
        person.shows("[0]$")


@pytest.mark.parametrize("stop", [signal.SIGTSTP, signal.SIGSTOP])
def test_gpubox_itself_can_be_stopped_and_brought_back(
    engine: PrivateEngine, gpubox: Gpubox, stop: signal.Signals
) -> None:
    script = "echo ready; read said; until stty size | grep 30.100; do sleep .05; done; exit $said"
    with at_window(gpubox, functions=GPUBOX) as person:
        person.type(f"clear; gpubox run --rm --gpus none {PROFILE} sh -c '{script}'\r")
        person.shows("ready")
        person.send(stop)
        person.shows(f"[{128 + stop}]$")
        person.type("echo sa''ne\r")
        person.shows("sane")
        person.resize(30, 100)
        person.type("clear; fg\r")
        person.type("4\r")
        person.shows("30 100")
        person.shows("[4]$")


def test_what_leaves_a_box_says_the_line_that_comes_back(
    engine: PrivateEngine, gpubox: Gpubox
) -> None:
    with at_window(gpubox, functions=GPUBOX) as person:
        person.type(f"gpubox run {PROFILE}\r")
        person.shows("/ #")
        person.type(DETACH)
        said = " ".join(person.shows("[0]$"))
        assert f"gpubox enter --attach {BOX} comes back" in said
        person.type(f"clear; gpubox enter --attach {BOX}\r")
        person.shows("/ #")
        person.type("echo ba''ck; exit 6\r")
        person.shows("back")
        person.shows("[6]$")


# Half a terminal -------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", ["", "-it"])
def test_a_reader_that_has_enough_leaves_the_shell_sane(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, flags: str
) -> None:
    with at_window(gpubox, functions=GPUBOX) as person:
        person.type(f"gpubox run {flags} --rm {PROFILE} yes | head -1; echo ${{PIPESTATUS[*]}}\r")
        person.shows("141 0")
        person.type("echo sa''ne\r")
        person.shows("sane")
        assert "[0]$ echo sa''ne" in person.lines()  # typed keys are seen again
    listed = client.containers.list
    wait_until(lambda: not listed(all=True, ignore_removed=True), what="the end of the box")


def test_output_to_a_pipe_is_plain_and_the_keyboard_still_the_boxs(
    engine: PrivateEngine, gpubox: Gpubox
) -> None:
    with at_window(gpubox, functions=GPUBOX) as person:
        person.type(f"gpubox run -i --rm {PROFILE} sh -c 'tty; tr a-z A-Z' | cat\r")
        person.shows("not a tty")
        person.type(f"loud\r{CTRL_D}")
        person.shows("LOUD")
        person.shows("[0]$")


def test_a_terminal_asked_for_has_the_keyboards_size_though_the_output_is_a_pipe(
    cdi_engine: PrivateEngine, gpubox: Gpubox
) -> None:
    with at_window(gpubox, functions=GPUBOX) as person:
        command = f"gpubox run -it --rm {PROFILE} sh -c 'stty size; exit 5'"
        person.type(f"{command} | cat; echo ${{PIPESTATUS[*]}}\r")
        person.shows("24 80")
        person.shows("5 0")
        person.type("echo sa''ne\r")
        person.shows("sane")


def test_a_terminal_for_an_input_that_is_none_is_refused_with_what_to_leave_out(
    cdi_engine: PrivateEngine, gpubox: Gpubox
) -> None:
    with at_window(gpubox, functions=GPUBOX) as person:
        person.type(f"true | gpubox run -it --rm {PROFILE} true\r")
        assert any("leave -t out" in line for line in person.shows("[125]$"))
        person.type(f"clear; seq 3 | gpubox run -t --rm {PROFILE} stty size\r")
        person.shows("24 80")  # the window is a terminal, its keyboard nobody's
        person.shows("[0]$")
