"""Every profile of every example: the printed line and gpubox create the same container."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from docker import DockerClient
from msgspec.structs import replace

from gpubox import host
from gpubox.contexts import Endpoint
from gpubox.engine import connect
from gpubox.gpus import Device, Gpu, Machine
from gpubox.holders import join
from gpubox.layers import layers
from gpubox.plan import Ask, Facts, plan
from gpubox.profile import Config
from gpubox.translate import arguments, docker_run
from lab.engine import PrivateEngine
from lab.images import STAND_IN
from lab.inspect import inspected

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def config(example: Path, folder: Path) -> Config:
    caller = host.caller()
    # no more than a small machine has; all host folders are below one that exists
    small = {"BOX_CPUS": "1", "BOX_MEMORY": "64m", "DEMO_MEMORY": "64m", "MEMORY": "64m"}
    places = ("COURSE_DATA", "LAB_DATA", "LAB_SCRATCH", "DATA")
    environ = dict(caller.environ) | small | dict.fromkeys(places, str(folder))
    found, _ = layers(cwd=folder, home=folder, environ=environ, uid=caller.uid, file=example)
    return Config(tuple(found), environ, folder)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_examples_line_creates_what_gpubox_creates(
    engine: PrivateEngine, client: DockerClient, tmp_path: Path, example: Path
) -> None:
    ours = connect(Endpoint(engine.host, "the test"))
    asked = config(example, tmp_path)
    gpus = [Gpu(index=index, uuid=uuid) for index, uuid in enumerate(engine.gpus)]
    devices = [Device(index=str(gpu.index), uuid=gpu.uuid, processes=()) for gpu in gpus]
    facts = Facts(
        caller=host.caller(),
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
