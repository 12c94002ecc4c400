"""Moments inside an operation, as its engine tells of them: what is to come between comes there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from docker import DockerClient

from lab.waiting import PATIENCE


@contextmanager
def told(client: DockerClient, moment: str) -> Iterator[Callable[[], None]]:
    """What waits for an event of from now on, said as `commit NAME` or how that begins."""
    engine: Any = client  # whose types know whole seconds only
    now = time.time()
    events = engine.events(decode=True, since=now, until=now + PATIENCE)

    def wait() -> None:
        assert any(_said(event).startswith(moment) for event in events), f"no {moment}"

    try:
        yield wait
    finally:
        events.close()


def _said(event: dict[str, Any]) -> str:
    return f"{event['Action']} {event['Actor']['Attributes'].get('name', '')}"
