"""A missing image is pulled from a real registry, or the truth about it is told at once."""

from __future__ import annotations

import base64
import json
import math
import os
import re
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pexpect
import pyte
import pytest
from docker import DockerClient

from lab.engine import PrivateEngine
from lab.images import STAND_IN, build_stand_in, hand_over, tarred
from lab.machine import free_port
from lab.podman import PrivatePodman
from lab.program import Gpubox
from lab.registry import Registry, Throttle
from lab.waiting import PATIENCE, wait_until

PROFILE, TAG = "cuda8-cudnn6", "8.0-cudnn6-devel"  # which Docker Hub has no more
IMAGE = f"nvidia/cuda:{TAG}"
TRAIN, MANY = "team/train:1", "team/many:1"  # the first has all layers of IMAGE
MB = 1_000_000
SIZE = 4 * MB
QUICK = ("run", "--rm", "--gpus", "none")


def publish(
    host: str,
    registry: str,
    auth: dict[str, str] | None = None,
    image: str = IMAGE,
    layers: Sequence[int] = (SIZE,),
    base: str = STAND_IN,
) -> None:
    """The stand-in with some megabytes on top, pushed as `registry`'s `image`."""
    api: Any = docker.APIClient(base_url=host, version="auto")
    repository, _, tag = f"{registry}/{image}".rpartition(":")
    copies = "".join(f"COPY x{number} /x{number}-{tag}\n" for number in range(len(layers)))
    files = {f"x{number}": os.urandom(size) for number, size in enumerate(layers)}
    context = {"Dockerfile": f"FROM {base}\n{copies}".encode()} | files
    try:
        events = list(
            api.build(
                fileobj=tarred(context), custom_context=True, tag=f"{repository}:{tag}", decode=True
            )
        )
        events += api.push(repository, tag, auth_config=auth, stream=True, decode=True)
        assert not [event for event in events if "error" in event]
    finally:
        api.close()


@pytest.fixture(scope="module")
def mirror(engines: Any, registry: Registry) -> Registry:
    """A registry that kept what Docker Hub deleted, and an image that was made from that one."""
    host = engines.of("stable").host
    publish(host, registry.address)
    base = f"{registry.address}/{IMAGE}"
    publish(host, registry.address, image=TRAIN, layers=(2 * MB,), base=base)
    publish(host, registry.address, image=MANY, layers=(2 * MB, MB, 100, 3 * MB, MB))
    client = docker.DockerClient(base_url=host)
    for name in tags(client) - {STAND_IN}:
        client.images.remove(name, force=True)
    client.close()
    return registry


@pytest.fixture(autouse=True)
def _only_the_stand_in(used_engine: PrivateEngine) -> Iterator[None]:
    yield
    if not used_engine.pid:
        used_engine.start()
    client = docker.DockerClient(base_url=used_engine.host)
    for name in tags(client) - {STAND_IN}:
        client.images.remove(name, force=True)
    client.close()


@pytest.fixture
def slow(mirror: Registry) -> Iterator[Throttle]:
    """A way to the mirror on which the image takes about four seconds."""
    with Throttle(mirror.port, rate=MB) as made:
        yield made


def tags(client: DockerClient) -> set[str]:
    """All names that images have; those that Podman says in full as Docker says them."""
    found = {tag for image in client.images.list() for tag in image.tags}
    return {tag.removeprefix("docker.io/") for tag in found}


def complaint(done: subprocess.CompletedProcess[bytes], code: int = 125) -> str:
    text = done.stderr.decode()
    assert done.returncode == code, text
    assert "Traceback" not in text
    return text


RUN = (*QUICK, PROFILE, "echo", "hello")


