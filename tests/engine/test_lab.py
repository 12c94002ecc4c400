"""What the lab promises to all other tests."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lab.browser import browser
from lab.engine import Kind, Network, PrivateEngine
from lab.images import STAND_IN, build_stand_in
from lab.machine import free_port
from lab.podman import PrivatePodman
from lab.program import Gpubox
from lab.registry import Registry, Throttle
from lab.waiting import PATIENCE, wait_until

TESTS = Path(__file__).parents[1]


def docker_cli(engine: PrivateEngine, *words: str) -> subprocess.CompletedProcess[str]:
    """The real docker program that fits the engine."""
    return subprocess.run(
        [engine.docker, *words],
        env=engine.environ(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def gpu_words(engine: PrivateEngine, gpu: str) -> tuple[str, ...]:
    """How `docker run` asks this engine for one GPU."""
    if engine.kind == "cdi":
        return "--device", f"nvidia.com/gpu={gpu}"
    return "--gpus", f"device={gpu}"


def in_box(engine: PrivateEngine, words: tuple[str, ...], script: str) -> list[str]:
    done = docker_cli(engine, "run", "--rm", *words, STAND_IN, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return done.stdout.splitlines()


def traces() -> dict[str, list[str]]:
    """Everything on this machine that an engine could leave behind."""
    commands = {
        "mounts": ["cat", "/proc/self/mounts"],
        "folders": ["find", "/tmp", "-maxdepth", "1", "-name", f"gbx{os.getpid()}x*"],
        "firewall": ["iptables-save"],
        "forwarding": ["cat", "/proc/sys/net/ipv4/ip_forward"],
    }
    found = {name: _lines(command) for name, command in commands.items()}
    found["links"] = [name for name in links() if name.startswith(f"gbx{os.getpid()}x")]
    found["cgroups"] = sorted(map(str, cgroups(f"gbx{os.getpid()}x*")))
    found["processes"] = sorted(
        line for line in _lines(["ps", "-eo", "args"]) if f"/tmp/gbx{os.getpid()}x" in line
    )
    return found


def left_since(before: dict[str, list[str]]) -> dict[str, list[str]]:
    """What is there now and was not before; of an earlier box something may just be going."""
    return {
        name: left
        for name, lines in traces().items()
        if (left := [line for line in lines if line not in before[name]])
    }


def of_any_podman() -> list[list[str]]:
    """What is where every Podman of a machine keeps its own."""
    state = ("lib/containers", "lib/cni", "cache/containers")
    running = ("containers", "libpod", "netns", "runc", "crun")
    folders = [*(Path("/var", name) for name in state), *(Path("/run", name) for name in running)]
    found = [sorted(map(str, folder.rglob("*"))) for folder in folders]
    locks = [*Path("/dev/shm").glob("libpod*"), *cgroups("libpod_parent"), *cgroups("conmon")]
    return [*found, sorted(map(str, locks))]


def links() -> list[str]:
    return [line.split()[1].rstrip(":") for line in _lines(["ip", "-o", "link"])]


def cgroups(name: str) -> list[Path]:
    root = Path("/sys/fs/cgroup")
    return [*root.glob(name), *root.glob(f"*/{name}")]


def _lines(command: list[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if not line.startswith("#")]


# Engines ---------------------------------------------------------------------------------------


def test_a_box_sees_exactly_the_gpu_it_was_given(engine: PrivateEngine) -> None:
    lines = in_box(engine, gpu_words(engine, "1"), "ls -d /dev/nvidia*; nvidia-smi -L")
    assert lines == [
        "/dev/nvidia1",
        f"GPU 0: NVIDIA GeForce GTX 1080 Ti (SIMULATED) (UUID: {engine.gpus[1]})",
    ]


def test_a_gpu_can_be_named_by_its_uuid(engine: PrivateEngine) -> None:
    assert in_box(engine, gpu_words(engine, engine.gpus[2]), "ls -d /dev/nvidia*") == [
        "/dev/nvidia2"
    ]


def test_all_means_every_gpu(engine: PrivateEngine) -> None:
    words = gpu_words(engine, "all") if engine.kind == "cdi" else ("--gpus", "all")
    lines = in_box(engine, words, "nvidia-smi -L")
    assert [line.rpartition(" ")[2] for line in lines] == [f"{gpu})" for gpu in engine.gpus]


def test_without_a_request_there_is_no_gpu_and_no_nvidia_smi(engine: PrivateEngine) -> None:
    done = docker_cli(engine, "run", "--rm", STAND_IN, "sh", "-c", "ls /dev/nvidia*; nvidia-smi")
    assert done.returncode == 127
    assert "nvidia-smi: not found" in done.stderr


def test_a_gpu_that_does_not_exist_is_refused_in_nvidias_words(
    stable_engine: PrivateEngine,
) -> None:
    done = docker_cli(stable_engine, "run", "--gpus", "device=7", STAND_IN, "true")
    assert done.returncode == 125
    assert "nvidia-container-cli: device error: 7: unknown device" in done.stderr


def test_the_cdi_engine_has_no_hook(cdi_engine: PrivateEngine) -> None:
    done = docker_cli(cdi_engine, "run", "--gpus", "all", STAND_IN, "true")
    assert 'could not select device driver "" with capabilities: [[gpu]]' in done.stderr


def test_an_engine_without_gpu_support_says_so_as_real_ones_do() -> None:
    with PrivateEngine("stable", gpu_count=0) as engine:
        build_stand_in(engine.host)
        done = docker_cli(engine, "run", "--gpus", "all", STAND_IN, "true")
    assert 'could not select device driver "" with capabilities: [[gpu]]' in done.stderr


def test_a_gpu_is_usable_by_an_ordinary_user_of_a_read_only_box(engine: PrivateEngine) -> None:
    words = (*gpu_words(engine, "0"), "--read-only", "--user", "1000")
    assert in_box(engine, words, "true >/dev/nvidia0; id -un; nvidia-smi -L | wc -l") == [
        "anna",
        "1",
    ]


def answers(url: str) -> bytes:
    """Empty while nobody serves there."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            return bytes(response.read())
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError):
        return b""


