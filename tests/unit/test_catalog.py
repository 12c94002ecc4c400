"""The catalogue of `nvidia/cuda`: names become images, and what was deleted is known as such."""

from __future__ import annotations

import csv
import runpy
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubox.images import catalog
from gpubox.images.catalog import (
    CudaChoice,
    CudaImageError,
    TagStatus,
    image,
    parse_name,
    status,
    successor,
)

ROOT = Path(__file__).resolve().parents[2]


def rows(name: str) -> list[dict[str, str]]:
    with (ROOT / "data" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


TAGS = rows("cuda_tags_full.csv")


def named(name: str) -> str:
    choice = parse_name(name)
    assert choice is not None, name
    return image(choice)


def test_the_shipped_catalogue_is_what_the_script_makes_of_the_csv_files() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "catalog.py"))
    shipped = ROOT / "src" / "gpubox" / "images" / "data" / "cuda.json"
    assert shipped.read_bytes().decode() == script["catalogue"]()


def test_every_tag_reads_as_its_parts_and_prints_back() -> None:
    assert len(TAGS) == 2271
    for row in TAGS:
        tag = catalog.parse_tag(row["tag"])
        assert tag is not None, row["tag"]
        assert str(tag) == row["tag"]
        assert [*tag] == [row[field] for field in tag._fields], row["tag"]


def test_only_the_aliases_of_the_first_years_leave_out_the_version_or_the_flavor() -> None:
    short = {row["tag"] for row in TAGS if not (row["cuda"] and row["flavor"])}
    versions = {"latest", "6.5", "7.0", "7.5", "8.0"}
    bare = {"devel", "runtime", "cudnn", "cudnn-devel", "cudnn-runtime"}
    assert {it.split("-")[0] if it[0].isdigit() else it for it in short} == versions | bare


@pytest.mark.parametrize(
    "text", ["", "-", "8.0-", "8.0-devel-cudnn5", "devel-8.0", "8.0-devel-devel", "8.0-dev", "v8.0"]
)
def test_what_is_out_of_order_or_unheard_of_is_no_tag(text: str) -> None:
    assert catalog.parse_tag(text) is None


def test_every_tag_has_the_state_that_the_evidence_gives_it() -> None:
    for row in TAGS:
        found = status(f"nvidia/cuda:{row['tag']}")
        if row["status"] == "available" and row["proof"] == "listing":
            assert found == TagStatus("live", row["last_seen_live"])
        else:
            state = "deleted" if row["status"] == "removed" else "unknown"
            assert found.state == state, row["tag"]


