"""`export`: a box as a file of other tools, on standard output; what it cannot say on stderr."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from gpubox.cli.app import App
from gpubox.cli.start import printed
from gpubox.cli.words import OWN, command, request
from gpubox.profile.layers import write

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpubox.plan.plan import Plan


def _own(*names: str) -> list[click.Parameter]:
    """These of run's own options; the others are for a start by gpubox itself."""
    return [option for option in OWN if option.name in names]


@click.group("export", no_args_is_help=False)
def export_command() -> None:
    """The same box as a Compose file, or as a devcontainer.json.

    Each takes the options and the profile that `run` takes.

    \b
      gpubox export compose train > compose.yaml
      gpubox export devcontainer > .devcontainer.json
    """


def _compose(app: App, parameters: dict[str, Any]) -> int:
    from gpubox.plan import export

    plan, folder = _plan(app, parameters), str(app.caller.folder)
    _say(app, export.compose_notes(plan, folder))
    made_of = f"the profile {plan.profile} of gpubox, by gpubox export compose"
    comments = (made_of, *export.gpu_note(plan, "docker compose"))
    text = write(export.compose(plan, folder))
    _print("".join(f"# {comment}\n" for comment in comments) + text)
    return 0


def _devcontainer(app: App, parameters: dict[str, Any]) -> int:
    from gpubox.plan import export

    plan = _plan(app, parameters)
    found = export.devcontainer(plan, str(app.caller.folder))
    _say(app, export.devcontainer_notes(plan))
    _print(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return 0


def _print(text: str) -> None:
    """Print in UTF-8, as a file is written, whatever the terminal's encoding."""
    click.echo(text.encode(), nl=False)


def _plan(app: App, parameters: dict[str, Any]) -> Plan:
    """The plan of a detached box: other tools start it so, and its shell must stay alive."""
    asked = request(app, parameters | {"detach": True}, parameters["words"], {})
    return printed(asked, exported=True)


def _say(app: App, notes: Iterable[str]) -> None:
    for note in notes:
        app.screen.say(note)


export_command.add_command(
    command(
        "compose",
        _compose,
        """A Compose file with the box as its only service.

        Folders in this one are named from here, so the file belongs here. Start it with
        docker compose up -d, or for a shell: docker compose run --rm SERVICE.
        """,
        own=_own("interactive", "tty", "name", "pull"),
    )
)
export_command.add_command(
    command(
        "devcontainer",
        _devcontainer,
        """A devcontainer.json, for editors and the devcontainer CLI.

        Write it into the folder that editors open, as .devcontainer.json.
        """,
        own=_own("pull"),
    )
)
