"""The words of a command: where PROFILE ends and COMMAND begins."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from gpubox.cli import invoke


def line(capsys: pytest.CaptureFixture[str], words: str) -> str:
    code = invoke([*shlex.split(words)])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out.strip()


def failure(capsys: pytest.CaptureFixture[str], words: str) -> tuple[int, str]:
    code = invoke([*shlex.split(words)])
    return code, capsys.readouterr().err


DRY = "--dry-run --gpus none"


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (f"run {DRY} cuda8-cudnn5", " nvidia/cuda:8.0-cudnn5-devel"),
        (f"run {DRY}", " pytorch/pytorch:2.8.0-cuda12.6-cudnn9-runtime"),
        (f"run {DRY} -- nvidia-smi -L", "-cudnn9-runtime nvidia-smi -L"),
        (f"run {DRY} -- cuda8-cudnn5", "-cudnn9-runtime cuda8-cudnn5"),
        (f"run {DRY} cuda8-cudnn5 -- ls -l", ":8.0-cudnn5-devel ls -l"),
        (f"run {DRY} cuda8-cudnn5 ls -- -l", ":8.0-cudnn5-devel ls -- -l"),
        (f"run {DRY} a/b:c python -d x", " a/b:c python -d x"),
        (f"run {DRY} -w=/x -e=A=b a/b python -e=1", " a/b python -e=1"),
        (f"run {DRY} cuda8-cudnn5 sh -c 'echo $HOME \"x\"'", "sh -c 'echo $HOME \"x\"'"),
        (f"mount {DRY} /tmp:/data cuda8-cudnn5 ls /data", ":8.0-cudnn5-devel ls /data"),
        (f"mount {DRY} /tmp:/data", "-cudnn9-runtime"),
        (f"mount {DRY} /tmp:/data /:/host:rw a/b ls", " a/b ls"),
        (f"mount /tmp:/data {DRY} /:/host --rm a/b ls -d", " a/b ls -d"),
        (f"mount /tmp:/data {DRY} -- ls /:/x", "-cudnn9-runtime ls /:/x"),
        (f"mount {DRY} -- /tmp:/data ls", "-cudnn9-runtime ls"),
    ],
)
def test_the_words_are_profile_and_command(
    capsys: pytest.CaptureFixture[str], words: str, end: str
) -> None:
    assert line(capsys, words).endswith(end)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("run nvidia-smi -L", 125, "as a command: gpubox run -- nvidia-smi -L"),
        ("run --dry-run cuda8-cudn5", 125, "did you mean 'cuda8-cudnn5', or"),
        ("run cuda8-cudnn5 --gpus all ls", 125, "gpubox run --gpus all cuda8-cudnn5 ls"),
        ("run --gpus", 125, "requires an argument\n  gpubox run --help"),
        ("run --rm=true a/b", 125, "it stands alone: --rm; gpubox run --help"),
        ("run --tmpfs /x a/b", 125, "add it to the line that gpubox run --dry-run prints"),
        ("run -P a/b", 125, "-p PORT"),
        ("help", 2, "here it is: gpubox --help"),
        ("enter -it box bash", 125, "-t is no option here\n  leave it out"),
        ("run --bogus", 125, "no such option"),
        ("run --verbose", 125, "it stands before the command: gpubox --verbose run\n"),
        ("ps --file lab.yaml", 2, "it stands before the command: gpubox --file FILE ps\n"),
        ("mount", 125, "gpubox mount /data/imagenet:/data"),
        ("mount /tmp:/data nope", 125, "as a command: gpubox mount /tmp:/data -- nope"),
        ("mount /tmp:/d a/b --rm", 125, "gpubox mount /tmp:/d --rm a/b"),
        ("mount nodata cuda8-cudnn5", 125, "'nodata' is neither HOST_PATH:BOX_PATH"),
        ("mount /x:y cuda8-cudnn5", 125, "'y' is not an absolute path in the box"),
        ("jupyter cuda8-cudnn5 ls", 125, "jupyter takes no COMMAND"),
        ("jupyter --port 99999", 125, "99999"),
        ("profiles nope", 2, "no profile 'nope'"),
        ("exec x", 2, "here it is:"),
        ("help run", 2, "here it is: gpubox --help"),
        ("inspect x", 2, "here it is: docker inspect"),
        ("rnu", 2, "did you mean 'run'?"),
        ("cuda8-cudnn5", 2, "it is a profile: gpubox run cuda8-cudnn5"),
        ("-f nope.yaml profiles", 1, "nope.yaml: no such file"),
        ("ps extra", 2, "extra"),
        ("logs --tail x", 2, "'x' is no whole number"),
        ("export", 2, "gpubox export --help"),
        ("export kubernetes", 2, "no such command 'kubernetes'"),
        ("export compose nvidia-smi", 2, "as a command: gpubox export compose -- nvidia-smi"),
        ("export compose a/b --rm", 2, "gpubox export compose --rm a/b"),
        ("export compose --dry-run a/b", 2, "no such option"),
    ],
)
def test_a_mistake_is_answered_with_the_way(
    capsys: pytest.CaptureFixture[str], words: str, code: int, said: str
) -> None:
    got, err = failure(capsys, words)
    assert said in err
    assert got == code
    assert err.startswith("gpubox: ")


def test_no_word_at_all_is_answered_with_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert line(capsys, "") == line(capsys, "--help")


def test_a_folder_that_is_gone_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert failure(capsys, "run --dry-run a/b") == (
        125,
        "gpubox: the current folder: no such file or directory\n  cd to one that is there\n",
    )


def test_a_starter_file_is_written_once_and_valid(
    capsys: pytest.CaptureFixture[str], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert invoke(["init"]) == 0
    assert line(capsys, f"run {DRY}").endswith("-cudnn9-runtime")
    assert failure(capsys, "init")[0] == 2
    assert "mine (default)" in line(capsys, "profiles")
    assert "gpubox.yaml:" in line(capsys, "profiles mine")


def test_nv_gpu_is_a_list_between_yaml_and_flags(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NV_GPU", "1")
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    assert "--gpus device=1 " in line(capsys, "run --dry-run cuda8-cudnn5")
    assert "--gpus all " in line(capsys, "run --dry-run --gpus all cuda8-cudnn5")
    monkeypatch.setenv("NV_GPU", "all")
    code, err = failure(capsys, "run --dry-run cuda8-cudnn5")
    assert code == 125
    assert "NV_GPU: gpus: 'all' is neither a GPU's index nor its UUID" in err


def test_a_mistyped_dataset_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpubox.yaml").write_text("datasets: {imagenet: /data/imagenet}\n")
    assert failure(capsys, "mount imagnet") == (
        125,
        "gpubox: 'imagnet' is neither HOST_PATH:BOX_PATH nor a dataset's name\n"
        "  did you mean 'imagenet'?\n",
    )
    (tmp_path / "imagnet").mkdir()  # then it is that folder
    assert failure(capsys, "mount imagnet")[1].endswith("\n  gpubox mount ./imagnet:/data\n")
