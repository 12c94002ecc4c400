"""Claims without a lock and without a clock: rules by hand, and every interleaving of starters.

The model is the engine's: a created container is seen by all who look after it; starting one that
was removed fails; who waits may remove a created box at any moment, for nobody's clock is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from gpubox.gpus.contest import Claim, Verdict, verdict


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


# --- any number of them, and boxes that start again

IDS = st.sampled_from("123456789")


class Seat(NamedTuple):
    """A starter: the container by which it competes, and the box that it starts.

    They are one, but for a box that was there before: a ticket competes for that.
    """

    entry: str
    box: str
    decided: str = ""
    looks_back: bool = False


class Workstation(RuleBasedStateMachine):
    """Starters create, look, start, are killed and lose patience in any order; boxes end.

    A ticket that somebody has removed does not keep its box from starting: the starter looks back.
    Killed before it has, with its ticket gone, it could leave two boxes on a GPU: that is not
    promised, and not done here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.containers = {"0": claim("0", "exited")}
        self.seats = list[Seat]()
        self.ids = set[str]()  # an engine gives none twice

    def seen_by(self, seat: Seat) -> list[Claim]:
        return [it for it in self.containers.values() if it.id == seat.entry or it.id != seat.box]

    def set(self, id: str, state: str) -> None:
        self.containers[id] = replace(self.containers[id], state=state)

    @rule(id=IDS, gpus=st.sampled_from(["A", "AB"]), shares=st.booleans())
    def create(self, id: str, gpus: str, shares: bool) -> None:
        if id not in self.ids:
            self.ids.add(id)
            self.containers[id] = claim(id, "created", gpus, shares=shares)
            self.seats.append(Seat(id, id))

    @precondition(lambda self: any(it.state == "exited" for it in self.containers.values()))
    @rule(id=IDS, data=st.data())
    def start_again(self, id: str, data: st.DataObject) -> None:
        stopped = [it for it in self.containers.values() if it.state == "exited"]
        box = data.draw(st.sampled_from(stopped))
        if id not in self.ids:
            self.ids.add(id)
            self.containers[id] = replace(box, id=id, state="created")
            self.seats.append(Seat(id, box.id))

    @precondition(lambda self: self.seats)
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        self.advance(data.draw(st.sampled_from(self.seats)))

    def advance(self, seat: Seat) -> None:
        """What a starter does next."""
        at = self.seats.index(seat)
        if seat.looks_back:
            self.look_back(seat)
            self.seats.remove(seat)
        elif seat.decided == "start":
            if seat.box in self.containers:
                self.set(seat.box, "running")
            if seat.entry == seat.box:
                self.seats.remove(seat)
            else:
                self.seats[at] = seat._replace(looks_back=True)
        elif seat.decided == "lost" or seat.entry not in self.containers:
            self.containers.pop(seat.entry, None)
            self.seats.remove(seat)
        else:
            said = verdict(self.containers[seat.entry], self.seen_by(seat))
            if said.do != "wait":
                self.seats[at] = seat._replace(decided=said.do)

    def look_back(self, seat: Seat) -> None:
        box = self.containers[seat.box]
        if not self.containers.pop(seat.entry, None) and box.rivals(self.containers.values()):
            self.set(seat.box, "exited")

    @precondition(lambda self: self.seats)
    @rule(data=st.data())
    def lose_patience(self, data: st.DataObject) -> None:
        seat = data.draw(st.sampled_from(self.seats))
        if seat.entry in self.containers and not seat.decided:
            self.remove_who_is_waited_for(seat)

    def remove_who_is_waited_for(self, seat: Seat) -> None:
        said = verdict(self.containers[seat.entry], self.seen_by(seat))
        for other in said.others if said.do == "wait" else ():
            self.containers.pop(other.id)

    @precondition(lambda self: self.seats)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        seat = data.draw(st.sampled_from(self.seats))
        if not seat.looks_back or seat.entry in self.containers:
            self.seats.remove(seat)

    @precondition(lambda self: any(it.holds for it in self.containers.values()))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        box = data.draw(st.sampled_from([it for it in self.containers.values() if it.holds]))
        if not any(seat.box == box.id and seat.looks_back for seat in self.seats):
            self.set(box.id, "exited")

    @invariant()
    def no_gpu_has_two_boxes(self) -> None:
        unsure = {seat.box for seat in self.seats if seat.looks_back}
        live = [it for it in self.containers.values() if it.holds and it.id not in unsure]
        for box in live:
            assert [it.id for it in box.rivals(live)] == []

    def teardown(self) -> None:
        """Whatever was killed, all come to an end, and then what no box has can be had."""
        for _ in range(100):
            for seat in tuple(self.seats):
                self.advance(seat)
                if seat in self.seats and seat.entry in self.containers:
                    self.remove_who_is_waited_for(seat)
        assert not self.seats
        for id in [it.id for it in self.containers.values() if it.holds]:
            self.set(id, "exited")
        last = claim("~", gpus="AB")
        for _ in [*self.containers, last]:  # it may lose to each that a dead starter has left
            self.containers[last.id] = last
            said = verdict(last, self.containers.values())
            for other in said.others:
                self.containers.pop(other.id)
        assert verdict(last, self.containers.values()).do == "start"


TestWorkstation = Workstation.TestCase
TestWorkstation.settings = settings(max_examples=500, stateful_step_count=30, deadline=None)


def test_a_box_that_starts_again_too_late_makes_way() -> None:
    """Who waited for it has removed its ticket, for its slowness, and has started."""
    world = Workstation()
    world.containers["5"] = claim("5")
    slow = Seat("5", "0", decided="start")
    world.create("1", "A", shares=False)
    waiting = world.seats[0]
    world.remove_who_is_waited_for(waiting)
    world.advance(waiting)
    world.advance(*world.seats)
    assert world.containers["1"].holds
    world.seats.append(slow)
    world.advance(slow)
    assert world.containers["0"].holds
    world.advance(*world.seats)
    assert not world.containers["0"].holds
    world.no_gpu_has_two_boxes()
