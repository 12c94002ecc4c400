"""What makes a box a notebook's: how Jupyter is started, in which folder, and as whom.

The same for every image, so that none brings a way of its own without a token. Pure; knows no
Docker and no HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

PORT = 8888
KEY = f"{PORT}/tcp"
TOKEN = "JUPYTER_TOKEN"
BENEATH = {"workspace": ".", "user": "host"}
"""What holds where a profile says nothing of it: work is kept, and its files are the caller's."""

# JupyterLab where the image has it, else the classic notebook: asked of the image itself.
_START = 'command -v jupyter-lab >/dev/null && exec jupyter-lab "$@"; exec jupyter notebook "$@"'


def server(*, address: str, port: int) -> tuple[str, ...]:
    """The command that starts Jupyter where the box starts; its token is in the environment."""
    return (
        *("sh", "-c", _START, "jupyter"),
        *(f"--ip={address}", f"--port={port}", "--port-retries=0"),
        *("--notebook-dir=.", "--no-browser", "--allow-root"),
    )


def is_server(command: Sequence[str]) -> bool:
    """Whether it is this command, perhaps in the words of another version."""
    return list(command[:2]) == ["sh", "-c"] and list(command[3:4]) == ["jupyter"]


def listens(log: str) -> bool | None:
    """Whether Jupyter has its port, by what it said since its start; None as long as it tries."""
    if re.search(r"port \d+ is not available|no available port", log):
        return False
    return True if " is running at" in log else None


def notes(folder: str | None, home: str) -> tuple[str, ...]:
    """What a person should know of the folder they work in."""
    if folder == home:
        return (
            f"the workspace is all of {folder}, with keys and passwords in it;"
            " --workspace DIR takes less",
        )
    return ()


def stacks(name: str, uid: int, gid: int) -> dict[str, str]:
    """How Jupyter's own Docker Stacks are told who the caller is: else root becomes their user."""
    return {"NB_USER": name, "NB_UID": str(uid), "NB_GID": str(gid)}
