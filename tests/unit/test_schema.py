"""The JSON Schema against the parser: what editors take is what gpubox takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from hypothesis import given
from jsonschema import Draft7Validator

from gpubox.cli import invoke
from gpubox.errors import GpuboxError
from gpubox.profile.config import TOP_LEVEL
from gpubox.profile.layers import interpolate, read
from gpubox.profile.schema import schema
from gpubox.profile.settings import BY_KEY, SETTINGS, Setting
from lab.spellings import SPELLINGS, Spelling, searched

ROOT = Path(__file__).parents[2]
SHIPPED = sorted([*(ROOT / "examples").glob("*.yaml"), *(ROOT / "src/gpubox").glob("*.yaml")])
FILE = Draft7Validator(schema())
PROFILE = schema()["definitions"]["profile"]["properties"]


class Core(yaml.SafeLoader):
    """YAML 1.2's scalars, as editors read them: `on` and `22:22` are words."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]


for tag, pattern in (
    ("null", "~|null|"),
    ("bool", "true|false|True|False"),
    ("int", r"[-+]?\d+"),
    ("float", r"[-+]?\d*\.\d+"),
):
    Core.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), None)


def written(text: str) -> Any:
    return yaml.load(text, Loader=Core)


def complaints(document: Any) -> list[str]:
    return [error.message for error in FILE.iter_errors(document)]


def test_the_schema_is_one() -> None:
    Draft7Validator.check_schema(schema())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_file_that_gpubox_ships_fits(path: Path) -> None:
    assert complaints(written(path.read_text("utf-8"))) == []


def test_every_key_is_in_it_with_what_it_means() -> None:
    assert {key: part["description"] for key, part in PROFILE.items()} == {
        setting.key: setting.help for setting in SETTINGS
    }
    top = schema()["properties"]
    assert {key: part["description"] for key, part in top.items()} == TOP_LEVEL
    assert set(top["defaults"]["properties"]) == set(PROFILE) - {"extends"}


@pytest.mark.parametrize(
    "text",
    [
        "profils: {}",
        "services: {p: {}}",
        "profiles: {p: {imge: a}}",
        "profiles: {p: {image: a, deploy: {}}}",
        "profiles: {p: {image: a, privileged: true}}",
        "profiles: {'a b': {image: a}}",
        "profiles: {p: text}",
        "profiles: [p]",
        "defaults: {extends: b}",
        "datasets: {d: [a]}",
        "default: [p]",
    ],
)
def test_a_wrong_key_or_shape_is_told_by_editors(text: str) -> None:
    assert complaints(written(text))


def test_what_files_may_leave_empty_or_have_besides_fits() -> None:
    text = "{default: null, profiles: {p: }, defaults: , datasets: {d: }, x-mine: [{a: &b 1}]}"
    assert complaints(written(text)) == []


def parsed(setting: Setting, value: Any) -> bool:
    """Whether the parser takes it."""
    text = yaml.safe_dump({setting.key: value}, allow_unicode=True)
    said = interpolate(read(text, "x.yaml", Path("/base"))[setting.key], {"HOME": "/home/anna"})
    try:
        if said.value is not None:
            setting.parse(said)
    except GpuboxError:
        return False
    return True


def fits(key: str, value: Any) -> bool:
    return not complaints({"profiles": {"p": {key: value}}})


