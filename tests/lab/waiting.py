"""Waits on conditions with a deadline. Knows nothing of what is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Seconds for what must come: only what hangs is to run into it, on the slowest machine too.
PATIENCE = 300


def wait_until(predicate: Callable[[], T], deadline: float = PATIENCE, *, what: str = "") -> T:
    """The first truthy answer of `predicate`; TimeoutError after `deadline` seconds without one."""
    end = time.monotonic() + deadline
    while not (answer := predicate()):
        if time.monotonic() > end:
            name = what or getattr(predicate, "__name__", "the condition")
            raise TimeoutError(f"{name}: not within {deadline:g} s")
        time.sleep(0.01)
    return answer
