"""Whatever an engine tells of its pulls, what is shown of them is true and never goes back."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubox.figures import parts_text
from gpubox.images.progress import Begun, News, Phase, Pulled, Pulls, Rate, Whole
from gpubox.screen import render
from gpubox.screen.bars import Canvas, frame, pulled_text, pulling_text, state_text

IMAGES = ("a", "b")
RECORDED = Path(__file__).with_name("pulls")  # from real engines, through a slow and a cut link
MB = 1_000_000

Said = tuple[str, dict[str, Any]]
FAILS = {"error": "no space left on device"}


def recorded(engine: str, scene: str) -> list[Said]:
    found: list[Said] = json.loads((RECORDED / f"{engine}.json").read_text())[scene]
    return found


def begun(*images: str) -> Pulls:
    pulls = Pulls(images)
    for image in images:
        pulls.begin(image, image)
    return pulls


def states(pulls: Pulls, events: Iterable[Said]) -> Iterator[Whole]:
    for image, event in events:
        if event == FAILS:
            pulls.end(image, failed=True)
        else:
            pulls.add(image, event)
        yield pulls.whole()


def layer(status: str, current: int = 0, total: int = 0, name: str = "1") -> Said:
    detail = {"current": current, "total": total} if total else {}
    return ("a", {"status": status, "id": name, "progressDetail": detail})


def after(*events: Said) -> Pulls:
    pulls = begun("a")
    for image, event in events:
        pulls.add(image, event)
    return pulls


# Whatever comes --------------------------------------------------------------------------------

WORDS = [
    *("Pulling fs layer", "Waiting", "Downloading", "Verifying Checksum", "Download complete"),
    *("Extracting", "Pull complete", "Already exists", "Retrying in 5 seconds"),
    *("Pulling from nvidia/cuda", "Digest: sha256:0", "Status: Image is up to date", ""),
]
BYTES = st.one_of(st.none(), st.integers(-5, 2000), st.integers(0, 10**13))
EVENTS = st.just(FAILS) | st.fixed_dictionaries(
    {"status": st.sampled_from(WORDS)},
    optional={
        "id": st.sampled_from(["1", "2", "3", "8.0-cudnn5"]),
        "progressDetail": st.one_of(
            st.none(),
            st.fixed_dictionaries(
                {},
                optional={"current": BYTES, "total": BYTES, "units": st.sampled_from(["", "s"])},
            ),
        ),
    },
)


@given(st.lists(st.tuples(st.sampled_from(IMAGES), EVENTS), max_size=60))
def test_no_figure_ever_falls_or_passes_its_whole(events: list[Said]) -> None:
    pulls = begun(*IMAGES)
    done = extracted = downloaded = unpacked = 0.0
    for whole in states(pulls, events):
        assert done <= whole.done <= whole.total
        assert extracted <= whole.extracted <= whole.total
        assert 0 <= downloaded <= pulls.downloaded.value <= 1
        assert 0 <= unpacked <= pulls.unpacked.value <= 1
        done, extracted = whole.done, whole.extracted
        downloaded, unpacked = pulls.downloaded.value, pulls.unpacked.value
        for each in whole.layers.values():
            assert 0 <= each.extracted <= each.size and 0 <= each.done <= each.size


@given(
    st.lists(st.tuples(st.sampled_from(IMAGES), EVENTS), max_size=40),
    st.integers(1, 200),
    st.integers(3, 60),
    st.floats(0, 1e12),
)
def test_a_frame_fits_every_screen(
    events: list[Said], columns: int, rows: int, rate: float
) -> None:
    pulls = begun(*IMAGES)
    for _ in states(pulls, events):
        lines = frame(pulls, rate, Canvas(columns, rows))
        assert 1 <= len(lines) <= rows
        assert max(len(line) for line in lines) < max(columns, 2)


# What real engines have said -------------------------------------------------------------------


@pytest.mark.parametrize("scene", ["cut", "both"])
@pytest.mark.parametrize("engine", ["docker-20.10", "docker-28.5", "containerd-store"])
def test_what_docker_said_ends_with_all_layers_done(engine: str, scene: str) -> None:
    events = recorded(engine, scene)
    pulls = begun(*{image: None for image, _ in events})
    done = 0
    for whole in states(pulls, events):
        assert done <= whole.done <= whole.total
        done = whole.done
    assert {each.phase for each in whole.layers.values()} == {Phase.DONE}
    assert whole.done == whole.total == whole.extracted
    assert pulls.downloaded.value == 1


@pytest.mark.parametrize("scene", ["alone", "both"])
def test_what_podman_said_ends_with_all_layers_here(scene: str) -> None:
    *_, whole = states(begun(*IMAGES), recorded("podman-4.3", scene))
    assert {each.phase for each in whole.layers.values()} == {Phase.DOWNLOADED}
    assert whole.done == whole.total > 0
    assert not whole.extracts


@pytest.mark.parametrize("engine", ["docker-20.10", "docker-28.5"])
def test_a_cut_costs_the_layers_and_nothing_more(engine: str) -> None:
    """Goes on by Range: what came before the cut does not come again."""
    pulls = begun("a")
    *_, whole = states(pulls, recorded(engine, "cut"))
    assert pulls.fetched("a") == pytest.approx(whole.total, rel=0.05)


@pytest.mark.parametrize("engine", ["docker-20.10", "docker-28.5"])
def test_layers_that_two_images_share_came_once(engine: str) -> None:
    pulls = begun(*IMAGES)
    *_, whole = states(pulls, recorded(engine, "both"))
    assert pulls.all_fetched == pytest.approx(whole.total, rel=0.01)
    assert len(whole.layers) < sum(len(each.layers) for each in pulls.images.values())


# One after the other ---------------------------------------------------------------------------


def test_after_a_cut_the_smaller_total_is_what_is_left() -> None:
    pulls = after(
        layer("Downloading", 60, 100), layer("Retrying in 1 second"), layer("Downloading", 10, 40)
    )
    assert (pulls.whole().done, pulls.whole().total, pulls.fetched("a")) == (70, 100, 70)


def test_a_full_bar_that_docker_draws_when_it_is_cut_is_not_believed() -> None:
    pulls = after(layer("Downloading", 30, 100), layer("Downloading", 100, 100))
    assert (pulls.whole().done, pulls.fetched("a")) == (30, 30)
    pulls.add(*layer("Retrying in 5 seconds"))
    assert (pulls.whole().done, pulls.fetched("a")) == (30, 30)
    pulls.add(*layer("Downloading", 70, 70))
    pulls.add(*layer("Download complete"))
    assert (pulls.whole().done, pulls.fetched("a")) == (100, 100)


def test_a_layer_that_begins_anew_stands_until_it_is_farther_and_its_bytes_count_again() -> None:
    pulls = after(layer("Downloading", 60, 100), layer("Downloading", 10, 100))
    assert (pulls.whole().done, pulls.fetched("a")) == (60, 70)
    pulls.add(*layer("Downloading", 80, 100))
    assert (pulls.whole().done, pulls.fetched("a")) == (80, 140)


def test_a_small_layer_tells_its_size_when_it_is_extracted() -> None:
    pulls = after(layer("Download complete"), layer("Extracting", 10, 30))
    assert (pulls.whole().done, pulls.whole().total, pulls.whole().extracted) == (30, 30, 10)
    assert pulls.fetched("a") == 30


def test_seconds_of_extraction_are_no_bytes() -> None:
    event = {"status": "Extracting", "id": "1", "progressDetail": {"current": 7, "units": "s"}}
    pulls = after(layer("Downloading", 3, 30), ("a", event))
    assert (pulls.whole().total, pulls.whole().extracted) == (30, 0)


def test_a_layer_that_was_here_is_no_work_and_no_bytes() -> None:
    pulls = after(layer("Already exists"), layer("Downloading", 5, 10, "2"))
    assert pulls.downloaded.value == pytest.approx(0.5)
    assert pulls.fetched("a") == 5


def test_where_all_is_known_the_share_is_the_plain_fraction() -> None:
    pulls = after(layer("Downloading", 0, 40 * MB), layer("Downloading", 0, 60 * MB, "2"))
    for done in range(0, 40 * MB, 4 * MB):
        pulls.add(*layer("Downloading", done, 40 * MB))
        assert pulls.downloaded.value == pytest.approx(done / (100 * MB))


def test_a_tiny_layer_that_comes_first_is_a_tiny_part_of_the_whole() -> None:
    names = [str(number) for number in range(5)]
    pulls = after(*(layer("Pulling fs layer", name=name) for name in names))
    pulls.add(*layer("Downloading", 200, 200))
    pulls.add(*layer("Download complete"))
    assert 0 < pulls.downloaded.value < 0.01


def test_news_of_a_large_layer_moves_nothing_and_the_rest_of_the_bar_is_for_it() -> None:
    pulls = after(layer("Downloading", 0, 10 * MB), layer("Pulling fs layer", name="2"))
    pulls.add(*layer("Download complete"))
    before = pulls.downloaded.value
    pulls.add(*layer("Downloading", 0, 1000 * MB, "2"))
    assert pulls.downloaded.value == before
    pulls.add(*layer("Downloading", 500 * MB, 1000 * MB, "2"))
    assert pulls.downloaded.value == pytest.approx(before + (1 - before) / 2)


def test_what_a_failed_pull_has_not_got_is_no_longer_waited_for() -> None:
    pulls = after(layer("Downloading", 60, 100), layer("Pulling fs layer", name="2"))
    pulls.end("a", failed=True)
    whole = pulls.whole()
    assert (whole.done, whole.total, whole.extracted) == (60, 60, 0)
    assert (whole.to_download, whole.to_extract, whole.all_known) == (0, 0, True)
    assert frame(pulls, 0.0, Canvas(80, 24))[-2] == "  2 layers: 2 given up"


def test_a_layer_of_a_pull_that_failed_goes_on_for_the_other_image() -> None:
    pulls = begun(*IMAGES)
    for image in IMAGES:
        pulls.add(image, layer("Downloading", 60, 100)[1])
    pulls.end("a", failed=True)
    pulls.add("b", layer("Downloading", 70, 100)[1])
    assert (pulls.whole().done, pulls.whole().total, pulls.fetched("b")) == (70, 100, 70)


def test_a_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate()
    for second in range(20):
        fast = rate.update(float(second), second * MB)
    assert fast == pytest.approx(MB)
    for second in range(20, 30):
        none = rate.update(float(second), 19 * MB)
    assert none == 0


# What is drawn ---------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A terminal at which Ctrl-C is pressed while the second frame is written."""

    def __init__(self) -> None:
        super().__init__("above\n")
        self.seek(0, io.SEEK_END)
        self._writes = itertools.count(1)

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def write(self, text: str) -> int:
        count = super().write(text)
        if next(self._writes) == 2:
            raise KeyboardInterrupt
        return count

    def display(self, columns: int) -> list[str]:
        screen = pyte.Screen(columns, 24)
        pyte.Stream(screen).feed(self.getvalue().replace("\n", "\r\n"))
        return [line.rstrip() for line in screen.display if line.strip()]


