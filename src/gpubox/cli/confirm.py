"""A question to the person at the keyboard, before something is gone."""

from __future__ import annotations

import sys

import click

from gpubox.errors import UsageError


def agreed(question: str, problem: str, hint: str) -> bool:
    """Whether the person says yes; without a terminal to ask at, the `problem` is an error."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{problem}, and there is no terminal to ask at", hint)
    return click.confirm(question, err=True)
