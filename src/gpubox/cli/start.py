"""`run`, `mount` and `jupyter`: words become a profile, an ask and a plan, and the plan a box."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec.structs import replace

from gpubox.cli.app import App, app, flags, settings_options
from gpubox.errors import GpuboxError, UsageError, did_you_mean
from gpubox.values import size_text

if TYPE_CHECKING:
    from gpubox.engine import Engine
    from gpubox.launch import Launch, Outcome, Started
    from gpubox.plan import Ask, Facts, Plan
    from gpubox.profile import Profile

_DASHES = "gpubox.dashes"
_JUPYTER_SECONDS = 120


class BoxCommand(click.Command):
    """A command whose words end in `[PROFILE|IMAGE] [COMMAND]...`.

    Options stand before PROFILE, for all that follows it belongs to the command in the box; `--`
    before any word says that there is no PROFILE.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_interspersed_args = False
        options = self.options_of(ctx, args)
        ctx.meta[_DASHES] = bool(options) and options[-1] == "--"
        return super().parse_args(ctx, args)

    def options_of(self, ctx: click.Context, args: Sequence[str]) -> Sequence[str]:
        """The options, with their values, that stand before the first word; and a `--`."""
        parsed, _, _ = self.make_parser(ctx).parse_args(list(args))
        words = parsed.get("words")
        return args[: len(args) - len(words)] if isinstance(words, tuple) else args


_OWN = [
    click.Option(["-d", "--detach"], is_flag=True, help="Start it and return; print its name."),
    click.Option(["-i", "--interactive"], is_flag=True, help="Forward standard input."),
    click.Option(["-t", "--tty"], is_flag=True, default=None, help="Give the box a terminal."),
    click.Option(["--name"], metavar="NAME", help="The box's name (PROFILE-USER, unless said)."),
    click.Option(
        ["--pull"],
        type=click.Choice(["missing", "always", "never"]),
        default="missing",
        help="When to pull the image (missing, unless said).",
    ),
    click.Option(["--dry-run"], is_flag=True, help="Print the docker run line; change nothing."),
    click.Option(["--ignore"], metavar="CHECK", multiple=True, help="Go on past this one check."),
]


def _command(
    name: str, callback: Callable[..., int], help: str, extra: Sequence[click.Parameter] = ()
) -> BoxCommand:
    def call(**parameters: Any) -> int:
        return callback(app(click.get_current_context()), parameters)

    return BoxCommand(
        name,
        callback=call,
        help=help,
        params=[
            click.Argument(["words"], nargs=-1, type=click.UNPROCESSED, metavar=_WORDS[name]),
            *extra,
            *_OWN,
            *settings_options(),
        ],
    )


_WORDS = {
    "run": "[PROFILE|IMAGE] [COMMAND]...",
    "mount": "SPEC... [PROFILE|IMAGE] [COMMAND]...",
    "jupyter": "[PROFILE|IMAGE]",
}


class Request(msgspec.Struct, frozen=True):
    """What was typed, read: a profile and what belongs to this start."""

    app: App
    profile: Profile
    ask: Ask
    ignored: frozenset[str]
    dry_run: bool
    stays: bool = False


def _request(
    app: App,
    parameters: dict[str, Any],
    words: Sequence[str],
    mounts: dict[str, Any],
    default: str = "default",
) -> Request:
    from gpubox.layers import from_flags
    from gpubox.plan import Ask

    dashes = bool(click.get_current_context().meta.get(_DASHES))
    word, command = _split(app, words, dashes, default)
    given = flags(parameters)
    for key, specs in mounts.items():
        given[key] = [*specs, *given.get(key, ())]
    layers = [from_flags(given, app.caller.folder)]
    if gpus := app.caller.environ.get("NV_GPU"):
        layers.insert(0, from_flags({"gpus": gpus.split(",")}, app.caller.folder, "NV_GPU"))
    return Request(
        app=app,
        profile=app.config.profile(word, *layers),
        ask=Ask(
            command=tuple(command),
            name=parameters["name"],
            detach=parameters["detach"],
            interactive=parameters["interactive"],
            tty=parameters["tty"],
            pull=parameters["pull"],
        ),
        ignored=frozenset(parameters["ignore"]),
        dry_run=parameters["dry_run"],
    )


