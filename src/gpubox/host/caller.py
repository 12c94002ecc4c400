"""Looks who runs gpubox, where, and what their standard streams are."""

from __future__ import annotations

import os
from pathlib import Path

from gpubox.errors import GpuboxError, why
from gpubox.host.accounts import group_name, user_name
from gpubox.plan.facts import Caller
from gpubox.screen.standard import window_size


def caller() -> Caller:
    """Who runs gpubox here, with which streams."""
    uid = os.getuid()
    try:
        folder = Path.cwd()
    except OSError as error:
        raise GpuboxError(f"the current folder: {why(error)}", "cd to one that is there") from None
    return Caller(
        name=user_name(uid),
        uid=uid,
        gid=os.getgid(),
        groups={gid: group_name(gid) for gid in (os.getgid(), *os.getgroups())},
        home=Path.home(),
        folder=folder,
        environ=dict(os.environ),
        stdin_is_terminal=os.isatty(0),
        stdout_is_terminal=os.isatty(1),
        rows_columns=window_size(1) or window_size(0),
    )
