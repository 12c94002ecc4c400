"""Behind Podman's Docker-compatible service boxes run as behind Docker, and GPUs are refused.

Podman 4.3, which gives no GPUs by this way. Where it differs from Docker, a test says so.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from docker import DockerClient

from lab.engine import PrivateEngine
from lab.images import STAND_IN, build_stand_in
from lab.inspect import names
from lab.podman import PrivatePodman
from lab.program import Gpubox
from lab.waiting import PATIENCE, wait_until
from lab.workstation import BOX, PROFILE

CTRL_C, DETACH = "\x03", "\x10\x11"
DONE = subprocess.CompletedProcess[bytes]


@pytest.fixture(autouse=True)
def _without_gpus(podman: PrivatePodman, gpubox: Gpubox) -> None:
    """For everybody in here, as a person with Podman would have it."""
    settings = gpubox.home / ".config/gpubox/config.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text("defaults: {gpus: none}\n")


def said(done: DONE, code: int = 125) -> str:
    """What stands on stderr, of a run that failed in gpubox or Podman: a sentence and a fix."""
    text = done.stderr.decode()
    assert done.returncode == code, text
    assert text.startswith("gpubox: ")
    assert "Traceback" not in text
    assert "the engine says" not in text
    assert text.count("\n") == 2
    return text


# GPUs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [["run"], ["run", "-d"], ["run", "--dry-run"], ["jupyter"]])
def test_a_gpu_is_refused_and_no_box_starts_without_it(
    gpubox: Gpubox, client: DockerClient, how: list[str]
) -> None:
    done = gpubox(*how, "--gpus", "all", PROFILE)
    problem, fix = said(done).splitlines()
    assert re.fullmatch(
        r"gpubox: Podman 4\.3\.\d+ ignores GPU requests: the box would run without a GPU", problem
    )
    assert fix == "  use Podman 5.4 or newer, a Docker Engine, or --gpus none"
    assert done.stdout == b""
    assert names(client) == []


def test_however_a_gpu_is_asked_for_it_is_refused(gpubox: Gpubox) -> None:
    assert "ignores GPU requests" in said(gpubox("run", "--gpus", "0,2", PROFILE, "true"))
    assert "ignores GPU requests" in said(gpubox("run", PROFILE, "true", env={"NV_GPU": "1"}))
    (gpubox.home / ".config/gpubox/config.yaml").unlink()
    assert "ignores GPU requests" in said(gpubox("run", PROFILE, "true"))  # the built-in default


@pytest.mark.parametrize("detach", [["-d"], []], ids=["detached", "foreground"])
def test_a_cdi_device_is_refused_for_podman_would_leave_it_out(
    gpubox: Gpubox, client: DockerClient, detach: list[str]
) -> None:
    done = gpubox("run", *detach, "--device", "nvidia.com/gpu=0", PROFILE, "true")
    assert "the box would run without nvidia.com/gpu=0" in said(done)
    assert names(client) == []


# Exit codes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rm", [["--rm"], []], ids=["rm", "kept"])
def test_the_exit_code_of_a_command_that_ends_at_once_is_right(
    gpubox: Gpubox, client: DockerClient, rm: list[str]
) -> None:
    for code in (0, 7):
        done = gpubox("run", *rm, PROFILE, "sh", "-c", f"exit {code}")
        assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")
    assert sorted(names(client)) == ([] if rm else [BOX, f"{BOX}-2"])


def test_after_rm_the_same_name_is_free_at_once(gpubox: Gpubox, client: DockerClient) -> None:
    for number in range(3):
        done = gpubox("run", "--rm", "--name", "again", PROFILE, "sh", "-c", f"exit {number}")
        assert (done.returncode, done.stderr) == (number, b"")
    assert names(client) == []


@pytest.mark.parametrize("init", ["--init", "--no-init"])
@pytest.mark.parametrize(("command", "code"), [("nvdia-smi", 127), ("/etc/passwd", 126)])
def test_a_program_that_cannot_run_is_named_with_docker_runs_exit_code(
    gpubox: Gpubox, client: DockerClient, init: str, command: str, code: int
) -> None:
    done = gpubox("run", init, PROFILE, command)
    if init == "--init":  # its own words come first, as they came from the box
        its_own, _, done.stderr = done.stderr.partition(b"\n")
        assert b"catatonit" in its_own
    assert f"'{command}' in {STAND_IN}" in said(done, code)
    assert names(client) == []


@pytest.mark.parametrize(("command", "code"), [("nvdia-smi", 127), ("/tmp", 126)])
def test_detached_it_is_named_too(
    gpubox: Gpubox, client: DockerClient, command: str, code: int
) -> None:
    text = said(gpubox("run", "-d", "--no-init", PROFILE, command), code)
    assert f"'{command}' in {STAND_IN}" in text
    assert names(client) == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--user nobody-here", "no user 'nobody-here'"),
        ("--user root:nobodies", "no group 'nobodies'"),
        ("-w /etc/passwd", "/etc/passwd cannot be the working directory"),
        ("--network no-such-network", "no network 'no-such-network'"),
        ("--network container:no-such", "no container 'no-such'"),
        ("--device /dev/no-such", "no device /dev/no-such"),
        ("--cap-add NO_SUCH", "no capability 'CAP_NO_SUCH'"),
        ("-m 1m", "the memory limit is too small"),
        ("-p 192.0.2.1:8098:80", "192.0.2.1"),
        ("-v /etc/passwd:/tmp", "/etc/passwd cannot be mounted on /tmp"),
        ("--name x", "'x' is no name"),
    ],
)
def test_a_wrong_word_is_one_sentence_and_leaves_nothing(
    gpubox: Gpubox, client: DockerClient, words: str, problem: str
) -> None:
    assert problem in said(gpubox("run", *words.split(), PROFILE, "true"))
    assert names(client) == []


def test_an_image_is_not_built_by_a_builder_that_is_not_dockers(gpubox: Gpubox) -> None:
    assert gpubox("build", PROFILE).stderr.decode() == f"{STAND_IN} is here already\n"
    text = said(gpubox("build", "cuda8-cudnn6"), 1)
    image = "nvidia/cuda:8.0-cudnn6-devel"
    assert f"{image} cannot be built over Podman's service" in text
    assert f"gpubox build --print cuda8-cudnn6 | podman build -t {image} -\n" in text


def test_an_image_that_is_here_is_known_by_dockers_name_and_registries_are_not_asked(
    gpubox: Gpubox,
) -> None:
    (here,) = [it for it in json.loads(gpubox("images", "--json").stdout) if it["local"]]
    assert (here["image"], here["state"], here["when"]) == (STAND_IN, "deleted", "June 2023")
    asked = gpubox("images", "--remote", "127.0.0.1:1/lab/own:1")
    assert said(asked, 1).splitlines() == [
        "gpubox: whether there is 127.0.0.1:1/lab/own:1 is not known",
        "  Podman's service asks no registry for others",
    ]


def test_a_missing_host_folder_is_not_made(gpubox: Gpubox) -> None:
    assert f"no folder {gpubox.cwd}/data" in said(gpubox("mount", "./data:/data", PROFILE, "true"))
    assert not (gpubox.cwd / "data").exists()


@pytest.mark.parametrize("words", [["run", "no/such:image"], ["jupyter"]], ids=" ".join)
def test_an_image_that_cannot_be_pulled_is_said_so(gpubox: Gpubox, words: list[str]) -> None:
    pulling, _, rest = gpubox(*words).stderr.partition(b"\n")
    assert pulling.startswith(b"pulling ")
    assert re.match(rb"gpubox: the registry of \S+ does not answer\n", rest)


# Streams ---------------------------------------------------------------------------------------


def test_output_is_byte_exact_and_each_stream_apart(gpubox: Gpubox) -> None:
    out, err = os.urandom(3_000_001), os.urandom(2_000_003)
    (gpubox.cwd / "out").write_bytes(out)
    (gpubox.cwd / "err").write_bytes(err)
    script = "cat /data/out & cat /data/err >&2; wait"
    done = gpubox("run", "-v", f"{gpubox.cwd}:/data:ro", PROFILE, "sh", "-c", script)
    assert (done.returncode, done.stdout == out, done.stderr == err) == (0, True, True)


def test_the_end_of_the_input_is_told_and_the_answer_still_comes(gpubox: Gpubox) -> None:
    data = os.urandom(3_000_001)
    script = "cat >/tmp/all; wc -c </tmp/all; cat /tmp/all"
    done = gpubox("run", "-i", PROFILE, "sh", "-c", script, stdin=data)
    assert (done.returncode, done.stdout == b"3000001\n" + data) == (0, True)


def test_a_signal_is_the_boxs_to_answer(gpubox: Gpubox) -> None:
    script = "trap 'echo caught; exit 43' TERM; echo ready; while :; do sleep .05; done"
    with gpubox.begin("run", PROFILE, "sh", "-c", script) as child:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGTERM)
        assert child.communicate(timeout=PATIENCE) == (b"caught\n", b"")
        assert child.returncode == 43


def test_with_an_init_a_command_that_minds_no_signal_ends_by_it(gpubox: Gpubox) -> None:
    script = "cat /proc/1/comm; exec sleep 600"
    with gpubox.begin("run", "--rm", PROFILE, "sh", "-c", script) as child:
        assert child.stdout
        assert child.stdout.readline() == b"podman-init\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE) == 128 + signal.SIGINT


def test_a_reader_that_has_enough_ends_both_sides(gpubox: Gpubox, client: DockerClient) -> None:
    with gpubox.begin("run", PROFILE, "yes") as child:
        assert child.stdout and child.stderr
        assert child.stdout.readline() == b"y\n"
        child.stdout.close()
        assert child.wait(PATIENCE) == 128 + signal.SIGPIPE
        assert child.stderr.read() == b""
    wait_until(lambda: not client.containers.list(), what="the end of the box")


# A terminal ------------------------------------------------------------------------------------


@pytest.fixture
def shell(gpubox: Gpubox) -> Iterator[Any]:
    """A person's own shell, in which they start gpubox."""
    own = pexpect.spawn("sh", env=gpubox.env | {"PS1": "mine> "}, cwd=gpubox.cwd, timeout=PATIENCE)
    own.setwinsize(37, 123)
    own.expect_exact("mine> ")
    yield own
    own.close(force=True)


