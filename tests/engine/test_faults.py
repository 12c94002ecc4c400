"""What a person reads when a start fails: the sentence, the fix and the exit code, word for word.

Every failure is a real one of a real engine or registry; NVIDIA's own tool alone is quoted.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import docker
import pytest
from docker import DockerClient

from lab import gpus
from lab.engine import Kind, PrivateEngine
from lab.images import STAND_IN, build_stand_in
from lab.inspect import names
from lab.program import Gpubox
from lab.refusals import RefusingRegistry
from lab.registry import Registry
from lab.workstation import PROFILE

OR_NO_GPU = "or run without a GPU: --gpus none"
Done = subprocess.CompletedProcess[bytes]


class Row(NamedTuple):
    """Options of `run`, and what comes of them; {here} is the working directory."""

    options: str
    problem: str
    hint: str = ""
    command: str = "true"
    exit_code: int = 125

    def __str__(self) -> str:
        return f"{self.options} {self.command}"


def rows(*listed: Row) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", listed, ids=str)


@pytest.fixture
def surroundings(gpubox: Gpubox, client: DockerClient) -> Iterator[None]:
    """Something of each kind to stumble over; all that is there afterwards was there before."""
    (gpubox.cwd / "folder").mkdir()
    files = {"file": "", "bad.json": "{", "odd.json": '{"defaultAction": "ALLOW"}'}
    for name, text in files.items():
        (gpubox.cwd / name).write_text(text)
    client.containers.create(STAND_IN, name="thesis")
    yield
    assert names(client) == ["thesis"]
    assert {path.name for path in gpubox.cwd.iterdir()} == {*files, "folder"}


def check(done: Done, row: Row, here: Path, *before: str) -> None:
    """`before` are the lines that come first, of others or of the pull."""
    said = [f"gpubox: {row.problem}", *([f"  {row.hint}"] if row.hint else [])]
    lines = [line.replace(str(here), "{here}") for line in done.stderr.decode().splitlines()]
    assert lines == [*before, *said]
    assert (done.returncode, done.stdout) == (row.exit_code, b"")


def run(gpubox: Gpubox, row: Row, *more: str) -> Done:
    options = shlex.split(row.options.replace("{here}", str(gpubox.cwd)))
    return gpubox("run", "--gpus", "none", *more, *options, PROFILE, *shlex.split(row.command))


# What gpubox sees by itself --------------------------------------------------------------------


@rows(
    Row("-m 8x", "command line: --memory: '8x' is not a size; write it like 8g or 512m"),
    Row("--shm-size ''", "command line: --shm-size: '' is not a size; write it like 8g or 512m"),
    Row(
        "--cpus many",
        "command line: --cpus: 'many' is not a number of CPUs; write it like 2 or 1.5",
    ),
    Row("--cap-add x-y", "command line: --cap-add: 'x-y' is no capability"),
    Row("--device gpu", "command line: --device: 'gpu' is not HOST_DEVICE[:BOX_DEVICE][:rwm]"),
    Row(
        "-p localhost:80:80",
        "command line: --publish: 'localhost' is not an IP address; write 127.0.0.1",
    ),
    Row("-p 99999:80", "command line: --publish: 99999 is no port; ports are 1 to 65535"),
    Row(
        "-p 8080:80 -p 8080:81",
        "command line: ports: 127.0.0.1:8080/tcp is published twice: as 80/tcp and as 81/tcp of the"
        " box",
    ),
    Row(
        "-v {here}/folder:/m -v {here}:/m", "command line: --volume: /m stands here twice; keep one"
    ),
    Row(
        "--workspace . -v {here}/folder:/workspace",
        "command line: volumes: {here} and {here}/folder (command line) are both mounted on"
        " /workspace",
    ),
    Row("-v {here}/folder:m", "command line: --volume: 'm' is not an absolute path in the box"),
    Row("-v {here}/folder:/", "command line: --volume: a mount over / would hide the whole box"),
    Row("-v f:/m", "command line: --volume: 'f' is no volume's name; for a folder write ./f"),
    Row("-v a/b:/m", "command line: --volume: 'a/b' is no volume's name; for a folder write ./a/b"),
    Row(
        "-v {here}/gone/x:/m:Z",
        "no folder {here}/gone/x on this machine to mount on /m",
        "nothing in {here} is named gone",
    ),
    Row(
        "-v {here}/file/x:/m",
        "no folder {here}/file/x on this machine to mount on /m",
        "{here}/file is a file",
    ),
    Row("--env-file fild", "no file {here}/fild", "did you mean {here}/file?"),
    Row(
        "--security-opt seccomp=od.json",
        "no file {here}/od.json",
        "did you mean {here}/odd.json?",
    ),
    Row(
        "--security-opt seccomp=bad.json",
        "{here}/bad.json is not JSON: Expecting property name enclosed in double quotes: line 1"
        " column 2 (char 1)",
    ),
)
def test_what_cannot_be_is_told_before_the_engine_is_asked(
    surroundings: None, gpubox: Gpubox, row: Row
) -> None:
    check(run(gpubox, row), row, gpubox.cwd)


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        ("a/B:1", "'a/B:1': the name of an image is lower-case"),
        ("a/b:1:2", "'a/b:1:2': '1:2' is not a tag"),
        ("a/b@sha256:1", "'a/b@sha256:1': 'sha256:1' is not a digest"),
    ],
)
def test_a_name_that_is_no_images_is_never_pulled(gpubox: Gpubox, image: str, problem: str) -> None:
    check(gpubox("run", image, "true"), Row("", problem), gpubox.cwd)


# What the engine refuses -----------------------------------------------------------------------

SHOWN = f"gpubox run --gpus none {STAND_IN} ls /bin /usr/bin shows some that there are"
NO_PROGRAM = "it is a folder, or lacks the x permission: chmod +x, or name its interpreter"
WORKDIR = "choose a folder with --workdir"
ADDRESSES = "ip address shows the machine's own; without an address it is 127.0.0.1"
FIT = "mount a file on a file or a new name, a folder on a folder or a new name"


REFUSED = rows(
    # the command
    Row("--no-init", f"there is no program 'no/pe' in {STAND_IN}", SHOWN, "no/pe", 127),
    Row("--no-init", f"there is no program '' in {STAND_IN}", SHOWN, "''", 127),
    Row(
        "--no-init --entrypoint nope",
        f"there is no program 'nope' in {STAND_IN}",
        SHOWN,
        exit_code=127,
    ),
    Row("--no-init", f"'/tmp' in {STAND_IN} is no program that can run", NO_PROGRAM, "/tmp", 126),
    Row(
        "--no-init",
        f"there is no program '/etc/passwd/x' in {STAND_IN}: a part of its path is a file",
        SHOWN,
        "/etc/passwd/x",
    ),
    # the user and the folder
    Row(
        "--user nobody-here",
        "the image has no user 'nobody-here'",
        "--user UID:GID needs none, --user host is you",
    ),
    Row("--user root:none", "the image has no group 'none'", "--user UID:GID needs none"),
    Row(
        "--user 99999999999",
        "a user's or group's number is outside 0-2147483647",
        "correct it behind --user; --user host is you",
    ),
    Row(
        "-w /etc/passwd",
        "/etc/passwd cannot be the working directory: it is a file in the image, or below one",
        WORKDIR,
    ),
    Row(
        "-w /etc/passwd/x",
        "/etc/passwd/x cannot be the working directory: it is a file in the image, or below one",
        WORKDIR,
    ),
    # mounts and devices
    Row(
        "-v {here}/file:/home/anna",
        "{here}/file cannot be mounted on /home/anna of the box: one is a file, the other a folder",
        FIT,
    ),
    Row(
        "-v {here}/folder:/etc/passwd",
        "{here}/folder cannot be mounted on /etc/passwd of the box: one is a file, the other a"
        " folder",
        FIT,
    ),
    Row(
        "-v {here}/file:/etc/passwd/x",
        "nothing can be mounted on /etc/passwd/x of the box: a part of that path is a file",
        "choose another place in the box",
    ),
    Row(
        "-v {here}/folder:/proc/x",
        "nothing can be mounted on /proc/x: it is the kernel's own in every box",
        "choose another place in the box",
    ),
    Row(
        "--device /dev/nope",
        "no device /dev/nope on the engine's machine",
        "correct the path behind --device",
    ),
    Row(
        "--device /etc/passwd",
        "/etc/passwd on the engine's machine is no device",
        "-v /etc/passwd:/etc/passwd mounts a file or a folder",
    ),
    # limits
    Row(
        "-m 5m",
        "the memory limit is too small: the least is 6MB",
        "give the box more with -m, like -m 8g",
    ),
    Row(
        "--cpus 0.001",
        "the part of a CPU is too small: the least is 0.01",
        "give the box more with --cpus, like --cpus 1",
    ),
    Row(
        "--cpus 9999",
        f"the engine's machine cannot give so many CPUs: it gives 0.01 to {os.cpu_count()}.00",
        "choose a number in that range with --cpus",
    ),
    Row(
        "--ulimit nofile=99999999999",
        "the engine may not raise the nofile limit",
        "leave --ulimit nofile out, or let the engine's service have LimitNOFILE=infinity",
    ),
    # what is allowed and shared
    Row(
        "--cap-add FLY",
        "there is no capability 'CAP_FLY'",
        "man 7 capabilities lists them, without CAP_",
    ),
    Row(
        "--security-opt nonsense",
        "there is no security option 'nonsense'",
        "there is: apparmor=PROFILE, label=LABEL, seccomp=FILE, no-new-privileges",
    ),
    Row(
        "--security-opt seccomp=odd.json",
        "the seccomp profile names 'ALLOW', and there is no such action",
        "correct the file behind --security-opt seccomp=",
    ),
    Row(
        "--ipc nonsense",
        "there is no IPC mode 'nonsense'",
        "there is: host, private, shareable, none, container:NAME",
    ),
    Row("--network nowhere", "the engine has no network 'nowhere'", "docker network ls lists them"),
    Row("--network container:nobody", "no container 'nobody'", "gpubox ps -a lists yours"),
    # names and ports
    Row(
        "--name thesis",
        "the name 'thesis' is taken by another container",
        "choose another with --name, or: docker rm thesis",
    ),
    Row(
        "-p 203.0.113.9::80",
        "203.0.113.9 is no address of the engine's machine, so nothing can be published on it",
        ADDRESSES,
    ),
    Row(
        "-p [2001:db8::1]:18080:80",
        "[2001:db8::1] is no address of the engine's machine, so nothing can be published on it",
        ADDRESSES,
    ),
)


@REFUSED
def test_a_refusal_is_told_as_what_it_means(
    engine: PrivateEngine, surroundings: None, gpubox: Gpubox, row: Row
) -> None:
    check(run(gpubox, row), row, gpubox.cwd)


@REFUSED
def test_it_is_told_the_same_behind_a_detached_start(
    cdi_engine: PrivateEngine, surroundings: None, gpubox: Gpubox, row: Row
) -> None:
    check(run(gpubox, row, "-d"), row, gpubox.cwd)


@rows(
    Row("--init", f"there is no program 'no/pe' in {STAND_IN}", SHOWN, "no/pe", 127),
    Row("--init", f"there is no program '' in {STAND_IN}", SHOWN, "''", 127),
    Row(
        "--init", f"there is no program '/etc/passwd/x' in {STAND_IN}", SHOWN, "/etc/passwd/x", 127
    ),
    Row("--init --rm", f"there is no program 'nope' in {STAND_IN}", SHOWN, "nope", 127),
    Row("--init", f"'/tmp' in {STAND_IN} is no program that can run", NO_PROGRAM, "/tmp", 126),
)
def test_what_an_init_process_could_not_run_is_told_below_its_own_words(
    engine: PrivateEngine, surroundings: None, gpubox: Gpubox, row: Row
) -> None:
    done = run(gpubox, row)
    first = done.stderr.decode().partition("\n")[0]
    assert first.startswith("[FATAL tini ")
    check(done, row, gpubox.cwd, first)


def test_the_fix_for_a_missing_program_can_be_typed_as_it_is_printed(
    stable_engine: PrivateEngine, gpubox: Gpubox
) -> None:
    words = shlex.split(SHOWN.partition(" shows ")[0])[1:]
    assert b"sleep\n" in gpubox(*words).stdout


@pytest.mark.parametrize("kind", ["network", "ipc"])
def test_a_box_cannot_share_with_a_container_that_does_not_run(
    engine: PrivateEngine, surroundings: None, gpubox: Gpubox, client: DockerClient, kind: str
) -> None:
    done = gpubox("run", "--gpus", "none", f"--{kind}", "container:thesis", PROFILE, "true")
    text = done.stderr.decode().replace(str(client.containers.get("thesis").id), "thesis")
    assert text == (
        "gpubox: the container thesis, which the box was to share with, does not run\n"
        "  docker start thesis\n"
    )


@pytest.mark.parametrize("mode", ["rshared", "rslave"])
def test_mounts_cannot_propagate_where_the_engine_has_them_private(
    engine: PrivateEngine, surroundings: None, gpubox: Gpubox, mode: str
) -> None:
    private = subprocess.run(
        ["findmnt", "-n", "-o", "TARGET", "--target", gpubox.cwd],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    row = Row(
        f"-v {{here}}/folder:/m:{mode}",
        f"{private} is not a shared mount on the engine's machine",
        f"sudo mount --make-rshared {private}, or leave the propagation out",
    )
    check(run(gpubox, row), row, gpubox.cwd)


def test_a_folder_missing_on_the_engines_own_machine_is_told_and_not_made(tmp_path: Path) -> None:
    with PrivateEngine("stable", network="tcp") as engine:
        build_stand_in(engine.host)
        gpubox = Gpubox(tmp_path / "far", engine.network_env)
        row = Row(
            "-v {here}/gone:/m",
            "no folder {here}/gone on the engine's machine",
            "make it there first, or correct the path",
        )
        check(run(gpubox, row), row, gpubox.cwd)
        check(run(gpubox, row, "-d"), row, gpubox.cwd)
        assert list(gpubox.cwd.iterdir()) == []
        assert gpubox("ps", "-a", "-q").stdout == b""


def test_of_a_range_of_ports_the_taken_one_is_named(
    stable_engine: PrivateEngine, surroundings: None, gpubox: Gpubox
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        row = Row(
            f"-p {port}-{port + 1}:80",
            f"port 127.0.0.1:{port} is taken by a program on this machine",
            "ss -ltnp shows which; take another port with -p",
        )
        check(run(gpubox, row), row, gpubox.cwd)


# Memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rm", "command", "code"),
    [
        ([], "exec tail /dev/zero", 137),
        (["--rm"], "exec tail /dev/zero", 137),
        ([], "tail /dev/zero; exit 5", 5),
        (["--rm"], "tail /dev/zero; exit 0", 0),
    ],
)
def test_a_process_killed_for_want_of_memory_is_told_whatever_the_exit_code(
    engine: PrivateEngine, gpubox: Gpubox, rm: list[str], command: str, code: int
) -> None:
    words = (*rm, "-m", "16m", "--name", "greedy", PROFILE, "sh", "-c", command)
    done = gpubox("run", "--gpus", "none", *words)
    assert done.returncode == code
    assert done.stderr.decode().splitlines()[-1] == (
        "warning: a process in greedy was killed: main memory (not the GPU's) ran out within -m 16m"
    )


def test_a_process_killed_by_somebody_is_no_want_of_memory(
    engine: PrivateEngine, gpubox: Gpubox
) -> None:
    done = gpubox("run", "--gpus", "none", "-m", "16m", PROFILE, "sh", "-c", "kill -9 $$")
    assert (done.returncode, done.stderr) == (137, b"")


# GPUs ------------------------------------------------------------------------------------------


@contextmanager
def quoted(engine: PrivateEngine, words: str) -> Iterator[None]:
    """NVIDIA's tool, simulated, fails with its own words while this lasts."""
    refusal = engine.folder / "refusal"
    refusal.write_text(f"Auto-detected mode as 'legacy'\nnvidia-container-cli: {words}\n")
    yield
    refusal.unlink()


