"""A box's processes on an engine: their streams, signals, ends and logs."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from datetime import datetime
from typing import Any

import docker.errors
import msgspec
import requests.exceptions

from gpubox.boxes.inspection import has_terminal
from gpubox.engine.connection import translated
from gpubox.engine.containers import Containers
from gpubox.engine.faults import explain
from gpubox.engine.streams import STDOUT, Frames
from gpubox.errors import EngineError


class Hijacked(msgspec.Struct, frozen=True):
    """A connection that became a box's streams. `early` is output that came with the HTTP answer.

    `answer` must be kept: docker-py closes the socket when nobody holds it any more.
    """

    socket: socket.socket
    early: bytes
    answer: object

    def hang_up(self) -> None:
        """Close the connection: an engine cannot end a box whose output waits to be read."""
        with suppress(OSError):  # the other end may be gone already
            self.socket.shutdown(socket.SHUT_RDWR)


class Exec(msgspec.Struct, frozen=True):
    """A process to start in a running box; an empty field is taken from the box."""

    command: tuple[str, ...]
    tty: bool = False
    stdin: bool = False
    user: str = ""
    folder: str = ""
    variables: tuple[str, ...] = ()


class Exit:
    """A box's next end: the descriptor is readable once it has ended."""

    def __init__(self, box: str, answer: Any) -> None:
        self.box, self.answer = box, answer

    def fileno(self) -> int:
        return int(self.answer.raw._fp.fp.fileno())

    def code(self) -> int:
        """The command's exit code; waits for it."""
        with translated(self.box):
            body = json.loads(self.answer.content)
        if problem := (body.get("Error") or {}).get("Message"):
            raise explain(problem, self.box)
        return int(body["StatusCode"])


