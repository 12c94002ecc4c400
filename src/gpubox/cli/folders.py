"""The caller's folders and a start: what speaks against mounting them, what a box does not see.

Asks this machine; `checks` judges.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from shutil import which
from typing import TYPE_CHECKING

from gpubox import checks
from gpubox.errors import EngineError
from gpubox.host import paths
from gpubox.profile.layers import BUILT_IN, COMMAND_LINE
from gpubox.values import Mount

if TYPE_CHECKING:
    from gpubox.cli.words import Request
    from gpubox.engine.contexts import Endpoint
    from gpubox.plan.plan import Plan


def against(request: Request, plan: Plan) -> Iterator[checks.Check]:
    """What cannot be mounted as it is meant, and what is doubtful about it."""
    endpoint = request.app.endpoint
    return checks.of_sources(
        [_source(request, mount, endpoint.local) for mount in plan.folders()],
        sockets=_sockets(endpoint),
        mountinfo=paths.mountinfo(),
        as_caller=plan.as_caller is not None,
    )


def _source(request: Request, mount: Mount, local: bool) -> checks.Source:
    use, key = _use(request, mount)
    where = request.profile.where(key, mount.target)
    return checks.Source(
        mount,
        use,
        "" if where in (BUILT_IN, COMMAND_LINE) else f"{where}: {key}",
        paths.look(mount.source or "") if local else None,
    )


def _use(request: Request, mount: Mount) -> tuple[checks.Use, str]:
    """What a folder is mounted for, and the key that says so."""
    if mount == request.profile.workspace:
        return "workspace", "workspace"
    if mount.target in request.profile.said("volumes"):
        return "data" if mount.target in request.data else "volume", "volumes"
    return "data", "datasets"


def _sockets(endpoint: Endpoint) -> tuple[str, ...]:
    """The engine's sockets; on this machine also where their links lead."""
    if endpoint.socket is None:
        return checks.SOCKETS
    looks = {path: paths.look(path) for path in (endpoint.socket, *checks.SOCKETS)}
    real_paths = {path: seen.real for path, seen in looks.items() if not seen.trouble}
    return (*real_paths, *real_paths.values())


@contextmanager
def explained(request: Request, plan: Plan) -> Iterator[None]:
    """Where the box lacks a program that this machine has, the error's hint says why."""
    try:
        yield
    except EngineError as error:
        program = plan.program
        # an image's own entrypoint may be what is missing
        if error.exit_code != 127 or f"'{program}'" not in error.problem:
            raise
        hint = _whereabouts(program, request, plan) if request.app.endpoint.local else ""
        raise EngineError(error.problem, hint or error.hint, exit_code=127) from error


def _whereabouts(program: str, request: Request, plan: Plan) -> str:
    """A hint if this machine has the program; empty where it has none."""
    here = request.app.caller.folder
    seen = paths.look(str(here / program))
    if not program.startswith("/") and not seen.trouble and not seen.folder:
        return checks.of_program(program, str(here), plan.folders(), plan.working_dir, plan.image)
    return checks.of_host_program(program, plan.image) if which(program) else ""