@contextmanager
def pulling(
    gpubox: Gpubox, slow: Throttle, words: Sequence[str] = RUN
) -> Iterator[subprocess.Popen[bytes]]:
    """gpubox in the middle of a pull, which goes no further until the test lets it."""
    slow.until = MB
    with subprocess.Popen(
        [gpubox.program, *words],
        env=gpubox.env | {"GPUBOX_REGISTRY": slow.address},
        cwd=gpubox.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        try:
            slow.wait(MB)
            yield child
        finally:
            if child.poll() is None:
                child.kill()


# What is had -----------------------------------------------------------------------------------


def test_a_missing_image_is_pulled_and_runs(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, mirror: Registry
) -> None:
    image = f"{mirror.address}/nvidia/cuda:{TAG}"
    done = gpubox(*QUICK, image, "echo", "hello")
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
    first, last = done.stderr.decode().splitlines()
    assert first == f"pulling {image}"
    assert re.fullmatch(rf"pulled {image} in [\d.]+ s \(\d\.\d MB, [\d.]+ [kM]B/s\)", last)
    assert b"pull" not in gpubox(*QUICK, image, "true").stderr
    assert image in tags(client)


def test_an_image_from_the_registry_gets_its_plain_name_alone(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, mirror: Registry
) -> None:
    done = gpubox(*QUICK, PROFILE, "echo", "hello", env={"GPUBOX_REGISTRY": mirror.address})
    assert done.stdout == b"hello\n", done.stderr
    assert IMAGE in tags(client)
    assert f"{mirror.address}/{IMAGE}" not in tags(client)
    assert gpubox(*QUICK, PROFILE, "echo", "again").stdout == b"again\n"


def test_registry_in_yaml_does_the_same(
    gpubox: Gpubox, client: DockerClient, mirror: Registry
) -> None:
    (gpubox.cwd / "gpubox.yaml").write_text(f"registry: {mirror.address}\n")
    done = gpubox(*QUICK, PROFILE, "echo", "hello")
    assert done.stdout == b"hello\n", done.stderr
    assert IMAGE in tags(client)
    assert f"{mirror.address}/{IMAGE}" not in tags(client)


def test_a_detached_start_pulls_too(gpubox: Gpubox, client: DockerClient, mirror: Registry) -> None:
    words = ("run", "-d", "--gpus", "none", PROFILE, "sleep", "600")
    done = gpubox(*words, env={"GPUBOX_REGISTRY": mirror.address})
    assert done.stdout == f"{PROFILE}-root\n".encode(), done.stderr
    assert client.containers.get(f"{PROFILE}-root").status == "running"


def test_a_login_that_docker_knows_is_used(
    stable_engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    with Registry({"anna": "secret"}) as private:
        publish(stable_engine.host, private.address, {"username": "anna", "password": "secret"})
        image = f"{private.address}/{IMAGE}"
        client.images.remove(image)
        assert "wants a login" in complaint(gpubox(*QUICK, image, "true"))
        secret = base64.b64encode(b"anna:secret").decode()
        wrong = base64.b64encode(b"anna:wrong").decode()
        configure(gpubox, {"auths": {private.address: {"auth": wrong}}})
        assert "wants a login" in complaint(gpubox(*QUICK, image, "true"))
        configure(gpubox, {"auths": {private.address: {"auth": secret}}})
        assert gpubox(*QUICK, image, "echo", "hello").stdout == b"hello\n"
        configure(gpubox, {"auths": {private.address: {"username": "anna", "password": "secret"}}})
        in_front = {"GPUBOX_REGISTRY": private.address}
        assert gpubox("pull", PROFILE, env=in_front).returncode == 0
        assert IMAGE in tags(client)


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_a_credential_helper_that_is_not_there_does_not_stop_a_public_pull(
    gpubox: Gpubox, mirror: Registry, key: str
) -> None:
    helper = "nowhere" if key == "credsStore" else {mirror.address: "nowhere"}
    configure(gpubox, {key: helper})
    done = gpubox(*QUICK, PROFILE, "echo", "hello", env={"GPUBOX_REGISTRY": mirror.address})
    assert done.stdout == b"hello\n", done.stderr
    warning, *pull = done.stderr.decode().splitlines()
    assert warning.startswith("warning: pulling without a login: ")
    assert "docker-credential-nowhere not installed" in warning
    assert len(pull) == 2


@pytest.mark.parametrize(
    "says", ["echo the keyring is locked >&2; exit 1", "echo hello", "echo '{}'"]
)
def test_a_credential_helper_that_fails_is_told_once_and_does_not_stop_public_pulls(
    fronted: Gpubox, tmp_path: Path, says: str
) -> None:
    configure(fronted, {"credsStore": "broken"})
    helper = tmp_path / "docker-credential-broken"
    helper.write_text(f"#!/bin/sh\n{says}\n")
    helper.chmod(0o755)
    fronted.env["PATH"] = f"{tmp_path}:{fronted.env['PATH']}"
    text = complaint(fronted("pull", PROFILE, TRAIN), 0)
    assert len(re.findall("^warning: pulling without a login: .", text, re.MULTILINE)) == 1


def test_a_configuration_of_dockers_that_cannot_be_read_is_named(
    fronted: Gpubox, client: DockerClient
) -> None:
    damaged: list[object] = [[], {"auths": ["a"]}, {"auths": {"a": {"auth": None}}}]
    for config in damaged:
        configure(fronted, config)
        text = complaint(fronted("pull", PROFILE), 1)
        assert text.startswith(f"gpubox: {fronted.home}/.docker/config.json is not as Docker")
    assert tags(client) == {STAND_IN}
    (fronted.home / ".docker/config.json").write_text("{")
    text = complaint(fronted("pull", PROFILE, "team/none:1"), 1)
    assert text.count(f"without a login: {fronted.home}/.docker/config.json cannot be read") == 1
    assert IMAGE in tags(client)


def configure(gpubox: Gpubox, config: object) -> None:
    folder = gpubox.home / ".docker"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    gpubox.env["DOCKER_CONFIG"] = str(folder)


# What is not to be had -------------------------------------------------------------------------


def test_a_deleted_image_is_told_so_at_once_and_nothing_is_pulled(
    engine: PrivateEngine, gpubox: Gpubox
) -> None:
    text = complaint(gpubox(*QUICK, PROFILE, "true"))
    assert f"{IMAGE} cannot be pulled: it was deleted from Docker Hub in June 2023" in text
    assert "gpubox run cuda" in text and "GPUBOX_REGISTRY" in text
    assert "pulling" not in text


def test_a_deleted_image_that_the_registry_has_not_got_is_told_the_same(
    engine: PrivateEngine, gpubox: Gpubox, registry: Registry
) -> None:
    gone = "nvidia/cuda:8.0-cudnn7-devel"
    text = complaint(gpubox(*QUICK, gone, "true", env={"GPUBOX_REGISTRY": registry.address}))
    assert f"{gone} cannot be pulled: it was deleted from Docker Hub in June 2023" in text


def test_a_tag_that_there_is_not_is_told_so(
    engine: PrivateEngine, gpubox: Gpubox, mirror: Registry
) -> None:
    image = f"{mirror.address}/nvidia/cuda:8.1"
    assert f"the registry has no image {image}" in complaint(gpubox(*QUICK, image, "true"))


def test_a_registry_that_is_down_is_told_so(engine: PrivateEngine, gpubox: Gpubox) -> None:
    image = f"127.0.0.1:{free_port()}/some/image:1"
    text = complaint(gpubox(*QUICK, image, "true"))
    assert f"the registry of {image} does not answer" in text


def test_pull_never_pulls_nothing(engine: PrivateEngine, gpubox: Gpubox, mirror: Registry) -> None:
    image = f"{mirror.address}/nvidia/cuda:{TAG}"
    text = complaint(gpubox(*QUICK, "--pull", "never", image, "true"))
    assert f"no image {image} on the engine" in text
    assert "pulling" not in text


def test_pull_always_gets_what_is_newer(
    stable_engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, registry: Registry
) -> None:
    image = f"{registry.address}/lab/newer:1"
    build_stand_in(stable_engine.host, image)
    hand_over(client, image)
    container = client.containers.run(STAND_IN, ["touch", "/old"], detach=True)
    container.wait()
    container.commit(f"{registry.address}/lab/newer", "1")  # what is here is another one
    look = (image, "sh", "-c", "ls /old 2>/dev/null || echo newer")
    assert gpubox(*QUICK, *look).stdout == b"/old\n"
    assert gpubox(*QUICK, "--pull", "always", *look).stdout == b"newer\n"


# What breaks on the way ------------------------------------------------------------------------


def test_a_pull_that_is_cut_goes_on(gpubox: Gpubox, slow: Throttle) -> None:
    with pulling(gpubox, slow) as child:
        assert slow.cut()
        slow.until, slow.rate = math.inf, 100 * MB
        out, err = child.communicate(timeout=PATIENCE)
        assert (child.returncode, out) == (0, b"hello\n"), err


def test_ctrl_c_ends_a_pull_without_a_traceback(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, slow: Throttle
) -> None:
    with pulling(gpubox, slow) as child:
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=PATIENCE)
        assert (child.returncode, out) == (130, b"")
        assert b"Traceback" not in err
    assert tags(client) == {STAND_IN}


def test_an_engine_that_dies_in_mid_pull_is_told_so(
    stable_engine: PrivateEngine, gpubox: Gpubox, slow: Throttle
) -> None:
    with pulling(gpubox, slow) as child:
        stable_engine.kill()
        out, err = child.communicate(timeout=PATIENCE)
        assert (child.returncode, out) == (125, b"")
        assert b"the connection to the engine broke" in err
        assert b"Traceback" not in err


def test_a_pull_that_is_cut_again_and_again_goes_on(gpubox: Gpubox, slow: Throttle) -> None:
    with pulling(gpubox, slow, ("pull", PROFILE)) as child:
        for _ in range(2):
            slow.until = more = slow.passed + MB // 2
            slow.wait(more)
            assert slow.cut()
        slow.until, slow.rate = math.inf, 100 * MB
        _, err = child.communicate(timeout=PATIENCE)
        assert child.returncode == 0, err


@pytest.fixture(scope="module")
def impatient() -> Iterator[PrivateEngine]:
    """An engine that tries a layer only twice, where others try for 75 seconds."""
    with PrivateEngine("stable", config={"max-download-attempts": 2}) as engine:
        build_stand_in(engine.host)
        yield engine


def test_a_registry_that_dies_for_good_is_told_so(impatient: PrivateEngine, tmp_path: Path) -> None:
    gpubox = Gpubox(tmp_path / "impatient", impatient.env)
    with Registry() as mortal, Throttle(mortal.port, rate=MB) as slow:
        publish(impatient.host, mortal.address)
        client = docker.DockerClient(base_url=impatient.host)
        client.images.remove(f"{mortal.address}/{IMAGE}")
        with pulling(gpubox, slow, ("pull", PROFILE)) as child:
            mortal.kill()
            slow.cut()
            _, err = child.communicate(timeout=PATIENCE)
        assert child.returncode == 1
        told = f"the registry of {slow.address}/{IMAGE} does not answer"
        assert told in err.decode()
        assert tags(client) == {STAND_IN}
        client.close()


def test_ctrl_c_at_a_terminal_ends_all_pulls_and_leaves_it_as_it_was(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, slow: Throttle
) -> None:
    slow.until = 3 * MB  # of thirteen
    with at_terminal(gpubox, slow, "pull", MANY, TRAIN) as child:
        before = termios.tcgetattr(child.child_fd)
        shown = Frames(80, 24)
        shown.until(child, lambda: any("downloading" in line for line in shown.screen.display))
        child.sendintr()
        shown.to_the_end(child)
        assert termios.tcgetattr(child.child_fd) == before
        child.close()
        assert child.exitstatus == 130
    assert not shown.screen.cursor.hidden
    assert [line.strip() for line in shown.screen.display if line.strip()] == []
    wait_until(lambda: not slow.busy, what="the engine's giving up")
    assert tags(client) == {STAND_IN}


def test_a_full_disk_is_told_of_each_image_that_needs_it(mirror: Registry, tmp_path: Path) -> None:
    with PrivateEngine("stable", disk="8m") as small:
        gpubox = Gpubox(tmp_path / "small", small.env)
        done = gpubox("pull", PROFILE, MANY, env={"GPUBOX_REGISTRY": mirror.address})
        text = complaint(done, 1)
        assert f"gpubox: {MANY}: the disk is full where the engine keeps images" in text


def test_an_engine_that_dies_ends_all_pulls(
    stable_engine: PrivateEngine, gpubox: Gpubox, slow: Throttle
) -> None:
    with pulling(gpubox, slow, ("pull", PROFILE, MANY)) as child:
        stable_engine.kill()
        _, err = child.communicate(timeout=PATIENCE)
        assert child.returncode == 1
        for image in (IMAGE, MANY):
            assert f"{image}: the connection to the engine broke" in err.decode()
        assert b"Traceback" not in err


# gpubox pull -----------------------------------------------------------------------------------

SIZES = r"in [\d.]+ s \(\d\.\d MB, [\d.]+ [kM]B/s\)"


@pytest.fixture
def fronted(gpubox: Gpubox, mirror: Registry) -> Gpubox:
    """gpubox with the mirror in front."""
    gpubox.env["GPUBOX_REGISTRY"] = mirror.address
    return gpubox


def test_pull_without_a_word_gets_the_default_profiles_image(
    engine: PrivateEngine, fronted: Gpubox, client: DockerClient, mirror: Registry
) -> None:
    (fronted.cwd / "gpubox.yaml").write_text(f"default: {PROFILE}\n")
    done = fronted("pull")
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    first, last = done.stderr.decode().splitlines()
    assert first == f"pulling {IMAGE} from {mirror.address}"
    assert re.fullmatch(f"pulled {IMAGE} {SIZES}", last)
    assert tags(client) == {STAND_IN, IMAGE}
    again = fronted("pull", PROFILE).stderr.decode().splitlines()
    assert again == [first, f"{IMAGE} is up to date"]


def test_several_come_at_once_and_a_layer_that_two_have_comes_once(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, slow: Throttle
) -> None:
    gpubox.env["GPUBOX_REGISTRY"] = slow.address
    done = gpubox("pull", PROFILE, TRAIN)
    assert done.returncode == 0, done.stderr
    assert tags(client) == {STAND_IN, IMAGE, TRAIN}
    text = done.stderr.decode()
    assert text.count("\npulled ") == 2
    sizes = [float(size) for size in re.findall(r" s \((\d\.\d) MB", text)]
    assert sum(sizes) == pytest.approx(slow.passed / MB, abs=0.3)
    assert len(sizes) == 2 or (f"pulled {IMAGE} in" in text and "came with another" in text)


def test_an_image_by_three_names_is_pulled_once(fronted: Gpubox, client: DockerClient) -> None:
    done = fronted("pull", PROFILE, IMAGE, f"docker.io/{IMAGE}")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"pulled ") == 1
    assert tags(client) == {STAND_IN, IMAGE}


