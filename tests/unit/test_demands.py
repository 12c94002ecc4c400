"""What an image asks for: by its name from the catalogue, or by its own variables."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from gpubox.images import demands
from gpubox.images.demands import Demand

PYTORCH = "pytorch/pytorch:2.8.0-cuda12.6-cudnn9-runtime"
DATA = Path(__file__).resolve().parents[2] / "data"


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def of(tag: str) -> Demand:
    found = demands.of_image(f"nvidia/cuda:{tag}")
    assert found is not None, tag
    return found


def test_every_tag_with_a_version_has_a_demand_of_that_version() -> None:
    for row in rows("cuda_tags_full.csv"):
        found = demands.of_image(f"nvidia/cuda:{row['tag']}")
        if not row["cuda"]:
            assert found is None, row["tag"]
            continue
        assert found is not None, row["tag"]
        minor = ".".join(row["cuda"].split(".")[:2])
        assert found.cuda == minor
        assert found.requires[0].split()[0] == f"cuda>={minor}"
        assert found.capabilities is not None


def branches(condition: str, brand: str) -> list[str]:
    ways = [way.split(",") for way in condition.split() if way.startswith(f"brand={brand},")]
    for _, at_least, below in ways:
        assert int(below.removeprefix("driver<")) == int(at_least.removeprefix("driver>=")) + 1
    return [at_least.removeprefix("driver>=") for _, at_least, _ in ways]


@pytest.mark.parametrize(
    ("tag", "excepted"),
    [
        ("8.0-devel", {}),
        ("10.2-devel", {"tesla": "418"}),
        ("11.2.2-devel-ubuntu20.04", {"tesla": "418 450"}),
        ("11.5.0-devel-ubuntu20.04", {"tesla": "418 450 470", "nvidia": "470", "geforce": "470"}),
        ("12.0.1-devel-ubuntu22.04", {"tesla": "470", "quadrortx": "470", "titanrtx": "470"}),
        ("12.4.1-devel-ubuntu22.04", {"geforcertx": "470 525 535", "unknown": "470 525 535"}),
        ("12.5.1-devel-ubuntu22.04", {"tesla": "470 535 550", "vws": "470 535 550"}),
        ("12.9.2-cudnn-devel-ubuntu24.04", {"quadro": "535 550 560 565 570"}),
        ("13.1.2-cudnn-devel-ubuntu24.04", {"nvidiartx": "535 550 570 575 580"}),
    ],
)
def test_the_exceptions_are_those_of_the_archived_dockerfiles(
    tag: str, excepted: dict[str, str]
) -> None:
    (condition,) = of(tag).requires
    for brand, expected in excepted.items():
        assert branches(condition, brand) == expected.split(), brand
    never = {"12.5.1", "12.9.2", "13.1.2"}
    if tag.split("-")[0] in never:
        assert [branches(condition, brand) for brand in demands.GEFORCE] == [[], [], [], []]
    if tag.split("-")[0] in ("10.2", "11.2.2"):
        assert branches(condition, "nvidia") == branches(condition, "geforce") == []
    if tag.split("-")[0] == "12.4.1":
        assert branches(condition, "vws") == []


def test_images_of_11_3_start_with_any_gpu_on_a_driver_from_450_on() -> None:
    (condition,) = of("11.3.1-devel-ubuntu20.04").requires
    assert "driver>=450" in condition.split()


def test_only_of_the_newest_the_exceptions_are_not_known() -> None:
    unsure = {
        demands_of.cuda
        for row in rows("cuda_tags_full.csv")
        if row["cuda"] and not (demands_of := of(row["tag"])).sure
    }
    assert unsure == {"13.2", "13.3", "13.4"}


@pytest.mark.parametrize("image", ["busybox", "nvcr.io/nvidia/cuda:12.4.1-devel", "nvidia/cuda"])
def test_of_other_images_nothing_is_known(image: str) -> None:
    assert demands.of_image(image) is None
    assert demands.size(image) is None


# --- an image that is here


def test_an_image_that_is_here_says_itself_what_it_asks_for() -> None:
    said = {
        "CUDA_VERSION": "12.4.1",
        "NVIDIA_REQUIRE_CUDA": "cuda>=12.4 brand=tesla,driver>=470,driver<471",
        "NVIDIA_REQUIRE_ARCH": "arch>=7.0",
        "PATH": "/bin",
    }
    found = demands.of_variables(said, "lab/own:1")
    assert found is not None
    assert found.requires == (said["NVIDIA_REQUIRE_CUDA"], "arch>=7.0")
    assert (found.cuda, found.least_driver) == ("12.4", "525.60.13")
    assert found.capabilities == ((5, 0), (9, 0))


def test_one_of_before_2018_asks_for_its_own_cuda() -> None:
    found = demands.of_variables({"CUDA_VERSION": "8.0.61"}, "nvidia/cuda:8.0-cudnn5-devel")
    assert found is not None
    assert found.requires == ("cuda>=8.0",)


def test_one_without_any_cuda_asks_for_nothing() -> None:
    assert demands.of_variables({"PATH": "/bin", "NVIDIA_VISIBLE_DEVICES": "all"}, "a") is None
    assert demands.of_variables({"CUDA_VERSION": "nightly"}, "a") is None


def test_pytorchs_own_image_asks_for_what_its_build_was_made_for() -> None:
    found = demands.of_variables({"PATH": "/bin"}, PYTORCH)
    assert found == demands.of_image(PYTORCH)
    assert found == Demand(cuda="12.6", least_driver="525.60.13", capabilities=((5, 0), (9, 0)))


@pytest.mark.parametrize("value", ["1", "true", "T"])
def test_the_conditions_can_be_switched_off(value: str) -> None:
    image = "nvidia/cuda:12.8.1-devel-ubuntu24.04"
    off = demands.of_box(image, None, {"NVIDIA_DISABLE_REQUIRE": value})
    assert off and (off.requires, off.waived) == ((), True)
    for other in ("", "0", "yes"):
        asked = demands.of_box(image, None, {"NVIDIA_DISABLE_REQUIRE": other})
        assert asked == demands.of_image(image)


@pytest.mark.parametrize("image", ["nvidia/cuda:13.3.0-cudnn-devel-ubuntu24.04", PYTORCH, "a"])
def test_a_box_without_variables_of_its_own_asks_for_what_its_image_does(image: str) -> None:
    assert demands.of_box(image, None, {}) == demands.of_image(image)


def test_the_conditions_of_a_box_overrule_those_of_its_image() -> None:
    image, own = "nvidia/cuda:12.8.1-devel-ubuntu24.04", {"NVIDIA_REQUIRE_CUDA": "cuda>=12.0"}
    for here in (None, {"CUDA_VERSION": "12.8.1", "NVIDIA_REQUIRE_CUDA": "cuda>=12.8"}):
        found = demands.of_box(image, here, own)
        assert found and (found.cuda, found.requires) == ("12.8", ("cuda>=12.0",))
    # one that is empty is none to NVIDIA's hook, and the image one of before 2018
    found = demands.of_box(image, {"CUDA_VERSION": "12.8.1"}, {"NVIDIA_REQUIRE_CUDA": ""})
    assert found and found.requires == ("cuda>=12.8",)


# --- drivers, GPUs, sizes


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [
        ("340.29", "6.5"),
        ("340.28", None),
        ("367.35", "7.5"),
        ("367.48", "8.0"),
        ("375.26", "8.0"),
        ("396.26", "9.2"),
        ("470.42.01", "11.4"),
        ("535.54.02", "12.1"),
        ("535.54.03", "12.2"),
        ("580.65.06", "13.0"),
        ("999", "13.3"),
    ],
)
def test_a_driver_knows_the_cuda_it_was_released_with(driver: str, cuda: str | None) -> None:
    assert demands.cuda_of_driver(driver) == cuda


@pytest.mark.parametrize(
    ("model", "capability"),
    [
        ("NVIDIA GeForce GTX 1080 Ti", (6, 1)),
        ("GeForce GTX TITAN X", (5, 2)),
        ("NVIDIA TITAN X (Pascal)", (6, 1)),
        ("Tesla V100-SXM2-16GB", (7, 0)),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", (8, 0)),
        ("NVIDIA A10", (8, 6)),
        ("NVIDIA L40S", (8, 9)),
        ("NVIDIA H100 80GB HBM3", (9, 0)),
        ("NVIDIA GeForce RTX 5070 Ti", (12, 0)),
        ("NVIDIA A10G", None),
        ("", None),
    ],
)
def test_a_gpu_is_known_by_its_name(model: str, capability: tuple[int, int] | None) -> None:
    assert demands.capability_of(model) == capability


def test_every_gpu_of_the_table_is_known_by_its_name() -> None:
    for row in rows("gpu_cc.csv"):
        found = demands.capability_of(f"NVIDIA {row['gpu']}")
        assert found is not None
        assert "{}.{}".format(*found) == row["compute_capability"], row["gpu"]


def test_a_size_is_the_measured_one_or_that_of_the_nearest_of_its_kind() -> None:
    measured = demands.size("nvidia/cuda:11.8.0-devel-ubuntu20.04")
    assert measured == demands.Size(2_920_000_000, 7_370_000_000)
    assert demands.size("nvidia/cuda:11.0.3-devel-ubuntu20.04") == measured
    small = demands.size("nvidia/cuda:12.4.1-base-ubuntu22.04")
    assert small is not None and small.disk < 10**9
    for row in rows("cuda_tags_full.csv"):
        if row["cuda"] and row["flavor"]:
            found = demands.size(f"nvidia/cuda:{row['tag']}")
            assert found is not None and 0 < found.download < found.disk, row["tag"]
