"""Where the notebook is: its token, whether it answers, the URL and the tunnel that reach it.

Speaks HTTP to Jupyter; knows no Docker and no profile.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException

_PAUSE_SECONDS = 0.1
_ANSWER_SECONDS = 5
_LONGEST = 65536  # bytes of an answer that are read


def new_token() -> str:
    """A token nobody can guess: 192 random bits in hex."""
    return secrets.token_hex(24)


def url(address: str, port: int, token: str) -> str:
    """The address to open: `/?token=` leads to Lab and to the classic notebook alike."""
    host = _reachable(address)
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{port}/?token={token}"


def wait_until_ready(
    address: str, port: int, *, alive: Callable[[], bool], deadline: float
) -> bool:
    """Ask until Jupyter answers, the box is dead, or `deadline` (monotonic seconds) has passed.

    An open port says nothing: Docker's proxy accepts before Jupyter listens. `/api` needs no token.
    """
    return wait_until(lambda: _answers(address, port), alive=alive, deadline=deadline)


def wait_until(
    condition: Callable[[], bool], *, alive: Callable[[], bool], deadline: float
) -> bool:
    """Ask again and again until it holds, the box is dead, or `deadline` has passed."""
    while alive() and time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(_PAUSE_SECONDS)
    return False


def lets_anybody_in(address: str, port: int, seconds: float) -> bool:
    """Whether a Jupyter answers there and shows its state without a token; False if none does."""
    status, body = _answer(address, port, "/api/status", seconds)
    try:
        return status == 200 and "kernels" in json.loads(body)
    except (ValueError, TypeError):
        return False


def tunnel(
    environ: Mapping[str, str], user: str, port: int, ssh_host: str | None = None, *, node: str = ""
) -> str | None:
    """The `ssh` line for the person's own machine, if they came here by ssh.

    SSH_CONNECTION is `CLIENT CLIENT_PORT SERVER SERVER_PORT`; `ssh_host` is the name that reaches
    this machine from elsewhere, where its address does not. A job is on a `node` of a cluster, and
    its SSH_CONNECTION that of the shell which asked for it: the way leads through there.
    """
    parts = environ.get("SSH_CONNECTION", "").split()
    known, forward = len(parts) == 4, f"ssh -N -L {port}:127.0.0.1:{port}"
    if node:
        other_port = f":{parts[3]}" if known and parts[3] != "22" else ""
        jump = f" -J {user}@{parts[2]}{other_port}" if known else ""
        return f"{forward}{jump} {user}@{ssh_host or node}"
    if not known:
        return None
    other_port = f" -p {parts[3]}" if parts[3] != "22" and not ssh_host else ""
    return f"{forward}{other_port} {user}@{ssh_host or parts[2]}"


def open_in_browser(url: str, environ: Mapping[str, str]) -> bool:
    """Open a browser that has a display, or that BROWSER names; False where there is none."""
    if not any(environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")):
        return False  # or a browser for text would take the terminal
    import webbrowser

    return webbrowser.open(url)


def _reachable(address: str) -> str:
    """Where somebody on this machine reaches what listens on `address`."""
    return "127.0.0.1" if address in ("", "0.0.0.0", "::") else address


def _answers(address: str, port: int) -> bool:
    return _answer(address, port, "/api", _ANSWER_SECONDS)[0] == 200


def _answer(address: str, port: int, path: str, seconds: float) -> tuple[int | None, bytes]:
    """The status and the beginning of the body; None where nobody speaks HTTP in time."""
    connection = HTTPConnection(_reachable(address), port, timeout=seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(_LONGEST)
    except (OSError, HTTPException):
        return None, b""
    finally:
        connection.close()
