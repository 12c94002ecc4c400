"""A person at a window who types gpubox and docker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab.program import Gpubox
from lab.tmux import Window, window


@contextmanager
def at_window(gpubox: Gpubox, name: str = "window", functions: str = "") -> Iterator[Window]:
    """A shell that finds gpubox and the engine's docker program."""
    env = gpubox.env | {"PATH": f"{gpubox.program.parent}:{gpubox.env['PATH']}"}
    with window(gpubox.home.parent / name, env, gpubox.cwd, functions) as made:
        made.shows("[0]$")
        yield made
