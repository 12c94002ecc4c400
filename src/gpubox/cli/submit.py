"""`submit`: what `run` would start here becomes a job of Slurm's, which starts it there."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import click
from msgspec.structs import replace

from gpubox.cli.app import App
from gpubox.cli.start import known, planner
from gpubox.cli.words import OWN, BoxCommand, Request, command, request
from gpubox.errors import ProfileError
from gpubox.values import NO_GPUS

_OWN = ("print", "time", "partition", "array", "sbatch")
# Options of `run` that mean nothing in a job.
_NOT_IN_A_JOB = ("detach", "interactive", "tty", "wait", "wait_for", "dry_run")


class JobCommand(BoxCommand):
    """Explains options of a box at a terminal by what a job has instead."""

    instead: ClassVar[Mapping[str, str]] = {
        **BoxCommand.instead,
        **dict.fromkeys(("-d", "--detach"), "a job is in the background by itself"),
        **dict.fromkeys(("--wait", "--wait-for"), "a job waits in Slurm's queue by itself"),
        **dict.fromkeys(
            ("-i", "-t", "--interactive", "--tty"),
            "a job has no terminal; this has: srun --gres=gpu:1 --pty gpubox run ...",
        ),
        "--dry-run": "--print shows the script",
    }


def submit(app: App, parameters: dict[str, Any]) -> int:
    from gpubox.plan import plan
    from gpubox.slurm import batch

    options = [
        f"--{name}={shlex.quote(parameters[name])}"
        for name in ("time", "partition", "array")
        if parameters[name] is not None
    ]
    options += parameters["sbatch"]
    lists = {"slurm": options} if options else {}
    asked = request(app, parameters, parameters["words"], lists)
    # as far as it can be made here: what it refuses, it would refuse in the job
    planned = planner(asked)(replace(known(asked), printed=True))
    name = plan.safe(asked.profile.name)
    directives = batch.directives(name, _gpus(asked), asked.profile.slurm)
    script = batch.script(directives, [*_program(app), *_words(asked)])
    if parameters["print"]:
        sys.stdout.buffer.write(os.fsencode(script))
        return 0
    from gpubox.slurm import commands

    if planned.kind == "shell" and not planned.entrypoint:
        app.screen.warn("no COMMAND: a job has no terminal, in which a shell ends at once")
    job, said = commands.submit(script)
    if said:
        app.screen.warn(said)
    app.screen.say(f"its output: {batch.log(directives, job)}")
    click.echo(job)
    return 0


def _gpus(request: Request) -> int:
    """How many Slurm is asked for."""
    from gpubox.slurm import batch

    profile = request.profile
    asked = profile.gpus if profile.gpus is not None else NO_GPUS
    if asked.count or asked == NO_GPUS or batch.asks_for_gpus(profile.slurm):
        return asked.count
    problem = "how many that is Slurm must be told" if asked.all else "which ones Slurm chooses"
    raise ProfileError(
        profile.where("gpus"),
        "gpus",
        f"'{asked}': {problem}",
        f"--gpus {len(asked.ids) or 1}, or what sbatch knows: --sbatch --gres=gpu:a100:2",
    )


def _program(app: App) -> Iterator[str]:
    """The words that call this gpubox with its global options, whatever the job's PATH is."""
    program = Path(sys.argv[0]).absolute()
    yield from [sys.executable, "-m", "gpubox"] if program.suffix == ".py" else [str(program)]
    if app.file:
        yield f"--file={Path(app.file).absolute()}"
    if app.verbose:
        yield "--verbose"


def _words(request: Request) -> Iterator[str]:
    yield "run"
    yield from _options()
    yield request.profile.name
    if request.ask.command:
        yield from ("--", *request.ask.command)


def _options() -> Iterator[str]:
    """The options of `run` that were typed, each with its value in one word."""
    context = click.get_current_context()
    for option in context.command.params:
        typed = (
            context.get_parameter_source(str(option.name)) is click.core.ParameterSource.COMMANDLINE
        )
        if not typed or not isinstance(option, click.Option) or option.name in _OWN:
            continue
        value = context.params[str(option.name)]
        if option.is_flag:
            yield _long(option.opts if value else option.secondary_opts)
            continue
        for each in value if option.multiple else [value]:
            yield f"{_long(option.opts)}={each}"


def _long(names: list[str]) -> str:
    return next(name for name in names if name.startswith("--"))


submit_command = command(
    "submit",
    submit,
    """The same box as a job of Slurm's.

    What `gpubox run` would start here Slurm starts where and when there is room, on GPUs that it
    chooses. Prints the job's number; squeue shows the job, scancel ends it and its box. Options
    for sbatch that hold for every job of a profile are its key `slurm`.
    """,
    [
        click.Option(["--print"], is_flag=True, help="Show the script for sbatch; submit nothing."),
        click.Option(["--time"], metavar="TIME", help="The longest that it may take: 2:00:00."),
        click.Option(["--partition"], metavar="NAME", help="The partition that it waits in."),
        click.Option(["--array"], metavar="LIST", help="Many jobs of one: 0-9, 0-99%4."),
        click.Option(
            ["--sbatch"], metavar="OPT", multiple=True, help="Any option of sbatch: --nice=10."
        ),
    ],
    kind=JobCommand,
    own=[option for option in OWN if option.name not in _NOT_IN_A_JOB],
)
