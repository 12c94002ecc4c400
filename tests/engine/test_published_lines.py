"""Lines that NVIDIA and others publish, with `gpubox` for `docker`: the same container.

But for what gpubox adds, which is said here and nowhere hidden: any other difference is a failure.
The stand-in plays every image; the containers are created and not started, for not every engine
may lift the limits that these lines ask for.
"""

from __future__ import annotations

import re
import subprocess
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from gpubox.boxes.labels import PREFIX
from gpubox.values import LOOPBACK
from lab.engine import PrivateEngine
from lab.images import STAND_IN, tag
from lab.inprocess import gpubox, gpubox_create, terminal
from lab.inspect import inspected

NVIDIAS = """
docker run --gpus all -it --rm --ipc=host --ulimit memlock=-1 --ulimit stack=67108864 \
nvcr.io/nvidia/pytorch:24.01-py3
docker run --gpus all -it --rm nvcr.io/nvidia/tensorflow:24.01-tf2-py3
docker run --gpus all --shm-size=1g --ulimit memlock=-1 --ulimit stack=67108864 -it --rm \
-p 8888:8888 -v "$PWD/my data":/workspace/data nvcr.io/nvidia/pytorch:24.01-py3 bash
docker run --gpus all --rm nvidia/cuda:12.2.0-base-ubuntu22.04 nvidia-smi
docker run --rm --gpus '"device=1,2"' nvidia/cuda:12.2.0-base-ubuntu22.04 nvidia-smi
docker run --rm --gpus device=0 nvidia/cuda:12.2.0-base-ubuntu22.04 nvidia-smi --query-gpu=uuid
docker run --gpus=all --rm -p8000:8000 -p8001:8001 -p8002:8002 -v ${PWD}/model_repository:/models \
nvcr.io/nvidia/tritonserver:24.01-py3 tritonserver --model-repository=/models
docker run --gpus=all -it --shm-size=256m --rm --net=host -v ${PWD}:/workspace/ -w /workspace \
nvcr.io/nvidia/tritonserver:24.01-py3-sdk bash
docker run --gpus all --rm -it --shm-size=1g --ulimit memlock=-1 --ulimit stack=67108864 \
-p 8888:8888 -p 8787:8787 -p 8786:8786 rapidsai/notebooks:24.10-cuda12.5-py3.12
docker run --gpus all --cap-add=SYS_ADMIN --security-opt seccomp=unconfined --rm -ti \
nvcr.io/nvidia/nsight-systems:24.01 nsys status -e
"""

