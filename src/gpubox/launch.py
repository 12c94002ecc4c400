"""A plan becomes a running box: have pulled what is missing, create, win its GPUs, attach, start.

What fails leaves nothing behind. Knows the order of things; the engine does them, the screen is the
caller's.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from gpubox import claims, contest, faults, host, pull, terminal
from gpubox.contest import Claim
from gpubox.engine import Box, Engine, Exit, Hijacked, ImageMissing
from gpubox.errors import EngineError, GpuboxError
from gpubox.faults import EngineSaid
from gpubox.holders import Holding
from gpubox.identity import GROUP, PASSWD, archive
from gpubox.pick import NotFree
from gpubox.plan import Facts, Plan
from gpubox.streams import stream
from gpubox.survey import Survey
from gpubox.terminal import Ending, How
from gpubox.translate import arguments
from gpubox.values import NO_GPUS

_PULSE, _PATIENCE = 0.2, 10  # seconds between two looks, and for a starter that does not move
_HELD_PULSE = 2  # seconds between two looks at GPUs that others have
T = TypeVar("T")
# What stands in for the command before it runs, and a try at it that has failed just now.
_INIT = re.compile(r"init -- |runc init$|<defunct>$")
_INIT_SECONDS = 5


class Screen(pull.Screen, Protocol):
    """What a launch tells the person while it goes on."""

    def say(self, sentence: str) -> None: ...
    def warn(self, sentence: str) -> None: ...


class Foreground(msgspec.Struct, frozen=True):
    """What staying with a box takes: its streams, its end to be waited for, our signals."""

    streams: Hijacked
    exit: Exit
    signals: terminal.Signals


class Outcome(msgspec.Struct, frozen=True):
    """How a foreground ended: the exit code for the shell, and whether the box runs on."""

    exit_code: int
    runs_on: bool


class Started(msgspec.Struct, frozen=True):
    """A box that has been started, with the plan that did it."""

    box: str
    plan: Plan
    foreground: Foreground | None = None


class Lost(Exception):
    """Somebody else gets the GPUs of a box that was created; `to` them, by their claims."""

    def __init__(self, to: Sequence[Claim] = ()) -> None:
        super().__init__()
        self.to = to


class Launch(msgspec.Struct, frozen=True):
    """One start. `planned` makes the plan from facts, anew when the engine has changed them.

    While others have the GPUs a plan is waited for, `until` a time of the monotonic clock.
    """

    engine: Engine
    planned: Callable[[Facts], Plan]
    survey: Survey
    screen: Screen
    until: float = 0

    def detached(self, facts: Facts) -> Started:
        """Start the box in the background."""
        return self._replanned(facts, self._start_detached)

    def again(self, box: Box, facts: Facts) -> None:
        """Start a stopped box again, if nobody has taken its GPUs meanwhile."""
        if claims.of_label(box.gpus) == NO_GPUS or box.claim == claims.NO_CLAIM:
            self.engine.start(box.id, box.image)
            return
        now = self.survey.of(facts)
        when_free(partial(self._again, box), now, self.survey, self.screen, self.until)

    def _again(self, box: Box, facts: Facts) -> None:
        while rivals := self._started_with_ticket(box, facts.holdings):
            if any(rival.holds for rival in rivals):
                raise self._taken(box, rivals)
            outlast(self.engine, self.survey, rivals, facts.holdings)

    def _started_with_ticket(self, box: Box, holdings: Sequence[Holding]) -> Sequence[Claim]:
        """Start a stopped box under the claim of one that is new; or who has its GPUs instead."""
        with terminal.Signals() as signals:
            ticket = self.engine.ticket(box.id)
            try:
                win(self.engine, self.survey, ticket, signals, holdings, box.id)
                self.engine.start(box.id, box.image)
                return self._overtaken(ticket, box, holdings)
            except Lost as lost:
                return lost.to or [Claim(id=ticket, state="created", gpus=frozenset())]
            finally:
                self.engine.remove(ticket)

    def _overtaken(self, ticket: str, box: Box, holdings: Sequence[Holding]) -> Sequence[Claim]:
        """Who has removed a ticket for its slowness: that fences a box off which it made, but not
        one that was there before, so this one stops again."""
        seen = self.survey.claims(holdings)
        if any(claim.id == ticket for claim in seen):
            return ()
        mine = [claim for claim in seen if claim.id == box.id]
        rivals = mine[0].rivals(seen) if mine else []
        if rivals:
            self.engine.stop(box.id)
        return rivals

    def _taken(self, box: Box, rivals: Sequence[Claim]) -> NotFree:
        ids = {rival.id for rival in rivals}
        others = [it for it in self.engine.boxes(stopped=True) if it.id in ids]
        whose = " and ".join(dict.fromkeys(f"{it.name}, {it.owner}'s box" for it in others))
        return NotFree(
            f"the GPUs of {box.name} are held by {whose or 'another box'}",
            "--new makes another on a GPU that is free; --wait waits for these",
        )

    def foreground(
        self, facts: Facts, on_start: Callable[[Started], None]
    ) -> tuple[Started, Outcome]:
        """Start the box and stay with it until it ends or is left."""
        keys = _detach_keys(self.engine)
        with ExitStack() as held:
            started = self._replanned(facts, partial(self._start_attached, held))
            on_start(started)
            return started, accompany(self.engine, started, keys)

    # --- plans

    def plan(self, facts: Facts) -> tuple[Plan, Facts]:
        """A plan, waited for while others have its GPUs, and the facts that it was made from."""
        return when_free(self.planned, facts, self.survey, self.screen, self.until)

    def _replanned(self, facts: Facts, start: Callable[[Plan, Facts], Started]) -> Started:
        """Start by a plan, and by a new one each time the engine tells something new."""
        pulled = False
        while True:
            plan, facts = self.plan(facts)
            try:
                if plan.pull == "always" and not pulled:
                    raise ImageMissing(plan.image)
                return start(plan, facts)
            except Lost as lost:
                outlast(self.engine, self.survey, lost.to, facts.holdings)
                time.sleep(_PULSE)
                facts = self.survey.of(facts)
            except ImageMissing:
                if pulled or plan.pull == "never":
                    raise pull.missing(plan.image) from None
                pull.get(self.engine, plan.image, plan.registry, self.screen)
                pulled, facts = True, self.survey.of(facts) if plan.contested else facts
            except EngineSaid as refusal:
                facts = self._changed(facts, plan, refusal)

    def _changed(self, facts: Facts, plan: Plan, refusal: EngineSaid) -> Facts:
        """The facts that this refusal makes a new plan of; else the refusal itself."""
        if faults.is_name_taken(refusal.text) and not plan.named_by_caller:
            return replace(facts, taken=self.engine.names() | {plan.name})
        if faults.is_gpu_refusal(refusal.text) and not facts.no_hook:
            changed = replace(facts, no_hook=True)
            if self.planned(changed).gpus.backend != plan.gpus.backend:
                return changed
        chosen = plan.kind == "jupyter" and not plan.port_by_caller
        if faults.is_port_taken(refusal.text) and chosen and facts.jupyter_port < 65535:
            return replace(facts, jupyter_port=facts.jupyter_port + 1)
        if faults.is_port_taken(refusal.text):
            raise self._port_taken(plan, refusal)
        raise refusal

    def _port_taken(self, plan: Plan, refusal: EngineSaid) -> EngineError:
        """The refusal with the name of who has the port, where that can be known."""
        wanted = [port.host for port in plan.ports if port.host and port.host in refusal.text]
        if len(wanted) != 1 or not wanted[0].isdigit():
            return refusal
        number = int(wanted[0])
        holder = port_holder(self.engine, number)
        flag = "--port" if plan.kind == "jupyter" else "-p"
        problem = f"port {number} is taken by {holder}" if holder else refusal.problem
        return EngineError(problem, f"take another port with {flag}", exit_code=125)

    # --- starts

    def _start_detached(self, plan: Plan, facts: Facts) -> Started:
        said = arguments(plan)
        with terminal.Signals() as signals:  # none may strike between create and start
            plain = not said.host_config and not plan.as_caller and not plan.contested
            if plain and self.engine.image(plan.image):
                started = Started(self.engine.run_detached(said), plan)
            else:
                started = Started(self._create(plan), plan)
                with self._or_removed(started.box, fenced=plan.contested):
                    if plan.contested:
                        win(self.engine, self.survey, started.box, signals, facts.holdings)
                    self.engine.start(started.box, plan.image)
            if plan.init:
                _see_beyond_init(self.engine, started)
            return started

    def _create(self, plan: Plan) -> str:
        box = self.engine.create(arguments(plan), self.screen.warn)
        if plan.as_caller:
            with self._or_removed(box, fenced=plan.contested):
                texts = {path: self.engine.read(box, path) for path in (PASSWD, GROUP)}
                self.engine.put(box, archive(texts, plan.as_caller))
        return box

    def _start_attached(self, held: ExitStack, plan: Plan, facts: Facts) -> Started:
        with ExitStack() as attempt:
            signals = attempt.enter_context(terminal.Signals())
            box = self._create(plan)
            with self._or_removed(box, fenced=plan.contested):
                if plan.contested:
                    win(self.engine, self.survey, box, signals, facts.holdings)
                streams = self.engine.attach(box, plan.image, stdin=plan.interactive)
                ended = self.engine.exit_of(box)
                self.engine.start(box, plan.image)
                if plan.tty and signal.SIGINT in signals.arrived():
                    raise KeyboardInterrupt  # before the keyboard was the box's
            held.push(attempt.pop_all())
            return Started(box, plan, Foreground(streams, ended, signals))

    @contextmanager
    def _or_removed(self, box: str, *, fenced: bool) -> Iterator[None]:
        """A failed start leaves no half-made container.

        One that was `fenced` off, removed by another starter for its slowness, is Lost.
        """
        try:
            yield
        except BaseException as error:
            self.engine.remove(box)
            if fenced and isinstance(error, EngineSaid) and faults.is_gone(box, error.text):
                raise Lost from error
            raise


# --- GPUs that several want


def when_free(
    decided: Callable[[Facts], T], facts: Facts, survey: Survey, screen: Screen, until: float
) -> tuple[T, Facts]:
    """What is decided by facts, waited for while others have the GPUs, and these facts."""
    waits = False
    while True:
        try:
            return decided(facts), facts
        except NotFree as held:
            left = until - time.monotonic()
            if left <= 0:
                raise
            if not waits:
                screen.say(f"waiting: {held.problem}")
            waits = True
        time.sleep(min(left, _HELD_PULSE))
        facts = survey.of(facts)


def win(
    engine: Engine,
    survey: Survey,
    box: str,
    signals: terminal.Signals,
    holdings: Sequence[Holding],
    but: str = "",
) -> None:
    """Wait until the GPUs of a created box are its own; Lost where another gets them.

    A starter that has not moved for long is removed: it was killed, or will find its box gone.
    """
    patience = _Patience(engine)
    while True:
        seen = survey.claims(holdings)
        mine = next((claim for claim in seen if claim.id == box), None)
        if mine is None:
            raise Lost
        said = contest.verdict(mine, [claim for claim in seen if claim.id != but])
        if said.do == "lost":
            raise Lost(said.others)
        if said.do == "start":
            return
        patience.wait(said.others)
        heed(signals)


def heed(signals: terminal.Signals) -> None:
    """Be interrupted by what has arrived; it is raised again when it is held no more."""
    if signals.end_us():
        raise KeyboardInterrupt


def outlast(
    engine: Engine, survey: Survey, rivals: Sequence[Claim], holdings: Sequence[Holding]
) -> None:
    """Wait until those that won have started, or have come to nothing."""
    patience, ids = _Patience(engine), {rival.id for rival in rivals}
    while True:
        seen = survey.claims(holdings)
        undecided = [it for it in seen if it.id in ids and it.state == "created"]
        if not undecided:
            return
        patience.wait(undecided)


class _Patience:
    """Waits a moment for other starters, and no longer than `_PATIENCE` for any of them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._since: dict[str, float] = {}

    def wait(self, rivals: Sequence[Claim]) -> None:
        now = time.monotonic()
        for rival in rivals:
            if now - self._since.setdefault(rival.id, now) > _PATIENCE:
                self._engine.remove_unstarted(rival.id)
        time.sleep(_PULSE)


