"""Who has which GPU: its processes, their containers and what each container was given, joined.

Pure: what NVML, /proc and the engine said comes in; who holds a GPU goes out, in records and in
words. Remembers nothing, so idle means idle at this moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from gpubox.gpus import cgroups
from gpubox.gpus.machine import Device, Process, named, overlap
from gpubox.values import NO_GPUS, Gpus

State = Literal["free", "mine", "held", "used", "unknown"]

# Bytes. A CUDA context alone takes more than the first, an idle MPS server takes less. A desktop
# takes less than the second, so a GPU stays free below it if its processes only draw, or if only
# its memory in use is known.
_COMPUTING, _DESKTOP = 64 << 20, 1 << 30
_SHOWN = 40  # characters of a command line


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A container. `gpus` are those that it holds now: none if it is only created, or has ended.

    Only a box has an `owner`, a `profile`, the GPUs that its label has `claimed`, and a `claim`:
    how it claims them, in the words of `claims`. A box that has ended and has a restart policy
    still holds them. `state` is Docker's word, `created` is in Unix seconds.
    """

    id: str
    name: str
    box: bool = False
    owner: str = ""
    profile: str = ""
    gpus: Gpus = NO_GPUS
    claimed: Gpus = NO_GPUS
    claim: str = ""
    state: str = ""
    created: int = 0


class Program(msgspec.Struct, frozen=True):
    """A process of this machine, as /proc tells of it."""

    pid: int
    user: str
    command: str
    cgroup: str


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """A process on a GPU. `program` is None where it is hidden, or has ended meanwhile.

    `container` is the one that it runs in, if this engine has it; else `elsewhere` is its id.
    """

    process: Process
    program: Program | None
    container: Container | None = None
    elsewhere: str = ""


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """Who has a GPU, or a MIG instance, now.

    `working`: whether they compute on it; None where that cannot be known. `uses` are the processes
    large enough to count, the largest first. `engine`: whether there was one to ask.
    """

    device: Device
    state: State
    working: bool | None = None
    holders: tuple[Container, ...] = ()
    uses: tuple[Use, ...] = ()
    engine: bool = True

    @property
    def outside(self) -> tuple[Use, ...]:
        """The uses that are in none of the engine's containers."""
        return tuple(use for use in self.uses if use.container is None)


# --- deciding


def join(
    devices: Sequence[Device] | None,
    containers: Sequence[Container] | None,
    programs: Mapping[int, Program],
    me: str,
) -> tuple[Holding, ...]:
    """Who has each GPU. `devices` is None without NVML, `containers` without an engine."""
    known = tuple(containers or ())
    rows = (*(devices or ()), *_only_claimed(devices, known))
    holdings = []
    for device in rows:
        uses = None if devices is None else _uses(device, rows, known, programs)
        holdings.append(_held(device, rows, known, uses, me, engine=containers is not None))
    return tuple(holdings)


def without(holdings: Iterable[Holding], box: str, me: str) -> tuple[Holding, ...]:
    """Who would have each GPU if a box, given by its id, and its processes were gone."""
    return tuple(_without(holding, box, me) for holding in holdings)


def _without(holding: Holding, box: str, me: str) -> Holding:
    device = holding.device
    holders = tuple(it for it in holding.holders if it.id != box)
    if holders == holding.holders:
        return holding
    uses = tuple(it for it in holding.uses if not it.container or it.container.id != box)
    told = None if device.processes is None and not uses else uses
    return Holding(
        device=device,
        state=_state(device, holders, told, me, holding.engine),
        working=_working(device, holders, told),
        holders=holders,
        uses=uses,
        engine=holding.engine,
    )


def pids(devices: Iterable[Device]) -> set[int]:
    """The processes on these, by number, to be looked up in /proc for `join`."""
    return {process.pid for device in devices for process in device.processes or ()}


def holds(gpus: Gpus, device: Device, devices: Sequence[Device]) -> bool:
    """Whether a container that was given `gpus` has the device, its whole GPU, or a part of it."""
    return gpus.all or any(overlap(named(word, devices), device.key) for word in gpus.ids)


def _only_claimed(
    devices: Sequence[Device] | None, containers: Iterable[Container]
) -> Iterator[Device]:
    """The GPUs that containers hold and the driver does not list; without a driver all are such."""
    words = dict.fromkeys(word for container in containers for word in container.gpus.ids)
    keys = dict.fromkeys(named(word, devices or ()) for word in words)
    trouble = "" if devices is None else "the driver lists no such GPU"
    known = {device.key for device in devices or ()}
    for key in sorted(keys.keys() - known, key=_place):
        index, uuid = (key, "") if key[0].isdecimal() else ("", key)
        yield Device(index=index, uuid=uuid, trouble=trouble)
    if devices is None and any(container.gpus.all for container in containers):
        yield Device(index="all")


