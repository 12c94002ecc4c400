"""Runs Slurm's own commands: asks `scontrol`, hands a script to `sbatch`.

Knows no boxes; what the answers mean is for `jobs` to know.
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
"""The signals that end a job: by `scancel`, at its time limit, as `--signal` asks."""

_ANSWER_SECONDS = 10


def job(environ: Mapping[str, str]) -> jobs.Job | None:
    """The job that this process is in, if it is in one."""
    if not jobs.is_in_job(environ):
        return None
    number = environ["SLURM_JOB_ID"]
    details = _scontrol("--details", "--oneliner", "show", "job", number)
    return jobs.job(environ, details, _scontrol("show", "config"))


def _scontrol(*words: str) -> str:
    """The output of scontrol; empty if it fails."""
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
    """Hand a script over; returns the job's number, and what else Slurm says."""
    try:
        done = subprocess.run(
            ["sbatch", "--parsable"], input=os.fsencode(script), capture_output=True, check=False
        )
    except FileNotFoundError:
        raise GpuboxError(
            "there is no Slurm on this machine: no program sbatch",
            "log in to a node of the cluster; --print shows the script; gpubox run needs no Slurm",
        ) from None
    notes = "; ".join(done.stderr.decode(errors="replace").splitlines())
    notes = re.sub(r"(sbatch|error|Batch job submission failed): ", "", notes)
    if done.returncode:
        raise GpuboxError(
            f"Slurm does not take the job: {notes[:1].lower()}{notes[1:]}",
            "sinfo -o '%P %l %D %c %m %G' shows what there is",
        )
    return done.stdout.decode().strip().partition(";")[0], notes