def test_one_that_fails_does_not_stop_the_others(
    engine: PrivateEngine, fronted: Gpubox, client: DockerClient, mirror: Registry
) -> None:
    text = complaint(fronted("pull", "team/none:1", PROFILE, "nvidia/cuda:8.0-cudnn7-devel"), 1)
    assert f"gpubox: the registry has no image {mirror.address}/team/none:1\n  check" in text
    assert "gpubox: nvidia/cuda:8.0-cudnn7-devel cannot be pulled: it was deleted" in text
    assert re.search(f"^pulled {IMAGE} {SIZES}$", text, re.MULTILINE)
    assert tags(client) == {STAND_IN, IMAGE}


def test_a_deleted_image_is_not_asked_for(gpubox: Gpubox) -> None:
    text = complaint(gpubox("pull", PROFILE), 1)
    assert text.startswith(f"gpubox: {IMAGE} cannot be pulled: it was deleted from Docker Hub")


def test_wrong_words_are_told_together_before_anything_is_pulled(
    fronted: Gpubox, client: DockerClient
) -> None:
    text = complaint(fronted("pull", PROFILE, "nope", "cuda99", "a/B:1"), 2)
    assert [line for line in text.splitlines() if not line.startswith("  ")] == [
        "gpubox: no profile 'nope'",
        "gpubox: nvidia/cuda has no CUDA 99",
        "gpubox: 'a/B:1': the name of an image is lower-case",
    ]
    assert tags(client) == {STAND_IN}


