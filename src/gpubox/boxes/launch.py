"""A plan becomes a running box; what fails leaves nothing behind.

Knows the order of the steps. The engine does them, and the screen is the caller's.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Protocol

import msgspec
from msgspec.structs import replace

from gpubox.boxes import foreground
from gpubox.boxes.foreground import Outcome, Process
from gpubox.boxes.ports import port_holder
from gpubox.engine import faults
from gpubox.engine.connection import ImageMissing
from gpubox.engine.engine import Engine
from gpubox.engine.faults import EngineSaid
from gpubox.errors import EngineError
from gpubox.gpus.race import Lost, Race
from gpubox.images import pull
from gpubox.plan import identity
from gpubox.plan.facts import Facts
from gpubox.plan.plan import Plan
from gpubox.plan.translate import arguments
from gpubox.screen.signals import Signals
from gpubox.slurm import commands

# Processes of a box whose command does not run yet: its init process, runc's own, a failed try.
_INIT = re.compile(r"init -- |runc init$|<defunct>$")
_INIT_SECONDS = 5


class Screen(pull.Screen, Protocol):
    """What a start tells the person before there is a box."""

    def say(self, sentence: str) -> None: ...


class Foreground(msgspec.Struct, frozen=True):
    """A box's process whose streams are ours, and our signals, which are held for it."""

    process: Process
    signals: Signals


class Started(msgspec.Struct, frozen=True):
    """A box that has been started, with the plan that did it."""

    box: str
    plan: Plan
    foreground: Foreground | None = None


class Launch(msgspec.Struct, frozen=True):
    """One start. `planned` makes a plan of facts; trying again is a new plan of new facts.

    1. Plan; while others have the GPUs, wait and plan again. Say which GPUs were chosen.
    2. Pull the image if it is missing, or if each start pulls it; then begin again at 1.
    3. Create the box with its claim in a label. For --user host, put its files into it.
    4. Where others may want its GPUs, win them (`Race`). If they get them: remove the box, wait
       until they have started or are gone, and begin again at 1.
    5. In the foreground, attach. Start the box.
    6. If the engine refuses for a reason that another plan avoids (a name or a port that was
       chosen is taken, no hook gives GPUs), begin again at 1 with that fact. Any other failure, or
       an interruption, removes the box.

    Where nothing is to be won or put into the box, 3 to 5 are a call of `containers.run`.
    """

    planned: Callable[[Facts], Plan]
    race: Race
    screen: Screen

    @property
    def engine(self) -> Engine:
        return self.race.engine

    def detached(self, facts: Facts) -> Started:
        """Start the box in the background."""
        return self._replanned(facts, self._start_detached)

    def foreground(
        self, facts: Facts, on_start: Callable[[Started], None]
    ) -> tuple[Started, Outcome]:
        """Start the box and stay with it until it ends or is left."""
        keys = foreground.detach_keys(self.engine)
        with ExitStack() as held:
            started = self._replanned(facts, partial(self._start_attached, held))
            on_start(started)
            return started, self._accompany(started, keys)

    def _accompany(self, started: Started, keys: bytes) -> Outcome:
        plan, own = started.plan, started.foreground
        assert own is not None, "a box in the foreground"
        process = own.process
        if plan.grace is not None:
            process = replace(process, signal=partial(self._in_a_job, started.box, plan.grace))
        outcome = foreground.accompany(
            process, own.signals, tty=plan.tty, stdin=plan.interactive, keys=keys
        )
        if plan.grace is not None and outcome.runs_on:
            self.engine.begin_stop(started.box, plan.grace)
            process.code()
            outcome = replace(outcome, runs_on=False)
        if plan.rm and not outcome.runs_on:
            self.engine.wait_removed(started.box)  # or the next of this name would find it taken
        if plan.init:
            _raise_failure_of_init(self.engine, started, outcome.exit_code, outcome.last_words)
        return outcome

    def _in_a_job(self, box: str, grace: int, name: str) -> None:
        """Pass a signal on; one that ends a Slurm job stops its box, even if the box ignores it."""
        if signal.Signals[name] in commands.ENDS:
            self.engine.begin_stop(box, grace)
        else:
            self.engine.signal(box, name)

    # --- plans

    def plan(self, facts: Facts) -> tuple[Plan, Facts]:
        """A plan, once nobody else has its GPUs, and the facts that it was made from."""
        return self.race.when_free(self.planned, facts)

    def _replanned(self, facts: Facts, start: Callable[[Plan, Facts], Started]) -> Started:
        """Start by a plan, and by a new one each time that this teaches new facts."""
        pulled, said = False, ""
        while True:
            plan, facts = self.plan(facts)
            if plan.choice != said:
                said = plan.choice
                self.screen.say(said)
            try:
                if plan.pull_policy == "always" and not pulled:
                    raise ImageMissing(plan.image)
                return start(plan, facts)
            except Lost as lost:
                self.race.outlast(lost.to, facts.holdings)
                self.race.pause()
                facts = self.race.survey.of(facts)
            except ImageMissing:
                if pulled or plan.pull_policy == "never":
                    raise pull.missing(plan.image) from None
                pull.get(self.engine, plan.image, plan.registry, self.screen)
                pulled, facts = True, self.race.survey.of(facts) if plan.contested else facts
            except EngineSaid as refusal:
                facts = self._changed(facts, plan, refusal)

    def _changed(self, facts: Facts, plan: Plan, refusal: EngineSaid) -> Facts:
        """The facts with what a refusal teaches; raise it where no new plan would help."""
        if faults.is_name_taken(refusal.text) and not plan.named_by_caller:
            return replace(facts, taken=self.engine.names() | {plan.name})
        if faults.is_gpu_refusal(refusal.text) and not facts.hook_refused:
            changed = replace(facts, hook_refused=True)
            if self.planned(changed).gpus.backend != plan.gpus.backend:
                return changed
        port_is_ours = plan.kind == "jupyter" and not plan.port_by_caller
        if faults.is_port_taken(refusal.text) and port_is_ours and facts.jupyter_port < 65535:
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
        to_run = arguments(plan)
        with Signals() as signals:  # none may strike between create and start
            plain = not to_run.host_config and not plan.as_caller and not plan.contested
            if plain and self.engine.image(plan.image):
                started = Started(self.engine.run_detached(to_run), plan)
            else:
                started = Started(self._create(plan), plan)
                with self._or_removed(started.box, fenced=plan.contested):
                    if plan.contested:
                        self.race.heeding(signals).win(started.box, facts.holdings)
                    self.engine.start(started.box, plan.image)
            if plan.init:
                _see_beyond_init(self.engine, started)
            if plan.grace is not None:
                with self._or_removed(started.box, fenced=False):
                    signals.heed()  # the job ends, and nobody else would end its box
            return started

    def _create(self, plan: Plan) -> str:
        box = self.engine.create(arguments(plan), self.race.voice.warn)
        if plan.as_caller:
            with self._or_removed(box, fenced=plan.contested):
                texts = {path: self.engine.read(box, path) for path in identity.CHANGED}
                self.engine.put(box, identity.files(texts, plan.as_caller))
        return box

    def _start_attached(self, held: ExitStack, plan: Plan, facts: Facts) -> Started:
        with ExitStack() as attempt:
            signals = attempt.enter_context(Signals())
            box = self._create(plan)
            with self._or_removed(box, fenced=plan.contested):
                if plan.contested:
                    self.race.heeding(signals).win(box, facts.holdings)
                process = foreground.attached(self.engine, box, plan.image, stdin=plan.interactive)
                self.engine.start(box, plan.image)
                if plan.tty and signal.SIGINT in signals.arrived():
                    raise KeyboardInterrupt  # typed before the keyboard was the box's
            held.push(attempt.pop_all())
            return Started(box, plan, Foreground(process, signals))

    @contextmanager
    def _or_removed(self, box: str, *, fenced: bool) -> Iterator[None]:
        """Remove the box if something fails.

        `fenced`: other starters may have removed it for its slowness. If it is gone, that is Lost.
        """
        try:
            yield
        except BaseException as error:
            self.engine.remove(box)
            if fenced and isinstance(error, EngineSaid) and faults.is_gone(box, error.text):
                raise Lost from error
            raise


