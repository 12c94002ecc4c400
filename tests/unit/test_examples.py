"""The examples and the help, whole: what they become is a file, and a change shows as its diff."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from docker.models import containers
from msgspec.structs import replace

from gpubox.cli import cli, invoke
from gpubox.cli.app import HELP, SECTIONS
from gpubox.gpus.holders import join
from gpubox.gpus.machine import Gpu, Machine
from gpubox.plan.export import compose, devcontainer
from gpubox.plan.facts import Ask, EngineFacts, Facts
from gpubox.plan.plan import Plan, plan
from gpubox.plan.translate import arguments, docker_run_line
from gpubox.profile.config import Config
from gpubox.profile.layers import Layer, read, write
from gpubox.profile.profile import Profile
from lab import anna
from lab.anna import ANNA, WORK

ROOT = Path(__file__).parents[2]
SNAPSHOTS = Path(__file__).with_name("snapshots")
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.yaml"))
COMMANDS = sorted(name for section in SECTIONS.values() for name in section)
FOR_EVERYBODY = {"class", "lab-wide"}  # written for /etc/gpubox/config.yaml

Snapshot = Callable[[str, str], None]


def config(example: str, environ: Mapping[str, str] = ANNA.environ) -> Config:
    """The built-in layer and the example's file, as if it lay in a fixed folder."""
    shared = example in FOR_EVERYBODY
    folder = Path("/etc/gpubox") if shared else WORK
    text = (ROOT / "examples" / f"{example}.yaml").read_text("utf-8")
    own = Layer(f"{example}.yaml", read(text, f"{example}.yaml", folder), shared)
    return anna.config(own, environ=environ)


def profiles(example: str) -> Iterator[tuple[Profile, bool]]:
    """Each that the example speaks of, and whether it is its notebook."""
    found = config(example)
    own = found.layers[1].settings
    notebook = found.default("default_jupyter") if "default_jupyter" in own else ""
    written = own["profiles"].value
    assert isinstance(written, dict)
    for name in dict.fromkeys([*written, found.default(), *filter(None, [notebook])]):
        yield found.profile(name), name == notebook


def plans(example: str) -> Iterator[Plan]:
    """A plan of each; of the notebook as `jupyter` makes it."""
    for profile, is_notebook in profiles(example):
        ask = Ask(kind="jupyter", detach=True, token="s3cret") if is_notebook else Ask()
        yield plan(profile, ask, ON_FOUR_GPUS)


def exported(example: str) -> Iterator[Plan]:
    """A plan of each, as `export` makes it."""
    facts = replace(ON_FOUR_GPUS, printed=True, exported=True)
    for profile, _ in profiles(example):
        yield plan(profile, Ask(detach=True), facts)


GPUS = tuple(
    Gpu(index=index, uuid=f"GPU-{index}", name="NVIDIA RTX A4000", capability=(8, 6))
    for index in range(4)
)
ON_FOUR_GPUS = Facts(
    caller=ANNA,
    engine=EngineFacts(api=(1, 41)),
    machine=Machine("580.65.06", (13, 0), GPUS),
    holdings=join(anna.idle(GPUS), (), {}, "anna"),
)


@pytest.fixture(autouse=True)
def _one_version_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpubox.plan.plan.__version__", "VERSION")


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_becomes_these_containers(example: str, snapshot: Snapshot) -> None:
    made = {
        each.profile: {
            "docker-py": arguments(each).run,
            "host_config": arguments(each).host_config,
            "docker run": docker_run_line(each),
        }
        for each in plans(example)
    }
    snapshot(f"{example}.json", json.dumps(made, indent=2) + "\n")


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_becomes_these_services(example: str, snapshot: Snapshot) -> None:
    files = [write(compose(each, str(WORK))) for each in exported(example)]
    snapshot(f"{example}.compose.yaml", "---\n".join(files))


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_becomes_these_devcontainers(example: str, snapshot: Snapshot) -> None:
    files = [devcontainer(each, str(WORK)) for each in exported(example)]
    snapshot(f"{example}.devcontainer.json", json.dumps(files, indent=2) + "\n")


@pytest.mark.parametrize("example", EXAMPLES)
def test_docker_py_knows_every_argument(example: str) -> None:
    check: Any = containers._create_container_args  # type: ignore[attr-defined]
    for each in plans(example):
        low_level = check(arguments(each).run | {"version": "1.41"})
        assert low_level["image"] == each.image


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_needs_no_variable(example: str) -> None:
    bare = config(example, environ={})
    for name in bare.names():
        assert bare.profile(name).image


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_says_what_it_and_each_of_its_profiles_is_for(example: str) -> None:
    assert (ROOT / "examples" / f"{example}.yaml").read_text("utf-8").startswith("# ")
    found = config(example)
    assert all(found.profile(name).description for name in found.names())


def test_no_printed_line_of_an_example_shows_a_secret() -> None:
    lines = [docker_run_line(each) for example in EXAMPLES for each in plans(example)]
    assert any("-e WANDB_API_KEY " in line for line in lines)
    assert any("-e JUPYTER_TOKEN " in line for line in lines)
    assert not any("s3cret" in line for line in lines)


def test_profiles_names_a_secret_and_does_not_show_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("profiles: {p: {image: a, environment: {MY_TOKEN: s3cret, MODE: plain}}}")
    for more in ([], ["--json"]):
        assert invoke(["--file", str(file), "profiles", "p", *more]) == 0
        said = capsys.readouterr().out
        assert "MY_TOKEN" in said and "MODE=plain" in said
        assert "s3cret" not in said


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_says_this(command: str, snapshot: Snapshot) -> None:
    words = [*filter(None, [command]), "--help"]
    said = CliRunner().invoke(cli, words, prog_name="gpubox", terminal_width=100)
    assert said.exit_code == 0
    snapshot("-".join(["help", *words[:-1]]) + ".txt", said.output)


def test_a_command_is_listed_as_its_own_help_begins() -> None:
    assert sorted(HELP) == COMMANDS
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command and command.help
        said = " ".join(command.help.split())
        assert said.startswith(HELP[name].removesuffix(".")), name


def test_every_snapshot_is_of_something() -> None:
    kinds = ("json", "compose.yaml", "devcontainer.json")
    expected = {f"{example}.{kind}" for example in EXAMPLES for kind in kinds} | {"help.txt"}
    expected |= {f"help-{command}.txt" for command in COMMANDS}
    assert {path.name for path in SNAPSHOTS.iterdir()} == expected


def test_the_readme_shows_every_command_and_every_example() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [command for command in COMMANDS if f"gpubox {command}" not in readme] == []
    assert [example for example in EXAMPLES if f"{example}.yaml" not in readme] == []