def port_holder(engine: Engine, number: int) -> str | None:
    """Who has a port of the engine's machine: a box, a container, or a program of this one."""
    holder = engine.publishers().get(number)
    return host.port_holder(number) if not holder and engine.endpoint.local else holder


# --- the foreground


def _detach_keys(engine: Engine) -> bytes:
    """What leaves a box; said before there is one where it is nothing to type."""
    try:
        return terminal.detach_sequence(engine.detach_keys)
    except ValueError as error:
        raise EngineError(
            f"detachKeys in Docker's config.json is '{engine.detach_keys}': {error}",
            'write keys with commas between them: "ctrl-p,ctrl-q"',
            exit_code=125,
        ) from None


def accompany(engine: Engine, started: Started, detach_keys: bytes) -> Outcome:
    """Be the box's terminal or pipes until it ends or is left."""
    box, plan, own = started.box, started.plan, started.foreground
    assert own is not None, "a box in the foreground"

    def forward(arrived: signal.Signals) -> None:
        engine.signal(box, arrived.name)

    connection = stream(own.streams.socket, own.streams.early)
    try:
        ending = terminal.attach(
            connection,
            own.signals,
            tty=plan.tty,
            stdin=plan.interactive,
            forward=forward,
            resize=partial(engine.resize, box) if plan.tty else None,
            detach_keys=detach_keys,
        )
    except GpuboxError:
        # nobody can follow it any more: a full disk, a broken stream
        own.streams.hang_up()
        engine.signal(box, "SIGKILL")
        raise
    if ending.how is How.ENDED:
        # its output is over, which is not yet its end
        ending = terminal.outlast(own.exit.fileno(), own.signals, tty=plan.tty, forward=forward)
    outcome = _outcome(engine, started, own, ending)
    if plan.init:
        _init_has_failed(engine, started, outcome.exit_code, connection.last_words())
    return outcome


