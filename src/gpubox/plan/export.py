"""A Plan as files of other tools: a Compose file, and a devcontainer.json.

Pure. What these cannot say is told in sentences; whoever starts them makes no claim on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from msgspec.structs import replace

from gpubox import values
from gpubox.errors import UsageError
from gpubox.plan import docker_words as say
from gpubox.plan.docker_words import EnvFile, Service
from gpubox.plan.plan import Plan
from gpubox.plan.translate import docker_run, hidden, said

_HERE = "${localWorkspaceFolder}"


# --- Compose


def compose(plan: Plan, folder: str) -> dict[str, Any]:
    """A Compose file with one service, for the folder: what is in it is named from there."""
    plan = _seen_from(plan, folder, ".")
    service = _escaped(say.service([_own(plan), *(it.compose(value) for it, value in said(plan))]))
    if secret := {name for name in hidden(plan) if name.isidentifier()}:
        service["environment"] = [
            f"{it}=${{{it}:?set it, or write it into .env}}" if it in secret else it
            for it in service["environment"]
        ]
    # by their own names, or Compose would put the project's in front
    volumes = {it.source: {"name": it.source} for it in plan.volumes if it.source and not it.bind}
    return {"services": {plan.name: service}} | ({"volumes": volumes} if volumes else {})


def _own(plan: Plan) -> Service:
    """What no setting of a profile says."""
    return _telling(
        {
            "image": plan.image,
            "container_name": plan.name if plan.named_by_caller else None,
            "command": list(plan.command),
            "stdin_open": plan.interactive or None,
            "tty": plan.tty or None,
            "group_add": list(plan.group_add),
        }
    )


def _escaped(part: Any) -> Any:
    """Compose reads variables in every value."""
    if isinstance(part, dict):
        return {key: _escaped(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_escaped(item) for item in part]
    return part.replace("$", "$$") if isinstance(part, str) else part


def compose_notes(plan: Plan, folder: str) -> Iterator[str]:
    yield from gpu_note(plan, "docker compose")
    yield from _left_out(plan)
    if plan.rm:
        yield "not in the file: --rm; docker compose run --rm removes, and docker compose down"
    if _seen_from(plan, folder, ".") != plan:
        yield f"paths that begin with . are seen from the file: keep it in {folder}"


# --- devcontainer.json


def devcontainer(plan: Plan, folder: str) -> dict[str, Any]:
    """What editors and the devcontainer CLI start; the folder is the one that they open.

    They have words for some settings, and take the others as those of `docker run`.
    """
    if uuids := [gpu for gpu in plan.gpus.gpus.ids if "-" in gpu]:
        raise UsageError(
            f"{uuids[0]} is a GPU of one machine, and a devcontainer.json is for any",
            "write --gpus all, a number, or indexes like device=0",
        )
    plan = _seen_from(plan, folder, _HERE)
    workspace = _workspace(plan)
    mounts = [it for it in plan.volumes if it != workspace and not it.relabels]
    forwarded = [it for it in plan.ports if it == values.Port(it.container)]
    others = replace(
        plan,
        environment=(),
        entrypoint=(),
        user=None,
        working_dir=None if workspace else plan.working_dir,
        volumes=tuple(it for it in plan.volumes if it.relabels),
        ports=tuple(it for it in plan.ports if it not in forwarded),
    )
    variables = {
        it.name: f"${{localEnv:{it.name}}}" if it.secret else it.value for it in plan.environment
    }
    return _telling(
        {
            "name": plan.profile,
            "image": plan.image,
            "workspaceMount": _mounted([workspace])[0] if workspace else None,
            "workspaceFolder": plan.working_dir if workspace else None,
            "mounts": _mounted(mounts),
            "containerEnv": variables,
            "containerUser": plan.user,
            # a name gets the number of whoever opens the folder; a number is meant as it is
            "updateRemoteUserUID": False if (plan.user or "")[:1].isdigit() else None,
            "forwardPorts": [it.container for it in forwarded],
            "runArgs": _options(others),
        }
    )


def _workspace(plan: Plan) -> values.Mount | None:
    """The folder in which the command would start: the one that an editor opens."""
    folder = PurePosixPath(plan.working_dir or "/")
    around = [it for it in plan.folders() if folder.is_relative_to(it.target) and not it.relabels]
    return max(around, key=lambda it: len(it.target), default=None)


def _mounted(mounts: list[values.Mount]) -> list[str]:
    return [words[1] for words in say.mounts.line(mounts)]


def _options(plan: Plan) -> list[str]:
    """Those of the line, in which `docker run` and the name are first, image and command last."""
    return [word for group in docker_run(plan)[2:-1] for word in group]


def devcontainer_notes(plan: Plan) -> Iterator[str]:
    yield from gpu_note(plan, "an editor")
    yield from _left_out(plan)
    if plan.entrypoint or plan.command:
        yield "not in the file: what runs in the box; an editor keeps it open and gives a shell"
    if not _workspace(plan):
        yield "an editor mounts its folder below /workspaces; --workspace . says otherwise"


# --- both


def _telling(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value not in (None, [], {})}


def gpu_note(plan: Plan, starter: str) -> Iterator[str]:
    gpus = plan.gpus.gpus
    if gpus == values.NO_GPUS:
        return
    one = gpus.count == 1 or len(gpus.ids) == 1
    if gpus.ids:
        which = f"GPU{'s'[one:]} {','.join(gpus.ids)}"
    elif gpus.all:
        which = "all GPUs"
    else:
        which = "the first GPU" if one else f"the first {gpus.count} GPUs"
    whoever = f"whoever has {'it' if one else 'them'}"
    yield f"{starter} takes {which}, {whoever}: only gpubox looks who does, and keeps others away"


def _left_out(plan: Plan) -> Iterator[str]:
    if plan.as_caller:
        name = plan.as_caller.name
        yield f"not in the file: {name}'s name, groups and home; {plan.user} is {name}'s number"
    if names := hidden(plan):
        yield f"not shown: {', '.join(names)}; set it before the file is used"


def _seen_from(plan: Plan, folder: str, word: str) -> Plan:
    """The plan with the folder, and paths that are in it, named by the word."""

    def path(text: str) -> str:
        inside = f"{text}/".startswith(f"{folder}/")
        return word + text[len(folder) :] if inside else text

    return replace(
        plan,
        volumes=tuple(
            replace(it, source=path(it.source)) if it.bind and it.source else it
            for it in plan.volumes
        ),
        env_file=tuple(EnvFile(path(it.path), it.variables) for it in plan.env_file),
        security_opt=tuple(
            it._replace(text=f"seccomp={path(it.text.removeprefix('seccomp='))}")
            if it.content
            else it
            for it in plan.security_opt
        ),
    )