OTHERS = """
docker run --gpus all -it --rm -v $PWD:/tmp -w /tmp tensorflow/tensorflow:2.15.0-gpu \
python ./script.py
docker run -it --rm -v $(realpath .):/tf/notebooks -p 8888:8888 tensorflow/tensorflow:latest-jupyter
docker run -u $(id -u):$(id -g) --gpus all -itd -v "$PWD":/w --workdir=/w pytorch/pytorch:2.1.0 bash
docker run --rm -ti --ipc=host --gpus=all --volume=$PWD:/app --user="$(id -u):$(id -g)" \
anibali/pytorch:1.13.0-cuda11.8 python3 main.py
docker run -p 10000:8888 quay.io/jupyter/scipy-notebook:2024-10-07
docker run -it --rm -p 10000:8888 -v "${PWD}":/home/jovyan/work \
quay.io/jupyter/datascience-notebook:1
docker run -it --rm -p 8888:8888 --user root -e GRANT_SUDO=yes -e NB_UID="$(id -u)" \
-w "/home/${NB_USER:-jovyan}" quay.io/jupyter/base-notebook:1 start-notebook.py --port=8888
docker run --detach --name a-notebook --publish 8888:8888 --env JUPYTER_ENABLE_LAB=yes \
--env RESTARTABLE=yes quay.io/jupyter/minimal-notebook:1
docker run -d --gpus=all -v ollama:/root/.ollama -p 11434:11434 --name ollama ollama/ollama:0.3
docker run --interactive --tty --rm --network=host --hostname=here --init --memory=1g --cpus=2 \
--entrypoint=/bin/bash --label=team=vision --restart=no huggingface/transformers-pytorch-gpu:4.41
docker run -dti --ipc host --net host --env=A="b c" --device=/dev/null:/dev/fuse \
ubuntu/pytorch:1 sleep 9
"""


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def typed(line: str) -> list[str]:
    """The words behind `docker run`, as the shell would hand them over."""
    words = line.removeprefix("docker run ")
    done = subprocess.run(["sh", "-c", f"printf '%s\\0' {words}"], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


@pytest.fixture
def folder(engine: PrivateEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the person stands, beside the folders that the lines mount."""
    for name in ("model_repository", "my data"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    for name, value in engine.env.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def image_of(line: str) -> str:
    found = re.compile(r"[a-z0-9.]+(/[a-z0-9-]+)+:[\w.-]+").fullmatch
    return next(word for word in typed(line) if found(word))


def with_additions(
    theirs: dict[str, Any],
    name: str,
    ours: dict[str, Any],
    words: list[str],
    engine: PrivateEngine,
) -> dict[str, Any]:
    """What `docker` made, and what gpubox is known to add or to say in other words."""
    made = deepcopy(theirs)
    config, host = made["Config"], made["HostConfig"]
    added = {k: v for k, v in ours["Config"]["Labels"].items() if k.startswith(PREFIX)}
    no_choice = {"claim"} if not any(word.startswith("--gpus") for word in words) else set()
    assert {key.removeprefix(PREFIX) for key in added} == OWN_LABELS | no_choice
    config["Labels"] = {**(config.get("Labels") or {}), **added}
    if host["NetworkMode"] != "host" and not any(w.startswith("--hostname") for w in words):
        config["Hostname"] = name
    if without_detach(words) != words:
        attached = ("AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce")
        config.update(dict.fromkeys(attached, False))
        if ours["Config"]["Labels"]["gpubox.kind"] == "shell":  # or it would end at once
            config.update(Tty=True, OpenStdin=True)
    host["Init"] = True
    if host["IpcMode"] != "host" and not any(word.startswith("--shm-size") for word in words):
        host["ShmSize"] = 8 * 1024**3
    for bindings in (host.get("PortBindings") or {}).values():
        for binding in bindings:
            binding.setdefault("HostIp", LOOPBACK)
    for bind in host.pop("Binds", ()):  # `--mount` makes no folder that is missing
        source, target = bind.split(":")
        kind = "bind" if source.startswith("/") else "volume"
        mount = {"Type": kind, "Source": source, "Target": target.rstrip("/")}
        host.setdefault("Mounts", []).append(mount)
    if capabilities := host.get("CapAdd"):  # as newer engines store them
        host["CapAdd"] = [f"CAP_{name.removeprefix('CAP_')}" for name in capabilities]
    host["DeviceRequests"] = gpu_requests(host.get("DeviceRequests"), engine)
    return made


def gpu_requests(asked: list[dict[str, Any]] | None, engine: PrivateEngine) -> list[dict[str, Any]]:
    """Unless said all GPUs, and by the names that the engine has for them."""
    asked = asked or [{"Count": -1, "Capabilities": [["gpu"]]}]
    if engine.kind == "stable":
        return asked
    wanted = asked[0].get("DeviceIDs") or ["all"]
    return [{"Count": 0, "Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={gpu}" for gpu in wanted]}]


OWN_LABELS = {"profile", "owner", "folder", "kind", "gpus", "version"}


@pytest.mark.parametrize("line", lines(NVIDIAS) + lines(OTHERS))
def test_a_published_line_makes_what_docker_makes_of_it(
    engine: PrivateEngine, client: DockerClient, folder: Path, line: str
) -> None:
    tag(client.api, STAND_IN, (image_of(line),))
    words = typed(line)
    name = words[words.index("--name") + 1] if "--name" in words else "a-box"
    named = words if "--name" in words else ["--name", name, *words]
    done = subprocess.run(
        [engine.docker, "create", *without_detach(named)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    theirs = inspected(client, name)

    with terminal() if "--tty" in words or any(map(_WITH_TTY, words)) else nullcontext():
        answer = gpubox_create(*named)
    assert answer.code == 0, answer.err
    ours = inspected(client, name)
    assert ours == with_additions(theirs, name, ours, words, engine)


_SHORT = re.compile(r"-[itd]+").fullmatch
_WITH_TTY = re.compile(r"-[id]*t[id]*").fullmatch


def without_detach(words: list[str]) -> list[str]:
    """`docker create` has no -d."""
    kept = [word.replace("d", "") if _SHORT(word) else word for word in words]
    return [word for word in kept if word not in ("-", "--detach")]


CUDA = "nvidia/cuda:12.2.0-base-ubuntu22.04"
VLLM = "vllm/vllm-openai:latest --model x/y"
REFUSED = {
    "docker run --gpus=1 --rm --net=host nvcr.io/nvidia/tritonserver:24.01-py3": "device=0, or",
    f"docker run --privileged --gpus all {CUDA}": "--cap-add",
    f"docker run --runtime=nvidia --rm {CUDA} nvidia-smi": "--gpus all",
    f"docker run --runtime nvidia --gpus all {VLLM}": "--gpus all",
    f"docker run --gpus all {VLLM}": "gpubox run vllm/vllm-openai:latest -- --model x/y",
    f"docker run --rm --mount type=bind,source=/a,target=/b {CUDA}": "-v SOURCE:TARGET",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_a_box_does_not_take_is_refused_with_the_way(folder: Path, line: str) -> None:
    answer = gpubox("run", *typed(line))
    assert answer.code == 125
    assert REFUSED[line] in answer.err
    assert answer.err.startswith("gpubox: ") and answer.err.count("\n") <= 2


def test_the_older_way_to_choose_gpus_is_answered_with_the_newer(folder: Path) -> None:
    words = typed(
        "docker run --rm -e NVIDIA_VISIBLE_DEVICES=0,1 nvidia/cuda:12.2.0-base nvidia-smi"
    )
    answer = gpubox("run", "--dry-run", *words)
    assert "write --gpus device=0,1 instead" in answer.err