@pytest.mark.parametrize("registry", ["https://mirror.lab", "mirror", "mirror.lab:5000/A B"])
def test_a_registry_that_is_none_is_told_with_what_to_write(gpubox: Gpubox, registry: str) -> None:
    text = complaint(gpubox("pull", PROFILE, env={"GPUBOX_REGISTRY": registry}), 2)
    assert text.startswith(f"gpubox: GPUBOX_REGISTRY: '{registry}'")


def test_docker_hub_in_front_of_docker_hub_is_no_other_place(gpubox: Gpubox) -> None:
    text = complaint(gpubox("pull", PROFILE, env={"GPUBOX_REGISTRY": "docker.io"}), 1)
    assert "it was deleted from Docker Hub" in text


def test_a_digest_cannot_come_through_a_registry_and_keeps_its_name(
    fronted: Gpubox, mirror: Registry
) -> None:
    digest = f"sha256:{'0' * 64}"
    text = complaint(fronted("pull", f"team/train@{digest}", PROFILE), 1)
    assert f"team/train@{digest} cannot come through {mirror.address}" in text
    assert f"name it with its registry: {mirror.address}/team/train@{digest}" in text
    assert re.search(f"^pulled {IMAGE} {SIZES}$", text, re.MULTILINE)


def test_quiet_prints_names_and_what_fails(fronted: Gpubox, client: DockerClient) -> None:
    done = fronted("pull", "-q", PROFILE, "team/none:1")
    assert (done.returncode, done.stdout) == (1, f"{IMAGE}\n".encode())
    assert done.stderr.startswith(b"gpubox: the registry has no image ")
    assert done.stderr.count(b"\n") == 2
    assert fronted("pull", "--quiet", PROFILE).stderr == b""