def _place(key: str) -> tuple[bool, list[int], str]:
    """A key to sort by: indexes as numbers, then UUIDs."""
    numbers = [int(part) for part in key.split(":") if part.isdecimal()]
    return not key[0].isdecimal(), numbers, key


def _uses(
    device: Device,
    devices: Sequence[Device],
    containers: Sequence[Container],
    programs: Mapping[int, Program],
) -> tuple[Use, ...] | None:
    """The processes that count, the largest first; None where the driver does not tell any."""
    told = device.processes
    if told is None and device.divided:  # only root may ask for the whole, everybody for its parts
        parts = [it for it in devices if it.index.startswith(f"{device.index}:")]
        told = tuple(process for part in parts for process in part.processes or ())
    if told is None:
        return None
    large = sorted(filter(_counts, told), key=lambda process: (-(process.memory or 0), process.pid))
    return tuple(_use(process, programs.get(process.pid), containers) for process in large)


def _counts(process: Process) -> bool:
    """Whether it keeps the GPU from being free; of unknown size it does, unless it only draws."""
    if process.memory is None:
        return not process.draws
    return process.memory >= (_DESKTOP if process.draws else _COMPUTING)


def _use(process: Process, program: Program | None, containers: Iterable[Container]) -> Use:
    around = cgroups.containers(program.cgroup) if program else ()
    by_id = {container.id: container for container in containers}
    ours = next((by_id[one] for one in around if one in by_id), None)
    elsewhere = around[0] if around and ours is None else ""
    return Use(process=process, program=program, container=ours, elsewhere=elsewhere)


def _held(
    device: Device,
    devices: Sequence[Device],
    containers: Sequence[Container],
    uses: tuple[Use, ...] | None,
    me: str,
    *,
    engine: bool,
) -> Holding:
    inside = [use.container for use in uses or () if use.container]
    holders = tuple(it for it in containers if it in inside or holds(it.gpus, device, devices))
    seen = uses or ()
    return Holding(
        device=device,
        state=_state(device, holders, uses, me, engine),
        working=_working(device, holders, uses),
        holders=holders,
        uses=seen,
        engine=engine,
    )


def _state(
    device: Device,
    holders: Iterable[Container],
    uses: Sequence[Use] | None,
    me: str,
    engine: bool,
) -> State:
    owners = {it.owner if it.box else None for it in holders}
    if owners:
        return "mine" if owners == {me} else "held"
    if uses or _unaccounted(device) >= _DESKTOP:
        return "used"
    return "free" if engine and uses is not None and not device.trouble else "unknown"


def _unaccounted(device: Device) -> int:
    """Bytes in use by no listed process: the driver may tell none, or hide some."""
    return (device.used or 0) - sum(it.memory or 0 for it in device.processes or ())


def _working(
    device: Device, holders: Iterable[Container], uses: Sequence[Use] | None
) -> bool | None:
    """Whether its holders compute on it; a process whose container is not known may be theirs."""
    if not holders:
        return bool(uses) if uses is not None else None
    if any(use.container or use.program is None for use in uses or ()):
        return True
    if uses:
        return False  # all that compute on it are others
    if device.utilization:
        return True
    return None if uses is None else False


# --- in words


def sentence(holding: Holding) -> str:
    """The state as a person reads it."""
    device, others = holding.device, holding.outside
    if holding.holders:
        names = " and ".join(dict.fromkeys(_person(it) for it in holding.holders))
        said = "mine" if holding.state == "mine" else f"held by {names}"
        if holding.working is not None:
            said += ", working" if holding.working else ", idle now"
        if others:
            said += f"; also {_outside(holding)}"
        return f"{said}; {device.trouble}" if device.trouble else said
    if device.trouble:
        return f"not known: {device.trouble}"
    if others:
        return _outside(holding)
    if holding.state == "used":
        return "used outside gpubox, by whom is not told"
    if holding.state == "free":
        return "free"
    return "no process" if holding.working is False else "not known: its processes are not told"


def _person(container: Container) -> str:
    return container.owner or f"container {container.name}"


def _outside(holding: Holding) -> str:
    """Who uses it beside the engine's containers: the largest process, and how many more."""
    first, *more = holding.outside
    program = first.program
    if program is None:
        said = f"used by pid {first.process.pid}, which is not seen here"
    else:
        command = shortened(program.command)
        inside = f"in a container of another engine, {first.elsewhere[:12]},"
        if not holding.engine:
            inside = f"in the container {first.elsewhere[:12]}"
        where = inside if first.elsewhere else "outside gpubox"
        said = f"used {where} by {program.user}, pid {program.pid}, {command}"
    return f"{said} and {len(more)} more" if more else said


def shortened(command: str) -> str:
    """A command line without the program's folder, and no longer than a line has room for."""
    program, space, rest = command.partition(" ")
    said = program.rpartition("/")[2] + space + rest
    return said if len(said) <= _SHOWN else f"{said[: _SHOWN - 3].rstrip()}..."