# as NVIDIA's libnvidia-container words them (src/cli/dsl.c, src/error.c) and its users quote them
@pytest.mark.parametrize("detach", [["-d"], []], ids=["detached", "foreground"])
@pytest.mark.parametrize(
    ("words", "problem", "hint"),
    [
        (
            "initialization error: nvml error: driver not loaded",
            "the NVIDIA driver is not loaded on the engine's machine",
            f"nvidia-smi must work there first; {OR_NO_GPU}",
        ),
        (
            "initialization error: load library failed: libnvidia-ml.so.1: cannot open shared"
            " object file: no such file or directory",
            "the NVIDIA container tools find no driver on the engine's machine (libnvidia-ml.so)",
            f"install the driver, nvidia-smi must work there; {OR_NO_GPU}",
        ),
        (
            "requirement error: unsatisfied condition: cuda>=12.8, please update your driver to a"
            " newer version, or use an earlier cuda container",
            f"the NVIDIA driver is too old for {STAND_IN}: it needs cuda>=12.8",
            "nvidia-smi shows the driver's CUDA; take an older CUDA, or update the driver",
        ),
        (
            "initialization error: nvml error: driver/library version mismatch",
            "the NVIDIA driver was updated and the old one is still loaded",
            f"reboot the machine; {OR_NO_GPU}",
        ),
        (
            "mount error: failed to add device rules: unable to find any existing device filters",
            "the NVIDIA container tools failed: mount error: failed to add device rules: unable to"
            " find any existing device filters",
            "nvidia-smi must work on the engine's machine first; gpubox doctor tells more;"
            f" {OR_NO_GPU}",
        ),
    ],
    ids=["not loaded", "no library", "too old", "mismatch", "another"],
)
def test_what_nvidias_tool_says_is_told_as_what_it_means(
    stable_engine: PrivateEngine,
    surroundings: None,
    gpubox: Gpubox,
    detach: list[str],
    words: str,
    problem: str,
    hint: str,
) -> None:
    with quoted(stable_engine, words):
        done = gpubox("run", *detach, "--gpus", "all", PROFILE, "true")
    check(done, Row("", problem, hint), gpubox.cwd)


