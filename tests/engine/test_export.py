"""An exported box, started by others, is the box that gpubox makes: by the real Compose, and by
what the devcontainer reference makes of a devcontainer.json."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from docker import DockerClient
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from gpubox.profile.layers import write
from lab import inprocess
from lab.engine import PrivateEngine
from lab.inspect import inspected, remove_all
from lab.newer import compose, newer_engine
from lab.program import Gpubox
from lab.spellings import DATA, OWN_OPTIONS, SPELLINGS, Asked, asked, filled, searched

DRAWS = int(os.environ.get("HYPOTHESIS_EXAMPLES", "2"))  # of each setting


def test_every_setting_makes_the_same_box_elsewhere(
    client: DockerClient, surroundings: dict[str, str]
) -> None:
    @settings(searched(DRAWS), phases=[Phase.generate])  # to shrink so much takes too long
    @given(st.fixed_dictionaries({key: asked([key], 1) for key in SPELLINGS}))
    def check(drawn: dict[str, Asked]) -> None:
        remove_all(client)
        same_boxes(client, surroundings, drawn)

    check()


def same_boxes(client: DockerClient, places: dict[str, str], drawn: dict[str, Asked]) -> None:
    """All of them in one Compose file, for Compose takes as long for one."""
    boxes, editors = {}, {}
    file: dict[str, Any] = {"services": {}, "volumes": {}}
    for key, each in drawn.items():
        box = filled(each, places)
        Path("gpubox.yaml").write_text(yaml.safe_dump(box.document(places[DATA])), "utf-8")
        rest = [*known(key), "asked", *box.command]
        words = [*box.words, "--name", f"x{key}", *rest]
        ours = inprocess.gpubox_create("-d", *words)
        if ours.code:  # refused, by gpubox or by the engine
            continue
        boxes[key] = comparable(client, f"x{key}")
        exported = inprocess.gpubox("export", "compose", *words)
        assert exported.code == 0, exported.err
        service = yaml.safe_load(exported.out)
        file["services"] |= {key: dict(*service["services"].values())}
        file["volumes"] |= service.get("volumes", {})
        # an editor's container has no name and no terminal, so these are no options
        own = max(len(it) for it in OWN_OPTIONS if it == tuple(box.words[: len(it)]))
        editors[key] = inprocess.gpubox("export", "devcontainer", *box.words[own:], *rest)

    assert len(boxes) > len(drawn) / 2, "most are no mistakes"
    Path("compose.yaml").write_text(write(file), "utf-8")
    run(compose(), "create")
    for key, made in boxes.items():
        note(f"{drawn[key]}")
        assert comparable(client, f"x{key}") == made, key
        if editors[key].code:
            assert "is a GPU of one machine" in editors[key].err
            continue
        run_words = reference(json.loads(editors[key].out))
        run(newer_engine() / "usr/bin/docker", "create", "--name", f"x{key}", *run_words)
        assert less(comparable(client, f"x{key}")) == less(made), key


def known(key: str) -> list[str]:
    """What else stays the same: no choice of GPUs, and the network that `docker run` takes."""
    return [
        *([] if key == "gpus" else ["--gpus", "none"]),
        *([] if key == "network_mode" else ["--network", "bridge"]),
    ]


def test_a_compose_file_goes_with_its_project(stable_engine: PrivateEngine, gpubox: Gpubox) -> None:
    folder = gpubox.cwd / "data"
    folder.mkdir()
    (folder / "x").write_text("read from the project's folder\n")
    script = 'nvidia-smi -L; cat /data/x; echo "$MY_TOKEN"'
    words = ["--gpus", "2", "-v", "./data:/data", "-e", "MY_TOKEN=s3cret", "cuda8-cudnn5"]
    exported = gpubox("export", "compose", *words, "sh", "-c", script)
    assert exported.returncode == 0, exported.stderr
    elsewhere = gpubox.cwd.rename(gpubox.cwd.with_name("elsewhere"))
    (elsewhere / "compose.yaml").write_bytes(exported.stdout)

    def compose_does(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [compose(), *words],
            cwd=elsewhere,
            env=stable_engine.environ(**environment),
            capture_output=True,
            text=True,
            check=False,
        )

    try:
        missing = compose_does("up")
        assert "MY_TOKEN is missing a value: set it, or write it into .env" in missing.stderr
        done = compose_does("up", "--no-log-prefix", MY_TOKEN="their's")
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert [line[:6] for line in lines if line.startswith("GPU ")] == ["GPU 0:", "GPU 1:"]
        assert {"read from the project's folder", "their's"} <= {*lines}
    finally:
        done = compose_does("down", MY_TOKEN="any")
        assert done.returncode == 0, done.stderr  # its network is gone, too


def run(program: Path, *words: str) -> str:
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def reference(config: dict[str, Any]) -> Iterator[str]:
    """The words of `docker run` that the devcontainer CLI makes of a devcontainer.json."""

    def said(text: str) -> str:
        text = text.replace("${localWorkspaceFolder}", str(Path.cwd()))
        return re.sub(r"\$\{localEnv:(.+?)\}", lambda it: os.environ.get(it[1], ""), text)

    for mount in filter(None, [config.get("workspaceMount"), *config.get("mounts", [])]):
        yield from ("--mount", said(mount))
    for name, value in config.get("containerEnv", {}).items():
        yield from ("-e", f"{name}={said(value)}")
    if user := config.get("containerUser"):
        yield from ("-u", user)
    yield from map(said, config.get("runArgs", []))
    yield config["image"]


def comparable(client: DockerClient, name: str) -> dict[str, Any]:
    """The container without what says by whom it was made; it is removed."""
    variables = client.api.inspect_container(name)["Config"]["Env"]
    found = inspected(client, name)
    config, host = found["Config"], found["HostConfig"]
    # of a repeated variable the last holds; one without a value is none
    config["Env"] = dict(it.split("=", 1) for it in variables if "=" in it)
    config["Labels"] = {
        key: text
        for key, text in (config.get("Labels") or {}).items()
        if not key.startswith(("gpubox.", "com.docker.compose."))
    }
    for key in ("AttachStdin", "AttachStdout", "AttachStderr"):
        config.pop(key)
    if config.get("Hostname") == name.replace("_", "-"):  # nobody has said one
        config.pop("Hostname")
    host.pop("AutoRemove")  # no file can say it
    # a volume with a name may be a bind, and a mode be written out
    binds, mounts = [], list(host.pop("Mounts", None) or [])
    for bind in host.pop("Binds", None) or []:
        source, target, text = bind.split(":")
        modes = {*text.split(",")} - {"rw"}
        if source.startswith("/"):
            binds.append((source, target, modes))
        else:
            mount = {"Type": "volume", "Source": source, "Target": target}
            mounts.append(mount | ({"ReadOnly": True} if "ro" in modes else {}))
    host["Binds"], host["Mounts"] = binds, sorted(mounts, key=lambda it: str(it["Target"]))
    for mount in found.get("Mounts") or []:
        mount.pop("Mode", None)
    return found


def less(box: dict[str, Any]) -> dict[str, Any]:
    """What editors leave of it: their own command in place of it, and forwarding for publishing."""
    config = {
        key: value
        for key, value in box["Config"].items()
        if key not in ("Cmd", "Entrypoint", "Tty", "OpenStdin", "StdinOnce", "ExposedPorts")
    }
    config.pop("WorkingDir", None)
    config["Env"] = {name: text for name, text in config["Env"].items() if text}
    ports = box["HostConfig"].get("PortBindings") or {}
    fixed = {key: bound for key, bound in ports.items() if bound != [{"HostIp": "127.0.0.1"}]}
    rest = {key: value for key, value in box.items() if key != "Path"}
    return rest | {"Config": config, "HostConfig": box["HostConfig"] | {"PortBindings": fixed}}
