"""`gpubox doctor`: what can be wrong on this machine is made wrong, and told with its fix.

What only another machine can have (a snap, WSL, cgroup v2) is in tests/unit/test_diagnosis.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from lab.engine import PrivateEngine
from lab.gpus import HOOK
from lab.images import STAND_IN, build_stand_in
from lab.machine import free_port
from lab.nvml import DRIVER_NOT_LOADED, GPU_IS_LOST, MACHINES, VERSION_MISMATCH, Machine
from lab.podman import PrivatePodman
from lab.program import Gpubox
from lab.waiting import PATIENCE, wait_until

Nvml = Callable[[Machine], dict[str, str]]
Done = subprocess.CompletedProcess[bytes]
Check = tuple[str, str, str]

HERE = MACHINES["1080ti-535"]
IDS = (
    *("engine", "api", "setup", "driver", "library", "gpus", "toolkit", "cdi", "cgroups", "disk"),
    *("lost-gpus", "open-ports", "privileged", "open-jupyter", "profiles", "deleted", "images"),
)
INSTALL = (
    "install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure"
    " && sudo systemctl restart docker"
)
FREE = "docker system df shows what takes it, docker image prune frees some"


def said(done: Done) -> dict[str, list[Check]]:
    """The checks by id: verdict, evidence, fix. The exit code is that of the worst."""
    assert done.stderr == b""
    found = json.loads(done.stdout)
    assert done.returncode == any(check["verdict"] == "fail" for check in found)
    by_id: dict[str, list[Check]] = {}
    for check in found:
        by_id.setdefault(check["id"], []).append(
            (check["verdict"], check["evidence"], check["fix"])
        )
    return by_id


def patient(gpubox: Gpubox, **seconds: float) -> Gpubox:
    """What answers late is told as well; but for what is not to be waited for."""
    every = ("_SECONDS", "_PING_SECONDS", "_HTTP_SECONDS")
    gpubox.allow("gpubox.cli.examination", **dict.fromkeys(every, float(PATIENCE)) | seconds)
    return gpubox


def doctor(
    gpubox: Gpubox, *words: str, env: dict[str, str] | None = None, **seconds: float
) -> dict[str, list[Check]]:
    patient(gpubox, **seconds)
    return said(gpubox("doctor", "--json", *words, env=env))


def enclosed(gpubox: Gpubox, changed: str, *, env: dict[str, str] | None = None) -> Done:
    """The program on a machine whose files have been changed, which only it sees."""
    return subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "slave"),
            *("sh", "-euc", f'{changed}\nexec "$@"', "sh", patient(gpubox).program),
            *("doctor", "--json"),
        ],
        env=gpubox.env | (env or {}),
        cwd=gpubox.cwd,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture
def lost(tmp_path: Path) -> Gpubox:
    return Gpubox(tmp_path / "lost", {"DOCKER_HOST": f"unix://{tmp_path}/none"})


# --- a machine as it should be, and one with nothing


def test_on_a_whole_machine_all_is_well(engine: PrivateEngine, gpubox: Gpubox, nvml: Nvml) -> None:
    found = doctor(gpubox, env=nvml(HERE))
    assert tuple(found) == IDS
    unknown = {"disk"} if found["disk"][0][0] == "warn" else set()  # a small machine
    assert {check for check, [one] in found.items() if one[0] != "ok"} - {"images"} == unknown
    assert found["driver"] == [("ok", "535.183.01, which knows CUDA 12.2", "")]
    assert found["gpus"] == [("ok", "4: GeForce GTX 1080 Ti", "")]
    if engine.kind == "stable":
        way = f"the hook {engine.folder}/bin/{HOOK}"
        cdi = "no CDI specification of NVIDIA's in /etc/cdi, /var/run/cdi: GPUs come by the hook"
    else:
        way = "CDI devices"
        cdi = f"{engine.folder}/cdi/nvidia.json lists the GPUs that the driver lists"
    assert (found["toolkit"], found["cdi"]) == ([("ok", way, "")], [("ok", cdi, "")])


def test_a_check_is_an_object_with_four_texts(gpubox: Gpubox, stable_engine: PrivateEngine) -> None:
    found = json.loads(gpubox("doctor", "--json").stdout)
    assert {check["id"] for check in found} == {*IDS}
    for check in found:
        assert list(check) == ["id", "verdict", "evidence", "fix"]
        assert all(isinstance(value, str) for value in check.values())
        assert check["verdict"] in ("ok", "warn", "fail", "not known")
        assert check["fix"] or check["verdict"] in ("ok", "not known")


EMPTY = "mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /sys/bus/pci/devices"


def test_a_machine_with_nothing_at_all_is_examined_too(lost: Gpubox) -> None:
    host = lost.env["DOCKER_HOST"]
    absent = "mount --bind /dev/null $(command -v dockerd)"
    found = said(enclosed(lost, f"{EMPTY}; {absent}"))
    assert tuple(found) == IDS
    assert found["engine"] == [
        (
            "fail",
            f"no engine at {host} (DOCKER_HOST): Docker is not installed, or not running; there is"
            " no dockerd here, so it is not installed",
            "install Docker Engine, on Debian and Ubuntu: sudo apt-get install docker.io",
        )
    ]
    assert found["driver"] == [
        (
            "warn",
            "this machine has no NVIDIA driver: there is no libnvidia-ml.so.1; the PCI bus has no"
            " NVIDIA GPU",
            "install the driver, until nvidia-smi lists the GPUs",
        )
    ]
    fine = {check for check, [one] in found.items() if one[0] == "ok"}
    assert fine == {"cdi", "profiles", "deleted"}
    unknown = {check for check, [one] in found.items() if one[0] == "not known"}
    assert unknown == set(IDS) - fine - {"engine", "driver"}


def test_people_see_the_worst_last_and_a_fix_on_a_line_of_its_own(lost: Gpubox) -> None:
    done = lost("doctor")
    lines = done.stdout.decode().splitlines()
    marks = [line[:9].strip() for line in lines if not line.startswith(" ")]
    order = ("ok", "not known", "warn", "fail")
    assert marks == sorted(marks, key=order.index)
    assert marks[-1] == "fail" and done.returncode == 1
    assert lines[-2].startswith(f"fail       engine        no engine at {lost.env['DOCKER_HOST']} ")
    assert lines[-1].lstrip().startswith("-> ")
    assert b"\x1b" not in done.stdout
    assert done.stderr.decode() == "17 checks: 1 failed, 1 warning, 12 not known\n"


# --- the engine


def test_an_engine_that_was_stopped(tmp_path: Path) -> None:
    with PrivateEngine() as engine:
        gpubox = Gpubox(tmp_path / "person", engine.env)
        engine.kill()
        found = doctor(gpubox)["engine"]
        problem = f"no engine answers at {engine.host} (DOCKER_HOST): it is not running"
        assert found == [("fail", problem, "sudo systemctl start docker")]


def test_an_engine_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    with PrivateEngine() as engine:
        gpubox = Gpubox(tmp_path / "person", engine.env)
        [dockerd] = [
            int(pid)
            for pid in Path(f"/proc/{engine.pid}/task/{engine.pid}/children").read_text().split()
        ]
        os.kill(dockerd, signal.SIGSTOP)
        try:
            found = doctor(gpubox, _PING_SECONDS=1)["engine"]
        finally:
            os.kill(dockerd, signal.SIGCONT)
        problem = f"the engine at {engine.host} (DOCKER_HOST) does not answer within 1 s"
        assert found == [("fail", problem, "sudo systemctl restart docker")]


def test_no_permission(gpubox: Gpubox, stable_engine: PrivateEngine) -> None:
    """root, but without root's way past permissions, on a socket of somebody else's."""
    path = stable_engine.folder / "s"
    before, program = path.stat(), patient(gpubox).program
    os.chown(path, 65534, 65534)
    path.chmod(0o600)
    try:
        done = subprocess.run(
            ["setpriv", "--bounding-set", "-dac_override", program, "doctor", "--json"],
            env=gpubox.env,
            cwd=gpubox.cwd,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
    finally:
        os.chown(path, before.st_uid, before.st_gid)
        path.chmod(before.st_mode)
    assert said(done)["engine"] == [
        (
            "fail",
            f"no permission to use the engine at {stable_engine.host} (DOCKER_HOST)",
            "sudo usermod -aG docker $USER, then log in again (that group is as good as root)",
        )
    ]


def test_a_context_that_is_not_there_does_not_hide_the_driver(lost: Gpubox, nvml: Nvml) -> None:
    del lost.env["DOCKER_HOST"]
    found = doctor(lost, env={"DOCKER_CONTEXT": "nope"} | nvml(HERE))
    assert found["engine"] == [
        (
            "fail",
            "DOCKER_CONTEXT names the context 'nope', and there is none",
            "docker context ls shows the contexts, docker context use default leaves them",
        )
    ]
    assert found["driver"][0][0] == "ok"


def test_an_engine_at_another_place_is_named(lost: Gpubox) -> None:
    own = lost.home / "run"
    own.mkdir()
    host = lost.env["DOCKER_HOST"]
    with socket.socket(socket.AF_UNIX) as rootless:
        rootless.bind(str(own / "docker.sock"))
        done = enclosed(lost, EMPTY, env={"XDG_RUNTIME_DIR": str(own)})
    assert said(done)["engine"] == [
        (
            "fail",
            f"no engine at {host} (DOCKER_HOST): Docker is not installed, or not running; yet there"
            f" is {own}/docker.sock",
            f"export DOCKER_HOST=unix://{own}/docker.sock",
        )
    ]


def test_of_another_machine_only_the_engine_is_known(nvml: Nvml, tmp_path: Path) -> None:
    with PrivateEngine(network="tcp") as afar:
        gpubox = Gpubox(tmp_path / "person", afar.network_env)
        found = doctor(gpubox, env=nvml(HERE))
        why = f"{afar.network_host} may be another machine"
        for check in ("driver", "library", "gpus", "cdi", "disk", "images"):
            assert found[check] == [("not known", why, "")]
        assert found["engine"][0][0] == "ok"
        here = "whether the engine's machine has it cannot be seen here"
        assert found["toolkit"] == [("not known", here, "")]


def test_podman_says_that_it_gives_no_gpus(podman: PrivatePodman, gpubox: Gpubox) -> None:
    version = docker.APIClient(base_url=podman.host).version()["Version"]
    assert doctor(gpubox)["setup"] == [
        (
            "warn",
            f"Podman {version} ignores GPU requests: a box would run without a GPU",
            "use Podman 5.4 or newer, or a Docker Engine",
        )
    ]


# --- the driver

LOADED = """
mount -t tmpfs tmpfs /proc/driver
mkdir /proc/driver/nvidia
echo "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.171.04  Tue Mar 19 20:30:00 UTC 2024" \\
    >/proc/driver/nvidia/version