def test_a_published_port_answers_on_loopback(engine: PrivateEngine) -> None:
    port = free_port()
    server = "echo hello >/tmp/index.html; exec httpd -f -p 80 -h /tmp"
    publish = ("-d", "--init", "-p", f"127.0.0.1:{port}:80")
    docker_cli(engine, "run", *publish, STAND_IN, "sh", "-c", server)
    assert wait_until(lambda: answers(f"http://127.0.0.1:{port}/")) == b"hello\n"


def test_the_jupyter_image_serves_a_real_jupyterlab_to_the_holder_of_its_token(
    stable_engine: PrivateEngine, jupyter_image: str
) -> None:
    port = free_port()
    publish = ("-d", "--init", "-p", f"127.0.0.1:{port}:8888", "-e", "JUPYTER_TOKEN=right")
    assert docker_cli(stable_engine, "run", *publish, jupyter_image).returncode == 0
    assert b"version" in wait_until(lambda: answers(f"http://127.0.0.1:{port}/api"))
    assert b"JupyterLab" in answers(f"http://127.0.0.1:{port}/lab?token=right")
    assert answers(f"http://127.0.0.1:{port}/api/status?token=wrong") == b""


def test_an_engine_starts_in_a_moment_and_leaves_nothing(engine: PrivateEngine) -> None:
    before = traces()
    with PrivateEngine(engine.kind) as other:
        build_stand_in(other.host)
        docker_cli(other, "run", "-d", "--name", "web", STAND_IN, "sleep", "600")
        assert left_since(before)
    assert left_since(before) == {}


def test_podmans_service_is_as_private_and_leaves_nothing() -> None:
    before, of_all = traces(), of_any_podman()
    with PrivatePodman() as podman:
        build_stand_in(podman.host)
        done = docker_cli(podman, "run", "-d", "-p", "80", "--init", STAND_IN, "sleep", "600")
        assert done.returncode == 0, done.stderr
        assert of_any_podman() == of_all
        assert "firewall" not in left_since(before)
    assert (left_since(before), of_any_podman()) == ({}, of_all)


def test_killed_and_started_again_an_engine_has_its_data(engine: PrivateEngine) -> None:
    docker_cli(engine, "run", "-d", "--name", "keeper", STAND_IN, "sleep", "600")
    engine.kill()
    assert docker_cli(engine, "ps").returncode != 0
    engine.start()
    state = docker_cli(engine, "inspect", "--format", "{{.State.Running}}", "keeper")
    assert state.stdout.strip() == "false"


def test_engines_live_side_by_side_in_one_process(
    stable_engine: PrivateEngine, cdi_engine: PrivateEngine
) -> None:
    ids = {docker_cli(e, "info", "--format", "{{.ID}}").stdout for e in (stable_engine, cdi_engine)}
    assert len(ids) == 2


@pytest.mark.parametrize("network", ["tcp", "tls"])
def test_an_engine_also_listens_on_the_network_if_asked(network: Network) -> None:
    with PrivateEngine("stable", gpu_count=0, network=network) as engine:
        version = [str(engine.docker), "version", "--format", "{{.Server.Version}}"]
        there = engine.environ() | engine.network_env
        assert subprocess.run(version, env=there, check=True, capture_output=True).stdout


