"""A build's events, as the two generations of engines tell them, add up to where it stands."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from gpubox.images.building import Building
from gpubox.screen.render import Screen
from lab.waiting import PATIENCE

OLD, NEW = "Removing intermediate container {}\n", " ---> Removed intermediate container {}\n"


def told(*texts: str) -> Building:
    building = Building()
    for text in texts:
        building.add({"stream": text})
    return building


def step(number: int, box: str, image: str, removed: str, *said: str) -> list[str]:
    head = [f"Step {number}/9 : RUN x", "\n", f" ---> Running in {box}\n"]
    return [*head, *said, removed.format(box), f" ---> {image}\n"]


FROM = ["Step 1/9 : FROM a", "\n", " ---> 00000000000a\n"]
CACHED = ["Step 2/9 : RUN y", "\n", " ---> Using cache\n", " ---> 00000000000b\n"]


@pytest.mark.parametrize("removed", [OLD, NEW])
def test_a_step_is_known_by_its_number_its_output_and_its_layer(removed: str) -> None:
    at_work = told(
        *FROM, *CACHED, *step(3, "00000000000c", "00000000000d", removed)[:-2], "a\nb", "c"
    )
    assert (at_work.number, at_work.total) == (3, 9)
    assert at_work.output.strip() == "a\nbc"
    assert at_work.last_line == "bc"
    assert (at_work.image, at_work.made) == ("00000000000b", "")
    assert at_work.container == "00000000000c"
    done = told(*FROM, *CACHED, *step(3, "00000000000c", "00000000000d", removed, "a\n"))
    assert (done.image, done.made) == ("00000000000d", "00000000000d")


def test_what_was_there_before_is_not_of_this_build() -> None:
    assert told(*FROM).made == ""
    assert told(*FROM, *CACHED).made == ""
    again = told(*FROM, *step(2, "00000000000c", "00000000000d", OLD), "Step 3/9 : LABEL z", "\n")
    assert (again.made, again.output.strip(), again.container) == ("00000000000d", "", "")


def test_the_engines_colours_are_not_the_programs_words() -> None:
    building = told(*FROM, *step(2, "00000000000c", "0", OLD)[:3], "\x1b[91mgpg: no key\n\x1b[0m")
    assert building.last_line == "gpg: no key"


def test_a_line_that_only_looks_like_a_step_of_a_build_is_output() -> None:
    building = told(*FROM, " ---> not an image\n", "Stepping 3/4\n")
    assert (building.number, building.image) == (1, "00000000000a")
    assert building.output.strip() == "---> not an image\nStepping 3/4"


def test_of_a_line_that_is_written_over_the_latest_state_counts() -> None:
    said = "(Reading database ... \r(Reading database ... 5%\r(Reading database ... 10%\r"
    assert told(*FROM, said).last_line == "(Reading database ... 10%"


def test_what_came_last_is_on_the_screen_while_nothing_more_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    parent, child = os.openpty()
    seen = ""

    def sentences() -> Iterator[str]:
        nonlocal seen
        yield from ("reading lists", "fetching a gigabyte")
        deadline = time.monotonic() + PATIENCE
        while "fetching a gigabyte" not in seen and time.monotonic() < deadline:
            seen += os.read(parent, 1000).decode(errors="replace")

    with os.fdopen(child, "w") as screen:
        monkeypatch.setattr("sys.stderr", screen)
        Screen().watching(sentences())
    os.close(parent)
    assert "fetching a gigabyte" in seen


@pytest.mark.parametrize("terminal", ["dumb", "unknown"])
def test_a_terminal_that_cannot_be_drawn_on_gets_a_line_for_each_step(
    terminal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", terminal)
    parent, child = os.openpty()
    with os.fdopen(child, "w") as screen:
        monkeypatch.setattr("sys.stderr", screen)
        Screen().building("a", ["base", "tools"], iter([told(*FROM), told(*FROM, *CACHED)]))
    with os.fdopen(parent, errors="replace") as shown:
        lines = [shown.readline().rstrip() for _ in range(3)]
    assert lines[:2] == ["step 1/9: base", "step 2/9: tools"]
    assert lines[2].startswith("built a in ")
