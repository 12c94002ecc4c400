"""Who has a port of the engine's machine."""

from __future__ import annotations

from gpubox.engine.engine import Engine
from gpubox.host import processes


def port_holder(engine: Engine, number: int) -> str | None:
    """Who has a port, in words: a box, a container, a program here; None where nobody is seen."""
    holder = engine.publishers().get(number)
    return processes.port_holder(number) if not holder and engine.endpoint.local else holder
