"""Waits on conditions with a deadline. Knows nothing of what is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], deadline: float = 60.0, *, what: str = "") -> T:
    """The first truthy answer of `predicate`; TimeoutError after `deadline` seconds without one."""
    end = time.monotonic() + deadline
    while not (answer := predicate()):
        if time.monotonic() > end:
            name = what or getattr(predicate, "__name__", "the condition")
            raise TimeoutError(f"{name}: not within {deadline:g} s")
        time.sleep(0.01)
    return answer
