"""`jupyter`: a box with Jupyter in it, waited for until its URL works."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct
from msgspec.structs import replace

from gpubox.boxes import inspection
from gpubox.cli.app import App, flags
from gpubox.cli.reach import say_ports, say_tunnel
from gpubox.cli.start import go, say_notes
from gpubox.cli.words import Request, command, request
from gpubox.errors import EngineError, GpuboxError, UsageError
from gpubox.plan import notebook

if TYPE_CHECKING:
    from gpubox.boxes.box import Box
    from gpubox.boxes.launch import Launch
    from gpubox.engine.engine import Engine
    from gpubox.plan.facts import Facts
    from gpubox.plan.plan import Plan

_JUPYTER_SECONDS, _PULSE_SECONDS = 300, 10
_OTHER = "--new makes another on a GPU that is free"


class Wish(Struct, frozen=True):
    """What is wanted of the notebook itself.

    `new`: another box, though there is one. `opened`: in a browser. `stays`: in the foreground.
    `settled`: options were typed that only a new box can have.
    """

    new: bool
    opened: bool
    stays: bool
    settled: bool


class Server(Struct, frozen=True):
    """A box that is to serve Jupyter, and where."""

    box: str
    name: str
    served: inspection.Served

    @property
    def url(self) -> str:
        from gpubox.boxes import jupyter

        return jupyter.url(self.served.address, self.served.port, self.served.token)


def _server(engine: Engine, box: str, name: str) -> Server:
    return Server(box, name, inspection.served(engine.inspect(box)))


def jupyter(app: App, parameters: dict[str, Any]) -> int:
    from gpubox.boxes.jupyter import new_token

    words, job = parameters["words"], app.job
    if len(words) > 1:
        raise UsageError(
            f"jupyter takes no COMMAND, and '{words[1]}' stands behind '{words[0]}'",
            f"gpubox run {shlex.join(words)}",
        )
    made = request(
        app, parameters, words, {}, default="default_jupyter", beneath=notebook.BENEATH, job=job
    )
    if job:
        from gpubox.slurm import commands

        for end in commands.ENDS:  # what ends a job stops Jupyter, as Ctrl-C does
            signal.signal(end, signal.default_int_handler)
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
    wish = Wish(
        new=parameters["new"] or ask.name is not None,
        opened=parameters["open"],
        stays=not parameters["detach"],
        settled=bool(flags(parameters)) or ask.public,
    )
    resume = None if wish.new else partial(_resume, wish)
    return go(replace(made, ask=ask), partial(_conduct, wish), resume)


def _conduct(wish: Wish, request: Request, launch: Launch, facts: Facts) -> int:
    """Start Jupyter, wait until it answers, print its URL; in the foreground stay."""
    return _serve(wish, request, launch.engine, _made(request, launch, facts))


def _resume(wish: Wish, request: Request, engine: Engine) -> Callable[[Launch], int] | None:
    """What to do with the caller's notebook of this profile and folder, if there is one."""
    box = _mine(request, engine)
    return partial(_resumed, wish, request, box) if box else None


def _resumed(wish: Wish, request: Request, box: Box, launch: Launch) -> int:
    engine = launch.engine
    if box.state != "running":
        return _serve(wish, request, engine, _again(wish, request, launch, box))
    server = _found(wish, request, engine, box)
    request.app.screen.say(f"{box.name} runs already; --new makes another")
    _wait_for_jupyter(request, engine, server)
    return _print_url(wish, request, engine, server)


def _serve(wish: Wish, request: Request, engine: Engine, server: Server) -> int:
    screen = request.app.screen
    if not wish.stays:
        _print_url(wish, request, engine, server)
        screen.say(f"stop it: gpubox stop {server.name}")
        return 0
    return _follow(wish, request, engine, server)


# --- the one that is there


