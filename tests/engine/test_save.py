"""`save` and `clean`: a box as an image and a profile, without secrets; and only one's own goes."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pexpect
import pytest
from docker import DockerClient

from lab.engine import PrivateEngine
from lab.images import STAND_IN
from lab.machine import free_port
from lab.moments import told
from lab.nvml import Machine
from lab.podman import PrivatePodman
from lab.program import Gpubox
from lab.waiting import PATIENCE
from lab.workstation import BOX, PROFILE, SOMEBODY, Workstation

SECRET = "hush-hush-hush"
PROFILES = ".config/gpubox/profiles.d"


@pytest.fixture
def lab(
    used_engine: PrivateEngine,
    gpubox: Gpubox,
    client: DockerClient,
    nvml: Callable[[Machine], dict[str, str]],
) -> Iterator[Workstation]:
    """Whose images are removed when it ends."""
    yield Workstation(used_engine, gpubox, nvml)
    for box in client.containers.list(all=True):
        box.remove(force=True, v=True)
    for image in client.images.list(filters={"label": "gpubox.gpus"}):
        client.images.remove(str(image.id), force=True)


def files(lab: Workstation) -> list[str]:
    """All that is in profiles.d, drafts too."""
    folder = lab.gpubox.home / PROFILES
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def profile(lab: Workstation, name: str) -> str:
    return (lab.gpubox.home / PROFILES / f"{name}.yaml").read_text("utf-8")


def line(lab: Workstation, *words: str, **env: str) -> list[str]:
    """The words of a start's `docker run` line, but for what tells one box from the next."""
    code, out, err = lab.says("run", "--dry-run", "-d", *words, **env)
    assert code == 0, err
    printed = shlex.split(out)
    for option in ("--name", "--pull", "--hostname"):
        if option in printed and printed[printed.index(option) + 1] != "head":
            at = printed.index(option)
            del printed[at : at + 2]
    names = (STAND_IN, "root/mine")
    kept = [word for word in printed if "gpubox.profile=" not in word]
    return sorted("IMAGE" if word in names else word for word in kept)


# Save ------------------------------------------------------------------------------------------

BOXES = {
    "a command with all that can be said": (
        *("--gpus", "1", "--share", "--workspace", ".", "-v", "DATA:/data:ro"),
        *("-v", "named:/named", "-v", "/scratch", "-p", "7000", "-p", "0.0.0.0:PORT:71/udp"),
        *("-e", f"MY_TOKEN={SECRET}", "-e", "INHERITED", "-e", "COST=$5 'a'", "-e", "EMPTY="),
        *("--ulimit", "nofile=1000:2000", "--shm-size", "1g", "--label", "team=vision"),
        *("--cap-add", "sys_ptrace", "--security-opt", "seccomp=unconfined", "--cpus", "1.5"),
        *("-m", "64m", "--device", "/dev/null:/dev/x:r", "--restart", "on-failure:3"),
        *(PROFILE, "sh", "-c", "sleep 600 # $HOME"),
    ),
    "another program on the machine's network": (
        *("--gpus", "none", "--entrypoint", "/bin/sleep", "--network", "host", "--ipc", "host"),
        *("--no-init", "-u", "nobody", "-w", "/tmp", "--security-opt", "systempaths=unconfined"),
        *(PROFILE, "600"),
    ),
    "a shell of the caller's": (
        *("--gpus", "all", "-u", "host", "--hostname", "head", "-v", "DATA:/data:z", PROFILE),
    ),
}


