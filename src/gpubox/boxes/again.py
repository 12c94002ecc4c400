"""A box that was there before starts again, unless somebody has its GPUs meanwhile.

Knows the order of the steps; the caller says whether it starts in the background or attached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from gpubox.boxes.box import Box
from gpubox.boxes.inspection import bound_ports
from gpubox.boxes.ports import port_holder
from gpubox.engine import faults
from gpubox.engine.faults import EngineSaid
from gpubox.errors import EngineError
from gpubox.gpus.contest import Claim
from gpubox.gpus.holders import Holding
from gpubox.gpus.pick import NotFree
from gpubox.gpus.race import Lost, Race, Ticket
from gpubox.plan.facts import Facts

T = TypeVar("T")


class Again(msgspec.Struct, frozen=True):
    """Starts of boxes that are there, from surveyed `facts`.

    A box that was there before cannot be fenced off by its removal, so a ticket competes for it:

    1. Make a ticket: a container that is never started, with the box's claim.
    2. Win the box's GPUs by the ticket, as a new box does (`Race`). If another box holds them:
       NotFree, so wait as long as the caller has patience. If a starter goes first: remove the
       ticket, wait until that has started or is gone, and begin again at 1.
    3. Start the box, renew the ticket meanwhile, then remove it: now the box itself holds them.
    4. If the ticket was not there all the time and a rival has come: stop the box, and see 2.

    `other` tells the caller what they can have instead, on GPUs that are free.
    """

    race: Race
    facts: Facts
    other: str = ""

    def start(self, box: Box) -> None:
        """Start it in the background."""
        self.begin(box, partial(self.race.engine.start, box.id, box.image))

    def restart(self, box: Box, seconds: int | None) -> None:
        """Stop and start it; it is killed after `seconds`. Nobody takes its GPUs in between."""
        self.begin(box, partial(self.race.engine.restart, box.id, seconds))

    def begin(self, box: Box, start: Callable[[], T]) -> T:
        """Call `start`, which starts the box, once its GPUs are its own; what that returns."""
        try:
            if not box.claims_gpus:
                return start()
            return self.race.when_free(partial(self._begin, box, start), self.facts)[0]
        except EngineSaid as refusal:
            if not faults.is_port_taken(refusal.text):
                raise
            raise self._port_taken(box, refusal) from refusal

    def _begin(self, box: Box, start: Callable[[], T], facts: Facts) -> T:
        while True:
            try:
                return self._with_ticket(box, start, facts.holdings)
            except Lost as lost:
                if any(rival.holds for rival in lost.to):
                    raise self._held(box, lost.to) from None
                self.race.outlast(lost.to, facts.holdings)

    def _with_ticket(self, box: Box, start: Callable[[], T], holdings: Sequence[Holding]) -> T:
        """Start it while a ticket claims its GPUs; Lost where others get them."""
        with Ticket(self.race.engine, box.id) as ticket:
            self.race.win(ticket.id, holdings, excluding=box.id)
            started = ticket.during(start)
            if not ticket.give_up():
                self._make_way(box, holdings)
            return started

    def _make_way(self, box: Box, holdings: Sequence[Holding]) -> None:
        """Stop the box if others have claimed its GPUs while its ticket was gone."""
        seen = self.race.survey.claims(holdings)
        mine = next((claim for claim in seen if claim.id == box.id), None)
        if mine and (rivals := mine.rivals(seen)):
            self.race.engine.stop(box.id)
            raise Lost(rivals)

    def _held(self, box: Box, rivals: Sequence[Claim]) -> NotFree:
        ids = {rival.id for rival in rivals}
        others = [it for it in self.race.engine.boxes(stopped=True) if it.id in ids]
        whose = " and ".join(dict.fromkeys(f"{it.name}, {it.owner}'s box" for it in others))
        kept = f"gpubox save {box.name} NAME and gpubox run NAME take its files to a free one"
        return NotFree(
            f"the GPUs of {box.name} are held by {whose or 'another box'}",
            f"{self.other or kept}; --wait waits for these",
        )

    def _port_taken(self, box: Box, refusal: EngineSaid) -> EngineError:
        engine = self.race.engine
        ports = [port for port in bound_ports(engine.inspect(box.id)) if str(port) in refusal.text]
        if len(ports) != 1:
            return refusal
        return EngineError(
            f"the port of {box.name}, {ports[0]}, is taken by"
            f" {port_holder(engine, ports[0]) or 'another program'}",
            "gpubox jupyter --new takes another" if box.kind == "jupyter" else "",
        )