"""
CARD = """
mount -t tmpfs tmpfs /sys/bus/pci/devices
mkdir /sys/bus/pci/devices/0000:01:00.0
echo 0x10de >/sys/bus/pci/devices/0000:01:00.0/vendor
echo 0x030000 >/sys/bus/pci/devices/0000:01:00.0/class
"""


def test_a_driver_that_is_not_loaded(lost: Gpubox, nvml: Nvml) -> None:
    found = doctor(lost, env=nvml(HERE.failing("nvmlInit", DRIVER_NOT_LOADED)))
    problem = "the NVIDIA driver is not loaded on this machine"
    fix = "sudo modprobe nvidia; nvidia-smi says when it works"
    assert found["driver"] == [("fail", problem, fix)]
    assert found["library"][0][0] == found["gpus"][0][0] == "not known"


def test_a_driver_that_was_updated_under_the_loaded_one(lost: Gpubox, nvml: Nvml) -> None:
    there = nvml(HERE.failing("nvmlInit", VERSION_MISMATCH))
    (Path(there["LD_LIBRARY_PATH"]) / "libnvidia-ml.so.535.183.01").touch()
    found = said(enclosed(lost, LOADED, env=there))
    assert found["driver"] == [("ok", "535.171.04 is loaded", "")]
    assert found["library"] == [
        (
            "fail",
            "the NVIDIA driver was updated and the old one is still loaded: 535.171.04 is loaded,"
            " 535.183.01 is installed",
            "reboot the machine",
        )
    ]


def test_a_driver_without_its_library(lost: Gpubox) -> None:
    found = said(enclosed(lost, LOADED))
    assert found["driver"] == [("ok", "535.171.04 is loaded", "")]
    assert found["library"] == [
        (
            "fail",
            "there is no libnvidia-ml.so.1 beside the driver",
            "install the driver's libraries of exactly that version, 535.171.04",
        )
    ]


def test_a_library_that_is_none(lost: Gpubox, tmp_path: Path) -> None:
    broken = tmp_path / "libnvidia-ml.so.1"
    broken.touch()
    found = doctor(lost, env={"LD_LIBRARY_PATH": str(tmp_path)})
    problem = f"NVIDIA's library cannot be loaded: {broken}: file too short"
    assert found["library"] == [("fail", problem, "install the NVIDIA driver again")]


def test_a_card_without_a_driver(lost: Gpubox) -> None:
    assert said(enclosed(lost, CARD))["driver"] == [
        (
            "fail",
            "this machine has no NVIDIA driver: there is no libnvidia-ml.so.1; the PCI bus has 1"
            " NVIDIA GPU",
            "install the driver, until nvidia-smi lists the GPUs",
        )
    ]


def test_a_gpu_that_is_lost(lost: Gpubox, nvml: Nvml) -> None:
    ill = HERE.card_failing(1, "*", GPU_IS_LOST)
    assert doctor(lost, env=nvml(ill))["gpus"] == [
        (
            "fail",
            "GPU 1 cannot be read: GPU is lost",
            "sudo dmesg | grep -i nvrm shows why; sudo reboot brings it back, if it is not broken",
        )
    ]


# --- from the driver into a box


def test_an_engine_without_nvidias_toolkit(tmp_path: Path, nvml: Nvml) -> None:
    with PrivateEngine(gpu_count=0) as bare:
        gpubox = Gpubox(tmp_path / "person", bare.env)
        found = doctor(gpubox, env=nvml(HERE))
        problem = (
            "the engine has no NVIDIA support, so it can give no GPU: no nvidia-container-runtime"
            "-hook where it looks, and no CDI device"
        )
        assert found["toolkit"] == [("fail", problem, INSTALL)]
        nothing = "no CDI specification of NVIDIA's in /etc/cdi, /var/run/cdi"
        fix = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
        assert found["cdi"] == [("warn", nothing, fix)]
        # without a GPU that is nothing to miss
        assert doctor(gpubox)["toolkit"] == [("warn", problem, INSTALL)]


def test_a_hook_that_was_removed_or_came_too_late(tmp_path: Path, nvml: Nvml) -> None:
    with PrivateEngine() as engine:
        gpubox = Gpubox(tmp_path / "person", engine.env)
        hook = engine.folder / "bin" / HOOK
        hook.touch()
        problem = f"{hook} came after the engine's start, when it looks for it"
        fix = "sudo systemctl restart docker"
        assert doctor(gpubox, env=nvml(HERE))["toolkit"] == [("warn", problem, fix)]
        hook.unlink()
        [(verdict, problem, fix)] = doctor(gpubox, env=nvml(HERE))["toolkit"]
        assert (verdict, fix) == ("fail", INSTALL)
        assert "no nvidia-container-runtime-hook where it looks" in problem


@pytest.fixture
def cdi_alone(tmp_path: Path) -> Iterator[PrivateEngine]:
    """One whose specification may be changed."""
    with PrivateEngine("cdi") as made:
        yield made


def rewritten(engine: PrivateEngine, change: Callable[[Any], None]) -> Path:
    """The engine's specification after a change, which the engine has seen."""
    path = engine.folder / "cdi/nvidia.json"
    spec = json.loads(path.read_text())
    change(spec)
    path.write_text(json.dumps(spec))
    wanted = {f"nvidia.com/gpu={device['name']}" for device in spec["devices"]}
    client = docker.APIClient(base_url=engine.host)

    def seen() -> bool:
        return {device["ID"] for device in client.info()["DiscoveredDevices"]} == wanted

    wait_until(seen, what="the engine's look at its specification")
    client.close()
    return path


