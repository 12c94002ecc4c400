"""Which boxes the words of a command mean: its arguments, and the boxes or an error for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from gpubox.boxes.box import Box, meant
from gpubox.cli import candidates
from gpubox.errors import GpuboxError, UsageError, together

if TYPE_CHECKING:
    from gpubox.cli.app import App
    from gpubox.engine.engine import Engine

BOX = click.Argument(["name"], metavar="BOX", shell_complete=candidates.my_boxes)
BOXES = click.Argument(["names"], nargs=-1, metavar="BOX...", shell_complete=candidates.my_boxes)
OWNER = click.Option(["--owner"], metavar="NAME", help="Whose box it is, if it is not yours.")
_SHOWN = 8  # names in a hint


def chosen(this: App, engine: Engine, names: Sequence[str], owner: str | None) -> list[Box]:
    """The boxes of these names, each once; one error tells all names that are no box."""
    there, me = engine.boxes(stopped=True), this.caller.name
    if not names:
        raise UsageError("which box?", _some([box for box in there if box.owner == (owner or me)]))
    by_id, errors = dict[str, Box](), list[GpuboxError]()
    for name in names:
        try:
            box = meant(name, there, me, owner)
            by_id[box.id] = box
        except GpuboxError as error:
            errors.append(_foreign(engine, name) or error)
    if errors:
        raise together(errors)
    return list(by_id.values())


def _some(there: Sequence[Box]) -> str:
    names = ", ".join(box.name for box in there[:_SHOWN])
    return f"there is: {names}" if names else "gpubox ps -a lists all that there are"


def _foreign(engine: Engine, name: str) -> UsageError | None:
    """The error for a name that is a container's, but no box's."""
    containers = {it.name: it for it in engine.containers({})}
    if name not in containers or containers[name].box:
        return None
    return UsageError(
        f"{name} is a container that gpubox did not start",
        f"docker ps -a and docker inspect {name} tell of it",
    )
