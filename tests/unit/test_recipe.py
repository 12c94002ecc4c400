"""A deleted image's name becomes a Dockerfile with the right packages, or a reason why not."""

from __future__ import annotations

import csv
import re
import runpy
from pathlib import Path

import pytest

from gpubox.cli import invoke
from gpubox.errors import EngineError, UsageError
from gpubox.images.recipe import BUILT_FROM, MACHINES, NVIDIA, Recipe, check_machine, recipe

ROOT = Path(__file__).resolve().parents[2]
BUILT = ("8.0", "9.0", "9.1", "9.2", "10.0", "10.1", "10.2")
ON = {"9.2": ("16.04", "18.04"), "10.0": ("16.04", "18.04")}
ON |= {"10.1": ON["10.0"], "10.2": ON["10.0"]}


def rows(name: str) -> list[dict[str, str]]:
    with (ROOT / "data" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


TAGS = [row for row in rows("cuda_tags_full.csv") if row["cuda"] in BUILT]


def made(tag: str) -> Recipe:
    return recipe(f"nvidia/cuda:{tag}")


def installed(found: Recipe) -> dict[str, str]:
    """All that apt is told to install, with the version; empty where none is said."""
    lines = found.dockerfile.replace("\\\n", " ")
    lines = lines.replace("$(test -e /usr/lib/apt/methods/https || echo apt-transport-https)", "")
    words = " ".join(re.findall(r"--no-install-recommends (.*?)(?: && |\n)", lines)).split()
    return {name: version for name, _, version in (word.partition("=") for word in words)}


def test_the_shipped_packages_are_what_the_script_makes_of_the_csv_file() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "catalog.py"))
    shipped = ROOT / "src" / "gpubox" / "images" / "data" / "packages.json"
    assert shipped.read_bytes().decode() == script["packages"]()


def can_be_made(row: dict[str, str]) -> bool:
    systems = ON.get(row["cuda"], ("16.04",))
    return row["os"] in ("", *(f"ubuntu{version}" for version in systems))


def test_every_deleted_tag_gives_a_dockerfile_or_a_reason() -> None:
    count = 0
    for row in TAGS:
        assert row["status"] == "removed"
        if can_be_made(row):
            found = made(row["tag"])
            assert found.image == f"nvidia/cuda:{row['tag']}"
            assert f'CUDA_VERSION="{row["cuda"]}.' in found.dockerfile
            assert ("CUDNN_VERSION" in found.dockerfile) == bool(row["addon"])
            count += 1
        else:
            with pytest.raises(UsageError) as caught:
                made(row["tag"])
            assert caught.value.problem and caught.value.hint, row["tag"]
    assert (count, len(TAGS)) == (107, 313)


