"""A deleted image is made again from packages, whole and under its name; or nothing is left of it.

The packages are dummies under the real names, in a repository of the test's own, on Debian.
"""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pexpect
import pytest
from docker import DockerClient

import gpubox as package
from gpubox.images.recipe import NVIDIA, recipe
from lab.apt import AptRepository, fill
from lab.debian import DEBIAN, import_debian
from lab.engine import PrivateEngine
from lab.images import STAND_IN, hand_over
from lab.machine import free_port
from lab.program import Gpubox
from lab.registry import Registry
from lab.waiting import PATIENCE, wait_until

PROFILE, IMAGE = "cuda8-cudnn5", "nvidia/cuda:8.0-cudnn5-devel"
CUDA, ML = "cuda/repos/ubuntu1604", "machine-learning/repos/ubuntu1604"
PACKAGES: dict[str, Any] = json.loads(
    (Path(package.__file__).parent / "images" / "data" / "packages.json").read_text("utf-8")
)
KEPT = "gpubox-lab/stand-in:kept"
leaves_nothing = pytest.mark.usefixtures("untouched")


@pytest.fixture(scope="module")
def filled() -> Iterator[AptRepository]:
    with closing(AptRepository()) as made:
        fill(made, PACKAGES["8.0 ubuntu16.04"])
        fill(made, PACKAGES["10.2 ubuntu18.04"])
        yield made


@pytest.fixture
def repository(filled: AptRepository) -> Iterator[AptRepository]:
    """What a test does to it is undone."""
    filled.asked.clear()
    yield filled
    for event in filled.waits_for.values():
        event.set()
    filled.waits_for.clear()
    filled.add(CUDA, {"cuda-cusolver-8-0": "8.0.61-1"})


@pytest.fixture(scope="module")
def with_debian() -> Iterator[Callable[[str], None]]:
    """Imports it at the first call for an engine; there while this module's tests run."""
    hosts: list[str] = []

    def ensure(host: str) -> None:
        if host not in hosts:
            import_debian(host)
            hosts.append(host)

    yield ensure
    for host in hosts:
        remove_images(host, {STAND_IN})


@pytest.fixture(autouse=True)
def _only_debian(used_engine: PrivateEngine, with_debian: Callable[[str], None]) -> Iterator[None]:
    """The stand-in has the name that is built here: it makes way, and comes back."""
    with_debian(used_engine.host)
    client = docker.DockerClient(base_url=used_engine.host)
    client.images.get(STAND_IN).tag(KEPT)
    client.images.remove(STAND_IN)
    yield
    if not used_engine.pid:
        used_engine.start()
    client.images.get(KEPT).tag(STAND_IN)
    client.close()
    remove_images(used_engine.host, {STAND_IN, DEBIAN})


def remove_images(host: str, but: set[str]) -> None:
    """All other names, and what has none."""
    client = docker.DockerClient(base_url=host)
    for box in client.containers.list(all=True):
        box.remove(force=True)
    for image in names(client) - but:
        client.images.remove(image, force=True)
    client.images.prune(filters={"dangling": True})
    client.close()