NAMES = {
    "cuda8-cudnn5": "8.0-cudnn5-devel",
    "cuda8.0-cudnn5": "8.0-cudnn5-devel",
    "cuda8.0-cudnn6": "8.0-cudnn6-devel",
    "cuda8": "8.0-devel",
    "cuda8-cudnn5-ubuntu14.04": "8.0-cudnn5-devel-ubuntu14.04",
    "cuda8-base-centos7": "8.0-base-centos7",
    "cuda6.5": "6.5-devel",
    "cuda7.5-cudnn": "7.5-cudnn6-devel",
    "cuda9": "9.2-devel",
    "cuda9.0-base": "9.0-base",
    "cuda9.2-cudnn7": "9.2-cudnn7-devel",
    "cuda10.1-cudnn8": "10.1-cudnn8-devel-ubuntu18.04",
    "cuda10.2-cudnn7-runtime": "10.2-cudnn7-runtime",
    "cuda11.0": "11.0.3-devel-ubuntu20.04",
    "cuda11.1-cudnn8-ubuntu18.04": "11.1.1-cudnn8-devel-ubuntu18.04",
    "cuda11.3.0": "11.3.0-devel",
    "cuda11.4.1-cudnn": "11.4.1-cudnn8-devel-ubuntu20.04",
    "cuda11.6-ubuntu18.04": "11.6.2-devel-ubuntu18.04",
    "cuda11.6.1-ubuntu18.04": "11.6.1-devel-ubuntu18.04",
    "cuda11.7": "11.7.1-devel-ubuntu20.04",
    "cuda11.8-cudnn8": "11.8.0-cudnn8-devel-ubuntu22.04",
    "cuda11": "11.8.0-devel-ubuntu22.04",
    "cuda12.0-cudnn8-ubi8": "12.0.1-cudnn8-devel-ubi8",
    "cuda12.2-cudnn8": "12.2.2-cudnn8-devel-ubuntu22.04",
    "cuda12-cudnn8": "12.2.2-cudnn8-devel-ubuntu22.04",
    "cuda12.3-cudnn9": "12.3.2-cudnn9-devel-ubuntu22.04",
    "cuda12.3-cudnn": "12.3.2-cudnn9-devel-ubuntu22.04",
    "cuda12.4-cudnn": "12.4.1-cudnn-devel-ubuntu22.04",
    "cuda12.4-cudnn9": "12.4.1-cudnn-devel-ubuntu22.04",
    "cuda12.4-cudnn-ubuntu22.04": "12.4.1-cudnn-devel-ubuntu22.04",
    "cuda12.4-runtime": "12.4.1-runtime-ubuntu22.04",
    "cuda12.4.0": "12.4.0-devel-ubuntu22.04",
    "cuda12.5": "12.5.1-devel-ubuntu22.04",
    "cuda12.6-cudnn": "12.6.3-cudnn-devel-ubuntu24.04",
    "cuda12": "12.9.1-devel-ubuntu24.04",
    "cuda12-cudnn": "12.9.2-cudnn-devel-ubuntu24.04",
    "cuda12.9-cudnn-runtime": "12.9.1-cudnn-runtime-ubuntu24.04",
    "cuda12-cudnn9-runtime-rockylinux9": "12.9.1-cudnn-runtime-rockylinux9",
    "cuda13": "13.1.0-devel-ubuntu24.04",
    "cuda13.0.0": "13.0.0-devel-ubuntu24.04",
    "cuda13.0.0-runtime": "13.0.0-runtime-ubuntu24.04",
    "cuda13-cudnn": "13.3.0-cudnn-devel-ubuntu24.04",
    "cuda13.0-ubuntu22.04-base": "13.0.2-base-ubuntu22.04",
}


@pytest.mark.parametrize(("name", "tag"), NAMES.items())
def test_a_name_becomes_the_tag_of_its_era(name: str, tag: str) -> None:
    assert named(name) == f"nvidia/cuda:{tag}"


@pytest.mark.parametrize(("name", "tag"), NAMES.items())
def test_an_image_chosen_by_name_is_one_that_was_listed(name: str, tag: str) -> None:
    del name
    assert tag in {row["tag"] for row in TAGS}


def test_a_name_reads_as_a_choice_in_any_order_of_its_parts() -> None:
    choice = CudaChoice("12.4", "", "runtime", "ubuntu22.04")
    assert parse_name("cuda12.4-cudnn-runtime-ubuntu22.04") == choice
    assert parse_name("ubuntu22.04-runtime-cudnn-cuda12.4") == choice
    assert parse_name("cuda8.0-cudnn5") == CudaChoice("8.0", "5")


OTHERS = """pytorch cuda cudnn8 8.0-cudnn5 cuda-8 cuda8- cuda8-cuda9 cuda8-cudnn5-cudnn6 mycuda8
    cuda11.0-rc cuda13.0-tensorrt cuda12.4-torch CUDA8"""


@pytest.mark.parametrize("name", ["", "cuda8 ", *OTHERS.split()])
def test_other_names_are_left_to_others(name: str) -> None:
    assert parse_name(name) is None