def test_names_that_were_there_are_there_afterwards(
    engine: PrivateEngine, fronted: Gpubox, client: DockerClient, mirror: Registry
) -> None:
    own = {f"{mirror.address}/{IMAGE}", "saved/by:me"}
    client.images.pull(f"{mirror.address}/nvidia/cuda", tag=TAG)
    saved = client.images.get(f"{mirror.address}/{IMAGE}")
    assert saved.tag("saved/by", "me")
    assert fronted("pull", PROFILE).returncode == 0
    assert tags(client) == {STAND_IN, IMAGE} | own
    assert fronted("pull", MANY, f"{mirror.address}/{MANY}").returncode == 0
    assert tags(client) == {STAND_IN, IMAGE, MANY, f"{mirror.address}/{MANY}"} | own


def test_a_name_that_is_wanted_too_stays_however_it_is_spelt(
    fronted: Gpubox, client: DockerClient, mirror: Registry
) -> None:
    there = f"{mirror.address}/team/latest"
    client.images.get(STAND_IN).tag(there)
    hand_over(client, there)
    assert fronted("pull", "team/latest", there).returncode == 0
    assert tags(client) == {STAND_IN, "team/latest:latest", f"{there}:latest"}


def test_who_pulls_the_same_at_the_same_time_gets_it_too(
    gpubox: Gpubox, client: DockerClient, slow: Throttle
) -> None:
    slow.rate = 2 * MB
    with ExitStack() as stack:
        children = [stack.enter_context(pulling(gpubox, slow)) for _ in range(4)]
        slow.until = math.inf
        for child in children:
            out, err = child.communicate(timeout=PATIENCE)
            assert (child.returncode, out) == (0, b"hello\n"), err
    assert tags(client) == {STAND_IN, IMAGE}


