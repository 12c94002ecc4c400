"""What `doctor` asks: all questions at once, with one deadline. The answers go to `diagnosis`.

The engine, the driver, the disk and each box may hang; what has not answered in time is unknown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as OutOfTimeError
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from msgspec.structs import replace

from gpubox.boxes import inspection, jupyter
from gpubox.checks import Check
from gpubox.cli import preflight
from gpubox.doctor import cdi, diagnosis, nvidia, running, trial, ways
from gpubox.doctor.seen import (
    NO_ANSWER,
    BoxSeen,
    DriverSeen,
    EngineSeen,
    ImageUse,
    NoEngine,
    Toolkit,
)
from gpubox.engine.engine import Engine, connect
from gpubox.errors import GpuboxError
from gpubox.gpus import nvml
from gpubox.gpus.machine import Gpu, Machine
from gpubox.host import engines, paths
from gpubox.images import catalog, fits
from gpubox.images.pull import order
from gpubox.plan.allocation import asked_gpus
from gpubox.plan.backend import backend, is_gated
from gpubox.plan.facts import Caller, EngineFacts, Facts
from gpubox.profile.config import Config
from gpubox.profile.layers import BUILT_IN, Layer
from gpubox.profile.profile import Profile
from gpubox.values import ALL_GPUS, NO_GPUS

if TYPE_CHECKING:
    from gpubox.boxes.box import Box
    from gpubox.cli.app import App

Answer = TypeVar("Answer")

_SECONDS, _SECONDS_AFAR = 1.7, 20  # for all questions; of an engine elsewhere
_PING_SECONDS, _PING_SECONDS_AFAR, _HTTP_SECONDS = 1, 10, 0.5
# Opens the first device node that there is: if it cannot be opened, the box has lost its GPUs.
_REACHES_GPUS = (
    "for node in /dev/nvidiactl /dev/nvidia[0-9]*; do"
    ' [ -e "$node" ] || continue; (: <"$node") 2>/dev/null && exit 0; exit 7; done; exit 3'
)
_REACHES, _REACHES_NOT = 0, 7


class Questions:
    """Questions that are asked at once, each in a thread, with one deadline for all."""

    def __init__(self, seconds: float) -> None:
        self._pool = ThreadPoolExecutor(max_workers=16)
        self._due = time.monotonic() + seconds

    def ask(self, question: Callable[..., Answer], *about: Any) -> Callable[[Answer], Answer]:
        """Ask; a function that waits for the answer, and gives its argument where none comes."""
        asked = self._pool.submit(question, *about)

        def answer(otherwise: Answer) -> Answer:
            try:
                return asked.result(timeout=max(self._due - time.monotonic(), 0))
            except OutOfTimeError:
                return otherwise

        return answer


class Connected(NamedTuple):
    """The engine, as it says it is; or why there is none."""

    engine: Engine | None
    seen: EngineSeen | NoEngine


def examine(this: App, *, on_gpus: bool) -> Iterator[Check]:
    """Every check; each comes behind those that it depends on."""
    elsewhere = _elsewhere(this)
    questions = Questions(_SECONDS_AFAR if elsewhere else _SECONDS)
    asked_engine = questions.ask(_connected, this, elsewhere)
    asked_driver = questions.ask(_driver, this, elsewhere)
    connected = asked_engine(Connected(None, _SILENT_ENGINE))
    seen = connected.seen
    asked_boxes = _asked_boxes(connected.engine, this.caller.name, questions)
    driver = asked_driver(_SILENT_DRIVER)
    toolkit = questions.ask(_toolkit, this, seen)(Toolkit())
    yield from diagnosis.of_engine(seen)
    yield from diagnosis.of_driver(driver)
    yield from ways.of_toolkit(seen, toolkit, driver)
    yield from ways.of_cdi(seen, toolkit, _specs(seen, elsewhere), driver)
    yield from ways.of_cgroups(seen, toolkit)
    yield from _of_rooms(seen, elsewhere, questions)
    boxes = None if asked_boxes is None else [answer(unseen) for unseen, answer in asked_boxes]
    yield from running.of_boxes(boxes, driver.machine, _why_no_boxes(seen))
    yield from _of_profiles(this, connected, driver, questions)
    if on_gpus:
        yield from _of_trials(this, connected, driver)


_SILENT_ENGINE = NoEngine(
    problem="the engine does not answer in time", hint="sudo systemctl restart docker"
)
_SILENT_DRIVER = DriverSeen(
    problem="the NVIDIA driver does not answer in time",
    hint="sudo dmesg | grep -i nvrm shows why; sudo reboot brings it back",
)


# --- the engine


def _elsewhere(this: App) -> str:
    """Why this machine is not the engine's; empty where it is, or where that is not known."""
    try:
        return this.endpoint.elsewhere
    except GpuboxError:
        return ""


def _socket(this: App) -> str | None:
    try:
        return this.endpoint.socket
    except GpuboxError:
        return None