def test_a_specification_that_is_out_of_date(
    cdi_alone: PrivateEngine, tmp_path: Path, nvml: Nvml
) -> None:
    gpubox = Gpubox(tmp_path / "person", cdi_alone.env)
    third = cdi_alone.gpus[3]

    def change(spec: Any) -> None:
        spec["devices"] = [it for it in spec["devices"] if it["name"] not in ("3", third)]
        spec["devices"].append(dict(spec["devices"][0], name="GPU-0ld"))
        spec["containerEdits"]["mounts"].append(
            {"hostPath": "/usr/lib/libcuda.so.470.57.02", "containerPath": "/usr/lib/libcuda.so.1"}
        )

    path = rewritten(cdi_alone, change)
    assert doctor(gpubox, env=nvml(HERE))["cdi"] == [
        (
            "fail",
            f"{path} is out of date: it lacks GPU 3 ({third}); it has GPU-0ld, which the driver"
            " does not list; it mounts the libraries of driver 470.57.02, and 535.183.01 is loaded",
            f"sudo nvidia-ctk cdi generate --output={path}",
        )
    ]


def test_a_specification_that_cannot_be_read(
    cdi_alone: PrivateEngine, tmp_path: Path, nvml: Nvml
) -> None:
    gpubox = Gpubox(tmp_path / "person", cdi_alone.env)
    broken = cdi_alone.folder / "cdi/other.yaml"
    broken.write_text("kind: [")
    found = doctor(gpubox, env=nvml(HERE))["cdi"]
    assert found[0][0] == "fail" and found[0][1].startswith(f"{broken}:2: not YAML: ")
    assert found[0][2] == f"sudo nvidia-ctk cdi generate --output={broken}"