@settings(deadline=None)  # the first refusal reads the whole catalogue
@given(
    st.builds(
        CudaChoice,
        cuda=st.from_regex(r"[1-9]\d?(\.\d){0,2}", fullmatch=True),
        cudnn=st.none() | st.sampled_from(["", "5", "8", "9"]),
        flavor=st.sampled_from(["base", "runtime", "devel"]),
        os=st.none() | st.sampled_from(["ubuntu22.04", "ubi9", "cm2", "amzn2023"]),
    )
)
def test_any_choice_has_a_name_that_reads_back_and_an_image_or_a_reason(choice: CudaChoice) -> None:
    assert parse_name(catalog.name(choice)) == choice
    try:
        found = catalog.parse_tag(image(choice).removeprefix("nvidia/cuda:"))
    except CudaImageError as error:
        assert error.problem.startswith("nvidia/cuda has no ")
        assert error.hint
    else:
        assert found is not None
        assert f"{found.cuda}.".startswith(f"{choice.cuda}.")
        assert found.flavor == choice.flavor
        assert found.os == (choice.os or found.os)
        assert bool(found.addon) == (choice.cudnn is not None)


def test_the_os_that_nvidia_meant_by_a_tag_without_one_is_the_one_chosen() -> None:
    said = {row["cuda_version"]: row["default_os"].split()[0] for row in rows("cuda_tags.csv")}
    live = {row["cuda"] for row in TAGS if row["status"] == "available"}
    checked = [it for it, os in said.items() if it in live and os.startswith("ubuntu")]
    assert checked == ["11.0.3", "11.1.1", "11.2.2", "11.3.1"]
    for version in checked:
        assert image(CudaChoice(version)) == f"nvidia/cuda:{version}-devel-{said[version]}"


def test_of_a_cuda_that_was_listed_in_part_the_rest_is_expected_but_not_known() -> None:
    assert named("cuda13.2") == "nvidia/cuda:13.2.1-devel-ubuntu24.04"
    assert status(named("cuda13.2")).state == "unknown"
    assert named("cuda13.4") == "nvidia/cuda:13.4.1-devel-ubuntu24.04"
    assert status(named("cuda12.9.2-runtime")).state == "unknown"


MEANT = {
    "cuda12.4-cudn": "cuda12.4-cudnn",
    "CUDA12.4": "cuda12.4",
    "Cuda 11.8 cuDNN 8": "cuda11.8-cudnn8",
    "cuda-8.0-cudnn-5": "cuda8.0-cudnn5",
    "cuda11.8-cudnn8.9": "cuda11.8-cudnn8",
    "cuda12.4-cudnn9.1-dev": "cuda12.4-cudnn",
    "cuda12.4-ubuntu-22.04": "cuda12.4-ubuntu22.04",
    "cuda12.4-runtme-": "cuda12.4-runtime",
    "12.4.1-cudnn-devel-ubuntu22.04": "cuda12.4.1-cudnn-ubuntu22.04",
    "cuda12.7-cudn": "",
    "cuda12.4-cudnn-8": "",
    "cuda12.4-torch": "",
    "cuda12.4-rc": "",
    **dict.fromkeys(("", "-", "2", "cuda", "train", "nvidia-smi", "pytorch"), ""),
}


@pytest.mark.parametrize(("word", "name"), MEANT.items())
def test_what_almost_reads_as_a_name_is_near_to_one_that_nvidia_has(word: str, name: str) -> None:
    assert catalog.nearest_name(word) == name


def test_what_nobody_has_heard_of_is_in_no_list() -> None:
    assert sorted(str(it.tag) for it in catalog.listed()) == sorted(row["tag"] for row in TAGS)