@pytest.mark.parametrize("columns", [80, 30])
def test_an_interrupted_pull_leaves_nothing_on_the_screen_that_may_be_narrower_by_then(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    def news() -> Iterator[News]:
        yield "a", Begun("a")
        monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((columns, 24)))
        yield from (layer("Downloading", 1, 2, name) for name in "123")
        yield from itertools.repeat(None)  # until the next frame is due

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((80, 24)))
    with pytest.raises(KeyboardInterrupt):
        render.Screen().pulling(["a"], news())
    assert terminal.display(columns) == ["above"]


# What is read ----------------------------------------------------------------------------------


def test_a_line_for_each_layer_under_way_and_one_for_the_whole() -> None:
    pulls = after(
        layer("Already exists", name="0" * 12),
        *(layer("Pulling fs layer", name=name * 12) for name in "1234"),
        layer("Extracting", 30 * MB, 120 * MB, "1" * 12),
        layer("Downloading", 450 * MB, 900 * MB, "2" * 12),
        layer("Downloading", 1 * MB, 8 * MB, "3" * 12),
        layer("Retrying in 5 seconds", name="3" * 12),
        layer("Waiting", name="4" * 12),
    )
    shown = frame(pulls, 98.1 * MB, Canvas(80, 24))
    assert shown == [
        "pulling a",
        "  111111111111 extracting     ━━━━━───────────────  30.0 of 120.0 MB",
        "  222222222222 downloading    ━━━━━━━━━━──────────  450.0 of 900.0 MB",
        "  333333333333 retry in 5 s   ━━──────────────────  1.0 of 8.0 MB",
        "  5 layers: 1 to come, 1 here before",
        shown[5],
        shown[6],
    ]
    whole = r"downloaded  ━+─+ +\d+ %  571\.0 MB of 1\.0\+ GB  98\.1 MB/s"
    assert re.fullmatch(whole, shown[5])
    assert re.fullmatch(r"extracted   ━+─+ +\d+ %  30\.0 MB of 1\.0\+ GB", shown[6])


