"""A pull's events, added up: what each layer and the whole have got so far.

Pure: events in, figures out. Knows no engine and no screen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_WHOLE = ("Already exists", "Pull complete")
_LOADED = ("Verifying Checksum", "Download complete", "Extracting")
_LAYER_BEGINS = ("Pulling fs layer", "Waiting", "Downloading", *_LOADED, *_WHOLE, "Retrying")


@dataclass
class Layer:
    """Bytes of one layer. `total` is 0 until the engine says it, `note` its last word."""

    done: int = 0
    total: int = 0
    note: str = ""
    here_before: bool = False

    @property
    def complete(self) -> bool:
        return self.note.startswith((*_LOADED, *_WHOLE))


@dataclass
class Progress:
    """A pull as it stands. Figures only ever grow, whatever the engine retries."""

    layers: dict[str, Layer] = field(default_factory=dict)
    status: str = ""

    def add(self, event: Mapping[str, Any]) -> None:
        """One event of the engine's stream."""
        status, name = str(event.get("status", "")), event.get("id")
        if not name or not status.startswith(_LAYER_BEGINS):
            self.status = status or self.status
            return
        layer = self.layers.setdefault(str(name), Layer())
        layer.note = status
        layer.here_before |= status == "Already exists"
        if status == "Downloading":
            self._downloading(layer, event.get("progressDetail") or {})
        elif layer.complete:
            layer.done = layer.total

    @staticmethod
    def _downloading(layer: Layer, detail: Mapping[str, Any]) -> None:
        current, total = int(detail.get("current") or 0), int(detail.get("total") or 0)
        # after a cut the engine's total is what is left, not what there is
        layer.total = max(layer.total, total)
        layer.done = max(layer.done, min(layer.total, layer.total - total + current))

    @property
    def done(self) -> int:
        return sum(layer.done for layer in self.layers.values())

    @property
    def total(self) -> int:
        return sum(layer.total for layer in self.layers.values())

    @property
    def fetched(self) -> int:
        """Bytes that came over the network in this pull."""
        return sum(layer.done for layer in self.layers.values() if not layer.here_before)
