"""The only room with docker-py: connect, pull, create, start, list, remove.

Plain values and our own records go in and out; docker-py's objects and exceptions stay here. Knows
nothing of profiles, plans or screens.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import socket
import ssl
import tarfile
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
import docker.auth
import docker.errors
import docker.tls
import docker.utils.config
import msgspec
import requests.exceptions
import urllib3.exceptions
from docker.models import containers

from gpubox import claims, values
from gpubox.boxes import ALIVE, Box, restart_policy
from gpubox.building import Building
from gpubox.contexts import Endpoint
from gpubox.diagnosis import EngineSeen
from gpubox.docker_words import Arguments
from gpubox.errors import EngineError
from gpubox.facts import EngineFacts
from gpubox.faults import EngineSaid, explain, explain_build, is_image_absent
from gpubox.holders import Container
from gpubox.leftovers import Disk, Made
from gpubox.moved import is_of_files
from gpubox.recipe import BUILT_BY
from gpubox.streams import STDOUT, Frames
from gpubox.unreachable import no_engine, place, too_old, unreachable

OWN, TICKET = "gpubox.version", "gpubox.ticket"
_UNNAMED = "<none>:<none>"
# What `containers.run` itself calls to make of its arguments those of the low-level create.
_arguments_of_create = containers._create_container_args  # type: ignore[attr-defined]
_ENDED = ("exited", "stopped", "dead")
_ANSWER_SECONDS = 10  # to the first question; a healthy engine takes milliseconds
_OLDEST = (1, 24)  # of the API, that docker-py speaks
_LAST_TO_TELL = (1, 44)  # of the API: later ones keep an image's container to themselves
_HANDED_OVER_SECONDS = 0.5  # for a request whose answer is not waited for
# What docker-py trips over in a config.json that is none, and in what a credential helper prints.
_NOT_AS_DOCKER_WRITES = (ValueError, LookupError, TypeError, AttributeError)
_CALL_SECONDS = 300  # a GPU that wakes up at start takes longer than docker-py's 60


class ImageMissing(EngineError):
    """The engine does not have the image; it can perhaps be pulled."""


class LocalImage(msgspec.Struct, frozen=True):
    """An image that the engine has: bytes on its disk, and the variables that a box begins with.

    `config` is all that it says of a box, in the engine's words.
    """

    id: str
    size: int
    variables: Mapping[str, str]
    labels: Mapping[str, str]
    config: Mapping[str, Any]
    author: str


class Published(msgspec.Struct, frozen=True):
    """What a registry says of an image; `platforms` are like `linux/amd64`, where it tells them."""

    digest: str
    platforms: tuple[str, ...]


class Hijacked(msgspec.Struct, frozen=True):
    """A connection that became a box's streams, and the output that came with the answer.

    `answer` must be kept: docker-py closes the socket when nobody holds it any more.
    """

    socket: socket.socket
    early: bytes
    answer: object

    def hang_up(self) -> None:
        """Take no more: an engine cannot end a box whose output waits for us."""
        with suppress(OSError):  # the other end may be gone already
            self.socket.shutdown(socket.SHUT_RDWR)


class Exec(msgspec.Struct, frozen=True):
    """Another process that is wanted in a running box; what is empty is as the box has it."""

    command: tuple[str, ...]
    tty: bool = False
    stdin: bool = False
    user: str = ""
    folder: str = ""
    variables: tuple[str, ...] = ()


class Served(msgspec.Struct, frozen=True):
    """Where on the engine's machine a box can be reached; `port` is 0 where that is not known.

    One that is not `published` has the host's own network, and says where it is in its command.
    """

    address: str
    port: int
    token: str
    published: bool


class Exit:
    """A box's end, to come: the descriptor is readable when it has ended."""

    def __init__(self, box: str, answer: Any) -> None:
        self.box, self.answer = box, answer

    def fileno(self) -> int:
        return int(self.answer.raw._fp.fp.fileno())

    def code(self) -> int:
        """The command's exit code; waits for it."""
        with translated(self.box):
            body = json.loads(self.answer.content)
        if problem := (body.get("Error") or {}).get("Message"):
            raise explain(problem, self.box)
        return int(body["StatusCode"])


