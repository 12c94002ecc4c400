"""`logs`: what boxes have said, and say."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from datetime import datetime

import click

from gpubox.boxes.box import Box
from gpubox.cli.app import app
from gpubox.cli.chosen import BOXES, OWNER, chosen
from gpubox.cli.words import duration
from gpubox.errors import UsageError

Pieces = Iterator[tuple[int, bytes]]


def _moment(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """The value of --since in Unix seconds: so long ago, or a date with or without a time."""
    if text is None:
        return None
    if (ago := duration(text)) is not None:
        return max(0, time.time() - ago)
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    raise UsageError(f"--since {text} is no time", "write 10m, 2h, 2026-01-31 or 2026-01-31T09:30")


@click.command(
    "logs",
    params=[
        BOXES,
        click.Option(["-f", "--follow"], is_flag=True, help="Go on, until they end."),
        click.Option(
            ["-n", "--tail", "lines"],
            type=click.IntRange(0),
            metavar="N",
            help="The last N lines only.",
        ),
        click.Option(
            ["--since"], callback=_moment, metavar="TIME", help="From 10m ago, or from a date on."
        ),
        click.Option(["-t", "--timestamps"], is_flag=True, help="When each line was said."),
        OWNER,
    ],
)
@click.pass_context
def logs_command(
    context: click.Context,
    names: Sequence[str],
    follow: bool,
    lines: int | None,
    since: float | None,
    timestamps: bool,
    owner: str | None,
) -> None:
    """What boxes have said, on standard output and error as they did.

    Of several boxes each line begins with its box's name.
    """
    this = app(context)
    engine = this.connect()
    boxes = chosen(this, engine, names, owner)

    def said(box: Box) -> Pieces:
        return engine.logs(box.id, follow=follow, lines=lines, since=since, times=timestamps)

    if len(boxes) == 1:
        _show(said(boxes[0]))
    elif follow:
        _all_at_once(boxes, said)
    else:
        for box in boxes:
            _show(_named(box.name, said(box)))


def _show(pieces: Pieces) -> None:
    streams = {1: sys.stdout.buffer, 2: sys.stderr.buffer}
    for number, piece in pieces:
        streams[number].write(piece)
        streams[number].flush()


def _all_at_once(boxes: Sequence[Box], said: Callable[[Box], Pieces]) -> None:
    pool = ThreadPoolExecutor(len(boxes))
    for done in as_completed([pool.submit(_show, _named(it.name, said(it))) for it in boxes]):
        done.result()


def _named(name: str, pieces: Pieces) -> Pieces:
    """Whole lines, each with the box's name before it."""
    begun = {1: b"", 2: b""}
    head = f"{name} | ".encode()
    for number, piece in pieces:
        *lines, begun[number] = (begun[number] + piece).split(b"\n")
        if lines:
            yield number, b"".join(head + line + b"\n" for line in lines)
    for number, rest in begun.items():
        if rest:
            yield number, head + rest + b"\n"