def _connected(this: App, elsewhere: str) -> Connected:
    try:
        engine = connect(this.endpoint, _PING_SECONDS_AFAR if elsewhere else _PING_SECONDS)
        return Connected(engine, engine.seen())
    except GpuboxError as error:
        return Connected(None, _no_engine(this, error))


def _no_engine(this: App, error: GpuboxError) -> NoEngine:
    path, caller = _socket(this), this.caller
    if path is None or Path(path).exists():
        return NoEngine(problem=error.problem, hint=error.hint)
    return NoEngine(
        problem=error.problem,
        hint=error.hint,
        installed=engines.is_installed(),
        others=engines.sockets(caller.environ, caller.home, path),
    )


# --- the driver, and the way into a box


def _driver(this: App, elsewhere: str) -> DriverSeen:
    if elsewhere:
        return DriverSeen(elsewhere=elsewhere)
    files: dict[str, Any] = {
        "loaded": nvidia.loaded_driver(),
        "libraries": nvidia.libraries(this.caller.environ),
        "cards": nvidia.cards(),
    }
    try:
        return DriverSeen(machine=nvml.machine(), **files)
    except nvml.NoNvml as error:
        fault = _at_fault(error)
        return DriverSeen(problem=error.problem, hint=error.hint, at_fault=fault, **files)


def _at_fault(error: nvml.NoNvml) -> Literal["driver", "library", "no library"]:
    if isinstance(error, nvml.NoDriver):
        return "no library"
    return "library" if error.code in (0, nvml.VERSION_MISMATCH) else "driver"


def _toolkit(this: App, seen: EngineSeen | NoEngine) -> Toolkit:
    socket = _socket(this)
    if socket is None or isinstance(seen, NoEngine):
        return Toolkit()
    server = engines.server(socket)
    path = server.path or f"{nvidia.PROGRAMS}:{this.caller.environ.get('PATH', '')}"
    return nvidia.toolkit(path, server.since, seen.runtime)


def _specs(seen: EngineSeen | NoEngine, elsewhere: str) -> tuple[cdi.Spec, ...]:
    if elsewhere:
        return ()
    told = seen.cdi_folders if isinstance(seen, EngineSeen) else ()
    return nvidia.specs(told or cdi.FOLDERS)


# --- room


def _of_rooms(seen: EngineSeen | NoEngine, elsewhere: str, questions: Questions) -> Iterator[Check]:
    if elsewhere or isinstance(seen, NoEngine):
        yield from diagnosis.of_rooms([], elsewhere or NO_ANSWER)
        return
    asked = [questions.ask(paths.room, folder) for folder in seen.folders]
    rooms = [room for answer in asked if (room := answer(None))]
    yield from diagnosis.of_rooms(rooms, "where this engine keeps images is not seen from here")


# --- boxes


def _why_no_boxes(seen: EngineSeen | NoEngine) -> str:
    return NO_ANSWER if isinstance(seen, NoEngine) else "they were not listed in time"


def _asked_boxes(
    engine: Engine | None, me: str, questions: Questions
) -> list[tuple[BoxSeen, Callable[[BoxSeen], BoxSeen]]] | None:
    """Each box that runs, as it is listed, and the question for the rest: one box may hang."""
    running = None if engine is None else questions.ask(_running, engine)(None)
    if engine is None or running is None:
        return None
    listed = [(box, _unseen(box, me)) for box in running]
    return [(unseen, questions.ask(_box, engine, box, unseen)) for box, unseen in listed]


def _running(engine: Engine) -> list[Box] | None:
    try:
        return [box for box in engine.boxes(stopped=False) if box.state == "running"]
    except GpuboxError:
        return None


def _unseen(box: Box, me: str) -> BoxSeen:
    return BoxSeen(
        name=box.name,
        owner=box.owner if box.owner != me else "",
        gpus=box.gpus,
        ports=box.ports,
        privileged=None,
        reaches_gpus=None,
        open_at=None,
    )


def _box(engine: Engine, box: Box, unseen: BoxSeen) -> BoxSeen:
    try:
        return replace(
            unseen,
            privileged=inspection.is_privileged(engine.inspect(box.id)),
            reaches_gpus=_reaches_gpus(engine, box),
            open_at=_open_at(engine, box),
        )
    except GpuboxError:  # it has ended meanwhile
        return unseen


def _reaches_gpus(engine: Engine, box: Box) -> bool | None:
    if not box.has_gpus:
        return True
    try:
        code = engine.run_in(box.id, "sh", "-c", _REACHES_GPUS)
    except GpuboxError:  # without a shell, or not with this engine
        return None
    return {_REACHES: True, _REACHES_NOT: False}.get(code)


def _open_at(engine: Engine, box: Box) -> tuple[str, ...] | None:
    """The addresses at which its Jupyter answers without a token; None from another machine."""
    if not engine.endpoint.local:
        return None
    places = [running.published_at(port) for port in box.ports if port.endswith("/tcp")]
    if not places and box.kind == "jupyter":  # it has the host's own network
        served = inspection.served(engine.inspect(box.id))
        places = [(served.address, served.port)]
    return tuple(
        running.address_text(*place)
        for place in places
        if jupyter.lets_anybody_in(*place, seconds=_HTTP_SECONDS)
    )


