"""Without an engine gpubox says in one sentence what is wrong and in one line what to do."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.engine import PrivateEngine
from lab.machine import free_port
from lab.program import Gpubox
from lab.waiting import PATIENCE
from lab.workstation import PROFILE

SECONDS = 10  # to the first answer of an engine
STRANGER = 65534


@pytest.fixture
def lost(tmp_path: Path) -> Gpubox:
    """gpubox with no engine of its own; what names one is added by the test."""
    return Gpubox(tmp_path / "lost", {"DOCKER_HOST": f"unix://{tmp_path}/none"})


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: a socket's path ends at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="gpubox") as made:
        yield Path(made)


def complaint(done: subprocess.CompletedProcess[bytes], code: int) -> str:
    """The one sentence and the one fix."""
    text = done.stderr.decode()
    assert done.returncode == code, text
    assert done.stdout == b""
    sentence, fix = text.splitlines()
    assert sentence.startswith("gpubox: ") and fix.startswith("  ")
    return text


def both(lost: Gpubox, **env: str) -> str:
    """What `ps` complains of with exit code 1, and `run` with 125."""
    text = complaint(lost("ps", env=env), 1)
    assert complaint(lost("run", PROFILE, "true", env=env), 125) == text
    return text


def make_context(folder: Path, name: str, host: str) -> None:
    """A Docker context as `docker context create` writes it."""
    meta = folder / "contexts/meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    endpoint = {"Name": name, "Endpoints": {"docker": {"Host": host}}}
    (meta / "meta.json").write_text(json.dumps(endpoint))


def test_no_socket_means_not_installed_or_not_running(lost: Gpubox) -> None:
    text = both(lost, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert "no engine at unix:///nowhere/docker.sock (DOCKER_HOST)" in text
    assert "systemctl start docker" in text


def test_a_stale_socket_means_not_running(lost: Gpubox, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "s"))  # and never listens
    text = both(lost, DOCKER_HOST=f"unix://{folder}/s")
    assert f"unix://{folder}/s" in text and "not running" in text
    assert "systemctl start docker" in text


def test_a_closed_tcp_port_means_not_running(lost: Gpubox) -> None:
    port = free_port()
    text = both(lost, DOCKER_HOST=f"tcp://127.0.0.1:{port}")
    assert f"tcp://127.0.0.1:{port} (DOCKER_HOST)" in text and "not running" in text


def test_a_socket_that_is_not_ours_means_the_group_docker(lost: Gpubox, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(folder / "s"))
        theirs.listen()
        os.chown(folder / "s", STRANGER, STRANGER)
        (folder / "s").chmod(0o600)
        # root, but without root's way past permissions: so the program itself stays readable
        without = ("setpriv", "--bounding-set", "-dac_override")
        done = subprocess.run(
            [*without, lost.program, "ps"],
            env=lost.env | {"DOCKER_HOST": f"unix://{folder}/s"},
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
    text = complaint(done, 1)
    assert f"no permission to use the engine at unix://{folder}/s" in text
    assert "usermod -aG docker" in text


@pytest.mark.parametrize("host", ["ftp://engine", "tcp://engine", "nonsense", "fd://"])
def test_a_docker_host_that_means_nothing_is_quoted_with_what_would(
    lost: Gpubox, host: str
) -> None:
    text = both(lost, DOCKER_HOST=host)
    assert host in text and "DOCKER_HOST" in text


def test_a_context_that_does_not_exist_is_never_the_local_engine(
    lost: Gpubox, stable_engine: PrivateEngine
) -> None:
    del lost.env["DOCKER_HOST"]
    text = both(lost, DOCKER_CONTEXT="nope")
    assert "DOCKER_CONTEXT names the context 'nope', and there is none" in text
    assert "docker context ls" in text


def test_a_current_context_that_does_not_exist_names_the_file_that_says_so(lost: Gpubox) -> None:
    del lost.env["DOCKER_HOST"]
    config = lost.home / ".docker/config.json"
    config.parent.mkdir()
    config.write_text('{"currentContext": "gone"}')
    text = both(lost)
    assert str(config) in text and "'gone'" in text


def test_a_context_leads_to_its_engine(lost: Gpubox, stable_engine: PrivateEngine) -> None:
    del lost.env["DOCKER_HOST"]
    make_context(lost.home / ".docker", "lab", stable_engine.host)
    there = {"DOCKER_CONTEXT": "lab"}
    done = lost("run", "--rm", "--gpus", "none", PROFILE, "echo", "hello", env=there)
    assert done.stdout == b"hello\n", done.stderr


def test_docker_host_is_above_a_context(lost: Gpubox, stable_engine: PrivateEngine) -> None:
    done = lost("ps", env={"DOCKER_CONTEXT": "nope", "DOCKER_HOST": stable_engine.host})
    assert done.returncode == 0, done.stderr


def test_an_engine_that_never_answers_is_not_waited_for(lost: Gpubox, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(folder / "s"))
        silent.listen()
        began = time.monotonic()
        done = lost("run", PROFILE, "true", env={"DOCKER_HOST": f"unix://{folder}/s"})
        assert time.monotonic() - began >= SECONDS
    assert f"does not answer within {SECONDS} s" in complaint(done, 125)


def test_dry_run_prints_the_line_and_says_what_it_assumed(lost: Gpubox) -> None:
    done = lost("run", "--dry-run", PROFILE, "nvidia-smi")
    assert done.returncode == 0
    words = shlex.split(done.stdout.decode())
    assert words[:2] == ["docker", "run"] and words[-1] == "nvidia-smi"
    assert "--gpus" in words
    engine, gpus = done.stderr.decode().splitlines()
    assert engine.startswith("assumed: an engine that knows --gpus (no engine at ")
    assert gpus.startswith("the box gets all GPUs; which are free is not seen: ")


def test_dry_run_without_a_gpu_assumes_nothing(lost: Gpubox) -> None:
    done = lost("run", "--gpus", "none", "--dry-run", PROFILE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"docker run ")


@pytest.mark.parametrize(
    "words",
    [["--help"], ["run", "--help"], ["ps", "-h"], ["--version"], ["profiles"]],
    ids=" ".join,
)
def test_help_needs_no_engine(lost: Gpubox, words: list[str]) -> None:
    done = lost(*words, env={"DOCKER_CONTEXT": "nope"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout


@pytest.mark.parametrize("words", [["ps"], ["run", PROFILE]], ids=" ".join)
def test_a_damaged_docker_configuration_is_named(lost: Gpubox, words: list[str]) -> None:
    del lost.env["DOCKER_HOST"]
    config = lost.home / ".docker/config.json"
    config.parent.mkdir()
    config.write_text("{")
    done = lost(*words)
    assert done.returncode == (1 if words == ["ps"] else 125)
    assert f"{config} cannot be read" in done.stderr.decode()
    assert os.fsencode("Traceback") not in done.stderr
