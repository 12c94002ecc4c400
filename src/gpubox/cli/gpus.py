"""`gpus`: who uses which GPU, and which is free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from gpubox.cli.app import App, app
from gpubox.errors import GpuboxError, UsageError, together
from gpubox.figures import GIB
from gpubox.gpus.machine import SHORT_UUID
from gpubox.screen import render

if TYPE_CHECKING:
    from gpubox.engine.engine import Engine
    from gpubox.gpus.holders import Container, Holding, Use
    from gpubox.gpus.machine import Device
    from gpubox.values import Gpus

SECONDS = 2  # as watch(1) has it
SPARE = ("UUID", "PROFILE", "TEMP", "MODEL", "BOX", "UTIL")
_FOLDED = 32  # characters: who uses it, before it is folded


class Seen(NamedTuple):
    """Who has each GPU, and a line for each thing that cannot be known."""

    holdings: Sequence[Holding]
    notes: Sequence[str]


@click.command("gpus")
@click.option("-w", "--watch", is_flag=True, help=f"Draw it anew every {SECONDS} s, until q.")
@click.option("--json", "as_json", is_flag=True, help="A list of objects.")
@click.pass_context
def gpus_command(context: click.Context, watch: bool, as_json: bool) -> None:
    """Who uses which GPU, and which is free.

    \b
    free               no container was given it, and nothing computes on it
    mine               a box of yours has it, and works on it or is idle now
    held by NAME       somebody's box, or a container that is no box, has it
    used outside       a process computes on it that is in no container here
    no process         nothing computes on it, and no engine tells who has it
    not known          the GPU, or its processes, cannot be read

    A box holds what it was given while it runs or is paused, whether it uses it or not; idle is
    said of this moment. A desktop's own use, below 1 GiB, leaves a GPU free.
    """
    this = app(context)
    if watch:
        _watch(this, as_json)
        return
    seen = _Eyes(this).look()
    if as_json:
        render.print_json([object_of(holding) for holding in seen.holdings])
    notes = list(seen.notes)
    if not as_json and seen.holdings:
        left_out = render.print_table(*_table(seen.holdings), _FOLDED)
        notes += [render.wider(left_out)] if left_out else []
    for note in notes:
        this.screen.say(note)


# --- looking


class _Eyes:
    """Looks at the GPUs, once or again and again; keeps the connection while the engine answers."""

    def __init__(self, this: App) -> None:
        self._this, self._local = this, this.endpoint.local
        self._engine: Engine | None = None
        self._known: dict[str, Gpus] = {}

    def look(self) -> Seen:
        """Ask the driver, the engine and /proc; an error only if neither of the first two tells."""
        from gpubox.gpus import holders
        from gpubox.host import processes

        devices, containers = self._devices(), self._containers()
        notes = [note for note in (_unseen(devices), _unasked(containers)) if note]
        listed = None if isinstance(devices, GpuboxError) else devices
        held = None if isinstance(containers, GpuboxError) else containers
        if isinstance(containers, GpuboxError) and isinstance(devices, GpuboxError):
            raise together([containers, *([devices] if self._local else [])])
        programs = processes.programs(holders.pids(listed or ()))
        if listed is not None and held is not None:
            notes += self._of_other_engines()
        holdings = holders.join(listed, held, programs, self._this.caller.name)
        return Seen(holdings, notes if holdings or notes else ["this machine has no GPU"])

    def _devices(self) -> tuple[Device, ...] | GpuboxError:
        from gpubox.gpus import nvml

        if elsewhere := self._this.endpoint.elsewhere:
            return GpuboxError(elsewhere)
        try:
            return nvml.devices()
        except GpuboxError as error:
            return error

    def _containers(self) -> Sequence[Container] | GpuboxError:
        try:
            self._engine = self._engine or self._this.connect()
            return self._engine.containers(self._known)
        except GpuboxError as error:
            self._engine = None
            return error

    def _of_other_engines(self) -> Iterable[str]:
        from gpubox.host import engines

        for name in engines.others(self._this.endpoint.socket or ""):
            yield (
                f"{name} runs a Docker Engine of their own: what its containers were given is not"
                " known, only their processes are seen"
            )


def _unseen(devices: object) -> str:
    if isinstance(devices, GpuboxError):
        return f"only what containers were given is known: {devices.problem}"
    return ""


def _unasked(containers: object) -> str:
    if isinstance(containers, GpuboxError):
        return f"only processes are seen, not who was given a GPU: {containers.problem}"
    return ""


# --- showing


def _watch(this: App, as_json: bool) -> None:
    from gpubox.gpus import nvml
    from gpubox.screen import watching

    if as_json:
        raise UsageError("--watch draws a table, and --json prints none", "leave one of them out")
    if not render.draws():
        raise UsageError(
            "--watch needs a terminal to draw on", "leave it out, or: watch gpubox gpus"
        )
    eyes = _Eyes(this)
    with ExitStack() as open_:
        open_.enter_context(nvml.awake())
        watching.watch(eyes.look, _drawn, SECONDS)


def _drawn(seen: Seen, columns: int) -> list[bytes]:
    width = columns - 1  # else to clear the rest of the line would clear its last letter
    lines, left_out = render.table(*_table(seen.holdings), _FOLDED, width)
    notes = [*seen.notes, *([render.wider(left_out)] if left_out else [])]
    notes.append(f"{datetime.now():%H:%M:%S}, anew every {SECONDS} s; q ends it")
    drawn = [*lines, *(line for note in notes for line in render.paragraph(note, width))]
    return [render.encoded(line) for line in drawn]


def _table(
    holdings: Iterable[Holding],
) -> tuple[Sequence[str], Sequence[Sequence[str]], Sequence[str]]:
    """Columns, without empty ones, rows, and the columns that a narrow screen may leave out."""
    rows = [_row(holding) for holding in holdings]
    columns = [column for column in rows[0] if any(row[column] for row in rows)] if rows else []
    cells = [[row[column] for column in columns] for row in rows]
    return columns, cells, [column for column in SPARE if column in columns]


def _row(holding: Holding) -> dict[str, str]:
    from gpubox.gpus import holders

    device = holding.device
    used = "?" if device.used is None else f"{device.used / GIB:.1f}"
    return {
        "GPU": device.index,
        "UUID": device.uuid[:SHORT_UUID],
        "MODEL": model(device),
        "MEMORY": f"{used}/{device.memory / GIB:.1f} GiB" if device.memory else "",
        "UTIL": "" if device.utilization is None else f"{device.utilization}%",
        "TEMP": "" if device.temperature is None else f"{device.temperature}C",
        "STATE": holders.sentence(holding),
        "BOX": ", ".join(it.name for it in holding.holders),
        "PROFILE": ", ".join(it.profile for it in holding.holders if it.profile),
    }


def model(device: Device) -> str:
    """Its model as people call it, without the maker, who is the same for all."""
    name, mig, instance = device.name.removeprefix("NVIDIA ").partition(" MIG ")
    if mig:
        return f"  MIG {instance}"
    return f"{name} (MIG)" if device.divided else name


def object_of(holding: Holding) -> dict[str, Any]:
    """What --json says of it."""
    from gpubox.gpus import holders

    device = holding.device
    return {
        "index": device.index,
        "uuid": device.uuid,
        "name": device.name,
        "memory": device.memory,
        "used": device.used,
        "utilization": device.utilization,
        "temperature": device.temperature,
        "divided": device.divided,
        "state": holding.state,
        "working": holding.working,
        "sentence": holders.sentence(holding),
        "trouble": device.trouble,
        "containers": [_container(container) for container in holding.holders],
        "processes": [_process(use) for use in holding.uses],
    }


def _container(container: Container) -> dict[str, Any]:
    return {
        "id": container.id,
        "name": container.name,
        "box": container.box,
        "owner": container.owner,
        "profile": container.profile,
    }


def _process(use: Use) -> dict[str, Any]:
    program = use.program
    return {
        "pid": use.process.pid,
        "memory": use.process.memory,
        "user": program.user if program else "",
        "command": program.command if program else "",
        "container": use.container.id if use.container else use.elsewhere,
    }
