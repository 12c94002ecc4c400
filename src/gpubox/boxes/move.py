"""A running box moves to other GPUs: it is stopped, and a successor starts from its files.

Until that runs, a failure or an interruption brings the old box back. Knows the order of the steps;
what the successor is, `moved` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from gpubox.boxes import moved
from gpubox.boxes.box import Box, paused
from gpubox.boxes.inspection import Inspection, removes_itself, restart_policy
from gpubox.engine.engine import Engine
from gpubox.errors import EngineError, GpuboxError
from gpubox.figures import GIB
from gpubox.gpus.holders import Holding, shortened
from gpubox.gpus.race import Lost, Race, Ticket
from gpubox.plan.allocation import Allocation
from gpubox.plan.backend import backend
from gpubox.plan.docker_words import GpuRequest
from gpubox.plan.facts import Facts
from gpubox.screen.signals import Signals
from gpubox.values import Gpus

_STOP_SECONDS = 10  # Docker's own, where the box says none
_SHOWN = 3  # programs that are named
_INIT = "init -- "  # the init process, which is no program of the person's
_KEEPS: Mapping[str, Any] = {"Name": "unless-stopped"}  # by which a stopped box keeps its GPUs
_NEVER: Mapping[str, Any] = {"Name": "no"}  # an engine takes an empty name for no change


class Move(msgspec.Struct, frozen=True):
    """One move.

    1. Choose the new GPUs; while others have them, wait and choose again.
    2. Make a ticket with the new claim. If the box has another ticket, somebody else moves it or
       starts it again: refuse.
    3. Win the new GPUs by the ticket, where others may want them (`Race`).
    4. Give the box a restart policy, by which it keeps its old GPUs while it is stopped; stop it.
    5. Make an image of its files, without its claim and its variables.
    6. Create the successor from that image, with the new claim and a name of its own.
    7. Remove the ticket. If it was not there all the time, win the GPUs anew, by the successor.
    8. Start the successor, remove the old box but no volume, and give the successor its name.

    What fails before the successor has started is undone, the last step first: successor and image
    go, and the old box starts again with its own policy. After a loss in 3 or 7 the winners are
    waited for, and it begins again at 1.
    """

    race: Race

    @property
    def engine(self) -> Engine:
        return self.race.engine

    def to(self, box: Box, asked: Gpus, facts: Facts, *, share: bool = False) -> Allocation | None:
        """Move a running box to other GPUs: `asked` is like the value of --gpus.

        The GPUs that it has now; None where it had these before.
        """
        while True:
            inspection = self.engine.inspect(box.id)
            _refuse(box, inspection)
            decide = partial(moved.others, inspection, asked, share=share)
            facts = replace(facts, hook_refused=moved.by_cdi(inspection))
            new, facts = self.race.when_free(decide, facts)
            if new is None:
                return None
            try:
                with Signals() as signals:
                    self._move(box, new, facts, signals)
            except Lost as lost:
                self.race.outlast(lost.to, facts.holdings)
                facts = self.race.survey.of(facts)
            else:
                return new

    def _move(self, box: Box, new: Allocation, facts: Facts, signals: Signals) -> None:
        engine, race = self.engine, self.race.heeding(signals)
        with ExitStack() as undo:
            ticket = undo.enter_context(Ticket(engine, box.id, moved.claim(new)))
            inspection = self._alone(ticket, box)
            came_from = engine.image(inspection["Image"])
            variables = came_from.variables if came_from else {}
            if new.contested:
                race.win(ticket.id, facts.holdings, excluding=box.id)
            signals.heed()
            self.race.voice.say(self._ends(box, facts.holdings))
            undo.callback(self._back, box, inspection)
            self._stop(ticket, box, inspection)
            signals.heed()
            forgotten = moved.forgotten(inspection, variables)
            files = ticket.during(partial(engine.commit, box.id, forgotten, box.owner))
            undo.callback(_tried, engine.remove_image, files)
            signals.heed()
            next_box = self._create_next(box, inspection, files, new, facts, variables)
            undo.callback(_tried, engine.remove_keeping_volumes, next_box)
            if not ticket.give_up() and new.contested:
                race.win(next_box, facts.holdings, excluding=box.id)
            signals.heed()
            engine.start(next_box, box.name)
            undo.pop_all()
        self._replace(box, next_box)
        if came_from and moved.is_of_files(came_from.labels):
            engine.remove_unnamed(came_from.id)

    def _alone(self, ticket: Ticket, box: Box) -> Inspection:
        """The box as it is now; raise if somebody else moves it, or has done so since we looked.

        A mover has stopped the box before their ticket goes, so to look once more is enough.
        """
        if self.engine.tickets(box.id) != [ticket.id]:
            raise EngineError(f"{box.name} is being moved already, or was: wait a moment")
        inspection = self.engine.inspect(box.id)
        _refuse(box, inspection)
        return inspection

    def _stop(self, ticket: Ticket, box: Box, inspection: Inspection) -> None:
        """Stop the box, which keeps its GPUs as one that starts again by itself does."""
        if not restart_policy(inspection):
            self.engine.set_restart(box.id, _KEEPS)
        seconds = inspection["Config"].get("StopTimeout") or _STOP_SECONDS
        ticket.during(partial(self.engine.stop, box.id, seconds))

    def _create_next(
        self,
        box: Box,
        inspection: Inspection,
        files: str,
        new: Allocation,
        facts: Facts,
        variables: Mapping[str, str],
    ) -> str:
        by = backend(new.gpus, facts.engine, hook_refused=facts.hook_refused)
        body = moved.successor(inspection, files, new, GpuRequest(new.gpus, by), variables)
        return self.engine.create_like(
            _name_until_then(box), body, moved.further_networks(inspection)
        )

    def _replace(self, box: Box, next_box: str) -> None:
        """Remove the old box, but no volume, and give its name to the successor, which runs."""
        self.engine.remove_keeping_volumes(box.id)
        try:
            self.engine.rename(next_box, box.name)
        except EngineError as error:
            called = _name_until_then(box)
            raise EngineError(
                f"{box.name} was moved, and is called {called} now: {error.problem}",
                f"docker rename {called} {box.name}",
            ) from error

    def _back(self, box: Box, inspection: Inspection) -> None:
        """Start the old box again, on the GPUs that it has kept, and restore its restart policy."""
        try:
            if not self.engine.is_running(box.id):
                self.engine.start(box.id, box.name)
                self.race.voice.say(f"{box.name} was started again, on the GPUs that it had")
        except GpuboxError as error:
            self.race.voice.warn(
                f"{box.name} is whole and stopped, and does not start again: {error.problem};"
                f" gpubox start {box.name} tries once more"
            )
        asked = inspection["HostConfig"].get("RestartPolicy") or {}
        policy = asked if asked.get("Name") else _NEVER
        _tried(lambda it: self.engine.set_restart(it, policy), box.id)

    def _ends(self, box: Box, holdings: Sequence[Holding]) -> str:
        """The sentence for what a move ends: all that runs in the box, with its memory."""
        programs = [it for it in self.engine.programs(box.id) if _INIT not in it]
        named = [shortened(program) for program in programs[:_SHOWN]]
        more = [f"{len(programs) - _SHOWN} more"] if len(programs) > _SHOWN else []
        used = sum(
            use.process.memory or 0
            for holding in holdings
            for use in holding.uses
            if use.container and use.container.id == box.id
        )
        memory = f", {used / GIB:.1f} GiB on GPUs" if used else ""
        return (
            f"moving {box.name} ends what runs in it ({', '.join([*named, *more])}) with its memory"
            f"{memory}; its files and volumes stay"
        )


def _refuse(box: Box, inspection: Inspection) -> None:
    """Raise for a box that cannot be moved without losing something."""
    state = inspection["State"]
    if state.get("Paused"):
        raise paused(box)
    if not state.get("Running") or state.get("Restarting"):
        raise EngineError(
            f"{box.name} does not run, and a stopped box has no GPU",
            f"start it first: gpubox start {box.name}",
        )
    if removes_itself(inspection):
        raise EngineError(
            f"{box.name} was started with --rm: as it stops it is gone, with all that is in it",
            "start another with --gpus, and keep what you need by docker cp",
        )


def _tried(undo: Callable[[str], None], it: str) -> None:
    """Undo one step; if that fails, the others are still to be undone."""
    with suppress(EngineError):
        undo(it)


def _name_until_then(box: Box) -> str:
    """The successor's name until it has started and the old box is gone."""
    return f"{box.name}-moving-{box.id[:6]}"
