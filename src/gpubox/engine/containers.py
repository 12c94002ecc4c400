"""Containers on an engine: created, started, looked at, listed, stopped, removed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import docker.errors
import requests.exceptions
from docker.models import containers

from gpubox import values
from gpubox.boxes import labels
from gpubox.boxes.box import ALIVE, Box
from gpubox.boxes.inspection import Inspection, restart_policy
from gpubox.engine.archives import Entry, first_text, packed
from gpubox.engine.connection import Connection, translated
from gpubox.engine.faults import EngineSaid
from gpubox.errors import EngineError
from gpubox.gpus import claims
from gpubox.gpus.holders import Container
from gpubox.plan.docker_words import Arguments

# What `containers.run` itself calls: its arguments become those of the low-level create.
_arguments_of_create = containers._create_container_args  # type: ignore[attr-defined]
_ENDED = ("exited", "stopped", "dead")
_HANDED_OVER_SECONDS = 0.5  # in which a request has arrived, if its answer is not waited for


class Containers(Connection):
    """The calls by which an engine makes, ends and shows containers."""

    # --- making

    def run_detached(self, arguments: Arguments) -> str:
        """Call `containers.run` itself; the container's id. A failed start leaves nothing."""
        image = str(arguments.run["image"])
        try:
            with translated(image):
                return str(self.client.containers.run(**arguments.run).id)
        except EngineError as error:
            if leftover := _started_id(error.__cause__):
                self.remove(leftover)
            raise

    def create(self, arguments: Arguments, warn: Callable[[str], None]) -> str:
        """Create the container that `containers.run` would start; its id."""
        run = {key: value for key, value in arguments.run.items() if key != "detach"}
        version = self.api._version
        low_level = _arguments_of_create(run | {"version": version})
        low_level["detach"] = arguments.run["detach"]
        low_level["host_config"].update(arguments.host_config)
        with translated(str(run["image"])):
            made = self.api.create_container(**low_level)
        for warning in made.get("Warnings") or ():
            warn(str(warning))
        return str(made["Id"])

    def create_like(
        self, name: str, body: Mapping[str, Any], networks: Mapping[str, Mapping[str, Any]]
    ) -> str:
        """Create a container by the body of the engine's own call, in further networks; its id."""
        with translated(name):
            made = str(self.api.create_container_from_config(dict(body), name)["Id"])
            try:
                for network, endpoint in networks.items():
                    url = self.api._url("/networks/{0}/connect", network)
                    wanted = {"Container": made, "EndpointConfig": endpoint}
                    self.api._raise_for_status(self.api._post_json(url, data=wanted))
            except BaseException:
                self.api.remove_container(made, force=True)
                raise
        return made

    def ticket(self, box: str, claim: Mapping[str, str] | None = None) -> str:
        """Create a container that is never started and claims GPUs in a box's place; its id.

        It has the box's own labels, with those of `claim` instead where the box is to move.
        """
        found = self.inspect(box)
        own = {**labels.own(found["Config"]["Labels"]), **(claim or {}), labels.TICKET: box}
        with translated(box):
            made = self.api.create_container(found["Image"], command=["none"], labels=own)
        return str(made["Id"])

    def put(self, box: str, files: Iterable[Entry]) -> None:
        """Write files below the root of a box."""
        with translated(box):
            self.api.put_archive(box, "/", packed(files))

    def start(self, box: str, image: str) -> None:
        with translated(image):
            self.api.start(box)

    def rename(self, box: str, name: str) -> None:
        with translated(name):
            self.api.rename(box, name)

    def set_restart(self, box: str, policy: Mapping[str, Any]) -> None:
        with translated(box):
            self.api.update_container(box, restart_policy=policy)

    # --- ending

    def stop(self, box: str, seconds: int | None = None) -> None:
        """Stop a box. It is killed after `seconds`; where none are given, after its own or 10."""
        with translated(box):
            self.api.stop(box, timeout=seconds)

    def begin_stop(self, box: str, seconds: int) -> None:
        """Have the engine stop a box, and do not wait: it goes on when nobody listens any more."""
        url = self.api._url("/containers/{0}/stop", box)
        with suppress(docker.errors.APIError, requests.exceptions.RequestException):
            self.api._post(url, params={"t": seconds}, timeout=_HANDED_OVER_SECONDS)

    def restart(self, box: str, seconds: int | None = None) -> None:
        """Stop a box, as `stop` does, and start it again."""
        with translated(box):
            url = self.api._url("/containers/{0}/restart", box)
            wanted = {} if seconds is None else {"t": seconds}
            self.api._raise_for_status(self.api._post(url, params=wanted, timeout=None))

    def remove(self, box: str) -> None:
        """Remove a container with its nameless volumes, running or not; gone already is fine."""
        try:
            with translated(box), suppress(docker.errors.NotFound):
                self.api.remove_container(box, v=True, force=True)
        except EngineSaid as refusal:
            if "already in progress" not in refusal.text:
                raise
            self.wait_removed(box)

    def remove_stopped(self, box: str) -> None:
        """Remove a container with its nameless volumes, unless it runs; gone already is fine."""
        with translated(box), suppress(docker.errors.NotFound):
            self.api.remove_container(box, v=True)

    def remove_unstarted(self, box: str) -> None:
        """Remove a container that was only created; without force, so one that runs now stays."""
        with suppress(EngineError), translated(box):
            self.api.remove_container(box, v=True)

    def remove_keeping_volumes(self, box: str) -> None:
        """Remove a container, running or not, and none of its volumes."""
        with translated(box), suppress(docker.errors.NotFound):
            self.api.remove_container(box, force=True)

    def wait_removed(self, box: str) -> None:
        """Wait until the engine has removed a box that it removes by itself."""
        with translated(box), suppress(docker.errors.NotFound):
            self.api.wait(box, condition="removed")

    # --- one of them

    def inspect(self, box: str) -> Inspection:
        """All that the engine says of a container."""
        with translated(box):
            return dict(self.api.inspect_container(box))

    def read(self, box: str, path: str) -> str:
        """The text of a file in a box, running or not; empty where there is none."""
        with translated(box):
            try:
                parts, _ = self.api.get_archive(box, f"/{path}")
            except docker.errors.NotFound:
                return ""
            return first_text(b"".join(parts))

    def state(self, box: str) -> Inspection:
        return dict(self.inspect(box)["State"])

    def is_running(self, box: str) -> bool:
        return bool(self.state(box)["Running"])

    # --- all of them

    def boxes(self, *, stopped: bool, sizes: bool = False) -> list[Box]:
        """All boxes on the engine, whoever started them, the latest first; one call.

        For `sizes` the engine counts what each has written, which takes it seconds.
        """
        with translated("the engine"):
            found = self.api.containers(all=stopped, size=sizes, filters={"label": labels.VERSION})
        boxes = [_box(item, sizes) for item in found if labels.are_a_box(_labels(item))]
        # Docker lists them in this order, Podman does not
        return sorted(boxes, key=lambda box: box.created, reverse=True)

    def containers(self, known: dict[str, values.Gpus]) -> list[Container]:
        """All containers, gpubox's or not, and the GPUs that each holds.

        One call lists them. Those whose labels tell too little are inspected, and what was seen
        there is kept in `known`, by id, for the next time.
        """
        with translated("the engine"):
            found = self.api.containers(all=True)
        return [_container(item, self._held(item, known)) for item in found]

    def _held(self, item: Mapping[str, Any], known: dict[str, values.Gpus]) -> values.Gpus:
        """The GPUs that a container holds, running or not."""
        said, alive = _labels(item), item.get("State") in ALIVE
        claim = claims.of_label(said.get(labels.GPUS, "")) if labels.are_own(said) else None
        if alive and claim is not None:
            return claim
        if not alive and (claim in (None, values.NO_GPUS) or item.get("State") not in _ENDED):
            return values.NO_GPUS
        if item["Id"] not in known:
            known[item["Id"]] = self._looked_up(item["Id"], claim)
        return known[item["Id"]]

    def _looked_up(self, container: str, claim: values.Gpus | None) -> values.Gpus:
        """The GPUs by what `inspect` tells: a stopped box holds its own if a policy restarts it."""
        try:
            found = self.inspect(container)
        except EngineSaid:  # gone meanwhile
            return values.NO_GPUS
        if claim is None:
            return claims.of_container(found)
        return claim if restart_policy(found) else values.NO_GPUS

    def names(self) -> frozenset[str]:
        """The names of all containers, gpubox's or not."""
        with translated("the engine"):
            found = self.api.containers(all=True)
        return frozenset(name.lstrip("/") for item in found for name in item.get("Names") or ())

    def publishers(self) -> dict[int, str]:
        """Who publishes each port of the engine's machine, in words."""
        with translated("the engine"):
            found = self.api.containers()
        return {
            port["PublicPort"]: _publisher(item)
            for item in found
            for port in item.get("Ports") or ()
            if port.get("PublicPort")
        }

    def tickets(self, box: str) -> list[str]:
        """The ids of a box's tickets: somebody is about to move it, or to start it again."""
        with translated(box):
            found = self.api.containers(all=True, filters={"label": f"{labels.TICKET}={box}"})
        return [str(item["Id"]) for item in found]