# --- boxes


def start(gpubox: Gpubox, *words: str) -> None:
    done = gpubox("run", "-d", "--name", "box", *words)
    assert done.returncode == 0, done.stderr


def test_a_box_whose_gpu_is_no_more(
    engine: PrivateEngine, gpubox: Gpubox, nvml: Nvml, client: docker.DockerClient
) -> None:
    gone = engine.gpus[3]
    start(gpubox, "--gpus", gone, STAND_IN, "sleep", "1000")
    assert doctor(gpubox, env=nvml(HERE))["lost-gpus"] == [
        ("ok", "none of 1 running with GPUs", "")
    ]
    fewer = Machine(driver=HERE.driver, cuda=HERE.cuda, cards=HERE.cards[:3])
    assert doctor(gpubox, env=nvml(fewer))["lost-gpus"] == [
        ("fail", f"box holds {gone}, which the driver does not list any more", "gpubox restart box")
    ]


def test_a_box_that_may_not_open_its_gpus_any_more(
    engine: PrivateEngine, gpubox: Gpubox, client: docker.DockerClient
) -> None:
    """As after systemctl daemon-reload: the node is there, and the device cgroup forbids it."""
    start(gpubox, "--gpus", "device=0", "-u", "65534", STAND_IN, "sleep", "1000")
    assert doctor(gpubox)["lost-gpus"] == [("ok", "none of 1 running with GPUs", "")]
    again = "rm /dev/nvidia0 && mknod -m 666 /dev/nvidia0 c 195 0"
    assert client.containers.get("box").exec_run(["sh", "-c", again], user="0").exit_code == 0
    assert doctor(gpubox)["lost-gpus"] == [
        ("fail", "box may not open its GPUs any more", "gpubox restart box")
    ]