def settings(shell: Any) -> bytes:
    """All that `stty` knows of the terminal."""
    shell.sendline("stty -g")
    shell.expect(r"\n([0-9a-f:]{30,})\r")
    return bytes(shell.match[1])


def test_a_shell_in_a_box_is_as_ones_own_and_the_terminal_is_itself_afterwards(
    gpubox: Gpubox, shell: Any, client: DockerClient
) -> None:
    before = settings(shell)
    shell.sendline(f"{gpubox.program} run {PROFILE}; echo left $?")
    shell.expect_exact("/ # ")
    shell.sendline('until [ "$(stty size)" = "37 123" ]; do sleep .05; done; echo siz""ed')
    shell.expect_exact("sized")
    shell.setwinsize(41, 97)
    shell.sendline('until [ "$(stty size)" = "41 97" ]; do sleep .05; done; echo re""sized')
    shell.expect_exact("resized")
    shell.sendline("sh -c \"echo be''gun; exec sleep 600\"")
    shell.expect_exact("begun")
    shell.send(CTRL_C)
    shell.expect_exact("/ # ")
    shell.sendline("echo $?; exit 7")
    shell.expect_exact("130")
    shell.expect_exact(f"{BOX} is kept")
    shell.expect_exact("left 7")
    assert settings(shell) == before
    assert client.containers.list() == []


