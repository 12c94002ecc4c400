"""Real engines for the tests: one of each kind a test process, started when first asked for.

An engine that cannot be started fails the tests that need it, with the command that helps.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir

import docker
import docker.errors
import pytest

from lab.engine import Kind, PrivateEngine
from lab.images import STAND_IN, build_stand_in, tag
from lab.jupyter import JUPYTER, build_jupyter
from lab.nvml import Libraries, Machine
from lab.podman import PrivatePodman
from lab.program import Gpubox
from lab.registry import Registry
from lab.spellings import DATA, GPU, INHERITED, STAND_INS
from lab.workstation import Workstation


class Engines:
    """Those that were asked for so far."""

    def __init__(self) -> None:
        self.running: dict[Kind, PrivateEngine] = {}

    def of(self, kind: Kind) -> PrivateEngine:
        if kind not in self.running:
            made = PrivatePodman() if kind == "podman" else PrivateEngine(kind)
            self.running[kind] = engine = made.start()
            build_stand_in(engine.host)
        return self.running[kind]

    def jupyter(self, engine: PrivateEngine) -> str:
        client = docker.DockerClient(base_url=engine.host)
        if not client.images.list(JUPYTER):  # or a test has removed it
            build_jupyter(engine.host)
        client.close()
        return JUPYTER

    def remove_boxes(self) -> None:
        for engine in self.running.values():
            if not engine.pid:  # a test killed it and left it so
                engine.start()
            remove_boxes(engine.host)

    def stop(self) -> None:
        for engine in self.running.values():
            engine.stop()


def remove_boxes(host: str) -> None:
    client = docker.DockerClient(base_url=host)
    try:
        for box in client.containers.list(all=True, ignore_removed=True):
            with suppress(docker.errors.NotFound):  # it was about to remove itself
                _remove(client, str(box.id))
    finally:
        client.close()


def _remove(client: docker.DockerClient, box: str) -> None:
    try:
        client.api.remove_container(box, force=True, v=True)
    except docker.errors.APIError as error:
        if "already in progress" not in str(error):
            raise
        client.api.wait(box, condition="removed")


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    made = Engines()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def _no_boxes_left(engines: Engines) -> Iterator[None]:
    yield
    engines.remove_boxes()


@pytest.fixture(scope="session")
def stable_engine(engines: Engines) -> PrivateEngine:
    """The distribution's engine with NVIDIA's hook, simulated."""
    return engines.of("stable")


@pytest.fixture(scope="session")
def cdi_engine(engines: Engines) -> PrivateEngine:
    """A newer engine that knows its GPUs by CDI and has no hook."""
    return engines.of("cdi")


@pytest.fixture(scope="session")
def podman(engines: Engines) -> PrivatePodman:
    """Podman's Docker-compatible service, without GPUs."""
    engine = engines.of("podman")
    assert isinstance(engine, PrivatePodman)
    return engine


@pytest.fixture(scope="session", params=["stable", "cdi"])
def engine(request: pytest.FixtureRequest, engines: Engines) -> PrivateEngine:
    """Both kinds, one after the other."""
    kind: Kind = request.param
    return engines.of(kind)


@pytest.fixture
def used_engine(request: pytest.FixtureRequest, engines: Engines) -> PrivateEngine:
    """The engine that the test names among its fixtures; `stable` where it names none."""
    if "engine" in request.fixturenames:
        chosen: PrivateEngine = request.getfixturevalue("engine")
        return chosen
    named: dict[str, Kind] = {"cdi_engine": "cdi", "podman": "podman"}
    kinds = [kind for fixture, kind in named.items() if fixture in request.fixturenames]
    return engines.of(kinds[0] if kinds else "stable")


@pytest.fixture
def client(used_engine: PrivateEngine) -> Iterator[docker.DockerClient]:
    """docker-py's client for what gpubox did, as seen from outside."""
    made = docker.DockerClient(base_url=used_engine.host)
    yield made
    made.close()


@pytest.fixture
def surroundings(
    engine: PrivateEngine,
    client: docker.DockerClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[dict[str, str]]:
    """This process as a person's shell in a folder of theirs; what stands for DATA and GPU."""
    folder = tmp_path / "with space, comma"
    for made in (folder / "inner", folder / "a:b", tmp_path / "work/here"):
        made.mkdir(parents=True)
    (folder / "env").write_text("# comment\n\nFROM_FILE=1 2\nQUOTED='x'\nINHERITED\nUNSET_ONE\n")
    (folder / "inner/env").write_text("FROM_FILE=2\n  INDENTED=a=b  \nEMPTY=\n")
    (folder / "seccomp.json").write_text('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}')
    monkeypatch.chdir(tmp_path / "work")
    for name, value in {**engine.env, **INHERITED}.items():
        monkeypatch.setenv(name, value)
    tag(client.api, STAND_IN, STAND_INS)
    yield {DATA: str(folder), GPU: engine.gpus[0]}
    for image in STAND_INS:
        if image != STAND_IN:
            client.images.remove(image)


@pytest.fixture
def port_8888(engines: Engines) -> Iterator[None]:
    """Of the tests side by side one at a time has notebooks, which all want that port."""
    with Path(gettempdir(), "gpubox-lab-8888").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        engines.remove_boxes()


@pytest.fixture
def jupyter_image(used_engine: PrivateEngine, engines: Engines, port_8888: None) -> str:
    """The name of an image with a real JupyterLab, present on the engine that the test names."""
    return engines.jupyter(used_engine)


@pytest.fixture
def gpubox(used_engine: PrivateEngine, tmp_path: Path) -> Gpubox:
    """The installed program, talking to the engine that the test names."""
    return Gpubox(tmp_path, used_engine.env)


@pytest.fixture(scope="session")
def nvml_libraries(tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    return Libraries(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def nvml(nvml_libraries: Libraries, tmp_path: Path) -> Callable[[Machine], dict[str, str]]:
    """The environment in which a program finds itself on a machine with these GPUs.

    Another machine in the same environment is there from the program's next start on.
    """
    return lambda machine: nvml_libraries.serve(machine, tmp_path / "simulated-nvml")


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    with Registry() as made:
        yield made


@pytest.fixture
def lab(
    used_engine: PrivateEngine, gpubox: Gpubox, nvml: Callable[[Machine], dict[str, str]]
) -> Workstation:
    """A shared machine with four GPUs, its engine and its people."""
    return Workstation(used_engine, gpubox, nvml)
