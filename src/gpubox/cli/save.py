"""`save`: a box as an image and a profile, to start more boxes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpubox.boxes.box import meant
from gpubox.cli.app import App, app
from gpubox.cli.confirm import agreed
from gpubox.errors import EngineError, GpuboxError, UsageError
from gpubox.figures import size_text
from gpubox.profile.layers import as_typed, config_home

if TYPE_CHECKING:
    from gpubox.boxes.box import Box
    from gpubox.boxes.saved import Saved
    from gpubox.engine.engine import Engine
    from gpubox.engine.images import LocalImage


@click.command("save")
@click.argument("word", metavar="BOX")
@click.argument("name", metavar="NAME")
@click.option("--replace", is_flag=True, help="Replace what was saved by this name before.")
@click.option("--owner", metavar="NAME", help="Whose box it is, if it is not yours.")
@click.pass_context
def save_command(
    context: click.Context, word: str, name: str, replace: bool, owner: str | None
) -> int:
    """A box as an image and a profile: gpubox run NAME starts another one like it.

    The image is USER/NAME, on this engine. It has the files of the box, all of them, so look for
    passwords in them before you pass it on. It has none of its variables: those are in the profile,
    ~/.config/gpubox/profiles.d/NAME.yaml, but for secrets, which are taken from your environment.
    What is in folders and volumes that the box mounts is not saved.

    The box may run or be stopped, and stays as it is; a running one is paused meanwhile.
    """
    from datetime import datetime

    from gpubox.boxes.save import Save
    from gpubox.boxes.saved import document, image_name, start

    this = app(context)
    caller = this.caller
    image = image_name(caller.name, name)
    file = config_home(caller.home, caller.environ) / "profiles.d" / f"{name}.yaml"
    _refuse_taken(this, name, file)
    engine = this.connect()
    if engine.podman:
        raise EngineError(
            "boxes of Podman are not saved: its images keep all of a box's variables, secrets too",
            f"podman commit {word} NAME makes one all the same",
        )
    box = meant(word, engine.boxes(stopped=True), caller.name, owner)
    made, came_from = _made(this, engine, box, image)
    if not _may_replace(this, engine, image, file, replace):
        this.screen.say(f"{box.name} is not saved")
        return 1
    for note in made.notes:
        this.screen.say(note)
    if box.state == "running":
        this.screen.say(f"{box.name} is paused while its files are copied")
    if box.kind == "jupyter" and box.alive:
        this.screen.warn(
            f"while Jupyter runs its token is in a file of {box.name}'s, and so in {image};"
            f" docker stop {box.name} first, and it is not"
        )
    text = document(made, box, name, image, f"{datetime.now():%Y-%m-%d %H:%M}")
    Save(engine, caller.name, image, file).of(box, made, text, this.screen)
    here = engine.image(image)
    own = f" ({size_text(here.size - came_from.size)} of its own)" if here else ""
    this.screen.say(f"{box.name} is saved: the image {image}{own} and {as_typed(file)}")
    this.screen.say(f"start one like it: {start(box, name)}")
    click.echo(name)
    return 0


def _refuse_taken(this: App, name: str, file: Path) -> None:
    """Raise for a name that means something already, and for a file that a person has written."""
    from gpubox.boxes.saved import MARK
    from gpubox.images.catalog import parse_name

    others = [owner for owner in this.config.owners(name) if owner != as_typed(file)]
    where = others[-1] if others else "NVIDIA's images" if parse_name(name) else ""
    if where:
        raise UsageError(f"there is a profile '{name}' already: {where}", "save by another name")
    if file.exists() and not file.read_text("utf-8").startswith(f"# {MARK}"):
        raise UsageError(f"{as_typed(file)} was not written by gpubox save", "save by another name")


def _made(this: App, engine: Engine, box: Box, image: str) -> tuple[Saved, LocalImage]:
    """What the box is saved as, and the image that it came from."""
    from gpubox.boxes.saved import saved
    from gpubox.profile.config import Config

    found = engine.inspect(box.id)
    came_from = engine.image(found["Image"])
    if came_from is None:
        raise EngineError(
            f"the image that {box.name} came from is gone from the engine",
            f"docker commit {box.name} NAME keeps its files, and all of its variables",
        )
    config = this.config
    built_in = Config(config.layers[:1], config.environ, config.cwd)
    beneath = [one.profile(image) for one in (built_in, config)]
    return saved(box, found, came_from.config, this.caller.environ, beneath), came_from


def _may_replace(this: App, engine: Engine, image: str, file: Path, replace: bool) -> bool:
    """Whether there is nothing of this name, or the person lets it be replaced."""
    from gpubox.boxes.moved import is_of_files

    former = engine.image(image)
    if former and not (is_of_files(former.labels) and former.author == this.caller.name):
        raise GpuboxError(
            f"there is an image {image}, and you have not saved it", "save by another name"
        )
    there = [*([image] if former else []), *([as_typed(file)] if file.exists() else [])]
    if not there or replace:
        return True
    both = " and ".join(there)
    return agreed(
        f"replace {both}?", f"there is {both} already", "--replace replaces what is there"
    )
