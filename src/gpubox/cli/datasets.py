"""`datasets`: the folders that have a name, and whether the caller may read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from gpubox.cli.app import App, app
from gpubox.errors import GpuboxError
from gpubox.figures import size_text
from gpubox.host import paths
from gpubox.screen import render

if TYPE_CHECKING:
    from gpubox.checks import Seen
    from gpubox.profile.readers import Item

_NO_SIZE = paths.Measured()


@click.command("datasets")
@click.option("--size", "sizes", is_flag=True, help="Bytes on disk, too; walks every folder.")
@click.option("--json", "as_json", is_flag=True, help="A list of objects.")
@click.pass_context
def datasets_command(context: click.Context, sizes: bool, as_json: bool) -> None:
    """The folders that have a name, and whether you may read them.

    The name is given under datasets: in gpubox.yaml.
    """
    this = app(context)
    named = this.config.datasets()
    here = not named or _is_here(this)
    found = [_dataset(name, item, here) for name, item in named.items()]
    if sizes:
        for item in found:
            _measure(this, item)
    if as_json:
        render.print_json(found)
    elif found:
        columns = ("NAME", "PATH", "IN THE BOX", "MODE", "EXISTS", "READABLE")
        more = ("SIZE",) if sizes else ()
        render.print_table((*columns, *more), [_row(item, sizes) for item in found])
    else:
        this.screen.say("no datasets; in gpubox.yaml: datasets: {imagenet: /data/imagenet}")


def _is_here(this: App) -> bool:
    """Whether the paths are this machine's; if not, say so, for nothing is known of another's."""
    try:
        endpoint = this.endpoint
    except GpuboxError as error:
        this.screen.say(f"which machine's folders these are is not known: {error.problem}")
        return False
    if endpoint.elsewhere:
        this.screen.say(f"{endpoint.elsewhere}: its folders are not known here")
    return endpoint.local


def _dataset(name: str, item: Item, here: bool) -> dict[str, Any]:
    mount = item.value
    seen = paths.look(mount.source) if here else None
    return {
        "name": name,
        "path": mount.source,
        "box_path": mount.target,
        "mode": "ro" if mount.read_only else "rw",
        "exists": _exists(seen),
        "readable": seen.readable if seen else None,
        "writable": seen.writable if seen else None,
        "from": item.where,
    }


def _exists(seen: Seen | None) -> bool | None:
    """None where it cannot be known: behind a closed folder there may be anything."""
    return None if seen is None or seen.trouble in ("barred", "broken") else not seen.trouble


def _measure(this: App, item: dict[str, Any]) -> None:
    """Add a folder's bytes on disk, shown as they grow; None where it cannot be read."""
    last = _NO_SIZE

    def sums() -> Iterator[str]:
        nonlocal last
        for last in paths.measure(item["path"]):
            yield f"{item['name']}: {size_text(last.size)} in {last.entries} files"

    if item["readable"]:
        this.screen.watching(sums())
        if last.closed:
            this.screen.warn(f"{item['name']}: {last.closed} of its folders are closed to you")
    item["size"] = last.size if item["readable"] else None
    item["size_is_whole"] = not last.closed if item["readable"] else None


def _row(item: dict[str, Any], sizes: bool) -> tuple[str, ...]:
    mode = "read-only" if item["mode"] == "ro" else "read and write"
    truths = (_truth(item["exists"]), _truth(item["readable"]))
    row = (item["name"], item["path"], item["box_path"], mode, *truths)
    return (*row, _size(item)) if sizes else row


def _truth(known: bool | None) -> str:
    return "not known" if known is None else "yes" if known else "no"


def _size(item: dict[str, Any]) -> str:
    if item["size"] is None:
        return "not known"
    return ("" if item["size_is_whole"] else "at least ") + size_text(item["size"])
