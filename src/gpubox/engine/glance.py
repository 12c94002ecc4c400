"""The boxes and the images' names of an engine on this machine, for the completion of a word.

Loads no docker-py, which takes longer than a keystroke may, and does not wait: an engine that is
elsewhere, silent or not there counts as empty. Everything else is asked by `engine`.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from gpubox import values
from gpubox.boxes import labels
from gpubox.engine.contexts import Endpoint
from gpubox.gpus import claims
from gpubox.gpus.holders import Container

_ANSWER_SECONDS = 0.3
_BOXES = f"/containers/json?filters=%7B%22label%22%3A%5B%22{labels.VERSION}%22%5D%7D"


def boxes(endpoint: Endpoint, *, stopped: bool) -> list[Container]:
    """The boxes, whoever started them, the latest first."""
    listed = _asked(endpoint, f"{_BOXES}&all={stopped:d}")
    return [_box(item) for item in listed if labels.are_a_box(item["Labels"])]


def images(endpoint: Endpoint) -> list[str]:
    listed = _asked(endpoint, "/images/json")
    names = [name for item in listed for name in item.get("RepoTags") or ()]
    return [values.familiar(name) for name in names if name != "<none>:<none>"]


def _box(item: dict[str, Any]) -> Container:
    said = item["Labels"]
    return Container(
        id=item["Id"],
        name=item["Names"][0].lstrip("/"),
        box=True,
        owner=said.get(labels.OWNER, ""),
        gpus=claims.of_label(said.get(labels.GPUS, "")),
        state=item["State"],
    )


def _asked(endpoint: Endpoint, question: str) -> list[dict[str, Any]]:
    """The list that the engine answers with; an empty one where it does not answer."""
    try:
        answer = json.loads(_body(endpoint.socket, question)) if endpoint.socket else []
    except (OSError, ValueError):
        return []
    return answer if isinstance(answer, list) else []  # a refusal is an object


def _body(path: str, question: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as engine:
        engine.settimeout(_ANSWER_SECONDS)
        engine.connect(path)
        # HTTP/1.0, so that the answer ends with the connection
        engine.sendall(f"GET {question} HTTP/1.0\r\nHost: engine\r\n\r\n".encode())
        with engine.makefile("rb") as answer:
            return answer.read().partition(b"\r\n\r\n")[2]