def _mine(request: Request, engine: Engine) -> Box | None:
    """The caller's notebook of this profile and folder: one that runs, else the latest."""
    job = request.job.id if request.job else ""
    mine = request.mine(engine.boxes(stopped=True), "jupyter")
    found = [box for box in mine if box.state in ("running", "exited") and box.job == job]
    return next((box for box in found if box.state == "running"), next(iter(found), None))


def _found(wish: Wish, request: Request, engine: Engine, box: Box) -> Server:
    """Where that notebook is; an error if the person has asked for another port."""
    server, asked = _server(engine, box.id, box.name), request.ask.port
    if asked and asked != server.served.port:
        raise GpuboxError(
            f"{box.name}, your notebook of this folder, has port {server.served.port}, not {asked}",
            f"gpubox jupyter --new --port {asked} makes another",
        )
    if wish.settled:
        request.app.screen.warn(f"{box.name} stays as it was made; --new makes one as asked")
    return server


def _again(wish: Wish, request: Request, launch: Launch, box: Box) -> Server:
    """Start a stopped notebook; its port stays its own."""
    from gpubox.boxes.again import Again
    from gpubox.screen.signals import Signals

    engine = launch.engine
    server = _found(wish, request, engine, box)
    request.app.screen.say(f"starting {box.name} again; --new makes another")
    request.app.refuse_to_start_past_slurm([box])
    facts = request.app.surveyed(launch.race, [box])
    with Signals() as signals:
        Again(launch.race.heeding(signals), facts, _OTHER).start(box)
    with _stopped_on_failure(engine, box.id):
        # asked again: a port that the engine chose is another one after each start
        server = _server(engine, box.id, box.name)
        request.app.screen.say(f"waiting for Jupyter in {box.name}")
        _wait_for_jupyter(request, engine, server)
    return server


# --- a new one


class PortHeld(GpuboxError):
    """Jupyter did not get its port, in a box with the host's own network."""


def _made(request: Request, launch: Launch, facts: Facts) -> Server:
    """Start a new one; with the host's own network, on the next port until one is not taken."""
    engine, screen = launch.engine, request.app.screen
    while True:
        started = launch.detached(facts)
        plan = started.plan
        server = _server(engine, started.box, plan.name)
        port = server.served.port
        screen.say(f"waiting for Jupyter in {server.name}")
        try:
            with _stopped_on_failure(engine, started.box):
                _wait_for_jupyter(request, engine, server, plan)
        except PortHeld:
            engine.remove(started.box)
            if plan.port_by_caller:
                raise
            facts = replace(facts, jupyter_port=port + 1)
            continue
        if not plan.port_by_caller and port != notebook.PORT:
            screen.say(f"port {notebook.PORT} is taken: Jupyter is on {port}")
        say_notes(request, plan)
        return server


def _wait_for_jupyter(
    request: Request, engine: Engine, server: Server, plan: Plan | None = None
) -> None:
    """Wait until it answers, and to nobody without the token; `plan` is that of a new box."""
    from gpubox.boxes import jupyter

    address, port = server.served.address, server.served.port
    deadline = time.monotonic() + _JUPYTER_SECONDS
    alive = _pulse(request, engine, server)
    if not server.served.published:
        # else somebody's Jupyter that has this port would be taken for ours
        _wait_for_port(engine, server, alive, deadline)
    if not jupyter.wait_until_ready(address, port, alive=alive, deadline=deadline):
        raise _no_answer(request, engine, server, plan)
    if jupyter.lets_anybody_in(address, port, seconds=_JUPYTER_SECONDS):
        engine.stop(server.box)
        raise GpuboxError(
            f"Jupyter in {server.name} lets anybody in without a token, so it was stopped",
            "its image or command switches the token off: leave out the option that does",
        )


def _wait_for_port(
    engine: Engine, server: Server, alive: Callable[[], bool], deadline: float
) -> None:
    from gpubox.boxes import jupyter
    from gpubox.boxes.ports import port_holder

    def has_port() -> bool:
        listens = notebook.listens(engine.log_of_this_run(server.box))
        if listens is False:
            port = server.served.port
            raise PortHeld(
                f"port {port} is taken by {port_holder(engine, port) or 'another program'}",
                "take another port with --port",
            )
        return bool(listens)

    if not jupyter.wait_until(has_port, alive=alive, deadline=deadline):
        has_port()  # a box that has ended may have said that the port is taken