class Processes(Containers):
    """The calls by which an engine attaches to processes, starts and signals them."""

    def attach(self, box: str, image: str, *, stdin: bool) -> Hijacked:
        """Attach to a box's streams; before it starts, so that nothing of its output is lost.

        Podman prepares the box's process already here, and says here what keeps it from starting.
        """
        wanted: dict[str, int | str] = {"stream": 1, "stdout": 1, "stderr": 1, "stdin": int(stdin)}
        wanted["detachKeys"] = self.detach_keys
        with translated(image):
            return _hijacked(self.api.attach_socket(box, params=wanted))

    def exec(self, box: str, wanted: Exec) -> str:
        """Create another process in a running box, not yet started; its id."""
        with translated(box):
            made = self.api.exec_create(
                box,
                list(wanted.command),
                tty=wanted.tty,
                stdin=wanted.stdin,
                user=wanted.user,
                workdir=wanted.folder or None,
                environment=list(wanted.variables),
                detach_keys=self.detach_keys,
            )
        return str(made["Id"])

    def exec_start(self, process: str, image: str, *, tty: bool) -> Hijacked:
        """Start such a process; its streams."""
        with translated(image):
            return _hijacked(self.api.exec_start(process, tty=tty, socket=True))

    def exec_end(self, process: str, box: str) -> int | None:
        """Its exit code; None while it runs."""
        with translated(box):
            found = self.api.exec_inspect(process)
        return None if found["Running"] or found["ExitCode"] is None else int(found["ExitCode"])

    def exec_resize(self, process: str, rows: int, columns: int) -> bool:
        return self._resized(self.api.exec_resize, process, rows, columns)

    def resize(self, box: str, rows: int, columns: int) -> bool:
        """Tell a box's terminal its size; False where its process does not run yet."""
        return self._resized(self.api.resize, box, rows, columns)

    @staticmethod
    def _resized(resize: Callable[..., None], target: str, rows: int, columns: int) -> bool:
        try:
            resize(target, height=rows, width=columns)
        except (docker.errors.APIError, requests.exceptions.RequestException):
            return False
        return True

    def run_in(self, box: str, *command: str) -> int:
        """Run a program in a running box, as its root and to its end: the exit code."""
        with translated(box):
            made = self.api.exec_create(box, list(command), user="0")["Id"]
            self.api.exec_start(made)
            return int(self.api.exec_inspect(made)["ExitCode"])

    def programs(self, box: str) -> list[str]:
        """The command lines of a box's processes; empty where it does not run."""
        with suppress(EngineError), translated(box):
            return [str(process[-1]) for process in self.api.top(box)["Processes"] or ()]
        return []

    def signal(self, box: str, name: str) -> None:
        """Send a signal (`SIGTERM`) to the box; one that has ended is no error."""
        with suppress(docker.errors.APIError, requests.exceptions.RequestException):
            self.api.kill(box, signal=name)

    # --- how it ended

    def exit_of(self, box: str) -> Exit:
        """Begin to wait for the box's next end.

        Before its start, for the end of a box that ends at once would be missed.
        """
        with translated(box):
            url = self.api._url("/containers/{0}/wait", box)
            answer = self.api._post(
                url, params={"condition": "next-exit"}, timeout=None, stream=True
            )
            self.api._raise_for_status(answer)
        return Exit(box, answer)

    def end(self, box: str) -> tuple[int, str] | None:
        """A box's last exit code and the end of its log; None while it runs."""
        try:
            state = self.state(box)
        except EngineError:  # it is gone, and its log with it
            died = self._past_events(box, "die")
            return int(died[-1]["Actor"]["Attributes"]["exitCode"]) if died else 0, ""
        if state["Running"] and not state.get("Restarting"):
            return None
        log = ""
        with suppress(EngineError):  # the box's log driver may send it elsewhere
            log = self.log(box, lines=9)
        return int(state["ExitCode"]), log

    def out_of_memory(self, box: str, patience: float = 0) -> bool:
        """Whether the box, or a process in it, was killed for want of memory.

        Read from the engine's events, which are there even if the box is removed. One may come
        after the box's end: `patience` is for how many seconds it is waited for.
        """
        return bool(self._past_events(box, "oom", patience))

    def _past_events(self, box: str, kind: str, patience: float = 0) -> list[Mapping[str, Any]]:
        wanted = {"container": [box], "event": [kind]}
        with translated(box):
            until = f"{time.time() + patience:.9f}"
            return list(self.api.events(since=0, until=until, filters=wanted, decode=True))

    # --- what it said

    def log(self, box: str, *, lines: int | None = None, since: float | None = None) -> str:
        """The end of a box's output, both streams in one."""
        parts = self.logs(box, lines=lines, since=since)
        return b"".join(part for _, part in parts).decode(errors="replace")

    def log_of_this_run(self, box: str) -> str:
        """What a box has said since it was started last."""
        started = datetime.fromisoformat(f"{self.state(box)['StartedAt'][:26]}+00:00")
        return self.log(box, since=started.timestamp())

    def logs(
        self,
        box: str,
        *,
        follow: bool = False,
        lines: int | None = None,
        since: float | None = None,
        times: bool = False,
    ) -> Iterator[tuple[int, bytes]]:
        """A box's output in pieces, each with its stream: 1 (output) or 2 (error).

        A box with a terminal has only 1. With `follow` it goes on until the box ends. `since` is in
        Unix seconds.
        """
        options = {"follow": int(follow), "timestamps": int(times), "tail": lines, "since": since}
        asked = {name: value for name, value in options.items() if value is not None}
        wanted = {"stdout": 1, "stderr": 1, **asked}
        framed = not has_terminal(self.inspect(box))
        with translated(box):
            url = self.api._url("/containers/{0}/logs", box)
            answer = self.api._get(url, params=wanted, stream=True, timeout=None)
            with closing(answer):
                self.api._raise_for_status(answer)
                frames = Frames()
                for data in answer.raw.stream(1 << 16):
                    if framed:
                        yield from ((stream, bytes(part)) for stream, part in frames.pieces(data))
                    else:
                        yield STDOUT, data


def _hijacked(answer: Any) -> Hijacked:
    early = _early(answer)
    plain = getattr(answer, "_sock", answer)
    if not isinstance(plain, socket.socket):
        raise EngineError("the foreground over this connection is not possible", "use -d")
    return Hijacked(plain, early, answer)


def _early(hijacked: Any) -> bytes:
    """Output that came in one packet with the answer's headers and waits in http.client's buffer.

    docker-py hands out the socket beneath that buffer, so these bytes would be lost.
    """
    plain = getattr(hijacked, "_sock", hijacked)
    plain.settimeout(0)
    try:
        return bytes(hijacked._response.raw._fp.fp.read1(262144) or b"")
    except (AttributeError, BlockingIOError, ssl.SSLWantReadError):
        return b""