class Build:
    """`gpubox build` from the test's repository, on Debian."""

    def __init__(self, gpubox: Gpubox, repository: AptRepository) -> None:
        self.gpubox = gpubox
        self.options = {
            "--base": DEBIAN,
            "--apt-mirror": repository.url,
            "--network": "host",
        }

    @property
    def words(self) -> list[str]:
        return ["build", *(word for pair in self.options.items() for word in pair)]

    def __call__(self, *words: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        return self.gpubox(*self.words, *words, **more)

    def fails(self, *words: str, **more: Any) -> str:
        done = self(*(words or (PROFILE,)), **more)
        text = done.stderr.decode()
        assert (done.returncode, done.stdout) == (1, b""), text
        assert "Traceback" not in text
        return text


@pytest.fixture
def build(gpubox: Gpubox, repository: AptRepository) -> Build:
    return Build(gpubox, repository)


@pytest.fixture
def untouched(client: DockerClient) -> Iterator[None]:
    """After the test the engine has the images and containers of before, and no more layers."""
    before = everything(client)
    yield
    wait_until(lambda: everything(client) == before, what="nothing left")


def names(client: DockerClient) -> set[str]:
    return {tag for image in client.images.list() for tag in image.tags}


def everything(client: DockerClient) -> tuple[set[str], set[str]]:
    images = {str(image["Id"]) for image in client.api.images(all=True)}
    return images, {str(box["Id"]) for box in client.api.containers(all=True)}


def environment(image: Any) -> dict[str, str]:
    return dict(text.split("=", 1) for text in image.attrs["Config"]["Env"])


# What is made --------------------------------------------------------------------------------


def test_a_deleted_image_is_made_under_its_name_and_its_profile_starts(
    engine: PrivateEngine, build: Build, client: DockerClient, gpubox: Gpubox
) -> None:
    done = build(PROFILE)
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (0, b""), done.stderr.decode()
    assert lines[0].startswith(
        "not checked to be NVIDIA's: the signing keys, from http://127.0.0.1"
    )
    steps = [line for line in lines if line.startswith("step ")]
    assert [step.split(":")[0] for step in steps] == [f"step {n}/10" for n in range(1, 11)]
    assert re.fullmatch(rf"built {IMAGE} in \d+\.\d s \(\d+\.\d MB\)", lines[-2])
    assert lines[-1] == "run it: gpubox run cuda8-cudnn5"

    image = client.images.get(IMAGE)
    assert image.tags == [IMAGE]
    assert_recognisable(image, build)
    pinned = {"cuda-cusolver-8-0": "8.0.61-1", "cuda-cublas-dev-8-0": "8.0.61.2-1"}
    pinned |= {"libcudnn5": "5.1.10-1+cuda8.0", "libcudnn5-dev": "5.1.10-1+cuda8.0"}
    here = installed(gpubox)
    assert pinned.items() <= here.items()
    assert len([name for name in here if name.startswith(("cuda-", "libcudnn"))]) == 25
    assert set(text(gpubox, "apt-mark", "showhold").split()) == {
        name for name in here if name.startswith(("cuda-", "libcudnn"))
    }
    assert text(gpubox, "nvcc") == "a dummy of nvcc\n"
    assert text(gpubox, "cat", "/etc/ld.so.conf.d/nvidia.conf").split() == [
        "/usr/local/nvidia/lib",
        "/usr/local/nvidia/lib64",
    ]
    assert text(gpubox, "readlink", "/usr/local/cuda") == "cuda-8.0\n"
    left = ("find", "/tmp", "/root", "/var/lib/apt/lists", "-mindepth", "1", "-not", "-name", ".*")
    assert text(gpubox, *left) == ""


def assert_recognisable(image: Any, build: Build) -> None:
    env = environment(image)
    assert {
        "CUDA_VERSION": "8.0.61",
        "CUDNN_VERSION": "5.1.10",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
        "NVIDIA_REQUIRE_CUDA": "cuda>=8.0",
        "LIBRARY_PATH": "/usr/local/cuda/lib64/stubs",
        "LD_LIBRARY_PATH": "/usr/local/nvidia/lib:/usr/local/nvidia/lib64",
    }.items() <= env.items()
    assert env["PATH"].startswith("/usr/local/nvidia/bin:/usr/local/cuda/bin:")
    mirror = build.options["--apt-mirror"]
    assert image.labels == {
        "com.nvidia.volumes.needed": "nvidia_driver",
        "com.nvidia.cuda.version": "8.0.61",
        "com.nvidia.cudnn.version": "5.1.10",
        "org.opencontainers.image.base.name": DEBIAN,
        "gpubox.built-from": f"{mirror}/{CUDA} {mirror}/{ML}",
        "gpubox.built-by": "root",
    }


def text(gpubox: Gpubox, *command: str) -> str:
    """What a command says in a box of the profile, which must not be pulled."""
    done = gpubox("run", "--rm", "--no-init", "--pull", "never", PROFILE, *command)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def installed(gpubox: Gpubox) -> dict[str, str]:
    query = ("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\\n")
    lines = [line.split() for line in text(gpubox, *query).splitlines()]
    return {name: version for name, version, status in lines if status == "installed"}


def test_what_is_here_already_is_said_and_left_as_it_is(
    build: Build, client: DockerClient, repository: AptRepository
) -> None:
    assert build(PROFILE).returncode == 0
    made, asked = client.images.get(IMAGE).id, len(repository.asked)
    done = build(PROFILE)
    assert (done.returncode, done.stdout) == (0, b"")
    said = done.stderr.decode()
    assert said.startswith(f"{IMAGE} is here already, built from {repository.url}/{CUDA} ")
    assert said.endswith("; --no-cache builds it anew\n")
    assert (client.images.get(IMAGE).id, len(repository.asked)) == (made, asked)


def test_built_anew_it_takes_the_place_of_the_former(
    engine: PrivateEngine, build: Build, client: DockerClient, repository: AptRepository
) -> None:
    assert build(PROFILE).returncode == 0
    made = client.images.get(IMAGE).id
    count = len(everything(client)[0])
    repository.asked.clear()
    done = build("--no-cache", PROFILE)
    assert done.returncode == 0, done.stderr
    assert client.images.get(IMAGE).id != made
    assert len([path for path in repository.asked if path.endswith(".deb")]) == 25
    assert len(everything(client)[0]) == count


def test_built_anew_it_leaves_the_former_to_whoever_gave_it_another_name(
    build: Build, client: DockerClient
) -> None:
    assert build(PROFILE).returncode == 0
    made = client.images.get(IMAGE)
    made.tag("mine/cuda:1")
    assert build("--no-cache", PROFILE).returncode == 0
    assert client.images.get("mine/cuda:1").id == made.id
    assert client.images.get(IMAGE).id != made.id


def test_an_image_that_may_be_nvidias_own_is_never_replaced(
    build: Build, client: DockerClient
) -> None:
    client.images.get(KEPT).tag(IMAGE)
    done = build(PROFILE)
    assert (done.returncode, done.stderr.decode()) == (0, f"{IMAGE} is here already\n")
    said = build.fails("--no-cache", PROFILE)
    assert f"{IMAGE} is here and was not built by gpubox: it may be NVIDIA's own" in said
    assert f"docker tag {IMAGE} NAME && docker rmi {IMAGE}" in said
    assert client.images.get(IMAGE).id == client.images.get(KEPT).id


def test_images_of_one_cuda_share_its_packages(
    build: Build, client: DockerClient, repository: AptRepository
) -> None:
    assert build(PROFILE).returncode == 0
    repository.asked.clear()
    assert build("cuda8-cudnn6").returncode == 0
    fetched = {path.rpartition("/")[2] for path in repository.asked if path.endswith(".deb")}
    assert {name.partition("_")[0] for name in fetched} == {"libcudnn6", "libcudnn6-dev"}
    ours, other = (
        client.images.get(name).attrs["RootFS"]["Layers"]
        for name in (IMAGE, "nvidia/cuda:8.0-cudnn6-devel")
    )
    assert ours[:-2] == other[:-2]


def test_a_later_cuda_is_made_too_with_nccl_and_from_one_repository(
    build: Build, client: DockerClient
) -> None:
    done = build("nvidia/cuda:10.2-cudnn8-runtime")
    assert done.returncode == 0, done.stderr
    image = client.images.get("nvidia/cuda:10.2-cudnn8-runtime")
    found = environment(image)
    assert (found["CUDA_VERSION"], found["CUDNN_VERSION"]) == ("10.2.89", "8.6.0.163")
    assert (found["NCCL_VERSION"], found["NVIDIA_REQUIRE_CUDA"]) == ("2.15.5", "cuda>=10.2")
    assert "LIBRARY_PATH" not in found
    mirror = build.options["--apt-mirror"]
    assert image.labels["gpubox.built-from"] == f"{mirror}/cuda/repos/ubuntu1804"
    query = ["dpkg-query", "-W", "-f", "${Package}=${Version}\\n"]
    packages = client.containers.run(image, query, remove=True)
    assert {b"libcublas10=10.2.2.89-1", b"libnccl2=2.15.5-1+cuda10.2"} <= set(packages.split())


def test_a_base_is_pulled_through_the_registry_and_keeps_its_name(
    build: Build, client: DockerClient, registry: Registry
) -> None:
    there = f"{registry.address}/library/ubuntu:16.04"
    client.images.get(DEBIAN).tag(there)
    hand_over(client, there)
    del build.options["--base"]
    done = build(PROFILE, env={"GPUBOX_REGISTRY": registry.address})
    assert done.returncode == 0, done.stderr
    assert f"pulling ubuntu:16.04 from {registry.address}\n" in done.stderr.decode()
    assert "ubuntu:16.04" in names(client) and there not in names(client)
    base = client.images.get(IMAGE).labels["org.opencontainers.image.base.name"]
    assert base == "ubuntu:16.04"


def test_a_credential_helper_that_is_not_there_does_not_stop_a_build(build: Build) -> None:
    folder = build.gpubox.home / ".docker"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"credsStore": "nowhere"}))
    done = build(PROFILE, env={"DOCKER_CONFIG": str(folder)})
    assert done.returncode == 0, done.stderr


