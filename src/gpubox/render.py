"""What the person sees: tables and progress on the screen, sentences on stderr.

Rich is loaded where something is drawn. Decides nothing; knows no engine.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from gpubox.progress import Progress

Events = Iterator[Mapping[str, Any]]

_PLAIN_LINE_SECONDS = 10
_FRAME_SECONDS = 0.1
_FOLDED = 40  # characters: a cell that is longer may be folded before a column is left out


def console(*, stderr: bool = False) -> Console:
    """Rich's console for data (stdout) or for everything else (stderr)."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def print_json(rows: Sequence[Mapping[str, Any]]) -> None:
    sys.stdout.write(json.dumps(list(rows), indent=2, ensure_ascii=False) + "\n")


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], spare: Sequence[str] = ()
) -> list[str]:
    """A table without lines; in a pipe it is as wide as its words.

    Where it is wider than the screen, columns that are `spare` are left out, one after the other;
    which those are is returned.
    """
    from rich.table import Table
    from rich.text import Text

    screen = console()
    # a pipe's reader wants whole words, whatever the width
    piped = not screen.is_terminal
    by_column = dict(zip(columns, zip(columns, *rows, strict=True), strict=True))
    room = 10_000 if piped else screen.width
    left_out = list[str]()
    for column in spare:
        widths = [min(max(map(len, cells)), _FOLDED) for cells in by_column.values()]
        if sum(widths) + 2 * (len(widths) - 1) <= room:
            break
        del by_column[column]
        left_out.append(column)
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in by_column:
        table.add_column(column, overflow="fold", no_wrap=piped)
    for row in [*zip(*by_column.values(), strict=True)][1:]:
        table.add_row(*(Text(cell) for cell in row))
    if piped:
        screen.width = room
    with screen.capture() as text:
        screen.print(table)
    screen.file.write("".join(f"{line.rstrip()}\n" for line in text.get().splitlines()))
    return left_out


def size_text(count: float) -> str:
    """Bytes as registries and disks are measured: `3.9 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


# --- sentences


class Screen:
    """Sentences on stderr, and the progress of pulls."""

    def say(self, sentence: str) -> None:
        self._write("", sentence)

    def warn(self, sentence: str) -> None:
        self._write("33", f"warning: {sentence}")

    def fail(self, problem: str, hint: str) -> None:
        self._write("31", f"gpubox: {problem}")
        if hint:
            self._write("", f"  {hint}")

    def _write(self, colour: str, text: str) -> None:
        if colour and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
            head, space, rest = text.partition(" ")
            text = f"\x1b[{colour}m{head}\x1b[0m{space}{rest}"
        with suppress(OSError):  # a full disk, a reader that has left: no reason to stop
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def watching(self, sentences: Iterator[str]) -> None:
        """Show the latest of many sentences until they end; in a log one now and then."""
        if sys.stderr.isatty():
            _watch(sentences)
            return
        due = time.monotonic() + _PLAIN_LINE_SECONDS
        for sentence in sentences:
            if time.monotonic() > due:
                due += _PLAIN_LINE_SECONDS
                self.say(sentence)

    def pulling(self, image: str, events: Events) -> None:
        """Show a pull until its events end, then say what it took."""
        from gpubox.progress import Progress

        progress, started = Progress(), time.monotonic()
        if sys.stderr.isatty():
            _draw(image, events, progress)
        else:
            self._tell(image, events, progress)
        seconds = max(time.monotonic() - started, 0.001)
        rate = size_text(progress.fetched / seconds)
        self.say(
            f"pulled {image} in {_duration(seconds)} ({size_text(progress.fetched)}, {rate}/s)"
        )

    def _tell(self, image: str, events: Events, progress: Progress) -> None:
        """Plain lines, for logs: one at the start and one now and then."""
        self.say(f"pulling {image}")
        due = time.monotonic() + _PLAIN_LINE_SECONDS
        for event in events:
            progress.add(event)
            if time.monotonic() > due:
                due += _PLAIN_LINE_SECONDS
                self.say(f"  {size_text(progress.done)} of {size_text(progress.total)}")


def _watch(sentences: Iterator[str]) -> None:
    from rich.text import Text

    due = 0.0
    with console(stderr=True).status("") as status:
        for sentence in sentences:
            if time.monotonic() > due:  # a million of them must not wait for the screen
                due = time.monotonic() + _FRAME_SECONDS
                status.update(Text(sentence))


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _draw(image: str, events: Events, progress: Progress) -> None:
    """A bar for each layer under way, and one for the whole with rate and time left."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=console(stderr=True),
        transient=True,
    )
    tasks: dict[str, TaskID] = {}
    with bars:
        whole = bars.add_task(f"pulling {image}", total=None)
        for event in events:
            progress.add(event)
            for name, layer in progress.layers.items():
                if layer.total and not layer.complete and name not in tasks:
                    tasks[name] = bars.add_task(f"  {name}", total=layer.total)
                if name in tasks:
                    bars.update(
                        tasks[name],
                        completed=layer.done,
                        total=layer.total,
                        visible=not layer.complete,
                        description=f"  {name} {_note(layer.note)}",
                    )
            bars.update(whole, completed=progress.done, total=progress.total or None)


def _note(status: str) -> str:
    return status.lower() if status.startswith(("Retrying", "Waiting")) else ""