def _split(app: App, words: Sequence[str], dashes: bool, default: str) -> tuple[str, Sequence[str]]:
    """PROFILE and COMMAND among the words; without a PROFILE the default one."""
    if not words or dashes:
        return app.config.default(default), words
    word, command = words[0], words[1:]
    path = click.get_current_context().command_path
    if not app.config.knows(word):
        near = did_you_mean(word, app.config.names())
        as_command = f"as a command: {path} -- {_joined(words)}"
        hint = f"{near}; {as_command}" if near.startswith("did") else as_command
        raise UsageError(f"no profile '{word}'", hint)
    if command and command[0] == "--":
        return word, command[1:]
    if command and command[0].startswith("-"):
        raise UsageError(
            f"options stand before the profile, and '{command[0]}' stands behind '{word}'",
            f"{path} {_joined(_corrected(word, command))}",
        )
    return word, command


def _corrected(word: str, command: Sequence[str]) -> list[str]:
    """The words with the options among them first."""
    context = click.get_current_context()
    assert isinstance(context.command, BoxCommand)
    try:
        options = list(context.command.options_of(context, command))
    except click.UsageError:
        options = list(command)
    return [*options, word, *command[len(options) :]]


def _joined(words: Sequence[str]) -> str:
    import shlex

    return shlex.join(words)


# --- run


def run(app: App, parameters: dict[str, Any]) -> int:
    return _go(_request(app, parameters, parameters["words"], {}))


# --- mount


def mount(app: App, parameters: dict[str, Any]) -> int:
    words = list(parameters["words"])
    volumes: list[dict[str, str]] = []
    datasets: list[str] = []
    while words and (spec := _spec(app, words[0])):
        volumes += [spec] if isinstance(spec, dict) else []
        datasets += [spec] if isinstance(spec, str) else []
        words.pop(0)
    if not volumes and not datasets:
        raise UsageError(
            f"'{words[0]}' is neither HOST_PATH:BOX_PATH nor a dataset's name"
            if words
            else "what to mount is missing",
            "gpubox mount /data/imagenet:/data",
        )
    request = _request(app, parameters, words, {"volumes": volumes, "datasets": datasets})
    for folder in request.profile.volumes:
        if any(folder.target == spec["target"] for spec in volumes):
            access = "read-only (add :rw to write)" if folder.read_only else "read and write"
            app.screen.say(f"mounting {folder.source} on {folder.target}, {access}")
    return _go(request)


def _spec(app: App, word: str) -> dict[str, str] | str | None:
    """A SPEC: a folder as a long volume, a dataset as its word; None for anything else."""
    from gpubox import values

    name = word.partition(":")[0]
    if name in app.config.datasets():
        return word
    source, colon, rest = word.partition(":")
    if not colon or not (rest.startswith("/") or values.is_path(source)):
        return None
    try:
        folder = values.data_folder(word, app.caller.folder)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return {
        "type": "bind",
        "source": folder.source or "",
        "target": folder.target,
        "read_only": str(folder.read_only).lower(),
    }


# --- the way of every start


def _go(request: Request) -> int:
    from gpubox import host
    from gpubox.plan import Facts, files_named, plan

    app = request.app
    facts = Facts(caller=app.caller, files=host.read_files(files_named(request.profile)))

    def planned(facts: Facts) -> Plan:
        return plan(request.profile, request.ask, facts)

    if request.dry_run:
        return _dry_run(request, planned, facts)
    host.check_folders(planned(facts).folders())
    engine = app.connect()
    return _launch(request, planned, _with_engine(facts, request.profile, engine), engine)