def test_at_a_terminal_the_step_at_work_is_seen_and_two_lines_stay(
    build: Build, repository: AptRepository
) -> None:
    repository.waits_for["cuda-cusolver-8-0"] = threading.Event()
    gpubox = build.gpubox
    child = pexpect.spawn(
        str(gpubox.program),
        [*build.words, PROFILE],
        env=gpubox.env,
        cwd=str(gpubox.cwd),
        encoding="utf-8",
        dimensions=(30, 100),
        timeout=PATIENCE,
    )
    child.expect(r"step 4/10: CUDA 8.0: runtime packages: Get:\d+ http")
    repository.waits_for.pop("cuda-cusolver-8-0").set()
    child.expect(rf"built {IMAGE} in ")
    child.expect("run it: gpubox run cuda8-cudnn5\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


# The keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rightly", [True, False], ids=["rightly", "wrongly"])
def test_a_key_in_nvidias_place_is_trusted_only_if_it_is_nvidias(
    client: DockerClient, repository: AptRepository, rightly: bool
) -> None:
    plain = recipe("nvidia/cuda:8.0-runtime", DEBIAN)
    moved = plain.dockerfile.replace(NVIDIA, repository.url)
    if rightly:
        moved = moved.replace("EB693B3035CD5710E231E123A4B469963BF863CC", repository.key)
    api: Any = client.api
    events = api.build(
        fileobj=io.BytesIO(moved.encode()),
        tag="a/b",
        network_mode="host",
        rm=True,
        forcerm=True,
        decode=True,
    )
    said = "".join(str(event.get("stream") or event.get("error")) for event in events)
    place = f"{repository.url}/{CUDA}/x86_64"
    assert (f"gpubox: the key at {place} is not NVIDIA's\n" in said) is not rightly
    assert ("a/b:latest" in names(client)) is rightly


# What fails leaves nothing ---------------------------------------------------------------------


@leaves_nothing
def test_nothing_is_left_of_packages_that_somebody_else_has_signed(
    engine: PrivateEngine, build: Build, repository: AptRepository
) -> None:
    repository.sign(repository.another_key())
    said = build.fails()
    place = f"{repository.url}/{CUDA}/x86_64"
    assert f"gpubox: the package repository {place} is not signed with its key\n" in said
    assert "NO_PUBKEY" in said  # what apt said is shown
    assert "--apt-mirror URL" in said


@leaves_nothing
def test_nothing_is_left_of_a_package_that_has_gone_in_this_version(
    engine: PrivateEngine, build: Build, repository: AptRepository
) -> None:
    repository.remove(CUDA, "cuda-cusolver-8-0")
    repository.add(CUDA, {"cuda-cusolver-8-0": "8.0.99-1"})
    said = build.fails()
    repository.remove(CUDA, "cuda-cusolver-8-0")
    problem = "the package repository has no cuda-cusolver-8-0 in version 8.0.61-1"
    assert f"gpubox: {problem}\n  --apt-mirror URL takes" in said
    assert "step 4/10" in said and "step 5/10" not in said


@leaves_nothing
def test_nothing_is_left_of_a_package_that_has_gone(
    build: Build, repository: AptRepository
) -> None:
    repository.remove(CUDA, "cuda-cusolver-8-0")
    assert "gpubox: the package repository has no cuda-cusolver-8-0\n" in build.fails()


@leaves_nothing
def test_nothing_is_left_of_a_file_that_is_listed_and_not_there(
    build: Build, repository: AptRepository
) -> None:
    [file] = (repository.root / CUDA / "x86_64").glob("cuda-cusolver-8-0_*")
    file.unlink()
    url = f"{repository.url}/{CUDA}/x86_64/./{file.name}"
    assert f"gpubox: the package repository has no {url}\n" in build.fails()


@leaves_nothing
def test_nothing_is_left_of_a_package_that_is_not_what_is_listed(
    build: Build, repository: AptRepository
) -> None:
    [file] = (repository.root / CUDA / "x86_64").glob("cuda-cusolver-8-0_*")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert "a package did not arrive as its repository describes it" in build.fails()


@leaves_nothing
def test_nothing_is_left_of_a_repository_that_is_down(build: Build) -> None:
    build.options["--apt-mirror"] = f"http://127.0.0.1:{free_port()}"
    said = build.fails()
    assert "gpubox: the package repository 127.0.0.1:" in said
    assert " does not answer\n  try again later" in said


@leaves_nothing
def test_nothing_is_left_of_a_mirror_that_has_other_things(
    build: Build, repository: AptRepository
) -> None:
    build.options["--apt-mirror"] += "/elsewhere"
    url = f"{repository.url}/elsewhere/{CUDA}/x86_64/3bf863cc.pub"
    assert f"gpubox: the package repository has no {url}\n" in build.fails()


@leaves_nothing
def test_nothing_is_left_of_a_machine_that_cannot_be_found(build: Build) -> None:
    build.options["--apt-mirror"] = "http://nowhere.invalid/compute"
    said = build.fails()
    assert "gpubox: the build cannot find the machine nowhere.invalid\n" in said
    assert "--network host" in said


@leaves_nothing
def test_nothing_is_left_of_a_base_that_cannot_be_had(build: Build) -> None:
    base = f"127.0.0.1:{free_port()}/ubuntu:16.04"
    build.options["--base"] = base
    said = build.fails()
    assert f"gpubox: the registry of {base} does not answer" in said
    assert "--base IMAGE starts from another one" in said


@leaves_nothing
def test_nothing_is_left_of_a_base_without_apt(build: Build) -> None:
    build.options["--base"] = KEPT
    assert f"gpubox: the base of {IMAGE} has no apt-get\n" in build.fails()


@leaves_nothing
def test_nothing_is_left_of_a_network_that_there_is_not(build: Build) -> None:
    build.options["--network"] = "nope"
    assert "gpubox: the engine has no network 'nope'\n" in build.fails()


@leaves_nothing
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_nothing_is_left_of_a_build_that_is_interrupted(
    engine: PrivateEngine, build: Build, repository: AptRepository, number: signal.Signals
) -> None:
    with building(build, repository) as child:
        child.send_signal(number)
        out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out) == (130, b""), err
    assert b"Traceback" not in err and b"Get:" not in err


def test_an_engine_that_dies_meanwhile_is_told_so(
    stable_engine: PrivateEngine, build: Build, repository: AptRepository
) -> None:
    with building(build, repository) as child:
        stable_engine.kill()
        _, err = child.communicate(timeout=PATIENCE)
    # what it has made so far is found again by the next build
    assert child.returncode == 1
    assert b"the connection to the engine broke" in err
    assert b"Traceback" not in err


@contextmanager
def building(build: Build, repository: AptRepository) -> Iterator[subprocess.Popen[bytes]]:
    """gpubox in the middle of a build: its second group of packages is being fetched."""
    package = "cuda-core-8-0"
    repository.waits_for[package] = threading.Event()
    with subprocess.Popen(
        [build.gpubox.program, *build.words, PROFILE],
        env=build.gpubox.env,
        cwd=build.gpubox.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        try:
            wait_until(lambda: any(package in path for path in repository.asked))
            yield child
        finally:
            if child.poll() is None:
                child.kill()
            repository.waits_for.pop(package).set()