# Read by hand from the archived files: tag, base, how many packages, some of them with versions.
HAND_CHECKED = [
    (
        "8.0-cudnn5-devel",
        "ubuntu:16.04",
        25,
        "cuda-cusolver-8-0=8.0.61-1 cuda-cublas-8-0=8.0.61.2-1 cuda-cublas-dev-8-0=8.0.61.2-1"
        " cuda-cudart-dev-8-0=8.0.61-1 cuda-core-8-0=8.0.61-1 libcudnn5=5.1.10-1+cuda8.0"
        " libcudnn5-dev=5.1.10-1+cuda8.0",
    ),
    ("8.0", "ubuntu:16.04", 23, "cuda-core-8-0=8.0.61-1 cuda-cusolver-dev-8-0=8.0.61-1"),
    (
        "8.0-cudnn6-runtime-ubuntu16.04",
        "ubuntu:16.04",
        10,
        "libcudnn6=6.0.21-1+cuda8.0 cuda-cusolver-8-0=8.0.61-1 cuda-npp-8-0=8.0.61-1",
    ),
    ("8.0-cudnn7-devel", "ubuntu:16.04", 25, "libcudnn7-dev=7.2.1.38-1+cuda8.0"),
    ("9.0-base", "ubuntu:16.04", 1, "cuda-cudart-9-0=9.0.176-1"),
    (
        "9.0-cudnn7-devel",
        "ubuntu:16.04",
        13,
        "cuda-libraries-9-0=9.0.176-1 cuda-cublas-9-0=9.0.176-1 cuda-minimal-build-9-0=9.0.176-1"
        " libcudnn7=7.6.4.38-1+cuda9.0 libcudnn7-dev=7.6.4.38-1+cuda9.0",
    ),
    (
        "9.1-cudnn7-runtime",
        "ubuntu:16.04",
        6,
        "cuda-libraries-9-1=9.1.85-1 libcudnn7=7.1.2.21-1+cuda9.1",
    ),
    ("9.1-devel", "ubuntu:16.04", 12, "cuda-nvprof-9-1=9.1.85-1 cuda-cublas-dev-9-1=9.1.85-1"),
    ("9.2-runtime", "ubuntu:16.04", 7, "cuda-nvtx-9-2=9.2.148-1 libnccl2=2.4.8-1+cuda9.2"),
    (
        "9.2-cudnn7-devel-ubuntu18.04",
        "ubuntu:18.04",
        17,
        "libcudnn7-dev=7.6.5.32-1+cuda9.2 libnccl-dev=2.4.8-1+cuda9.2",
    ),
    (
        "10.0-cudnn7-devel",
        "ubuntu:18.04",
        17,
        "cuda-cublas-10-0=10.0.130-1 libcudnn7=7.6.5.32-1+cuda10.0 libnccl2=2.6.4-1+cuda10.0",
    ),
    ("10.0-base-ubuntu16.04", "ubuntu:16.04", 1, "cuda-cudart-10-0=10.0.130-1"),
    (
        "10.1-devel",
        "ubuntu:18.04",
        15,
        "libcublas10=10.2.1.243-1 libcublas-dev=10.2.1.243-1 libnccl-dev=2.8.3-1+cuda10.1",
    ),
    ("10.1-cudnn8-runtime-ubuntu18.04", "ubuntu:18.04", 8, "libcudnn8=8.0.5.39-1+cuda10.1"),
    ("10.1-cudnn7-runtime-ubuntu16.04", "ubuntu:16.04", 8, "libcudnn7=7.6.5.32-1+cuda10.1"),
    (
        "10.2-cudnn8-devel",
        "ubuntu:18.04",
        17,
        "libcudnn8=8.6.0.163-1+cuda10.2 libcublas10=10.2.2.89-1 libnccl2=2.15.5-1+cuda10.2",
    ),
    (
        "10.2-cudnn8-devel-ubuntu16.04",
        "ubuntu:16.04",
        17,
        "libcudnn8=8.4.0.27-1+cuda10.2 libnccl-dev=2.12.10-1+cuda10.2",
    ),
    ("10.2-cudnn7-runtime", "ubuntu:18.04", 8, "libcudnn7=7.6.5.32-1+cuda10.2"),
]
HELPERS = {"ca-certificates", "gnupg"}


@pytest.mark.parametrize(("tag", "base", "count", "pins"), HAND_CHECKED)
def test_an_image_has_what_nvidias_had(tag: str, base: str, count: int, pins: str) -> None:
    found = made(tag)
    packages = installed(found)
    assert found.base == base
    assert found.dockerfile.partition("FROM ")[2].startswith(f"{base}\n")
    assert dict(pin.split("=") for pin in pins.split()).items() <= packages.items()
    assert len(packages.keys() - HELPERS) == count


def test_nothing_of_nvidias_comes_in_whatever_version_there_is() -> None:
    for row in filter(can_be_made, TAGS):
        found = made(row["tag"])
        packages = installed(found)
        assert {name for name, version in packages.items() if not version} <= HELPERS
        held = re.findall(r"apt-mark hold (.*?) \\", found.dockerfile)
        assert set(" ".join(held).split()) == packages.keys() - HELPERS


def test_cusolver_is_in_every_image_that_had_it_in_its_name_or_meant_to() -> None:
    for row in filter(can_be_made, TAGS):
        if row["flavor"] != "base":
            whole = installed(made(row["tag"])).keys()
            libraries = f"cuda-libraries-{row['cuda'].replace('.', '-')}"
            assert "cuda-cusolver-8-0" in whole or libraries in whole


@pytest.mark.parametrize("tag", ["8.0-cudnn5-devel", "9.2-devel-ubuntu18.04", "10.2-cudnn7-devel"])
def test_a_repository_is_trusted_by_those_of_nvidias_keys_that_lie_beside_it(tag: str) -> None:
    """Signed anew in 2022 or not: nobody has told it of each."""
    steps = [step.instruction for step in made(tag).steps if "--export" in step.instruction]
    assert len(steps) == 2
    for step in steps:
        [place] = re.findall(r"'deb \[signed-by=\S+\] (\S+) /'", step)
        assert "for key in 3bf863cc 7fa2af80; do " in step
        assert f" download-file {place}/$key.pub " in step
        assert re.findall(r"\b[0-9A-F]{40}\b", step) == [
            "EB693B3035CD5710E231E123A4B469963BF863CC",
            "AE09FE4BBD223A84B2CCFCE3F60F4B3D7FA2AF80",
        ]


