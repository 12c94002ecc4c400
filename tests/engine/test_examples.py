"""The examples and the README's sessions: they run, and say what is written there.

Of every profile the printed line and gpubox create the same container, too.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace as changed
from pathlib import Path
from urllib.request import urlopen

import pytest
from docker import DockerClient
from msgspec.structs import replace

from gpubox.engine.contexts import Endpoint
from gpubox.engine.engine import connect
from gpubox.gpus.holders import join
from gpubox.gpus.machine import Device, Gpu, Machine
from gpubox.host.caller import caller as who
from gpubox.plan.facts import Ask, Facts
from gpubox.plan.plan import plan
from gpubox.plan.translate import arguments, docker_run
from gpubox.profile.config import Config
from gpubox.profile.layers import read_all
from lab.engine import PrivateEngine
from lab.images import STAND_IN
from lab.inspect import inspected
from lab.nvml import Machine as Simulated
from lab.person import at_window
from lab.program import Gpubox
from lab.waiting import PATIENCE
from lab.workstation import MACHINE, Workstation

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples"
EXAMPLES = sorted(FOLDER.glob("*.yaml"))


def config(example: Path, folder: Path) -> Config:
    caller = who()
    # no more than a small machine has; all host folders are below one that exists
    small = {"BOX_CPUS": "1", "BOX_MEMORY": "64m", "DEMO_MEMORY": "64m", "MEMORY": "64m"}
    places = ("COURSE_DATA", "LAB_DATA", "LAB_SCRATCH", "DATA")
    environ = dict(caller.environ) | small | dict.fromkeys(places, str(folder))
    found = read_all(cwd=folder, home=folder, environ=environ, uid=caller.uid, file=example)
    return Config(tuple(found.layers), environ, folder)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_examples_line_creates_what_gpubox_creates(
    engine: PrivateEngine, client: DockerClient, tmp_path: Path, example: Path
) -> None:
    ours = connect(Endpoint(engine.host, "the test"))
    asked = config(example, tmp_path)
    gpus = [Gpu(index=index, uuid=uuid) for index, uuid in enumerate(engine.gpus)]
    devices = [Device(index=str(gpu.index), uuid=gpu.uuid, processes=()) for gpu in gpus]
    facts = Facts(
        caller=who(),
        engine=ours.facts(),
        machine=Machine("580.65.06", (13, 0), tuple(gpus)),
        holdings=join(devices, (), {}, "nobody"),
    )
    for name in asked.names():
        planned = plan(asked.profile(name), Ask(), facts)
        for mount in planned.folders():
            Path(mount.source or "").mkdir(parents=True, exist_ok=True)
        # the stand-in plays every image
        planned = replace(planned, image=STAND_IN)
        words = [word for group in docker_run(planned) for word in group]
        subprocess.run(
            [engine.docker, "create", *words[2:]],
            env=engine.environ(),
            check=True,
            capture_output=True,
        )
        theirs = inspected(client, planned.name)
        ours.create(arguments(planned), pytest.fail)
        assert inspected(client, planned.name) == theirs, name


# As people run them ----------------------------------------------------------------------------


@pytest.fixture
def lab(
    stable_engine: PrivateEngine, gpubox: Gpubox, nvml: Callable[[Simulated], dict[str, str]]
) -> Workstation:
    """A small machine; the stand-in plays PyTorch's image there, and one folder has all data."""
    settings = gpubox.home / ".config/gpubox/config.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"profiles: {{pytorch: {{image: {STAND_IN}}}}}")
    for dataset in ("imagenet", "cifar10", "shared"):
        (gpubox.cwd / dataset).mkdir()
    places = ("COURSE_DATA", "LAB_DATA", "LAB_SCRATCH", "DATA")
    gpubox.env |= dict.fromkeys(places, str(gpubox.cwd)) | {"BOX_CPUS": "1", "BOX_MEMORY": "64m"}
    gpubox.env |= {"MEMORY": "64m", "USER": "shared"}
    gpubox.env["PATH"] = f"{gpubox.program.parent}:{gpubox.env['PATH']}"
    return Workstation(stable_engine, gpubox, nvml)


