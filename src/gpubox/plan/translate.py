"""Turns a Plan into docker-py's arguments, and into one `docker run` line that does the same.

Both come from the one table of `docker_words`. Pure; knows no engine.
"""

from __future__ import annotations

import shlex
from typing import Any

from gpubox.plan import docker_words as say
from gpubox.plan.docker_words import Arguments, Words
from gpubox.plan.plan import Plan


def arguments(plan: Plan) -> Arguments:
    """`containers.run`'s keyword arguments, and the host config's keys that it cannot take.

    A plan for the foreground passes the same ones to `containers.create`.
    """
    start: dict[str, Any] = {"image": plan.image, "name": plan.name, "detach": plan.detach}
    start |= {"command": list(plan.command)} if plan.command else {}
    start |= {"tty": True} if plan.tty else {}
    start |= {"stdin_open": True} if plan.interactive else {}
    start |= {"group_add": list(plan.group_add)} if plan.group_add else {}
    size = {"ConsoleSize": list(plan.rows_columns)} if plan.rows_columns else {}
    settings = [setting.api(value) for setting, value in said(plan)]
    return say.merged([Arguments(start, size), *settings])


def docker_run(plan: Plan) -> list[Words]:
    """The line in groups of words: `docker run`, each option with its value, image and command."""
    flags = {"d": plan.detach, "i": plan.interactive, "t": plan.tty}
    letters = "".join(letter for letter, wanted in flags.items() if wanted)
    head = ["docker", "run", f"-{letters}"] if letters else ["docker", "run"]
    groups = [head, ["--name", plan.name]]
    groups += [["--group-add", number] for number in plan.group_add]
    for setting, value in said(plan):
        groups += setting.line(value)
    return [*groups, [plan.image, *plan.command]]


def docker_run_line(plan: Plan, *, breaks: bool = False) -> str:
    """The line for a shell; with `breaks` one option a line, for people."""
    groups = [shlex.join(group) for group in docker_run(plan)]
    return (" \\\n    " if breaks else " ").join(groups)


def hidden(plan: Plan) -> list[str]:
    """Variables whose value the line hides and the caller's shell does not have."""
    return [item.name for item in plan.environment if item.secret and not item.inherited]


def said(plan: Plan) -> list[tuple[say.Say, object]]:
    """Every setting that has a value: how it is passed on, and the value."""
    pairs = [(way, getattr(plan, key)) for key, way in say.BY_KEY.items()]
    return [(way, value) for way, value in pairs if value is not None and value != ()]
