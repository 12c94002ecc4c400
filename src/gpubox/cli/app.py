"""What all commands share: the group with its sections, the caller, the configuration, the engine.

Each is made when it is first asked for, so that `--help` costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem
from msgspec.structs import replace

from gpubox.errors import GpuboxError, UsageError, did_you_mean
from gpubox.screen.render import Screen

if TYPE_CHECKING:
    from gpubox.boxes.box import Box
    from gpubox.engine.contexts import Endpoint
    from gpubox.engine.engine import Engine
    from gpubox.gpus.machine import Machine
    from gpubox.gpus.race import Race
    from gpubox.plan.facts import Caller, Facts
    from gpubox.profile.config import Config
    from gpubox.profile.layers import Read
    from gpubox.profile.profile import Profile
    from gpubox.slurm.jobs import Job

SECTIONS: dict[str, dict[str, str]] = {
    "Start": {"run": "run", "jupyter": "jupyter", "mount": "mount"},
    "Your boxes": {
        "ps": "ps",
        "enter": "enter",
        "logs": "logs",
        "stop": "lifecycle",
        "start": "lifecycle",
        "restart": "lifecycle",
        "rm": "lifecycle",
        "save": "save",
        "clean": "clean",
    },
    "GPUs": {"gpus": "gpus", "move": "move"},
    "Images": {"images": "images", "pull": "pull", "build": "build"},
    "Settings": {
        "profiles": "profiles",
        "datasets": "datasets",
        "init": "profiles",
        "completion": "completion",
        "schema": "profiles",
    },
    "Trouble": {"doctor": "doctor"},
    "Elsewhere": {"submit": "submit", "export": "export"},
}

HELP = {  # the first words of each command's own help, for which all would have to be loaded
    "run": "A shell, or COMMAND, in a box.",
    "jupyter": "Jupyter in a box, and the URL that works.",
    "mount": "A box with folders mounted.",
    "ps": "The boxes that run on this engine.",
    "enter": "Come back to a box.",
    "logs": "What boxes have said.",
    "stop": "Stop boxes; they and their files are kept.",
    "start": "Start stopped boxes again in the background.",
    "restart": "Stop boxes and start them again.",
    "rm": "Remove stopped boxes.",
    "save": "A box as an image and a profile.",
    "clean": "Remove your stopped boxes, after showing what they take.",
    "gpus": "Who uses which GPU, and which is free.",
    "move": "The same box on other GPUs.",
    "images": "Which CUDA images there are, and which run here.",
    "pull": "Get images, or what is newer in them, before they are needed.",
    "build": "Make a deleted nvidia/cuda image again, from NVIDIA's packages.",
    "profiles": "The profiles that there are; with NAME all that one says.",
    "datasets": "The folders that have a name, and whether you may read them.",
    "init": "Write a commented gpubox.yaml into this folder.",
    "completion": "Print the script by which TAB completes gpubox's words.",
    "schema": "The JSON Schema of gpubox.yaml.",
    "doctor": "What is wrong on this machine, and what to do about it.",
    "submit": "The same box as a job of Slurm's.",
    "export": "The same box as a Compose file, or as a devcontainer.json.",
}

REFLEXES = {
    "exec": "gpubox enter",
    "attach": "gpubox enter",
    "ls": "gpubox ps",
    "list": "gpubox ps",
    "kill": "gpubox stop -t 0",
    "nvidia-smi": "gpubox gpus",
    "top": "gpubox gpus --watch",
    "commit": "gpubox save",
    "prune": "gpubox clean",
    "config": "gpubox profiles",
    "up": "gpubox run",
    "down": "gpubox clean",
    "help": "gpubox --help",
    "version": "gpubox --version",
    **{word: f"docker {word}" for word in ("cp", "inspect", "login", "rmi", "stats")},
    "sbatch": "gpubox submit",
}


class App:
    """One call of the program."""

    def __init__(self, *, file: str | None, verbose: bool) -> None:
        self.file, self.verbose = file, verbose
        self.screen = Screen()

    @cached_property
    def caller(self) -> Caller:
        from gpubox.host.caller import caller

        return caller()

    @cached_property
    def config(self) -> Config:
        from gpubox.profile.config import Config

        files = self.files()
        if files.errors:
            raise files.errors[0]
        for warning in files.warnings:
            self.screen.warn(warning)
        return Config(tuple(files.layers), self.caller.environ, self.caller.folder)

    def files(self) -> Read:
        """What all files say that apply to the caller, and what is wrong with some."""
        from gpubox.profile.layers import read_all

        return read_all(
            cwd=self.caller.folder,
            home=self.caller.home,
            environ=self.caller.environ,
            uid=self.caller.uid,
            file=Path(self.file).expanduser() if self.file else None,
        )

    @cached_property
    def job(self) -> Job | None:
        """The Slurm job that this is called in; an error if the engine is not on this machine."""
        from gpubox.slurm import commands

        job = commands.job(self.caller.environ)
        if job and not self.endpoint.local:
            raise GpuboxError(
                f"{self.endpoint.source} names {self.endpoint.host}, and the GPUs of job {job.id}"
                f" are {job.node}'s",
                "unset it in the job: the engine of the node itself is the right one",
            )
        return job

    @cached_property
    def endpoint(self) -> Endpoint:
        from gpubox.engine.contexts import endpoint

        return endpoint(self.caller.environ, self.caller.home)

    @property
    def machine(self) -> Machine | None:
        """This machine's driver and GPUs, if they are what the engine's boxes get."""
        return self._machine_or_why[0]

    @property
    def unseen(self) -> str:
        """Why there is no `machine`."""
        return self._machine_or_why[1]

    @cached_property
    def _machine_or_why(self) -> tuple[Machine | None, str]:
        from gpubox.gpus import nvml

        try:
            if elsewhere := self.endpoint.elsewhere:
                return None, elsewhere
            return nvml.machine(), ""
        except GpuboxError as error:
            return None, error.problem

    def image_for_here(self, profile: Profile) -> tuple[str, str]:
        """Of the images that a profile leaves open, the one for this machine's GPUs; and why."""
        from gpubox.plan.plan import image_for

        if len(profile.images) == 1:
            return image_for(profile, None, (), "")
        machine = self.machine
        return image_for(profile, machine, machine.sound if machine else (), self.unseen)

    def connect(self, *, briefly: bool = False) -> Engine:
        """The engine; `briefly` waits for no more than 2 s, where it can be done without."""
        from gpubox.engine.engine import connect

        return connect(self.endpoint, 2) if briefly else connect(self.endpoint)

    def race(self, engine: Engine, patience: float = 0) -> Race:
        """What wins GPUs from others; for those that are held it waits up to `patience` seconds."""
        from gpubox.gpus.race import Race
        from gpubox.gpus.survey import Survey

        survey = Survey(engine, self.caller.name)
        return Race(engine, survey, self.screen, time.monotonic() + patience)

    def surveyed(self, race: Race, boxes: Sequence[Box] | None = None) -> Facts:
        """The facts with who has which GPU now; without, if none of `boxes` claims any."""
        from gpubox.plan.facts import Facts

        facts = Facts(caller=self.caller)
        if boxes is not None and not any(box.claims_gpus for box in boxes):
            return facts
        with self.gpus_awake():
            return race.survey.of(replace(facts, machine=self.machine, unseen=self.unseen))

    @contextmanager
    def gpus_awake(self, wanted: bool = True) -> Iterator[None]:
        """For several looks at this machine's GPUs: without it each look would wake them up anew,
        which can take seconds."""
        with ExitStack() as held:
            with suppress(GpuboxError):  # of the endpoint: whoever asks the engine will say so
                if wanted and self.endpoint.local:
                    from gpubox.gpus import nvml

                    held.enter_context(nvml.awake())
            yield

    def refuse_past_slurm(self, hint: str) -> None:
        """Raise where Slurm gives out all GPUs: one taken without it may be somebody's."""
        if required := self.config.slurm_required():
            raise GpuboxError(f"GPUs are given by Slurm here ({required})", hint)

    def refuse_to_start_past_slurm(self, boxes: Sequence[Box]) -> None:
        """Raise so for boxes that start again: they would run outside of any job."""
        for box in boxes:
            if box.claims_gpus:
                kept = f"gpubox save {box.name} NAME keeps its files"
                self.refuse_past_slurm(f"{kept}, and gpubox submit NAME takes them to a GPU")

    def connect_or_why(self) -> Engine | GpuboxError:
        """The engine, or the error that says why there is none."""
        try:
            return self.connect()
        except GpuboxError as error:
            return error


