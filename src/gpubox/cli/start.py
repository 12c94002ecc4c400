"""The way of every start: a Request becomes a plan, is checked, and somebody conducts its launch.

Also the plan that is only printed. What is told of the box itself is for the commands to say.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from gpubox.cli.words import Request
from gpubox.errors import GpuboxError
from gpubox.profile.layers import COMMAND_LINE
from gpubox.values import NO_GPUS, Mount

if TYPE_CHECKING:
    from gpubox.boxes.launch import Launch
    from gpubox.engine.engine import Engine
    from gpubox.plan.facts import Facts
    from gpubox.plan.plan import Plan
    from gpubox.profile.profile import Profile

Conduct = Callable[[Request, "Launch", "Facts"], int]
Resume = Callable[[Request, "Engine"], Callable[["Launch"], int] | None]


def go(request: Request, conduct: Conduct, resume: Resume | None = None) -> int:
    """Plan, check all that can be checked before anything is pulled, and have `conduct` start it.

    `resume` looks for a box that is there already, and says how to go on with that instead.
    """
    if request.dry_run:
        return _dry_run(request)
    with request.app.gpus_awake(_wants_gpus(request.profile)):
        begin = _ready(request, conduct, resume)
    return begin()


def _ready(request: Request, conduct: Conduct, resume: Resume | None) -> Callable[[], int]:
    from gpubox.cli import folders, preflight

    app, profile = request.app, request.profile
    planned, facts = planner(request), _facts(request)
    _refuse_past_slurm(request)
    first = planned(replace(facts, printed=True))
    found = list(folders.against(request, first))
    try:
        engine = app.connect()
    except GpuboxError:
        preflight.report(app, found, request.ignored)
        raise
    launch = _launch(request, planned, engine)
    if resume and (resumed := resume(request, engine)):
        preflight.report(app, found, request.ignored)
        return partial(resumed, launch)
    first, facts = launch.plan(_with_engine(facts, profile, launch))
    found += preflight.of_image(app, first, profile, engine, facts)
    preflight.report(app, found, request.ignored)
    return partial(_begin, request, first, conduct, launch, facts)


def _begin(request: Request, first: Plan, conduct: Conduct, launch: Launch, facts: Facts) -> int:
    from gpubox.cli import folders

    for sentence in _greeting(request):
        request.app.screen.say(sentence)
    with folders.explained(request, first):
        return conduct(request, launch, facts)


def _greeting(request: Request) -> list[str]:
    """What is mounted by a dataset's name or a SPEC, and whether it can be written."""
    datasets = request.profile.said("datasets")
    asked = {target for target, item in datasets.items() if item.where == COMMAND_LINE}
    targets = asked | request.data
    return [_mounting(folder) for folder in request.profile.volumes if folder.target in targets]


def _mounting(folder: Mount) -> str:
    access = "read-only (add :rw to write)" if folder.read_only else "read and write"
    return f"mounting {folder.source} on {folder.target}, {access}"


def planner(request: Request) -> Callable[[Facts], Plan]:
    from gpubox.plan.plan import plan

    return partial(plan, request.profile, request.ask)


def known(request: Request) -> Facts:
    """What is known without this machine's GPUs, and without the engine."""
    from gpubox.host.paths import read_files
    from gpubox.plan.facts import Facts
    from gpubox.plan.plan import files_named

    files = read_files(files_named(request.profile))
    return Facts(caller=request.app.caller, files=files, job=request.job)


def _facts(request: Request) -> Facts:
    """What is known without the engine."""
    app, profile, facts = request.app, request.profile, known(request)
    if _wants_gpus(profile) or len(profile.images) > 1:
        facts = replace(facts, machine=app.machine, unseen=app.unseen)
    return facts


def _refuse_past_slurm(request: Request) -> None:
    """Raise where Slurm gives out all GPUs and this is no job: one taken now may be somebody's."""
    if request.job is None and _wants_gpus(request.profile):
        command = ("--", *request.ask.command) if request.ask.command else ()
        words = shlex.join([request.profile.name, *command])
        request.app.refuse_past_slurm(
            f"gpubox submit {words}; at a terminal: srun --gres=gpu:1 --pty gpubox run {words};"
            f" without a GPU: gpubox run --gpus none {words}",
        )


def _launch(request: Request, planned: Callable[[Facts], Plan], engine: Engine) -> Launch:
    from gpubox.boxes.launch import Launch

    return Launch(planned, request.app.race(engine, request.patience), request.app.screen)


def _wants_gpus(profile: Profile) -> bool:
    return profile.gpus not in (None, NO_GPUS)


def _with_engine(facts: Facts, profile: Profile, launch: Launch) -> Facts:
    """Facts with what the engine says, if the plan depends on it: for GPUs, and CDI devices."""
    if _wants_gpus(profile):
        return launch.race.survey.of(replace(facts, engine=launch.engine.facts()))
    by_cdi = any(device.is_cdi for device in profile.devices)
    return replace(facts, engine=launch.engine.facts()) if by_cdi else facts


def printed(request: Request, *, exported: bool = False) -> Plan:
    """The plan as it would be now; what it assumes is said. Changes nothing, asks only briefly."""
    app, planned = request.app, planner(request)
    wants_gpus = _wants_gpus(request.profile)
    with app.gpus_awake(wants_gpus):
        facts = replace(_facts(request), printed=True, exported=exported)
        if wants_gpus:
            try:
                launch = _launch(request, planned, app.connect(briefly=True))
                facts = _with_engine(facts, request.profile, launch)
            except GpuboxError as error:
                app.screen.say(f"assumed: an engine that knows --gpus ({error.problem})")
    plan = planned(facts)
    if plan.choice:
        app.screen.say(plan.choice)
    say_notes(request, plan)
    if facts.engine and not exported:
        from gpubox.cli import preflight

        found = preflight.foreseen(app, plan, launch.engine, facts)
        preflight.report(app, found, request.ignored)
    return plan


def _dry_run(request: Request) -> int:
    from gpubox.plan import translate

    app, plan = request.app, printed(request)
    if plan.as_caller:
        app.screen.say(
            f"not in the line: {plan.as_caller.name}'s name, groups and home, put into the box"
            " before it starts"
        )
    if hidden := translate.hidden(plan):
        app.screen.say(f"not shown: {', '.join(hidden)}; export before you use the line")
    click.echo(translate.docker_run_line(plan, breaks=sys.stdout.isatty()))
    return 0


def say_notes(request: Request, plan: Plan) -> None:
    for note in plan.notes:
        request.app.screen.say(note)
