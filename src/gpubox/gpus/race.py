"""GPUs that several want at once: waited for, won from other starters, and kept by a ticket.

Knows the order of looks and waits. Who wins, `contest` says; what is started, the caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from gpubox.engine.engine import Engine
from gpubox.gpus import contest
from gpubox.gpus.contest import Claim
from gpubox.gpus.holders import Holding
from gpubox.gpus.pick import NotFree
from gpubox.gpus.survey import Survey
from gpubox.plan.facts import Facts
from gpubox.screen import terminal

_PULSE, _PATIENCE = 0.2, 10  # seconds between two looks, and for a starter that does not move
_HELD_PULSE = 2  # seconds between two looks at GPUs that others have
_FRESH = 3  # seconds for which a ticket is left alone
T = TypeVar("T")


class Voice(Protocol):
    """Tells the person what goes on."""

    def say(self, sentence: str) -> None: ...
    def warn(self, sentence: str) -> None: ...


class Lost(Exception):
    """Somebody else gets the GPUs of a box that was created; `to` them, by their claims."""

    def __init__(self, to: Sequence[Claim] = ()) -> None:
        super().__init__()
        self.to = to


class Race(msgspec.Struct, frozen=True):
    """Where it is run, and for how long: `until` a time of the monotonic clock.

    Where `signals` are held, one that would end us ends every wait; it is raised again when they
    are held no more.
    """

    engine: Engine
    survey: Survey
    voice: Voice
    until: float = 0
    signals: terminal.Signals | None = None

    def heeding(self, signals: terminal.Signals) -> Race:
        return replace(self, signals=signals)

    def when_free(self, decided: Callable[[Facts], T], facts: Facts) -> tuple[T, Facts]:
        """What is decided by facts, waited for while others have the GPUs, and these facts."""
        waits = False
        while True:
            try:
                return decided(facts), facts
            except NotFree as held:
                left = self.until - time.monotonic()
                if left <= 0:
                    raise
                if not waits:
                    self.voice.say(f"waiting: {held.problem}")
                waits = True
            self.pause(min(left, _HELD_PULSE))
            facts = self.survey.of(facts)

    def win(self, box: str, holdings: Sequence[Holding], but: str = "") -> None:
        """Wait until the GPUs of a created box are its own; Lost where another gets them.

        A starter that has not moved for long is removed: it was killed, or will find its box gone.
        """
        since = dict[str, float]()
        while True:
            seen = self.survey.claims(holdings)
            mine = next((claim for claim in seen if claim.id == box), None)
            if mine is None:
                raise Lost
            said = contest.verdict(mine, [claim for claim in seen if claim.id != but])
            if said.do == "lost":
                raise Lost(said.others)
            if said.do == "start":
                return
            self._wait_for(said.others, since)

    def outlast(self, rivals: Sequence[Claim], holdings: Sequence[Holding]) -> None:
        """Wait until those that won have started, or have come to nothing."""
        since, ids = dict[str, float](), {rival.id for rival in rivals}
        while True:
            seen = self.survey.claims(holdings)
            undecided = [it for it in seen if it.id in ids and it.state == "created"]
            if not undecided:
                return
            self._wait_for(undecided, since)

    def _wait_for(self, rivals: Sequence[Claim], since: dict[str, float]) -> None:
        """Wait a moment, and no longer than `_PATIENCE` for any, by when each was seen first."""
        now = time.monotonic()
        for rival in rivals:
            if now - since.setdefault(rival.id, now) > _PATIENCE:
                self.engine.remove_unstarted(rival.id)
        self.pause(_PULSE)

    def pause(self, seconds: float = _PULSE) -> None:
        """Wait before another look."""
        if self.signals is None:
            time.sleep(seconds)
        else:
            self.signals.heed(seconds)


class Ticket:
    """A claim in place of a box that is to have GPUs, and is not running yet or not any more.

    It is that of the box, or another one. Others remove what was only created and does not move,
    so while something takes long there is always a newer one before the older goes.
    """

    def __init__(self, engine: Engine, box: str, claim: Mapping[str, str] | None = None) -> None:
        self._engine, self._box, self._claim = engine, box, claim
        self._whole = True

    def __enter__(self) -> Ticket:
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self.give_up()

    def _take(self) -> None:
        self.id, self._since = self._engine.ticket(self._box, self._claim), time.monotonic()

    def give_up(self) -> bool:
        """Whether it was there all the time."""
        whole, old, self.id = self._whole, self.id, ""
        if old:
            whole = whole and old in self._engine.tickets(self._box)
            self._engine.remove(old)
        return whole

    def during(self, work: Callable[[], T]) -> T:
        """Do what may take long, and keep the claim."""
        with ThreadPoolExecutor(max_workers=1) as worker:
            doing = worker.submit(work)
            while not wait([doing], _PULSE).done:
                if time.monotonic() - self._since > _FRESH:
                    self._renew()
        return doing.result()

    def _renew(self) -> None:
        old = self.id
        self._take()
        self._whole = self._whole and old in self._engine.tickets(self._box)
        self._engine.remove(old)