REFUSED = {
    "cuda12.7": ("cuda", "CUDA 12.7", "the nearest: CUDA 12.6 and 12.8"),
    "cuda12.4.7": ("cuda", "CUDA 12.4.7", "there is: 12.4.0, 12.4.1"),
    "cuda99": ("cuda", "CUDA 99", "the nearest: CUDA 13.4"),
    "cuda5.5": ("cuda", "CUDA 5.5", "the nearest: CUDA 6.5"),
    "cuda6.5-base": ("flavor", "flavor 'base' of CUDA 6.5", "there is: devel, runtime"),
    "cuda12.4-base-cudnn": (
        "flavor",
        "'cuda12.4-cudnn-base'",
        "flavors with cuDNN: devel, runtime",
    ),
    "cuda12.4-cudnn8": (
        "cudnn",
        "cuDNN 8 for CUDA 12.4",
        "CUDA 12.4 has cuDNN 9; cuDNN 8 is in CUDA 10.1 to 12.2",
    ),
    "cuda12.4.0-cudnn": (
        "cudnn",
        "cuDNN for CUDA 12.4.0",
        "CUDA 12.4.0 has none; CUDA 12.4.1 has it",
    ),
    "cuda8-cudnn4": (
        "cudnn",
        "cuDNN 4 for CUDA 8",
        "CUDA 8 has cuDNN 5, 6, 7; cuDNN 4 is in CUDA 7.0 to 7.5",
    ),
    "cuda12.2-cudnn89": (
        "cudnn",
        "cuDNN 89 for CUDA 12.2",
        "CUDA 12.2 has cuDNN 8; a cuDNN is named by its major number",
    ),
    "cuda12.4-ubuntu24.04": ("os", "'cuda12.4' on 'ubuntu24.04'", "did you mean 'ubuntu22.04'?"),
    "cuda8-base": ("os", "'cuda8-base' on 'ubuntu'", "there is: centos6, centos7, ubi7"),
}


@pytest.mark.parametrize(("name", "said"), REFUSED.items())
def test_what_nvidia_never_had_is_refused_with_what_it_has(
    name: str, said: tuple[str, str, str]
) -> None:
    key, value, hint = said
    with pytest.raises(CudaImageError) as caught:
        named(name)
    assert caught.value.key == key
    assert caught.value.problem.startswith("nvidia/cuda has no ")
    assert value in caught.value.problem
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("choice", "hint"),
    [
        (CudaChoice("8.0", flavor="dev"), "did you mean 'devel'?"),
        (CudaChoice("12.4", os="debian12"), "there is: centos7, rockylinux8, "),
        (CudaChoice("newest"), "a CUDA version is said as in '13.4'"),
        (CudaChoice(""), "a CUDA version is said as in '13.4'"),
        (CudaChoice("12.4", "8.9"), "CUDA 12.4 has cuDNN 9; a cuDNN is named by its major number"),
    ],
)
def test_words_that_only_yaml_can_say_are_refused_as_kindly(choice: CudaChoice, hint: str) -> None:
    with pytest.raises(CudaImageError) as caught:
        image(choice)
    assert caught.value.hint.startswith(hint)


def test_each_cudnn_came_with_an_unbroken_row_of_cudas_as_the_hints_say() -> None:
    minors = groupby(
        rows("cuda_tags.csv"), lambda row: ".".join(row["cuda_version"].split(".")[:2])
    )
    had = [{n for row in them for n in row["cudnn_majors"].split("|")} for _, them in minors]
    for major in "23456789":
        places = [place for place, majors in enumerate(had) if major in majors]
        assert places == list(range(places[0], places[-1] + 1)), major


@pytest.mark.parametrize(
    ("tag", "when"),
    [
        ("8.0-cudnn5-devel", "June 2023"),
        ("8.0-cudnn5-devel-ubuntu16.04", "June 2023"),
        ("8.0-cudnn5-devel-ubuntu22.04", "June 2023"),
        ("10.2-base", "June 2023"),
        ("11.0-base", "mid-2022"),
        ("11.1-devel", "late 2021 or early 2022"),
        ("11.0.3-devel-centos8", "2023, 2024 or 2025"),
        ("latest", "January 2021"),
        ("cudnn", None),
    ],
)
def test_a_deleted_tag_says_when_it_was_deleted(tag: str, when: str | None) -> None:
    assert status(f"nvidia/cuda:{tag}") == TagStatus("deleted", when)