@pytest.mark.parametrize("name", BOXES)
def test_the_saved_profile_starts_the_same_box_with_the_same_files(
    engine: PrivateEngine, lab: Workstation, tmp_path: Path, name: str
) -> None:
    (tmp_path / "data").mkdir()
    meant = {"DATA": f"{tmp_path}/data", "PORT": str(free_port())}
    words = [re.sub("DATA|PORT", lambda it: meant[it[0]], word) for word in BOXES[name]]
    env = {"MY_TOKEN": SECRET, "INHERITED": "the caller's"}
    before = line(lab, *words, **env)
    assert lab.says("run", "-d", *words, **env)[0] == 0
    lab.docker("exec", "-u", "0", BOX, "sh", "-c", "echo kept >/opt-file")
    if "a command" not in name:  # one that runs, one that is stopped
        lab.docker("stop", "-t", "0", BOX)
    was = lab.inspect(BOX)
    code, out, err = lab.says("save", BOX, "mine", **env)
    assert (code, out) == (0, "mine\n"), err
    assert err.endswith("start one like it: gpubox run mine\n")
    after = lab.inspect(BOX)
    assert (after["Id"], after["State"]) == (was["Id"], was["State"])
    assert files(lab) == ["mine.yaml"]

    lab.docker("rm", "-fv", BOX)
    assert line(lab, "mine", **env) == before
    assert lab.says("run", "-d", "mine", **env)[0] == 0
    lab.docker("start", "mine-root")  # which has ended, perhaps
    assert lab.docker("cp", "mine-root:/opt-file", "-")
    # what the image came from stays what it is: a shell, and nobody's user
    assert lab.says("run", "--gpus", "none", "root/mine", "cat", "/opt-file")[1] == "kept\n"


def test_a_saved_box_has_no_secret_no_claim_and_says_what_is_left_behind(
    engine: PrivateEngine, lab: Workstation, tmp_path: Path
) -> None:
    had = lab.images()
    words = ("--gpus", "2", "-e", f"MY_TOKEN={SECRET}", "-v", "/scratch", "-v", "named:/named")
    lab.box(*words, "-e", f"PROXY=http://anna:{SECRET}@proxy")
    code, _, err = lab.says("save", BOX, "mine")
    assert code == 0, err
    assert err.splitlines()[:4] == [
        "not saved, and taken from your environment: MY_TOKEN, PROXY",
        "not in the image, and mounted again: /named (the volume named)",
        "not saved: /scratch, which is a volume without a name; it stays with the box, and"
        f" docker cp {BOX}:/scratch . takes its files out",
        f"{BOX} is paused while its files are copied",
    ]
    (made,) = lab.images() - had  # and nothing else
    image = lab.inspect(made)
    assert (image["RepoTags"], image["Author"]) == (["root/mine:latest"], "root")
    ours = {key: text for key, text in image["Config"]["Labels"].items() if "gpubox." in key}
    assert ours and not any(ours.values())
    assert SECRET not in json.dumps(image) + profile(lab, "mine")
    assert "gpus: 2" in profile(lab, "mine")
    kept = tmp_path / "image.tar"
    lab.docker("save", "-o", str(kept), "root/mine")
    assert SECRET.encode() not in kept.read_bytes()
    records = (lab.engine.folder / "data/image").glob("*/imagedb/content/sha256/*")
    assert not [it for it in records if SECRET in it.read_text()]
    # who runs it by docker makes no box of it
    lab.docker("run", "-d", "--name", "foreign", "root/mine", "sleep", "600")
    assert lab.says("ps", "-q")[1] == f"{BOX}\n"


def test_what_was_saved_is_replaced_after_a_yes_and_gone_then(lab: Workstation) -> None:
    lab.box("--gpus", "none")
    assert lab.says("save", BOX, "mine")[0] == 0
    had, text = lab.images(), profile(lab, "mine")
    code, _, err = lab.says("save", BOX, "mine")
    both = f"root/mine and ~/{PROFILES}/mine.yaml"
    assert (code, err.splitlines()) == (
        2,
        [
            f"gpubox: there is {both} already, and there is no terminal to ask at",
            "  --replace replaces what is there",
        ],
    )
    lab.docker("exec", BOX, "sh", "-c", "echo newer >/opt-file")
    assert answered(lab, "n", "save", BOX, "mine") == 1
    assert (lab.images(), profile(lab, "mine")) == (had, text)
    assert answered(lab, "y", "save", BOX, "mine") == 0
    assert len(lab.images() - had) == len(had - lab.images()) == 1
    assert lab.says("run", "root/mine", "cat", "/opt-file")[1] == "newer\n"


def answered(lab: Workstation, answer: str, *words: str) -> int:
    """The exit code of gpubox at a terminal where it is answered so."""
    program = lab.gpubox
    child = pexpect.spawn(
        str(program.program), list(words), env=program.env, cwd=str(program.cwd), timeout=PATIENCE
    )
    child.expect_exact("? [y/N]: ")
    child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()
    return int(child.exitstatus or 0)