class Commands(click.Group):
    """Commands by section, each loaded when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        for section in SECTIONS.values():
            if name in section:
                found: click.Command = getattr(
                    import_module(f"gpubox.cli.{section[name]}"), f"{name}_command"
                )
                return found
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in REFLEXES and self.get_command(ctx, name) is None:
            raise UsageError(f"no command '{name}'", f"here it is: {REFLEXES[name]}")
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            raise UsageError(f"no command '{name}'", self._nearest(ctx, name))
        return super().resolve_command(ctx, args)

    def _nearest(self, ctx: click.Context, name: str) -> str:
        if name in app(ctx).config.names():
            return f"it is a profile: gpubox run {name}"
        return did_you_mean(name, self.list_commands(ctx))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # click would load every command for its help
        names = [CompletionItem(name, help=HELP[name]) for name in self.list_commands(ctx)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, HELP[name]) for name in section])


def app(context: click.Context) -> App:
    """The App of this call; made here if a line is only completed, for then nothing is called."""
    root = context.find_root()
    root.obj = root.obj or App(**root.params)
    assert isinstance(root.obj, App)
    return root.obj


def settings_options() -> Iterator[click.Option]:
    """An option for every setting that has a flag, made from the one table."""
    from gpubox.cli.candidates import OF_SETTINGS
    from gpubox.profile.settings import SETTINGS

    for setting in SETTINGS:
        if setting.flag:
            names = (setting.key, setting.flag, setting.also)
            yield click.Option(
                [name for name in names if name],
                help=_sentence(setting.help),
                shell_complete=OF_SETTINGS.get(setting.key),
                **_kind(setting),
            )


def _kind(setting: Any) -> dict[str, Any]:
    if setting.written is bool:
        return {"is_flag": True, "default": None}
    if setting.merge == "by key":
        return {"multiple": True, "metavar": setting.metavar}
    return {"metavar": setting.metavar}


def _sentence(text: str) -> str:
    # a help that begins with a list of values keeps their spelling
    first = text.split()[0]
    return (text if first.endswith(",") else text[:1].upper() + text[1:]) + "."


def flags(parameters: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given by flags, as texts, which the parser of profiles reads."""
    from gpubox.profile.settings import SETTINGS

    by_flag = {setting.key: parameters.get(setting.key) for setting in SETTINGS if setting.flag}
    return {
        key: str(value).lower() if isinstance(value, bool) else value
        for key, value in by_flag.items()
        if value is not None and value != ()
    }
