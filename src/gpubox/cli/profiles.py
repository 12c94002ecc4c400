"""`profiles`, `init`, `schema`: what may be run, where it was said, and a file to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import gpubox
from gpubox.cli import candidates
from gpubox.cli.app import App, app
from gpubox.errors import GpuboxError, UsageError, why
from gpubox.profile.layers import PROJECT_FILE
from gpubox.screen import render

if TYPE_CHECKING:
    from gpubox.profile.profile import Profile
    from gpubox.profile.settings import Setting


@click.command("profiles")
@click.argument("name", required=False, shell_complete=candidates.profiles)
@click.option("--json", "as_json", is_flag=True, help="A list of objects.")
@click.pass_context
def profiles_command(context: click.Context, name: str | None, as_json: bool) -> int:
    """The profiles that there are; with NAME all that one says, and which file says it."""
    this = app(context)
    if name is None:
        return _list(this, as_json)
    rows = _settings(this.config.profile(name))
    if as_json:
        render.print_json([dict(zip(("key", "value", "from"), row, strict=True)) for row in rows])
    else:
        render.print_table(("SETTING", "VALUE", "FROM"), rows)
    return 0


def _list(this: App, as_json: bool) -> int:
    found, broken = [], []
    for name in this.config.names():
        try:
            profile = this.config.profile(name)
        except GpuboxError as error:
            broken.append(error)
            continue
        found.append(
            {
                "name": name,
                "image": this.image_for_here(profile)[0],
                "from": this.config.owners(name)[-1],
                "description": profile.description,
                "default": name == this.config.default(),
            }
        )
    if as_json:
        render.print_json(found)
    else:
        render.print_table(("NAME", "IMAGE", "FROM", "DESCRIPTION"), [_row(item) for item in found])
    for mistake in {error.problem: error for error in broken}.values():
        this.screen.fail(mistake)
    return 2 if broken else 0


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    mark = " (default)" if item["default"] else ""
    return (item["name"] + mark, item["image"], item["from"], item["description"])


def _settings(profile: Profile) -> list[tuple[str, str, str]]:
    """Each value of a profile with where it was said, the image first."""
    from gpubox.profile.settings import SETTINGS

    rows = [("image", profile.image, profile.image_where)]
    for setting in SETTINGS:
        if setting.key not in ("image", "extends"):
            for name, item in profile.said(setting.key).items():
                rows.append((setting.key, _text(setting, name, item.value), item.where))
    return rows


def _text(setting: Setting, name: str, value: Any) -> str:
    from gpubox.plan.environment import is_secret

    if setting.key == "environment" and is_secret(name):
        return name
    if setting.key in ("environment", "labels"):
        return name if value is None else f"{name}={value}"
    written = setting.write(value)
    return json.dumps(written) if isinstance(written, bool | dict) else str(written)


SCHEMA_FILE = ".gpubox-schema.json"  # beside the file that names it, so that it goes into git, too


@click.command("init")
@click.pass_context
def init_command(context: click.Context) -> None:
    """Write a commented gpubox.yaml into this folder, never over one that is there.

    Editors complete and check it by the .gpubox-schema.json that is written beside it.
    """
    from gpubox.profile import schema

    starter = (Path(gpubox.__file__).parent / "profile/starter.yaml").read_text("utf-8")
    try:
        with Path(PROJECT_FILE).open("x", encoding="utf-8") as file:
            file.write(starter)
        Path(SCHEMA_FILE).write_text(schema.text(), "utf-8")
    except FileExistsError:
        hint = f"edit it, or: rm {PROJECT_FILE}"
        raise UsageError(f"{PROJECT_FILE} is here already", hint) from None
    except OSError as error:
        place = error.filename or PROJECT_FILE
        raise GpuboxError(f"{place}: {why(error)}") from None
    app(context).screen.say(
        f"wrote {PROJECT_FILE}, and {SCHEMA_FILE} for editors; gpubox profiles shows what it adds"
    )


@click.command("schema")
def schema_command() -> None:
    """The JSON Schema of gpubox.yaml.

    `gpubox init` writes it for editors; after an update: gpubox schema > .gpubox-schema.json
    """
    from gpubox.profile import schema

    click.echo(schema.text(), nl=False)
