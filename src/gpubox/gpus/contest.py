"""Who gets a GPU that several starters want, decided from the engine's list, without lock or clock.

Pure: claims in, what one starter does next out. `race` looks and waits, its caller creates and
starts the box.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from gpubox.boxes.box import ALIVE
from gpubox.gpus.claims import NO_CLAIM, SHARED
from gpubox.gpus.holders import Container
from gpubox.gpus.machine import Device, named, overlap
from gpubox.values import NO_GPUS

ALL = "all"
State = str  # of a container, in Docker's words
_UNDECIDED = ("created", "configured", "initialized")  # the last two are Podman's


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A box or a ticket whose label claims GPUs; `id` is the container's.

    `gpus` are keys of devices, or ALL. `keeps`: a restart policy may start the box again, so it
    holds its GPUs even while it is stopped. Two claims that both have `shares` exclude nobody.
    """

    id: str
    state: State
    gpus: frozenset[str]
    keeps: bool = False
    shares: bool = False

    @property
    def holds(self) -> bool:
        """Whether it has its GPUs now: a stopped box has none, a created one only wants them."""
        return self.state in ALIVE or (self.keeps and self.state != "created")

    def rivals(self, others: Iterable[Claim]) -> list[Claim]:
        """Those of the others that hold or want one of its GPUs, and do not share it."""
        return [
            other
            for other in others
            if other.id != self.id
            and _meet(self.gpus, other.gpus)
            and not (self.shares and other.shares)
            and (other.holds or other.state == "created")
        ]


def claims_of(containers: Iterable[Container], devices: Sequence[Device]) -> list[Claim]:
    """The claims of boxes and tickets, with GPUs as keys of `devices`."""
    return [
        Claim(
            id=box.id,
            state="created" if box.state in _UNDECIDED else box.state,
            gpus=frozenset(
                [ALL] if box.claimed.all else (named(word, devices) for word in box.claimed.ids)
            ),
            keeps=box.gpus != NO_GPUS,
            shares=box.claim == SHARED,
        )
        for box in containers
        if box.claimed != NO_GPUS and box.claim != NO_CLAIM
    ]


def _meet(some: frozenset[str], others: frozenset[str]) -> bool:
    if ALL in some | others:
        return bool(some and others)
    return any(overlap(one, other) for one in some for other in others)


class Verdict(msgspec.Struct, frozen=True):
    """What a starter does now: `start`, give up what it `lost` to `others`, or `wait` for them."""

    do: Literal["start", "lost", "wait"]
    others: tuple[Claim, ...] = ()


def verdict(mine: Claim, seen: Iterable[Claim]) -> Verdict:
    """What the starter of a created box does next, by what it has `seen` since.

    Each starter looks only after it has created its box, so of two at least one sees the other.

    1. A rival holds one of the GPUs: lost.
    2. A rival that is only created has a lower id: lost, for the lowest id goes first.
    3. Only created rivals with higher ids are left: wait until they have withdrawn. One of them
       may have looked before this box was there, and start.
    4. No rival is left: start.
    """
    rivals = mine.rivals(seen)
    if holders := tuple(rival for rival in rivals if rival.holds):
        return Verdict("lost", holders)
    if earlier := tuple(rival for rival in rivals if rival.id < mine.id):
        return Verdict("lost", earlier)
    return Verdict("wait", tuple(rivals)) if rivals else Verdict("start")