# --- profiles


def _of_profiles(
    this: App, connected: Connected, driver: DriverSeen, questions: Questions
) -> Iterator[Check]:
    found = this.files()
    wrong = [(error.problem, error.hint) for error in found.errors]
    profiles = list[Profile]()
    if not wrong:  # else what a profile lacks may stand in the file that cannot be read
        profiles = _profiles(found.layers, this.caller, wrong)
    files = [layer.name for layer in found.layers if layer.name != BUILT_IN]
    yield from diagnosis.of_profiles(files, wrong, found.warnings)
    uses = questions.ask(_uses, profiles, connected, driver.machine)(None)
    why = driver.elsewhere or driver.problem
    yield from diagnosis.of_images(uses, driver.machine, why)


def _profiles(
    layers: Sequence[Layer], caller: Caller, wrong: list[tuple[str, str]]
) -> list[Profile]:
    """The profiles that people's files define, and the defaults.

    All are read, the built-in ones too; what is wrong with any is added to `wrong`.
    """
    profiles = list[Profile]()
    try:
        config = Config(tuple(layers), caller.environ, caller.folder)
        config.datasets()
        config.registry()
        meant = [config.default(), config.default("default_jupyter")]
    except GpuboxError as error:
        wrong.append((error.problem, error.hint))
        return profiles
    for name in dict.fromkeys((*config.names(), *meant)):
        try:
            profile = config.profile(name)
        except GpuboxError as error:
            wrong.append((error.problem, error.hint))
            continue
        if name in meant or config.owners(name)[-1] != BUILT_IN:
            profiles.append(profile)
    return profiles


def _uses(
    profiles: Sequence[Profile], connected: Connected, machine: Machine | None
) -> list[ImageUse] | None:
    engine, seen = connected
    facts = seen.facts if isinstance(seen, EngineSeen) else None
    gated = is_gated(backend(ALL_GPUS, facts), facts)
    return [_use(profile, engine, facts, machine, gated) for profile in profiles]


def _use(
    profile: Profile,
    engine: Engine | None,
    facts: EngineFacts | None,
    machine: Machine | None,
    gated: bool,
) -> ImageUse:
    asked = profile.gpus or NO_GPUS
    gpus = asked_gpus(asked, machine)
    if machine and asked.count:
        doubt = partial(fits.least_doubt, profile.images, machine)
        gpus = tuple(sorted(machine.sound, key=lambda gpu: doubt([gpu]))[: asked.count])
    image = fits.choose(profile.images, machine if gpus else None, gpus).image
    here = None
    with suppress(GpuboxError):
        here = engine.image(image) if engine else None
    own = {name: value for name, value in profile.environment.items() if value is not None}
    unfit = preflight.of_gpus(machine, gpus, image, here, own, gated) if machine and gpus else ()
    return ImageUse(
        profile=profile.name,
        where=profile.image_where,
        image=image,
        here=bool(here) if engine else None,
        pulled=_is_pulled(image, profile.registry) and not (facts and facts.mirrors),
        unfit=tuple(unfit),
    )


def _is_pulled(image: str, registry: str | None) -> bool:
    """Whether it would come from where its name says, and not through the profile's `registry`."""
    try:
        return order(image, registry).source == image
    except GpuboxError:  # an image by its digest does not come through a registry
        return False


# --- a box on each GPU


def _of_trials(this: App, connected: Connected, driver: DriverSeen) -> Iterator[Check]:
    engine, seen = connected
    if engine is None or isinstance(seen, NoEngine):
        yield diagnosis.no_trial(NO_ANSWER)
        return
    image = _image_with_cuda(engine)
    if image is None:
        choice = catalog.candidates(catalog.CudaChoice("12", flavor="base"))
        machine = driver.machine
        fitting = fits.choose(choice, machine, machine.sound if machine else ()).image
        yield diagnosis.no_trial("no image with CUDA is on the engine", f"gpubox pull {fitting}")
        return
    facts = Facts(caller=this.caller, engine=seen.facts, machine=driver.machine)
    listed = driver.machine.gpus if driver.machine else ()
    gpus: list[Gpu | None] = [gpu for gpu in listed if not gpu.trouble]
    for gpu in gpus or [None]:
        yield diagnosis.of_trial(trial.of(engine, image, gpu, facts))


def _image_with_cuda(engine: Engine) -> str | None:
    """The smallest image with CUDA that the engine has: a trial runs whatever the driver is."""
    known = {name: engine.image(name) for name in engine.images()}
    with_cuda = {
        name: it.size for name, it in known.items() if it and "CUDA_VERSION" in it.variables
    }
    return min(with_cuda, key=lambda name: with_cuda[name], default=None)