# --- what an init process hides


def _see_beyond_init(engine: Engine, started: Started) -> None:
    """Wait until the init process runs the command; raise if it cannot.

    The end of a box that is started again and again is no last word: its log may come later.
    """
    restarts = started.plan.restart not in (None, "no")
    due, late = time.monotonic() + _INIT_SECONDS, False
    while not late:
        late = time.monotonic() > due  # before the look: after a pause of ours there is one more
        programs = engine.programs(started.box)
        end = None if programs else engine.end(started.box)
        if end:
            _raise_failure_of_init(engine, started, *end)
            _raise_wordless_end(engine, started, *end)
        if (end and not restarts) or not all(_INIT.search(program) for program in programs):
            return


def _raise_failure_of_init(engine: Engine, started: Started, code: int, text: str) -> None:
    """Raise for a missing program: to the engine, a box whose init process ran has started."""
    plan = started.plan
    if code in (1, 126, 127) and faults.is_init_failure(text):  # 1: catatonit's, which is Podman's
        engine.remove(started.box)
        raise faults.explain(text, plan.image, plan.program)


def _raise_wordless_end(engine: Engine, started: Started, code: int, text: str) -> None:
    """Raise for a --rm box without a program: its log is gone with it, only the code is left."""
    plan = started.plan
    if code in (126, 127) and plan.rm and not text:
        engine.remove(started.box)
        raise EngineError(
            f"'{plan.program}' ended at once with exit code {code}:"
            f" is there such a program in {plan.image}?",
            "the box is removed; without --rm it tells more",
            exit_code=code,
        )
