"""`images`: which CUDA images there are, which are here, and which this machine can run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click
from msgspec.structs import asdict

from gpubox.cli import candidates
from gpubox.cli.app import App, app
from gpubox.errors import GpuboxError, UsageError
from gpubox.figures import size_text
from gpubox.screen import render

if TYPE_CHECKING:
    from gpubox.images.offers import Here, Offer
    from gpubox.images.registries import Remote


_LONGEST = 44  # characters: NVIDIA's own names, which are there to be copied


@click.command("images")
@click.argument("filter", nargs=-1)
@click.option("-a", "--all", "everything", is_flag=True, help="Every tag that there is or was.")
@click.option(
    "--remote",
    metavar="TAG",
    shell_complete=candidates.profiles_or_images,
    help="Ask the registry now: is it there, how large is it?",
)
@click.option("--json", "as_json", is_flag=True, help="A list of objects.")
@click.pass_context
def images_command(
    context: click.Context,
    filter: tuple[str, ...],
    everything: bool,
    remote: str | None,
    as_json: bool,
) -> int:
    """Which CUDA images there are, and which run here.

    They are those on the engine, and one of NVIDIA's for each CUDA. With FILTER every tag of
    NVIDIA's that fits all its words: cuda12.4, cudnn8, ubuntu22.04, runtime, live, deleted, local,
    or any part of an image.
    """
    from gpubox.images import offers

    this = app(context)
    if remote is not None:
        if filter or everything:
            raise UsageError("--remote asks for one TAG, and not with a FILTER or --all")
        return _ask(this, remote, as_json)
    here = _here(this)
    listing = offers.all_of if everything or filter else offers.choices
    found = offers.matching(listing(here, this.machine), filter)
    if as_json:
        render.print_json([asdict(offer) for offer in found])
    elif found:
        _show(this, found, here is not None)
    else:
        this.screen.say(f"no image fits '{' '.join(filter)}'; gpubox images --all lists them")
    return 0


# --- the list


def _show(this: App, found: Sequence[Offer], engine_answers: bool) -> None:
    rows = [_row(offer) for offer in found]
    told = {
        "CUDA": not all(offer.flavor for offer in found),  # else the tag says it
        "LOCAL": engine_answers,
        "RUNS HERE": this.machine is not None,
        "WHY": any(row["WHY"] for row in rows),
    }
    columns = [column for column in rows[0] if told.get(column, True)]
    spare = [column for column in ("CUDA", "CUDNN", "WHY", "LOCAL") if column in columns]
    cells = [[row[column] for column in columns] for row in rows]
    left_out = render.print_table(columns, cells, spare, _LONGEST)
    if "WHY" in left_out:
        for line in _why(found):
            this.screen.say(line)
    this.screen.say(_footing(this, found))
    if left_out:
        this.screen.say(render.wider(left_out))


def _here(this: App) -> Mapping[str, Here] | None:
    """The images that the engine has; None where none answers."""
    from gpubox.images.offers import Here

    try:
        engine = this.connect()
        images = {name: engine.image(name) for name in engine.images()}
    except GpuboxError as error:
        this.screen.say(f"which are here is not known: {error.problem}")
        return None
    return {name: Here(it.size, it.variables) for name, it in images.items() if it}


def _row(offer: Offer) -> dict[str, str]:
    deleted = f"deleted {offer.when}".rstrip()
    in_part = offer.reason if offer.runs == "yes" else ""
    nvidias = offer.image.startswith("nvidia/cuda:")
    return {
        "IMAGE": offer.image,
        "CUDA": offer.cuda,
        "CUDNN": offer.cudnn,
        "STATE": (deleted if offer.state == "deleted" else offer.state) if nvidias else "",
        "LOCAL": size_text(offer.size or 0) if offer.local else "",
        "RUNS HERE": in_part or offer.runs,
        "WHY": "" if in_part else offer.reason,
    }


def _why(found: Iterable[Offer]) -> list[str]:
    """Lines with each reason once, for a table that has no room for the column WHY."""
    from gpubox.images import catalog

    reasons = dict[str, dict[str, None]]()
    for offer in found:
        if offer.runs != "yes" and offer.reason:
            cudas = reasons.setdefault(f"{offer.runs}, {offer.reason}", {})
            cudas[catalog.minor(offer.cuda)] = None
    return [f"CUDA {', '.join(cudas)}: {reason}" for reason, cudas in reasons.items()]


def _footing(this: App, found: Iterable[Offer]) -> str:
    """The last line: of what day the list is, this machine's driver, and what to type."""
    from gpubox.images import catalog

    machine = this.machine
    of = f"driver {machine.driver}" if machine else f"not known: {this.unseen}"
    running = [it for it in found if (it.runs, it.reason) == ("yes", "")]
    fitting = [it for it in running if it.state == "live"] or [it for it in running if it.local]
    start = f"; gpubox run {fitting[0].name} starts one" if fitting else ""
    return f"NVIDIA's tags as of {catalog.data()['listed']}; this machine: {of}{start}"


# --- one image, asked for now


def _ask(this: App, word: str, as_json: bool) -> int:
    from gpubox.images import registries
    from gpubox.images.pull import order

    asked = order(_named(this, word), this.config.registry())
    with this.screen.waiting(f"asking for {asked.source} ..."):
        found = registries.ask(asked.image, asked.source, this.connect_or_why(), this.screen.warn)
    if as_json:
        render.print_json([asdict(found)])
    elif found.state == "there":
        sizes = [f"{size_text(size)} {kind}" for kind, size in found.sizes.items()]
        row = (
            asked.image,
            ", ".join(found.platforms),
            ", ".join(sizes),
            found.pushed,
            found.digest,
        )
        columns = ("IMAGE", "PLATFORMS", "DOWNLOAD", "PUSHED", "DIGEST")
        render.print_table(columns, [row], ["DIGEST", "PUSHED"])
        for reason in found.reasons:
            this.screen.say(f"not known: {reason}")
    else:
        this.screen.fail(_no(found))
    return 0 if found.state == "there" else 1


def _named(this: App, word: str) -> str:
    """An image, a profile's image, or a tag of NVIDIA's."""
    from gpubox import values

    image = this.config.profile(word).image if this.config.knows(word) else f"nvidia/cuda:{word}"
    try:
        values.reference(image)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return image


def _no(found: Remote) -> GpuboxError:
    from gpubox import checks
    from gpubox.images import catalog

    status = catalog.status(found.image)
    known = {
        "live": f"it was there on {status.when}",
        "deleted": f"deleted in {status.when}" if status.when else "deleted",
        "unknown": "",
    }[status.state]
    if found.state == "unknown":
        problem = f"whether there is {found.image} is not known"
        reasons = (*found.reasons, known and f"last known: {known}")
        return GpuboxError(problem, "; ".join(filter(None, reasons)))
    near = f"the nearest: {', '.join(found.near)}" if found.near else ""
    deletion = checks.of_deletion(found.image)
    problem = f"the registry has no {found.image}" + (known and f": {known}")
    return GpuboxError(problem, deletion.fix if deletion else near)
