"""What was typed becomes a script for Slurm, and its every word a word again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpubox.cli import invoke
from gpubox.errors import ProfileError
from gpubox.profile.config import Config
from gpubox.profile.layers import Layer, read
from gpubox.slurm import batch

Submit = Callable[..., tuple[int, str, str]]


@pytest.fixture
def submit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Submit:
    """`gpubox submit`, in a folder with a profile: its exit code, script and complaint."""
    (tmp_path / "gpubox.yaml").write_text(
        "profiles:\n"
        "  train: {extends: cuda8-cudnn5, gpus: 2, command: python train.py,"
        " slurm: [-p gpu, --mail-type=END]}\n"
        "  exact: {extends: train, gpus: [0, 1], slurm: [--gres=gpu:a100:2]}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/opt/gpubox/bin/gpubox"])

    def submitted(*words: str) -> tuple[int, str, str]:
        code = invoke(["submit", *words])
        sys.stdout.flush()
        said = capfd.readouterr()
        return code, said.out, said.err

    return submitted


def test_print_shows_the_script(submit: Submit) -> None:
    words = ("-e", "A=b c", "-e", "HOME", "--no-init", "--time=2:00:00", "--sbatch", "--nice=10")
    code, script, _ = submit("--print", *words, "train", "--", "echo", "it's")
    assert code == 0
    assert script == (
        "#!/bin/sh\n"
        "#SBATCH --job-name=gpubox-train\n"
        "#SBATCH --nodes=1\n"
        "#SBATCH --ntasks=1\n"
        "#SBATCH --gres=gpu:2\n"
        "#SBATCH --output=%x-%j.log\n"
        "#SBATCH -p gpu\n"
        "#SBATCH --mail-type=END\n"
        "#SBATCH --time=2:00:00\n"
        "#SBATCH --nice=10\n"
        "exec /opt/gpubox/bin/gpubox run '--env=A=b c' --env=HOME --no-init train"
        " -- echo 'it'\"'\"'s'\n"
    )
    _, script, _ = submit("--print", "--array", "0-9%4", "--gpus=none", "a/b:c")
    assert script.splitlines()[4:] == [
        "#SBATCH --output=%x-%A_%a.log",
        "#SBATCH --array=0-9%4",
        "exec /opt/gpubox/bin/gpubox run --gpus=none a/b:c",
    ]
    assert "gpu:a100:2" in submit("--print", "exact")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--gpus", "all", "train"],
            "gpus: 'all': how many that is Slurm must be told\n  --gpus 1",
        ),
        (["--gpus", "0,3", "train"], "gpus: '0,3': which ones Slurm chooses\n  --gpus 2, or"),
        (["--sbatch", "nice", "train"], "'nice' is no option of sbatch, like --time=2:00:00"),
        (["--sbatch", "--x='", "train"], "slurm: '--x='': no closing quotation"),
        (["--restart=always", "--rm", "train"], "exclude each other"),
        (["-d", "train"], "-d is no option here\n  a job is in the background"),
        (["-it", "train"], "-i is no option here\n  a job has no terminal; this has: srun"),
        (["--dry-run", "train"], "--dry-run is no option here\n  --print shows"),
        (
            ["trian"],
            "no profile 'trian'\n  did you mean 'train', or as a command: gpubox submit --",
        ),
    ],
)
def test_what_cannot_be_is_told_before_it_waits(
    submit: Submit, words: list[str], said: str
) -> None:
    code, script, err = submit("--print", *words)
    assert (code, script) == (2, "")
    assert said in err


@settings(deadline=None)  # a shell is started for each
@example(["a\r\nb", "\r", "\n#SBATCH --x\n", "", "'", '"$(id)`id`"', "\\", "ü"])
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_a_shell_reads_every_word_as_it_was(words: list[str]) -> None:
    show = ["env", "printf", "%s\\0", *words]
    script = batch.script(["--job-name=x"], show)
    assert "\r\n" not in script
    done = subprocess.run(["sh"], input=script.encode(), capture_output=True, check=True)
    assert done.stdout == "".join(f"{word}\0" for word in words or [""]).encode()


@pytest.mark.parametrize(
    ("options", "log"),
    [
        ([], "gpubox-p-42.log"),
        (["--array=0-9"], "gpubox-p-42_*.log"),
        (["-a 1,2"], "gpubox-p-42_*.log"),
        (["-J mine"], "mine-42.log"),
        (["--output=/logs/%x.%j"], "/logs/gpubox-p.42"),
        (["--job-name x", "-oout-%j", "--output='a b%%'"], "a b%"),
    ],
)
def test_the_logs_name_is_what_slurm_makes_of_it(options: list[str], log: str) -> None:
    assert batch.log(batch.directives("p", 1, options), "42") == log


def test_gpus_that_are_asked_for_otherwise_are_not_asked_for_twice() -> None:
    for option in ("--gres=gpu:a:1", "-G2", "--gpus-per-node=1", "--gpus 1"):
        assert "--gres=gpu:1" not in batch.directives("p", 1, [option])
    assert "--gres=gpu:1" in batch.directives("p", 1, ["--gpu-bind=none", "--gres-flags=x"])


def test_only_a_requirement_can_be_said_of_slurm_itself() -> None:
    def config(*texts: str) -> Config:
        found = [
            Layer(f"{n}.yaml", read(text, f"{n}.yaml", Path("/"))) for n, text in enumerate(texts)
        ]
        return Config(tuple(found), {}, Path("/"))

    assert config("slurm: required", "slurm:", "{}").slurm_required() == "0.yaml:1"
    assert config("slurm:", "{}").slurm_required() == ""
    with pytest.raises(ProfileError, match=r"1.yaml:1: slurm: 'required' is all that can be said"):
        config("slurm: required", "slurm: [--time=1]")
