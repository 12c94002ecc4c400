"""Adds up pulls' events: how much of each layer, of each image and of all together has come.

Pure: events in, figures out, which never fall. Knows no engine and no screen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import msgspec

from gpubox.errors import GpuboxError

Event = Mapping[str, Any]

_RATE_SECONDS = 5  # over which a rate is taken
_USUAL_LAYER, _USUAL_IMAGE = 10_000_000, 100_000_000  # bytes
_LAST_PART = 0.01  # of a bar, kept until the end: there may be more layers than are known


class Begun(msgspec.Struct, frozen=True):
    """A pull has begun; `source` is the name that the engine pulls."""

    source: str


class Warned(msgspec.Struct, frozen=True):
    """A warning about a pull that goes on."""

    sentence: str


class Pulled(msgspec.Struct, frozen=True):
    """A pull has succeeded. If it is not `new`, the image was here already, and up to date."""

    seconds: float
    new: bool


# An image, and what happened to its pull; None if nothing has happened for a moment.
News = tuple[str, Event | Begun | Warned | Pulled | GpuboxError] | None


class Phase(IntEnum):
    """How far a layer is."""

    WAITING = 0
    DOWNLOADING = 1
    DOWNLOADED = 2
    EXTRACTING = 3
    DONE = 4


# The engine's words for a layer, by how they begin. All others are about the image.
_PHASES = {
    "Pulling fs layer": Phase.WAITING,
    "Waiting": Phase.WAITING,
    "Downloading": Phase.DOWNLOADING,
    "Retrying": Phase.DOWNLOADING,
    "Verifying Checksum": Phase.DOWNLOADED,
    "Download complete": Phase.DOWNLOADED,
    "Extracting": Phase.EXTRACTING,
    "Pull complete": Phase.DONE,
    "Already exists": Phase.DONE,
}


@dataclass
class Layer:
    """One layer of one pull, in bytes as the registry has them.

    `total` is 0 until the engine says it, which it may never do for a small layer. `fetched` is
    what came over the network, parts that came twice included. `note` is the engine's last word.
    """

    done: int = 0
    total: int = 0
    extracted: int = 0
    fetched: int = 0
    phase: Phase = Phase.WAITING
    note: str = ""
    here_before: bool = False
    lost: bool = False  # its pull has failed
    attempt: tuple[int, int] = (0, 0)  # the engine's bytes and total since the last broken download

    @property
    def size(self) -> int:
        return max(self.total, self.done)

    @property
    def unknown(self) -> bool:
        """Whether it is still to come, and its size is not known."""
        return not self.total and self.phase < Phase.DOWNLOADED

    def add(self, status: str, detail: Mapping[str, Any]) -> None:
        phase = next(phase for words, phase in _PHASES.items() if status.startswith(words))
        current, total = _bytes(detail, "current"), _bytes(detail, "total")
        self.note = status
        if status == "Downloading":
            self._download(current, total)
        elif status.startswith("Retrying"):
            self.attempt = (0, 0)
        elif phase >= Phase.DOWNLOADED:
            self._complete(status, phase, current, total)
        self.phase = phase if phase == Phase.DOWNLOADING else max(self.phase, phase)

    def _download(self, current: int, total: int) -> None:
        before, attempt = self.attempt
        again = current < before or total != attempt
        # after a broken download the engine's total is what was left then, not the whole layer
        self.total = max(self.total, total, self.done if total else 0)
        if total and current >= total:
            # Docker also says so when a download breaks: the next event tells which it was
            self.attempt = (0 if again else before, total)
            return
        self.fetched += current if again else current - before
        self.attempt = (current, total)
        reached = (self.total - total if total else 0) + current
        self.done = max(self.done, min(self.total or reached, reached))

    def _complete(self, status: str, phase: Phase, current: int, total: int) -> None:
        """The whole layer is here, whether the engine reported its last bytes or not."""
        if status.startswith("Already exists") and not self.fetched:
            self.here_before = True
            self.total = self.extracted = self.done
            return
        if phase == Phase.EXTRACTING and not self.total:
            self.total = max(total, self.done)
            self.attempt = (self.fetched, self.total)
        here, all_of_it = self.attempt
        self.fetched += max(0, all_of_it - here)
        self.attempt = (0, 0)
        self.total = self.done = self.size
        if phase == Phase.DONE:
            self.extracted = self.total
        elif phase == Phase.EXTRACTING and total:
            self.extracted = max(self.extracted, self.total * min(current, total) // total)


def _bytes(detail: Mapping[str, Any], key: str) -> int:
    """An event's bytes, or 0: a figure with `units` counts seconds."""
    return max(0, int(detail.get(key) or 0)) if not detail.get("units") else 0


@dataclass
class Progress:
    """The pull of one image as it stands."""

    layers: dict[str, Layer] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """One event of the engine's stream."""
        status, name = str(event.get("status", "")), event.get("id")
        if name and status.startswith(tuple(_PHASES)):
            detail = event.get("progressDetail") or {}
            self.layers.setdefault(str(name), Layer()).add(status, detail)

    def give_up(self) -> None:
        """The pull has failed: layers that have not come yet will not come."""
        for layer in self.layers.values():
            if layer.phase != Phase.DONE:
                layer.total, layer.phase, layer.lost = layer.done, Phase.DONE, True