@pytest.mark.parametrize(
    ("example", "profile", "gpus", "folder"),
    [
        ("cuda8-legacy", "legacy", 1, "/workspace"),
        ("pytorch-train", "train", 2, "/data/imagenet"),
        ("lab-wide", "pytorch", 1, "/scratch"),
    ],
)
def test_an_example_runs(
    lab: Workstation, example: str, profile: str, gpus: int, folder: str
) -> None:
    see = f"nvidia-smi -L; ls -d {folder}"
    allowed = ("--ulimit", "memlock=65536")  # a test's engine may be no more than that
    words = ("--file", FOLDER / f"{example}.yaml", "run", "--rm", *allowed, profile)
    done = lab.gpubox(*words, "sh", "-c", see)
    assert done.returncode == 0, done.stderr
    *listed, last = done.stdout.decode().splitlines()
    assert (len(listed), last) == (gpus, folder)


def test_a_class_shares_a_gpu_and_stops_when_the_hour_is_over(lab: Workstation) -> None:
    lab.on(changed(MACHINE, cards=MACHINE.cards[:1]))

    def said(*words: str) -> tuple[int, str]:
        done = lab.gpubox("--file", FOLDER / "class.yaml", *words)
        return done.returncode, done.stdout.decode()

    pupils = [said("run", "-d", "exercise", "sleep", "600")[1].strip() for _ in range(2)]
    lecturer = said("run", "-d", "--share", "--gpus", "device=0", "cpu", "sleep", "600")[1].strip()
    assert said("run", "-d", "project", "true") == (125, "")  # of one's own: nobody may be on it
    assert sorted(said("ps", "-q")[1].split()) == sorted([*pupils, lecturer])
    assert said("stop", "-t", "0", "--profile", "exercise")[0] == 0
    assert said("ps", "-q")[1].split() == [lecturer]


def test_a_notebook_with_tensorflow_opens(lab: Workstation, jupyter_image: str) -> None:
    text = (FOLDER / "tensorflow-jupyter.yaml").read_text("utf-8")
    file = lab.gpubox.cwd / "gpubox.yaml"
    file.write_text(text.replace("tensorflow/tensorflow:2.17.0-gpu-jupyter", jupyter_image))
    done = lab.gpubox("jupyter", "-d")
    assert done.returncode == 0, done.stderr
    with urlopen(done.stdout.decode().strip(), timeout=PATIENCE) as answer:
        assert answer.status == 200
    assert b"->6006/tcp" in lab.gpubox("ps").stdout


def test_a_ci_job_ends_as_its_tests_do_and_keeps_the_report(
    lab: Workstation, client: DockerClient
) -> None:
    tests = "echo '<testsuite/>' >/report/junit.xml; tty; exit 3"

    def job(**env: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["bash", FOLDER / "ci-job.sh", "sh", "-c", tests],
            env=lab.gpubox.env | env,
            cwd=lab.gpubox.cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    done = job()
    assert (done.returncode, done.stdout) == (3, b"not a tty\n"), done.stderr
    assert (lab.gpubox.cwd / "report/junit.xml").read_text() == "<testsuite/>\n"
    assert client.containers.list(all=True) == []
    lab.box("--gpus", "all")
    done = job(WAIT_FOR="1s")
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"none of 4 is free: GPU 0 mine" in done.stderr


def test_the_readmes_sessions_are_what_gpubox_says(lab: Workstation) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    sessions = re.findall(r"^\$ gpubox (.*)\n((?:[^$`].*\n)*)", readme, re.MULTILINE)
    assert len(sessions) >= 2
    with at_window(lab.gpubox) as person:
        person.resize(50, 300)
        for number, (line, written) in enumerate(sessions):
            person.type(f"clear; gpubox {line}; echo end {number}\r")
            lines = person.shows(f"end {number}")
            said = "".join(f"{text}\n" for text in lines[: lines.index(f"end {number}")])
            said = said.replace(str(lab.gpubox.cwd), "/home/anna/work").replace("root", "anna")
            assert said == written, line
