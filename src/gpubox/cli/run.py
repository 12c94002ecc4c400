"""`run` and `mount`: a Request becomes a plan, and the plan a box."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from gpubox.boxes.boxes import way_back
from gpubox.boxes.inspection import published_ports
from gpubox.cli.app import App, app
from gpubox.cli.words import DASHES, SPECS, BoxCommand, Request, command, request
from gpubox.errors import GpuboxError, UsageError, did_you_mean
from gpubox.profile.layers import COMMAND_LINE
from gpubox.values import Mount, data_folder, is_path, size_written

if TYPE_CHECKING:
    from gpubox.boxes.foreground import Outcome
    from gpubox.boxes.launch import Launch, Started
    from gpubox.engine.engine import Engine
    from gpubox.plan.facts import Facts
    from gpubox.plan.plan import Plan
    from gpubox.profile.profile import Profile

_DOCKERS_SHM = 64 * 2**20  # bytes, where nobody says a size

Conduct = Callable[[Request, "Launch", "Facts"], int]
Resume = Callable[[Request, "Engine"], Callable[["Launch"], int] | None]


# --- run


def run(app: App, parameters: dict[str, Any]) -> int:
    return go(request(app, parameters, parameters["words"], {}, job=app.job), attend)


# --- mount


class MountCommand(BoxCommand):
    """Takes its options also between and behind its SPECs, up to PROFILE."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._options_first(ctx, args))

    def _options_first(self, ctx: click.Context, args: list[str]) -> list[str]:
        this, options, specs = app(ctx), list[str](), list[str]()
        while True:
            leading = self.leading_options(ctx, args)
            options, args = [*options, *leading], args[len(leading) :]
            dashes = options[-1:] == ["--"]
            if not args or dashes or not _spec(this, args[0]):
                break
            specs, args = [*specs, args[0]], args[1:]
        ctx.meta[SPECS] = specs
        if dashes and specs:
            return [*options[:-1], *specs, "--", *args]
        return [*options, *specs, *args]


def mount(app: App, parameters: dict[str, Any]) -> int:
    words = list(parameters["words"])
    volumes: list[dict[str, str]] = []
    datasets: list[str] = []
    while words and (spec := _spec(app, words[0])):
        volumes += [spec] if isinstance(spec, dict) else []
        datasets += [spec] if isinstance(spec, str) else []
        words.pop(0)
    if words[:1] == ["--"]:
        click.get_current_context().meta[DASHES] = bool(words.pop(0))
    if not volumes and not datasets:
        raise _nothing_to_mount(app, words)
    lists: dict[str, list[Any]] = {"volumes": volumes, "datasets": datasets}
    made = request(app, parameters, words, lists, job=app.job)
    return go(replace(made, data=frozenset(spec["target"] for spec in volumes)), attend)


def _nothing_to_mount(app: App, words: list[str]) -> UsageError:
    """The error for a first word that is no SPEC, or for none at all."""
    from gpubox.host import paths

    if not words:
        return UsageError("what to mount is missing", "gpubox mount /data/imagenet:/data")
    word = words[0]
    hint = did_you_mean(word, list(app.config.datasets()))
    if not paths.look(str(app.caller.folder / word)).trouble:
        hint = f"gpubox mount {shlex.quote(word if is_path(word) else f'./{word}')}:/data"
    elif not hint.startswith("did"):
        hint = "gpubox mount /data/imagenet:/data"
    return UsageError(f"'{word}' is neither HOST_PATH:BOX_PATH nor a dataset's name", hint)


def _greeting(request: Request) -> list[str]:
    """What is mounted by a dataset's name or a SPEC, and whether it can be written."""
    datasets = request.profile.said("datasets")
    asked = {target for target, item in datasets.items() if item.where == COMMAND_LINE}
    targets = asked | request.data
    return [_mounting(folder) for folder in request.profile.volumes if folder.target in targets]


def _mounting(folder: Mount) -> str:
    access = "read-only (add :rw to write)" if folder.read_only else "read and write"
    return f"mounting {folder.source} on {folder.target}, {access}"


def _spec(app: App, word: str) -> dict[str, str] | str | None:
    """A SPEC: a folder as a long volume, a dataset as its word; None for anything else."""
    name = word.partition(":")[0]
    if name in app.config.datasets():
        return word
    source, colon, rest = word.partition(":")
    if not colon or not (rest.startswith("/") or is_path(source)):
        return None
    try:
        folder = data_folder(word, app.caller.folder)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return {
        "type": "bind",
        "source": folder.source or "",
        "target": folder.target,
        "read_only": str(folder.read_only).lower(),
    }


# --- the way of every start


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
    planned, facts = _planner(request), _facts(request)
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


def _planner(request: Request) -> Callable[[Facts], Plan]:
    from gpubox.plan.plan import plan

    return partial(plan, request.profile, request.ask)


def _facts(request: Request) -> Facts:
    """What is known without the engine."""
    from gpubox.host.paths import read_files
    from gpubox.plan.facts import Facts
    from gpubox.plan.plan import files_named

    app, profile = request.app, request.profile
    facts = Facts(caller=app.caller, files=read_files(files_named(profile)), job=request.job)
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
    return profile.gpus is not None and str(profile.gpus) != "none"


