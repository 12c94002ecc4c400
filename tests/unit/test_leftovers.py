"""What of mine can go, in which order, and what never does."""

from __future__ import annotations

from typing import Any

from gpubox.boxes.box import Box
from gpubox.boxes.leftovers import Disk, Made, of_boxes, of_images, stopped

NAMELESS = "f" * 64


def box(
    name: str, owner: str = "anna", state: str = "exited", written: int = 0, **said: Any
) -> Box:
    usual: dict[str, Any] = {"created": 0, "gpus": "none", "status": "Exited (0) 2 days ago"} | said
    return Box(
        id=name, name=name, image="x", profile="x", owner=owner, kind="command", claim="",
        folder="/", state=state, ports=(), written=written, **usual,
    )  # fmt: skip


def found(ended: int = 0, policy: str = "no", *volumes: str) -> dict[str, Any]:
    mounts = [{"Type": "volume", "Name": name, "Destination": "/scratch"} for name in volumes]
    return {
        "State": {"FinishedAt": f"2026-01-0{ended}"},
        "HostConfig": {"RestartPolicy": {"Name": policy}},
        "Mounts": mounts,
    }


def test_what_runs_is_anothers_or_is_about_to_start_stays() -> None:
    there = [
        box("mine"), box("bobs", owner="bob"), box("runs", state="running"),
        box("paused", state="paused"), box("again", state="restarting"),
        box("ends", state="stopping"),
        box("starting", state="created", created=990), box("never", state="created", created=900),
    ]  # fmt: skip
    assert [it.name for it in stopped(there, "anna", 1000)] == ["mine", "never"]


def test_empty_boxes_come_first_and_then_the_oldest() -> None:
    there = [
        (box("full", written=9), found(1)),
        (box("late"), found(4)),
        (box("early"), found(2)),
        (box("volume"), found(3, "no", NAMELESS, "named")),
    ]
    spares = of_boxes(there, {NAMELESS: 5, "named": 7})
    assert [(it.name, it.size) for it in spares] == [
        ("early", 0), ("late", 0), ("full", 9), ("volume", 5),
    ]  # fmt: skip
    assert spares[-1].what == "box, stopped 2 days ago, exit 0; with its volume on /scratch"


def test_that_a_box_keeps_its_gpus_is_said() -> None:
    (spare,) = of_boxes([(box("held", gpus="GPU-0"), found(1, "always"))], {})
    assert spare.what.endswith("; keeps its GPUs while it is stopped (restart: always)")
    (free,) = of_boxes([(box("free"), found(1, "always"))], {})
    assert "GPU" not in free.what


def made(id: str, *names: str, by: str = "anna", built: bool = False) -> Made:
    return Made(id=f"sha256:{id * 64}", names=names, alone=3, by=by, built=built)


def test_an_image_that_a_box_or_a_profile_has_stays() -> None:
    disk = Disk(
        made=(
            made("a", "anna/used:latest"),
            made("b", "anna/named:latest"),
            made("c", "anna/old:latest"),
            made("d"),
            made("e", by="bob"),
            made("f", "anna/kept:latest", "keepsake:1"),
            made("9", "nvidia/cuda:10.1-devel", built=True),
            made("8", "anna/going:latest"),
        ),
        volumes={},
        images={"one": f"sha256:{'a' * 64}", "gone": f"sha256:{'8' * 64}"},
    )
    going = of_boxes([(box("gone"), found(1))], {})
    spares = list(of_images(disk, going, ["anna/named", "pytorch/pytorch"], "anna"))
    assert [(it.id, it.name, it.what) for it in spares] == [
        ("anna/old", "anna/old", "image, saved; no profile here has it"),
        (
            f"sha256:{'d' * 64}",
            "d" * 12,
            "image without a name: files of a box that was moved, or saved anew",
        ),
        (
            "nvidia/cuda:10.1-devel",
            "nvidia/cuda:10.1-devel",
            "image, built; no profile here has it",
        ),
        ("anna/going", "anna/going", "image, saved; no profile here has it"),
    ]