def _with_engine(facts: Facts, profile: Profile, engine: Engine) -> Facts:
    """The engine is asked about itself only where the plan depends on it: for GPUs."""
    wants_gpu = profile.gpus is not None and str(profile.gpus) != "none"
    return replace(facts, engine=engine.facts()) if wants_gpu else facts


def _dry_run(request: Request, planned: Callable[[Facts], Plan], facts: Facts) -> int:
    from gpubox import translate

    app, profile = request.app, request.profile
    if profile.gpus is not None and str(profile.gpus) != "none":
        try:
            facts = _with_engine(facts, profile, app.connect())
        except GpuboxError as error:
            app.screen.say(f"assumed: an engine that knows --gpus ({error.problem})")
    plan = planned(facts)
    _say_notes(request, plan)
    if plan.as_caller:
        app.screen.say(
            f"not in the line: {plan.as_caller.name}'s name, groups and home, put into the box"
            " before it starts"
        )
    if hidden := translate.hidden(plan):
        app.screen.say(f"not shown: {', '.join(hidden)}; export before you use the line")
    print(translate.docker_run_line(plan, breaks=sys.stdout.isatty()))  # noqa: T201
    return 0


def _say_notes(request: Request, plan: Plan) -> None:
    for note in plan.notes:
        request.app.screen.say(note)


def _launch(
    request: Request, planned: Callable[[Facts], Plan], facts: Facts, engine: Engine
) -> int:
    from gpubox.launch import Launch

    screen = request.app.screen
    launch = Launch(engine, planned, screen, request.ignored)
    if request.ask.kind == "jupyter":
        return _jupyter(request, launch, facts)
    if request.ask.detach:
        started = launch.detached(facts)
        _announce(request, engine, started)
        if started.plan.kind == "shell":
            screen.say(f"enter it: docker attach {started.plan.name}")
        click.echo(started.plan.name)
        return 0
    started, outcome = launch.foreground(facts, lambda begun: _announce(request, engine, begun))
    _part(request, engine, started, outcome)
    return outcome.exit_code


def _part(request: Request, engine: Engine, started: Started, outcome: Outcome) -> None:
    """The last lines: what became of the box, and how to come back to it."""
    screen, name, plan = request.app.screen, started.plan.name, started.plan
    if outcome.exit_code and not outcome.runs_on and engine.out_of_memory(started.box):
        limit = f"-m {size_text(plan.mem_limit)}" if plan.mem_limit else "the machine's memory"
        screen.warn(
            f"a process in {name} was killed: main memory (not the GPU's) ran out within {limit}"
        )
    if not sys.stderr.isatty():
        return
    if outcome.runs_on:
        screen.say(f"{name} runs on: docker attach {name} comes back, docker stop {name} ends it")
    elif not plan.rm:
        screen.say(f"{name} is kept: docker start -ai {name} comes back, docker rm {name} removes")


def _announce(request: Request, engine: Engine, started: Started) -> None:
    """What a person must know of a box that has just started: notes, and where it listens."""
    from gpubox import jupyter, translate

    if request.app.verbose:
        request.app.screen.say(translate.docker_run_line(started.plan))
    _say_notes(request, started.plan)
    for port in started.plan.ports:
        bound = engine.published(started.box, port.key)
        if bound is None:
            continue
        address, number = bound
        request.app.screen.say(f"port {port.key} of the box listens on {address}:{number}")
        caller = request.app.caller
        if line := jupyter.tunnel(caller.environ, caller.name, number):
            request.app.screen.say(f"  from your own machine: {line}")


# --- jupyter


def jupyter(app: App, parameters: dict[str, Any]) -> int:
    from gpubox.jupyter import new_token

    words = parameters["words"]
    if len(words) > 1:
        raise UsageError(
            f"jupyter takes no COMMAND, and '{words[1]}' stands behind '{words[0]}'",
            f"gpubox run {_joined(words)}",
        )
    request = _request(app, parameters, words, {}, default="default_jupyter")
    ask = replace(
        request.ask,
        kind="jupyter",
        detach=True,
        token=new_token(),
        port=parameters["port"],
        public=parameters["public"],
    )
    if parameters["public"]:
        app.screen.warn(
            "--public publishes Jupyter on all interfaces of this machine, past its firewall:"
            " Docker's ports do not ask ufw"
        )
    return _go(replace(request, ask=ask, stays=not parameters["detach"]))


