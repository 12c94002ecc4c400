"""`run`, `mount` and `ps` keep their promises on both kinds of engine, without a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from lab.engine import Kind, PrivateEngine
from lab.images import STAND_IN, build_stand_in
from lab.inspect import names
from lab.program import Gpubox
from lab.waiting import PATIENCE, wait_until
from lab.workstation import BOX, PROFILE

NO_GPU = ("--gpus", "none")  # so that there is nothing to say of them
DONE = subprocess.CompletedProcess[bytes]


def said(done: DONE) -> str:
    """What stands on stderr, of a run that failed in gpubox or the engine."""
    text = done.stderr.decode()
    assert done.returncode == 125, text
    assert "Traceback" not in text
    return text


def gpus_in(listing: bytes) -> list[str]:
    """The UUIDs in `nvidia-smi -L`'s answer."""
    return re.findall(r"UUID: (\S+)\)", listing.decode())


# GPUs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "given"),
    [("all", [0, 1, 2, 3]), ("device=1", [1]), ("0,2", [0, 2]), ("device=3", [3])],
)
def test_a_box_sees_exactly_the_gpus_asked_for(
    engine: PrivateEngine, gpubox: Gpubox, request_: str, given: list[int]
) -> None:
    done = gpubox("run", "--gpus", request_, PROFILE, "nvidia-smi", "-L")
    assert done.returncode == 0, done.stderr
    assert gpus_in(done.stdout) == [engine.gpus[n] for n in given]


def test_a_gpu_can_be_asked_for_by_its_uuid(engine: PrivateEngine, gpubox: Gpubox) -> None:
    done = gpubox("run", "--gpus", engine.gpus[2], PROFILE, "nvidia-smi", "-L")
    assert gpus_in(done.stdout) == [engine.gpus[2]]


