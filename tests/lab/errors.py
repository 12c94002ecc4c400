"""Why the lab cannot work here, and what to do about it."""

from __future__ import annotations


class LabError(RuntimeError):
    """`problem` in one sentence; `hint` is what to do, with the command to type."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(f"{problem}\n  -> {hint}")