def test_time_is_told_where_all_is_known_and_there_is_room_for_it() -> None:
    pulls = after(layer("Downloading", 450 * MB, 900 * MB, "2" * 12))
    assert frame(pulls, 5 * MB, Canvas(80, 24))[-1].endswith(
        "450.0 of 900.0 MB  5.0 MB/s  1:30 left"
    )
    assert frame(pulls, 5 * MB, Canvas(60, 24))[-1].endswith("450.0 of 900.0 MB  5.0 MB/s")


def test_on_a_low_screen_what_does_not_fit_is_counted() -> None:
    layers = [layer("Downloading", 1, 8, f"{number:012}") for number in range(20)]
    shown = frame(after(*layers), 1.0, Canvas(60, 8))
    assert len(shown) == 8
    assert shown[0] == "pulling a"
    assert shown[-2] == "  20 layers: 15 more under way"


def test_a_terminal_without_lines_gets_signs() -> None:
    pulls = after(layer("Downloading", 4, 8))
    assert all(line.isascii() for line in frame(pulls, 1.0, Canvas(60, 8, ascii=True)))


@pytest.mark.parametrize(
    ("done", "total", "all_known", "text"),
    [
        (0, 0, False, "0 B"),
        (5, 0, False, "5 B"),
        (1_200_000_000, 3_400_000_000, True, "1.2 of 3.4 GB"),
        (1_200_000_000, 3_400_000_000, False, "1.2 of 3.4+ GB"),
        (12_000_000, 3_400_000_000, True, "12.0 MB of 3.4 GB"),
    ],
)
def test_parts_are_read_in_one_unit_where_there_is_one(
    done: int, total: int, all_known: bool, text: str
) -> None:
    assert parts_text(done, total, all_known) == text


