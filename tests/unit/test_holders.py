"""Who holds which GPU: every kind of state, by hand."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from gpubox.gpus.holders import Container, Program, holds, join, pids, sentence
from gpubox.gpus.machine import Device, Process, named, overlap
from gpubox.values import ALL_GPUS, NO_GPUS, Gpus

MIB, GIB = 1 << 20, 1 << 30
OURS, THEIRS = "a" * 64, "b" * 64
PYTHON = "/home/bob/venv/bin/python train.py"


def gpu(index: int, *processes: Process, **more: Any) -> Device:
    used = sum(process.memory or 0 for process in processes)
    told: dict[str, Any] = {
        "memory": 11 * GIB,
        "used": used,
        "utilization": 0,
        "temperature": 40,
        "minor": index,
    }
    told |= {"processes": processes, **more}
    return Device(index=str(index), uuid=f"GPU-{index}f-0", **told)


def process(pid: int, memory: int | None = 2 * GIB, **more: Any) -> Process:
    return Process(pid, memory, **more)


def box(owner: str, gpus: Gpus, name: str = "", identity: str = OURS) -> Container:
    return Container(
        id=identity, name=name or f"box-{owner}", box=True, owner=owner, profile="p", gpus=gpus
    )


def plain(gpus: Gpus, name: str = "web", identity: str = THEIRS) -> Container:
    return Container(id=identity, name=name, gpus=gpus)


def program(pid: int, container: str = "", user: str = "bob", command: str = PYTHON) -> Program:
    path = f"/docker/{container}" if container else "/user.slice"
    return Program(pid, user, command, f"0::{path}\n")


def told(
    devices: Any, containers: Any = (), programs: Any = (), me: str = "anna"
) -> list[tuple[str, bool | None, str]]:
    found = join(devices, containers, {it.pid: it for it in programs}, me)
    return [(it.state, it.working, sentence(it)) for it in found]


ZERO = Gpus(("0",))
MINE, BOBS, WEB = box("anna", ZERO), box("bob", ZERO), plain(ZERO)
SEVEN = process(7)
IN_OURS, IN_THEIRS, OUTSIDE = program(7, OURS), program(7, THEIRS), program(7)
BY_BOB = "used outside gpubox by bob, pid 7, python train.py"


@pytest.mark.parametrize(
    ("device", "containers", "programs", "state", "working", "said"),
    [
        (gpu(0), [], [], "free", False, "free"),
        (gpu(0), [box("bob", Gpus(("1",)))], [], "free", False, "free"),
        (gpu(0), [box("bob", NO_GPUS)], [], "free", False, "free"),
        # mine
        (gpu(0), [MINE], [], "mine", False, "mine, idle now"),
        (gpu(0, SEVEN), [MINE], [IN_OURS], "mine", True, "mine, working"),
        (gpu(0, utilization=1), [MINE], [], "mine", True, "mine, working"),
        # others'
        (gpu(0), [BOBS], [], "held", False, "held by bob, idle now"),
        (gpu(0, SEVEN), [BOBS], [IN_OURS], "held", True, "held by bob, working"),
        (gpu(0), [box("bob", ALL_GPUS)], [], "held", False, "held by bob, idle now"),
        (gpu(0), [WEB], [], "held", False, "held by container web, idle now"),
        (gpu(0), [box("", ZERO, "x")], [], "held", False, "held by container x, idle now"),
        (gpu(0, SEVEN), [WEB], [IN_THEIRS], "held", True, "held by container web, working"),
        # nobody's claim, and yet in a container
        (gpu(0, SEVEN), [box("bob", NO_GPUS)], [IN_OURS], "held", True, "held by bob, working"),
        # several
        (gpu(0), [MINE, WEB], [], "held", False, "held by anna and container web, idle now"),
        (gpu(0), [MINE, box("anna", ZERO, "b", THEIRS)], [], "mine", False, "mine, idle now"),
        # outside
        (gpu(0, SEVEN), [], [OUTSIDE], "used", True, BY_BOB),
        (gpu(0, SEVEN), [MINE], [OUTSIDE], "mine", False, f"mine, idle now; also {BY_BOB}"),
        (
            gpu(0, SEVEN, process(8, 9 * GIB)),
            [BOBS],
            [IN_OURS, program(8, user="carl", command="x")],
            "held",
            True,
            "held by bob, working; also used outside gpubox by carl, pid 8, x",
        ),
        (
            gpu(0, process(5), process(6, 3 * GIB), SEVEN),
            [],
            [program(5), program(6, command="z " + "y" * 99), OUTSIDE],
            "used",
            True,
            f"used outside gpubox by bob, pid 6, z {'y' * 35}... and 2 more",
        ),
        (
            gpu(0, SEVEN),
            [],
            [program(7, "c" * 64)],
            "used",
            True,
            "used in a container of another engine, cccccccccccc, by bob, pid 7, python train.py",
        ),
        # not seen
        (gpu(0, SEVEN), [], [], "used", True, "used by pid 7, which is not seen here"),
        (
            gpu(0, SEVEN),
            [BOBS],
            [],
            "held",
            True,
            "held by bob, working; also used by pid 7, which is not seen here",
        ),
        # a desktop, and what only waits
        (gpu(0, process(7, 300 * MIB, draws=True)), [], [OUTSIDE], "free", False, "free"),
        (gpu(0, process(7, draws=True)), [], [OUTSIDE], "used", True, BY_BOB),
        (gpu(0, process(7, None, draws=True)), [], [OUTSIDE], "free", False, "free"),
        (gpu(0, process(7, 30 * MIB)), [], [OUTSIDE], "free", False, "free"),
        (gpu(0, process(7, None)), [], [OUTSIDE], "used", True, BY_BOB),
        (gpu(0, used=900 * MIB), [], [], "free", False, "free"),
        (
            gpu(0, used=5 * GIB),
            [],
            [],
            "used",
            False,
            "used outside gpubox, by whom is not told",
        ),
        # not told
        (
            gpu(0, processes=None),
            [],
            [],
            "unknown",
            None,
            "not known: its processes are not told",
        ),
        (gpu(0, processes=None), [BOBS], [], "held", None, "held by bob"),
        (gpu(0, processes=None, utilization=9), [BOBS], [], "held", True, "held by bob, working"),
        (gpu(0, processes=None, utilization=None), [BOBS], [], "held", None, "held by bob"),
        # lost
        (Device(index="0", trouble="lost"), [], [], "unknown", None, "not known: lost"),
        (Device(index="0", trouble="lost"), [MINE], [], "mine", None, "mine; lost"),
        # without an engine
        (gpu(0), None, [], "unknown", False, "no process"),
        (gpu(0, SEVEN), None, [OUTSIDE], "used", True, BY_BOB),
        (
            gpu(0, SEVEN),
            None,
            [IN_OURS],
            "used",
            True,
            "used in the container aaaaaaaaaaaa by bob, pid 7, python train.py",
        ),
    ],
)
def test_a_state(
    device: Device, containers: Any, programs: Any, state: str, working: bool | None, said: str
) -> None:
    assert told([device, gpu(1)], containers, programs)[0] == (state, working, said)


def test_a_container_in_a_container_is_the_outer_ones() -> None:
    inner = replace(IN_OURS, cgroup=f"0::/docker/{OURS}/docker/{THEIRS}\n")
    assert told([gpu(0, SEVEN)], [BOBS], [inner]) == [("held", True, "held by bob, working")]


# MIG ---------------------------------------------------------------------------------------------

INSTANCES = [
    Device(index=f"0:{number}", uuid=f"MIG-{number}", memory=5 * GIB, used=0, processes=())
    for number in range(3)
]
DIVIDED = [gpu(0, divided=True, utilization=None, memory=40 * GIB), *INSTANCES, gpu(1)]
ANNAS = ("mine", False, "mine, idle now")
FREE = ("free", False, "free")


@pytest.mark.parametrize(
    ("word", "mine"),
    [
        ("MIG-1", {0, 2}),
        ("0:1", {0, 2}),
        ("0", {0, 1, 2, 3}),
        ("GPU-0f-0", {0, 1, 2, 3}),
        ("gpu-0F", {0, 1, 2, 3}),
        ("/dev/nvidia0", {0, 1, 2, 3}),
        ("1", {4}),
    ],
)
def test_a_gpu_and_its_instances_overlap(word: str, mine: set[int]) -> None:
    found = told(DIVIDED, [box("anna", Gpus((word,)))])
    assert found == [ANNAS if row in mine else FREE for row in range(5)]


def test_work_on_an_instance_is_work_on_its_gpu_and_on_no_other_instance() -> None:
    at_work = replace(INSTANCES[1], processes=(SEVEN,), used=2 * GIB)
    for whole in (DIVIDED[0], replace(DIVIDED[0], processes=None)):  # as root, and as all others
        rows = [whole, INSTANCES[0], at_work]
        if whole.processes is not None:
            rows[0] = replace(whole, processes=(SEVEN,))
        outside = ("used", True, BY_BOB)
        assert told(rows, [], [OUTSIDE]) == [outside, FREE, outside]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("0", "0", True),
        ("0", "0:1", True),
        ("0:1", "0", True),
        ("0:1", "0:1", True),
        ("0:1", "0:2", False),
        ("0", "1", False),
        ("1", "10", False),
        ("1:0", "10:0", False),
        ("GPU-1", "GPU-1", True),
    ],
)
def test_what_overlaps(one: str, other: str, same: bool) -> None:
    assert overlap(one, other) is same


# What no driver lists ----------------------------------------------------------------------------


def test_without_a_driver_there_is_what_was_claimed() -> None:
    containers = [
        box("bob", Gpus(("10", "2", "GPU-9f"))),
        plain(ALL_GPUS),
        box("anna", Gpus(("2",)), identity="c" * 64),
    ]
    found = join(None, containers, {}, "anna")
    assert [(it.device.index, it.device.uuid, sentence(it)) for it in found] == [
        ("2", "", "held by bob and container web and anna"),
        ("10", "", "held by bob and container web"),
        ("", "GPU-9f", "held by bob and container web"),
        ("all", "", "held by container web"),
    ]
    assert {it.working for it in found} == {None}
    assert join(None, [box("bob", NO_GPUS)], {}, "anna") == ()


def test_a_claim_on_what_the_driver_does_not_list_keeps_a_row() -> None:
    found = join([gpu(0)], [box("bob", Gpus(("0", "GPU-9f")))], {}, "anna")
    assert [(it.device.uuid, it.device.trouble, sentence(it)) for it in found] == [
        ("GPU-0f-0", "", "held by bob, idle now"),
        ("GPU-9f", "the driver lists no such GPU", "held by bob; the driver lists no such GPU"),
    ]


def test_a_device_file_is_found_by_its_number() -> None:
    devices = [gpu(0, minor=1), gpu(1, minor=0)]
    assert named("/dev/nvidia0", devices) == "1"
    assert named("/dev/nvidia7", devices) == "7"
    assert named("/dev/nvidia0", [gpu(0, minor=None)]) == "0"
    assert holds(Gpus(("/dev/nvidia0",)), devices[1], devices)
    assert not holds(Gpus(("/dev/nvidia0",)), devices[0], devices)


def test_the_processes_to_look_up_are_all_that_are_told() -> None:
    assert pids([gpu(0, SEVEN, process(8, 0)), gpu(1, SEVEN), gpu(2, processes=None)]) == {7, 8}
