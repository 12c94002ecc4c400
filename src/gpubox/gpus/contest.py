"""Who gets a GPU that several want: decided by what the engine shows, without lock or clock.

A starter creates its box with the claim in its label, looks, and asks here what to do. Pure; who
creates, looks and starts is `launch`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from gpubox.boxes.boxes import ALIVE
from gpubox.gpus.claims import NO_CLAIM, SHARED
from gpubox.gpus.holders import Container
from gpubox.gpus.machine import Device, named, overlap
from gpubox.values import NO_GPUS

ALL = "all"
State = str  # of a container, in Docker's words
_UNDECIDED = ("created", "configured", "initialized")  # the last two are Podman's


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A container with GPUs in its label, known by its id.

    `gpus` are keys of devices, ALL where only that is known. One that `keeps` them starts again by
    itself (a restart policy), so it holds them in every state; with all who `share` it is at peace.
    """

    id: str
    state: State
    gpus: frozenset[str]
    keeps: bool = False
    shares: bool = False

    @property
    def holds(self) -> bool:
        """Whether it has its GPUs: a stopped box has none, one only created wants them."""
        return self.state in ALIVE or (self.keeps and self.state != "created")

    def rivals(self, others: Iterable[Claim]) -> list[Claim]:
        """Those that cannot have their GPUs as long as this one has its."""
        return [
            other
            for other in others
            if other.id != self.id
            and _meet(self.gpus, other.gpus)
            and not (self.shares and other.shares)
            and (other.holds or other.state == "created")
        ]


def claims_of(containers: Iterable[Container], devices: Sequence[Device]) -> list[Claim]:
    """The claims of boxes, on devices by their keys."""
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
    """What a starter is to do now: `start`, give up what it `lost`, or `wait` for `others`."""

    do: Literal["start", "lost", "wait"]
    others: tuple[Claim, ...] = ()


def verdict(mine: Claim, seen: Iterable[Claim]) -> Verdict:
    """What the owner of a created box does by what it sees after it was created.

    Of two starters at least one sees the other, since each looks after it has created. Who holds
    has won. Among those only created the lowest id goes first, and the others withdraw; yet it
    waits until they have, for one of them may have looked before it was there, and start.
    """
    rivals = mine.rivals(seen)
    if holders := tuple(rival for rival in rivals if rival.holds):
        return Verdict("lost", holders)
    if earlier := tuple(rival for rival in rivals if rival.id < mine.id):
        return Verdict("lost", earlier)
    return Verdict("wait", tuple(rivals)) if rivals else Verdict("start")