def test_the_detach_keys_leave_the_box_running(
    gpubox: Gpubox, shell: Any, client: DockerClient
) -> None:
    """Podman 4.3 itself does not know them on this way: gpubox does."""
    before = settings(shell)
    shell.sendline(f"{gpubox.program} run {PROFILE}; echo left $?")
    shell.expect_exact("/ # ")
    shell.send(DETACH)
    shell.expect_exact(f"{BOX} runs on")
    shell.expect_exact("left 0")
    assert settings(shell) == before
    assert client.containers.get(BOX).status == "running"


def test_a_podman_that_dies_gives_the_terminal_back_and_is_said_so(
    podman: PrivatePodman, gpubox: Gpubox, shell: Any
) -> None:
    before = settings(shell)
    shell.sendline(f"{gpubox.program} run {PROFILE}; echo left $?")
    shell.expect_exact("/ # ")
    podman.kill()
    shell.expect_exact("the connection to the engine broke")
    shell.expect_exact("left 125")
    assert settings(shell) == before


# Boxes -----------------------------------------------------------------------------------------


def test_detached_boxes_get_the_next_name_and_are_listed_the_latest_first(
    gpubox: Gpubox, client: DockerClient
) -> None:
    boxes = [BOX, f"{BOX}-2", f"{BOX}-3"]
    for name in boxes:
        done = gpubox("run", "-d", PROFILE)
        assert (done.returncode, done.stdout) == (0, f"{name}\n".encode())
        assert f"gpubox enter {name}" in done.stderr.decode()
    assert sorted(names(client)) == boxes
    listed = json.loads(gpubox("ps", "--json").stdout)
    assert {box["name"]: box["state"] for box in listed} == dict.fromkeys(boxes, "running")
    created = [box["created"] for box in listed]
    assert created == sorted(created, reverse=True)
    client.containers.get(BOX).kill()
    assert sorted(gpubox("ps", "-q").stdout.decode().split()) == boxes[1:]
    assert sorted(gpubox("ps", "-a", "-q").stdout.decode().split()) == boxes


