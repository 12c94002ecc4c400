"""`gpubox datasets`: what each name stands for, and what the caller may do there; no engine."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gpubox.cli import invoke
from lab.waiting import PATIENCE, wait_until


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with datasets of each kind; no engine answers."""
    for name in ("imagenet/train", "out", "my data"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("imagenet")
    (tmp_path / "gpubox.yaml").write_text(
        "datasets:\n"
        "  imagenet: ./imagenet:/data/net\n"
        "  out: ./out:/out:rw\n"
        "  gone: ./gone\n"
        "  loop: ./loop\n"
        "  spaced: ./my data/\n"
        "  linked: ./link\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    return tmp_path


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert invoke(["datasets", "--json", *words]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def rows(capsys: pytest.CaptureFixture[str], *words: str) -> list[list[str]]:
    """The table's cells; columns are two or more blanks apart."""
    assert invoke(["datasets", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


def test_each_name_is_told_with_its_place_its_mode_and_whether_it_can_be_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read_only = "read-only"
    assert rows(capsys) == [
        ["NAME", "PATH", "IN THE BOX", "MODE", "EXISTS", "READABLE"],
        ["imagenet", f"{folder}/imagenet", "/data/net", read_only, "yes", "yes"],
        ["out", f"{folder}/out", "/out", "read and write", "yes", "yes"],
        ["gone", f"{folder}/gone", "/data/gone", read_only, "no", "no"],
        ["loop", f"{folder}/loop", "/data/loop", read_only, "no", "no"],
        ["spaced", f"{folder}/my data", "/data/spaced", read_only, "yes", "yes"],
        ["linked", f"{folder}/link", "/data/linked", read_only, "yes", "yes"],
    ]


def test_json_has_the_same_for_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys)
    assert found[1] == {
        "name": "out",
        "path": f"{folder}/out",
        "box_path": "/out",
        "mode": "rw",
        "exists": True,
        "readable": True,
        "writable": True,
        "from": "gpubox.yaml:3",
    }
    assert [item["mode"] for item in found] == ["ro", "rw", "ro", "ro", "ro", "ro"]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("DOCKER_HOST", "tcp://lab:2375", "tcp://lab:2375 may be another machine"),
        ("DOCKER_CONTEXT", "nope", "the context 'nope', and there is none"),
    ],
)
def test_of_another_machine_nothing_is_guessed(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv(variable, value)
    assert invoke(["datasets", "--size"]) == 0
    out, err = capsys.readouterr()
    assert said in err
    assert out.splitlines()[1].split()[-6:] == ["not", "known"] * 3
    first = listed(capsys, "--size")[0]
    assert {first[key] for key in ("exists", "readable", "writable", "size")} == {None}


def test_a_size_is_what_du_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = folder / "imagenet/train"
    (train / "big").write_bytes(b"x" * 3_000_000)
    os.link(train / "big", train / "the same")
    (train / "sparse").touch()
    os.truncate(train / "sparse", 10**12)
    (train / "elsewhere").symlink_to("/usr")
    (folder / "out/one").write_text("1\n")
    found = {item["name"]: item for item in listed(capsys, "--size")}
    for name, path in {"imagenet": "imagenet", "out": "out", "linked": "imagenet"}.items():
        du = subprocess.run(["du", "-s", "-B1", folder / path], capture_output=True, check=True)
        assert found[name]["size"] == int(du.stdout.split()[0])
        assert found[name]["size_is_whole"] is True
    assert found["gone"]["size"] is None
    assert rows(capsys, "--size")[1][-1] == "3.0 MB"


def test_one_file_has_a_size_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "one.h5").write_bytes(b"x" * 5000)
    (folder / "gpubox.yaml").write_text("datasets: {one: ./one.h5}\n")
    (found,) = listed(capsys, "--size")
    assert found["size"] == (folder / "one.h5").stat().st_blocks * 512


def test_without_datasets_it_is_said_how_to_name_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "gpubox.yaml").write_text("{}\n")
    assert invoke(["datasets"]) == 0
    out, err = capsys.readouterr()
    assert (out, "datasets: {imagenet: /data/imagenet}" in err) == ("", True)
    assert listed(capsys) == []


@pytest.fixture
def endless(folder: Path) -> Path:
    """So many names for one folder of files that to walk them all takes long."""
    (folder / "files").mkdir()
    for number in range(2000):
        (folder / f"files/{number}").touch()
    names = [f"  data{number}: ./files\n" for number in range(500)]
    (folder / "gpubox.yaml").write_text("".join(["datasets:\n", *names]))
    return folder


def test_at_a_terminal_the_walk_is_seen_and_ctrl_c_ends_it_cleanly(endless: Path) -> None:
    program = Path(sys.executable).with_name("gpubox")
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    shown = bytearray()

    def sees(text: bytes) -> bool:
        with suppress(OSError):  # nothing to read yet, or no more
            shown.extend(os.read(ours, 65536))
        return text in shown

    environ = {"PATH": os.environ["PATH"], "HOME": str(endless), "TERM": "xterm"}
    with subprocess.Popen(
        ["setsid", "--ctty", "--wait", program, "datasets", "--size"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=endless,
        env=environ,
    ) as child:
        try:
            os.close(theirs)
            wait_until(lambda: sees(b" files"))
            os.write(ours, b"\x03")
            assert child.wait(PATIENCE) == 130
        finally:
            child.kill()
        assert child.stdout is not None
        assert child.stdout.read() == b""
    os.close(ours)
    assert b"Traceback" not in shown
    assert b"\x1b[?25l" not in shown  # the cursor, which nobody could give back after kill -9
