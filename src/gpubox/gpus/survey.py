"""Who has which GPU now: the driver, the engine and /proc, asked and joined.

The engine's containers are looked at anew each time; what does not change of one is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from gpubox import host
from gpubox.engine.engine import Engine
from gpubox.gpus import contest, holders, nvml
from gpubox.gpus.holders import Container, Holding
from gpubox.plan.facts import Facts
from gpubox.values import Gpus


class Survey:
    """Looks at one engine and, if its boxes get this machine's GPUs, at these."""

    def __init__(self, engine: Engine, caller: str) -> None:
        self._engine, self._caller = engine, caller
        self._known: dict[str, Gpus] = {}

    def of(self, facts: Facts) -> Facts:
        """The facts as they are now: who has which GPU, and who is about to take one."""
        devices = nvml.devices() if facts.machine else None
        containers = self._engine.containers(self._known)
        programs = host.programs(holders.pids(devices or ()))
        claims = contest.claims_of(containers, devices or ())
        return replace(
            facts,
            holdings=holders.join(devices, containers, programs, self._caller),
            last=self._last(containers),
            wanted=tuple(key for it in claims if it.state == "created" for key in it.gpus),
        )

    def claims(self, holdings: Sequence[Holding]) -> list[contest.Claim]:
        """What boxes claim of these."""
        devices = [holding.device for holding in holdings]
        return contest.claims_of(self._engine.containers(self._known), devices)

    def _last(self, containers: Sequence[Container]) -> tuple[str, ...]:
        """The GPUs of the latest box that the caller had with any."""
        mine = [it for it in containers if it.box and it.owner == self._caller and it.claimed.ids]
        return max(mine, key=lambda it: it.created).claimed.ids if mine else ()