def test_a_box_that_hangs_is_not_waited_for(
    stable_engine: PrivateEngine, gpubox: Gpubox, client: docker.DockerClient
) -> None:
    start(gpubox, "--gpus", "device=0", STAND_IN, "sleep", "1000")
    start(gpubox, "--gpus", "device=1", "--name", "other", STAND_IN, "sleep", "1000")
    hung = client.containers.get("box").exec_run("mkfifo /dev/nvidiactl")  # opens when written to
    assert hung.exit_code == 0
    unseen = ("not known", "it could not be seen of box", "")
    assert doctor(gpubox, _SECONDS=10)["lost-gpus"] == [unseen]


def test_a_box_that_is_open_to_the_network(engine: PrivateEngine, gpubox: Gpubox) -> None:
    port = free_port()
    ports = ("-p", f"0.0.0.0:{port}:80", "-p", "127.0.0.1::81")
    start(gpubox, "--gpus", "none", *ports, STAND_IN, "sleep", "1000")
    assert doctor(gpubox)["open-ports"] == [
        (
            "warn",
            f"box publishes 0.0.0.0:{port}->80/tcp: open to the whole network, past ufw",
            f"gpubox stop box, and start it anew with -p 127.0.0.1:{port}:80",
        )
    ]


def test_a_box_that_is_privileged(
    cdi_engine: PrivateEngine, gpubox: Gpubox, client: docker.DockerClient
) -> None:
    client.containers.run(
        STAND_IN,
        ["sleep", "1000"],
        name="box",
        detach=True,
        privileged=True,
        labels={"gpubox.version": "0"},
    )
    assert doctor(gpubox)["privileged"] == [
        (
            "warn",
            "box is privileged: it has every GPU and every device of the machine, whatever it"
            " claims, and its root is this machine's",
            "gpubox stop box, and start it anew without --privileged",
        )
    ]