def test_a_name_that_another_pull_removes_meanwhile_does_not_come_back(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, slow: Throttle
) -> None:
    """Who comes later finds the registry's name, and cannot know that it is going to be removed."""
    there, slow.rate = f"{slow.address}/{IMAGE}", 1000 * MB
    client.images.pull(there)
    slow.rate, before = 400, slow.passed
    with pulling(gpubox, slow, ("pull", PROFILE)) as later:
        slow.wait(before)
        assert client.images.get(there).tag("nvidia/cuda", TAG)
        client.images.remove(there)
        slow.until, slow.rate = math.inf, MB
        _, err = later.communicate(timeout=PATIENCE)
        assert later.returncode == 0, err
    assert tags(client) == {STAND_IN, IMAGE}


def test_pull_always_asks_the_registry_and_says_that_nothing_is_newer(
    fronted: Gpubox, mirror: Registry
) -> None:
    assert fronted("pull", PROFILE).returncode == 0
    done = fronted(*QUICK, "--pull", "always", PROFILE, "echo", "hello")
    assert done.stdout == b"hello\n"
    assert done.stderr.decode().splitlines()[1] == f"{IMAGE} is up to date"


def test_podman_pulls_too(
    podman: PrivatePodman, gpubox: Gpubox, client: DockerClient, mirror: Registry
) -> None:
    with Throttle(mirror.port, rate=3 * MB, near=podman.pid) as slow:
        gpubox.env["GPUBOX_REGISTRY"] = slow.address
        done = gpubox("pull", PROFILE)
        assert done.returncode == 0, done.stderr
        first, last = done.stderr.decode().splitlines()
        assert first == f"pulling {IMAGE} from {slow.address}"
        assert re.fullmatch(f"pulled {IMAGE} {SIZES}", last)
        assert tags(client) == {STAND_IN, IMAGE}
        assert b"is up to date" in gpubox("pull", PROFILE).stderr
        assert gpubox(*RUN).stdout == b"hello\n"


