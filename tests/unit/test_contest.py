"""Claims without a lock and without a clock: rules by hand, and every interleaving of starters.

The model is the engine's: a created container is seen by all who look after it; starting one that
was removed fails; who waits may remove a created box at any moment, for nobody's clock is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from gpubox.contest import Claim, Verdict, verdict


def claim(id: str, state: str = "created", gpus: str = "A", **more: bool) -> Claim:
    return Claim(id=id, state=state, gpus=frozenset(gpus), **more)


MINE = claim("5")


@pytest.mark.parametrize(
    ("others", "do"),
    [
        ([], "start"),
        ([MINE], "start"),
        ([claim("1", "running")], "lost"),
        ([claim("9", "paused")], "lost"),
        ([claim("9", "restarting")], "lost"),
        ([claim("9", "stopping")], "lost"),
        ([claim("9", "removing")], "start"),
        ([claim("9", "exited")], "start"),
        ([claim("9", "dead")], "start"),
        ([claim("9", "exited", keeps=True)], "lost"),
        ([claim("1")], "lost"),
        ([claim("9")], "wait"),
        ([claim("9", keeps=True)], "wait"),
        ([claim("1", gpus="B")], "start"),
        ([claim("1", "running", "BC")], "start"),
        ([claim("1", "running", "AB")], "lost"),
        ([claim("1", "running", shares=True)], "lost"),
        ([claim("9"), claim("8", "running")], "lost"),
    ],
)
def test_what_a_starter_does_by_what_it_sees(others: list[Claim], do: str) -> None:
    assert verdict(MINE, others).do == do


def test_who_shares_is_at_peace_with_all_who_share() -> None:
    mine = claim("5", shares=True)
    assert (
        verdict(mine, [claim("1", "running", shares=True), claim("9", shares=True)]).do == "start"
    )
    assert verdict(mine, [claim("1", "running")]).do == "lost"
    assert verdict(mine, [claim("9")]).do == "wait"


def test_a_verdict_names_whom_it_is_about() -> None:
    holder, other = claim("1", "running"), claim("9")
    assert verdict(MINE, [other, holder]) == Verdict("lost", (holder,))
    assert verdict(MINE, [other]) == Verdict("wait", (other,))


# --- every interleaving


class Starter(NamedTuple):
    """One who wants a GPU: its claim and where it stands. `box` is its box's state, or none."""

    id: str
    gpus: str
    box: str = ""
    decided: str = ""
    alive: bool = True

    @property
    def claim(self) -> Claim:
        return claim(self.id, self.box, self.gpus)


World = tuple[Starter, ...]


def moves(one: Starter, world: World) -> Iterator[Starter]:
    """What a starter that lives can do next."""
    if one.box == "" and not one.decided:
        yield one._replace(box="created")
    elif one.decided == "start":  # a box that was removed meanwhile does not start
        yield one._replace(box=one.box and "running", alive=False)
    elif one.decided == "lost":
        yield one._replace(box="", alive=False)
    elif one.box == "created":
        found = verdict(one.claim, [other.claim for other in world if other.box])
        if found.do != "wait":
            yield one._replace(decided=found.do)


def deaths(one: Starter, world: World) -> Iterator[Starter]:
    """Its box ends; or a kill -9 leaves its box as it is."""
    if one.box == "running":
        yield one._replace(box="exited")
    if one.alive:
        yield one._replace(alive=False)


def impatience(one: Starter, world: World) -> Iterator[Starter]:
    """It loses its box to one who waits for it: at any moment, for nobody's clock is trusted."""
    waiting = [it for it in world if it.alive and it.box == "created" and not it.decided]
    for other in waiting if one.box == "created" else ():
        if one.id in {it.id for it in verdict(other.claim, [one.claim]).others}:
            yield one._replace(box="", decided=one.decided or "lost")


Way = Callable[[Starter, World], Iterator[Starter]]


def following(world: World, *ways: Way) -> Iterator[World]:
    for place, one in enumerate(world):
        if one.alive:
            yield from ((*world[:place], it, *world[place + 1 :]) for it in moves(one, world))
        for way in ways:
            yield from ((*world[:place], it, *world[place + 1 :]) for it in way(one, world))


def worlds(first: World, *ways: Way) -> dict[World, list[World]]:
    """All that can come of a world, whatever the order; and what can follow each."""
    found: dict[World, list[World]] = {}
    new = [first]
    while new:
        world = new.pop()
        if world not in found:
            found[world] = list(following(world, *ways))
            new += found[world]
    return found


def starters(wanted: str) -> World:
    return tuple(Starter(str(number), gpus) for number, gpus in enumerate(wanted.split()))


WANTED = ["A A A", "A AB B", "AB AB A", "AB BC AC", "A B AB"]


@pytest.mark.parametrize("wanted", WANTED)
def test_in_no_interleaving_of_three_starters_a_gpu_has_two_boxes(wanted: str) -> None:
    found = worlds(starters(wanted), deaths, impatience)
    assert len(found) > 1000
    for world in found:
        held = [gpu for one in world if one.box == "running" for gpu in one.gpus]
        assert len(held) == len(set(held)), world


@pytest.mark.parametrize("wanted", [*WANTED, "A A A A"])
def test_where_nobody_dies_somebody_gets_it_whatever_the_order(wanted: str) -> None:
    found = worlds(starters(wanted))
    ends = [world for world, after in found.items() if not after]
    assert ends
    for world in ends:
        boxes = [one.box for one in world if one.box]
        assert boxes and set(boxes) == {"running"}, world


@pytest.mark.parametrize("wanted", WANTED)
def test_whoever_dies_those_who_live_come_to_an_end(wanted: str) -> None:
    """From every world there is a way to one in which none who lives is undecided."""
    found = worlds(starters(wanted), deaths, impatience)
    onward = {world: list(following(world, impatience)) for world in found}
    settled = {world for world in found if not any(one.alive for one in world)}
    while more := {
        world for world in found if world not in settled and not settled.isdisjoint(onward[world])
    }:
        settled |= more
    assert found.keys() == settled
