"""What a container is, for comparing two: the smallest normalisation that is honest.

Knows the engine's answers, and neither gpubox nor `docker`.
"""

from __future__ import annotations

from typing import Any

from docker import DockerClient

# What two equal containers may differ in: who they are, and when and how they ran.
IDENTITY = {
    *("Id", "Created", "State", "Name", "RestartCount", "Args", "ExecIDs", "NetworkSettings"),
    *("LogPath", "ResolvConfPath", "HostnamePath", "HostsPath", "GraphDriver", "Storage"),
}


def remove_all(client: DockerClient) -> None:
    for box in client.containers.list(all=True, ignore_removed=True):
        client.api.remove_container(str(box.id), force=True, v=True)


def names(client: DockerClient) -> list[str]:
    """All containers, running or not, half-made ones too."""
    return [str(box.name) for box in client.containers.list(all=True, ignore_removed=True)]


def normal(value: Any) -> Any:
    """Empty is null, wherever it stands."""
    if isinstance(value, dict):
        kept = {key: normal(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not None} or None
    if isinstance(value, list):
        return [normal(item) for item in value] or None
    return None if value == "" else value


def inspected(client: DockerClient, name: str) -> dict[str, Any]:
    found = client.api.inspect_container(name)
    client.api.remove_container(name, force=True)
    found["HostConfig"].pop("ConsoleSize", None)
    for mount in found["Mounts"]:
        if len(mount.get("Name", "")) == 64:  # a volume without a name has a random one
            mount["Name"] = mount["Source"] = "anonymous"
    if found["Config"]["Hostname"] == found["Id"][:12]:  # nobody has said one
        found["Config"]["Hostname"] = ""
    # `docker` itself shuffles repeated variables and -v, and older ones the limits
    found["Config"]["Env"].sort()
    (found["HostConfig"]["Binds"] or []).sort()
    (found["HostConfig"]["Ulimits"] or []).sort(key=lambda limit: limit["Name"])
    found["Mounts"].sort(key=lambda mount: mount["Destination"])
    found["Networks"] = sorted(found["NetworkSettings"]["Networks"])
    found["HostConfig"]["NetworkMode"] = found["HostConfig"]["NetworkMode"].replace(
        "default", "bridge"
    )
    if found["HostConfig"]["RestartPolicy"]["Name"] == "no":
        found["HostConfig"]["RestartPolicy"]["Name"] = ""
    kept = {key: item for key, item in found.items() if key not in IDENTITY}
    normalised: dict[str, Any] = normal(kept)
    return normalised