class Engine:
    """One connection to one engine."""

    def __init__(self, client: docker.DockerClient, endpoint: Endpoint, podman: str) -> None:
        self.client, self.endpoint, self.podman = client, endpoint, podman
        # with its private calls, which the stubs leave out: docker-py cannot wait while it attaches
        self.api: Any = client.api

    @property
    def detach_keys(self) -> str:
        """The keys of Docker's config.json that leave a box, or Docker's own."""
        return str(self.api._general_configs.get("detachKeys") or "ctrl-p,ctrl-q")

    # --- facts

    def facts(self) -> EngineFacts:
        """What a GPU request depends on; one call."""
        with translated("the engine"):
            return self._facts(self.api.info())

    def _facts(self, info: Mapping[str, Any]) -> EngineFacts:
        discovered = info.get("DiscoveredDevices") or []
        return EngineFacts(
            api=_version(self.api._version),
            podman=self.podman,
            runtimes=tuple(info.get("Runtimes") or ()),
            cdi_devices=tuple(item["ID"] for item in discovered if item.get("Source") == "cdi"),
            cdi_enabled=bool(info.get("CDISpecDirs")),
            mirrors=bool((info.get("RegistryConfig") or {}).get("Mirrors")),
            local=self.endpoint.local,
            root=_root(info),
        )

    def seen(self) -> EngineSeen:
        """All that it says of itself and its machine; one call."""
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

    # --- images

    def image(self, name: str) -> LocalImage | None:
        """An image that is here."""
        try:
            with translated(name):
                found = self.api.inspect_image(name)
        except ImageMissing:
            return None
        said = found.get("Config") or {}
        return LocalImage(
            id=found["Id"],
            size=int(found.get("Size") or 0),
            variables=values.variables(said.get("Env") or ()),
            labels=said.get("Labels") or {},
            config=said,
            author=found.get("Author") or "",
        )

    def images(self) -> list[str]:
        """The names of all images that are here, the latest first; one call."""
        with translated("the engine"):
            found = self.api.images()
        names = [name for item in found for name in item.get("RepoTags") or ()]
        return [values.familiar(name) for name in names if name != _UNNAMED]

    def published(self, image: str, warn: Callable[[str], None]) -> Published | None:
        """What the registry has of an image, asked by the engine; None where it has none."""
        try:
            with translated(image):
                found = self.api.inspect_distribution(image, auth_config=self._login(image, warn))
                return Published(
                    digest=str(found["Descriptor"]["digest"]),
                    platforms=tuple(map(_platform, found.get("Platforms") or ())),
                )
        except EngineSaid as refusal:
            if self.podman and refusal.text == "Not Found":
                raise EngineError("Podman's service asks no registry for others") from None
            if not is_image_absent(refusal.text):
                raise
            return None

    def pull(self, image: str, warn: Callable[[str], None]) -> Iterator[Mapping[str, Any]]:
        """The events of a pull; one that carries an error is raised as such."""
        return self._pulled(image, self._login(image, warn))

    def has_login(self, image: str) -> bool:
        """Whether the caller has logged in to an image's registry."""
        warnings_ = list[str]()  # which the pull itself will say
        return bool(self._login(image, warnings_.append))

    def _login(self, image: str, warn: Callable[[str], None]) -> Mapping[str, Any]:
        """The caller's login at an image's registry; a helper that fails is as good as none.

        So the docker program has it, but it says nothing.
        """
        registry = values.reference(image).registry or docker.auth.INDEX_NAME
        found, problem = {}, _unread_config()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # docker-py's own words for the same
                found = self.api._auth_configs.resolve_authconfig(registry)
        except docker.errors.DockerException as error:
            problem = str(error.__cause__ or error)
        except _NOT_AS_DOCKER_WRITES:
            problem = "what credsStore or credHelpers in Docker's config.json names gives none"
        if problem:
            warn(f"pulling without a login: {problem}")
        return found or {}

    def _pulled(self, image: str, login: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        with translated(image):
            for event in self.api.pull(image, stream=True, decode=True, auth_config=login):
                if "error" in event:
                    raise explain(str(event["error"]), image)
                yield event

    def name_image(self, image: str, name: str, *, keep: bool) -> None:
        """Give an image its plain name, instead of the one it was pulled by or beside it.

        Who pulls the same at the same time may have done all this.
        """
        plain = values.reference(name)
        try:
            with translated(image):
                # in full and in parts: else Podman says yes and does nothing
                path = f"{plain.registry or 'docker.io'}/{plain.repository}"
                self.api.tag(image, path, plain.tag)
        except ImageMissing:
            if not self.image(name):
                raise
        if not keep:
            with translated(image), suppress(docker.errors.NotFound):
                self.api.remove_image(image)

    # --- building

    def architecture(self) -> str:
        with translated("the engine"):
            return str(self.api.info()["Architecture"])

    def build(
        self, dockerfile: str, image: str, *, network: str | None = None, fresh: bool = False
    ) -> Generator[Building]:
        """A build as it goes on. One that fails or is left leaves nothing on the engine.

        `fresh` takes nothing from earlier builds, and what was called `image` makes way.
        """
        building, before = Building(), self._image_ids()
        former = self.image(image)
        try:
            for event in self._build_events(dockerfile, image, network, fresh):
                if "error" in event:
                    raise explain_build(building.output, str(event["error"]), image)
                building.add(event)
                yield building
            with translated(image):
                building.size = int(self.api.inspect_image(image)["Size"])
        except BaseException:
            self._discard(building, before)
            raise
        if former and former != self.image(image):
            self._remove_images(former.id)
        yield building

    def _build_events(
        self, dockerfile: str, image: str, network: str | None, fresh: bool
    ) -> Iterator[Mapping[str, Any]]:
        """As docker-py's own call, which would hand over every login of the caller's, and fail
        where one of them cannot be read."""
        proxies = self.api._proxy_configs.get_environment()
        wanted = {
            **{"t": image, "rm": True, "forcerm": True, "nocache": fresh},
            **({"networkmode": network} if network else {}),
            **({"buildargs": json.dumps(proxies)} if proxies else {}),
        }
        with translated(image):
            answer = self.api._post(
                self.api._url("/build"),
                data=_context(dockerfile),
                params=wanted,
                headers={"Content-Type": "application/x-tar"},
                stream=True,
                timeout=None,  # apt says nothing while it fetches a gigabyte
            )
            with closing(answer):
                self.api._raise_for_status(answer)
                yield from self.api._stream_helper(answer, decode=True)

    def _discard(self, building: Building, before: frozenset[str]) -> None:
        """Remove what a build has made that came to nothing."""
        if building.container:  # the engine ends it, and may yet keep what it has done
            with suppress(EngineError):
                self.wait_removed(building.container)
        with suppress(EngineError), translated("the engine"):
            unnamed = self.api.images(filters={"dangling": True})
            last = f"sha256:{building.image or '-'}"
            late = [
                str(item["Id"])
                for item in unnamed
                if item["Id"] not in before and str(item.get("ParentId")).startswith(last)
            ]
            self._remove_images(*late, *([building.made] if building.made else []))

    def _remove_images(self, *images: str) -> None:
        """With the layers beneath them that nobody else needs; what has a name or use stays."""
        for image in images:
            with suppress(EngineError), translated(image):
                if not self.api.inspect_image(image)["RepoTags"]:
                    self.api.remove_image(image)

    def _image_ids(self) -> frozenset[str]:
        with translated("the engine"):
            return frozenset(self.api.images(quiet=True))

    # --- room on the disk

    def disk(self) -> Disk:
        """What takes room; the engine counts for it, which takes it seconds."""
        with translated("the engine"):
            found = self._as_before("/system/df")
            return Disk(
                made=tuple(self._made(item) for item in found["Images"] or () if _is_made(item)),
                volumes={
                    item["Name"]: max(0, (item.get("UsageData") or {}).get("Size") or 0)
                    for item in found["Volumes"] or ()
                },
                images={item["Id"]: item["ImageID"] for item in found["Containers"] or ()},
            )

    def _made(self, item: Mapping[str, Any]) -> Made:
        builder = item["Labels"].get(BUILT_BY)
        return Made(
            id=item["Id"],
            names=tuple(name for name in item.get("RepoTags") or () if name != _UNNAMED),
            alone=max(0, item["Size"] - max(0, item.get("SharedSize") or 0)),
            by=builder or self.api.inspect_image(item["Id"]).get("Author") or "",
            built=bool(builder),
        )

    # --- starting

    def run_detached(self, arguments: Arguments) -> str:
        """`containers.run` itself; what a failed start leaves is removed. The container's id."""
        image = str(arguments.run["image"])
        try:
            with translated(image):
                return str(self.client.containers.run(**arguments.run).id)
        except EngineError as error:
            if leftover := _started_id(error.__cause__):
                self.remove(leftover)
            raise

    def create(self, arguments: Arguments, warn: Callable[[str], None]) -> str:
        """The container `containers.run` would start, not yet started. Its id."""
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

    def start(self, box: str, image: str) -> None:
        with translated(image):
            self.api.start(box)

    def read(self, box: str, path: str) -> str:
        """The text of a file in a box, running or not; empty where there is none."""
        with translated(box):
            try:
                parts, _ = self.api.get_archive(box, f"/{path}")
            except docker.errors.NotFound:
                return ""
            packed = io.BytesIO(b"".join(parts))
        with tarfile.open(fileobj=packed) as tar:
            file = tar.extractfile(tar.getmembers()[0])
            return file.read().decode(errors="replace") if file else ""

    def put(self, box: str, archive: bytes) -> None:
        """Unpack a tar at the root of a box."""
        with translated(box):
            self.api.put_archive(box, "/", archive)

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
        """Remove a container that was created and never started; what has moved on stays."""
        with suppress(EngineError), translated(box):
            self.api.remove_container(box, v=True)

    def ticket(self, box: str, claim: Mapping[str, str] | None = None) -> str:
        """A container that is never started and claims what a box does, or is to; its id."""
        with translated(box):
            found = self.api.inspect_container(box)
            said = {
                name: text
                for name, text in found["Config"]["Labels"].items()
                if name.startswith("gpubox.")
            }
            made = self.api.create_container(
                found["Image"], command=["none"], labels={**said, **(claim or {}), TICKET: box}
            )
        return str(made["Id"])

    # --- moving

    def inspect(self, box: str) -> Mapping[str, Any]:
        """All that the engine says of a container."""
        with translated(box):
            return dict(self.api.inspect_container(box))

    def set_restart(self, box: str, policy: Mapping[str, Any]) -> None:
        with translated(box):
            self.api.update_container(box, restart_policy=policy)

    def commit(self, box: str, said: Mapping[str, Any], author: str) -> str:
        """An unnamed image of a box's files, with what is `said` of it instead; its id.

        Whose it is, an image says as its author, which no container inherits as it does labels.
        """
        with translated(box):
            made = self.api._post_json(
                self.api._url("/commit"),
                data=dict(said),
                params={"container": box, "author": author},
                timeout=None,  # as long as the files are many
            )
            files = str(self.api._result(made, True)["Id"])
            try:
                return self._without_container(files)
            except BaseException:
                self.remove_image(files)
                raise

    def _as_before(self, path: str) -> Any:
        """An answer in the words of an API that still told all of it."""
        version = min(_version(self.api._version), _LAST_TO_TELL)
        url = f"{self.api.base_url}/v{version[0]}.{version[1]}{path}"
        return self.api._result(self.api._get(url, timeout=None), True)

    def _without_container(self, image: str) -> str:
        """The image without the record of its container, which engines add; its id.

        There all of the container's variables and labels are kept beside those of the image.
        """
        found = self._as_before(f"/images/{image}/json")
        past = found.get("ContainerConfig") or {}
        if not past.get("Env") and not past.get("Labels"):
            return image
        record = _record(found)
        made = f"sha256:{hashlib.sha256(record).hexdigest()}"
        for event in self.api.load_image(_archive(record, len(found["RootFS"]["Layers"]))):
            if "error" in event:
                raise explain(str(event["error"]), image)
        self.api.inspect_image(made)
        self.api.remove_image(image)
        return made

    def create_like(
        self, name: str, body: Mapping[str, Any], networks: Mapping[str, Mapping[str, Any]]
    ) -> str:
        """A container from the body of the call itself, in further networks; its id."""
        with translated(name):
            made = str(self.api.create_container_from_config(dict(body), name)["Id"])
            try:
                for network, said in networks.items():
                    url = self.api._url("/networks/{0}/connect", network)
                    wanted = {"Container": made, "EndpointConfig": said}
                    self.api._raise_for_status(self.api._post_json(url, data=wanted))
            except BaseException:
                self.api.remove_container(made, force=True)
                raise
        return made

    def rename(self, box: str, name: str) -> None:
        with translated(name):
            self.api.rename(box, name)

    def remove_keeping_volumes(self, box: str) -> None:
        """Remove a container, running or not, and none of its volumes."""
        with translated(box), suppress(docker.errors.NotFound):
            self.api.remove_container(box, force=True)

    def remove_image(self, image: str) -> None:
        with translated(image), suppress(docker.errors.NotFound):
            self.api.remove_image(image)

    def remove_unnamed(self, image: str) -> None:
        """Remove an image that nobody has named, and that no container needs."""
        self._remove_images(image)

    def tickets(self, box: str) -> list[str]:
        """Those who are about to move a box, or to start it again."""
        with translated(box):
            found = self.api.containers(all=True, filters={"label": f"{TICKET}={box}"})
        return [str(item["Id"]) for item in found]

    # --- the foreground

    def attach(self, box: str, image: str, *, stdin: bool) -> Hijacked:
        """The box's streams, before it starts: nothing of its output is lost.

        Podman prepares the box's process here, and says here what keeps it from starting.
        """
        wanted: dict[str, int | str] = {"stream": 1, "stdout": 1, "stderr": 1, "stdin": int(stdin)}
        wanted["detachKeys"] = self.detach_keys
        with translated(image):
            return _hijacked(self.api.attach_socket(box, params=wanted))

    def exec(self, box: str, wanted: Exec) -> str:
        """Another process in a running box, not yet started; its id."""
        with translated(box):
            made = self.api.exec_create(
                box,
                list(wanted.command),
                tty=wanted.tty,
                stdin=wanted.stdin,
                user=wanted.user,
                workdir=wanted.folder or None,
                environment=list(wanted.variables),
                detach_keys=self.detach_keys,
            )
        return str(made["Id"])

    def exec_start(self, process: str, image: str, *, tty: bool) -> Hijacked:
        """Start it: its streams."""
        with translated(image):
            return _hijacked(self.api.exec_start(process, tty=tty, socket=True))

    def exec_end(self, process: str, box: str) -> int | None:
        """Its exit code; None while it runs."""
        with translated(box):
            found = self.api.exec_inspect(process)
        return None if found["Running"] or found["ExitCode"] is None else int(found["ExitCode"])

    def exec_resize(self, process: str, rows: int, columns: int) -> bool:
        return self._resized(self.api.exec_resize, process, rows, columns)

    def exit_of(self, box: str) -> Exit:
        """Start to wait for the box's next end.

        Asked before the start, or a box that ends at once would never be heard of.
        """
        with translated(box):
            url = self.api._url("/containers/{0}/wait", box)
            answer = self.api._post(
                url, params={"condition": "next-exit"}, timeout=None, stream=True
            )
            self.api._raise_for_status(answer)
        return Exit(box, answer)

    def out_of_memory(self, box: str, patience: float = 0) -> bool:
        """Whether the box, or a process in it, was killed for want of memory; removed or not.

        Read from the engine's past events, for a box that is removed takes its state along. With
        `patience` one that comes up to so many seconds after the box's end is waited for.
        """
        return bool(self._past_events(box, "oom", patience))

    def _past_events(self, box: str, kind: str, patience: float = 0) -> list[Mapping[str, Any]]:
        wanted = {"container": [box], "event": [kind]}
        with translated(box):
            until = f"{time.time() + patience:.9f}"
            return list(self.api.events(since=0, until=until, filters=wanted, decode=True))

    def resize(self, box: str, rows: int, columns: int) -> bool:
        """Tell a box's terminal its size; False where its process does not run yet."""
        return self._resized(self.api.resize, box, rows, columns)

    @staticmethod
    def _resized(resize: Callable[..., None], it: str, rows: int, columns: int) -> bool:
        try:
            resize(it, height=rows, width=columns)
        except (docker.errors.APIError, requests.exceptions.RequestException):
            return False
        return True

    def signal(self, box: str, name: str) -> None:
        """Send a signal (`SIGTERM`) to the box; one that has ended does not mind."""
        with suppress(docker.errors.APIError, requests.exceptions.RequestException):
            self.api.kill(box, signal=name)

    def wait_removed(self, box: str) -> None:
        """Wait until the engine has removed a box that it removes by itself."""
        with translated(box), suppress(docker.errors.NotFound):
            self.api.wait(box, condition="removed")

    # --- boxes

    def boxes(self, *, stopped: bool, sizes: bool = False) -> list[Box]:
        """All boxes on the engine, whoever started them, the latest first; one call.

        The engine counts for their `sizes`, which takes it seconds.
        """
        with translated("the engine"):
            found = self.api.containers(all=stopped, size=sizes, filters={"label": OWN})
        boxes = [_box(item, sizes) for item in found if _is_box(item.get("Labels") or {})]
        # Docker's order already, not Podman's
        return sorted(boxes, key=lambda box: box.created, reverse=True)

    def containers(self, known: dict[str, values.Gpus]) -> list[Container]:
        """All containers, gpubox's or not, and the GPUs that each holds.

        One list call, and a look at each that its labels tell too little of; what was seen there
        stays so, and is kept in `known` for the next time.
        """
        with translated("the engine"):
            found = self.api.containers(all=True)
        return [_container(item, self._held(item, known)) for item in found]

    def _held(self, item: Mapping[str, Any], known: dict[str, values.Gpus]) -> values.Gpus:
        """The GPUs that a container holds, running or not."""
        labels = item.get("Labels") or {}
        alive = item.get("State") in ALIVE
        claim = claims.of_label(labels.get("gpubox.gpus", "")) if labels.get(OWN) else None
        if alive and claim is not None:
            return claim
        if not alive and (claim in (None, values.NO_GPUS) or item.get("State") not in _ENDED):
            return values.NO_GPUS
        if item["Id"] not in known:
            known[item["Id"]] = self._looked_up(item["Id"], claim)
        return known[item["Id"]]

    def _looked_up(self, container: str, claim: values.Gpus | None) -> values.Gpus:
        """What only the engine's whole answer tells: of a stopped box, whether it comes back."""
        try:
            with translated(container):
                found = self.api.inspect_container(container)
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
        """Who publishes which port of the engine's machine, in words."""
        with translated("the engine"):
            found = self.api.containers()
        return {
            port["PublicPort"]: _publisher(item)
            for item in found
            for port in item.get("Ports") or ()
            if port.get("PublicPort")
        }

    def killed_for_memory(self, box: str) -> int | None:
        """The limit in bytes, 0 for none, of a stopped box that was killed for want of memory."""
        with translated(box):
            found = self.api.inspect_container(box)
        return int(found["HostConfig"].get("Memory") or 0) if found["State"]["OOMKilled"] else None

    def state(self, box: str) -> Mapping[str, Any]:
        with translated(box):
            return dict(self.api.inspect_container(box)["State"])

    def is_running(self, box: str) -> bool:
        return bool(self.state(box)["Running"])

    def served(self, box: str, key: str) -> Served:
        """Where a box serves its port (`8888/tcp`), or will once it runs; and its token."""
        with translated(box):
            found = self.api.inspect_container(box)
        variables = values.variables(found["Config"]["Env"] or ())
        options = values.variables(found["Config"]["Cmd"] or ())
        ports = (found["NetworkSettings"]["Ports"] or {}, found["HostConfig"]["PortBindings"] or {})
        bound: Mapping[str, str] = next((places[key][0] for places in ports if places.get(key)), {})
        return Served(
            address=bound.get("HostIp") or options.get("--ip", "127.0.0.1"),
            port=int(bound.get("HostPort") or options.get("--port", "0")),
            token=variables.get("JUPYTER_TOKEN", ""),
            published=bool(bound),
        )

    def is_privileged(self, box: str) -> bool:
        with translated(box):
            return bool(self.api.inspect_container(box)["HostConfig"].get("Privileged"))

    def run_in(self, box: str, *command: str) -> int:
        """Run a program in a running box, as its root and to its end: the exit code."""
        with translated(box):
            made = self.api.exec_create(box, list(command), user="0")["Id"]
            self.api.exec_start(made)
            return int(self.api.exec_inspect(made)["ExitCode"])

    def programs(self, box: str) -> list[str]:
        """The command lines of a box's processes; none where it does not run."""
        with suppress(EngineError), translated(box):
            return [str(process[-1]) for process in self.api.top(box)["Processes"] or ()]
        return []

    def end(self, box: str) -> tuple[int, str] | None:
        """A box's last exit code and the end of its log; None while it runs."""
        try:
            state = self.state(box)
        except EngineError:  # it is gone, and its log with it
            died = self._past_events(box, "die")
            return int(died[-1]["Actor"]["Attributes"]["exitCode"]) if died else 0, ""
        if state["Running"] and not state.get("Restarting"):
            return None
        log = b""
        with suppress(EngineError):  # it may be kept elsewhere
            log = self.log(box, lines=9)
        return int(state["ExitCode"]), log.decode(errors="replace")

    def log(self, box: str, *, lines: int) -> bytes:
        with translated(box):
            return bytes(self.api.logs(box, tail=lines))

    def log_of_this_run(self, box: str) -> str:
        """What a box has said since it was started last."""
        started = datetime.fromisoformat(f"{self.state(box)['StartedAt'][:26]}+00:00")
        with translated(box):
            said: bytes = self.api.logs(box, since=started.timestamp())
        return said.decode(errors="replace")

    def logs(
        self,
        box: str,
        *,
        follow: bool = False,
        lines: int | None = None,
        since: float | None = None,
        times: bool = False,
    ) -> Iterator[tuple[int, bytes]]:
        """What a box has said, and with `follow` says, in pieces of stream 1 or 2 as they come.

        Of a terminal there is only 1. `since` is in Unix seconds.
        """
        asked = {"follow": int(follow), "timestamps": int(times), "tail": lines, "since": since}
        given = {name: value for name, value in asked.items() if value is not None}
        wanted = {"stdout": 1, "stderr": 1, **given}
        with translated(box):
            whole = bool(self.api.inspect_container(box)["Config"]["Tty"])
            url = self.api._url("/containers/{0}/logs", box)
            answer = self.api._get(url, params=wanted, stream=True, timeout=None)
            with closing(answer):
                self.api._raise_for_status(answer)
                frames = Frames()
                for data in answer.raw.stream(1 << 16):
                    if whole:
                        yield STDOUT, data
                    else:
                        yield from ((stream, bytes(it)) for stream, it in frames.pieces(data))

    def follow_log(self, box: str) -> Iterator[bytes]:
        """What it says from now on; all of it would push what was printed out of the window."""
        with translated(box):
            yield from self.api.logs(box, stream=True, follow=True, tail=0)

    def stop(self, box: str, seconds: int | None = None) -> None:
        """Stop a box, which has `seconds` to end by itself, or its own or Docker's time."""
        with translated(box):
            self.api.stop(box, timeout=seconds)

    def restart(self, box: str, seconds: int | None = None) -> None:
        """Stop and start a box, which has `seconds` to end by itself, or Docker's or its own."""
        with translated(box):
            url = self.api._url("/containers/{0}/restart", box)
            wanted = {} if seconds is None else {"t": seconds}
            self.api._raise_for_status(self.api._post(url, params=wanted, timeout=None))

    def bound_ports(self, box: str) -> list[int]:
        """The ports of its machine that a box asked for by their numbers, running or not."""
        with translated(box):
            bound = self.api.inspect_container(box)["HostConfig"]["PortBindings"] or {}
        numbers = [place["HostPort"] for places in bound.values() for place in places or ()]
        return [int(number) for number in numbers if number.isdigit() and int(number)]

    def begin_stop(self, box: str, seconds: int) -> None:
        """Have the engine stop a box, and do not wait for it: it ends that by itself."""
        url = self.api._url("/containers/{0}/stop", box)
        with suppress(docker.errors.APIError, requests.exceptions.RequestException):
            self.api._post(url, params={"t": seconds}, timeout=_HANDED_OVER_SECONDS)

    def published_port(self, box: str, key: str) -> tuple[str, int] | None:
        """Where a running box's port (`8888/tcp`) is really published."""
        with translated(box):
            bound = self.api.inspect_container(box)["NetworkSettings"]["Ports"].get(key)
        return (bound[0]["HostIp"], int(bound[0]["HostPort"])) if bound else None


# --- connecting


def connect(endpoint: Endpoint, seconds: float = _ANSWER_SECONDS) -> Engine:
    """An engine that answers within `seconds`, spoken to in its own API version."""
    try:
        # a version of our own choice, so that docker-py asks nothing before trust_env is off
        client = docker.DockerClient(
            base_url=endpoint.host,
            version="1.24",
            timeout=_CALL_SECONDS,
            tls=_tls(endpoint),
            use_ssh_client=endpoint.host.startswith("ssh://"),
        )
        # or REQUESTS_CA_BUNDLE would take the place of the engine's own CA
        api: Any = client.api
        api.trust_env = False
        answer = api.get(f"{api.base_url}/_ping", timeout=seconds)
    except docker.errors.InvalidConfigFile as error:
        raise _bad_config() from error
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise unreachable(list(_causes(error)), endpoint, seconds) from error
    except _NOT_AS_DOCKER_WRITES as error:
        raise _bad_config() from error
    version = answer.headers.get("Api-Version")
    if not version:
        raise _no_engine(answer, endpoint, seconds)
    if _version(version) < _OLDEST:
        raise too_old(version, endpoint)
    api._version = version
    return Engine(client, endpoint, answer.headers.get("Libpod-Api-Version", ""))


def _config() -> str:
    """Where docker-py finds Docker's config.json; empty where it finds none."""
    return str(docker.utils.config.find_config_file() or "")


def _bad_config() -> EngineError:
    return EngineError(
        f"{_config()} is not as Docker writes it",
        "correct it, or move it away and log in again: docker login",
    )


def _unread_config() -> str:
    """Why Docker's config.json cannot be read, where docker-py goes on as if there were none."""
    path = _config()
    try:
        json.loads((Path(path).read_text("utf-8") if path else "").strip() or "{}")
    except (OSError, ValueError) as error:
        return f"{path} cannot be read: {error}"
    return ""


def _tls(endpoint: Endpoint) -> docker.tls.TLSConfig | bool:
    tls = endpoint.tls
    if tls is None:
        return False
    pair = (str(tls.cert), str(tls.key)) if tls.cert and tls.key else None
    ca = str(tls.ca) if tls.ca else None
    return docker.tls.TLSConfig(client_cert=pair, ca_cert=ca, verify=tls.verify)


def _no_engine(answer: Any, endpoint: Endpoint, seconds: float) -> EngineError:
    """Why what answers is no engine for us: its TLS asks for TLS in plain words."""
    text = f"{answer.status_code} {answer.text}"
    if "HTTPS" in text:
        return unreachable([ConnectionError(text)], endpoint, seconds)
    return no_engine(text, endpoint)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        for part in error.args:
            if isinstance(part, BaseException):
                yield from _causes(part)
        reason = getattr(error, "reason", None)
        if isinstance(reason, BaseException):
            yield reason
        error = error.__cause__ or error.__context__


def _innermost(causes: list[BaseException]) -> str:
    return str(causes[-1]).strip() or type(causes[-1]).__name__


# --- docker-py's exceptions


@contextmanager
def translated(it: str) -> Iterator[None]:
    """docker-py's and its libraries' exceptions as ours; `it` is what the call was about."""
    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise ImageMissing(f"no image {it} on the engine", exit_code=125) from error
    except docker.errors.APIError as error:
        raise _explained(error, it) from error
    except (
        docker.errors.DockerException,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
    ) as error:
        raise EngineError(f"the connection to the engine broke: {_short(error)}") from error


def _explained(error: docker.errors.APIError, it: str) -> EngineSaid:
    return explain(str(error.explanation or error), it)


def _short(error: BaseException) -> str:
    causes = list(_causes(error))
    if isinstance(causes[-1], ValueError):  # http.client could not read on where a chunk begins
        return "its answer stopped in the middle"
    return _innermost(causes) if error.args else type(error).__name__


def _started_id(error: BaseException | None) -> str | None:
    """The id of the container whose start failed, from the request that failed."""
    request = getattr(error, "request", None) or getattr(
        getattr(error, "response", None), "request", None
    )
    found = re.search(r"/containers/([0-9a-f]{64})/start", getattr(request, "url", None) or "")
    return found[1] if found else None


# --- small readings


_CONTAINERD = "/var/lib/containerd"  # its own folder, unless it was told another one


def _root(info: Mapping[str, Any]) -> str:
    """Where images go on the engine's machine."""
    return next(reversed(_folders(info)), "")


def _folders(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Where images and boxes lie; Docker Desktop's are inside a machine of its own."""
    if info.get("OperatingSystem") == "Docker Desktop" or not info.get("DockerRootDir"):
        return ()
    root, at = str(info["DockerRootDir"]), (info.get("Containerd") or {}).get("Address", "")
    own = at and not at.startswith("/run/containerd/")  # a child of the engine, with its data there
    return (root, _CONTAINERD) if _by_containerd(info) and not own else (root,)


def _by_containerd(info: Mapping[str, Any]) -> bool:
    drivers = dict(pair for pair in info.get("DriverStatus") or () if len(pair) == 2)
    return "containerd" in str(drivers.get("driver-type", ""))


def _context(dockerfile: str) -> bytes:
    """What a build is sent: the Dockerfile alone."""
    return _packed({"Dockerfile": dockerfile.encode()})


def _packed(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _record(image: Mapping[str, Any]) -> bytes:
    """What an image says of itself, as it lies in an engine and in an archive."""
    said = {
        "architecture": image["Architecture"],
        "os": image["Os"],
        "created": image["Created"],
        "author": image.get("Author") or "",
        "config": image["Config"],
        "rootfs": {"type": "layers", "diff_ids": image["RootFS"]["Layers"]},
    }
    return json.dumps(said).encode()


def _archive(record: bytes, layers: int) -> bytes:
    """An image to be loaded of which the engine has all layers, so that none is in it."""
    name = f"{hashlib.sha256(record).hexdigest()}.json"
    files = [f"{number}/layer.tar" for number in range(layers)]
    manifest = [{"Config": name, "RepoTags": None, "Layers": files}]
    return _packed({name: record, "manifest.json": json.dumps(manifest).encode()})


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def _hijacked(answer: Any) -> Hijacked:
    early = _early(answer)
    plain = getattr(answer, "_sock", answer)
    if not isinstance(plain, socket.socket):
        raise EngineError("the foreground over this connection is not possible", "use -d")
    return Hijacked(plain, early, answer)


def _early(hijacked: Any) -> bytes:
    """Output that came in one packet with the answer's headers and waits in http.client's buffer.

    docker-py hands out the socket beneath that buffer, so these bytes would be lost.
    """
    plain = getattr(hijacked, "_sock", hijacked)
    plain.settimeout(0)
    try:
        return bytes(hijacked._response.raw._fp.fp.read1(262144) or b"")
    except (AttributeError, BlockingIOError, ssl.SSLWantReadError):
        return b""


def _is_made(item: Mapping[str, Any]) -> bool:
    """Whether gpubox made an image: by a build, or of a box's files."""
    labels = item.get("Labels") or {}
    return bool(labels.get(BUILT_BY)) or is_of_files(labels)


def _is_box(labels: Mapping[str, str]) -> bool:
    return bool(labels.get(OWN)) and TICKET not in labels


def _box(item: Mapping[str, Any], sizes: bool) -> Box:
    labels = item["Labels"]
    keys = ("profile", "owner", "kind", "gpus", "claim", "folder", "job")
    said = {key: labels.get(f"gpubox.{key}", "") for key in keys}
    return Box(
        id=item["Id"],
        name=_name(item),
        image=item.get("Image", ""),
        state=item.get("State", ""),
        status=item.get("Status", ""),
        created=int(item.get("Created") or 0),
        ports=tuple(sorted({_published(port) for port in item.get("Ports") or ()} - {""})),
        written=int(item.get("SizeRw") or 0) if sizes else None,
        **said,
    )


def _container(item: Mapping[str, Any], gpus: values.Gpus) -> Container:
    labels = item.get("Labels") or {}
    return Container(
        id=item["Id"],
        name=_name(item),
        box=bool(labels.get(OWN)),
        owner=labels.get("gpubox.owner", ""),
        profile=labels.get("gpubox.profile", ""),
        gpus=gpus,
        claimed=claims.of_label(labels.get("gpubox.gpus", "") if labels.get(OWN) else ""),
        claim=labels.get("gpubox.claim", ""),
        state=str(item.get("State") or ""),
        created=int(item.get("Created") or 0),
    )


def _name(item: Mapping[str, Any]) -> str:
    return str((item.get("Names") or ["/"])[0].lstrip("/"))


def _publisher(item: Mapping[str, Any]) -> str:
    name = _name(item)
    owner = (item.get("Labels") or {}).get("gpubox.owner")
    return f"{owner}'s box {name}" if owner else f"the container {name}"


def _platform(item: Mapping[str, Any]) -> str:
    parts = (item.get("os"), item.get("architecture"), item.get("variant"))
    return "/".join(filter(None, parts))


def _published(port: Mapping[str, Any]) -> str:
    if not port.get("PublicPort"):
        return ""
    return f"{port.get('IP', '')}:{port['PublicPort']}->{port['PrivatePort']}/{port['Type']}"
