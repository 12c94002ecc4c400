"""A box becomes an image and a profile: both of them, or neither.

Knows the order of the steps; `saved` has written what the two say.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp
from typing import Protocol

import msgspec

from gpubox.boxes.box import Box
from gpubox.boxes.saved import Saved
from gpubox.engine.engine import Engine
from gpubox.engine.images import LocalImage
from gpubox.errors import EngineError, GpuboxError, why
from gpubox.profile.layers import as_typed
from gpubox.screen.signals import Signals

_PULSE = 0.2  # seconds between two looks


class Screen(Protocol):
    """Shows what goes on."""

    def watching(self, sentences: Iterator[str]) -> None: ...


class Save(msgspec.Struct, frozen=True):
    """One save, for the person `by`: to the image of this name and the profile in this file."""

    engine: Engine
    by: str
    image: str
    file: Path

    def of(self, box: Box, made: Saved, text: str, screen: Screen) -> None:
        """Make both; they replace what had their names before.

        1. Write the profile beside its place.
        2. Have the engine make the image, without a name.
        3. Give the image its name.
        4. Put the profile into its place.

        What fails or is interrupted before 4 is undone, the last step first.
        """
        with Signals() as signals:
            former = self.engine.image(self.image)
            self._write(box, made, text, screen, signals, former)
            if former and former != self.engine.image(self.image):
                self.engine.remove_unnamed(former.id)

    def _write(
        self,
        box: Box,
        made: Saved,
        text: str,
        screen: Screen,
        signals: Signals,
        former: LocalImage | None,
    ) -> None:
        with ThreadPoolExecutor(max_workers=1) as worker, ExitStack() as undo:
            draft = _draft(self.file, text)
            undo.callback(draft.unlink, missing_ok=True)
            making = worker.submit(self.engine.commit, box.id, made.image, self.by)
            undo.callback(self._remove, making)
            screen.watching(_sentences(box, making, signals))
            files = making.result()
            signals.heed()
            undo.callback(self._name_again, former)
            self.engine.name_image(files, self.image, keep=True)
            signals.heed()
            with _explained(self.file):
                draft.replace(self.file)
            undo.pop_all()

    def _remove(self, making: Future[str]) -> None:
        with suppress(EngineError):
            self.engine.remove_image(making.result())

    def _name_again(self, former: LocalImage | None) -> None:
        with suppress(EngineError):
            if former:
                self.engine.name_image(former.id, self.image, keep=True)
            else:
                self.engine.remove_image(self.image)


def _sentences(box: Box, making: Future[str], signals: Signals) -> Iterator[str]:
    """What to say until the engine is done: it cannot be stopped once it has begun."""
    began = time.monotonic()
    while not wait([making], _PULSE).done:
        if signals.end_us():
            yield "interrupted: what the engine makes is removed as soon as it is there"
        else:
            yield f"saving the files of {box.name}: {time.monotonic() - began:.0f} s"


def _draft(file: Path, text: str) -> Path:
    """Write the whole text beside its place, under a name that is not read as a profile."""
    with _explained(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, path = mkstemp(".new", f".{file.name}.", file.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as draft:
            draft.write(text)
    return Path(path)


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise GpuboxError(f"{as_typed(file)} cannot be written: {why(error)}") from None
