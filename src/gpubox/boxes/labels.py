"""The labels by which an engine knows a box and what belongs to it: the only state there is.

Pure. What the GPUs in a label mean, and a claim to them, is for `claims` to say.
"""

from __future__ import annotations

from collections.abc import Mapping

PREFIX = "gpubox."
VERSION, PROFILE, KIND = f"{PREFIX}version", f"{PREFIX}profile", f"{PREFIX}kind"
OWNER, FOLDER = f"{PREFIX}owner", f"{PREFIX}folder"
GPUS, CLAIM = f"{PREFIX}gpus", f"{PREFIX}claim"
JOB, RESTARTS = f"{PREFIX}job", f"{PREFIX}restarts"  # Slurm's, and how often it has restarted that
TICKET = f"{PREFIX}ticket"  # of a container that stands for the box of this id


def are_own(labels: Mapping[str, str]) -> bool:
    """Whether they are a box's, or a ticket's."""
    return bool(labels.get(VERSION))


def are_a_box(labels: Mapping[str, str]) -> bool:
    return are_own(labels) and TICKET not in labels


def own(labels: Mapping[str, str]) -> dict[str, str]:
    """Those of them that are gpubox's."""
    return {name: text for name, text in labels.items() if name.startswith(PREFIX)}