# What is seen ----------------------------------------------------------------------------------


class Frames:
    """What a terminal shows of pulls, one whole frame after the other."""

    END = "\x1b[J"

    def __init__(self, columns: int, rows: int) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self.screen)
        self._rest = ""
        self.seen: list[list[str]] = []

    def until(self, child: pexpect.spawn[str], condition: Callable[[], bool]) -> None:
        while not condition():
            self._feed(child.read_nonblocking(4096, PATIENCE))

    def to_the_end(self, child: pexpect.spawn[str]) -> list[list[str]]:
        with suppress(pexpect.EOF):
            while True:
                self._feed(child.read_nonblocking(4096, PATIENCE))
        self._stream.feed(self._rest)
        return self.seen

    def _feed(self, text: str) -> None:
        *whole, self._rest = (self._rest + text).split(self.END)
        for part in whole:
            self._stream.feed(part + self.END)
            self.seen.append([line.rstrip() for line in self.screen.display])


@contextmanager
def at_terminal(
    gpubox: Gpubox, slow: Throttle, *words: str, columns: int = 80, rows: int = 24
) -> Iterator[pexpect.spawn[str]]:
    child = pexpect.spawn(
        str(gpubox.program),
        list(words),
        env=gpubox.env | {"GPUBOX_REGISTRY": slow.address},
        cwd=str(gpubox.cwd),
        encoding="utf-8",
        dimensions=(rows, columns),
        timeout=PATIENCE,
    )
    try:
        yield child
    finally:
        child.close(force=True)


UNITS = {"B": 1, "kB": 1000, "MB": MB, "GB": 1000 * MB}
FIGURES = re.compile(r"([\d.]+)(?: (k?M?B))? of ([\d.]+)\+? (k?M?B)")
SHARE = re.compile(r" (\d+) %")


def check_figures(frames: list[list[str]]) -> None:
    """No figure falls from one frame to the next, and none is more than its whole."""
    before: dict[str, float] = {}
    for lines in frames:
        for line in lines:
            what = re.match(r"(?:  )?\S+(?: downloading| extracting| retry| team/\S+)?", line)
            if not (figures := FIGURES.search(line)) or not what:
                continue
            done = float(figures[1]) * UNITS[figures[2] or figures[4]]
            assert done <= float(figures[3]) * UNITS[figures[4]], line
            name = what[0].replace(" retry", " downloading")
            assert before.get(name, 0) <= done, f"{line}\n{lines}"
            before[name] = done
            if share := SHARE.search(line):
                assert before.get(f"{name} %", 0) <= int(share[1]) <= 100, line
                before[f"{name} %"] = int(share[1])
    assert before["downloaded %"] >= 90 and before["downloaded"] > MB


