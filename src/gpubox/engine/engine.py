"""The engine: the calls of all modules beside this one, over one connection.

The only folder with docker-py. Plain values and our own records go in and out; docker-py's objects
and exceptions stay here. Knows nothing of profiles or screens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpubox.doctor.seen import EngineSeen
from gpubox.engine.builds import Builds
from gpubox.engine.connection import answering, api_version, translated
from gpubox.engine.contexts import Endpoint
from gpubox.engine.processes import Processes
from gpubox.engine.unreachable import place
from gpubox.plan.facts import EngineFacts


class Engine(Builds, Processes):
    """One engine."""

    def facts(self) -> EngineFacts:
        """What a GPU request depends on; one call."""
        with translated("the engine"):
            return self._facts(self.api.info())

    def _facts(self, info: Mapping[str, Any]) -> EngineFacts:
        discovered = info.get("DiscoveredDevices") or []
        return EngineFacts(
            api=api_version(self.api._version),
            podman=self.podman,
            runtimes=tuple(info.get("Runtimes") or ()),
            cdi_devices=tuple(item["ID"] for item in discovered if item.get("Source") == "cdi"),
            cdi_enabled=bool(info.get("CDISpecDirs")),
            mirrors=bool((info.get("RegistryConfig") or {}).get("Mirrors")),
            local=self.endpoint.local,
            root=_root(info),
        )

    def seen(self) -> EngineSeen:
        """What it says of itself and its machine, for `doctor`; one call."""
        with translated("the engine"):
            info = self.api.info()
        runtime = (info.get("Runtimes") or {}).get("nvidia") or {}
        return EngineSeen(
            place=place(self.endpoint),
            version=self.podman or str(info.get("ServerVersion") or ""),
            facts=self._facts(info),
            system=str(info.get("OperatingSystem") or ""),
            kernel=str(info.get("KernelVersion") or ""),
            rootless=any("name=rootless" in option for option in info.get("SecurityOptions") or ()),
            cgroup_version=str(info.get("CgroupVersion") or ""),
            cgroup_driver=str(info.get("CgroupDriver") or ""),
            folders=_folders(info),
            cdi_folders=tuple(info.get("CDISpecDirs") or ()),
            runtime=str(runtime.get("path") or ""),
        )


_CONTAINERD = "/var/lib/containerd"  # containerd's folder, unless it is configured otherwise
_ANSWER_SECONDS = 10  # to the first question; a healthy engine takes milliseconds


def connect(endpoint: Endpoint, seconds: float = _ANSWER_SECONDS) -> Engine:
    """An engine that answers within `seconds`."""
    client, podman = answering(endpoint, seconds)
    return Engine(client, endpoint, podman)


def _root(info: Mapping[str, Any]) -> str:
    """The folder that pulled images fill; empty where it is not known."""
    return next(reversed(_folders(info)), "")


def _folders(info: Mapping[str, Any]) -> tuple[str, ...]:
    """The folders of images and boxes; none for Docker Desktop, whose are in a virtual machine."""
    if info.get("OperatingSystem") == "Docker Desktop" or not info.get("DockerRootDir"):
        return ()
    root, socket = str(info["DockerRootDir"]), (info.get("Containerd") or {}).get("Address", "")
    # a containerd that the engine itself has started keeps its data below the engine's root
    started_by_engine = socket and not socket.startswith("/run/containerd/")
    if _by_containerd(info) and not started_by_engine:
        return (root, _CONTAINERD)
    return (root,)


def _by_containerd(info: Mapping[str, Any]) -> bool:
    """Whether containerd, and not the engine itself, stores images."""
    drivers = dict(pair for pair in info.get("DriverStatus") or () if len(pair) == 2)
    return "containerd" in str(drivers.get("driver-type", ""))
