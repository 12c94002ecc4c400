"""Draw the README's pictures, docs/*.svg: what a person at a terminal sees of real runs of gpubox.

Beside the tests' own engine, with SIMULATED GPUs; the images are stand-ins, Jupyter in one is real.
In a mount namespace, for in there alone anna, bob and carol are users of this machine:
    sudo PYTHONPATH=tests .lab/venv/bin/python scripts/pictures.py
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
from rich.console import Console
from rich.text import Text

from lab.debian import DEBIAN, import_debian
from lab.engine import PrivateEngine
from lab.jupyter import build_jupyter
from lab.nvml import GIB, Card, Libraries, Machine, Process, gtx_1080_ti, write
from lab.program import clean
from lab.tmux import Window, window

DOCS = Path(__file__).parents[1] / "docs"
PEOPLE = {"anna": 1000, "bob": 1001, "carol": 1002}
COLUMNS, ROWS = 116, 40
MODEL = "NVIDIA GeForce RTX 4090"
PYTORCH = "pytorch/pytorch:2.8.0-cuda12.6-cudnn9-runtime"
NOTEBOOK = "quay.io/jupyter/pytorch-notebook:cuda12-latest"
# It begins as PyTorch's own does: bash in /workspace.
STAND_IN = f'FROM {DEBIAN}\nWORKDIR /workspace\nCMD ["bash"]\n'
# Rich names one from elsewhere; a page that shows the picture would not fetch it.
FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
INSIDE = "root@pytorch-anna:/workspace#"
# A passwd and a group with the people in it, and a /home that keeps nothing.
OWN_PEOPLE = """
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay overlay -o lowerdir=/home,upperdir=/mnt/upper,workdir=/mnt/work /home
for file in passwd group; do
    { printf '%s\\n' "${!file}"; cat /etc/$file; } >/mnt/$file
    mount --bind /mnt/$file /etc/$file
done
exec "$@"
"""


# --- the scenes, one after the other on the same machine


def run(stage: Stage) -> str:
    with stage.window("anna", "mnist") as person:
        type_(person, "gpubox run", INSIDE)
        type_(person, "nvidia-smi -L", INSIDE)
        type_(person, "echo 'lr = 3e-4 is too much' >notes.txt", INSIDE)
        type_(person, "exit", "anna@gpu1:~/mnist$")
        type_(person, "gpubox enter", INSIDE)
        type_(person, "cat notes.txt", INSIDE)
        return seen(person)


def gpus(stage: Stage) -> str:
    with stage.window("anna", "mnist") as person:
        type_(person, "gpubox gpus", "anna@gpu1:~/mnist$")
        return seen(person)


def jupyter(stage: Stage) -> str:
    with stage.window("anna", "lecture", SSH_CONNECTION="10.0.0.5 50000 10.0.0.7 22") as person:
        type_(person, "gpubox jupyter -d", "anna@gpu1:~/lecture$")
        return seen(person)


def type_(person: Window, line: str, prompt: str) -> None:
    """Type a line, and wait as a person does: for what comes of it, and a prompt below."""
    person.resize(ROWS, COLUMNS)
    person.type(line)
    person.fulfils(lambda lines: last(lines).endswith(line), repr(line))
    before = person.lines()
    person.type("\r")
    person.fulfils(lambda lines: lines != before and last(lines) == prompt, f"end of {line!r}")


def last(lines: list[str]) -> str:
    return next((line for line in reversed(lines) if line), "")


def seen(person: Window) -> str:
    """The screen in colours, without the prompt that waits."""
    return person.look().rpartition("cursor at")[0].rstrip().rpartition("\n")[0]


# --- the stage


class Stage:
    """A machine with four GPUs and a private engine, and the people in front of it."""

    def __init__(self, engine: PrivateEngine, folder: Path) -> None:
        self._folder, self._simulated = folder, folder / "machine"
        cards = tuple(modern(card) for card in gtx_1080_ti(len(engine.gpus)))
        self._machine = Machine(driver="580.65.06", cuda=(13, 0), cards=cards)
        found = Libraries(folder).serve(self._machine, self._simulated)
        surroundings = {"TERM": "xterm-256color", "LANG": "C.UTF-8"}
        self._env = clean(os.environ) | engine.env | found | surroundings
        self._env["PATH"] = f"{Path(sys.executable).parent}:{self._env['PATH']}"
        for name in PEOPLE:
            self.does(name, "sh", "-c", "mkdir -p .config/gpubox mnist lecture")
            self.does(name, "sh", "-c", "echo ssh_host: gpu1.lab >.config/gpubox/config.yaml")

    def window(self, name: str, folder: str, **env: str) -> AbstractContextManager[Window]:
        """A shell of this person's, in a folder of theirs."""
        here = Path(tempfile.mkdtemp(dir=self._folder))
        here.chmod(0o755)
        (here / "rc").write_text(f"PS1='\\[\\e[1;32m\\]{name}@gpu1\\[\\e[0m\\]:\\w$ '; clear\n")
        shell = ("bash", "--noprofile", "--rcfile", str(here / "rc"), "-i")
        become = f"exec {shlex.join((*as_(name), *shell))}"
        return window(here / "tmux", self._env | env, Path("/home") / name / folder, become)

    def does(self, name: str, *words: str) -> None:
        """Somebody starts something, unseen."""
        home = Path("/home") / name
        home.mkdir(exist_ok=True)
        os.chown(home, PEOPLE[name], PEOPLE[name])
        done = subprocess.run([*as_(name), *words], env=self._env, cwd=home, capture_output=True)
        assert done.returncode == 0, done.stderr

    def computes(self, container: str, index: int, memory: int) -> None:
        """The first process of a container is at work on this GPU from now on."""
        processes = (Process(self._pid(container), memory),)
        self._machine = self._machine.with_card(
            index, used=memory, utilization=(93, 40), temperature=71, processes=processes
        )
        write(self._machine, self._simulated)

    def _pid(self, container: str) -> int:
        words = ("docker", "inspect", "-f", "{{.Id}}", container)
        name = subprocess.check_output(words, env=self._env, text=True).strip()
        grep = f"grep -l {name} /proc/[0-9]*/cgroup | head -1"
        found = subprocess.check_output(("sh", "-c", grep), text=True)
        return int(found.split("/")[2])