def test_names_that_mean_something_and_files_of_ones_own_are_not_taken(lab: Workstation) -> None:
    lab.box("--gpus", "none")
    had = lab.images()
    lab.docker("tag", STAND_IN, "root/theirs")
    folder = lab.gpubox.home / PROFILES
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text("profiles: {other: {image: x/y}}\n")
    for name, code, problem in (
        ("My Model", 2, "'My Model' is no name for an image and a profile"),
        (PROFILE, 2, f"there is a profile '{PROFILE}' already: built in"),
        ("cuda12.4-cudnn", 2, "there is a profile 'cuda12.4-cudnn' already: NVIDIA's images"),
        ("other", 2, f"there is a profile 'other' already: ~/{PROFILES}/own.yaml"),
        ("own", 2, f"~/{PROFILES}/own.yaml was not written by gpubox save"),
        ("theirs", 1, "there is an image root/theirs, and you have not saved it"),
    ):
        said = lab.says("save", BOX, name, "--replace")
        assert (said[0], said[2].splitlines()[0]) == (code, f"gpubox: {problem}")
    theirs = lab.box("--gpus", "none", uid=SOMEBODY)
    assert lab.says("save", theirs, "mine")[0] == 1
    assert lab.images() == had
    assert files(lab) == ["own.yaml"]
    assert lab.says("save", theirs, "mine", "--owner", "nobody")[0] == 0
    lab.docker("rmi", "root/theirs")


# what the engine tells of a save, the signal that comes then, and whether there was one before
STRIKES = (
    (f"pause {BOX}", signal.SIGINT, False),
    (f"pause {BOX}", signal.SIGTERM, True),
    (f"commit {BOX}", signal.SIGTERM, False),
    (f"commit {BOX}", signal.SIGINT, True),
    ("tag root/mine", signal.SIGINT, False),
    ("tag root/mine", signal.SIGTERM, True),
)


def again(interrupted: set[str]) -> Iterator[tuple[str, signal.Signals, bool]]:
    """The first, until it strikes in time: it may come when all is done."""
    for strike in STRIKES[:1] * 9:
        if strike[0] not in interrupted:
            yield strike


def test_a_failure_or_an_interruption_leaves_nothing_or_both(
    lab: Workstation, client: DockerClient
) -> None:
    lab.box("--gpus", "none")
    lab.docker("exec", BOX, "sh", "-c", "head -c 30000000 /dev/urandom >/big")
    had = lab.images()
    folder = lab.gpubox.home / PROFILES
    folder.parent.mkdir(parents=True)
    folder.write_text("no folder")
    code, _, err = lab.says("save", BOX, "mine")
    assert (code, lab.images()) == (1, had)
    assert err.splitlines()[-1].startswith(f"gpubox: ~/{PROFILES}/mine.yaml cannot be written: ")
    folder.unlink()
    interrupted = set[str]()
    for moment, strikes, replaces in chain(STRIKES, again(interrupted)):
        if files(lab):
            lab.docker("rmi", "root/mine")
            (folder / "mine.yaml").unlink()
        if replaces:
            lab.docker("exec", BOX, "sh", "-c", "echo former >/which")
            assert lab.says("save", BOX, "mine")[0] == 0
        lab.docker("exec", BOX, "sh", "-c", "echo newer >/which")
        former = lab.images() - had
        words = ("save", BOX, "mine", "--replace")
        with told(client, moment) as wait, lab.gpubox.begin(*words) as process:
            wait()
            process.send_signal(strikes)
            said = process.communicate(timeout=PATIENCE)[1]
        made = lab.images() - had
        assert files(lab) == ["mine.yaml"] * len(made), said
        assert len(made) <= 1, said
        if made:
            shown = lab.says("run", "--rm", "mine", "cat", "/which")[1]
            assert shown == ("former\n" if made == former else "newer\n")
        if made == former:
            assert process.returncode in (130, -strikes), said
            interrupted.add(moment)
    assert f"pause {BOX}" in interrupted
    assert not lab.inspect(BOX)["State"]["Paused"]


