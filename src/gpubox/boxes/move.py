"""A running box comes to other GPUs: its end, the image of its files, its successor's start.

Until that has started, whatever fails or interrupts brings the old box back. Knows the order of
things; what the successor is, `moved` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from gpubox.boxes import moved
from gpubox.boxes.boxes import Box, Inspection, restart_policy
from gpubox.engine.engine import Engine
from gpubox.errors import EngineError, GpuboxError
from gpubox.gpus.holders import Holding, shortened
from gpubox.gpus.race import Lost, Race, Ticket
from gpubox.plan.allocation import Allocation
from gpubox.plan.backend import backend
from gpubox.plan.docker_words import GpuRequest
from gpubox.plan.facts import Facts
from gpubox.screen import terminal
from gpubox.values import Gpus

_STOP_SECONDS = 10  # Docker's own, where the box says none
_SHOWN = 3  # programs that are named
_INIT = "init -- "  # the small first process is no program of the box's
_KEEPS: Mapping[str, Any] = {"Name": "unless-stopped"}
_NEVER: Mapping[str, Any] = {"Name": "no"}  # an empty name changes nothing
_GIB = 1 << 30


class Move(msgspec.Struct, frozen=True):
    """One move."""

    race: Race

    @property
    def engine(self) -> Engine:
        return self.race.engine

    def to(self, box: Box, asked: Gpus, facts: Facts, *, share: bool = False) -> Allocation | None:
        """Move a running box to other GPUs: those that it has now; None where it had them."""
        while True:
            found = self.engine.inspect(box.id)
            _refuse(box, found)
            decided = partial(moved.others, found, asked, share=share)
            facts = replace(facts, hook_refused=moved.by_cdi(found))
            new, facts = self.race.when_free(decided, facts)
            if new is None:
                return None
            try:
                with terminal.Signals() as signals:
                    self._move(box, new, facts, signals)
            except Lost as lost:
                self.race.outlast(lost.to, facts.holdings)
                facts = self.race.survey.of(facts)
            else:
                return new

    def _move(self, box: Box, new: Allocation, facts: Facts, signals: terminal.Signals) -> None:
        engine, race = self.engine, self.race.heeding(signals)
        with ExitStack() as undo:
            ticket = undo.enter_context(Ticket(engine, box.id, moved.claim(new)))
            found = self._alone(ticket, box)
            came_from = engine.image(found["Image"])
            variables = came_from.variables if came_from else {}
            if new.contested:
                race.win(ticket.id, facts.holdings, box.id)
            signals.heed()
            self.race.voice.say(self._ends(box, facts.holdings))
            undo.callback(self._back, box, found)
            self._stop(ticket, box, found)
            signals.heed()
            forgotten = moved.forgotten(found, variables)
            files = ticket.during(partial(engine.commit, box.id, forgotten, box.owner))
            undo.callback(_tried, engine.remove_image, files)
            signals.heed()
            next_box = self._create_next(box, found, files, new, facts, variables)
            undo.callback(_tried, engine.remove_keeping_volumes, next_box)
            if not ticket.give_up() and new.contested:
                race.win(next_box, facts.holdings, box.id)
            signals.heed()
            engine.start(next_box, box.name)
            undo.pop_all()
        self._replace(box, next_box)
        if came_from and moved.is_of_files(came_from.labels):
            engine.remove_unnamed(came_from.id)

    def _alone(self, ticket: Ticket, box: Box) -> Inspection:
        """The box, which nobody else is moving. Another has stopped it before their ticket goes."""
        if self.engine.tickets(box.id) != [ticket.id]:
            raise EngineError(f"{box.name} is being moved already, or was: wait a moment")
        found = self.engine.inspect(box.id)
        _refuse(box, found)
        return found

    def _stop(self, ticket: Ticket, box: Box, found: Inspection) -> None:
        """The box is stopped, and holds its GPUs as one that starts again by itself does."""
        if not restart_policy(found):
            self.engine.set_restart(box.id, _KEEPS)
        seconds = found["Config"].get("StopTimeout") or _STOP_SECONDS
        ticket.during(partial(self.engine.stop, box.id, seconds))

    def _create_next(
        self,
        box: Box,
        found: Inspection,
        files: str,
        new: Allocation,
        facts: Facts,
        variables: Mapping[str, str],
    ) -> str:
        by = backend(new.gpus, facts.engine, hook_refused=facts.hook_refused)
        body = moved.successor(found, files, new, GpuRequest(new.gpus, by), variables)
        return self.engine.create_like(_meanwhile(box), body, moved.further_networks(found))

    def _replace(self, box: Box, next_box: str) -> None:
        """The successor runs, and so takes the name; what is left of the old box goes."""
        self.engine.remove_keeping_volumes(box.id)
        try:
            self.engine.rename(next_box, box.name)
        except EngineError as error:
            called = _meanwhile(box)
            raise EngineError(
                f"{box.name} was moved, and is called {called} now: {error.problem}",
                f"docker rename {called} {box.name}",
            ) from error

    def _back(self, box: Box, found: Inspection) -> None:
        """The old box as it was. It has kept its GPUs, for it was to start again by itself."""
        try:
            if not self.engine.is_running(box.id):
                self.engine.start(box.id, box.name)
                self.race.voice.say(f"{box.name} was started again, on the GPUs that it had")
        except GpuboxError as error:
            self.race.voice.warn(
                f"{box.name} is whole and stopped, and does not start again: {error.problem};"
                f" gpubox start {box.name} tries once more"
            )
        asked = found["HostConfig"].get("RestartPolicy") or {}
        policy = asked if asked.get("Name") else _NEVER
        _tried(lambda it: self.engine.set_restart(it, policy), box.id)

    def _ends(self, box: Box, holdings: Sequence[Holding]) -> str:
        """What is lost by a move: all that runs, and what it has in memory."""
        programs = [it for it in self.engine.programs(box.id) if _INIT not in it]
        named = [shortened(program) for program in programs[:_SHOWN]]
        more = [f"{len(programs) - _SHOWN} more"] if len(programs) > _SHOWN else []
        used = sum(
            use.process.memory or 0
            for holding in holdings
            for use in holding.uses
            if use.container and use.container.id == box.id
        )
        memory = f", {used / _GIB:.1f} GiB on GPUs" if used else ""
        return (
            f"moving {box.name} ends what runs in it ({', '.join([*named, *more])}) with its memory"
            f"{memory}; its files and volumes stay"
        )


def _refuse(box: Box, found: Inspection) -> None:
    """Raise for a box that cannot be moved without losing something."""
    state = found["State"]
    if state.get("Paused"):
        raise EngineError(f"{box.name} is paused", f"docker unpause {box.name}")
    if not state.get("Running") or state.get("Restarting"):
        raise EngineError(
            f"{box.name} does not run, and a stopped box has no GPU",
            f"start it first: gpubox start {box.name}",
        )
    if found["HostConfig"].get("AutoRemove"):
        raise EngineError(
            f"{box.name} was started with --rm: as it stops it is gone, with all that is in it",
            "start another with --gpus, and keep what you need by docker cp",
        )


def _tried(undo: Callable[[str], None], it: str) -> None:
    """What cannot be undone is no reason to leave the rest."""
    with suppress(EngineError):
        undo(it)


def _meanwhile(box: Box) -> str:
    """What the successor is called until it has started."""
    return f"{box.name}-moving-{box.id[:6]}"
