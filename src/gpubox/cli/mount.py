"""`mount`: a box with folders mounted, that are named before PROFILE."""

from __future__ import annotations

import shlex
from typing import Any

import click
from msgspec.structs import replace

from gpubox.cli.app import App, app
from gpubox.cli.run import attend
from gpubox.cli.start import go
from gpubox.cli.words import DASHES, SPECS, BoxCommand, command, request
from gpubox.errors import UsageError, did_you_mean
from gpubox.values import data_folder, is_path


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


mount_command = command(
    "mount",
    mount,
    """A box with folders mounted.

    A SPEC is HOST_PATH:BOX_PATH, or the name of a dataset. It is read-only unless it ends in :rw.
    """,
    kind=MountCommand,
)
