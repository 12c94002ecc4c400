"""`build`: a deleted image of NVIDIA's is made again on this engine, from NVIDIA's packages."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from gpubox.checks import DISK
from gpubox.cli import candidates
from gpubox.cli.app import App, app
from gpubox.errors import EngineError, UsageError
from gpubox.images import recipe

if TYPE_CHECKING:
    from gpubox.engine.engine import Engine
    from gpubox.images.recipe import Recipe


@click.command("build")
@click.argument("word", metavar="PROFILE|IMAGE", shell_complete=candidates.profiles)
@click.option("--print", "show", is_flag=True, help="Print the Dockerfile; needs no engine.")
@click.option(
    "--base",
    metavar="IMAGE",
    shell_complete=candidates.images,
    help="Start from this image instead of Ubuntu's.",
)
@click.option(
    "--apt-mirror",
    metavar="URL",
    help=f"Take the packages from here instead of {recipe.NVIDIA}, and the keys too.",
)
@click.option("--network", metavar="NETWORK", help="The network of the build, as docker build's.")
@click.option("--no-cache", is_flag=True, help="Build it anew, even if it is here.")
@click.option(
    "--ignore",
    type=click.Choice([DISK]),
    metavar="CHECK",
    multiple=True,
    help=f"Go on past this one check: {DISK}.",
)
@click.pass_context
def build_command(
    context: click.Context,
    word: str,
    show: bool,
    base: str | None,
    apt_mirror: str | None,
    network: str | None,
    no_cache: bool,
    ignore: tuple[str, ...],
) -> None:
    """Make a deleted nvidia/cuda image again, from NVIDIA's packages.

    It gets the name that the profile has for it. For your own use: NVIDIA's licence does not let
    you push it to others.
    """
    from gpubox.cli import preflight
    from gpubox.screen.signals import stoppable

    this = app(context)
    by = "" if show else this.caller.name
    wanted = recipe.recipe(_image(this, word), base, apt_mirror, by)
    if show:
        _say_unchecked(this, wanted)
        click.echo(wanted.dockerfile, nl=False)
        return
    engine = this.connect()
    if _is_here(this, engine, wanted.image, no_cache):
        return
    if engine.podman:
        raise EngineError(
            f"{wanted.image} cannot be built over Podman's service, whose builder is another one",
            f"gpubox build --print {word} | podman build -t {wanted.image} -",
        )
    recipe.check_machine(engine.architecture())
    preflight.report(this, preflight.of_room(wanted.image, engine.facts()), frozenset(ignore))
    _say_unchecked(this, wanted)
    _get_base(this, engine, wanted)
    titles = [step.title for step in wanted.steps]
    build = engine.build(wanted.dockerfile, wanted.image, network=network, fresh=no_cache)
    with stoppable(), closing(build) as builds:
        this.screen.building(wanted.image, titles, builds)
    this.screen.say(f"run it: gpubox run {word}")


def _image(app: App, word: str) -> str:
    if not app.config.knows(word):
        raise UsageError(f"no profile '{word}'", app.config.nearest(word))
    return app.image_for_here(app.config.profile(word))[0]


def _say_unchecked(app: App, wanted: Recipe) -> None:
    if not wanted.is_checked:
        app.screen.say(f"not checked to be NVIDIA's: the signing keys, from {wanted.mirror}")


def _is_here(app: App, engine: Engine, image: str, fresh: bool) -> bool:
    """Whether there is nothing to build. An image that nobody can pull again is never replaced."""
    here = engine.image(image)
    if here is None:
        return False
    origin = here.labels.get(recipe.BUILT_FROM)
    if fresh and origin is None:
        raise EngineError(
            f"{image} is here and was not built by gpubox: it may be NVIDIA's own, which nobody"
            " can pull again",
            f"keep it under another name first: docker tag {image} NAME && docker rmi {image}",
        )
    if fresh:
        return False
    built = f", built from {origin}; --no-cache builds it anew" if origin else ""
    app.screen.say(f"{image} is here already{built}")
    return True


def _get_base(app: App, engine: Engine, wanted: Recipe) -> None:
    from gpubox.images import pull

    if engine.image(wanted.base):
        return
    try:
        pull.get(engine, wanted.base, app.config.registry(), app.screen)
    except EngineError as refusal:
        hint = "--base IMAGE starts from another one"
        raise EngineError(refusal.problem, f"{refusal.hint}; {hint}".lstrip("; ")) from refusal
