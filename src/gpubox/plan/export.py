"""Writes a Plan as a file of other tools: a Compose file, or a devcontainer.json.

Pure. What these files cannot express becomes notes; boxes started from them claim no GPU.
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
    """A Compose file with one service, to lie in `folder`: paths in there are relative to it."""
    plan = _seen_from(plan, folder, ".")
    parts = [setting.compose(value) for setting, value in said(plan)]
    service = _escaped(say.service([_own(plan), *parts]))
    if secret := {name for name in hidden(plan) if name.isidentifier()}:
        service["environment"] = [
            _from_shell(line) if line in secret else line for line in service["environment"]
        ]
    named = [mount.source for mount in plan.volumes if mount.source and not mount.bind]
    # Compose would put the project's name in front of a volume without an own one
    volumes = {name: {"name": name} for name in named}
    return {"services": {plan.name: service}} | ({"volumes": volumes} if volumes else {})


def _from_shell(name: str) -> str:
    """Compose then takes the value from the shell or from .env, and fails if neither has it."""
    return f"{name}=${{{name}:?set it, or write it into .env}}"


def _own(plan: Plan) -> Service:
    """The keys that come from no setting of a profile."""
    return _filled(
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
    """Double each dollar sign: Compose expands variables in every value."""
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
    """A devcontainer.json for the folder that an editor, or the devcontainer CLI, opens.

    Settings for which the file has no key become `runArgs`, options of `docker run`.
    """
    if uuids := [gpu for gpu in plan.gpus.gpus.ids if "-" in gpu]:
        raise UsageError(
            f"{uuids[0]} is a GPU of one machine, and a devcontainer.json is for any",
            "write --gpus all, a number, or indexes like device=0",
        )
    plan = _seen_from(plan, folder, _HERE)
    workspace = _workspace(plan)
    mounts = [mount for mount in plan.volumes if mount != workspace and not mount.relabels]
    forwarded = [port for port in plan.ports if port == values.Port(port.container)]
    others = replace(
        plan,
        environment=(),
        entrypoint=(),
        user=None,
        working_dir=None if workspace else plan.working_dir,
        volumes=tuple(mount for mount in plan.volumes if mount.relabels),
        ports=tuple(port for port in plan.ports if port not in forwarded),
    )
    variables = {
        each.name: f"${{localEnv:{each.name}}}" if each.secret else each.value
        for each in plan.environment
    }
    return _filled(
        {
            "name": plan.profile,
            "image": plan.image,
            "workspaceMount": _mounted([workspace])[0] if workspace else None,
            "workspaceFolder": plan.working_dir if workspace else None,
            "mounts": _mounted(mounts),
            "containerEnv": variables,
            "containerUser": plan.user,
            # editors give a user NAME the uid of whoever opens the folder; a number must stay
            "updateRemoteUserUID": False if (plan.user or "")[:1].isdigit() else None,
            "forwardPorts": [port.container for port in forwarded],
            "runArgs": _options(others),
        }
    )


def _workspace(plan: Plan) -> values.Mount | None:
    """The host folder in which the command would start, which an editor is to open."""
    start = PurePosixPath(plan.working_dir or "/")
    plain = [mount for mount in plan.folders() if not mount.relabels]
    around = [mount for mount in plain if start.is_relative_to(mount.target)]
    return max(around, key=lambda mount: len(mount.target), default=None)


def _mounted(mounts: list[values.Mount]) -> list[str]:
    return [words[1] for words in say.mounts.line(mounts)]


def _options(plan: Plan) -> list[str]:
    """The options of the `docker run` line: without its head, the name, the image, the command."""
    return [word for group in docker_run(plan)[2:-1] for word in group]


def devcontainer_notes(plan: Plan) -> Iterator[str]:
    yield from gpu_note(plan, "an editor")
    yield from _left_out(plan)
    if plan.entrypoint or plan.command:
        yield "not in the file: what runs in the box; an editor keeps it open and gives a shell"
    if not _workspace(plan):
        yield "an editor mounts its folder below /workspaces; --workspace . says otherwise"


# --- both


def _filled(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value not in (None, [], {})}


def gpu_note(plan: Plan, starter: str) -> Iterator[str]:
    gpus = plan.gpus.gpus
    if gpus == values.NO_GPUS:
        return
    one = gpus.count == 1 or len(gpus.ids) == 1
    if gpus.ids:
        which = ("GPU " if one else "GPUs ") + ",".join(gpus.ids)
    elif gpus.all:
        which = "all GPUs"
    else:
        which = "the first GPU" if one else f"the first {gpus.count} GPUs"
    whoever = "whoever has it" if one else "whoever has them"
    yield f"{starter} takes {which}, {whoever}: only gpubox looks who does, and keeps others away"


def _left_out(plan: Plan) -> Iterator[str]:
    if plan.as_caller:
        name = plan.as_caller.name
        yield f"not in the file: {name}'s name, groups and home; {plan.user} is {name}'s number"
    if names := hidden(plan):
        yield f"not shown: {', '.join(names)}; set it before the file is used"


def _seen_from(plan: Plan, folder: str, word: str) -> Plan:
    """The plan with `word` in place of `folder`, in all host paths that begin with it."""

    def path(text: str) -> str:
        inside = f"{text}/".startswith(f"{folder}/")
        return word + text[len(folder) :] if inside else text

    return replace(
        plan,
        volumes=tuple(
            replace(mount, source=path(mount.source)) if mount.bind and mount.source else mount
            for mount in plan.volumes
        ),
        env_file=tuple(EnvFile(path(file.path), file.variables) for file in plan.env_file),
        security_opt=tuple(
            option._replace(text=f"seccomp={path(option.text.removeprefix('seccomp='))}")
            if option.content
            else option
            for option in plan.security_opt
        ),
    )