def test_at_a_terminal_no_figure_ever_goes_back_through_a_cut(
    engine: PrivateEngine, gpubox: Gpubox, slow: Throttle
) -> None:
    shown = Frames(80, 24)
    with at_terminal(gpubox, slow, "pull", MANY) as child:
        shown.until(child, lambda: slow.passed > MB)
        assert slow.cut()
        frames = shown.to_the_end(child)
        child.close()
        assert child.exitstatus == 0
    check_figures(frames)
    seen = "\n".join("\n".join(lines) for lines in frames)
    assert re.search(r"^  [0-9a-f]{12} downloading +━+─+  [\d.]+( kB)? of \d\.\d MB$", seen, re.M)
    assert re.search(r"^  [0-9a-f]{12} retry in \d s ", seen, re.M)
    assert re.search(
        r"^downloaded .* \d\.\d of \d\.\d MB  [\d.]+ [kM]B/s  0:\d\d left$", seen, re.M
    )
    assert re.search(r"^extracted  +━", seen, re.M)
    left = [line.rstrip() for line in shown.screen.display if line.strip()]
    assert len(left) == 1 and re.fullmatch(f"pulled {MANY} {SIZES}", left[0])


def test_containerds_own_store_tells_less_and_it_is_shown_as_truly(
    mirror: Registry, tmp_path: Path
) -> None:
    config = {"features": {"containerd-snapshotter": True}}
    with PrivateEngine("cdi", config=config) as engine, Throttle(mirror.port, rate=2 * MB) as slow:
        shown = Frames(80, 24)
        gpubox = Gpubox(tmp_path / "containerd", engine.env)
        with at_terminal(gpubox, slow, "pull", MANY, TRAIN) as child:
            frames = shown.to_the_end(child)
            child.close()
            assert child.exitstatus == 0
        check_figures(frames)
        assert f"{TRAIN} is up to date" in gpubox("pull", TRAIN, env=front(slow)).stderr.decode()


def front(slow: Throttle) -> dict[str, str]:
    return {"GPUBOX_REGISTRY": slow.address}


@pytest.mark.parametrize(("columns", "rows"), [(60, 24), (140, 50), (60, 8), (20, 3)])
def test_any_terminal_is_large_enough(
    gpubox: Gpubox, slow: Throttle, columns: int, rows: int
) -> None:
    shown, slow.rate = Frames(columns, rows), 3 * MB
    with at_terminal(gpubox, slow, "pull", MANY, TRAIN, columns=columns, rows=rows) as child:
        frames = shown.to_the_end(child)
        child.close()
        assert child.exitstatus == 0
    wholes = [[line for line in lines if line.startswith("downloaded ")] for lines in frames]
    assert {len(found) for found in wholes} <= {0, 1}  # it was drawn over, not below
    assert any(wholes)


def test_a_start_shows_its_pull_the_same_way(gpubox: Gpubox, slow: Throttle) -> None:
    shown = Frames(80, 24)
    with at_terminal(gpubox, slow, *RUN) as child:
        frames = shown.to_the_end(child)
        child.close()
        assert child.exitstatus == 0
    check_figures(frames)
    left = [line.rstrip() for line in shown.screen.display if line.strip()]
    assert left[0].startswith(f"pulled {IMAGE} in ") and left[1] == "hello"


@pytest.mark.parametrize("terminal", ["dumb", "unknown", ""])
def test_a_terminal_that_cannot_draw_over_gets_lines(
    gpubox: Gpubox, slow: Throttle, terminal: str
) -> None:
    gpubox.env["TERM"], slow.rate = terminal, 10 * MB
    with at_terminal(gpubox, slow, "pull", PROFILE) as child:
        said = child.read()
        assert "\x1b" not in said
        assert said.splitlines()[0] == f"pulling {IMAGE} from {slow.address}"