@pytest.mark.parametrize(
    ("tag", "repositories"),
    [
        ("8.0-devel", "cuda/repos/ubuntu1604"),
        ("8.0-cudnn5-runtime", "cuda/repos/ubuntu1604 machine-learning/repos/ubuntu1604"),
        ("9.0-devel", "cuda/repos/ubuntu1604"),
        ("9.2-base-ubuntu18.04", "cuda/repos/ubuntu1710"),
        ("9.2-devel-ubuntu18.04", "cuda/repos/ubuntu1710 machine-learning/repos/ubuntu1604"),
        ("10.1-devel-ubuntu16.04", "cuda/repos/ubuntu1604 machine-learning/repos/ubuntu1604"),
        ("10.2-cudnn8-devel", "cuda/repos/ubuntu1804"),
        ("10.2-cudnn7-devel", "cuda/repos/ubuntu1804 machine-learning/repos/ubuntu1804"),
    ],
)
def test_only_the_repositories_that_are_needed_are_asked(tag: str, repositories: str) -> None:
    text = made(tag).dockerfile
    asked = re.findall(rf"'deb \[signed-by=\S+\] {NVIDIA}/(\S+)/x86_64 /'", text)
    assert asked == repositories.split()
    urls = " ".join(f"{NVIDIA}/{name}" for name in asked)
    assert f'{BUILT_FROM}="{urls}"' in text


def test_the_driver_cannot_come_into_the_image_while_it_is_built() -> None:
    text = made("10.2-devel").dockerfile
    assert text.index("NVIDIA_VISIBLE_DEVICES") > text.rindex("RUN ")
    assert text.index("CUDA_VERSION") > text.rindex("RUN ")


def test_the_classic_builder_understands_it_and_it_needs_no_file() -> None:
    for row in filter(can_be_made, TAGS):
        text = made(row["tag"]).dockerfile
        assert set(re.findall(r"^([A-Z]+) ", text, re.MULTILINE)) == {"FROM", "RUN", "ENV", "LABEL"}
        assert text.count("FROM ") == 1
        assert "gpubox.version" not in text


def test_images_of_one_cuda_begin_alike() -> None:
    one, other = made("8.0-cudnn5-devel").steps, made("8.0-cudnn6-devel").steps
    assert [a == b for a, b in zip(one, other, strict=True)] == [*[True] * 6, *[False] * 4]


REFUSED = {
    "nvidia/cuda:8.0-cudnn5-devel-centos7": (
        "CUDA 8.0 can be made on ubuntu16.04, not on centos7",
        "gpubox build nvidia/cuda:8.0-cudnn5-devel-ubuntu16.04",
    ),
    "nvidia/cuda:8.0-devel-ubuntu14.04": (
        "CUDA 8.0 can be made on ubuntu16.04, not on ubuntu14.04",
        "gpubox build nvidia/cuda:8.0-devel-ubuntu16.04",
    ),
    "nvidia/cuda:10.2-base-ubi8": (
        "CUDA 10.2 can be made on ubuntu18.04 and ubuntu16.04, not on ubi8",
        "gpubox build nvidia/cuda:10.2-base-ubuntu18.04",
    ),
    "nvidia/cuda:8.0-base-centos7": (
        "CUDA 8.0 has no flavor 'base'",
        "there is: runtime and devel",
    ),
    "nvidia/cuda:8.0-cudnn8-devel": (
        "CUDA 8.0 has no 'cudnn8'",
        "there is: cudnn5, cudnn6 and cudnn7",
    ),
    "nvidia/cuda:9.0-cudnn7-base": (
        "nvidia/cuda:9.0-cudnn7-base: base images are without cuDNN",
        "with it: runtime and devel",
    ),
    "nvidia/cuda:7.5-devel": (
        "gpubox build makes images of CUDA 8.0, 9.0, 9.1, 9.2, 10.0, 10.1 and 10.2,"
        " and nvidia/cuda:7.5-devel is none",
        "for new code: gpubox run cuda12",
    ),
    "nvidia/cuda:latest": (
        "gpubox build makes images of CUDA 8.0, 9.0, 9.1, 9.2, 10.0, 10.1 and 10.2,"
        " and nvidia/cuda:latest is none",
        "for new code: gpubox run cuda12",
    ),
    "nvidia/cuda:12.4.1-devel-ubuntu22.04": (
        "nvidia/cuda:12.4.1-devel-ubuntu22.04 is on Docker Hub: there is nothing to build",
        "gpubox pull nvidia/cuda:12.4.1-devel-ubuntu22.04",
    ),
    "nvidia/cuda:13.4.1-devel-ubuntu24.04": (
        "nvidia/cuda:13.4.1-devel-ubuntu24.04 is not known to be deleted:"
        " there is nothing to build",
        "gpubox pull nvidia/cuda:13.4.1-devel-ubuntu24.04",
    ),
    "nvidia/cuda:mine": (
        "nvidia/cuda never had a tag 'mine'",
        "a tag reads as in nvidia/cuda:8.0-cudnn5-devel",
    ),
    "nvcr.io/nvidia/cuda:8.0-devel": (
        "nvcr.io/nvidia/cuda:8.0-devel is none of NVIDIA's deleted nvidia/cuda images,"
        " which gpubox build makes",
        "gpubox pull nvcr.io/nvidia/cuda:8.0-devel",
    ),
    "ubuntu:22.04": (
        "ubuntu:22.04 is none of NVIDIA's deleted nvidia/cuda images, which gpubox build makes",
        "gpubox pull ubuntu:22.04",
    ),
    "Ubuntu:22.04": ("'Ubuntu:22.04': the name of an image is lower-case", ""),
}


