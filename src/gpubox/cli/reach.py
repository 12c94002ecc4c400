"""Says where a box's ports listen, and how to reach them from the person's own machine."""

from __future__ import annotations

from collections.abc import Mapping

from gpubox.cli.app import App


def say_ports(app: App, published: Mapping[str, tuple[str, int]]) -> None:
    """Where each port of a box listens, and how to reach it from elsewhere."""
    for key, (address, number) in published.items():
        app.screen.say(f"port {key} of the box listens on {address}:{number}")
        say_tunnel(app, number, "  from your own machine: ")


def say_tunnel(app: App, port: int, lead: str) -> None:
    """Say the `ssh` line that reaches a port, to a person who came here by ssh."""
    from gpubox.boxes import jupyter

    name = app.config.text("ssh_host")
    line = jupyter.tunnel(
        app.caller.environ,
        app.caller.name,
        port,
        name.value if name else None,
        node=app.job.node if app.job else "",
    )
    if line:
        app.screen.say(f"{lead}{line}")