@pytest.mark.parametrize("detach", [["-d"], []], ids=["detached", "foreground"])
def test_a_gpu_that_the_hook_does_not_know_is_told_by_its_number(
    stable_engine: PrivateEngine, surroundings: None, gpubox: Gpubox, detach: list[str]
) -> None:
    row = Row("", "the engine's machine has no GPU 7", "nvidia-smi -L lists its GPUs")
    done = gpubox("run", *detach, "--gpus", "device=7", PROFILE, "true")
    check(done, row, gpubox.cwd)


@pytest.mark.parametrize("detach", [["-d"], []], ids=["detached", "foreground"])
def test_a_hook_that_was_removed_is_no_missing_command(
    stable_engine: PrivateEngine, surroundings: None, gpubox: Gpubox, detach: list[str]
) -> None:
    row = Row(
        "",
        "nvidia-container-toolkit was removed since the engine started",
        f"install it again and restart Docker: sudo systemctl restart docker; {OR_NO_GPU}",
    )
    (stable_engine.folder / "bin" / gpus.HOOK).unlink()
    try:
        done = gpubox("run", *detach, "--gpus", "all", PROFILE, "true")
    finally:
        gpus.write_hook(stable_engine.folder / "bin")
    check(done, row, gpubox.cwd)


@rows(
    Row(
        "--gpus device=9",
        "the engine has no GPU 'nvidia.com/gpu=9' among its CDI devices",
        "nvidia-ctk cdi list shows them; sudo nvidia-ctk cdi generate renews them; " + OR_NO_GPU,
    ),
    Row(
        "--device vendor.com/net=1",
        "the engine has no CDI device 'vendor.com/net=1'",
        "docker info lists those that it has; correct the name behind --device",
    ),
)
def test_a_cdi_device_that_is_not_there_is_named(
    cdi_engine: PrivateEngine, surroundings: None, gpubox: Gpubox, row: Row
) -> None:
    check(run(gpubox, row), row, gpubox.cwd)
    check(run(gpubox, row, "-d"), row, gpubox.cwd)


