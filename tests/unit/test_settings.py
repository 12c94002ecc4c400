"""The table of settings against what is made from it: options, its page, the design's keys."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
import pytest

from gpubox.cli import cli
from gpubox.plan import docker_words
from gpubox.plan.plan import Plan
from gpubox.profile.layers import read, write
from gpubox.profile.profile import Profile
from gpubox.profile.settings import BY_KEY, SETTINGS, Setting

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
BEGIN, END = "<!-- settings -->\n", "<!-- /settings -->\n"

KEYS = (
    "description extends image cuda cudnn flavor os pull_policy gpus command entrypoint"
    " working_dir workspace environment env_file user ports volumes datasets shm_size ipc ulimits"
    " mem_limit cpus network_mode hostname labels restart init rm cap_add security_opt devices"
    " slurm"
)
FLAGS = (
    "--gpus -p -v -e --env-file -d -i -t --rm --name -u -w --shm-size --ipc --ulimit -m --memory"
    " --cpus --network --hostname --entrypoint --label --restart --init --no-init --device"
    " --cap-add --security-opt --pull --dataset --workspace --dry-run --ignore"
)


STARTS = ("run", "jupyter", "mount")


def start(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def options(command: str) -> set[str]:
    return {
        name for option in start(command).params for name in (*option.opts, *option.secondary_opts)
    }


def flag(setting: Setting) -> str:
    if not setting.flag:
        return ""
    names = [name for name in (setting.also, setting.flag.replace("/", ", ")) if name]
    takes = "" if setting.written is bool else f" {setting.metavar}"
    return f"`{', '.join(names)}{takes}`"


def _text(words: str) -> str:
    """A sentence for Markdown, which takes <WORD> for a tag of HTML."""
    return words.replace("<", r"\<")


def table() -> str:
    rows = [f"| `{each.key}` | {flag(each)} | {_text(each.help)} |" for each in SETTINGS]
    return "".join(f"{row}\n" for row in ["| key | flag | meaning |", "|---|---|---|", *rows])


def test_the_reference_lists_every_setting(request: pytest.FixtureRequest) -> None:
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    found, _, after = rest.partition(END)
    if request.config.getoption("--update-snapshots"):
        PAGE.write_text(f"{before}{BEGIN}{table()}{END}{after}", "utf-8")
        return
    assert found == table(), "pytest --update-snapshots writes it"


def test_the_keys_are_those_of_the_design() -> None:
    assert sorted(setting.key for setting in SETTINGS) == sorted(KEYS.split())


def test_no_start_can_ask_for_privileges() -> None:
    assert [command for command in STARTS if "--privileged" in options(command)] == []


def test_a_key_stands_in_the_table_once_and_says_what_it_means() -> None:
    assert len({setting.key for setting in SETTINGS}) == len(SETTINGS)
    for setting in SETTINGS:
        assert setting.help and not setting.help.endswith("."), setting.key


@pytest.mark.parametrize("command", STARTS)
def test_every_flag_is_an_option_of_each_start(command: str) -> None:
    from_the_table = {
        name for setting in SETTINGS for name in (*setting.flag.split("/"), setting.also) if name
    }
    assert from_the_table - options(command) == set()
    assert set(FLAGS.split()) - options(command) == set()


@pytest.mark.parametrize("name", STARTS)
def test_no_option_takes_an_optional_value(name: str) -> None:
    # such an option would eat the PROFILE behind it
    command = start(name)
    context = click.Context(command, parent=click.Context(cli, **cli.context_settings))
    for option in command.params:
        if isinstance(option, click.Option) and not option.is_flag:
            with pytest.raises(click.BadOptionUsage):
                command.make_parser(context).parse_args([option.opts[-1]])


@pytest.mark.parametrize(
    "written",
    ["all", "none", 2, "0,2", {"count": 2, "share": True}, {"device_ids": ["1"], "share": True}],
)
def test_gpus_are_written_as_they_are_read(written: object) -> None:
    gpus = BY_KEY["gpus"]
    said = read(write({"gpus": written}), "gpubox.yaml", Path("/"))["gpus"]
    assert gpus.write(gpus.parse(said)) == written


def test_every_setting_is_in_the_profile_and_what_docker_is_told_of_one_in_the_plan() -> None:
    profile, plan = ({field.name for field in msgspec.structs.fields(of)} for of in (Profile, Plan))
    resolved = {"extends", "datasets", "image", "cuda", "cudnn", "flavor", "os"}
    assert {setting.key for setting in SETTINGS} - resolved - profile == set()
    turned = resolved | {"description", "command", "workspace", "slurm"}
    assert {setting.key for setting in SETTINGS} - turned == docker_words.BY_KEY.keys()
    assert docker_words.BY_KEY.keys() - plan == set()
