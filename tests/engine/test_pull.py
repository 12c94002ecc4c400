"""A missing image is pulled from a real registry, or the truth about it is told at once."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pexpect
import pyte
import pytest
from docker import DockerClient

from lab.engine import PrivateEngine
from lab.images import STAND_IN, build_stand_in
from lab.program import Gpubox
from lab.registry import Registry, Throttle
from lab.waiting import wait_until

PROFILE, TAG = "cuda8-cudnn6", "8.0-cudnn6-devel"  # which Docker Hub has no more
IMAGE = f"nvidia/cuda:{TAG}"
MB = 1_000_000
SIZE = 4 * MB
QUICK = ("run", "--rm", "--gpus", "none")


def publish(host: str, registry: str, auth: dict[str, str] | None = None) -> None:
    """The stand-in with some megabytes on top, pushed as `registry`'s nvidia/cuda."""
    api: Any = docker.APIClient(base_url=host, version="auto")
    repository = f"{registry}/nvidia/cuda"
    try:
        context = {"Dockerfile": f"FROM {STAND_IN}\nCOPY x /x\n".encode(), "x": os.urandom(SIZE)}
        events = list(
            api.build(
                fileobj=tarred(context), custom_context=True, tag=f"{repository}:{TAG}", decode=True
            )
        )
        events += api.push(repository, TAG, auth_config=auth, stream=True, decode=True)
        assert not [event for event in events if "error" in event]
        api.remove_image(f"{repository}:{TAG}")
    finally:
        api.close()


def tarred(files: dict[str, bytes]) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    packed.seek(0)
    return packed


@pytest.fixture(scope="module")
def mirror(engines: Any, registry: Registry) -> Registry:
    """A registry that kept what Docker Hub deleted."""
    publish(engines.of("stable").host, registry.address)
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
    return {tag for image in client.images.list() for tag in image.tags}


def complaint(done: subprocess.CompletedProcess[bytes]) -> str:
    text = done.stderr.decode()
    assert done.returncode == 125, text
    assert "Traceback" not in text
    return text


@contextmanager
def pulling(gpubox: Gpubox, slow: Throttle) -> Iterator[subprocess.Popen[bytes]]:
    """gpubox in the middle of a pull."""
    with subprocess.Popen(
        [gpubox.program, *QUICK, PROFILE, "echo", "hello"],
        env=gpubox.env | {"GPUBOX_REGISTRY": slow.address},
        cwd=gpubox.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        try:
            wait_until(lambda: slow.passed > MB, 30, what="the first megabyte")
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


def test_at_a_terminal_bytes_and_rate_are_seen(
    engine: PrivateEngine, gpubox: Gpubox, slow: Throttle
) -> None:
    screen = pyte.Screen(100, 30)
    stream = pyte.Stream(screen)
    seen: list[str] = []
    child = pexpect.spawn(
        str(gpubox.program),
        [*QUICK, PROFILE, "echo", "hello"],
        env=gpubox.env | {"GPUBOX_REGISTRY": slow.address},
        cwd=str(gpubox.cwd),
        encoding="utf-8",
        dimensions=(30, 100),
        timeout=30,
    )
    while True:
        try:
            stream.feed(child.read_nonblocking(1024))
        except pexpect.EOF:
            break
        seen.append("\n".join(screen.display))
    child.close()
    assert child.exitstatus == 0
    bar = rf"pulling {slow.address}/nvidia/cuda:{TAG} .*\d\.\d/\d\.\d MB +[\d.]+ [kM]B/s"
    assert any(re.search(bar, shown) for shown in seen), seen[len(seen) // 2]
    left = [line.rstrip() for line in screen.display if line.strip()]
    assert left[0].startswith("pulled ") and left[1] == "hello"  # and no bar any more


def test_a_login_that_docker_knows_is_used(stable_engine: PrivateEngine, gpubox: Gpubox) -> None:
    with Registry({"anna": "secret"}) as private:
        publish(stable_engine.host, private.address, {"username": "anna", "password": "secret"})
        image = f"{private.address}/nvidia/cuda:{TAG}"
        assert "wants a login" in complaint(gpubox(*QUICK, image, "true"))
        secret = base64.b64encode(b"anna:secret").decode()
        configure(gpubox, {"auths": {private.address: {"auth": secret}}})
        assert gpubox(*QUICK, image, "echo", "hello").stdout == b"hello\n"


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


def test_a_credential_helper_that_fails_does_not_stop_a_public_pull(
    gpubox: Gpubox, mirror: Registry, tmp_path: Path
) -> None:
    configure(gpubox, {"credsStore": "broken"})
    helper = tmp_path / "docker-credential-broken"
    helper.write_text("#!/bin/sh\necho the keyring is locked >&2\nexit 1\n")
    helper.chmod(0o755)
    path = f"{tmp_path}:{gpubox.env['PATH']}"
    there = {"GPUBOX_REGISTRY": mirror.address, "PATH": path}
    done = gpubox(*QUICK, PROFILE, "echo", "hello", env=there)
    assert done.stdout == b"hello\n", done.stderr
    assert b"\nwarning: pulling without a login: " in done.stderr  # behind the helper's own words


def configure(gpubox: Gpubox, config: dict[str, object]) -> None:
    folder = gpubox.home / ".docker"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    gpubox.env["DOCKER_CONFIG"] = str(folder)


# What is not to be had -------------------------------------------------------------------------


def test_a_deleted_image_is_told_so_at_once_and_nothing_is_pulled(
    engine: PrivateEngine, gpubox: Gpubox
) -> None:
    text = complaint(gpubox(*QUICK, PROFILE, "true", timeout=10))
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
    with socket.create_server(("127.0.0.1", 0)) as server:
        image = f"127.0.0.1:{server.getsockname()[1]}/some/image:1"
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
    client.images.push(image)
    client.images.remove(image)
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
        slow.rate = 100 * MB
        out, err = child.communicate(timeout=60)
        assert (child.returncode, out) == (0, b"hello\n"), err


def test_ctrl_c_ends_a_pull_without_a_traceback(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, slow: Throttle
) -> None:
    with pulling(gpubox, slow) as child:
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=10)
        assert (child.returncode, out) == (130, b"")
        assert b"Traceback" not in err
    assert tags(client) == {STAND_IN}


def test_an_engine_that_dies_in_mid_pull_is_told_so(
    stable_engine: PrivateEngine, gpubox: Gpubox, slow: Throttle
) -> None:
    with pulling(gpubox, slow) as child:
        stable_engine.kill()
        out, err = child.communicate(timeout=20)
        assert (child.returncode, out) == (125, b"")
        assert b"the connection to the engine broke" in err
        assert b"Traceback" not in err
