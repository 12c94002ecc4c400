"""What can go wrong, as one family of exceptions.

Raised anywhere, caught once in the command line. Knows nothing of any other module.
"""

from __future__ import annotations

from collections.abc import Sequence


class GpuboxError(Exception):
    """A problem that the person at the keyboard can act on.

    `problem` is one lower-case sentence that names the value; `hint` is what to do about it, with
    the command to type. `exit_code` is 125, as `docker run` uses it, where the command runs a box
    and 1 elsewhere; the command line chooses. `also` are further problems that were found with it.
    """

    exit_code: int | None = None
    also: tuple[GpuboxError, ...] = ()

    def __init__(self, problem: str, hint: str = "", *, exit_code: int | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(GpuboxError):
    """The command line is wrong: exit code 2, or 125 where a box would have run."""

    exit_code = 2


class ProfileError(UsageError):
    """A profile, or a flag that overrides one, is wrong.

    `where` is `FILE:LINE`, or `command line`.
    """

    def __init__(self, where: str, key: str, problem: str, hint: str = "") -> None:
        place = f"{where}: {key}" if key else where
        super().__init__(f"{place}: {problem}", hint)


class EngineError(GpuboxError):
    """The engine refused, failed or was not there."""


def together(errors: Sequence[GpuboxError]) -> GpuboxError:
    """Several errors as one: the first, with the others in its `also`."""
    first, *others = errors
    first.also = tuple(others)
    return first


def did_you_mean(word: str, known: list[str]) -> str:
    """The hint for a mistyped word: the nearest known one, else all of them."""
    from difflib import get_close_matches

    if near := get_close_matches(word, known, n=1, cutoff=0.6):
        return f"did you mean '{near[0]}'?"
    return "there is: " + ", ".join(sorted(known)) if known else ""


def why(error: OSError) -> str:
    """What the system says of it, to stand behind a colon: `permission denied`."""
    return (error.strerror or str(error)).lower()