@pytest.mark.parametrize("detour", [[], ["-e", "NVIDIA_VISIBLE_DEVICES=all"], ["--env-file", "e"]])
def test_none_is_really_no_gpu_whatever_the_environment_says(
    engine: PrivateEngine, gpubox: Gpubox, detour: list[str]
) -> None:
    (gpubox.cwd / "e").write_text("NVIDIA_VISIBLE_DEVICES=all\n")
    script = "ls /dev | grep nvidia; echo $NVIDIA_VISIBLE_DEVICES; ! nvidia-smi -L"
    done = gpubox("run", "--gpus", "none", *detour, PROFILE, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"void\n"


def test_nv_gpu_chooses_the_gpus_above_the_profile(engine: PrivateEngine, gpubox: Gpubox) -> None:
    yaml = f"profiles: {{here: {{image: '{STAND_IN}', gpus: none}}}}\n"
    (gpubox.cwd / "gpubox.yaml").write_text(yaml)
    done = gpubox("run", "here", "nvidia-smi", "-L", env={"NV_GPU": "1,3"})
    assert gpus_in(done.stdout) == [engine.gpus[1], engine.gpus[3]]


def test_the_flag_chooses_above_nv_gpu(engine: PrivateEngine, gpubox: Gpubox) -> None:
    words = ("run", "--gpus", "device=2", PROFILE, "nvidia-smi", "-L")
    assert gpus_in(gpubox(*words, env={"NV_GPU": "1"}).stdout) == [engine.gpus[2]]


@pytest.mark.parametrize("detach", [["-d"], []], ids=["detached", "foreground"])
def test_a_gpu_that_is_not_there_is_named_and_nothing_stays(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, detach: list[str]
) -> None:
    done = gpubox("run", *detach, "--gpus", "device=7", PROFILE, "true")
    assert "7" in said(done)
    assert "\n  nvidia-" in said(done)  # what lists those that are there
    assert names(client) == []


@pytest.mark.parametrize("detach", [["-d"], []], ids=["detached", "foreground"])
@pytest.mark.parametrize("kind", ["stable", "cdi"])
def test_an_engine_without_gpu_support_says_which_part_is_missing(
    tmp_path: Path, without_gpus: dict[Kind, PrivateEngine], kind: Kind, detach: list[str]
) -> None:
    bare = Gpubox(tmp_path / "bare", without_gpus[kind].env)
    text = said(bare("run", *detach, PROFILE, "true"))
    assert "--gpus none" in text
    assert ("nvidia-container-toolkit" if kind == "stable" else "nvidia-ctk cdi generate") in text
    assert bare("ps", "-a", "-q").stdout == b""
    assert bare("run", "--gpus", "none", "--rm", PROFILE, "echo", "fine").stdout == b"fine\n"


@pytest.fixture(scope="module")
def without_gpus() -> Iterator[dict[Kind, PrivateEngine]]:
    with PrivateEngine("stable", gpu_count=0) as old, PrivateEngine("cdi", gpu_count=0) as new:
        build_stand_in(old.host)
        build_stand_in(new.host)
        yield {"stable": old, "cdi": new}


# Exit codes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 7, 125])
def test_the_commands_exit_code_is_gpuboxs(
    engine: PrivateEngine, gpubox: Gpubox, code: int
) -> None:
    done = gpubox("run", *NO_GPU, PROFILE, "sh", "-c", f"exit {code}")
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


@pytest.mark.parametrize(
    ("detach", "command", "code"),
    [
        ([], "nvdia-smi", 127),
        ([], "/opt/no/such", 127),
        ([], "/tmp", 126),
        ([], "/etc/passwd", 126),
        (["-d"], "nvdia-smi", 127),
        (["-d"], "/etc/passwd", 126),
    ],
)
def test_a_program_that_cannot_run_is_named_with_docker_runs_exit_code(
    engine: PrivateEngine,
    gpubox: Gpubox,
    client: DockerClient,
    detach: list[str],
    command: str,
    code: int,
) -> None:
    done = gpubox("run", *detach, "--no-init", PROFILE, command)
    assert done.returncode == code, done.stderr
    assert f"'{command}'" in done.stderr.decode()
    assert done.stderr.count(b"\n") == 2  # a sentence and a fix
    assert names(client) == []


def test_with_rm_a_detached_box_that_ends_for_want_of_its_program_is_no_success(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    done = gpubox("run", "-d", "--rm", PROFILE, "nvdia-smi")
    assert done.returncode == 127
    assert b"'nvdia-smi'" in done.stderr
    assert names(client) == []


@pytest.mark.parametrize("how", ["", "-d", "-d --restart always"])
@pytest.mark.parametrize(("command", "code"), [("nvdia-smi", 127), ("/tmp", 126)])
def test_with_an_init_such_a_program_is_named_with_the_same_exit_code(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, how: str, command: str, code: int
) -> None:
    done = gpubox("run", *how.split(), "--init", PROFILE, command)
    assert done.returncode == code
    assert f"'{command}' in {STAND_IN}" in done.stderr.decode()
    assert names(client) == []


@pytest.mark.parametrize(
    "words",
    [
        ["--no-such-option"],
        ["no-such-profile"],
        [PROFILE, "--rm"],
        ["--name", "x", PROFILE],
        ["--shm-size", "much", PROFILE],
        ["--pull", "sometimes", PROFILE],
        ["--user", "nobody-here", PROFILE, "true"],
        ["-w", "/etc/passwd", PROFILE, "true"],
        ["--network", "no-such-network", PROFILE, "true"],
        ["-t", "-i", PROFILE],
        ["--file", "no.yaml", PROFILE],
    ],
    ids=" ".join,
)
def test_every_failure_of_gpuboxs_own_is_125_and_leaves_nothing(
    gpubox: Gpubox, client: DockerClient, words: list[str]
) -> None:
    assert said(gpubox("run", *words)).startswith("gpubox: ")
    assert names(client) == []


@pytest.mark.parametrize(
    ("yaml", "problem"),
    [
        ("profiles: {a: {imgae: x}}", "imgae"),
        ("profiles: {a: {image: x, extends: b}}", "'b'"),
        ("profiles: {a: {image: x, gpus: '0'}}", "device=0"),
        ("profiles: [", "not YAML"),
    ],
)
def test_a_faulty_profile_is_125_and_says_where(gpubox: Gpubox, yaml: str, problem: str) -> None:
    (gpubox.cwd / "gpubox.yaml").write_text(yaml + "\n")
    text = said(gpubox("run", "a", "true"))
    assert text.startswith("gpubox: gpubox.yaml:")
    assert problem in text


# Streams ---------------------------------------------------------------------------------------


def test_output_is_byte_exact_and_each_stream_apart(engine: PrivateEngine, gpubox: Gpubox) -> None:
    out, err = os.urandom(3_000_001), os.urandom(2_000_003)
    (gpubox.cwd / "out").write_bytes(out)
    (gpubox.cwd / "err").write_bytes(err)
    script = "cat /data/out & cat /data/err >&2; wait"
    done = gpubox("run", *NO_GPU, "-v", f"{gpubox.cwd}:/data:ro", PROFILE, "sh", "-c", script)
    assert done.returncode == 0
    assert done.stdout == out
    assert done.stderr == err


def test_input_reaches_a_command_that_answers_only_at_its_end(
    engine: PrivateEngine, gpubox: Gpubox
) -> None:
    lines = [b"%06d" % (n * 7919 % 100_003) for n in range(100_000)]
    done = gpubox("run", "-i", PROFILE, "sort", stdin=b"\n".join(lines))
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"\n".join(sorted(lines)) + b"\n"


def test_random_bytes_go_through_a_box_unchanged(engine: PrivateEngine, gpubox: Gpubox) -> None:
    data = os.urandom(3_000_001)
    assert gpubox("run", "-i", PROFILE, "cat", stdin=data).stdout == data


def test_without_i_the_boxs_input_is_empty(engine: PrivateEngine, gpubox: Gpubox) -> None:
    assert gpubox("run", PROFILE, "wc", "-c", stdin=b"not for the box").stdout == b"0\n"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_the_boxs_to_answer(
    engine: PrivateEngine, gpubox: Gpubox, sent: signal.Signals
) -> None:
    script = f"trap 'echo caught; exit 43' {sent.name[3:]}; echo ready; while :; do sleep .05; done"
    with gpubox.begin("run", *NO_GPU, PROFILE, "sh", "-c", script) as child:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(sent)
        assert child.communicate(timeout=PATIENCE) == (b"caught\n", b"")
        assert child.returncode == 43


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_minds_no_signal_ends_by_it(
    engine: PrivateEngine, gpubox: Gpubox, sent: signal.Signals, code: int
) -> None:
    with gpubox.begin("run", PROFILE, "sh", "-c", "echo ready; exec sleep 600") as child:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(sent)
        assert child.wait(PATIENCE) == code


def test_the_third_interrupt_ends_gpubox_whatever_the_box_does(
    gpubox: Gpubox, client: DockerClient
) -> None:
    script = "trap 'echo no' INT; echo ready; while :; do sleep .05; done"
    with gpubox.begin("run", *NO_GPU, PROFILE, "sh", "-c", script) as child:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        for _ in range(2):
            child.send_signal(signal.SIGINT)
            assert child.stdout.readline() == b"no\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE) == 128 + signal.SIGINT
    assert client.containers.get(BOX).status == "running"


def test_a_reader_that_has_enough_ends_both_sides(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    with gpubox.begin("run", *NO_GPU, PROFILE, "yes") as child:
        assert child.stdout and child.stderr
        assert child.stdout.readline() == b"y\n"
        child.stdout.close()
        assert child.wait(PATIENCE) == 128 + signal.SIGPIPE
        assert child.stderr.read() == b""
    wait_until(lambda: not client.containers.list(), what="the end of the box")


# Detached --------------------------------------------------------------------------------------


def test_detached_prints_the_name_and_the_command_runs(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    done = gpubox("run", "-d", PROFILE, "sh", "-c", "echo hello; exec sleep 600")
    assert (done.returncode, done.stdout) == (0, f"{BOX}\n".encode())
    box = client.containers.get(BOX)
    assert box.status == "running"
    wait_until(lambda: box.logs() == b"hello\n")


def test_detached_without_a_command_keeps_a_shell_alive(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    done = gpubox("run", "-d", PROFILE)
    assert (done.returncode, done.stdout) == (0, f"{BOX}\n".encode())
    assert BOX in done.stderr.decode()  # how to enter it
    box = client.containers.get(BOX)
    connection: Any = box.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    connection._sock.sendall(b"echo $((6*7)) >/tmp/answer\n")
    wait_until(lambda: box.exec_run(["cat", "/tmp/answer"]).output == b"42\n")
    connection.close()
    box.reload()
    assert box.status == "running"


# Names -----------------------------------------------------------------------------------------


def test_a_second_box_of_a_profile_gets_the_next_name(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    printed = [gpubox("run", "-d", PROFILE, "sleep", "600").stdout.decode() for _ in range(3)]
    assert printed == [f"{BOX}\n", f"{BOX}-2\n", f"{BOX}-3\n"]
    inside = client.containers.get(f"{BOX}-2").exec_run(["hostname"]).output
    assert inside == f"{BOX}-2\n".encode()


@pytest.mark.parametrize("detach", [["-d"], []], ids=["detached", "foreground"])
def test_a_chosen_name_that_is_taken_is_an_error_and_nothing_stays(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, detach: list[str]
) -> None:
    client.containers.create(STAND_IN, name="thesis")
    assert "'thesis'" in said(gpubox("run", *detach, "--name", "thesis", PROFILE, "true"))
    assert names(client) == ["thesis"]


def test_after_rm_the_same_name_is_free_at_once(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    for number in range(5):
        done = gpubox(
            "run", *NO_GPU, "--rm", "--name", "again", PROFILE, "sh", "-c", f"exit {number}"
        )
        assert (done.returncode, done.stderr) == (number, b"")
    assert names(client) == []


def test_without_rm_a_box_that_has_ended_is_kept(gpubox: Gpubox, client: DockerClient) -> None:
    gpubox("run", PROFILE, "sh", "-c", "echo done >/tmp/result")
    assert names(client) == [BOX]


# Failed starts ---------------------------------------------------------------------------------


def test_ports_are_published_on_loopback_only_and_said(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    done = gpubox("run", "-d", "-p", "80", PROFILE, "sleep", "600")
    bound = client.containers.get(BOX).attrs["NetworkSettings"]["Ports"]["80/tcp"]
    assert [port["HostIp"] for port in bound] == ["127.0.0.1"]
    assert f"127.0.0.1:{bound[0]['HostPort']}" in done.stderr.decode()


@pytest.mark.parametrize("detach", [["-d"], []], ids=["detached", "foreground"])
def test_a_port_that_a_program_holds_is_said_so_and_nothing_stays(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, detach: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        text = said(gpubox("run", *detach, "-p", f"{port}:80", PROFILE, "true"))
    assert re.search(rf"port \S*{port} is taken by \S+ \(pid {os.getpid()}\)", text)
    assert names(client) == []


@pytest.mark.parametrize("detach", [["-d"], []], ids=["detached", "foreground"])
def test_a_port_that_a_container_holds_is_said_so_and_nothing_more_stays(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, detach: list[str]
) -> None:
    gpubox("run", "-d", "-p", "80", "--name", "first", PROFILE, "sleep", "600")
    port = client.containers.get("first").attrs["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    text = said(gpubox("run", *detach, "-p", f"{port}:80", PROFILE, "true"))
    assert re.search(rf"port \S*{port} is taken by .*\bfirst\b", text)
    assert names(client) == ["first"]


@pytest.mark.parametrize("rm", [["--rm"], []], ids=["rm", "kept"])
@pytest.mark.parametrize("detach", [["-d"], []], ids=["detached", "foreground"])
def test_a_mount_that_cannot_be_is_said_so_and_nothing_stays(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, detach: list[str], rm: list[str]
) -> None:
    (gpubox.cwd / "file").touch()
    words = (*detach, *rm, "-v", f"{gpubox.cwd}/file:/home/anna", PROFILE, "true")
    text = said(gpubox("run", *words))
    assert f"{gpubox.cwd}/file" in text
    assert "/home/anna" in text
    assert names(client) == []


# Mounts ----------------------------------------------------------------------------------------


@pytest.fixture
def data(gpubox: Gpubox) -> Path:
    folder = gpubox.cwd / "imagenet"
    folder.mkdir()
    (folder / "train").write_text("here\n")
    return folder


def test_a_mount_is_read_only_and_says_so(
    engine: PrivateEngine, gpubox: Gpubox, data: Path
) -> None:
    script = "cat /data/train; touch /data/new"
    done = gpubox("mount", f"{data}:/data", PROFILE, "sh", "-c", script)
    assert done.stdout == b"here\n"
    assert f"mounting {data} on /data, read-only (add :rw to write)" in done.stderr.decode()
    assert b"Read-only file system" in done.stderr
    assert done.returncode == 1
    assert not (data / "new").exists()


@pytest.mark.parametrize("words", [["mount", "set"], ["run", "--dataset", "set"]], ids=" ".join)
def test_a_dataset_asked_for_says_where_it_is_and_that_it_is_read_only(
    gpubox: Gpubox, data: Path, words: list[str]
) -> None:
    (gpubox.cwd / "gpubox.yaml").write_text(f"datasets: {{set: {data}}}\n")
    done = gpubox(*words, "--gpus", "none", PROFILE, "cat", "/data/set/train")
    assert done.stdout == b"here\n"
    said = f"mounting {data} on /data/set, read-only (add :rw to write)\n"
    assert done.stderr.decode() == said


def test_a_mount_with_rw_can_be_written_and_says_so(
    engine: PrivateEngine, gpubox: Gpubox, data: Path
) -> None:
    done = gpubox("mount", f"{data}:/data:rw", PROFILE, "touch", "/data/new")
    assert done.returncode == 0, done.stderr
    assert f"mounting {data} on /data, read and write" in done.stderr.decode()
    assert (data / "new").exists()


@pytest.mark.parametrize("spec", ["./imagenet:/data", "imagenet:/data", "../work/imagenet:/data"])
def test_a_relative_folder_is_the_callers(gpubox: Gpubox, data: Path, spec: str) -> None:
    done = gpubox("mount", spec, PROFILE, "cat", "/data/train")
    assert done.stdout == b"here\n", done.stderr


def test_a_tilde_is_the_callers_home(gpubox: Gpubox) -> None:
    (gpubox.home / "notes").write_text("mine\n")
    done = gpubox("mount", "~:/home/me", PROFILE, "cat", "/home/me/notes")
    assert done.stdout == b"mine\n", done.stderr
    done = gpubox("mount", "~/notes:/notes", PROFILE, "cat", "/notes")
    assert done.stdout == b"mine\n", done.stderr


def test_one_file_can_be_mounted(engine: PrivateEngine, gpubox: Gpubox, data: Path) -> None:
    done = gpubox("mount", f"{data}/train:/etc/motd", PROFILE, "cat", "/etc/motd")
    assert done.stdout == b"here\n", done.stderr


@pytest.mark.parametrize("words", [["mount"], ["run", "-v"]], ids=" ".join)
def test_a_missing_folder_is_an_error_with_the_nearest_name_and_is_not_made(
    gpubox: Gpubox, client: DockerClient, data: Path, words: list[str]
) -> None:
    wrong = data.with_name("imagenets")
    text = said(gpubox(*words, f"{wrong}/val:/data", PROFILE, "true"))
    assert f"no folder {wrong}/val" in text
    assert f"did you mean {data}?" in text
    assert not wrong.exists()
    assert names(client) == []


def test_a_mount_of_nothing_is_a_usage_error(gpubox: Gpubox) -> None:
    assert "what to mount is missing" in said(gpubox("mount"))
    assert f"'{PROFILE}'" in said(gpubox("mount", PROFILE))


# Labels and ps ---------------------------------------------------------------------------------


def test_a_box_carries_what_gpubox_knows_of_it(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    gpubox("run", "--gpus", "1,3", "-d", PROFILE, "sleep", "600")
    labels = client.containers.get(BOX).labels
    assert {key: value for key, value in labels.items() if key.startswith("gpubox.")} == {
        "gpubox.profile": PROFILE,
        "gpubox.owner": "root",
        "gpubox.folder": str(gpubox.cwd),
        "gpubox.kind": "command",
        "gpubox.gpus": "index:1,index:3",
        "gpubox.version": version("gpubox"),
    }


def test_ps_lists_the_boxes_that_run_and_no_foreign_container(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    client.containers.run(STAND_IN, ["sleep", "600"], name="foreign", detach=True)
    gpubox("run", PROFILE, "true")  # has ended
    gpubox("run", "-d", "--gpus", "device=1", "-p", "80", PROFILE, "sleep", "600")
    assert gpubox("ps", "-q").stdout.decode() == f"{BOX}-2\n"
    assert gpubox("ps", "-a", "-q").stdout.decode() == f"{BOX}-2\n{BOX}\n"
    head, row = gpubox("ps").stdout.decode().splitlines()
    assert head.split() == ["NAME", "PROFILE", "OWNER", "GPUS", "PORTS", "STATUS", "FOLDER"]
    assert row.split()[:3] == [f"{BOX}-2", PROFILE, "root"]
    assert str(gpubox.cwd) in row and "127.0.0.1:" in row
    assert "foreign" not in gpubox("ps", "-a").stdout.decode()


def test_ps_gives_the_same_as_json(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    assert json.loads(gpubox("ps", "--json").stdout) == []
    gpubox("run", "-d", "--gpus", "none", PROFILE, "sleep", "600")
    (box,) = json.loads(gpubox("ps", "--json").stdout)
    expected = {"name": BOX, "profile": PROFILE, "owner": "root", "kind": "command"}
    expected |= {"gpus": "none", "state": "running", "folder": str(gpubox.cwd), "image": STAND_IN}
    assert box.items() >= expected.items()
    assert box["id"] == client.containers.get(BOX).id


def test_ps_without_a_box_says_so_and_is_no_failure(gpubox: Gpubox) -> None:
    done = gpubox("ps")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"no box runs\n")