def modern(card: Card) -> Card:
    return replace(card, name=MODEL, memory=24564 << 20, capability=(8, 9), temperature=34)


def as_(name: str) -> tuple[str, ...]:
    """What makes a command this person's; they may read what root may, where gpubox lies."""
    ids = ("--reuid", name, "--regid", name, "--init-groups")
    reads = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    return ("setpriv", *ids, *reads, "env", f"HOME=/home/{name}", f"USER={name}")


def build_images(host: str) -> None:
    build_jupyter(host, NOTEBOOK)
    import_debian(host)
    api: Any = docker.APIClient(base_url=host, version="auto")
    for event in api.build(fileobj=io.BytesIO(STAND_IN.encode()), tag=PYTORCH, decode=True):
        assert "error" not in event, event


# --- the drawing


def draw(name: str, screen: str) -> None:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(screen), soft_wrap=True)
    svg = FONT.sub("", console.export_svg(title="", unique_id=name))
    (DOCS / f"{name}.svg").write_text(svg, "utf-8")


def main() -> int:
    if "GPUBOX_PICTURES" not in os.environ:
        return in_a_namespace()
    engine = PrivateEngine(group="docker")
    engine.simulated = tuple(replace(gpu, name=MODEL) for gpu in engine.simulated)
    with tempfile.TemporaryDirectory() as folder, engine:
        Path(folder).chmod(0o755)
        build_images(engine.host)
        stage = Stage(engine, Path(folder))
        for name, index, memory in (("bob", 0, 17 * GIB), ("carol", 2, 9 * GIB)):
            gpu = f"device={index}"
            stage.does(name, "gpubox", "run", "-d", "--gpus", gpu, "pytorch", "sleep", "600")
            stage.computes(f"pytorch-{name}", index, memory)
        for scene in (run, gpus, jupyter):
            draw(scene.__name__, scene(stage))
    return 0


def in_a_namespace() -> int:
    people = PEOPLE.items()
    passwd = [f"{name}:x:{uid}:{uid}::/home/{name}:/bin/bash" for name, uid in people]
    group = [f"docker:x:998:{','.join(PEOPLE)}", *(f"{name}:x:{uid}:" for name, uid in people)]
    env = {"passwd": "\n".join(passwd), "group": "\n".join(group), "GPUBOX_PICTURES": "1"}
    words = ("unshare", "--mount", "bash", "-euc", OWN_PEOPLE, "bash", sys.executable, __file__)
    return subprocess.run(words, env=os.environ | env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
