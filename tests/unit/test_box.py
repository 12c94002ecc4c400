"""Which box a word means, and how a box is in people's words."""

from __future__ import annotations

import pytest

from gpubox.boxes.box import Box, meant, out_of_memory, status
from gpubox.errors import GpuboxError, UsageError


def box(name: str, owner: str = "anna", *, state: str = "running", status: str = "") -> Box:
    return Box(
        id=f"{len(name):x}{owner[0]}".ljust(64, "0"),
        name=name,
        image="nvidia/cuda:12.4.1-devel-ubuntu22.04",
        profile="pytorch",
        owner=owner,
        kind="shell",
        gpus="none",
        claim="",
        folder="/home/anna",
        state=state,
        status=status,
        created=0,
        ports=(),
    )


BOXES = [box("pytorch-anna"), box("pytorch-anna-2"), box("cuda8-anna"), box("cuda8-bob", "bob")]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("pytorch-anna", "pytorch-anna"),  # also the beginning of another
        ("pytorch-anna-2", "pytorch-anna-2"),
        ("cu", "cuda8-anna"),  # bob's begins so, too
        (BOXES[2].id[:12], "cuda8-anna"),
    ],
)
def test_a_box_of_mine_is_meant_by_its_name_a_beginning_or_its_id(word: str, name: str) -> None:
    assert meant(word, BOXES, "anna").name == name


@pytest.mark.parametrize(
    ("word", "owner", "problem", "hint"),
    [
        ("pyt", None, "'pyt' is the beginning of 2 names", "say one: pytorch-anna, pytorch-anna-2"),
        ("cuda8-bob", None, "cuda8-bob is bob's box", "--owner NAME and its full name"),
        ("cuda8-b", None, "no box 'cuda8-b'", "did you mean 'cuda8-anna'?"),
        ("cuda8-b", "bob", "no box 'cuda8-b'", "did you mean 'cuda8-bob'?"),
        ("cuda8-anna", "bob", "cuda8-anna is anna's box", "--owner"),
        ("xyz", None, "no box 'xyz'", "there is: cuda8-anna, pytorch-anna, pytorch-anna-2"),
        ("xyz", "carl", "no box 'xyz'", "gpubox ps -a lists them"),
        ("", None, "no box ''", "there is"),
        ("000", None, "no box '000'", "there is"),  # too little of an id
    ],
)
def test_else_it_is_said_why_none_is(word: str, owner: str | None, problem: str, hint: str) -> None:
    with pytest.raises(GpuboxError) as raised:
        meant(word, BOXES, "anna", owner)
    assert raised.value.problem == problem
    assert hint in raised.value.hint
    assert isinstance(raised.value, UsageError) == ("'s box" not in problem)


def test_another_persons_box_is_meant_with_its_owner_and_full_name() -> None:
    assert meant("cuda8-bob", BOXES, "anna", "bob").owner == "bob"


@pytest.mark.parametrize(
    ("state", "said", "words", "code"),
    [
        ("running", "Up 3 hours", "up 3 hours", None),
        ("running", "Up About a minute (healthy)", "up about a minute (healthy)", None),
        ("paused", "Up 2 days (Paused)", "up 2 days, paused", None),
        ("exited", "Exited (0) 2 days ago", "stopped 2 days ago, exit 0", 0),
        ("exited", "Exited (137) 5 minutes ago", "stopped 5 minutes ago, exit 137", 137),
        ("restarting", "Restarting (1) 4 seconds ago", "starts again and again, exit 1", None),
        ("created", "Created", "never started", None),
        ("dead", "Dead", "dead", None),
        ("removing", "Removal In Progress", "removal in progress", None),
        ("stopping", "", "stopping", None),  # Podman's
        ("exited", "Exited (0)", "stopped, exit 0", 0),
        (
            "exited",
            "Exited (1) Less than a second ago",
            "stopped less than a second ago, exit 1",
            1,
        ),
    ],
)
def test_how_a_box_is_in_peoples_words(state: str, said: str, words: str, code: int | None) -> None:
    it = box("it", state=state, status=said)
    assert (status(it), it.exit_code) == (words, code)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (0, "killed 2 hours ago: the machine's memory ran out"),
        (3 << 29, "killed 2 hours ago: its memory of 1.5 GiB ran out"),
    ],
)
def test_a_box_that_was_killed_for_memory_says_whose_ran_out(limit: int, words: str) -> None:
    it = box("it", state="exited", status="Exited (137) 2 hours ago")
    assert status(it, out_of_memory(limit)) == words