def test_an_engine_behind_tls_refuses_strangers() -> None:
    with PrivateEngine("stable", gpu_count=0, network="tls") as engine:
        address = engine.network_host.replace("tcp:", "https:")
        trusting = ssl.create_default_context(cafile=str(engine.certificates / "ca.pem"))
        with pytest.raises((ssl.SSLError, ConnectionError, urllib.error.URLError)):
            urllib.request.urlopen(f"{address}/_ping", context=trusting)
        trusting.load_cert_chain(engine.certificates / "cert.pem", engine.certificates / "key.pem")
        assert urllib.request.urlopen(f"{address}/_ping", context=trusting).read() == b"OK"


@pytest.mark.parametrize("kind", ["stable", "podman"])
def test_kill_9_of_the_parent_leaves_no_process_and_the_next_start_sweeps_the_rest(
    kind: Kind,
) -> None:
    script = "docker run -d nvidia/cuda:8.0-cudnn5-devel sleep 600; echo $DOCKER_HOST; read _"
    parent = subprocess.Popen(
        [sys.executable, "-m", "lab", "run", "--kind", kind, "--", "sh", "-c", script],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout
        box = parent.stdout.readline().strip()
        folder = Path(parent.stdout.readline().strip().removeprefix("unix://")).parent
        assert len(box) == 64 and folder.is_dir()
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not _processes_in(folder.name.split("_")[0]))
    with PrivateEngine("stable", gpu_count=0):
        assert not folder.exists()
        assert folder.name.split("_")[0] not in links()


def _processes_in(name: str) -> list[str]:
    """By command line, and by cgroup: what a container runs names no engine."""
    named = [line for line in _lines(["ps", "-eo", "args"]) if f"/tmp/{name}_" in line]
    with contextlib.suppress(FileNotFoundError):  # another run's start sweeps it away just now
        for group in cgroups(name):
            named += [p for file in group.rglob("cgroup.procs") for p in file.read_text().split()]
    return named


# Registry --------------------------------------------------------------------------------------


def test_an_image_goes_to_the_registry_and_back(engine: PrivateEngine, registry: Registry) -> None:
    image = f"{registry.address}/nvidia/{engine.kind}:8.0"
    build_stand_in(engine.host, image)
    assert docker_cli(engine, "push", image).returncode == 0
    docker_cli(engine, "rmi", image)
    assert docker_cli(engine, "pull", image).returncode == 0


def test_a_registry_with_accounts_refuses_strangers(stable_engine: PrivateEngine) -> None:
    with Registry({"anna": "secret"}) as registry:
        image = f"{registry.address}/nvidia/cuda:8.0"
        build_stand_in(stable_engine.host, image)
        assert "no basic auth credentials" in docker_cli(stable_engine, "push", image).stderr
        login = ("login", "-u", "anna", "-p", "secret", registry.address)
        assert docker_cli(stable_engine, *login).returncode == 0
        assert docker_cli(stable_engine, "push", image).returncode == 0


def test_a_throttle_keeps_its_rate(registry: Registry) -> None:
    with Throttle(registry.port, rate=2000) as throttle:
        began = time.monotonic()
        for _ in range(5):
            urllib.request.urlopen(f"http://{throttle.address}/v2/", timeout=PATIENCE).close()
        assert time.monotonic() - began >= throttle.passed / 2000 - 0.1


def test_a_throttles_connections_can_be_cut(registry: Registry) -> None:
    with (
        Throttle(registry.port, rate=2000) as throttle,
        socket.create_connection(("127.0.0.1", throttle.port), PATIENCE) as idle,
    ):
        wait_until(throttle.cut)
        assert idle.recv(1) == b""


# The browser -----------------------------------------------------------------------------------


def test_a_browser_ends_with_all_that_it_started(tmp_path: Path) -> None:
    def processes() -> list[str]:
        return [line for line in _lines(["ps", "-ewwo", "args"]) if str(tmp_path) in line]

    with browser(tmp_path / "browser"):
        assert len(processes()) > 1
    assert processes() == []


# The gpubox program ----------------------------------------------------------------------------


def test_gpubox_runs_as_a_person_would_start_it(gpubox: Gpubox) -> None:
    done = gpubox("--version")
    assert done.returncode == 0
    assert done.stdout.startswith(b"gpubox")


@pytest.mark.parametrize("variable", ["DOCKER_HOST", "NV_GPU", "NO_COLOR", "SSH_CONNECTION"])
def test_nothing_of_the_persons_own_reaches_the_tests(variable: str) -> None:
    assert variable not in os.environ