@pytest.mark.parametrize(
    "registry", ["", "docker.io/", "index.docker.io/", "registry-1.docker.io/"]
)
def test_docker_hub_by_any_of_its_names_is_the_same_place(registry: str) -> None:
    assert status(f"{registry}nvidia/cuda:8.0-cudnn5-devel").state == "deleted"
    assert status(f"{registry}nvidia/cuda").state == "deleted"  # that is `latest`
    assert status(f"{registry}nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04").state == "live"


@pytest.mark.parametrize(
    "reference",
    [
        "nvcr.io/nvidia/cuda:8.0-cudnn5-devel",
        "mirror.lab:5000/nvidia/cuda:8.0-cudnn5-devel",
        "nvidia/cuda-ppc64le:8.0-devel",
        "mine/nvidia/cuda:8.0-devel",
        "ubuntu:22.04",
        "nvidia/cuda:8.0-devel@sha256:" + "0" * 64,
        "nvidia/cuda:mine",
        "nvidia/cuda:99.0-devel",
        "nvidia/cuda:11.0.3-devel",
        "nvidia/cuda:12.9.1-devel-ubuntu26.04",
        "",
    ],
)
def test_of_any_other_image_nothing_is_claimed(reference: str) -> None:
    assert status(reference) == TagStatus("unknown")
    assert successor(reference) is None


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("8.0-cudnn5-devel", "cuda12-cudnn"),
        ("8.0", "cuda12"),
        ("latest", "cuda12"),
        ("cudnn-runtime", "cuda12-cudnn-runtime"),
        ("10.2-base-ubuntu18.04", "cuda12-base"),
        ("7.5-cudnn5-runtime-centos7", "cuda12-cudnn-runtime-rockylinux9"),
        ("11.2.0-devel-ubi8", "cuda12-ubi9"),
    ],
)
def test_a_deleted_image_has_a_successor_of_its_kind(tag: str, name: str) -> None:
    assert successor(f"nvidia/cuda:{tag}") == name


def test_every_deleted_image_has_a_live_successor_and_no_other_image_has_one() -> None:
    for row in TAGS:
        name = successor(f"nvidia/cuda:{row['tag']}")
        if row["status"] == "removed":
            assert name is not None, row["tag"]
            assert status(named(name)).state == "live", row["tag"]
        else:
            assert name is None, row["tag"]


@pytest.mark.parametrize(
    ("name", "versions"),
    [
        ("cuda12-cudnn", "12.9.2 12.8.1 12.6.3 12.5.1 12.4.1 12.3.2 12.2.2 12.1.1 12.0.1"),
        ("cuda12-cudnn8", "12.2.2 12.1.1 12.0.1"),
        ("cuda12-base-cm2", "12.9.1 12.8.1 12.6.3"),
        ("cuda13", "13.1.0 13.0.2"),
        ("cuda12.4-cudnn", "12.4.1"),
        ("cuda12.4.0", "12.4.0"),
        ("cuda10-cudnn7", "10.2"),  # none of them lives
        ("cuda8", "8.0"),
    ],
)
def test_an_open_choice_leaves_the_live_images_of_each_cuda_to_the_machine(
    name: str, versions: str
) -> None:
    choice = parse_name(name)
    assert choice is not None
    found = catalog.candidates(choice)
    tags = [catalog.parse_tag(it.removeprefix("nvidia/cuda:")) for it in found]
    assert [tag.cuda for tag in tags if tag] == versions.split()
    assert found[0] == image(choice)
    if len(found) > 1:
        assert {status(it).state for it in found} == {"live"}


def test_auto_is_every_cuda_that_lives() -> None:
    found = catalog.candidates(CudaChoice("auto", ""))
    assert found[0] == "nvidia/cuda:13.3.0-cudnn-devel-ubuntu24.04"
    assert found[-1] == "nvidia/cuda:11.0.3-cudnn8-devel-ubuntu20.04"
    assert len(found) == len(set(found)) == 22
