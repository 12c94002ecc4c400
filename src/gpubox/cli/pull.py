"""`pull`: images got before they are needed, several at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from gpubox.checks import OF_IMAGES
from gpubox.cli import candidates
from gpubox.cli.app import App, app
from gpubox.errors import GpuboxError, UsageError
from gpubox.screen.render import Screen

if TYPE_CHECKING:
    from gpubox.engine.engine import Engine


@click.command("pull")
@click.argument(
    "words",
    nargs=-1,
    metavar="[PROFILE|IMAGE]...",
    shell_complete=candidates.profiles_or_images,
)
@click.option("-q", "--quiet", is_flag=True, help="Print only the names of the images.")
@click.option(
    "--ignore",
    type=click.Choice(OF_IMAGES),
    metavar="CHECK",
    multiple=True,
    help=f"Go on past this one check: {', '.join(OF_IMAGES)}.",
)
@click.pass_context
def pull_command(
    context: click.Context, words: tuple[str, ...], quiet: bool, ignore: tuple[str, ...]
) -> int:
    """Get images, or what is newer in them, before they are needed.

    PROFILE is a name that `gpubox profiles` lists, one like cuda12.4-cudnn, or an image; without
    any, the default profile. Several come at once.
    """
    this = app(context)
    chosen, mistakes = _images(this, words or (this.config.default(),))
    for mistake in mistakes:
        this.screen.fail(mistake)
    if mistakes:
        return 2
    from gpubox.images import pull

    engine, registry = this.connect(), this.config.registry()
    wanted = pull.distinct(image for image, _ in chosen)
    for why in dict.fromkeys(why for _, why in chosen if why and not quiet):
        this.screen.say(why)
    possible = [image for image in wanted if _passes(this, engine, image, frozenset(ignore))]
    screen = Screen(quiet=True) if quiet else this.screen
    here = pull.get_all(engine, [pull.order(image, registry) for image in possible], screen)
    if quiet:
        click.echo("".join(f"{image}\n" for image in here), nl=False)
    return 0 if len(here) == len(wanted) else 1


def _passes(this: App, engine: Engine, image: str, ignored: frozenset[str]) -> bool:
    """Whether nothing speaks against pulling an image; what does is told."""
    from gpubox.cli import preflight

    try:
        found = preflight.of_pull(this, image, this.config.registry(), engine)
        preflight.report(this, found, ignored)
    except GpuboxError as error:
        this.screen.fail(error)
        return False
    return True


def _images(this: App, words: Sequence[str]) -> tuple[list[tuple[str, str]], list[GpuboxError]]:
    """The image of each word with its reason, and what is wrong with the words that have none."""
    images, mistakes = [], []
    for word in words:
        try:
            profile = this.config.profile(word)
            if profile.pull_policy == "never":
                raise UsageError(
                    f"{profile.image} is never pulled: {profile.where('pull_policy')} says so"
                )
            images.append(this.image_for_here(profile))
        except GpuboxError as error:
            mistakes.append(error)
    return images, mistakes
