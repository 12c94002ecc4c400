"""What the person sees: tables and progress on the screen, sentences on stderr.

Rich is loaded where something is drawn. Decides nothing; knows no engine.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from gpubox.errors import GpuboxError
from gpubox.figures import duration_text, listed, size_text

if TYPE_CHECKING:
    from rich.console import Console

    from gpubox.images.building import Building
    from gpubox.images.progress import News, Pulled, Pulls, Warned
    from gpubox.screen import bars

_PLAIN_LINE_SECONDS = 10
_FRAME_SECONDS = 0.1
_FOLDED = 40  # characters: a cell that is longer may be folded before a column is left out
_STOPPED_SECONDS = 2  # so long without a frame means that Ctrl-Z has stopped us


def console(*, stderr: bool = False) -> Console:
    """Rich's console for data (stdout) or for everything else (stderr).

    It never hides the cursor: whatever ends or stops the program, nothing has to be put back.
    """
    from rich.console import Console

    class WithCursor(Console):
        def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002
            return False

    plain = os.environ.get("NO_COLOR")  # for which Rich itself would still print bold letters
    return WithCursor(
        stderr=stderr, highlight=False, soft_wrap=False, color_system=None if plain else "auto"
    )


def print_json(rows: Sequence[Mapping[str, Any]]) -> None:
    narrow = codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8"
    sys.stdout.write(json.dumps(list(rows), indent=2, ensure_ascii=narrow) + "\n")


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    spare: Sequence[str] = (),
    folded: int = _FOLDED,
) -> list[str]:
    """Print a table without lines; in a pipe it is as wide as its words.

    Where it is wider than the screen, cells longer than `folded` are folded first. Then `spare`
    columns are left out, one after the other; those that are left out are returned.
    """
    lines, left_out = table(columns, rows, spare, folded)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return left_out


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    spare: Sequence[str],
    folded: int,
    width: int | None = None,
) -> tuple[list[str], list[str]]:
    """The lines of a table, for the screen or a part of it; and the columns that are left out."""
    from rich.table import Table
    from rich.text import Text

    screen = console()
    # a program that reads a pipe wants whole words, however wide
    piped = not screen.is_terminal
    by_column = dict(zip(columns, zip(columns, *rows, strict=True), strict=True))
    room = 10_000 if piped else width or screen.width
    left_out = list[str]()
    for column in spare:
        widths = [min(max(map(len, cells)), folded) for cells in by_column.values()]
        if sum(widths) + 2 * (len(widths) - 1) <= room:
            break
        del by_column[column]
        left_out.append(column)
    drawn = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in by_column:
        drawn.add_column(column, overflow="fold", no_wrap=piped)
    for row in [*zip(*by_column.values(), strict=True)][1:]:
        drawn.add_row(*(Text(cell) for cell in row))
    screen.width = room
    with screen.capture() as text:
        screen.print(drawn)
    return [_sayable(line.rstrip()) for line in text.get().splitlines()], left_out


def wider(left_out: Sequence[str]) -> str:
    """The sentence that says how to see the columns that are left out."""
    return f"a wider window shows {listed(left_out)}; --json everything"


def paragraph(sentence: str, width: int) -> list[str]:
    """The lines of a sentence that is drawn beside a table."""
    return textwrap.wrap(sentence, width)


def draws(*, stderr: bool = False) -> bool:
    """Whether the stream is a terminal on which lines can be drawn over."""
    stream = sys.stderr if stderr else sys.stdout
    return stream.isatty() and (os.environ.get("TERM") or "dumb") not in ("dumb", "unknown")


def encoded(text: str) -> bytes:
    """The text in the screen's encoding, with `?` for letters that this lacks."""
    return text.encode(sys.stdout.encoding or "utf-8", "replace")


def _sayable(text: str) -> str:
    return encoded(text).decode(sys.stdout.encoding or "utf-8")


_VERDICTS = {"ok": "32", "warn": "33", "fail": "31"}  # colours; the word says it without