SERVE = "mkdir -p /w/api && echo '{}' >/w/api/status && exec httpd -f -p 80 -h /w"


@pytest.mark.parametrize(
    ("answer", "is_jupyter"),
    [('{"connections": 0, "kernels": 0, "started": ""}', True), ("[]", False), ("<html>", False)],
)
def test_a_jupyter_without_a_token(
    stable_engine: PrivateEngine,
    gpubox: Gpubox,
    client: docker.DockerClient,
    answer: str,
    is_jupyter: bool,
) -> None:
    serve = SERVE.replace("{}", answer)
    start(gpubox, "--gpus", "none", "-p", "80", STAND_IN, "sh", "-c", serve)
    port = int(
        client.containers.get("box").attrs["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    )
    wait_until(lambda: b"200 OK" in ask(port), what="the box's server")
    at = f"127.0.0.1:{port}"
    assert doctor(gpubox)["open-jupyter"] == [
        (
            "fail",
            f"box lets anybody who reaches {at} into its Jupyter, without a token",
            "gpubox stop box; gpubox jupyter starts one with a token",
        )
        if is_jupyter
        else ("ok", "none of 1 running", "")
    ]


def ask(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            connection.sendall(b"GET /api/status HTTP/1.0\r\n\r\n")
            return connection.recv(1000)
    except ConnectionError:
        return b""


def test_a_server_that_never_answers_is_not_waited_for(
    stable_engine: PrivateEngine, gpubox: Gpubox
) -> None:
    silent = ("sh", "-c", "nc -ll -p 80 -e sleep 1000")
    start(gpubox, "--gpus", "none", "-p", "80", STAND_IN, *silent)
    assert doctor(gpubox, _HTTP_SECONDS=0.5)["open-jupyter"] == [("ok", "none of 1 running", "")]


# --- room


@pytest.mark.parametrize(
    ("size", "verdict", "problem"),
    [
        ("600m", "fail", r", where images go, has 6\d\d\.\d MB left"),
        ("3g", "warn", r" has 3\.2 GB left, less than an image with CUDA takes"),
    ],
)
def test_a_disk_that_is_full(size: str, verdict: str, problem: str) -> None:
    with PrivateEngine(disk=size) as small:
        person = Gpubox(small.folder / "person", small.env)
        # its data lie on a file system that is seen from its own mounts alone
        inside = ("nsenter", "--target", str(small.pid), "--mount", "--", patient(person).program)
        done = subprocess.run(
            [*inside, "doctor", "--json"], env=person.env, capture_output=True, check=False
        )
        [found] = said(done)["disk"]
        assert found == (verdict, found[1], FREE)
        assert re.fullmatch(f"{small.folder}/data{problem}", found[1])


# --- profiles


def test_every_broken_file_is_named(lost: Gpubox) -> None:
    (lost.cwd / "gpubox.yaml").write_text("profiles: [")
    own = lost.home / ".config/gpubox/profiles.d"
    own.mkdir(parents=True)
    (own / "a.yaml").write_text("profiles: {a: {image: x:1}}")
    (own / "b.yaml").write_text("- a list")
    found = doctor(lost)["profiles"]
    assert [one[0] for one in found] == ["fail", "fail"]
    assert (
        found[0][1]
        == "~/.config/gpubox/profiles.d/b.yaml:1: a mapping (KEY: VALUE) is expected here"
    )
    assert found[1][1].startswith("gpubox.yaml:2: not YAML: ")


def test_every_broken_profile_is_told_once(lost: Gpubox) -> None:
    (lost.cwd / "gpubox.yaml").write_text(
        "profiles:\n"
        "  fine: {image: x:1}\n"
        "  one: {imagee: x:1}\n"
        "  two: {extends: nothing}\n"
        "  three: {extends: one}\n"
    )
    assert doctor(lost)["profiles"] == [
        ("fail", "gpubox.yaml:3: imagee: unknown key", "did you mean 'image'?"),
        (
            "fail",
            "gpubox.yaml:4: extends: no profile 'nothing'",
            found_hint(lost),
        ),
    ]


def found_hint(lost: Gpubox) -> str:
    done = lost("profiles", "two")
    return done.stderr.decode().splitlines()[1].strip()


def test_a_file_that_is_not_trusted_is_a_warning(lost: Gpubox) -> None:
    path = lost.cwd / "gpubox.yaml"
    path.write_text("{}")
    path.chmod(0o666)
    problem = f"{path} is not used: others may write it"
    assert doctor(lost)["profiles"] == [("warn", problem, f"chmod go-w {path}")]


OLD = "profiles:\n  old: {cuda: '9.0', cudnn: 7}\n  mine: {cuda: '8.0', cudnn: 5}\n"


def test_a_profile_whose_image_was_deleted(
    stable_engine: PrivateEngine, gpubox: Gpubox, lost: Gpubox
) -> None:
    """That of the other one is here."""
    (gpubox.cwd / "gpubox.yaml").write_text(OLD)
    problem = (
        "profile old (gpubox.yaml:2): nvidia/cuda:9.0-cudnn7-devel cannot be pulled: it was deleted"
        " from Docker Hub in June 2023"
    )
    fix = (
        "gpubox build nvidia/cuda:9.0-cudnn7-devel makes it here; for new code: gpubox run"
        " cuda12-cudnn; a registry that kept it goes into registry: in gpubox.yaml, or"
        " GPUBOX_REGISTRY"
    )
    assert doctor(gpubox)["deleted"] == [("fail", problem, fix)]
    kept = doctor(gpubox, env={"GPUBOX_REGISTRY": "mirror.lab:5000"})["deleted"]
    assert [one[0] for one in kept] == ["ok"]
    # without an engine it may be there
    (lost.cwd / "gpubox.yaml").write_text(OLD)
    assert [one[0] for one in doctor(lost)["deleted"]] == ["warn", "warn"]


def test_a_profile_that_this_machine_does_not_run(
    engine: PrivateEngine, gpubox: Gpubox, nvml: Nvml
) -> None:
    (gpubox.cwd / "gpubox.yaml").write_text(
        "profiles:\n"
        "  new: {image: 'nvidia/cuda:13.0.2-cudnn-devel-ubuntu24.04'}\n"
        "  without: {extends: new, gpus: none}\n"
        "  here: {image: 'nvidia/cuda:8.0-cudnn5-devel', gpus: all}\n"
    )
    image = "nvidia/cuda:13.0.2-cudnn-devel-ubuntu24.04"
    found = doctor(gpubox, env=nvml(MACHINES["1080ti-580"]))["images"]
    assert [(verdict, evidence) for verdict, evidence, _ in found] == [
        (
            "warn",
            f"profile new (gpubox.yaml:2): {image} has no code for GeForce GTX 1080 Ti (Pascal,"
            " 6.1): its CUDA 13.0 begins at compute capability 7.5",
        )
    ]
    too_old = doctor(gpubox, env=nvml(MACHINES["1080ti-367.35"]))["images"]
    of_here = [evidence for _, evidence, _ in too_old if evidence.startswith("profile here")]
    assert len(of_here) == 1 and "367.35, knows CUDA 7.5" in of_here[0]


# --- a box on each GPU


def test_a_box_on_each_gpu_shows_what_it_sees(
    engine: PrivateEngine, gpubox: Gpubox, nvml: Nvml, client: docker.DockerClient
) -> None:
    found = doctor(gpubox, "--gpu", env=nvml(HERE))["gpu-box"]
    assert found == [
        (
            "ok",
            f"GPU {index}: a box of {STAND_IN} has /dev/nvidia{index}, GPU 0: NVIDIA GeForce GTX"
            f" 1080 Ti (SIMULATED) (UUID: {uuid})",
            "",
        )
        for index, uuid in enumerate(engine.gpus)
    ]
    assert client.containers.list(all=True) == []


def test_without_nvml_one_box_is_tried_on_all(
    engine: PrivateEngine, gpubox: Gpubox, client: docker.DockerClient
) -> None:
    [(verdict, evidence, _)] = doctor(gpubox, "--gpu")["gpu-box"]
    assert verdict == "ok"
    assert evidence.startswith(f"all GPUs: a box of {STAND_IN} has /dev/nvidia0, /dev/nvidia1, ")
    assert client.containers.list(all=True) == []


def test_two_may_try_the_gpus_at_once(
    stable_engine: PrivateEngine, gpubox: Gpubox, nvml: Nvml, client: docker.DockerClient
) -> None:
    words = [str(patient(gpubox).program), "doctor", "--gpu", "--json"]
    env = gpubox.env | nvml(HERE)
    both = [
        subprocess.Popen(words, env=env, cwd=gpubox.cwd, stdout=subprocess.PIPE) for _ in range(2)
    ]
    for one in both:
        found = json.loads(one.communicate(timeout=PATIENCE)[0])
        assert {it["verdict"] for it in found if it["id"] == "gpu-box"} == {"ok"}
    assert client.containers.list(all=True) == []


def test_a_box_that_gets_no_gpu_or_another_one(tmp_path: Path, nvml: Nvml) -> None:
    with PrivateEngine(gpu_count=2) as engine:
        build_stand_in(engine.host)
        gpubox = Gpubox(tmp_path / "person", engine.env)
        first, second = engine.gpus
        fewer = nvml(Machine(driver=HERE.driver, cuda=HERE.cuda, cards=HERE.cards[:2]))
        identity = engine.folder / "gpus/01"
        identity.write_text(identity.read_text().replace(second, "GPU-0ther"))
        gone, other = doctor(gpubox, "--gpu", env=fewer)["gpu-box"], identity
        assert gone[0][0] == "ok" and first in gone[0][1]
        assert gone[1][:2] == ("fail", f"GPU 1: the engine's machine has no GPU {second}")
        (engine.folder / "nvidia-smi").write_text("#!/bin/sh\necho GPU 0: x '(UUID: GPU-0ther)'\n")
        other.write_text(other.read_text().replace("GPU-0ther", second))
        wrong = doctor(gpubox, "--gpu", env=fewer)["gpu-box"]
        assert [one[:2] for one in wrong] == [
            (
                "fail",
                f"GPU {index}: a box of {STAND_IN} got another one than {uuid}:"
                f" /dev/nvidia{index}, GPU 0: x (UUID: GPU-0ther)",
            )
            for index, uuid in enumerate((first, second))
        ]
        (engine.folder / "bin" / HOOK).unlink()
        removed = doctor(gpubox, "--gpu", env=fewer)["gpu-box"]
        assert {one[1].partition(": ")[2] for one in removed} == {
            "nvidia-container-toolkit was removed since the engine started"
        }
        client = docker.DockerClient(base_url=engine.host)
        assert client.containers.list(all=True) == []
        client.images.remove(STAND_IN, force=True)
        client.close()
        [(verdict, evidence, fix)] = doctor(gpubox, "--gpu", env=fewer)["gpu-box"]
        assert (verdict, evidence) == ("not known", "no image with CUDA is on the engine")
        assert fix == "gpubox pull nvidia/cuda:12.4.1-base-ubuntu22.04"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_interrupts_leaves_no_box(tmp_path: Path, nvml: Nvml, number: signal.Signals) -> None:
    with PrivateEngine() as engine:
        build_stand_in(engine.host)
        (engine.folder / "nvidia-smi").write_text("#!/bin/sh\nsleep 1000\n")
        gpubox = Gpubox(tmp_path / "person", engine.env)
        client = docker.DockerClient(base_url=engine.host)
        doctor_ = subprocess.Popen(
            [patient(gpubox).program, "doctor", "--gpu"],
            env=gpubox.env | nvml(HERE),
            cwd=gpubox.cwd,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: bool(client.containers.list()), what="a box on a GPU")
        doctor_.send_signal(number)
        assert doctor_.wait(PATIENCE) == 130
        assert client.containers.list(all=True) == []
        client.close()
