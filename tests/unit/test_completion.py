"""What a shell is told that may come next, from the line that was typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpubox.checks import OF_IMAGES
from gpubox.cli import invoke
from gpubox.cli.app import HELP, SECTIONS
from gpubox.cli.completion import SHELLS

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
PROJECT = """
datasets: {coco: /data/coco, imagenet: /data/imagenet}
profiles:
  train: {extends: pytorch, description: "ours: resnets"}
  torn: {extends: nowhere}
"""
Answer = Callable[..., list[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project, on a machine without an engine."""
    (tmp_path / "gpubox.yaml").write_text(PROJECT)
    (tmp_path / "lab.yaml").write_text("profiles: {trap: {image: lab/net}}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:1")
    return tmp_path


@pytest.fixture
def answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> Answer:
    """What the script of a shell gets for its question."""

    def ask(shell: str, *question: str) -> list[str]:
        assert invoke(["completion", shell, "--", *question]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out.splitlines()

    return ask


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("gpubox pro", "plain", "profiles"),
        ("gpubox --ver", "plain", "--verbose --version"),
        ("gpubox run t", "plain", "tensorflow train torn"),
        ("gpubox run -it --rm --wait-for ever --bogus 't", "plain", "tensorflow train torn"),
        ("gpubox -f lab.yaml run tr", "plain", "trap"),
        ("gpubox --file=~/lab.yaml pull x tr", "plain", "trap"),
        ("gpubox run --ip", "plain", "--ipc"),
        ("gpubox stop --profile tra", "plain", "train"),
        ("gpubox enter box tr", "file", ""),
        ("gpubox enter -- tr", "file", ""),
        ("gpubox run --ipc ", "plain", "private shareable host"),
        ("gpubox run --ipc=s", "plain", "shareable"),
        ("gpubox run --ignore d", "plain", "deleted disk driver"),
        ("gpubox pull --ignore ", "plain", " ".join(OF_IMAGES)),
        ("gpubox run -e HOM", "plain", "HOME"),
        ("gpubox run --dataset ", "plain", "coco imagenet"),
        ("gpubox run -v ./da", "dir", ""),
        ("gpubox run --volume=./da", "dir", ""),
        ("gpubox run -v ./data:/d", "plain", ""),
        ("gpubox run --env-file ", "file", ""),
        ("gpubox run train ", "file", ""),
        ("gpubox run train --gp", "plain", ""),
        ("gpubox run train python -e ", "file", ""),
        ("gpubox run --rm -- ", "file", ""),
        ("gpubox jupyter tra", "plain", "train"),
        ("gpubox jupyter train ", "plain", ""),
        ("gpubox mount ", "dir", "coco imagenet"),
        ("gpubox mount ./data:/d", "plain", ""),
        ("gpubox mount ./data:/data t", "dir", "tensorflow train torn"),
        ("gpubox mount coco --rm --ipc h", "plain", "host"),
        ("gpubox mount coco train --ipc ", "file", ""),
        ("gpubox run --gpus ", "plain", "all none"),
        ("gpubox completion ", "plain", "bash zsh fish"),
        ("gpubox run nvidia/", "plain", ""),
        ("gpubox move ", "plain", ""),
    ],
)
def test_what_may_come_next_is_what_gpubox_would_take(
    answer: Answer, line: str, kind: str, words: str
) -> None:
    shell, *found = answer("fish", line)
    assert (shell, [it.partition("\t")[0] for it in found]) == (kind, words.split())


@pytest.mark.parametrize(
    ("line", "replaced", "words"),
    [
        ("gpubox run --ipc=s", "s", "shareable"),
        ("gpubox run --ipc=", "", "private shareable host"),
        ("gpubox run --ipc=s", "--ipc=s", "--ipc=shareable"),  # without = in COMP_WORDBREAKS
        ("gpubox run 'tr", "tr", "train"),
    ],
)
def test_bash_gets_only_what_it_puts_in_place_of_the_last_part(
    answer: Answer, line: str, replaced: str, words: str
) -> None:
    assert answer("bash", line, replaced)[1:] == words.split()


def test_commands_and_profiles_come_with_what_they_are_for(answer: Answer) -> None:
    listed = [f"{name}\t{HELP[name]}" for section in SECTIONS.values() for name in section]
    assert answer("fish", "gpubox ")[1:] == listed
    assert answer("zsh", "gpubox profiles tra")[1:] == ["train:ours: resnets"]
    assert answer("fish", "gpubox profiles tor")[1:] == ["torn\t"]  # its own error, when it is run


@pytest.mark.parametrize(
    "line", ["gpubox nonsense ", "gpubox -f no.yaml run ", "gpubox mount /:x "]
)
def test_where_something_is_wrong_nothing_comes_next(
    folder: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    assert invoke(["completion", "bash", "--", line]) != 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_and_the_guide_say_where_it_goes(
    capsys: pytest.CaptureFixture[str], shell: str
) -> None:
    assert invoke(["completion", shell]) == 0
    script, guide = capsys.readouterr().out, GUIDE.read_text("utf-8")
    for place in (SHELLS[shell].own, SHELLS[shell].shared):
        assert place in script
        assert place.partition(" in ~")[0] in guide
