"""Slurm's own commands: `scontrol` is asked, `sbatch` is handed a script.

Knows no boxes; what the answers mean is `slurm`'s to know.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping

from gpubox.errors import GpuboxError
from gpubox.slurm import jobs

ENDS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1})
"""With these Slurm, or who has it do so, ends a job: `scancel`, a time limit, `--signal`."""

_ANSWER_SECONDS = 10


def job(environ: Mapping[str, str]) -> jobs.Job | None:
    """The job that this process is in."""
    if not jobs.is_in_job(environ):
        return None
    number = environ["SLURM_JOB_ID"]
    said = _said("--details", "--oneliner", "show", "job", number)
    return jobs.job(environ, said, _said("show", "config"))


def _said(*words: str) -> str:
    """What scontrol says; nothing where it cannot."""
    try:
        done = subprocess.run(
            ["scontrol", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ANSWER_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")


def submit(script: str) -> tuple[str, str]:
    """Hand a script over: the job's number, and what else Slurm says."""
    try:
        done = subprocess.run(
            ["sbatch", "--parsable"], input=os.fsencode(script), capture_output=True, check=False
        )
    except FileNotFoundError:
        raise GpuboxError(
            "there is no Slurm on this machine: no program sbatch",
            "log in to a node of the cluster; --print shows the script; gpubox run needs no Slurm",
        ) from None
    said = "; ".join(done.stderr.decode(errors="replace").splitlines())
    said = re.sub(r"(sbatch|error|Batch job submission failed): ", "", said)
    if done.returncode:
        raise GpuboxError(
            f"Slurm does not take the job: {said[:1].lower()}{said[1:]}",
            "sinfo -o '%P %l %D %c %m %G' shows what there is",
        )
    return done.stdout.decode().strip().partition(";")[0], said
