"""gpubox in the test's own process, for tests that start it hundreds of times.

All of it is the real program but the start of Python; the process's surroundings are the person's.
"""

from __future__ import annotations

import io
import os
import pty
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from gpubox.boxes.launch import Launch
from gpubox.cli import invoke, run
from gpubox.cli.words import Request
from gpubox.plan.facts import Facts
from gpubox.plan.translate import arguments


class Answer(NamedTuple):
    code: int
    out: str
    err: str


def gpubox(*words: str) -> Answer:
    out, err = io.BytesIO(), io.StringIO()
    text = io.TextIOWrapper(out, "utf-8", write_through=True)
    with redirect_stdout(text), redirect_stderr(err):
        code = invoke([*words])
    return Answer(code, out.getvalue().decode(), err.getvalue())


def gpubox_create(*words: str) -> Answer:
    """`run`, which stops where the box has been created: what starts in it is not asked."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "attend", _create)
        return gpubox("run", *words)


def _create(request: Request, launch: Launch, facts: Facts) -> int:
    launch.engine.create(arguments(launch.planned(facts)), launch.race.voice.warn)
    return 0


@contextmanager
def terminal() -> Iterator[None]:
    """Standard input and output are a terminal's."""
    saved = [os.dup(descriptor) for descriptor in (0, 1)]
    ends = pty.openpty()
    for descriptor in (0, 1):
        os.dup2(ends[1], descriptor)
    try:
        yield
    finally:
        for descriptor, before in enumerate(saved):
            os.dup2(before, descriptor)
        for opened in (*saved, *ends):
            os.close(opened)