def _see_beyond_init(engine: Engine, started: Started) -> None:
    """Wait until the init process has run the command, or failed to.

    Of a box that is started again and again one end tells little: its log may come a moment later.
    """
    restarts = started.plan.restart not in (None, "no")
    due = time.monotonic() + _INIT_SECONDS
    while time.monotonic() < due:
        programs = engine.programs(started.box)
        end = None if programs else engine.end(started.box)
        if end:
            _init_has_failed(engine, started, *end)
            _has_taken_its_words_along(engine, started, *end)
        if (end and not restarts) or not all(_INIT.search(program) for program in programs):
            return


def _init_has_failed(engine: Engine, started: Started, code: int, text: str) -> None:
    """With an init process a missing program is no failed start, but this is what it means."""
    plan = started.plan
    if code in (1, 126, 127) and faults.is_init_failure(text):  # 1: catatonit's, which is Podman's
        engine.remove(started.box)
        raise faults.explain(text, plan.image, plan.program)


def _has_taken_its_words_along(engine: Engine, started: Started, code: int, text: str) -> None:
    """A box that is removed at once leaves nothing but its exit code."""
    plan = started.plan
    if code in (126, 127) and plan.rm and not text:
        engine.remove(started.box)
        raise EngineError(
            f"'{plan.program}' ended at once with exit code {code}:"
            f" is there such a program in {plan.image}?",
            "the box is removed; without --rm it tells more",
            exit_code=code,
        )


def _outcome(engine: Engine, started: Started, own: Foreground, ending: Ending) -> Outcome:
    match ending.how:
        case How.ENDED:
            return Outcome(_exit_code(engine, started, own), runs_on=False)
        case How.DETACHED:
            return Outcome(0, runs_on=True)
        case How.OUTPUT_GONE:
            own.streams.hang_up()
            engine.signal(started.box, "SIGKILL")
            return Outcome(128 + signal.SIGPIPE, runs_on=False)
        case How.TERMINAL_GONE:
            return Outcome(128 + signal.SIGHUP, runs_on=True)
        case How.TERMINATED | How.FORCED:
            return Outcome(128 + (ending.signal or 0), runs_on=True)


def _exit_code(engine: Engine, started: Started, own: Foreground) -> int:
    code, plan = own.exit.code(), started.plan
    if plan.rm:
        # or the next box of this name would find it taken
        engine.wait_removed(started.box)
    return code
