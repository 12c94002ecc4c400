"""`doctor`: what is wrong on this machine, check by check, worst last."""

from __future__ import annotations

import click
from msgspec.structs import asdict

from gpubox.checks import Check
from gpubox.cli.app import app
from gpubox.doctor import diagnosis
from gpubox.screen import render


@click.command("doctor")
@click.option("--gpu", "on_gpus", is_flag=True, help="Start a small box on each GPU, too.")
@click.option("--json", "as_json", is_flag=True, help="A list of objects.")
@click.pass_context
def doctor_command(context: click.Context, on_gpus: bool, as_json: bool) -> int:
    """What is wrong on this machine, and what to do about it.

    It looks at the engine, the driver, the way of GPUs into a box, the boxes that run, the disk and
    the profiles, and changes nothing. The exit code is 1 where a check has failed.
    """
    from gpubox.cli.examination import examine

    this = app(context)
    found = list(examine(this, on_gpus=on_gpus))
    if as_json:
        render.print_json([object_of(check) for check in found])
    else:
        rows = diagnosis.worst_last(found)
        render.print_checks((it.verdict, it.id, it.evidence, it.fix) for it in rows)
        this.screen.say(diagnosis.summary(found))
    return 1 if any(check.verdict == "fail" for check in found) else 0


def object_of(check: Check) -> dict[str, str]:
    """A check as `--json` prints it."""
    keys = asdict(check)
    del keys["brief"]  # for tables, which have no room
    return keys