# A full disk -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["stable", "cdi"])
def full(request: pytest.FixtureRequest) -> Iterator[PrivateEngine]:
    """An engine whose disk a container has filled."""
    kind: Kind = request.param
    with PrivateEngine(kind, disk="24m") as engine:
        build_stand_in(engine.host)
        client = docker.DockerClient(base_url=engine.host)
        fill = ["dd", "if=/dev/zero", "of=/fill", "bs=4k"]
        assert client.containers.run(STAND_IN, fill, name="full", detach=True).wait()
        client.close()
        yield engine


DISK = Row(
    "",
    "the disk is full where the engine keeps images and containers",
    "docker system df shows what takes it, docker image prune frees some",
)


@pytest.mark.parametrize("detach", [["-d"], []], ids=["detached", "foreground"])
def test_a_full_disk_is_told_at_a_start(
    full: PrivateEngine, tmp_path: Path, detach: list[str]
) -> None:
    gpubox = Gpubox(tmp_path / "full", full.env)
    check(run(gpubox, DISK, *detach), DISK, gpubox.cwd)
    assert gpubox("ps", "-a", "-q").stdout == b""


def test_a_full_disk_is_told_at_a_pull(
    full: PrivateEngine, tmp_path: Path, layered: tuple[Registry, str]
) -> None:
    gpubox = Gpubox(tmp_path / "full", full.env)
    _, image = layered
    done = gpubox("run", "--gpus", "none", image, "true")
    check(done, DISK, gpubox.cwd, f"pulling {image}")


