"""gpubox beside `docker` on one engine: how long each takes to start, until Jupyter's URL works,
and how fast bytes go.

    PYTHONPATH=tests python tests/bench/against_docker.py [--kind stable|cdi] [--runs 10]

Prints medians in milliseconds and their ratio. For people: no test depends on these figures.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.engine import PrivateEngine
from lab.images import STAND_IN, build_stand_in, busybox
from lab.jupyter import JUPYTER, build_jupyter
from lab.machine import free_port
from lab.program import Gpubox

MEGABYTES = 200


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--kind", choices=["stable", "cdi"], default="stable")
    options.add_argument("--runs", type=int, default=10)
    given = options.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder, PrivateEngine(given.kind) as engine:
        build_stand_in(engine.host)
        gpubox = Gpubox(Path(folder), engine.environ())
        print(f"engine {given.kind}, median of {given.runs} in ms")
        starts(gpubox, engine, given.runs)
        notebooks(gpubox, engine, given.runs)
        print(f"{MEGABYTES} MB, median of 3 in ms, log driver none is not used by either")
        streams(gpubox, engine, Path(folder))


def starts(gpubox: Gpubox, engine: PrivateEngine, runs: int) -> None:
    ours, docker = str(gpubox.program), str(engine.docker)
    profile = "cuda8-cudnn5"
    alone(gpubox, "python -c pass", [sys.executable, "-c", "pass"], runs)
    alone(gpubox, "python -c 'import docker'", [sys.executable, "-c", "import docker"], runs)
    alone(gpubox, "gpubox --help", [ours, "--help"], runs)
    dry_run = [ours, "run", "--dry-run", "--gpus", "none", profile]
    alone(gpubox, "gpubox run --dry-run --gpus none", dry_run, runs)
    none = ["--gpus", "none"]
    cases: dict[str, list[str]] = {"run": [], "run --rm": ["--rm"], "run -d": ["-d"]}
    for name, theirs in cases.items():
        side_by_side(
            gpubox,
            name,
            [ours, "run", *theirs, *none, profile, "true"],
            [docker, "run", *theirs, "--init", "--shm-size", "8g", STAND_IN, "true"],
            runs,
        )


def notebooks(gpubox: Gpubox, engine: PrivateEngine, runs: int) -> None:
    """From Enter to a URL that works: `docker run` and a loop that asks until Jupyter answers."""
    build_jupyter(engine.host)
    port, docker = free_port(), str(engine.docker)
    run = [docker, "run", "-d", "--init", "--shm-size", "8g", "-e", "JUPYTER_TOKEN=secret"]
    run += ["-v", f"{gpubox.cwd}:/workspace", "-p", f"127.0.0.1:{port}:8888", JUPYTER]
    ask = f"{busybox()} wget -q -O /dev/null http://127.0.0.1:{port}/api"
    loop = f'"$@" && until {ask} 2>/dev/null; do sleep 0.1; done'
    side_by_side(
        gpubox,
        "jupyter -d, until its URL works",
        [str(gpubox.program), "jupyter", "-d", "--new", "--gpus", "none", JUPYTER],
        ["sh", "-c", loop, "sh", *run],
        runs,
        clear=f"{docker} rm -f $({docker} ps -a -q)",
    )


def streams(gpubox: Gpubox, engine: PrivateEngine, folder: Path) -> None:
    data = folder / "data"
    data.write_bytes(os.urandom(1 << 20) * MEGABYTES)
    digest = hashlib.sha256(data.read_bytes()).hexdigest()
    out = f"dd if=/dev/zero bs=1048576 count={MEGABYTES} 2>/dev/null"
    for name, script in (
        ("both ways", "cat"),
        ("in", "sha256sum"),
        ("out", out),
    ):
        ours = [str(gpubox.program), "run", "-i", "--rm", "--gpus", "none", "cuda8-cudnn5"]
        theirs = [str(engine.docker), "run", "-i", "--rm", "--init", STAND_IN]
        command = ["sh", "-c", script]
        side_by_side(gpubox, name, [*ours, *command], [*theirs, *command], 3, data)
    with data.open("rb") as source:
        copied = subprocess.run(
            [*ours, "cat"], stdin=source, env=gpubox.env, cwd=gpubox.cwd, stdout=subprocess.PIPE
        )
    equal = hashlib.sha256(copied.stdout).hexdigest() == digest
    print(f"  {'sha256 after both ways':40} {'equal' if equal else 'DIFFERENT'}")


def alone(gpubox: Gpubox, name: str, command: Sequence[str], runs: int) -> None:
    print(f"  {name:40} {median(lambda: timed(gpubox, command), runs):7.0f}")


def side_by_side(
    gpubox: Gpubox,
    name: str,
    ours: Sequence[str],
    theirs: Sequence[str],
    runs: int,
    stdin: Path | None = None,
    clear: str = "true",
) -> None:
    """In turn, so that a machine that changes its speed changes it for both.

    `clear` is run between them, and its time not counted.
    """

    def once(command: Sequence[str]) -> float:
        needed = timed(gpubox, command, stdin)
        timed(gpubox, ["sh", "-c", clear])
        return needed

    once(ours)
    once(theirs)
    pairs = [(once(ours), once(theirs)) for _ in range(runs)]
    mine, docker = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"  {name:40} {mine:7.0f}   docker {docker:7.0f}   ratio {mine / docker:.2f}")


def median(run: Callable[[], float], runs: int) -> float:
    run()
    return statistics.median(run() for _ in range(runs))


def timed(gpubox: Gpubox, command: Sequence[str], stdin: Path | None = None) -> float:
    with (stdin or Path(os.devnull)).open("rb") as source:
        started = time.perf_counter()
        subprocess.run(
            command,
            stdin=source,
            env=gpubox.env,
            cwd=gpubox.cwd,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
        )
        return (time.perf_counter() - started) * 1000


main()