@pytest.mark.parametrize(("image", "said"), REFUSED.items())
def test_what_cannot_be_made_is_refused_with_what_can(image: str, said: tuple[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        recipe(image)
    assert (caught.value.problem, caught.value.hint) == said


def test_docker_hub_by_its_other_name_is_the_same_place() -> None:
    same = recipe("docker.io/nvidia/cuda:8.0-devel")
    assert same.steps == made("8.0-devel").steps
    assert same.image == "docker.io/nvidia/cuda:8.0-devel"


def test_another_base_and_another_mirror_take_the_places_of_the_usual_ones() -> None:
    found = recipe("nvidia/cuda:8.0-devel", "mine/xenial:1", "http://mirror.lab:8080/compute/")
    assert "FROM mine/xenial:1\n" in found.dockerfile
    assert NVIDIA not in found.dockerfile
    assert "signed-by=/usr/share/keyrings/cuda.gpg] http://mirror.lab:8080/compute/cuda/" in (
        found.dockerfile
    )
    assert (found.is_checked, made("8.0-devel").is_checked) == (False, True)
    assert "EB693B30" not in found.dockerfile


@pytest.mark.parametrize(
    ("mirror", "problem"),
    [
        ("", "'' is not a URL"),
        ("mirror.lab", "'mirror.lab' is not a URL"),
        ("ftp://mirror.lab", "'ftp://mirror.lab' is not a URL"),
        ("http://", "'http://' is not a URL"),
        ("http://a/$(id)", "is not a URL"),
        ("http://a/'; id; '", "is not a URL"),
        ("http://a\nRUN id", "is not a URL"),
        ("http://a/b c", "is not a URL"),
        ("http://anna:secret@a/b", "a name and password in the URL could be read"),
    ],
)
def test_a_mirror_that_is_no_plain_url_is_refused(mirror: str, problem: str) -> None:
    with pytest.raises(UsageError, match="--apt-mirror: ") as caught:
        recipe("nvidia/cuda:8.0-devel", mirror=mirror)
    assert problem in caught.value.problem
    assert "secret" not in caught.value.problem


@pytest.mark.parametrize("base", ["", "a b", "ubuntu:16.04\nRUN id", "Ubuntu", "ubuntu:16.04 AS x"])
def test_a_base_that_is_no_image_is_refused(base: str) -> None:
    with pytest.raises(UsageError, match="--base: "):
        recipe("nvidia/cuda:8.0-devel", base)


def test_the_packages_fit_one_kind_of_machine() -> None:
    for machine in MACHINES:
        check_machine(machine)
    with pytest.raises(EngineError) as caught:
        check_machine("aarch64")
    assert caught.value.problem == (
        "the packages are for x86_64, and the engine's machine is aarch64"
    )


# The command, as far as it needs no engine -----------------------------------------------------


@pytest.mark.parametrize("word", ["cuda8-cudnn5", "nvidia/cuda:8.0-cudnn5-devel"])
def test_print_shows_the_dockerfile_without_an_engine(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["build", "--print", word]) == 0
    out, err = capsys.readouterr()
    assert out == made("8.0-cudnn5-devel").dockerfile
    assert err == ""


def test_that_the_keys_of_a_mirror_are_not_checked_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert invoke(["build", "--print", "--apt-mirror", "http://a/b", "cuda8-cudnn5"]) == 0
    assert capsys.readouterr().err == (
        "not checked to be NVIDIA's: the signing keys, from http://a/b\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cuda8-cudn5"], "no profile 'cuda8-cudn5'\n  did you mean 'cuda8-cudnn5'?"),
        (["cuda12"], "is on Docker Hub: there is nothing to build\n  gpubox pull nvidia/cuda:12"),
        ([], "missing argument 'PROFILE|IMAGE'"),
        (["pytorch"], "is none of NVIDIA's deleted nvidia/cuda images"),
        (["--base", "a b", "cuda8-cudnn5"], "--base: 'a b' is not an image"),
    ],
)
def test_a_mistake_is_bad_usage_before_any_engine_is_asked(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["build", *words]) == 2
    assert said in capsys.readouterr().err
