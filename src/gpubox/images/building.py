"""Adds up a build's events: which step is running, its output, what the engine has made so far.

Pure: events in, a state out. Knows no engine and no screen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_STEP = re.compile(r"(?i)step (?P<number>\d+)/(?P<total>\d+) ?: ")  # Podman writes STEP
_CONTAINER = re.compile(r" ---> Running in (?P<id>[0-9a-f]{12,64})\s*")
_IMAGE = re.compile(r" ---> (?P<id>[0-9a-f]{12,64})\s*")
_REMOVED = ("Removing intermediate container", " ---> Removed intermediate container")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")  # by the engine, for what came on stderr


@dataclass
class Building:
    """A build so far: its step, and the output of that.

    `image` is the newest layer, `made` the newest that is not from the cache; `container` is where
    the step runs. `size` is the finished image's, in bytes.
    """

    number: int = 0
    total: int = 0
    output: str = ""
    image: str = ""
    made: str = ""
    container: str = ""
    size: int = 0
    _cached: bool = False

    def add(self, event: Mapping[str, Any]) -> None:
        """One event of the engine's stream."""
        text = _COLOUR.sub("", str(event.get("stream", "")))
        if step := _STEP.match(text):
            self.number, self.total = int(step["number"]), int(step["total"])
            self.output, self.container, self._cached = "", "", False
        elif "---> Using cache" in text:
            self._cached = True
        elif line := _CONTAINER.fullmatch(text):
            self.container = line["id"]
        elif line := _IMAGE.fullmatch(text):
            self.image = line["id"]
            if self.number > 1 and not self._cached:
                self.made = self.image
        elif not text.startswith(_REMOVED):
            self.output += text

    @property
    def last_line(self) -> str:
        lines = self.output.splitlines()  # also at \r: dpkg counts on one line
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
