"""Which GPUs are taken of those that are free, and how it is told that none is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from gpubox.errors import EngineError
from gpubox.gpus.claims import NO_CLAIM, SHARED
from gpubox.gpus.holders import Container, Holding, Program, join
from gpubox.gpus.machine import Device, Process
from gpubox.gpus.pick import NotFree, pick, refuse_held
from gpubox.images.fits import IMPOSSIBLE
from gpubox.values import ALL_GPUS, Gpus

GIB = 1 << 30
FOUR = tuple(
    Device(index=str(number), uuid=f"GPU-{number}", memory=8 * GIB, used=0, processes=())
    for number in range(4)
)


def box(*gpus: str, owner: str = "bob", **said: Any) -> Container:
    name = "-".join((owner, *gpus))
    return Container(id=name, name=name, box=True, owner=owner, gpus=Gpus(gpus), **said)


def seen(
    *boxes: Container, devices: Sequence[Device] = FOUR, pids: Sequence[int] = ()
) -> tuple[Holding, ...]:
    programs = {pid: Program(pid, "eve", "python", "/") for pid in pids}
    return join(devices, boxes, programs, "anna")


def taken(count: int, holdings: Sequence[Holding], **said: Any) -> str:
    return " ".join(device.index for device in pick(count, holdings, **said).devices)


def used(index: int, memory: int, pid: int = 0) -> tuple[Device, ...]:
    processes = (Process(pid, memory),) if pid else ()
    changed = replace(FOUR[index], used=memory, processes=processes)
    return (*FOUR[:index], changed, *FOUR[index + 1 :])


def test_the_first_that_is_free_is_taken() -> None:
    assert taken(1, seen()) == "0"
    assert taken(2, seen(box("GPU-0"), box("2"))) == "1 3"
    assert taken(1, seen(Container(id="c", name="web", gpus=Gpus(("0", "1", "2"))))) == "3"
    assert taken(1, seen(devices=used(0, GIB // 2))) == "1"
    assert taken(1, seen(devices=used(0, GIB, pid=7), pids=[7])) == "1"


def test_a_monitor_that_was_given_all_and_computes_nothing_is_no_reason() -> None:
    assert taken(4, seen(Container(id="c", name="dcgm", gpus=ALL_GPUS))) == "0 1 2 3"


def test_a_box_that_got_all_only_for_want_of_sight_has_no_claim() -> None:
    everything = Container(id="b", name="b", box=True, owner="bob", gpus=ALL_GPUS, claim=NO_CLAIM)
    assert taken(1, seen(everything)) == "0"
    refuse_held(FOUR, seen(everything))


def test_preferences_have_an_order() -> None:
    assert taken(1, seen(), last=("GPU-2",)) == "2"
    assert taken(1, seen(box("2")), last=("GPU-2",)) == "0"
    assert taken(1, seen(), last=("GPU-2",), wanted=("2",)) == "0"
    assert taken(2, seen(), wanted=("0", "1", "1", "2")) == "0 3"
    assert taken(1, seen(), doubt=lambda device: int(device.index != "3")) == "3"
    assert taken(1, seen(), doubt=lambda device: int(device.index != "3"), wanted=("3",)) == "3"


def test_what_cannot_run_the_image_is_left_out_unless_nothing_can() -> None:
    def only(index: str) -> Any:
        return lambda device: 0 if device.index == index else IMPOSSIBLE

    assert taken(1, seen(), doubt=only("2")) == "2"
    mixed = seen(devices=(*FOUR[:2], replace(FOUR[2], divided=True)))
    assert pick(1, mixed, doubt=only("1")).said == "GPU 1 (of 3; 0 cannot run the image)"
    assert taken(1, seen(), doubt=only("none of them")) == "0"
    with pytest.raises(NotFree, match=r"GPU 0 cannot run the image; .*GPU 2 held by bob"):
        pick(1, seen(box("2")), doubt=only("2"))
    assert taken(2, seen(), doubt=only("2")) == "0 2"  # the checks say what is wrong with 0


def test_sharing_and_exclusive_never_mix() -> None:
    shared = box("0", claim=SHARED)
    assert taken(1, seen(shared)) == "1"
    assert taken(4, seen(shared), share=True) == "0 1 2 3"
    assert taken(1, seen(shared), share=True) == "1"  # the least filled
    full = (shared, *(box(str(number), owner="eve", claim=SHARED) for number in range(4)))
    assert taken(1, seen(*full), share=True) == "1"
    assert taken(1, seen(*full, box("1")), share=True) == "2"
    with pytest.raises(NotFree, match="1 GPU is wanted, and none of 4 is free: GPU 0 held by"):
        pick(1, seen(*full))
    with pytest.raises(NotFree, match=r"GPU 1 is held by bob \(bob-1\)"):
        refuse_held(FOUR[1:2], seen(box("1")), share=True)
    refuse_held(FOUR[:1], seen(shared), share=True)
    with pytest.raises(NotFree, match="GPU 0 is held by bob"):
        refuse_held(FOUR[:1], seen(shared))


def test_instances_are_taken_and_their_gpu_is_not() -> None:
    divided = Device(index="0", uuid="GPU-0", processes=(), divided=True)
    instances = [Device(index=f"0:{n}", uuid=f"MIG-{n}", processes=()) for n in range(2)]
    holdings = seen(box("MIG-0"), devices=[divided, *instances])
    assert taken(1, holdings) == "0:1"
    with pytest.raises(EngineError, match="3 GPUs are wanted, and 2 of this machine's"):
        pick(3, holdings)


def test_a_gpu_that_cannot_be_read_is_none() -> None:
    lost = replace(FOUR[0], trouble="it fell off the bus")
    assert taken(1, seen(devices=(lost, *FOUR[1:]))) == "1"
    with pytest.raises(EngineError, match="1 GPU is wanted, and this machine has none"):
        pick(1, seen(devices=(lost,)))


def test_what_was_taken_is_said_in_a_line() -> None:
    assert pick(1, seen()).said == "GPU 0 (of 4)"
    holdings = seen(box("GPU-1"), box("3", owner="anna"), devices=used(0, GIB, pid=7), pids=[7])
    assert pick(1, holdings).said == (
        "GPU 2 (of 4; 0 used outside gpubox by eve, 1 held by bob, 3 mine)"
    )
    picked = pick(3, seen(box("GPU-1")), last=("GPU-3",))
    assert picked.said == "GPUs 0, 2 and 3 (of 4; 1 held by bob)"
    assert picked.reasons == (
        "GPU 0: free; taken",
        "GPU 1: held by bob, idle now",
        "GPU 2: free; taken",
        "GPU 3: free; yours last; taken",
    )


def test_the_error_names_who_has_them_and_my_own_to_stop() -> None:
    holdings = seen(box("0"), box("1", owner="anna"), box("2", "3", owner="anna"))
    with pytest.raises(NotFree) as caught:
        pick(1, holdings)
    assert caught.value.problem == (
        "1 GPU is wanted, and none of 4 is free: GPU 0 held by bob, idle now; GPU 1 mine, idle now;"
        " GPU 2 mine, idle now; GPU 3 mine, idle now"
    )
    assert caught.value.hint.startswith("gpubox stop anna-1 anna-2-3 frees yours; --wait waits")


def test_a_gpu_that_cannot_be_given_is_told_with_its_reason() -> None:
    lost = replace(FOUR[0], trouble="it fell off the bus")
    divided = replace(FOUR[1], divided=True)
    with pytest.raises(EngineError, match="none; GPU 0: it fell off the bus; GPU 1: it is divided"):
        pick(1, seen(devices=(lost, divided)))


def test_my_box_that_keeps_its_gpus_while_stopped_is_to_be_removed() -> None:
    boxes = [box(str(number), owner="anna", state="exited") for number in range(4)]
    with pytest.raises(NotFree) as caught:
        pick(1, seen(*boxes))
    assert caught.value.hint.startswith("gpubox rm anna-0 anna-1 anna-2 anna-3 frees yours; ")


def test_whoever_shares_is_told_only_of_those_who_do_not() -> None:
    with pytest.raises(NotFree, match="2 GPUs are wanted, and 1 of 2 is free: GPU 1 held by bob"):
        pick(2, seen(box("0", claim=SHARED), box("1"), devices=FOUR[:2]), share=True)