def _started_id(error: BaseException | None) -> str | None:
    """The id of the container whose start failed, from the request that failed."""
    request = getattr(error, "request", None) or getattr(
        getattr(error, "response", None), "request", None
    )
    found = re.search(r"/containers/([0-9a-f]{64})/start", getattr(request, "url", None) or "")
    return found[1] if found else None


def _labels(item: Mapping[str, Any]) -> Mapping[str, str]:
    return item.get("Labels") or {}


def _box(item: Mapping[str, Any], sizes: bool) -> Box:
    said = _labels(item)
    return Box(
        id=item["Id"],
        name=_name(item),
        image=item.get("Image", ""),
        state=item.get("State", ""),
        status=item.get("Status", ""),
        created=int(item.get("Created") or 0),
        ports=tuple(sorted({_published(port) for port in item.get("Ports") or ()} - {""})),
        written=int(item.get("SizeRw") or 0) if sizes else None,
        profile=said.get(labels.PROFILE, ""),
        owner=said.get(labels.OWNER, ""),
        kind=said.get(labels.KIND, ""),
        gpus=said.get(labels.GPUS, ""),
        claim=said.get(labels.CLAIM, ""),
        folder=said.get(labels.FOLDER, ""),
        job=said.get(labels.JOB, ""),
    )


def _container(item: Mapping[str, Any], gpus: values.Gpus) -> Container:
    said = _labels(item)
    own = labels.are_own(said)
    return Container(
        id=item["Id"],
        name=_name(item),
        box=own,
        owner=said.get(labels.OWNER, ""),
        profile=said.get(labels.PROFILE, ""),
        gpus=gpus,
        claimed=claims.of_label(said.get(labels.GPUS, "") if own else ""),
        claim=said.get(labels.CLAIM, ""),
        state=str(item.get("State") or ""),
        created=int(item.get("Created") or 0),
    )


def _name(item: Mapping[str, Any]) -> str:
    return str((item.get("Names") or ["/"])[0].lstrip("/"))


def _publisher(item: Mapping[str, Any]) -> str:
    name, owner = _name(item), _labels(item).get(labels.OWNER)
    return f"{owner}'s box {name}" if owner else f"the container {name}"


def _published(port: Mapping[str, Any]) -> str:
    if not port.get("PublicPort"):
        return ""
    return f"{port.get('IP', '')}:{port['PublicPort']}->{port['PrivatePort']}/{port['Type']}"
