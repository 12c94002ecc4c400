"""`jupyter`: a box with Jupyter in it, waited for until its URL works."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from gpubox.cli.app import App
from gpubox.cli.start import go
from gpubox.cli.words import Request, command, request
from gpubox.errors import GpuboxError, UsageError

if TYPE_CHECKING:
    from gpubox.engine import Engine
    from gpubox.launch import Launch, Started
    from gpubox.plan import Facts

_JUPYTER_SECONDS = 120


def jupyter(app: App, parameters: dict[str, Any]) -> int:
    from gpubox.jupyter import new_token

    words = parameters["words"]
    if len(words) > 1:
        raise UsageError(
            f"jupyter takes no COMMAND, and '{words[1]}' stands behind '{words[0]}'",
            f"gpubox run {shlex.join(words)}",
        )
    made = request(app, parameters, words, {}, default="default_jupyter")
    ask = replace(
        made.ask,
        kind="jupyter",
        detach=True,
        token=new_token(),
        port=parameters["port"],
        public=parameters["public"],
    )
    if parameters["public"]:
        app.screen.warn(
            "--public publishes Jupyter on all interfaces of this machine, past its firewall:"
            " Docker's ports do not ask ufw"
        )
    return go(replace(made, ask=ask, stays=not parameters["detach"]), _conduct)


def _conduct(request: Request, launch: Launch, facts: Facts) -> int:
    """Start Jupyter, wait until it answers, print its URL; in the foreground follow its log."""
    from gpubox import jupyter
    from gpubox.plan import JUPYTER_KEY, JUPYTER_PORT

    screen, engine = request.app.screen, launch.engine
    started = launch.detached(facts)
    box, plan = started.box, started.plan
    address, port = engine.published(box, JUPYTER_KEY) or ("127.0.0.1", JUPYTER_PORT)
    if not plan.port_by_caller and port != JUPYTER_PORT:
        screen.say(f"port {JUPYTER_PORT} is taken: Jupyter is on {port}")
    screen.say(f"waiting for Jupyter in {plan.name}")
    with _stopped_on_failure(engine, box):
        _wait_for_jupyter(engine, started, address, port)
        if line := jupyter.tunnel(request.app.caller.environ, request.app.caller.name, port):
            screen.say(f"on your own machine first: {line}")
    url = jupyter.url(address, port, request.ask.token or "")
    if request.stays:
        return _follow(request, engine, started, url)
    click.echo(url)
    screen.say(f"stop it: docker stop {plan.name}")
    return 0


def _wait_for_jupyter(engine: Engine, started: Started, address: str, port: int) -> None:
    import time

    from gpubox import jupyter

    deadline = time.monotonic() + _JUPYTER_SECONDS
    ready = jupyter.wait_until_ready(
        address, port, alive=lambda: engine.is_running(started.box), deadline=deadline
    )
    if not ready:
        log = engine.log(started.box, lines=15).decode(errors="replace").rstrip()
        ended = "has ended" if not engine.is_running(started.box) else "does not answer"
        raise GpuboxError(f"Jupyter in {started.plan.name} {ended}; its last words:", log)
    if jupyter.lets_anybody_in(address, port):
        raise GpuboxError(
            f"Jupyter in {started.plan.name} lets anybody in without a token, so it was stopped",
            "its image or command switches the token off: leave out the option that does",
        )


@contextmanager
def _stopped_on_failure(engine: Engine, box: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        engine.stop(box)
        raise


def _follow(request: Request, engine: Engine, started: Started, url: str) -> int:
    """Say the URL and follow the log until Jupyter ends; Ctrl-C stops it."""
    name = started.plan.name
    try:
        click.echo(url)
        request.app.screen.say(f"Ctrl-C stops it; {name} and its files are kept")
        for part in engine.follow_log(started.box):
            sys.stderr.buffer.write(part)
            sys.stderr.buffer.flush()
    except KeyboardInterrupt:
        request.app.screen.say(f"stopping {name}")
        engine.stop(started.box)
        return 0
    return int(engine.state(started.box)["ExitCode"])


jupyter_command = command(
    "jupyter",
    jupyter,
    """Jupyter in a box, and the URL that works.

    It listens on 127.0.0.1 only, and asks for a token that is new for each box.
    """,
    [
        click.Option(["--port"], type=click.IntRange(1, 65535), help="Exactly this port of yours."),
        click.Option(["--public"], is_flag=True, help="Listen on all interfaces."),
    ],
)
