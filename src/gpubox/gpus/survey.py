"""Who has which GPU now: the driver, the engine and /proc, asked and joined.

Containers are listed anew each time; the GPUs that inspecting one has told are remembered.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from gpubox.engine.engine import Engine
from gpubox.gpus import contest, holders, nvml
from gpubox.gpus.holders import Container, Holding
from gpubox.host import processes
from gpubox.plan.facts import Facts
from gpubox.values import Gpus


class Survey:
    """Asks one engine and, if its boxes get this machine's GPUs, this machine's driver."""

    def __init__(self, engine: Engine, caller: str) -> None:
        self._engine, self._caller = engine, caller
        self._known: dict[str, Gpus] = {}

    def of(self, facts: Facts) -> Facts:
        """The facts brought up to date: who has which GPU, and who is about to take one."""
        devices = nvml.devices() if facts.machine else None
        containers = self._engine.containers(self._known)
        programs = processes.programs(holders.pids(devices or ()))
        claims = contest.claims_of(containers, devices or ())
        return replace(
            facts,
            holdings=holders.join(devices, containers, programs, self._caller),
            last=self._last(containers),
            wanted=tuple(key for it in claims if it.state == "created" for key in it.gpus),
        )

    def claims(self, holdings: Sequence[Holding]) -> list[contest.Claim]:
        """What all boxes and tickets claim now of the GPUs in `holdings`."""
        devices = [holding.device for holding in holdings]
        return contest.claims_of(self._engine.containers(self._known), devices)

    def _last(self, containers: Sequence[Container]) -> tuple[str, ...]:
        """The GPUs of the caller's latest box that had exact ones, as its label says them."""
        mine = [it for it in containers if it.box and it.owner == self._caller and it.claimed.ids]
        return max(mine, key=lambda it: it.created).claimed.ids if mine else ()
