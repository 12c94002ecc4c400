"""What cannot work is told before the download, all of it at once; and it can be gone past.

NVML is simulated below its binding, so that the machine is the one that the test names.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import docker
import pytest

from lab.engine import Kind, PrivateEngine
from lab.images import STAND_IN, build_stand_in, hand_over
from lab.nvml import MACHINES, Machine
from lab.program import Gpubox
from lab.registry import Registry

OLD = "take CUDA 7.5 or older: gpubox images lists what runs here"
RUN = ("run", "--gpus", "all")
PASS = "; or go past this check: --ignore"

Nvml = Callable[[Machine], dict[str, str]]
Done = subprocess.CompletedProcess[bytes]


@pytest.fixture(autouse=True)
def _only_the_stand_in(used_engine: PrivateEngine) -> Iterator[None]:
    yield
    client = docker.DockerClient(base_url=used_engine.host)
    for name in {tag for image in client.images.list() for tag in image.tags} - {STAND_IN}:
        client.images.remove(name, force=True)
    client.close()


def said(done: Done, code: int = 125) -> list[str]:
    text = done.stderr.decode()
    assert (done.returncode, done.stdout) == (code, b""), text
    return text.splitlines()


def boxes(engine: PrivateEngine) -> int:
    client = docker.DockerClient(base_url=engine.host)
    try:
        return len(client.containers.list(all=True))
    finally:
        client.close()


def test_a_driver_that_is_too_old_for_an_image_that_is_here_is_told_by_the_image_itself(
    engine: PrivateEngine, gpubox: Gpubox, nvml: Nvml
) -> None:
    done = gpubox(*RUN, "--rm", "cuda8-cudnn5", "true", env=nvml(MACHINES["1080ti-367.35"]))
    problem = f"{STAND_IN} asks for CUDA 8.0, and the driver here, 367.35, knows CUDA 7.5"
    fix = f"{OLD}; or update the driver to 367.48 or newer"
    if engine.kind == "stable":
        assert said(done) == [f"gpubox: {problem}", f"  {fix}{PASS} driver"]
        assert boxes(engine) == 0
    else:  # by CDI nobody asks, and programs may fail
        assert done.returncode == 0
        assert done.stderr.decode() == (
            f"warning: programs in {STAND_IN} need driver 367.48 or newer: the driver here, 367.35,"
            f" knows CUDA 7.5; {fix}\n"
        )


def test_who_knows_better_goes_past_a_check(gpubox: Gpubox, nvml: Nvml) -> None:
    there = nvml(MACHINES["1080ti-367.35"])
    done = gpubox(*RUN, "--rm", "--ignore", "driver", "cuda8-cudnn5", "echo", "hello", env=there)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")


def test_a_driver_that_is_new_enough_is_not_spoken_of(gpubox: Gpubox, nvml: Nvml) -> None:
    there = nvml(MACHINES["1080ti-367.48"])
    done = gpubox(*RUN, "--rm", "cuda8-cudnn5", "echo", "hello", env=there)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")


def test_the_conditions_can_be_switched_off_as_nvidia_does(gpubox: Gpubox, nvml: Nvml) -> None:
    words = (*RUN, "--rm", "-e", "NVIDIA_DISABLE_REQUIRE=1", "cuda8-cudnn5", "true")
    done = gpubox(*words, env=nvml(MACHINES["1080ti-367.35"]))
    assert done.returncode == 0
    assert done.stderr.startswith(b"warning: programs in ")


def test_a_newer_gpu_than_the_image_is_a_warning(gpubox: Gpubox, nvml: Nvml) -> None:
    done = gpubox(*RUN, "--rm", "cuda8-cudnn5", "true", env=nvml(MACHINES["a100-535"]))
    assert done.returncode == 0
    assert done.stderr.decode() == (
        f"warning: {STAND_IN} was made before A100-SXM4-40GB (Ampere, 8.0): its CUDA 8.0 ends at"
        " compute capability 6.2, so programs fail, or are compiled for minutes when they first"
        " start; take a newer CUDA: gpubox images lists what runs here\n"
    )
    quiet = gpubox(
        *(*RUN, "--rm", "--ignore", "gpu", "cuda8-cudnn5", "true"),
        env=nvml(MACHINES["a100-535"]),
    )
    assert (quiet.returncode, quiet.stderr) == (0, b"")


def test_without_a_gpu_no_driver_is_asked(gpubox: Gpubox, nvml: Nvml) -> None:
    words = ("run", "--rm", "--gpus", "none", "cuda8-cudnn5", "true")
    done = gpubox(*words, env=nvml(MACHINES["1080ti-367.35"]))
    assert (done.returncode, done.stderr) == (0, b"")


def test_only_the_gpus_of_the_box_are_asked(
    stable_engine: PrivateEngine, gpubox: Gpubox, nvml: Nvml
) -> None:
    there = nvml(MACHINES["1080ti+a100-535"])
    image = "nvidia/cuda:12.6.3-devel-ubuntu24.04"
    build_stand_in(stable_engine.host, image)
    words = (*RUN, "--rm", "-e", "NVIDIA_REQUIRE_CUDA=cuda>=12.6 brand=nvidia,driver>=535")
    assert gpubox(*words, "--gpus", "device=1", image, "true", env=there).returncode == 0
    assert said(gpubox(*words, "--gpus", "device=2", image, "true", env=there)) == [
        "gpubox: this machine has no GPU 2", f"  gpubox gpus lists its GPUs{PASS} gpu"
    ]  # fmt: skip
    refusal = said(gpubox(*words, "--gpus", "all", image, "true", env=there))
    assert refusal == said(gpubox(*words, "--gpus", "2", image, "true", env=there))
    assert refusal[0].endswith("too old for GeForce GTX 1080 Ti (Pascal, 6.1)")
    assert refusal[1] == f"  for it leave out that one: --gpus device=1{PASS} driver"


def test_before_a_pull_everything_is_told_at_once(
    engine: PrivateEngine, gpubox: Gpubox, nvml: Nvml
) -> None:
    there = nvml(MACHINES["1080ti-580"])
    image = "nvidia/cuda:13.1.0-devel-ubuntu24.04"
    done = gpubox(*RUN, "-v", "./nowhere:/data", image, "true", env=there)
    lines = said(done)
    problems = [line for line in lines if line.startswith("gpubox: ")]
    about_the_driver = engine.kind == "stable"
    assert len(lines) == 2 * len(problems) == (6 if about_the_driver else 4)
    assert f"no folder {gpubox.cwd}/nowhere on this machine" in problems[0]
    assert f"{image} has no code for GeForce GTX 1080 Ti (Pascal, 6.1)" in problems[-1]
    assert not any("pulling" in line for line in lines)
    assert boxes(engine) == 0
    line = gpubox(*RUN, "--dry-run", image, "true", env=there)
    assert line.stdout.endswith(f"{image} true\n".encode())
    for warning, problem in zip(line.stderr.decode().splitlines(), problems[1:], strict=True):
        assert warning.startswith(problem.replace("gpubox: ", "warning: "))


def test_a_deleted_image_and_a_driver_that_is_too_old_for_it_are_told_together(
    stable_engine: PrivateEngine, gpubox: Gpubox, nvml: Nvml
) -> None:
    done = gpubox(*RUN, "cuda9.0-cudnn7", "true", env=nvml(MACHINES["1080ti-367.48"]))
    lines = said(done)
    assert [line for line in lines if line.startswith("gpubox")] == [
        "gpubox: nvidia/cuda:9.0-cudnn7-devel asks for CUDA 9.0, and the driver here, 367.48, knows"
        " CUDA 8.0",
        "gpubox: nvidia/cuda:9.0-cudnn7-devel cannot be pulled: it was deleted from Docker Hub in"
        " June 2023",
    ]


def test_an_open_version_is_the_one_for_this_machine_and_says_why(
    stable_engine: PrivateEngine, gpubox: Gpubox, nvml: Nvml, registry: Registry
) -> None:
    fits = "nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04"
    client = docker.DockerClient(base_url=stable_engine.host)
    build_stand_in(stable_engine.host, f"{registry.address}/{fits}")
    hand_over(client, f"{registry.address}/{fits}")
    client.close()
    there = nvml(MACHINES["1080ti-535"]) | {"GPUBOX_REGISTRY": registry.address}
    done = gpubox(*RUN, "--rm", "cuda12", "echo", "hello", env=there)
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
    assert (
        done.stderr.decode().splitlines()[0]
        == f"{fits}, the newest that driver 535.183.01 (CUDA 12.2) runs on GeForce GTX 1080 Ti"
        " (Pascal, 6.1)"
    )
    line = gpubox(*RUN, "--dry-run", "cuda12", env=there)
    assert line.stdout.decode().split()[-1] == fits
    assert f"gpubox pull {fits}\n" in gpubox("build", "cuda12", env=there).stderr.decode()


@pytest.mark.parametrize(
    ("kind", "config"),
    [("stable", {}), ("cdi", {"features": {"containerd-snapshotter": True}})],
    ids=["Docker's own store", "containerd's"],
)
def test_a_full_disk_is_told_before_a_download_or_build(
    kind: Kind, config: dict[str, object]
) -> None:
    with PrivateEngine(kind, disk="3g", config=config) as small, Registry() as registry:
        plain = "nvidia/cuda:12.9.1-cudnn-devel-ubuntu24.04"
        here = Gpubox(small.folder / "person", small.env | {"GPUBOX_REGISTRY": registry.address})
        # its data lie on a file system that is seen from its own mounts alone
        inside = ("nsenter", "--target", str(small.pid), "--mount", "--", here.program)
        left = f"{small.folder}/data has 3.2 GB left"
        fix = f"  docker system df shows what takes it, docker image prune frees some{PASS} disk"

        def call(*words: str) -> Done:
            return subprocess.run([*inside, *words], env=here.env, capture_output=True, check=False)

        assert said(call("run", "--gpus", "none", "--rm", plain, "true")) == [
            f"gpubox: {plain} takes about 8.3 GB on the disk and 3.7 GB while it comes, and {left}",
            fix,
        ]
        deleted = "nvidia/cuda:9.0-devel"
        assert said(call("build", deleted), 1) == [
            f"gpubox: {deleted} takes about 7.4 GB on the disk and 2.9 GB while it comes, and"
            f" {left}",
            fix,
        ]
        base = said(call("build", "--ignore", "disk", deleted), 1)[1]
        assert base == f"gpubox: the registry has no image {registry.address}/library/ubuntu:16.04"


def test_the_gpus_of_another_machine_are_not_those_of_this_one(
    gpubox: Gpubox, nvml: Nvml, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with PrivateEngine(network="tcp") as elsewhere:
        build_stand_in(elsewhere.host)
        there = elsewhere.network_env | nvml(MACHINES["1080ti-367.35"])
        done = gpubox(*RUN, "--rm", "cuda8-cudnn5", "echo", "hello", env=there)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")