def test_a_saved_image_is_never_pulled(lab: Workstation) -> None:
    lab.box("--gpus", "none")
    assert lab.says("save", BOX, "mine")[0] == 0
    lab.docker("rmi", "root/mine")
    for words in (("run", "mine"), ("run", "root/mine"), ("jupyter", "mine")):
        code, _, err = lab.says(*words, GPUBOX_REGISTRY="127.0.0.1:1")
        problem, hint = err.splitlines()
        assert (code, problem) == (125, "gpubox: no image root/mine on the engine")
        assert hint.startswith(f"  ~/{PROFILES}/mine.yaml:")
    code, _, err = lab.says("pull", "mine")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("gpubox: root/mine is never pulled")


def test_podman_keeps_secrets_and_so_is_refused(podman: PrivatePodman, gpubox: Gpubox) -> None:
    done = gpubox("save", "some-box", "mine")
    assert done.returncode == 1
    assert done.stderr.startswith(b"gpubox: boxes of Podman are not saved: ")


# Clean -----------------------------------------------------------------------------------------


def test_clean_removes_what_it_lists_and_nothing_else(lab: Workstation) -> None:
    had = lab.images()
    lab.box("--gpus", "none", "--name", "runs")
    theirs = lab.box("--gpus", "none", uid=SOMEBODY)
    lab.container("foreign")
    lab.says("run", "--gpus", "none", "--name", "empty", PROFILE, "true")
    write = "head -c 2000000 /dev/urandom >/big; echo 12345 >/scratch/file"
    lab.box("--gpus", "device=1", "--restart", "always", "-v", "/scratch", "--name", "full")
    lab.docker("exec", "full", "sh", "-c", write)
    (volume,) = [it["Name"] for it in lab.inspect("full")["Mounts"]]
    lab.docker("stop", "-t", "0", "full", theirs, "foreign")

    code, out, err = lab.says("clean")
    listed = [text.split()[0] for text in out.splitlines()[1:]]
    assert (code, listed) == (2, ["empty", "full"])
    assert "2.0 MB  box, stopped" in out
    assert "; keeps its GPUs while it is stopped (restart: always); with its volume" in out
    assert err.splitlines() == [
        "gpubox: 2 boxes would be removed, and there is no terminal to ask at",
        "  gpubox clean --yes removes them",
    ]
    assert answered(lab, "n", "clean") == 1
    ticket = lab.docker("create", "--label", f"gpubox.ticket={lab.inspect('full')['Id']}", STAND_IN)
    assert lab.says("clean", "--yes")[0] == 0  # but for one that is about to start
    lab.docker("rm", ticket)
    assert set(lab.containers()) == {"runs", theirs, "foreign", "full"}
    assert answered(lab, "y", "clean") == 0
    assert set(lab.containers()) == {"runs", theirs, "foreign"}
    assert volume not in lab.docker("volume", "ls", "-q")
    assert lab.says("clean") == (0, "", "nothing to remove\n")
    assert lab.images() == had


def test_clean_removes_images_that_nothing_needs_any_more(
    engine: PrivateEngine, lab: Workstation
) -> None:
    had = lab.images()
    lab.box("--gpus", "none")
    lab.docker("exec", BOX, "sh", "-c", "head -c 3000000 /dev/urandom >/big")
    for name in ("kept", "old", "used"):
        assert lab.says("save", BOX, name)[0] == 0
    for name in ("old", "used"):
        (lab.gpubox.home / PROFILES / f"{name}.yaml").unlink()
    lab.says("run", "-d", "--gpus", "none", "--name", "needs", "root/used", "sleep", "600")
    lab.docker("exec", BOX, "sh", "-c", "head -c 3000000 /dev/urandom >/big")
    assert lab.says("move", BOX, "--gpus", "device=1")[0] == 0
    assert lab.says("clean", "--images", "--yes")[1].split("\n")[1].split()[0] == "root/old"
    lab.docker("rm", "-f", BOX)
    code, out, err = lab.says("clean", "--images", "--yes")
    assert (code, err) == (0, "3.0 MB freed\n")
    assert "image without a name: files of a box that was moved" in out
    left = {lab.inspect(f"root/{name}")["Id"] for name in ("kept", "used")}
    assert lab.images() - had == left
    assert lab.says("clean", "--images") == (0, "", "nothing to remove\n")
