"""Which images there are to run: here and elsewhere, filtered, and each with its verdict."""

from __future__ import annotations

import pytest

from gpubox.gpus.machine import Gpu, Machine
from gpubox.images import offers
from gpubox.images.offers import Here, Offer

GTX = Gpu(index=0, uuid="GPU-0", name="GeForce GTX 1080 Ti", brand="geforce", capability=(6, 1))
A100 = Gpu(index=1, uuid="GPU-1", name="A100", brand="nvidia", capability=(8, 0))
PASCAL = Machine("535.183.01", (12, 2), (GTX,))
MIXED = Machine("535.183.01", (12, 2), (GTX, A100))
CUDA8 = {"CUDA_VERSION": "8.0.61", "CUDNN_VERSION": "5.1.10", "NVIDIA_REQUIRE_CUDA": "cuda>=8.0"}
HERE = {
    "nvidia/cuda:8.0-cudnn5-devel": Here(2_000_000, CUDA8),
    "lab/tool:1": Here(1_000, {"PATH": "/bin"}),
    "lab/own:12": Here(5_000, {"CUDA_VERSION": "12.6.3"}),
}


def by_image(found: list[Offer]) -> dict[str, Offer]:
    assert len({offer.image for offer in found}) == len(found), "each image once"
    return {offer.image: offer for offer in found}


def test_at_first_what_is_here_then_one_for_each_cuda_the_newest_first() -> None:
    found = list(offers.choices(HERE, None))
    assert [offer.image for offer in found[:3]] == list(HERE)
    cudas = [offer.cuda for offer in found[3:]]
    assert cudas[0].startswith("13.4") and cudas[-1] == "6.5"
    minors = [".".join(cuda.split(".")[:2]) for cuda in cudas]
    assert minors == sorted(minors, key=lambda it: [*map(int, it.split("."))], reverse=True)
    assert len(set(minors)) == len(minors) == 33
    by_image(found)


def test_one_of_each_cuda_is_had_by_its_name() -> None:
    named = {offer.cuda: offer.name for offer in offers.choices({}, None)}
    assert named["12.4.1"] == "cuda12.4-cudnn"
    assert named["8.0"] == "cuda8.0-cudnn"
    assert named["6.5"] == "cuda6.5"
    assert named["13.4.1"] == "cuda13.4"  # of its cuDNN nobody has heard


def test_an_image_that_is_here_tells_of_itself() -> None:
    found = by_image(list(offers.choices(HERE, PASCAL)))
    deleted = found["nvidia/cuda:8.0-cudnn5-devel"]
    assert (deleted.local, deleted.size, deleted.state) == (True, 2_000_000, "deleted")
    assert (deleted.when, deleted.runs) == ("June 2023", "yes")
    own = found["lab/own:12"]
    assert (own.cuda, own.runs, own.reason) == ("12.6.3", "no", "the driver knows CUDA 12.2")
    assert found["lab/tool:1"].runs == "not known"


def test_whether_it_runs_here_is_told_for_every_tag() -> None:
    every = by_image(list(offers.all_of({}, PASCAL)))
    assert len(every) == 2271
    verdicts = {image: (offer.runs, offer.reason) for image, offer in every.items()}
    assert verdicts["nvidia/cuda:12.4.1-base-ubuntu22.04"] == ("yes", "")
    assert verdicts["nvidia/cuda:13.0.2-base-ubuntu22.04"] == (
        "no",
        "the driver knows CUDA 12.2; no code for GeForce GTX 1080 Ti (Pascal, 6.1)",
    )
    assert verdicts["nvidia/cuda:7.5-devel"] == (
        "perhaps",
        "made before GeForce GTX 1080 Ti (Pascal, 6.1)",
    )
    assert verdicts["nvidia/cuda:latest"] == ("not known", "")


def test_of_a_mixed_machine_the_gpus_that_run_it_are_named() -> None:
    every = by_image(list(offers.all_of({}, MIXED)))
    assert every["nvidia/cuda:12.6.3-base-ubuntu24.04"].reason == "on GPU 1"
    assert every["nvidia/cuda:8.0-devel"].reason == "on GPU 0"
    assert every["nvidia/cuda:12.4.1-base-ubuntu22.04"].reason == ""
    unsure = every["nvidia/cuda:13.3.0-cudnn-devel-ubuntu24.04"]
    assert (unsure.runs, unsure.reason) == ("perhaps", "the driver knows CUDA 12.2")


def test_without_an_engine_what_is_here_is_not_known() -> None:
    assert {offer.local for offer in offers.all_of(None, None)} == {None}
    assert {offer.local for offer in offers.all_of({}, None)} == {False}


@pytest.mark.parametrize(
    ("words", "fitting", "others"),
    [
        ("12.4", "12.4.1-base-ubuntu22.04 12.4.0-devel-ubi8", "12.5.0-base-ubuntu22.04"),
        ("12", "12.9.1-base-ubuntu22.04 12.0.0-base-ubi8", "11.8.0-base-ubuntu22.04 latest"),
        ("8", "8.0-devel 8.0-cudnn5-devel-ubuntu14.04", "11.8.0-base-ubuntu22.04"),
        ("cuda12.4-cudnn", "12.4.1-cudnn-devel-ubuntu22.04", "12.4.1-devel-ubuntu22.04"),
        ("cudnn8", "11.8.0-cudnn8-devel-ubi8", "12.4.1-cudnn-devel-ubuntu22.04"),
        ("cudnn8.9", "12.2.2-cudnn8-devel-ubi8", "11.7.1-cudnn8-devel-ubi8"),
        ("cudnn9", "12.4.1-cudnn-devel-ubuntu22.04", "11.8.0-cudnn8-devel-ubi8"),
        ("12.4 runtime ubi", "12.4.1-runtime-ubi9", "12.4.1-runtime-ubuntu22.04"),
        ("ubuntu22.04", "12.4.1-runtime-ubuntu22.04", "12.4.1-runtime-ubuntu20.04"),
        ("8.0 deleted", "8.0-devel", "12.4.1-base-ubuntu22.04"),
        ("live cudnn8", "11.8.0-cudnn8-devel-ubuntu22.04", "10.2-cudnn8-devel"),
        ("nvidia/cuda:12.4.1-base-ubi8", "12.4.1-base-ubi8", "12.4.1-base-ubi9"),
        ("CUDA12.4-CUDNN", "12.4.1-cudnn-devel-ubuntu22.04", "12.4.1-devel-ubuntu22.04"),
    ],
)
def test_a_filter_is_the_words_of_a_name_a_state_or_a_part(
    words: str, fitting: str, others: str
) -> None:
    found = by_image(offers.matching(offers.all_of({}, None), words.split()))
    for tag in fitting.split():
        assert f"nvidia/cuda:{tag}" in found
    for tag in others.split():
        assert f"nvidia/cuda:{tag}" not in found


def test_what_is_here_is_filtered_too() -> None:
    here = [offer.image for offer in offers.matching(offers.all_of(HERE, None), ["local"])]
    assert here == list(HERE)
    assert [it.image for it in offers.matching(offers.all_of(HERE, None), ["own"])] == [
        "lab/own:12"
    ]
    assert offers.matching(offers.all_of(HERE, None), ["nothing-like-it"]) == []