def _pulse(request: Request, engine: Engine, server: Server) -> Callable[[], bool]:
    """A function that tells whether the box runs, and now and then shows its last line."""
    began = due = time.monotonic()

    def alive() -> bool:
        nonlocal due
        now = time.monotonic()
        if now > due + _PULSE_SECONDS:
            due = now
            last = engine.log(server.box, lines=1).strip()
            request.app.screen.say(f"  {now - began:.0f} s: {last[:100]}")
        return engine.is_running(server.box)

    return alive


def _no_answer(request: Request, engine: Engine, server: Server, plan: Plan | None) -> GpuboxError:
    end = engine.end(server.box)
    if end and end[0] == 127 and plan and "jupyter" in end[1]:
        engine.remove(server.box)
        instead = request.app.config.default("default_jupyter")
        other = f"the profile '{instead}' has it; " if instead != plan.profile else ""
        whose = " for you" if plan.as_caller else ""
        closed = "; if it is for root alone: --user root" if whose else ""
        return GpuboxError(
            f"there is no Jupyter{whose} in {plan.image}",
            f"{other}or add it: gpubox run {plan.profile}, in it pip install jupyterlab, then"
            f" gpubox save{closed}",
        )
    log = end[1] if end else engine.log(server.box, lines=15)
    ended = "has ended" if end else f"does not answer after {_JUPYTER_SECONDS} s"
    words = log.rstrip()
    return GpuboxError(
        f"Jupyter in {server.name} {ended}" + ("; its last words:" if words else ""), words
    )


@contextmanager
def _stopped_on_failure(engine: Engine, box: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(EngineError):  # a box without a Jupyter is removed already
            engine.stop(box)
        raise


# --- the URL


def _print_url(wish: Wish, request: Request, engine: Engine, server: Server) -> int:
    from gpubox.boxes import jupyter

    app, url = request.app, server.url
    others = inspection.published_ports(engine.inspect(server.box))
    others.pop(notebook.KEY, None)
    say_ports(app, others)
    say_tunnel(app, server.served.port, "on your own machine first: ")
    click.echo(url)
    if wish.opened and not jupyter.open_in_browser(url, app.caller.environ):
        app.screen.say("no browser here to open it with: no display, and BROWSER is not set")
    return 0


def _follow(wish: Wish, request: Request, engine: Engine, server: Server) -> int:
    """Say the URL and follow the log until Jupyter ends; Ctrl-C stops it."""
    screen, name = request.app.screen, server.name
    try:
        _print_url(wish, request, engine, server)
        kept = "" if request.profile.rm else f"; {name} and its files are kept"
        screen.say(f"Ctrl-C stops it{kept}")
        # from now on: the whole log would push what was printed out of the window
        for _, part in engine.logs(server.box, follow=True, lines=0):
            sys.stderr.buffer.write(part)
            sys.stderr.buffer.flush()
    except KeyboardInterrupt:
        screen.say(f"stopping {name}")
        engine.stop(server.box, *([request.job.grace] if request.job else []))
        return 0
    code, _ = engine.end(server.box) or (0, "")
    return code


jupyter_command = command(
    "jupyter",
    jupyter,
    """Jupyter in a box, and the URL that works.

    It listens on 127.0.0.1 only, and asks for a token that is new for each box. The current folder
    is the notebooks' folder. Called again there, it gives the URL of the same box.
    """,
    [
        click.Option(["--port"], type=click.IntRange(1, 65535), help="Exactly this port of yours."),
        click.Option(["--public"], is_flag=True, help="Listen on all interfaces."),
        click.Option(["--new"], is_flag=True, help="Another box, though there is one."),
        click.Option(["--open/--no-open"], default=False, help="Open the URL in a browser."),
    ],
)
