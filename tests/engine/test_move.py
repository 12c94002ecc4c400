"""`move`: the same box on other GPUs, and the old one as it was if anything comes between."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
from docker import DockerClient

from lab.engine import PrivateEngine
from lab.moments import told
from lab.waiting import PATIENCE, wait_until
from lab.workstation import BOX, MACHINE, PROFILE, SOMEBODY, UUIDS, Workstation, using

SECRET = "hush-hush"


def move(lab: Workstation, *words: str, box: str = BOX) -> tuple[int, str, str]:
    return lab.says("move", box, *words)


def dangling(lab: Workstation) -> set[str]:
    return set(lab.docker("images", "-q", "--no-trunc", "-f", "dangling=true").split())


def volumes(lab: Workstation) -> list[str]:
    return sorted(lab.docker("volume", "ls", "-q").split())


def kept(found: dict[str, Any]) -> dict[str, Any]:
    """All that a move must leave as it is."""
    config, host = dict(found["Config"]), dict(found["HostConfig"])
    labels = {
        key: text
        for key, text in config["Labels"].items()
        if key not in ("gpubox.gpus", "gpubox.claim")
    }
    config |= {"Labels": labels, "Env": sorted(config["Env"])}
    for gone in ("Image",):
        del config[gone]
    for gone in ("DeviceRequests", "VolumesFrom", "PortBindings", "Mounts", "Binds"):
        host.pop(gone, None)
    for mount in found["Mounts"]:
        if len(mount.get("Name", "")) == 64:  # it has its SELinux label from its first box
            mount.pop("Mode", None)
    mounts = sorted(found["Mounts"], key=lambda mount: mount["Destination"])
    host["RestartPolicy"] |= {"Name": host["RestartPolicy"]["Name"] or "no"}
    networks = sorted(found["NetworkSettings"]["Networks"])
    ports = found["NetworkSettings"]["Ports"]
    return {
        "name": found["Name"], "config": config, "host": host, "mounts": mounts,
        "networks": networks, "ports": ports,
    }  # fmt: skip


def test_a_moved_box_is_the_same_but_for_its_gpus(
    engine: PrivateEngine, lab: Workstation, tmp_path: Any
) -> None:
    (tmp_path / "data").mkdir()
    before_images, before_volumes = lab.images(), volumes(lab)
    lab.box(
        *("--gpus", "device=0", "-v", "/scratch", "-v", "named:/named", "--restart", "on-failure"),
        *("-v", f"{tmp_path}/data:/data:ro", "-p", "7000", "-e", f"MY_TOKEN={SECRET}"),
        *("--label", "team=vision", "--ulimit", "nofile=1000", "--shm-size", "1g", "-w", "/opt"),
    )
    wrote = "for it in /opt /scratch /named; do echo kept >$it/file; done"
    lab.docker("exec", BOX, "sh", "-c", f"mkdir -p /opt; {wrote}")
    old, had = lab.inspect(BOX), volumes(lab)
    code, out, err = move(lab, "--gpus", "1")
    assert (code, out) == (0, f"{BOX}\n"), err
    assert err == (
        f"moving {BOX} ends what runs in it (sleep 600) with its memory; its files and volumes"
        f" stay\n{BOX} runs on GPU 1 (of 4)\n"
    )
    new = lab.inspect(BOX)
    assert new["Id"] != old["Id"]
    assert new["State"]["Running"]
    assert kept(new) == kept(old)
    assert new["Config"]["Labels"]["gpubox.gpus"] == UUIDS[1]
    assert lab.seen_in(BOX) == UUIDS[1:2]
    said = lab.docker("exec", BOX, "cat", "/opt/file", "/scratch/file", "/named/file")
    assert said.split() == ["kept"] * 3
    assert lab.containers() == {BOX: "running"}
    assert volumes(lab) == had
    (made,) = lab.images() - before_images
    image = lab.inspect(made)
    assert not image["RepoTags"]
    assert SECRET not in json.dumps(image)
    records = (lab.engine.folder / "data/image").glob("*/imagedb/content/sha256/*")
    assert not [it for it in records if SECRET in it.read_text()]
    mine = {key: text for key, text in image["Config"]["Labels"].items() if "gpubox." in key}
    assert mine
    assert not any(mine.values())
    # again, stopped and started, and removed with what only it had
    assert move(lab, "--gpus", "2,3")[0] == 0
    assert lab.images() - before_images == {lab.inspect(BOX)["Image"]}
    lab.docker("stop", "-t", "0", BOX)
    lab.docker("start", BOX)
    again = lab.inspect(BOX)
    assert kept(again) == kept(old)
    assert lab.seen_in(BOX) == UUIDS[2:]
    lab.docker("rm", "-fv", BOX)
    assert set(volumes(lab)) == {*before_volumes, "named"}


def test_a_box_is_in_its_networks_again(engine: PrivateEngine, lab: Workstation) -> None:
    for network in ("lab", "more"):
        lab.docker("network", "create", network)
    try:
        lab.box("--gpus", "device=0", "--network", "lab")
        lab.docker("network", "connect", "more", BOX)
        old = lab.inspect(BOX)
        code, _, err = move(lab, "--gpus", "1")
        assert code == 0, err
        assert kept(lab.inspect(BOX)) == kept(old)
    finally:
        lab.docker("rm", "-f", BOX)
        lab.docker("network", "rm", "lab", "more")


def test_to_none_and_back(engine: PrivateEngine, lab: Workstation) -> None:
    lab.box("--gpus", "device=0")
    code, _, err = move(lab, "--gpus", "none")
    assert code == 0, err
    assert err.endswith(f"{BOX} runs on no GPU\n")
    assert "NVIDIA_VISIBLE_DEVICES=void" in lab.inspect(BOX)["Config"]["Env"]
    assert lab.labels(BOX)["gpubox.gpus"] == "none"
    assert lab.states() == ["free"] * 4
    assert move(lab, "--gpus", "none") == (0, f"{BOX}\n", f"{BOX} has no GPU already\n")
    assert move(lab, "--gpus", "device=3")[0] == 0
    assert lab.seen_in(BOX) == UUIDS[3:]
    assert "NVIDIA_VISIBLE_DEVICES=void" not in lab.inspect(BOX)["Config"]["Env"]
    assert lab.states() == ["free"] * 3 + ["mine, idle now"]


def test_its_own_gpu_is_kept_only_where_it_wants_another_number(lab: Workstation) -> None:
    lab.box("--gpus", "device=1")
    lab.on(using(MACHINE, None, lab.pid(BOX)))
    before = lab.inspect(BOX)["Id"]
    code, _, err = move(lab, "--gpus", "device=1")
    assert (code, err) == (0, f"{BOX} has GPU 1 already\n")
    assert lab.inspect(BOX)["Id"] == before
    code, _, err = move(lab, "--gpus", "2")
    assert code == 0
    assert "with its memory, 2.0 GiB on GPUs; its files" in err
    assert lab.labels(BOX)["gpubox.gpus"] == f"{UUIDS[0]},{UUIDS[1]}"
    lab.on(MACHINE)
    assert move(lab, "--gpus", "2")[0] == 0
    assert lab.labels(BOX)["gpubox.gpus"] == f"{UUIDS[2]},{UUIDS[3]}"


def test_gpus_that_others_have_are_refused_and_the_box_runs_on(lab: Workstation) -> None:
    lab.box("--gpus", "device=0")
    theirs = lab.box("--gpus", "1,2,3", uid=SOMEBODY)
    before = lab.inspect(BOX)
    code, out, err = move(lab, "--gpus", "device=1")
    assert (code, out) == (1, "")
    assert err.startswith(f"gpubox: GPU 1 is held by nobody ({theirs})\n")
    code, _, err = move(lab, "--gpus", "1")
    assert code == 1
    assert "none of 4 is free" in err
    assert "GPU 0 is the box's own" in err
    assert lab.inspect(BOX) == before
    with lab.gpubox.begin("move", BOX, "--gpus", "1", "--wait") as mover:
        assert mover.stderr
        said = mover.stderr.readline()
        assert said.startswith(b"waiting: 1 GPU is wanted, and none of 4 is free")
        lab.docker("stop", "-t", "0", theirs)
        _, rest = mover.communicate(timeout=PATIENCE)
    assert mover.returncode == 0
    assert rest.decode().endswith(f"{BOX} runs on GPU 1 (of 4)\n")


def test_only_a_running_box_of_ones_own_is_moved(lab: Workstation) -> None:
    theirs = lab.box("--gpus", "device=1", uid=SOMEBODY)
    code, _, err = move(lab, "--gpus", "1", box=theirs)
    assert code == 1
    assert err == (
        f"gpubox: {theirs} is nobody's box\n"
        "  another person's box is not touched without --owner NAME and its full name\n"
    )
    assert move(lab, "--gpus", "1", "--owner", "nobody", box=theirs)[0] == 0
    assert lab.labels(theirs)["gpubox.owner"] == "nobody"
    lab.box("--gpus", "none")
    code, _, err = move(lab, "--gpus", "1", box="cuda8-cudnn5-rot")
    assert (code, err) == (2, f"gpubox: no box 'cuda8-cudnn5-rot'\n  did you mean '{BOX}'?\n")
    assert move(lab, "--gpus", "0")[0] == 2
    lab.docker("stop", "-t", "0", BOX)
    code, _, err = move(lab, "--gpus", "1")
    assert code == 1
    assert err.endswith(f"start it first: gpubox start {BOX}\n")
    lab.box("--gpus", "none", "--rm", "--name", "gone-with-it")
    assert "--rm" in move(lab, "--gpus", "1", box="gone-with-it")[2]
    assert lab.containers()[BOX] == "exited"


def test_a_start_that_fails_leaves_the_old_box_running(lab: Workstation) -> None:
    lab.box("--gpus", "none")
    lab.docker("exec", BOX, "sh", "-c", "echo kept >/file")
    before, had = lab.inspect(BOX), lab.images()
    refusal = lab.engine.folder / "refusal"
    refusal.write_text("nvidia-container-cli: initialization error: nvml error: driver not loaded")
    try:
        code, out, err = move(lab, "--gpus", "1")
    finally:
        refusal.unlink()
    assert (code, out) == (1, "")
    assert f"{BOX} was started again" in err
    assert lab.inspect(BOX)["Id"] == before["Id"]
    assert kept(lab.inspect(BOX)) == kept(before)
    assert lab.containers() == {BOX: "running"}
    assert lab.images() == had
    assert lab.docker("exec", BOX, "cat", "/file") == "kept"


# what the engine tells of a move, in its order
MOMENTS = (
    *(f"update {BOX}", f"kill {BOX}", f"die {BOX}", f"commit {BOX}", f"create {BOX}-moving"),
    *(f"start {BOX}-moving", f"destroy {BOX}", f"rename {BOX}"),
)


def again(brought_back: set[str]) -> Iterator[str]:
    """The moments after which a box must be brought back: one may be over before we strike."""
    for moment in MOMENTS[:4] * 9:
        if moment not in brought_back:
            yield moment


@pytest.mark.parametrize("strikes", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_at_any_moment_leaves_one_whole_box(
    engine: PrivateEngine, lab: Workstation, client: DockerClient, strikes: signal.Signals
) -> None:
    lab.box("--gpus", "device=0", "-v", "/scratch")
    lab.docker("exec", BOX, "sh", "-c", "echo kept | tee /file /scratch/file")
    had, unnamed, brought_back = volumes(lab), dangling(lab), set[str]()
    for moment in chain(MOMENTS, again(brought_back)):
        before = lab.inspect(BOX)
        with told(client, moment) as wait, lab.gpubox.begin("move", BOX, "--gpus", "1") as process:
            wait()
            process.send_signal(strikes)
            _, err = process.communicate(timeout=PATIENCE)
        wait_until(lambda: lab.containers() == {BOX: "running"}, what="one box")
        after = lab.inspect(BOX)
        assert after["HostConfig"]["RestartPolicy"]["Name"] in ("", "no")
        if after["Id"] == before["Id"]:
            assert process.returncode in (130, -strikes, 128 + strikes), err
            if after["State"]["StartedAt"] != before["State"]["StartedAt"]:
                brought_back.add(moment)
        assert lab.docker("exec", BOX, "cat", "/file", "/scratch/file").split() == ["kept"] * 2
        assert lab.seen_in(BOX) == [after["Config"]["Labels"]["gpubox.gpus"]]
        assert volumes(lab) == had
    assert {*MOMENTS[:4]} <= brought_back <= {*MOMENTS[:5]}
    assert dangling(lab) - unnamed <= {lab.inspect(BOX)["Image"]}


def test_of_several_who_move_a_box_at_once_one_does_at_most(lab: Workstation) -> None:
    lab.box("--gpus", "device=0")
    lab.docker("exec", BOX, "sh", "-c", "echo kept >/file")
    movers = [lab.gpubox.begin("move", BOX, "--gpus", f"device={gpu}") for gpu in (1, 2, 3)]
    said = [mover.communicate(timeout=PATIENCE)[1] for mover in movers]
    assert [mover.returncode for mover in movers].count(0) <= 1, said
    assert lab.containers() == {BOX: "running"}, said
    assert lab.docker("exec", BOX, "cat", "/file") == "kept"
    assert lab.seen_in(BOX) == [lab.labels(BOX)["gpubox.gpus"]]


def test_its_claim_lasts_while_its_files_take_long(lab: Workstation) -> None:
    """Starters in between find both the old GPU and the new one taken."""
    lab.box("--gpus", "device=0", "--name", "slow-one")
    lab.docker("exec", "slow-one", "sh", "-c", "head -c 600000000 /dev/urandom >/file")
    process = lab.gpubox.begin("move", "slow-one", "--gpus", "device=1")
    wait_until(lambda: lab.containers()["slow-one"] == "exited", what="the old box's end")
    others = [lab.gpubox("run", "-d", PROFILE, "sleep", "600") for _ in range(3)]
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    taken = [lab.labels(box)["gpubox.gpus"] for box in lab.docker("ps", "-q").split()]
    assert len(taken) == len(set(taken)) > 1, [it.stderr for it in others]