# Registries ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def layered(engines: Any) -> Iterator[tuple[Registry, str]]:
    """A registry with one image, of the stand-in's layers and one of its own."""
    client = docker.DockerClient(base_url=engines.of("stable").host)
    with Registry() as registry:
        name = f"{registry.address}/lab/layered"
        box = client.containers.run(
            STAND_IN, ["dd", "if=/dev/urandom", "of=/own", "bs=1k", "count=100"], detach=True
        )
        box.wait()
        box.commit(name, "1")
        box.remove()
        client.images.push(name, "1")
        client.images.remove(f"{name}:1")
        yield registry, f"{name}:1"
    client.close()


@pytest.fixture
def layers(layered: tuple[Registry, str]) -> Iterator[list[Path]]:
    """The layers' files of `layered`, whole again afterwards."""
    files = {path: path.read_bytes() for path in layered[0].folder.rglob("blobs/**/data")}
    packed = [path for path, content in files.items() if content.startswith(b"\x1f\x8b")]
    assert packed
    yield packed
    for path in packed:
        path.write_bytes(files[path])


def pulled(gpubox: Gpubox, image: str, problem: str, hint: str) -> None:
    row = Row("", problem, hint)
    check(gpubox("run", "--gpus", "none", image, "true"), row, gpubox.cwd, f"pulling {image}")


