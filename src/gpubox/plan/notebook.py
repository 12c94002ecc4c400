"""What makes a box a notebook's: how Jupyter is started, in which folder, and as whom.

Every image gets the same command, because an image's own might start Jupyter without a token. Pure;
knows no Docker and no HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

PORT = 8888
KEY = f"{PORT}/tcp"
TOKEN = "JUPYTER_TOKEN"
BENEATH = {"workspace": ".", "user": "host"}
"""Settings if the profile has none: notebooks are kept on the host, and belong to the caller."""

# JupyterLab if the image has it, else the classic notebook: only a shell in the box can tell.
_START = 'command -v jupyter-lab >/dev/null && exec jupyter-lab "$@"; exec jupyter notebook "$@"'


def server(*, address: str, port: int) -> tuple[str, ...]:
    """The command that starts Jupyter in the box's working folder.

    Jupyter takes its token from the variable that TOKEN names.
    """
    return (
        *("sh", "-c", _START, "jupyter"),
        *(f"--ip={address}", f"--port={port}", "--port-retries=0"),
        *("--notebook-dir=.", "--no-browser", "--allow-root"),
    )


def is_server(command: Sequence[str]) -> bool:
    """Whether it is this command, perhaps as another version of gpubox wrote it."""
    return list(command[:2]) == ["sh", "-c"] and list(command[3:4]) == ["jupyter"]


def listens(log: str) -> bool | None:
    """Whether Jupyter got its port, by its log since the start; None while it is still trying."""
    if re.search(r"port \d+ is not available|no available port", log):
        return False
    return True if " is running at" in log else None


def notes(folder: str | None, home: str) -> tuple[str, ...]:
    """What a person should know of the folder in which their notebooks are."""
    if folder == home:
        return (
            f"the workspace is all of {folder}, with keys and passwords in it;"
            " --workspace DIR takes less",
        )
    return ()


def stacks(name: str, uid: int, gid: int) -> dict[str, str]:
    """Variables that tell Jupyter's Docker Stacks who the caller is.

    Without them those images, started as root, switch to a user of their own.
    """
    return {"NB_USER": name, "NB_UID": str(uid), "NB_GID": str(gid)}
