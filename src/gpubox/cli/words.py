"""The words behind `run`, `mount` and `jupyter`: which are options, PROFILE and COMMAND.

Words in, a Request out: a profile, and what belongs to this one start.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import click
import msgspec
from click.shell_completion import CompletionItem

from gpubox.checks import IGNORABLE
from gpubox.cli import candidates
from gpubox.cli.app import App, app, flags, settings_options
from gpubox.errors import UsageError

if TYPE_CHECKING:
    from gpubox.boxes.box import Box
    from gpubox.plan.facts import Ask
    from gpubox.profile.layers import Located
    from gpubox.profile.profile import Profile
    from gpubox.slurm.jobs import Job

# In a context's `meta`: whether `--` stood before the words, and the SPECs among them.
DASHES, SPECS = "gpubox.dashes", "gpubox.specs"

# Options of `docker run` that a box does not take: those without a place in a profile, and those
# that stand in published lines.
_DOCKERS_OWN = """
--add-host --attach --blkio-weight --cap-drop --cgroup-parent --cgroupns --cidfile --cpu-period
--cpu-quota --cpu-shares --cpuset-cpus --cpuset-mems --device-cgroup-rule --dns --dns-option
--dns-search --domainname --expose --group-add --health-cmd --ip --ip6 --label-file --link
--log-driver --log-opt --mac-address --memory-reservation --memory-swap --memory-swappiness
--network-alias --no-healthcheck --oom-kill-disable --oom-score-adj --pid --pids-limit --platform
--read-only --stop-signal --stop-timeout --storage-opt --sysctl --tmpfs --userns --uts
--volume-driver --volumes-from
"""
_INSTEAD = {
    **dict.fromkeys(
        _DOCKERS_OWN.split(), "docker has it: add it to the line that gpubox run --dry-run prints"
    ),
    "--privileged": "it would give the box every device of the machine; name what it needs with"
    " --device, --cap-add or --security-opt",
    "--runtime": "GPUs are asked for with --gpus all, or --gpus device=0",
    "--mount": "write it as -v SOURCE:TARGET[:ro]",
    "-P": "publish each port that you need: -p PORT",
    "--publish-all": "publish each port that you need: -p PORT",
}


class BoxCommand(click.Command):
    """A command whose words end in `[PROFILE|IMAGE] [COMMAND]...`.

    Options stand before PROFILE, for all that follows it belongs to the command in the box; `--`
    before any word says that there is no PROFILE.
    """

    allow_interspersed_args = False
    instead: ClassVar[Mapping[str, str]] = _INSTEAD

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = self.leading_options(ctx, args)
        ctx.meta[DASHES] = bool(options) and options[-1] == "--"
        return super().parse_args(ctx, args)

    def make_parser(self, ctx: click.Context) -> Any:
        """With docker's `-p=80`, too: click takes a `=` behind long options alone."""
        parser = super().make_parser(ctx)
        parser._long_opt.update(parser._short_opt)
        return parser

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """All of them; for TAB behind the options only the words, so that it offers no option."""
        params = super().get_params(ctx)
        return [it for it in params if it.name == "words"] if _is_command_next(ctx) else params

    def leading_options(self, ctx: click.Context, args: Sequence[str]) -> Sequence[str]:
        """As `options_of`; an option that is in `instead` is refused with what to do instead."""
        try:
            return self.options_of(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name not in self.instead:
                raise
            problem = f"{error.option_name} is no option here"
            raise UsageError(problem, self.instead[error.option_name]) from None

    def options_of(self, ctx: click.Context, args: Sequence[str]) -> Sequence[str]:
        """The options, with their values, that stand before the first word; and a `--`."""
        parsed, _, _ = self.make_parser(ctx).parse_args(list(args))
        words = parsed.get("words")
        return args[: len(args) - len(words)] if isinstance(words, tuple) else args


def _is_command_next(ctx: click.Context) -> bool:
    """Whether a line that is completed has its PROFILE already, or a `--` in its place."""
    words = ctx.params.get("words") if ctx.resilient_parsing else None
    if words is None:
        return False
    return bool(ctx.meta[DASHES] or words[len(ctx.meta.get(SPECS, ())) :])


def _next_word(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """PROFILE; before it `mount`'s SPECs, and behind it what COMMAND may be about."""
    here = (ctx, param, incomplete)
    if _is_command_next(ctx):
        return [] if ctx.info_name == "jupyter" else candidates.files(*here)
    if ctx.info_name != "mount":
        return candidates.profiles_or_images(*here)
    profiles = candidates.profiles_or_images(*here) if ctx.meta[SPECS] else []
    return [*candidates.specs(*here), *profiles]


def patience(wait: bool, wait_for: float | None) -> float:
    """The seconds to wait for GPUs, by --wait (without end) and --wait-for."""
    return wait_for or (math.inf if wait else 0)


def seconds(_: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """The value of an option in seconds, from 90s, 30m, 2h, 1d or 1h30m."""
    if text is None:
        return None
    if (read := duration(text)) is None:
        raise UsageError(f"{option.opts[0]} {text} is no time", "write 90s, 30m, 2h or 1h30m")
    return read


def duration(text: str) -> int | None:
    """Seconds of 90s, 30m, 2h, 1d or 1h30m; None for anything else."""
    parts = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not parts or not any(parts.groups()):
        return None
    units = (86400, 3600, 60, 1)
    return sum(int(count or 0) * unit for count, unit in zip(parts.groups(), units, strict=True))


SHARE = click.Option(["--share"], is_flag=True, help="Share its GPUs with boxes that share, too.")
WAIT = [
    click.Option(["--wait"], is_flag=True, help="While its GPUs are not free, wait for them."),
    click.Option(
        ["--wait-for"], callback=seconds, metavar="TIME", help="Wait, but no longer than 2h, say."
    ),
]
OWN: Sequence[click.Parameter] = [
    click.Option(["-d", "--detach"], is_flag=True, help="Start it and return; print its name."),
    click.Option(["-i", "--interactive"], is_flag=True, help="Forward standard input."),
    click.Option(["-t", "--tty"], is_flag=True, default=None, help="Give the box a terminal."),
    click.Option(["--name"], metavar="NAME", help="The box's name (PROFILE-USER, unless said)."),
    SHARE,
    *WAIT,
    click.Option(["--dry-run"], is_flag=True, help="Print the docker run line; change nothing."),
    click.Option(
        ["--ignore"],
        type=click.Choice(IGNORABLE),
        metavar="CHECK",
        multiple=True,
        help=f"Go on past this one check: {', '.join(IGNORABLE)}.",
    ),
]


def command(
    name: str,
    callback: Callable[..., int],
    help: str,
    extra: Sequence[click.Parameter] = (),
    kind: type[BoxCommand] = BoxCommand,
    own: Sequence[click.Parameter] = OWN,
) -> BoxCommand:
    def call(**parameters: Any) -> int:
        return callback(app(click.get_current_context()), parameters)

    return kind(
        name,
        callback=call,
        help=help,
        params=[
            click.Argument(
                ["words"],
                nargs=-1,
                type=click.UNPROCESSED,
                metavar=_WORDS.get(name, _WORDS["run"]),
                shell_complete=_next_word,
            ),
            *extra,
            *own,
            *settings_options(),
        ],
    )


_WORDS = {
    "run": "[PROFILE|IMAGE] [COMMAND]...",
    "mount": "SPEC... [PROFILE|IMAGE] [COMMAND]...",
    "jupyter": "[PROFILE|IMAGE]",
    "submit": "[PROFILE|IMAGE] [COMMAND]...",
}


class Request(msgspec.Struct, frozen=True):
    """What was typed, read: a profile and what belongs to this start."""

    app: App
    profile: Profile
    ask: Ask
    ignored: frozenset[str]
    dry_run: bool
    patience: float = 0  # seconds, while others have its GPUs
    job: Job | None = None
    data: frozenset[str] = frozenset()  # targets of `mount`'s SPECs: judged as data, not as -v

    def mine(self, there: Iterable[Box], kind: str) -> list[Box]:
        """Of the boxes there are, the caller's of this profile, this folder and this kind."""
        caller = self.app.caller
        wanted = (kind, caller.name, self.profile.name, str(caller.folder))
        return [it for it in there if (it.kind, it.owner, it.profile, it.folder) == wanted]


def request(
    app: App,
    parameters: dict[str, Any],
    words: Sequence[str],
    lists: Mapping[str, Sequence[Any]],
    default: str = "default",
    beneath: Mapping[str, str] | None = None,
    job: Job | None = None,
) -> Request:
    """What the words of a command mean, in a Slurm `job` too.

    `lists` are values that the words have for keys with several, before those of flags. `default`
    is the key that names the profile where no PROFILE is typed; `beneath` lies under all profiles.
    """
    from gpubox.plan.facts import Ask

    dashes = bool(click.get_current_context().meta.get(DASHES))
    word, command = _split(app, words, dashes, default)
    if job and parameters["detach"]:
        raise UsageError(
            f"-d in Slurm's job {job.id}: the job would end here, and its box would not",
            "leave -d out; what is in the background is the job: gpubox submit",
        )
    lowest = {**(job.beneath if job else {}), **(beneath or {})}
    return Request(
        app=app,
        profile=app.config.profile(word, *_layers(app, parameters, lists, job), beneath=lowest),
        ask=Ask(
            command=tuple(command),
            name=parameters.get("name"),
            detach=parameters.get("detach", False),
            interactive=parameters.get("interactive", False),
            tty=parameters.get("tty"),
            share=parameters.get("share", False),
        ),
        ignored=frozenset(parameters.get("ignore", ())),
        dry_run=parameters.get("dry_run", False),
        patience=patience(parameters.get("wait", False), parameters.get("wait_for")),
        job=job,
    )


def _layers(
    app: App, parameters: dict[str, Any], lists: Mapping[str, Sequence[Any]], job: Job | None
) -> Iterator[Mapping[str, Located]]:
    """What lies over a profile: NV_GPU, then flags, then what holds for every job."""
    from gpubox.profile.layers import from_flags
    from gpubox.slurm import jobs

    folder, settings = app.caller.folder, flags(parameters)
    for key, specs in lists.items():
        settings[key] = [*specs, *settings.get(key, ())]
    if gpus := app.caller.environ.get("NV_GPU"):
        yield from_flags({"gpus": gpus.split(",")}, folder, "NV_GPU")
    yield from_flags(settings, folder)
    if job:
        yield from_flags(jobs.ALWAYS, folder)


def _split(app: App, words: Sequence[str], dashes: bool, default: str) -> tuple[str, Sequence[str]]:
    """PROFILE and COMMAND among the words; without a PROFILE the default one."""
    if not words or dashes:
        return app.config.default(default), words
    word, command = words[0], words[1:]
    context = click.get_current_context()
    path = shlex.join([*context.command_path.split(), *context.meta.get(SPECS, ())])
    if not app.config.knows(word):
        near = app.config.nearest(word)
        as_command = f"as a command: {path} -- {shlex.join(words)}"
        hint = f"{near.rstrip('?')}, or {as_command}" if near.startswith("did") else as_command
        raise UsageError(f"no profile '{word}'", hint)
    if command and command[0] == "--":
        return word, command[1:]
    if command and command[0].startswith("-"):
        raise UsageError(
            f"options stand before the profile, and '{command[0]}' stands behind '{word}'",
            f"{path} {shlex.join(_corrected(word, command))}",
        )
    return word, command


def _corrected(word: str, command: Sequence[str]) -> list[str]:
    """The words with the options first; behind `--` if they are no options of gpubox's."""
    context = click.get_current_context()
    assert isinstance(context.command, BoxCommand)
    try:
        options = list(context.command.options_of(context, command))
    except click.NoSuchOption:
        return [word, "--", *command]  # then it is for the program in the image
    except click.UsageError:
        options = list(command)
    return [*options, word, *command[len(options) :]]