def print_checks(checks: Iterable[tuple[str, str, str, str]]) -> None:
    """Print a line for each check: verdict, id, evidence; and one for its fix.

    The terminal folds a line that is too long: a break of ours would be copied with the fix.
    """
    rows = list(checks)
    verdicts, ids = (max((len(row[at]) for row in rows), default=0) for at in (0, 1))
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for verdict, check, evidence, fix in rows:
        mark = f"{verdict:{verdicts}}"
        if coloured and verdict in _VERDICTS:
            mark = f"\x1b[{_VERDICTS[verdict]}m{mark}\x1b[0m"
        sys.stdout.write(f"{mark}  {check:{ids}}  {evidence}\n")
        if fix:
            sys.stdout.write(f"{'':{verdicts}}  {'':{ids}}  -> {fix}\n")


# --- sentences


class Screen:
    """Sentences on stderr, and the progress of pulls; a `quiet` one says only which pulls fail."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def say(self, sentence: str) -> None:
        self._write("", sentence)

    def warn(self, sentence: str) -> None:
        self._write("33", f"warning: {sentence}")

    def fail(self, error: GpuboxError) -> None:
        """Tell an error, and all that were found with it."""
        for each in (error, *error.also):
            self._write("31", f"gpubox: {each.problem}")
            if each.hint:
                self._write("", f"  {each.hint}")

    def _write(self, colour: str, text: str) -> None:
        if colour and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
            head, space, rest = text.partition(" ")
            text = f"\x1b[{colour}m{head}\x1b[0m{space}{rest}"
        with suppress(OSError):  # a full disk, a reader that has left: no reason to stop
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def waiting(self, sentence: str) -> AbstractContextManager[object]:
        """While it is entered, a terminal shows what is waited for; a log has no line of it."""
        if not draws(stderr=True):
            return nullcontext()
        return console(stderr=True).status(sentence, spinner="line")

    def watching(self, sentences: Iterator[str]) -> None:
        """Show the latest of many sentences until they end; in a log one now and then."""
        if draws(stderr=True):
            _watch(sentences)
            return
        due = time.monotonic() + _PLAIN_LINE_SECONDS
        for sentence in sentences:
            if time.monotonic() > due:
                due += _PLAIN_LINE_SECONDS
                self.say(sentence)

    def pulling(self, images: Sequence[str], news: Iterator[News]) -> None:
        """Show pulls until they end, and say of each what it came to."""
        from gpubox.images.progress import Begun, Pulled, Pulls, Warned

        pulls = Pulls(images)
        drawn = _Bars(pulls) if draws(stderr=True) else _Lines(pulls, self)
        shown = _Nothing() if self._quiet else drawn
        try:
            for item in news:
                image, said = item or ("", None)
                if isinstance(said, Begun):
                    pulls.begin(image, said.source)
                    shown.begin(image)
                elif isinstance(said, Warned | Pulled | GpuboxError):
                    shown.clear()
                    self._tell(pulls, image, said)
                elif said is not None:
                    pulls.add(image, said)
                shown.move()
        finally:
            shown.clear()

    def _tell(self, pulls: Pulls, image: str, said: Warned | Pulled | GpuboxError) -> None:
        """Say what is still to be read when the pull is over."""
        from gpubox.images.progress import Warned
        from gpubox.screen.bars import pulled_text

        if isinstance(said, Warned):
            self.warn(said.sentence)
            return
        pulls.end(image, failed=isinstance(said, GpuboxError))
        if isinstance(said, GpuboxError):
            unnamed = len(pulls.images) > 1 and image not in said.problem
            named = GpuboxError(f"{image}: {said.problem}", said.hint)
            self.fail(named if unnamed else said)
        elif not self._quiet:
            self.say(pulled_text(pulls, image, said))

    def building(self, image: str, titles: Sequence[str], builds: Iterator[Building]) -> None:
        """Show a build step by step, then say what it took; what a failing step said is shown."""
        started = time.monotonic()
        last: list[Building] = []

        def sentences() -> Iterator[str]:
            for build in builds:
                last[:] = [build]
                yield _step(titles, build)

        try:
            if draws(stderr=True):
                _watch(": ".join(filter(None, (it, last[0].last_line))) for it in sentences())
            else:
                self._each_once(sentences())
        except Exception:
            if last and (said := last[0].output.strip()):
                self.say(f"{_step(titles, last[0])}\n{said}" if draws(stderr=True) else said)
            raise
        size = size_text(last[0].size)
        self.say(f"built {image} in {duration_text(time.monotonic() - started)} ({size})")

    def _each_once(self, sentences: Iterator[str]) -> None:
        shown = ""
        for sentence in sentences:
            if sentence != shown:
                self.say(sentence)
            shown = sentence


def _watch(sentences: Iterator[str]) -> None:
    """Draw the latest sentence beside a wheel, which turns even if no other follows for long."""
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    latest, screen = "", console(stderr=True)
    wheel = Spinner("dots", style="status.spinner")

    def drawn() -> Spinner:
        text = Text(latest)
        text.truncate(screen.width - 2, overflow="ellipsis")  # beside the wheel, on one line
        wheel.update(text=text)
        return wheel

    # drawn when a frame is due: a million sentences must not wait for the screen
    with Live(get_renderable=drawn, console=screen, transient=True, refresh_per_second=12.5):
        for sentence in sentences:
            latest = sentence


def _step(titles: Sequence[str], build: Building) -> str:
    """`step 3/9: ...`; nothing before the first."""
    title = "".join(titles[build.number - 1 : build.number])
    return f"step {build.number}/{build.total}: {title}" if build.number else ""


# --- pulls


class _Nothing:
    """Shows pulls to nobody; the ways of showing them are made from it."""

    def begin(self, image: str) -> None:
        """The pull of an image begins."""

    def move(self) -> None:
        """Show how far pulls are, if that is due."""

    def clear(self) -> None:
        """Make room for a sentence."""


class _Lines(_Nothing):
    """Pulls in a log: a line where one begins, and one for all now and then."""

    def __init__(self, pulls: Pulls, screen: Screen) -> None:
        self._pulls, self._say = pulls, screen.say
        self._due = time.monotonic() + _PLAIN_LINE_SECONDS

    def begin(self, image: str) -> None:
        from gpubox.screen.bars import pulling_text

        self._say(pulling_text(image, self._pulls.under_way[image]))

    def move(self) -> None:
        from gpubox.screen.bars import state_text

        if time.monotonic() > self._due:
            self._due += _PLAIN_LINE_SECONDS
            self._say(f"  {state_text(self._pulls.whole())}")


class _Bars(_Nothing):
    """Pulls on a screen, drawn over and over in the same place.

    The cursor is never hidden here either, and no mode of the terminal is set.
    """

    def __init__(self, pulls: Pulls) -> None:
        from gpubox.images.progress import Rate

        self._pulls, self._rate = pulls, Rate()
        self._due, self._seen = 0.0, time.monotonic()
        self._shown: list[str] = []

    def move(self) -> None:
        """Draw, if the last frame is old enough: thousands of events come at once."""
        from gpubox.screen.bars import frame

        now = time.monotonic()
        if now - self._seen > _STOPPED_SECONDS:
            self._shown = []  # the next is drawn below what the shell has written
        self._seen = now
        if now < self._due or not self._pulls.under_way:
            return
        self._due = now + _FRAME_SECONDS
        rate = self._rate.update(now, self._pulls.all_fetched)
        self._replace(frame(self._pulls, rate, _canvas()))

    def clear(self) -> None:
        if self._shown:
            self._replace([])
        self._due = 0.0

    def _replace(self, lines: list[str]) -> None:
        """Draw over the last frame, whose lines a window that was made narrower has folded."""
        columns = _canvas().columns
        rows = sum(max(1, math.ceil(len(line) / columns)) for line in self._shown)
        back = f"\r\x1b[{rows - 1}A" if rows > 1 else "\r"
        self._shown = lines  # first: Ctrl-C is mostly noticed when the text has just been written
        with suppress(OSError):
            sys.stderr.write(back + "\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")
            sys.stderr.flush()


def _canvas() -> bars.Canvas:
    from gpubox.screen.bars import Canvas

    columns, rows = 80, 24
    with suppress(OSError):
        size = os.get_terminal_size(sys.stderr.fileno())
        columns, rows = size.columns or columns, size.lines or rows
    narrow = not (sys.stderr.encoding or "").lower().startswith("utf")
    return Canvas(columns, rows, ascii=narrow)