def test_a_damaged_layer_is_told(
    engine: PrivateEngine, gpubox: Gpubox, layered: tuple[Registry, str], layers: list[Path]
) -> None:
    for path in layers:
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    image = layered[1]
    pulled(
        gpubox,
        image,
        f"the registry sent a damaged layer of {image}",
        "try again; a mirror may hold a bad copy",
    )


def test_a_lost_layer_is_told(
    engine: PrivateEngine, gpubox: Gpubox, layered: tuple[Registry, str], layers: list[Path]
) -> None:
    for path in layers:
        path.unlink()
    image = layered[1]
    pulled(
        gpubox,
        image,
        f"the registry has lost a layer of {image}",
        "pull it from another registry, or have it pushed there again",
    )


LOGIN = "check the name; docker login REGISTRY logs in"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


@pytest.mark.parametrize(
    ("answer", "problem", "hint"),
    [
        (
            "busy",
            "the registry lets nobody here pull for now: too many requests",
            "log in for a higher limit (docker login), or wait an hour",
        ),
        ("private", "the registry gives no {it}: there is none, or it wants a login", LOGIN),
        ("denied", "the registry gives no {it}: there is none, or it wants a login", LOGIN),
        ("ill", "the registry of {it} has failed: 503 Service Unavailable", "try again later"),
        (
            "elsewhere",
            f"{{it}} is not made for this machine (linux/{ARCHITECTURE})",
            "choose another tag",
        ),
    ],
)
def test_what_a_registry_answers_is_told_as_what_it_means(
    engine: PrivateEngine, gpubox: Gpubox, answer: str, problem: str, hint: str
) -> None:
    with RefusingRegistry() as registry:
        image = f"{registry.address}/{answer}/image:1"
        pulled(gpubox, image, problem.format(it=image), hint)


def test_a_registry_without_tls_that_is_not_on_loopback_is_told(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    bridge = client.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
    with RefusingRegistry(bridge) as registry:
        image = f"{registry.address}/busy/image:1"
        pulled(
            gpubox,
            image,
            f"the registry of {image} speaks plain HTTP, which the engine refuses",
            "add it to insecure-registries in Docker's daemon.json",
        )
