"""How long a starter waits for others, by a clock of the test's own.

Stands in for two of gpubox's own parts: the survey that lists claims, and the engine that removes
a box. The race itself, on real engines, is in engine/test_claims.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import cast

import pytest

from gpubox.engine.engine import Engine
from gpubox.gpus import race
from gpubox.gpus.contest import Claim
from gpubox.gpus.race import Lost, Race, Voice
from gpubox.gpus.survey import Survey


class Machine:
    """One GPU, claims to it, and a clock that goes on when somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ids: str) -> None:
        self.now, self.ids = 1000.0, list(ids)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self._sleep)
        self.race = Race(cast(Engine, self), cast(Survey, self), cast(Voice, None))

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def claims(self, _: Sequence[object]) -> list[Claim]:
        return [Claim(id=each, state="created", gpus=frozenset("A")) for each in self.ids]

    def remove_unstarted(self, box: str) -> None:
        self.ids.remove(box)

    def start(self, ids: Sequence[str]) -> str:
        """Start a box as `Launch` does, with the next of these ids in each round; which it got."""
        for mine in ids:
            self.ids.append(mine)
            try:
                self.race.win(mine, ())
                return mine
            except Lost as lost:
                self.ids.remove(mine)
                self.race.outlast(lost.to, ())
        raise AssertionError("lost in every round")


@pytest.mark.parametrize(
    "mine",
    [
        pytest.param("0", id="before all, so it waits for them itself"),
        pytest.param("9", id="behind all, so it withdraws for all"),
        pytest.param("3579", id="behind one more in each round"),
        pytest.param("7379", id="now behind three, now behind one"),
    ],
)
def test_dead_starters_cost_one_wait_all_together(
    monkeypatch: pytest.MonkeyPatch, mine: str
) -> None:
    machine = Machine(monkeypatch, "2", "4", "6", "8")
    begun = machine.now
    assert machine.start(mine * 3) in mine
    assert race._PATIENCE < machine.now - begun < race._PATIENCE + 1


def test_who_came_later_is_waited_for_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, "2")
    machine.start("55")
    machine.ids = ["3"]
    begun = machine.now
    machine.start("55")
    assert machine.now - begun > race._PATIENCE