def _with_engine(facts: Facts, profile: Profile, launch: Launch) -> Facts:
    """Facts with what the engine says, if the plan depends on it: for GPUs, and CDI devices."""
    if _wants_gpus(profile):
        return launch.race.survey.of(replace(facts, engine=launch.engine.facts()))
    by_cdi = any(device.is_cdi for device in profile.devices)
    return replace(facts, engine=launch.engine.facts()) if by_cdi else facts


def printed(request: Request, *, exported: bool = False) -> Plan:
    """The plan as it would be now; what it assumes is said. Changes nothing, asks only briefly."""
    app, planned = request.app, _planner(request)
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
    _say_notes(request, plan)
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


def _say_notes(request: Request, plan: Plan) -> None:
    for note in plan.notes:
        request.app.screen.say(note)


def attend(request: Request, launch: Launch, facts: Facts) -> int:
    """Start the box and leave it, or stay with it to its end."""
    engine, screen = launch.engine, request.app.screen
    if request.ask.detach:
        started = launch.detached(facts)
        _announce(request, engine, started)
        if started.plan.kind == "shell":
            screen.say(f"enter it: gpubox enter {started.plan.name}")
        click.echo(started.plan.name)
        return 0
    _mention_stopped(request, engine)
    started, outcome = launch.foreground(facts, lambda begun: _announce(request, engine, begun))
    _part(request, engine, started, outcome)
    return outcome.exit_code


def _mention_stopped(request: Request, engine: Engine) -> None:
    """Say how to come back to the last box: `run` always makes a new one, as docker run does."""
    caller = request.app.caller
    if not (caller.at_terminal and sys.stderr.isatty()) or request.ask.command:
        return
    mine = request.mine(engine.boxes(stopped=True), "shell")
    if stopped := next((box for box in mine if box.state == "exited"), None):
        request.app.screen.say(
            f"a new box; yours of this folder is still there: gpubox enter {stopped.name}"
        )


def _part(request: Request, engine: Engine, started: Started, outcome: Outcome) -> None:
    """The last lines: what became of the box, and how to come back to it."""
    screen, name, plan = request.app.screen, started.plan.name, started.plan
    patience = 1 if outcome.exit_code == 128 + signal.SIGKILL else 0
    if not outcome.runs_on and engine.out_of_memory(started.box, patience):
        limit = f"-m {size_written(plan.mem_limit)}" if plan.mem_limit else "the machine's memory"
        screen.warn(
            f"a process in {name} was killed: main memory (not the GPU's) ran out within {limit}"
        )
    if outcome.exit_code == 128 + signal.SIGBUS:
        screen.warn(f"{name} ended on a bus error: {_shared_memory(plan)}")
    if not sys.stderr.isatty():
        return
    if outcome.runs_on:
        screen.say("")  # the cursor stands behind the box's own prompt
        screen.say(way_back(name, plan.kind, runs_on=True))
    elif not plan.rm:
        screen.say(way_back(name, plan.kind, runs_on=False, contested=plan.contested))


def _shared_memory(plan: Plan) -> str:
    """What a bus error nearly always means: the shared memory is full."""
    if plan.ipc not in (None, "private", "shareable"):
        return f"its shared memory is that of --ipc {plan.ipc}, and is probably full"
    size = plan.shm_size or _DOCKERS_SHM
    return (
        f"its {size_written(size)} of shared memory probably ran out;"
        f" --shm-size {size_written(2 * size)} gives more"
    )


def say_tunnel(app: App, port: int, lead: str) -> None:
    """Say the `ssh` line that reaches a port, to a person who came here by ssh."""
    from gpubox.boxes import jupyter

    name = app.config.text("ssh_host")
    line = jupyter.tunnel(
        app.caller.environ,
        app.caller.name,
        port,
        name.value if name else None,
        node=app.job.node if app.job else "",
    )
    if line:
        app.screen.say(f"{lead}{line}")


def _announce(request: Request, engine: Engine, started: Started) -> None:
    """Say what a person must know of a box that has just started: notes, and where it listens."""
    from gpubox.plan import translate

    if request.app.verbose:
        for reason in started.plan.reasons:
            request.app.screen.say(reason)
        request.app.screen.say(translate.docker_run_line(started.plan))
    _say_notes(request, started.plan)
    if started.plan.ports:
        say_ports(request.app, published_ports(engine.inspect(started.box)))


def say_ports(app: App, published: Mapping[str, tuple[str, int]]) -> None:
    """Where each port of a box listens, and how to reach it from elsewhere."""
    for key, (address, number) in published.items():
        app.screen.say(f"port {key} of the box listens on {address}:{number}")
        say_tunnel(app, number, "  from your own machine: ")


run_command = command(
    "run",
    run,
    """A shell, or COMMAND, in a box.

    PROFILE is a name that `gpubox profiles` lists, one like cuda12.4-cudnn, or an image. Without
    it the default profile runs; with a COMMAND and no PROFILE write: gpubox run -- COMMAND.
    """,
)
mount_command = command(
    "mount",
    mount,
    """A box with folders mounted.

    A SPEC is HOST_PATH:BOX_PATH, or the name of a dataset. It is read-only unless it ends in :rw.
    """,
    kind=MountCommand,
)