@pytest.mark.parametrize(
    ("events", "came"),
    [
        ([layer("Downloading", 5, 1_205_400_000), layer("Pull complete")], "1.2 GB, 98.0 MB/s"),
        ([layer("Already exists")], "its layers were here"),
        ([], "its layers were here"),
        ([layer("Pulling fs layer"), layer("Download complete")], "only small layers"),
    ],
)
def test_a_pull_ends_with_what_it_came_to(events: list[Said], came: str) -> None:
    pulls = after(*events)
    assert pulled_text(pulls, "a", Pulled(12.3, new=True)) == f"pulled a in 12.3 s ({came})"
    assert pulled_text(pulls, "a", Pulled(0.4, new=False)) == "a is up to date"


def test_an_image_whose_layers_came_with_another_says_so() -> None:
    pulls = begun(*IMAGES)
    for image in IMAGES:
        for _, event in (layer("Downloading", 5, 10), layer("Pull complete")):
            pulls.add(image, event)
    told = pulled_text(pulls, "b", Pulled(1.0, new=True))
    assert told == "pulled b in 1.0 s (its layers came with another image)"


def test_a_pull_says_where_it_comes_from_unless_the_name_does() -> None:
    assert pulling_text("a/b:1", "a/b:1") == "pulling a/b:1"
    assert pulling_text("a/b:1", "mirror.lab:5000/a/b:1") == "pulling a/b:1 from mirror.lab:5000"


def test_a_log_has_it_in_words() -> None:
    pulls = after(layer("Extracting", 2 * MB, 8 * MB), layer("Waiting", name="2"))
    assert state_text(pulls.whole()) == "downloaded 8.0 of 8.0+ MB, 2.0 MB of it extracted"
