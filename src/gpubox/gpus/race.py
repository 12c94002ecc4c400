"""GPUs that several starters want at once: how one waits for them, wins them and keeps them.

Looks at the engine again and again. `contest` decides who wins; the caller starts the box.
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
from gpubox.screen.signals import Signals

_PULSE = 0.2  # seconds between two looks
_PATIENCE = 10  # seconds after which a starter that does not move is removed
_HELD_PULSE = 2  # seconds between two looks at GPUs that others have
_FRESH = 3  # seconds after which a ticket is renewed, long before others lose their patience
T = TypeVar("T")


class Voice(Protocol):
    """Tells the person what goes on."""

    def say(self, sentence: str) -> None: ...
    def warn(self, sentence: str) -> None: ...


class Lost(Exception):
    """Others get the GPUs of a created box.

    `to` are their claims; it is empty where another starter has removed the box for its slowness.
    """

    def __init__(self, to: Sequence[Claim] = ()) -> None:
        super().__init__()
        self.to = to


class Race(msgspec.Struct, frozen=True):
    """How a starter gets GPUs without a lock: the labels of containers are the only state.

    1. `when_free`: choose GPUs by the facts; while others have them, wait, look and choose again.
    2. The caller creates a box, or a `Ticket`, with its claim to them in a label.
    3. `win`: look at all claims, and do what `contest.verdict` says until it is `start` or lost.
       A rival that has been seen only created for `_PATIENCE` seconds, in this round or before,
       is removed: its starter was killed, or is slow and cannot start what is gone.
    4. It may start: the caller starts the box. It has lost: the caller removes the box, waits by
       `outlast` until the winners have started or are gone, and begins again at 1.

    `until` is the time of the monotonic clock up to which `when_free` waits. Where `signals` are
    held, one that would end us interrupts every wait; it is raised again when they are released.
    `undecided` has, for each claim that was seen only created, the time when it was seen first.
    """

    engine: Engine
    survey: Survey
    voice: Voice
    until: float = 0
    signals: Signals | None = None
    undecided: dict[str, float] = msgspec.field(default_factory=dict)

    def heeding(self, signals: Signals) -> Race:
        return replace(self, signals=signals)

    def when_free(self, decide: Callable[[Facts], T], facts: Facts) -> tuple[T, Facts]:
        """What `decide` makes of the facts, and those facts; while it raises NotFree, wait."""
        has_said_so = False
        while True:
            try:
                return decide(facts), facts
            except NotFree as held:
                left = self.until - time.monotonic()
                if left <= 0:
                    raise
                if not has_said_so:
                    self.voice.say(f"waiting: {held.problem}")
                has_said_so = True
            self.pause(min(left, _HELD_PULSE))
            facts = self.survey.of(facts)

    def win(self, box: str, holdings: Sequence[Holding], excluding: str = "") -> None:
        """Wait until a created box or ticket may have its GPUs; Lost where others get them.

        `excluding` is the id of the box that it stands for or replaces, which is no rival.
        """
        while True:
            seen = self._look(holdings)
            mine = next((claim for claim in seen if claim.id == box), None)
            if mine is None:
                raise Lost
            verdict = contest.verdict(mine, [claim for claim in seen if claim.id != excluding])
            if verdict.do == "lost":
                raise Lost(verdict.others)
            if verdict.do == "start":
                return
            self._wait_for(verdict.others)

    def outlast(self, winners: Sequence[Claim], holdings: Sequence[Holding]) -> None:
        """Wait until none of the winners is only created: each has started, or is gone."""
        ids = {winner.id for winner in winners}
        while True:
            seen = self._look(holdings)
            undecided = [claim for claim in seen if claim.id in ids and claim.state == "created"]
            if not undecided:
                return
            self._wait_for(undecided)

    def _look(self, holdings: Sequence[Holding]) -> list[Claim]:
        """All claims; those that are only created are remembered."""
        seen, now = self.survey.claims(holdings), time.monotonic()
        for claim in seen:
            if claim.state == "created":
                self.undecided.setdefault(claim.id, now)
        return seen

    def _wait_for(self, rivals: Sequence[Claim]) -> None:
        """Wait a moment; remove the rivals that are undecided for too long."""
        now = time.monotonic()
        for rival in rivals:
            if now - self.undecided[rival.id] > _PATIENCE:
                self.engine.remove_unstarted(rival.id)
        self.pause(_PULSE)

    def pause(self, seconds: float = _PULSE) -> None:
        """Wait before another look."""
        if self.signals is None:
            time.sleep(seconds)
        else:
            self.signals.heed(seconds)


class Ticket:
    """A container that is never started and claims GPUs for a box that does not hold them itself.

    Its claim is the box's own or, for a box that moves, the one that it is to have. Other starters
    remove a created container that does not move. So while something takes long (`during`) it is
    renewed: a newer container with the same claim is there before the older one goes.
    """

    def __init__(self, engine: Engine, box: str, claim: Mapping[str, str] | None = None) -> None:
        self._engine, self._box, self._claim = engine, box, claim
        self._unbroken = True

    def __enter__(self) -> Ticket:
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self.give_up()

    def _take(self) -> None:
        self.id, self._since = self._engine.ticket(self._box, self._claim), time.monotonic()

    def give_up(self) -> bool:
        """Remove it. False: somebody has removed it before, so others may have its GPUs."""
        unbroken, old, self.id = self._unbroken, self.id, ""
        if old:
            unbroken = unbroken and old in self._engine.tickets(self._box)
            self._engine.remove(old)
        return unbroken

    def during(self, work: Callable[[], T]) -> T:
        """Do what may take long, in a thread, and renew the claim meanwhile."""
        with ThreadPoolExecutor(max_workers=1) as worker:
            doing = worker.submit(work)
            while not wait([doing], _PULSE).done:
                if time.monotonic() - self._since > _FRESH:
                    self._renew()
        return doing.result()

    def _renew(self) -> None:
        old = self.id
        self._take()
        self._unbroken = self._unbroken and old in self._engine.tickets(self._box)
        self._engine.remove(old)
