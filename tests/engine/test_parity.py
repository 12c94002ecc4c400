"""The printed line, given to the real `docker` program, makes the box that gpubox makes."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from docker import DockerClient

from gpubox.cli import run
from gpubox.cli.app import flags
from gpubox.profile.settings import SETTINGS, Setting
from lab.engine import PrivateEngine
from lab.inspect import inspected
from lab.program import Gpubox

IMAGE = "nvidia/cuda:8.0-cudnn5-devel"

# Each line is what stands between `gpubox run` and the profile; DATA is a folder that exists.
OPTIONS = """
--gpus none
--gpus all
--gpus device=1
--gpus 0,2
--gpus device=3
--gpus GPU0
--rm --gpus none
--shm-size 64m
--shm-size 1.5g
--ipc host
--ipc private
--ulimit memlock=65536
--ulimit nofile=1024:2048 --ulimit stack=67108864
-m 64m
--memory 512m --cpus 1.5
--cpus .5
--network host
--network none
--hostname head
--network host --hostname head
--restart unless-stopped
--restart on-failure:3
--init
--no-init
-e A=1
-e A=1 -e A=2 -e EMPTY= -e WITH=a=b
-e INHERITED -e NOT_SET
-e MY_TOKEN=secret
--env-file DATA/env
--env-file DATA/env -e FROM_FILE=over
-u nobody
-u 1000:1000
-w /tmp
--entrypoint /bin/echo
--entrypoint ''
--label a=b --label bare
--label a.b.c='with space'
-p 18080:80
-p 80
-p 127.0.0.1:18081:81/udp
-p 0.0.0.0:18082:82 -p 18083-18084:83-84
-p 18090-18095:90
-v DATA:/data
-v DATA:/data:ro
-v DATA:/data:z
-v DATA:/data:ro,Z -v DATA:/other
-v DATA:/data:rprivate
-v DATA:/data:cached
-v named-volume:/v
-v named-volume:/v:ro,nocopy
-v /anonymous
-v DATA:/a -v DATA:/b:ro
--workspace DATA
--workspace DATA:/home/work -w /tmp
--dataset pictures --dataset sound:/s:ro
--cap-add SYS_PTRACE --cap-add NET_ADMIN
--security-opt seccomp=unconfined
--security-opt no-new-privileges
--security-opt seccomp=DATA/seccomp.json
--security-opt seccomp:DATA/seccomp.json
--security-opt systempaths=unconfined --security-opt no-new-privileges
--device /dev/null:/dev/zero2
--device /dev/null --device /dev/full:/dev/full2:r
--pull never
--name chosen-name
--gpus 1,3 -p 127.0.0.1:18100:8888 -v DATA:/data:ro -e A=b --shm-size 1g --ipc shareable
""".strip().splitlines()

COMMANDS = ("", "true", "sh -c 'exit 0'", "echo 'a b' \"c'd\" '$HOME' ''")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "with space, comma"
    folder.mkdir()
    (folder / "env").write_text("# comment\n\nFROM_FILE=1 2\nQUOTED='x'\nINHERITED\nUNSET_ONE\n")
    rule = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    (folder / "seccomp.json").write_text(json.dumps(rule))
    return folder


def given(options: str, data: Path, engine: PrivateEngine) -> list[str]:
    words = shlex.split(options.replace("GPU0", engine.gpus[0]))
    return [word.replace("DATA", str(data)) for word in words]


def docker(engine: PrivateEngine, *words: str, **environment: str) -> str:
    done = subprocess.run(
        [engine.docker, *words],
        env=engine.environ() | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
    return done.stdout


def settings_in(options: str) -> set[str]:
    """The settings that these words say, as the program itself reads them."""
    with run.run_command.make_context("run", shlex.split(options)) as context:
        return set(flags(context.params))


@pytest.mark.parametrize(
    "setting", [each for each in SETTINGS if each.flag], ids=lambda setting: setting.key
)
def test_every_setting_with_a_flag_has_a_line_of_its_own(setting: Setting) -> None:
    said = [settings_in(options) for options in OPTIONS]
    assert any(keys in ({setting.key}, {setting.key, "gpus"}) for keys in said)


@pytest.mark.parametrize("detached", [True, False], ids=["detached", "foreground"])
@pytest.mark.parametrize("options", OPTIONS)
def test_the_printed_line_makes_the_same_box(
    engine: PrivateEngine,
    client: DockerClient,
    gpubox: Gpubox,
    data: Path,
    options: str,
    detached: bool,
) -> None:
    number = OPTIONS.index(options)
    words = given(options, data, engine)
    if detached and "--rm" in words:
        command = ["sleep", "60"]
    else:
        command = shlex.split(COMMANDS[number % len(COMMANDS)])
    if not detached and "--rm" in words:
        words.remove("--rm")  # nothing would be left to look at
    if "--entrypoint" in words:
        command = ["/bin/true"]
    datasets = {"pictures": f"{data}:/pictures", "sound": f"{data}:/sound:rw"}
    (gpubox.cwd / "gpubox.yaml").write_text(json.dumps({"datasets": datasets}))
    run = ["run", *(["-d"] if detached else []), *words]
    secrets = {"INHERITED": "from the caller", "MY_TOKEN": "secret"}
    line = gpubox(*run, "--dry-run", "cuda8-cudnn5", *command, env=secrets)
    assert line.returncode == 0, line.stderr
    printed = shlex.split(line.stdout.decode())
    assert printed[:2] == ["docker", "run"]
    name = printed[printed.index("--name") + 1]
    if not detached:
        printed[1] = "create"

    docker(engine, *printed[1:], **secrets)
    theirs = inspected(client, name)

    ours = gpubox(*run, "cuda8-cudnn5", *command, env=secrets)
    assert ours.returncode in ((0,) if detached else (0, 1)), ours.stderr
    assert inspected(client, name) == theirs
