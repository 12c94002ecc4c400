"""TAB in the three shells, in a person's window: what the line becomes, and what is shown."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.engine import PrivateEngine
from lab.images import STAND_IN
from lab.nvml import Machine
from lab.program import Gpubox
from lab.tmux import SHELLS, Window, window
from lab.waiting import PATIENCE
from lab.workstation import MACHINE, SOMEBODY, Workstation

COMPINIT = "autoload -Uz compinit; compinit -u -D"
FOR_ONESELF = {
    "bash": 'eval "$(gpubox completion bash)"',
    "zsh": f'{COMPINIT}; eval "$(gpubox completion zsh)"',
    "fish": "gpubox completion fish | source",
}
# Where a shell looks in the tests' own home, and what it must be told for that.
FOR_EVERYBODY = {
    "bash": ("bash_completion.d/gpubox", "source {}/gpubox"),
    "zsh": ("site-functions/_gpubox", f"fpath=({{}} $fpath); {COMPINIT}"),
    "fish": (".config/fish/completions/gpubox.fish", ""),
}
CLEAR = "\x15\x0c"  # the line, then the screen
PROJECT = """
datasets: {imagenet: /data/imagenet}
profiles:
  train: {extends: pytorch, description: "ours: resnets"}
"""


@contextmanager
def at_prompt(gpubox: Gpubox, shell: str, setting: str) -> Iterator[Window]:
    env = gpubox.env | {"PATH": f"{gpubox.program.parent}:{gpubox.env['PATH']}"}
    with window(gpubox.home.parent / shell, env, gpubox.cwd, setting, shell) as person:
        person.shows("[0]$")
        yield person


def completes(person: Window, typed: str, line: str) -> None:
    """TAB makes this line of what was typed, and nothing else is seen; the next key stands at its
    end."""
    person.type(f"{CLEAR}{typed}\t")
    if line != typed:
        person.shows(f"[0]$ {line}".rstrip())
    person.type("#")
    person.fulfils(lambda lines: lines[0] == f"[0]$ {line}#" and not any(lines[1:]), line)


def lists(person: Window, typed: str, *words: str) -> None:
    person.type(f"{CLEAR}{typed}\t\t")
    person.fulfils(lambda lines: all(word in "\n".join(lines) for word in words), str(words))


@pytest.fixture
def silent_engine() -> Iterator[str]:
    """The address of one that takes questions and answers none."""
    with (
        tempfile.TemporaryDirectory(prefix="gpubox") as folder,
        socket.socket(socket.AF_UNIX) as it,
    ):
        it.bind(f"{folder}/s")
        it.listen()
        yield f"unix://{folder}/s"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_line_is_completed_without_an_engine(
    tmp_path: Path, silent_engine: str, shell: str
) -> None:
    gpubox = Gpubox(tmp_path, {"DOCKER_HOST": silent_engine})
    (gpubox.cwd / "gpubox.yaml").write_text(PROJECT)
    (gpubox.home / "lab.yaml").write_text("profiles: {tool: {extends: tensorflow}}")
    for folder in ("data/imagenet", "data/my pictures", "broken"):
        (gpubox.cwd / folder).mkdir(parents=True)
    (gpubox.cwd / "broken/gpubox.yaml").write_text("profiles: [")
    with at_prompt(gpubox, shell, FOR_ONESELF[shell]) as person:
        for typed, line in (
            ("gpubox prof", "gpubox profiles "),
            ("gpubox run --shm", "gpubox run --shm-size "),
            ("gpubox run --pull al", "gpubox run --pull always "),
            ("gpubox run --ipc=sh", "gpubox run --ipc=shareable "),
            ("gpubox run tra", "gpubox run train "),
            ("echo; FOO=1 gpubox run -it 'tra", "echo; FOO=1 gpubox run -it 'train' "),
            ("gpubox -f ~/lab.yaml run to", "gpubox -f ~/lab.yaml run tool "),
            ("gpubox mount im", "gpubox mount imagenet "),
            ("gpubox mount data/im", "gpubox mount data/imagenet/"),
            ("gpubox mount data/:/my im", "gpubox mount data/:/my imagenet "),
            ("gpubox run -v data/m", "gpubox run -v data/my\\ pictures/"),
            ("gpubox run --volume=data/im", "gpubox run --volume=data/imagenet/"),
            ("gpubox run -v data:/da", "gpubox run -v data:/da"),
            ("gpubox run train gpub", "gpubox run train gpubox.yaml "),
            ("gpubox run train --gp", "gpubox run train --gp"),
            ("gpubox nonsense tra", "gpubox nonsense tra"),
            ("gpubox move tra", "gpubox move tra"),
            ("gpubox run nvidia/c", "gpubox run nvidia/c"),
        ):
            completes(person, typed, line)
        shown = (
            () if shell == "bash" else ("CUDA 13 with cuDNN 9, for Turing", "the newest CUDA 11")
        )
        lists(person, "gpubox run cuda1", "cuda13", "cuda12", "cuda11", *shown)
        if shell != "bash":
            lists(person, "gpubox run t", "ours: resnets")
        person.type(f"{CLEAR}cd broken\r")
        completes(person, "gpubox run tra", "gpubox run tra")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_line_is_completed_with_the_engines_boxes_images_and_gpus(
    stable_engine: PrivateEngine,
    gpubox: Gpubox,
    nvml: Callable[[Machine], dict[str, str]],
    shell: str,
) -> None:
    gpubox.allow("gpubox.engine.glance", _ANSWER_SECONDS=PATIENCE)
    lab = Workstation(stable_engine, gpubox, nvml)
    lab.box("--gpus", "device=0", "--name", "mine-runs")
    lab.box("--gpus", "none", "--name", "mine-rests")
    lab.box("--gpus", "device=2", "--name", "theirs", uid=SOMEBODY)
    lab.docker("stop", "--time", "0", "mine-rests")
    lab.docker("tag", STAND_IN, "team/net:v1.2")
    place, setting = FOR_EVERYBODY[shell]
    path = gpubox.home / place
    path.parent.mkdir(parents=True)
    path.write_bytes(gpubox("completion", shell).stdout)
    uuid = MACHINE.cards[0].uuid
    with at_prompt(gpubox, shell, setting.format(path.parent)) as person:
        for typed, line in (
            ("gpubox move ", "gpubox move mine-r"),
            ("gpubox move mine-ru", "gpubox move mine-runs "),
            ("gpubox move th", "gpubox move theirs "),
            ("gpubox stop mine-runs mine-r", "gpubox stop mine-runs mine-rests "),
            ("gpubox enter mine-ru", "gpubox enter mine-runs "),
            ("gpubox move --owner nobody ", "gpubox move --owner nobody theirs "),
            ("gpubox run te", "gpubox run tensorflow "),
            ("gpubox run team", "gpubox run team/net:v1.2 "),
            ("gpubox run team/net:v", "gpubox run team/net:v1.2 "),
            ('gpubox pull "team/net:v', 'gpubox pull "team/net:v1.2" '),
            ("gpubox run --gpus=al", "gpubox run --gpus=all "),
            ("gpubox run --gpus=device=0,2,1,", "gpubox run --gpus=device=0,2,1,3 "),
            (f"gpubox run --gpus {uuid[:9]}", f"gpubox run --gpus {uuid} "),
        ):
            completes(person, typed, line)
        gpus = [f"device={index}" for index in range(4)]
        lists(person, "gpubox run --gpus ", "all", "none", *gpus)
        if shell != "bash":
            model = "GeForce GTX 1080 Ti"
            lists(person, "gpubox run --gpus dev", f"{model}, mine", f"{model}, held by nobody")
            lists(person, "gpubox move ", "running", "stopped")
    lab.docker("rmi", "team/net:v1.2")