@dataclass
class Share:
    """How much of some work is done, from 0 to 1, while its whole becomes known only bit by bit.

    The rest of the bar stands for the rest of the work: work that is done shortens it in
    proportion, and work that turns up does not lengthen it. So the value never falls; if all is
    known from the beginning it is the plain fraction.
    """

    _rest: float = 1.0
    _done: int = 0

    @property
    def value(self) -> float:
        return 1 - self._rest

    def update(self, done: int, left: float) -> None:
        if done > self._done:
            gained, self._done = done - self._done, done
            self._rest = min(self._rest, max(_LAST_PART, self._rest * left / (left + gained)))

    def finish(self) -> None:
        self._rest = 0.0


class Pulls:
    """Several pulls at once. A layer that two images have counts once, for the first of them."""

    def __init__(self, images: Iterable[str]) -> None:
        self.images = {image: Progress() for image in images}
        self.under_way: dict[str, str] = {}  # images that have begun, and where they come from
        self.downloaded, self.unpacked = Share(), Share()
        self._silent = set(self.images)  # images of which no layer is known
        self._first: dict[str, str] = {}  # for each layer the image that it counts for

    def begin(self, image: str, source: str) -> None:
        self.under_way[image] = source

    def end(self, image: str, *, failed: bool = False) -> None:
        self.under_way.pop(image, None)
        self._silent.discard(image)
        if failed:
            self.images[image].give_up()
            for other, progress in self.images.items():
                inherited = progress.layers if other != image else ()
                self._first |= {name: other for name in inherited if self._first[name] == image}

    def add(self, image: str, event: Event) -> None:
        progress = self.images[image]
        progress.add(event)
        for name in progress.layers:
            self._first.setdefault(name, image)
        if progress.layers:
            self._silent.discard(image)
        whole, more = self.whole(), len(self._silent) * _USUAL_IMAGE
        self.downloaded.update(whole.done, whole.to_download + more)
        self.unpacked.update(whole.extracted, whole.to_extract + more)
        if whole.extracts and not whole.to_download + more:
            self.downloaded.finish()

    def fetched(self, image: str) -> int:
        """Bytes fetched for an image; a layer counts for the first image that has it."""
        layers = self.images[image].layers.items()
        return sum(layer.fetched for name, layer in layers if self._first[name] == image)

    def all_here_before(self, image: str) -> bool:
        return all(layer.here_before for layer in self.images[image].layers.values())

    @property
    def all_fetched(self) -> int:
        return sum(self.fetched(image) for image in self.images)

    def whole(self) -> Whole:
        layers: dict[str, Layer] = {}
        for progress in self.images.values():
            for name, layer in progress.layers.items():
                layers[name] = _either(layers[name], layer) if name in layers else layer
        return Whole(layers)


def _either(one: Layer, other: Layer) -> Layer:
    """A layer that two pulls have, with what the better informed of them knows."""
    latest = max(one, other, key=lambda layer: (not layer.lost, layer.phase, layer.done))
    return Layer(
        done=max(one.done, other.done),
        total=max(one.total, other.total),
        extracted=max(one.extracted, other.extracted),
        fetched=max(one.fetched, other.fetched),
        phase=latest.phase,
        note=latest.note,
        here_before=one.here_before and other.here_before,
        lost=one.lost and other.lost,
    )


@dataclass(frozen=True)
class Whole:
    """All layers of some pulls at one moment."""

    layers: Mapping[str, Layer]

    @property
    def done(self) -> int:
        return sum(layer.done for layer in self.layers.values())

    @property
    def total(self) -> int:
        """The bytes of all layers, as far as they are known."""
        return sum(layer.size for layer in self.layers.values())

    @property
    def extracted(self) -> int:
        return sum(layer.extracted for layer in self.layers.values())

    @property
    def all_known(self) -> bool:
        return bool(self.layers) and not any(layer.unknown for layer in self.layers.values())

    @property
    def extracts(self) -> bool:
        """Whether the engine reports that it extracts layers; not every engine does."""
        new = (layer for layer in self.layers.values() if not (layer.here_before or layer.lost))
        return any(layer.phase >= Phase.EXTRACTING for layer in new)

    @property
    def to_download(self) -> float:
        return self.total - self.done + self._unknown

    @property
    def to_extract(self) -> float:
        layers = [layer for layer in self.layers.values() if not layer.lost]
        return sum(layer.size - layer.extracted for layer in layers) + self._unknown

    @property
    def _unknown(self) -> float:
        """A guess at the bytes of layers whose size is not known: each is the mean of the others.

        The first ones known may be small, so three layers of usual size count among them.
        """
        known = [layer.size for layer in self.layers.values() if layer.total]
        mean = (sum(known) + 3 * _USUAL_LAYER) / (len(known) + 3)
        return mean * sum(layer.unknown for layer in self.layers.values())


class Rate:
    """Bytes a second, over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, now: float, count: int) -> float:
        self._seen.append((now, count))
        while now - self._seen[0][0] > _RATE_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        return max(0, count - before) / (now - since) if now > since else 0.0