# By key: what is right and what is wrong in ways that a schema can know.
RIGHT: dict[str, list[Any]] = {
    "image": [["a:1", "b/c"], "${IMAGE:-a}"],
    "cuda": ["auto", 12, 12.4, "12.4.1"],
    "cudnn": ["auto", 9],
    "flavor": ["base", "${FLAVOR:-devel}"],
    "pull_policy": ["never", "if_not_present", "${PULL:-always}"],
    "gpus": [
        *(2, "all", "none", "0,2", "device=0:1", "GPU-6af1", [0, "1"], ["MIG-1"], {"count": 1}),
        *({"count": "all"}, {"device_ids": [0, 2], "share": True}, {"count": 1, "share": False}),
    ],
    "environment": [{"A": 1, "B": True, "C": None, "D": "x"}, ["A=1", "B"]],
    "ports": [
        *(80, "80", "8080:80/UDP", "[::1]:8080:80", "127.0.0.1::80", "8000-8001:80-81"),
        [{"target": 80, "published": "8000-8010", "host_ip": "::1", "protocol": "tcp"}, 6006],
        [{"target": 80, "mode": "host", "name": "web"}, {"target": 81, "mode": "ingress"}],
    ],
    "volumes": [
        "/m",
        ["./x:/m:ro,Z", {"type": "bind", "source": "a:b", "target": "/n"}],
        [{"type": "bind", "source": "/x", "target": "/m", "bind": {"create_host_path": True}}],
    ],
    "shm_size": [64, "1.5g", "8 GiB", 0, "${MEMORY:-8g}"],
    "ulimits": [{"memlock": -1, "nofile": {"soft": 1, "hard": 2}}, ["nofile=1:2"]],
    "cpus": [1.5, ".5", 2],
    "labels": [{"a.b": 1, "c": None}, ["a=b", "c"]],
    "restart": ["no", "on-failure:3"],
    "init": [True, "false"],
    "devices": ["/dev/null:/dev/x:r", ["nvidia.com/gpu=0"]],
}
WRONG: dict[str, list[Any]] = {
    "description": [["a"], {"a": "b"}],
    "extends": [["base"]],
    "image": [[], {"b": "a"}, "a b", [None]],
    "cuda": ["twelve", -1, True, ["12"], "12.4.1.1"],
    "cudnn": [8.1, "x", True],
    "flavor": ["full", 1, ["devel"]],
    "pull_policy": ["sometimes", 1, ["never"]],
    "os": [["ubuntu22.04"]],
    "gpus": [
        *(0, "0", -1, 1.5, True, "x", "0,", [], ["x"], [-1], {"counts": 1}, {"count": 0}),
        *({"count": 1, "share": 3}, {"count": [0, 1]}, {"device_ids": []}, {"device_ids": "x"}),
    ],
    "command": [{"a": "b"}, [["a"]], [None]],
    "entrypoint": [{"a": "b"}],
    "working_dir": ["tmp", 1],
    "workspace": [["."]],
    "env_file": [{"a": "b"}],
    "environment": ["A=1", {"A": [1]}, ["=1"], [{"A": 1}]],
    "user": [["a"]],
    "ports": [
        *("x", 0, -1, "80:", "80/icmp", "localhost:80:80", {"target": 80}, [{"published": 80}]),
        *([{"target": 80, "to": 1}], [["80"]], True, 1.5, [{"target": 80, "protocol": "icmp"}]),
        [{"target": 80, "mode": "hots"}],
    ],
    "volumes": [
        *("x", 1, {"target": "/m"}, ["d:m"], [{"source": "/x"}], [{"target": "m"}]),
        *(
            [{"type": "tmpfs", "target": "/m"}],
            [{"target": ["/m"]}],
            [{"target": "/m", "volume": {"nocopy": ["x"]}}],
            [{"target": "/m", "read_only": "maybe"}],
        ),
        *(
            [{"target": "/m", "mode": "ro"}],
            [{"type": "bind", "source": "/x", "target": "/m", "bind": "z"}],
            [{"type": "bind", "source": "/x", "target": "/m", "bind": {"recursive": "disabled"}}],
            [{"source": "data", "target": "/m", "volume": {"subpath": "a"}}],
        ),
    ],
    "datasets": [{"a": "b"}],
    "shm_size": ["8q", "", -1, True, ["8g"]],
    "ipc": [["host"]],
    "ulimits": [
        *("nofile=1", {"nofil": 1}, {"nofile": "x"}, {"nofile": {"soft": 1}}, ["nofile"]),
        *({"nofile": {"soft": 1, "hard": 2, "more": 3}}, {"nofile": 1.5}),
    ],
    "mem_limit": ["much", -1],
    "cpus": ["many", -1, True],
    "network_mode": [["host"]],
    "hostname": ["a b", "x" * 64, ["a"]],
    "labels": ["a=b", {"gpubox.owner": "x"}, {"a b": "c"}, ["gpubox.owner=x"]],
    "restart": ["maybe", 3, True, "on-failure:x"],
    "init": ["maybe", "yes", 1, []],
    "rm": ["on"],
    "cap_add": ["SYS-PTRACE", 1, {"a": "b"}],
    "security_opt": [{"a": "b"}],
    "devices": ["dev/a", 1, [""]],
    "slurm": ["a", {"a": "b"}],
}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_editors_and_gpubox_take_the_same(setting: Setting) -> None:
    for value in (None, *RIGHT.get(setting.key, [])):
        assert (fits(setting.key, value), parsed(setting, value)) == (True, True), value
    for value in WRONG[setting.key]:
        assert (fits(setting.key, value), parsed(setting, value)) == (False, False), value


@pytest.mark.parametrize("key", SPELLINGS)
def test_editors_take_every_spelling_that_gpubox_takes(key: str) -> None:
    taken = []

    @searched(30)
    @given(SPELLINGS[key].filter(lambda drawn: bool(drawn.yaml)))
    def check(drawn: Spelling) -> None:
        for said, value in drawn.yaml.items():
            if parsed(BY_KEY[said], value):
                assert fits(said, value), value
                taken.append(value)

    check()
    assert taken


def test_init_writes_what_its_first_line_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(["init"]) == 0
    line = (tmp_path / "gpubox.yaml").read_text("utf-8").partition("\n")[0]
    # a path from the file itself, so that whoever has the project has both
    name = line.removeprefix("# yaml-language-server: $schema=")
    assert json.loads((tmp_path / name).read_text("utf-8")) == schema()
    capsys.readouterr()
    assert invoke(["schema"]) == 0
    assert capsys.readouterr().out == (tmp_path / name).read_text("utf-8")
