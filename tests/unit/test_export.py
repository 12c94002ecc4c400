"""A box as a file of other tools: what stands in it, what does not, and what is said of that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gpubox.cli import invoke
from gpubox.errors import UsageError
from gpubox.plan.export import compose, devcontainer
from gpubox.plan.facts import Ask, EngineFacts, Facts
from gpubox.plan.plan import Plan, plan
from gpubox.profile.layers import Layer, from_flags, read, write
from gpubox.values import Gpus
from lab import anna
from lab.anna import ANNA, WORK

HERS = replace(ANNA, environ={"INHERITED": "mine"})
CDI = EngineFacts(api=(1, 51), cdi_enabled=True, cdi_devices=("nvidia.com/gpu=0",))


def exported(text: str, *, engine: EngineFacts | None = None, **ask: Any) -> Plan:
    """The profile `p` of a file in the folder of work."""
    own = Layer("gpubox.yaml", read(f"profiles: {{p: {{{text}}}}}", "gpubox.yaml", WORK))
    profile = anna.config(own, environ=HERS.environ).profile("p", from_flags({}, WORK))
    facts = Facts(caller=HERS, engine=engine, printed=True, exported=True)
    return plan(profile, Ask(detach=True, **ask), facts)


def service(text: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = compose(exported(text, **more), str(WORK))["services"]["p"]
    return found


def config(text: str, **more: Any) -> dict[str, Any]:
    return devcontainer(exported(text, **more), str(WORK))


# --- both


def test_an_exported_box_is_nobodys() -> None:
    made = exported("image: a, labels: {b: c}")
    assert (made.name, made.hostname, made.labels) == ("p", None, (("b", "c"),))
    assert exported("image: a, hostname: h", name="mine").name == "mine"
    assert service("image: a, hostname: h")["hostname"] == "h"


def test_a_number_of_gpus_stays_one_and_is_picked_by_nobody() -> None:
    assert exported("image: a, gpus: 2").gpus.gpus == Gpus(count=2)
    assert exported("image: a").gpus.gpus == Gpus(count=1)  # the built-in default, too
    # CDI knows no numbers: the first ones by their names
    assert service("image: a", engine=CDI)["devices"] == ["nvidia.com/gpu=0"]
    assert config("image: a", engine=CDI)["runArgs"][:2] == ["--device", "nvidia.com/gpu=0"]


def test_secrets_are_named_and_a_variable_of_the_callers_is_theirs_who_start_it() -> None:
    text = "image: a, gpus: none, environment: {MY_TOKEN: s3cret, INHERITED: , NOT_HERE: , A: b}"
    assert service(text)["environment"] == [
        "MY_TOKEN=${MY_TOKEN:?set it, or write it into .env}",
        "INHERITED",
        "NOT_HERE",
        "A=b",
        "NVIDIA_VISIBLE_DEVICES=void",
    ]
    # Compose's variables have plain names; it passes others on as they are
    odd = service("image: a, gpus: none, environment: {my.TOKEN: s3cret}")
    assert odd["environment"][0] == "my.TOKEN"
    assert config(text)["containerEnv"] == {
        "MY_TOKEN": "${localEnv:MY_TOKEN}",
        "INHERITED": "${localEnv:INHERITED}",
        "NOT_HERE": "${localEnv:NOT_HERE}",
        "A": "b",
        "NVIDIA_VISIBLE_DEVICES": "void",
    }


def test_paths_in_the_folder_are_seen_from_there_and_others_stay() -> None:
    text = "image: a, volumes: [./in:/in, ../out:/out, '../workbench:/b'], workspace: ."
    assert [it["source"] for it in service(text)["volumes"]] == [
        *("./in", "/home/anna/out", "/home/anna/workbench", "."),
    ]
    made = config(text)
    assert made["workspaceMount"] == "type=bind,source=${localWorkspaceFolder},target=/workspace"
    assert made["workspaceFolder"] == "/workspace"
    assert made["mounts"][0] == "type=bind,source=${localWorkspaceFolder}/in,target=/in"
    assert service("image: a, env_file: ./env")["env_file"] == [{"path": "./env", "format": "raw"}]


# --- Compose


def test_compose_reads_no_variable_into_what_was_meant() -> None:
    made = service("image: a, command: [echo, $$HOME], environment: {A: $$B}, labels: {c: $$d}")
    assert made["command"] == ["echo", "$$HOME"]
    assert (made["environment"][0], made["labels"]) == ("A=$$B", ["c=$$d"])


def test_a_folder_that_is_missing_is_not_made_and_a_volume_keeps_its_name() -> None:
    file = compose(exported("image: a, volumes: [/data:/d:ro, cache:/c, /new]"), str(WORK))
    assert file["services"]["p"]["volumes"] == [
        {
            "type": "bind",
            "source": "/data",
            "target": "/d",
            "read_only": True,
            "bind": {"create_host_path": False},
        },
        {"type": "volume", "source": "cache", "target": "/c"},
        {"type": "volume", "target": "/new"},
    ]
    assert file["volumes"] == {"cache": {"name": "cache"}}


def test_a_shell_stays_open_and_a_command_needs_no_terminal() -> None:
    assert (service("image: a")["tty"], service("image: a")["stdin_open"]) == (True, True)
    assert "tty" not in service("image: a, command: ls")


# --- devcontainer.json


def test_ports_are_forwarded_unless_more_was_said_of_them() -> None:
    text = "image: a, ports: [6006, '8000:80', '53/udp', '0.0.0.0::90']"
    made = config(text)
    assert made["forwardPorts"] == [6006]
    published = [made["runArgs"][at + 1] for at, it in enumerate(made["runArgs"]) if it == "-p"]
    assert published == ["127.0.0.1:8000:80/tcp", "127.0.0.1::53/udp", "0.0.0.0::90/tcp"]


def test_a_user_by_number_is_that_number() -> None:
    assert config("image: a, user: host")["containerUser"] == "1000:1000"
    assert config("image: a, user: host")["updateRemoteUserUID"] is False
    assert config("image: a, user: jovyan")["containerUser"] == "jovyan"
    assert "updateRemoteUserUID" not in config("image: a, user: jovyan")


def test_the_folder_that_an_editor_opens_is_where_the_command_would_start() -> None:
    made = config("image: a, volumes: ['.:/src', './deep:/src/deep'], working_dir: /src/x")
    assert made["workspaceMount"].endswith("target=/src")
    assert (made["workspaceFolder"], len(made["mounts"])) == ("/src/x", 1)
    assert "workspaceMount" not in config("image: a, volumes: ['.:/src'], working_dir: /tmp")


def test_a_gpu_of_this_machine_alone_is_for_no_devcontainer() -> None:
    with pytest.raises(UsageError, match="GPU-1 is a GPU of one machine"):
        config("image: a, gpus: GPU-1")
    assert "GPU-1" in str(service("image: a, gpus: GPU-1"))


# --- what is said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "compose --gpus 2 --rm a/b",
            [
                "docker compose takes the first 2 GPUs, whoever has them:"
                " only gpubox looks who does, and keeps others away",
                "not in the file: --rm; docker compose run --rm removes, and docker compose down",
            ],
        ),
        (
            "compose --gpus none -v .:/x -e MY_TOKEN=s3cret a/b",
            [
                "not shown: MY_TOKEN; set it before the file is used",
                "paths that begin with . are seen from the file: keep it in {cwd}",
            ],
        ),
        (
            "devcontainer --gpus device=1 a/b ls",
            [
                "an editor takes GPU 1, whoever has it:"
                " only gpubox looks who does, and keeps others away",
                "not in the file: what runs in the box; an editor keeps it open and gives a shell",
                "an editor mounts its folder below /workspaces; --workspace . says otherwise",
            ],
        ),
    ],
)
def test_what_a_file_cannot_say_is_told(
    words: str,
    said: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    assert invoke(["export", *words.split()]) == 0
    out, err = capsys.readouterr()
    told = [line for line in err.splitlines() if not line.startswith("assumed: ")]
    assert told == [sentence.format(cwd=tmp_path) for sentence in said]
    assert "s3cret" not in out
    if words.startswith("compose"):
        comments = [line.removeprefix("# ") for line in out.splitlines() if line[0] == "#"]
        assert comments[0] == "the profile a/b of gpubox, by gpubox export compose"
        assert comments[1:] == [it for it in said if "takes" in it]
        assert yaml.safe_load(out)["services"]["b"]["image"] == "a/b"
    else:
        assert json.loads(out)["image"] == "a/b"


# --- YAML that all read alike


@given(st.text(st.sampled_from("aZ09yeox.-+:=_~ #'\"\\\n\t%@!&*{}[],|>?<$/é🙂")))
def test_a_text_stays_what_it_is(text: str) -> None:
    assert yaml.safe_load(write({text or "k": [text]})) == {text or "k": [text]}


@pytest.mark.parametrize(
    "text", ["0o7", "1e3", "0x1F", "1_000", ".5", "+1", "on", "null", "22:22", "2001-01-01", "~"]
)
def test_what_some_reader_takes_for_more_than_a_text_is_quoted(text: str) -> None:
    assert write({"a": text}) in (f'a: "{text}"\n', f"a: '{text}'\n")


def test_a_plain_word_stands_as_it_is() -> None:
    assert write({"b": "plain/word:1.0", "c": ["./x"]}) == "b: plain/word:1.0\nc:\n  - ./x\n"
