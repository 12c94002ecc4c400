"""`python -m lab run [--kind KIND] -- COMMAND...`: COMMAND beside an engine of its own.

The engine has simulated GPUs (Podman has none) and the stand-in CUDA image; all of it ends with
COMMAND, whose exit code this is.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from typing import get_args

from lab.engine import Kind, PrivateEngine
from lab.errors import LabError
from lab.images import build_stand_in
from lab.newer import newer_engine
from lab.podman import PrivatePodman


def main() -> int:
    wanted = _arguments()
    if wanted.action == "fetch":
        return _fetch()
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    try:
        with _engine(wanted.kind, wanted.gpus) as engine:
            build_stand_in(engine.host, *wanted.tag)
            return _run(wanted.command, engine)
    except LabError as error:
        print(f"gpubox lab: {error}", file=sys.stderr)
        return 125


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    actions = parser.add_subparsers(required=True, dest="action", metavar="run|fetch")
    actions.add_parser("fetch", help="get the newer engine, if it is not there yet")
    run = actions.add_parser("run", help="run COMMAND beside a private engine")
    run.add_argument("--kind", choices=get_args(Kind), default="stable")
    run.add_argument("--gpus", type=int, default=4, help="how many are simulated (0: no support)")
    run.add_argument("--tag", action="append", default=[], help="one more tag of the stand-in")
    run.add_argument("command", nargs="+", metavar="COMMAND")
    return parser.parse_args()


def _engine(kind: Kind, gpu_count: int) -> PrivateEngine:
    return PrivatePodman() if kind == "podman" else PrivateEngine(kind, gpu_count=gpu_count)


def _fetch() -> int:
    try:
        newer_engine()
    except LabError as error:
        print(f"gpubox lab: {error}", file=sys.stderr)
        return 1
    return 0


def _run(command: list[str], engine: PrivateEngine) -> int:
    """Ctrl-C is COMMAND's to answer; what ends this process is passed on to it."""
    try:
        child = subprocess.Popen(command, env=engine.environ())
    except OSError as error:
        print(f"gpubox lab: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    return code if code >= 0 else 128 - code


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
