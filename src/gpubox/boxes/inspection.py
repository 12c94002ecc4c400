"""Reads what an engine answers to `inspect`, of a container or an image: what gpubox needs of it.

Pure: the engine's words in, plain values out. Asks nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gpubox import values
from gpubox.plan import notebook

Inspection = Mapping[str, Any]


class Served(msgspec.Struct, frozen=True):
    """Where on the engine's machine a box's Jupyter can be reached; an unknown `port` is 0.

    One that is not `published` has the host's own network; its address is then its command's.
    """

    address: str
    port: int
    token: str
    published: bool


def variables(config: Inspection) -> dict[str, str]:
    """The variables in the configuration of a container or an image."""
    return values.variables(config.get("Env") or ())


# --- of a container


def has_terminal(inspection: Inspection) -> bool:
    return bool(inspection["Config"]["Tty"])


def removes_itself(inspection: Inspection) -> bool:
    """Whether the engine removes it when it stops (--rm)."""
    return bool(inspection["HostConfig"].get("AutoRemove"))


def restart_policy(inspection: Inspection) -> str:
    """The policy by which it starts again by itself; empty where it does not."""
    name = str((inspection["HostConfig"].get("RestartPolicy") or {}).get("Name") or "")
    return "" if name == "no" else name


def is_privileged(inspection: Inspection) -> bool:
    return bool(inspection["HostConfig"].get("Privileged"))


def killed_for_memory(inspection: Inspection) -> int | None:
    """The memory limit (bytes, 0 for none) if it was killed for that; else None."""
    limit = int(inspection["HostConfig"].get("Memory") or 0)
    return limit if inspection["State"]["OOMKilled"] else None


def published_ports(inspection: Inspection) -> dict[str, tuple[str, int]]:
    """Where its ports (`6006/tcp`) are really published while it runs: address and number."""
    bound = inspection["NetworkSettings"]["Ports"] or {}
    return {
        key: (places[0]["HostIp"], int(places[0]["HostPort"]))
        for key, places in bound.items()
        if places
    }


def bound_ports(inspection: Inspection) -> list[int]:
    """The ports of the engine's machine that it asked for by number, running or not."""
    bound = inspection["HostConfig"]["PortBindings"] or {}
    numbers = [place["HostPort"] for places in bound.values() for place in places or ()]
    return [int(number) for number in numbers if number.isdigit() and int(number)]


def served(inspection: Inspection) -> Served:
    """Where a box serves Jupyter, or will once it runs; and its token."""
    options = values.variables(inspection["Config"]["Cmd"] or ())
    ports = (
        inspection["NetworkSettings"]["Ports"] or {},
        inspection["HostConfig"]["PortBindings"] or {},
    )
    known = (places[notebook.KEY][0] for places in ports if places.get(notebook.KEY))
    bound: Mapping[str, str] = next(known, {})
    return Served(
        address=bound.get("HostIp") or options.get("--ip", values.LOOPBACK),
        port=int(bound.get("HostPort") or options.get("--port", "0")),
        token=variables(inspection["Config"]).get(notebook.TOKEN, ""),
        published=bool(bound),
    )