@pytest.mark.parametrize("detach", [["-d"], []], ids=["detached", "foreground"])
def test_a_chosen_name_that_is_taken_is_an_error_and_nothing_stays(
    gpubox: Gpubox, client: DockerClient, detach: list[str]
) -> None:
    client.containers.create(STAND_IN, name="thesis")
    assert "'thesis'" in said(gpubox("run", *detach, "--name", "thesis", PROFILE, "true"))
    assert names(client) == ["thesis"]


def test_a_box_lives_as_on_docker(gpubox: Gpubox, shell: Any) -> None:
    gpubox("run", "-d", PROFILE)
    done = gpubox("enter", BOX, "sh", "-c", "echo kept >/root/note; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"", b"err\n")
    assert gpubox("enter", BOX, "nvdia-smi").returncode == 127
    assert gpubox("enter", "-i", BOX, "cat", stdin=b"in").stdout == b"in"
    for words, told in {
        ("stop", "-t", "0"): f"{BOX} is stopped\n",
        ("start",): f"{BOX} runs\n",
        ("restart", "-t", "0"): f"{BOX} runs, started anew\n",
    }.items():
        assert gpubox(*words, BOX).stderr.decode() == told
    assert b"/ #" in gpubox("logs", BOX).stdout
    gpubox("stop", "-t", "0", BOX)
    shell.sendline(f"{gpubox.program} enter; echo left $?")
    shell.expect_exact("/ # ")
    shell.sendline("cat /root/no''te; exit 3")
    shell.expect_exact("kept")
    shell.expect_exact("left 3")
    (box,) = json.loads(gpubox("ps", "-a", "--json").stdout)
    assert (box["state"], box["exit_code"]) == ("exited", 3)
    assert re.fullmatch(r"stopped .* ago, exit 3", box["status"])
    assert gpubox("rm", BOX).stderr.decode() == f"{BOX} is removed\n"


def test_a_port_is_published_on_loopback_and_answers(
    podman: PrivatePodman, gpubox: Gpubox, client: DockerClient
) -> None:
    serve = "echo $HOSTNAME >/tmp/name; exec httpd -f -p 80 -h /tmp"
    done = gpubox("run", "-d", "-p", "80", PROFILE, "sh", "-c", serve)
    where = re.search(r"listens on (127\.0\.0\.1:(\d+))\n", done.stderr.decode())
    assert where, done.stderr
    url = f"http://{where[1]}/name"
    assert wait_until(lambda: podman.fetch(url)) == f"{BOX}\n"
    text = said(gpubox("run", "-p", f"{where[2]}:80", PROFILE, "true"))
    assert f"port {where[2]} is taken by root's box {BOX}" in text
    assert names(client) == [BOX]


def test_a_mount_is_read_only_and_says_so(gpubox: Gpubox) -> None:
    (gpubox.cwd / "train").write_text("here\n")
    script = "cat /data/train; touch /data/new"
    done = gpubox("mount", f"{gpubox.cwd}:/data", PROFILE, "sh", "-c", script)
    assert (done.returncode, done.stdout) == (1, b"here\n")
    assert f"mounting {gpubox.cwd} on /data, read-only" in done.stderr.decode()
    assert b"Read-only file system" in done.stderr
    assert not (gpubox.cwd / "new").exists()


def test_user_host_is_the_caller_with_name_and_home(gpubox: Gpubox, tmp_path: Path) -> None:
    caller = ("setpriv", "--reuid", "12345", "--regid", "54321", "--clear-groups")
    may_all = ("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override")
    script = 'id -u; id -g; cd; pwd; touch mine; id -un; stat -c %u "$HOME"'
    words = (gpubox.program, "run", "--user", "host", PROFILE, "sh", "-c", script)
    done = subprocess.run(
        [*caller, *may_all, *words],
        env=gpubox.env | {"USER": "carla", "LOGNAME": "carla"},
        cwd=gpubox.cwd,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    uid, gid, home, name, owner = done.stdout.decode().split()
    assert (uid, gid, owner) == ("12345", "54321", "12345")
    assert home == f"/home/{name}"


def test_jupyter_waits_for_its_answer_and_prints_the_url(
    podman: PrivatePodman, gpubox: Gpubox, client: DockerClient
) -> None:
    """A stand-in that answers as Jupyter does to somebody without a token."""
    serve = "mkdir /www; echo 2.0 >/www/api; exec httpd -f -p 8888 -h /www"
    profile = {"image": STAND_IN, "command": ["sh", "-c", serve]}
    (gpubox.cwd / "gpubox.yaml").write_text(json.dumps({"profiles": {"notebook": profile}}))
    there = ["nsenter", "--target", str(podman.pid), "--net"]
    done = subprocess.run(
        [*there, gpubox.program, "jupyter", "-d", "notebook"],
        env=gpubox.env,
        cwd=gpubox.cwd,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert re.fullmatch(rb"http://127\.0\.0\.1:8888/\?token=\w+\n", done.stdout), done.stderr
    assert names(client) == ["notebook-root"]


# What Podman lacks -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def without_init() -> Iterator[PrivateEngine]:
    with PrivatePodman(init=False) as made:
        build_stand_in(made.host)
        yield made


def test_without_catatonit_it_is_said_what_to_install(
    without_init: PrivateEngine, gpubox: Gpubox
) -> None:
    gpubox.env |= without_init.env
    for words in (["run"], ["run", "-d"], ["jupyter"]):
        text = said(gpubox(*words, PROFILE))
        assert "catatonit" in text
        assert "--no-init" in text
    assert gpubox("ps", "-a", "-q").stdout == b""
    assert gpubox("run", "--rm", "--no-init", PROFILE, "echo", "fine").stdout == b"fine\n"