def _jupyter(request: Request, launch: Launch, facts: Facts) -> int:
    """Start Jupyter, wait until it answers, print its URL; in the foreground follow its log."""
    from gpubox import jupyter
    from gpubox.plan import JUPYTER_KEY, JUPYTER_PORT

    screen, engine = request.app.screen, launch.engine
    started = launch.detached(facts)
    box, plan = started.box, started.plan
    address, port = engine.published(box, JUPYTER_KEY) or ("127.0.0.1", JUPYTER_PORT)
    if not plan.port_by_caller and port != JUPYTER_PORT:
        screen.say(f"port {JUPYTER_PORT} is taken: Jupyter is on {port}")
    screen.say(f"waiting for Jupyter in {plan.name}")
    with _stopped_on_failure(engine, box):
        _wait_for_jupyter(engine, started, address, port)
    if line := jupyter.tunnel(request.app.caller.environ, request.app.caller.name, port):
        screen.say(f"on your own machine first: {line}")
    click.echo(jupyter.url(address, port, request.ask.token or ""))
    if not request.stays:
        screen.say(f"stop it: docker stop {plan.name}")
        return 0
    return _follow(request, engine, started)


def _wait_for_jupyter(engine: Engine, started: Started, address: str, port: int) -> None:
    import time

    from gpubox import jupyter

    deadline = time.monotonic() + _JUPYTER_SECONDS
    ready = jupyter.wait_until_ready(
        address, port, alive=lambda: engine.is_running(started.box), deadline=deadline
    )
    if not ready:
        log = engine.log(started.box, lines=15).decode(errors="replace").rstrip()
        ended = "has ended" if not engine.is_running(started.box) else "does not answer"
        raise GpuboxError(f"Jupyter in {started.plan.name} {ended}; its last words:", log)
    if jupyter.lets_anybody_in(address, port):
        raise GpuboxError(
            f"Jupyter in {started.plan.name} lets anybody in without a token, so it was stopped",
            "its image or command switches the token off: leave out the option that does",
        )


@contextmanager
def _stopped_on_failure(engine: Engine, box: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        engine.stop(box)
        raise


def _follow(request: Request, engine: Engine, started: Started) -> int:
    """Follow the log until Jupyter ends; Ctrl-C stops it."""
    name = started.plan.name
    request.app.screen.say(f"Ctrl-C stops it; {name} and its files are kept")
    try:
        for part in engine.follow_log(started.box):
            sys.stderr.buffer.write(part)
            sys.stderr.buffer.flush()
    except KeyboardInterrupt:
        request.app.screen.say(f"stopping {name}")
        engine.stop(started.box)
        return 0
    return int(engine.state(started.box)["ExitCode"])


run_command = _command(
    "run",
    run,
    """A shell, or COMMAND, in a box.

    PROFILE is a name that `gpubox profiles` lists, one like cuda12.4-cudnn, or an image. Without
    it the default profile runs; with a COMMAND and no PROFILE write: gpubox run -- COMMAND.
    """,
)
mount_command = _command(
    "mount",
    mount,
    """A box with folders mounted.

    A SPEC is HOST_PATH:BOX_PATH, or the name of a dataset. It is read-only unless it ends in :rw.
    """,
)
jupyter_command = _command(
    "jupyter",
    jupyter,
    """Jupyter in a box, and the URL that works.

    It listens on 127.0.0.1 only, and asks for a token that is new for each box.
    """,
    [
        click.Option(["--port"], type=click.IntRange(1, 65535), help="Exactly this port of yours."),
        click.Option(["--public"], is_flag=True, help="Listen on all interfaces."),
    ],
)
