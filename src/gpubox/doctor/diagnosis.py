"""Makes checks of what was seen of a machine: each an id, a verdict, the evidence and the fix.

Pure. Here: engine, driver, room, profiles, trials; the rest is in `ways` and `running`.
What also speaks against a single start is taken from `checks` and `fits`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gpubox import checks
from gpubox.checks import Check, Room, Verdict
from gpubox.doctor.seen import NO_ANSWER, DriverSeen, EngineSeen, ImageUse, NoEngine, Trial
from gpubox.doctor.ways import RENEW_CDI, SPEC
from gpubox.engine.faults import INSTALL_TOOLKIT
from gpubox.figures import counted, size_text
from gpubox.gpus.machine import Machine
from gpubox.images import fits
from gpubox.plan.backend import ignores_devices, knows_requests
from gpubox.plan.facts import EngineFacts

ENGINE, API, SETUP = "engine", "api", "setup"
DRIVER, LIBRARY, GPUS = "driver", "library", "gpus"
DISK, DELETED = checks.DISK, checks.DELETED
PROFILES, IMAGES, TRIAL = "profiles", "images", "gpu-box"

_CUDA_IMAGE = 12 * 10**9  # bytes: NVIDIA's devel images, while they are pulled


# --- the engine


def of_engine(engine: EngineSeen | NoEngine) -> Iterator[Check]:
    if isinstance(engine, NoEngine):
        yield _no_engine(engine)
        yield Check(API, "not known", NO_ANSWER)
        yield Check(SETUP, "not known", NO_ANSWER)
        return
    kind = "Podman" if engine.facts.podman else "Docker"
    yield Check(ENGINE, "ok", f"{kind} {engine.version} at {engine.place}")
    yield _api(engine.facts)
    yield from _setup(engine)


def _no_engine(engine: NoEngine) -> Check:
    if engine.others:
        here = " and ".join(engine.others)
        fix = f"export DOCKER_HOST=unix://{engine.others[0]}"
        return Check(ENGINE, "fail", f"{engine.problem}; yet there is {here}", fix)
    if not engine.installed:
        return Check(
            ENGINE,
            "fail",
            f"{engine.problem}; there is no dockerd here, so it is not installed",
            "install Docker Engine, on Debian and Ubuntu: sudo apt-get install docker.io",
        )
    hint = engine.hint or "sudo systemctl status docker shows how it is"
    return Check(ENGINE, "fail", engine.problem, hint)


def _api(facts: EngineFacts) -> Check:
    version = "{}.{}".format(*facts.api)
    if not knows_requests(facts):
        problem = f"API {version} knows no GPU requests: those came with 1.40, Docker 19.03"
        return Check(API, "fail", problem, "upgrade to Docker 20.10 or newer")
    return Check(API, "ok", version)


def _setup(engine: EngineSeen) -> Iterator[Check]:
    """What kind of engine it is, where that kind has something to know."""
    found = [
        *_podman(engine.facts.podman),
        *_desktop(engine),
        *_snap(engine),
        *_rootless(engine),
    ]
    yield from found
    if not found:
        yield Check(SETUP, "ok", engine.system or "nothing of note")


def _podman(version: str) -> Iterator[Check]:
    if ignores_devices(version):
        problem = f"Podman {version} ignores GPU requests: a box would run without a GPU"
        yield Check(SETUP, "warn", problem, "use Podman 5.4 or newer, or a Docker Engine")


def _desktop(engine: EngineSeen) -> Iterator[Check]:
    wsl = "microsoft" in engine.kernel.lower()
    if engine.system == "Docker Desktop" and not wsl:
        yield Check(
            SETUP,
            "warn",
            "Docker Desktop runs boxes in a virtual machine, which has no NVIDIA GPU",
            "docker context use default takes the Docker Engine beside it, if one is installed",
        )
    elif wsl:
        yield Check(
            SETUP, "ok", "WSL: the driver is the one of Windows; none is to be installed in here"
        )


def _snap(engine: EngineSeen) -> Iterator[Check]:
    if any(folder.startswith("/var/snap/") for folder in engine.folders):
        yield Check(
            SETUP,
            "warn",
            "Docker is a snap: it sees no folders but your home's, and NVIDIA's toolkit of this"
            " machine does not reach it",
            "sudo snap remove docker (its images go with it); sudo apt-get install docker.io",
        )


def _rootless(engine: EngineSeen) -> Iterator[Check]:
    if engine.rootless:
        yield Check(
            SETUP,
            "ok",
            "rootless: what others' engines start is seen here only as processes on the GPUs",
        )


# --- the driver


def of_driver(driver: DriverSeen) -> Iterator[Check]:
    if driver.elsewhere:
        for check in (DRIVER, LIBRARY, GPUS):
            yield Check(check, "not known", driver.elsewhere)
    elif driver.machine:
        yield Check(DRIVER, "ok", _version(driver.machine))
        yield Check(LIBRARY, "ok", "libnvidia-ml.so.1 fits the driver")
        yield from _gpus(driver.machine, driver.cards)
    else:
        yield _driver_unasked(driver)
        yield _library_at_fault(driver)
        yield Check(GPUS, "not known", f"{_cards(driver.cards)}; NVML tells nothing")


def _version(machine: Machine) -> str:
    cuda = fits.cuda_of(machine)
    return machine.driver + (f", which knows CUDA {cuda}" if cuda else "")


def _driver_unasked(driver: DriverSeen) -> Check:
    if driver.at_fault == "driver":
        return Check(DRIVER, "fail", driver.problem, driver.hint)
    if driver.loaded:
        return Check(DRIVER, "ok", f"{driver.loaded} is loaded")
    if driver.at_fault == "no library":
        verdict: Verdict = "fail" if driver.cards else "warn"
        return Check(DRIVER, verdict, f"{driver.problem}; {_cards(driver.cards)}", driver.hint)
    return Check(DRIVER, "not known", "NVML tells nothing, nor does /proc/driver/nvidia")


def _library_at_fault(driver: DriverSeen) -> Check:
    installed = " and ".join(driver.libraries)
    if driver.at_fault == "library":
        said = [f"{driver.loaded} is loaded"] if driver.loaded else []
        said += [f"{installed} is installed"] if installed else []
        evidence = f"{driver.problem}: {', '.join(said)}" if said else driver.problem
        return Check(LIBRARY, "fail", evidence, driver.hint)
    if driver.at_fault == "driver":
        return Check(
            LIBRARY, "not known", f"{installed or 'it'} is installed; the driver is silent"
        )
    if driver.loaded:
        fix = f"install the driver's libraries of exactly that version, {driver.loaded}"
        return Check(LIBRARY, "fail", "there is no libnvidia-ml.so.1 beside the driver", fix)
    return Check(LIBRARY, "not known", "there is no driver that it could fit")


def _cards(count: int) -> str:
    return f"the PCI bus has {counted(count, 'NVIDIA GPU') if count else 'no NVIDIA GPU'}"


def _gpus(machine: Machine, cards: int) -> Iterator[Check]:
    ill = [gpu for gpu in machine.gpus if gpu.trouble]
    for gpu in ill:
        yield Check(
            GPUS,
            "fail",
            f"GPU {gpu.index} cannot be read: {gpu.trouble}",
            "sudo dmesg | grep -i nvrm shows why; sudo reboot brings it back, if it is not broken",
        )
    count = len(machine.gpus)
    if count < cards:
        listed = f"{_cards(cards)}, the driver lists {count}"
        yield Check(GPUS, "warn", listed, "sudo dmesg | grep -i nvrm shows why")
    elif not machine.gpus:
        yield Check(
            GPUS, "warn", "the driver lists no GPU", "lspci -d 10de: shows what is built in"
        )
    elif not ill:
        names = dict.fromkeys(gpu.name.removeprefix("NVIDIA ") for gpu in machine.gpus)
        yield Check(GPUS, "ok", f"{count}: {', '.join(names)}")


# --- room


def of_rooms(rooms: Sequence[Room], why: str) -> Iterator[Check]:
    """What is left where images and boxes are; without rooms, `why` says why they are not known."""
    if not rooms:
        yield Check(DISK, "not known", why)
    for room in rooms:
        if few := checks.of_little_room(room):
            yield Check(DISK, "fail", few.evidence, few.fix)
        elif room.free < _CUDA_IMAGE:
            yield Check(
                DISK,
                "warn",
                f"{room.path} has {size_text(room.free)} left, less than an image with CUDA takes",
                checks.FREE_SOME,
            )
        else:
            yield Check(DISK, "ok", f"{room.path} has {size_text(room.free)} left")


# --- profiles

_SLOW = "the engine did not tell in time which images it has"


def of_profiles(
    files: Sequence[str], wrong: Iterable[tuple[str, str]], doubts: Iterable[str]
) -> Iterator[Check]:
    """Whether every file can be read and every profile is whole: problems with their hints."""
    problems = dict(wrong)
    for problem, hint in problems.items():
        yield Check(PROFILES, "fail", problem, hint or "correct it there")
    warned = list(doubts)
    for doubt in warned:
        problem, _, hint = doubt.partition("; ")
        yield Check(PROFILES, "warn", problem, hint)
    if not problems and not warned:
        yield Check(PROFILES, "ok", ", ".join(files) or "no file beside what is built in")


def of_images(
    uses: Sequence[ImageUse] | None, machine: Machine | None, why: str
) -> Iterator[Check]:
    """The images of profiles: deleted ones, and those that this machine does not run.

    If `machine` is None, `why` says why it is not known. An image that it cannot run is only a
    warning: the profile's file may be shared with machines that run it.
    """
    if uses is None:
        yield Check(DELETED, "not known", _SLOW)
        yield Check(IMAGES, "not known", _SLOW)
        return
    deleted = [check for use in uses if (check := _deleted(use))]
    yield from deleted or [Check(DELETED, "ok", f"none of {_profiles(uses)}")]
    if machine is None:
        yield Check(IMAGES, "not known", why)
        return
    unfit = [check for use in uses for check in _unfit(use)]
    yield from unfit or [Check(IMAGES, "ok", f"this machine runs those of {_profiles(uses)}")]


def _profiles(uses: Sequence[ImageUse]) -> str:
    return ", ".join(use.profile for use in uses)


def _deleted(use: ImageUse) -> Check | None:
    gone = checks.of_deletion(use.image) if use.pulled and not use.here else None
    if gone is None:
        return None
    problem = f"profile {use.profile} ({use.where}): {gone.evidence}"
    return Check(DELETED, "warn" if use.here is None else "fail", problem, gone.fix)


def _unfit(use: ImageUse) -> Iterator[Check]:
    for check in use.unfit:
        problem = f"profile {use.profile} ({use.where}): {check.evidence}"
        yield Check(IMAGES, "warn", problem, check.fix)


# --- a box on each GPU


def of_trial(trial: Trial) -> Check:
    on = f"GPU {trial.gpu.index}" if trial.gpu else "all GPUs"
    if trial.problem:
        return Check(TRIAL, "fail", f"{on}: {trial.problem}", trial.hint)
    shown = ", ".join((*trial.nodes, *trial.listed))
    if not trial.nodes:
        lacks = f"{on}: a box of {trial.image} started, but has no GPU"
        return Check(TRIAL, "fail", lacks + (f": {shown}" if shown else ""), INSTALL_TOOLKIT)
    wanted = trial.gpu.uuid if trial.gpu else ""
    if not trial.listed:
        return Check(
            TRIAL,
            "warn",
            f"{on}: a box of {trial.image} has {shown}, but no nvidia-smi to ask",
            "-e NVIDIA_DRIVER_CAPABILITIES=compute,utility brings it in",
        )
    if wanted and not any(wanted in line for line in trial.listed):
        return Check(
            TRIAL,
            "fail",
            f"{on}: a box of {trial.image} got another one than {wanted}: {shown}",
            "nvidia-smi -L shows the GPUs; " + RENEW_CDI.format(SPEC) + " renews CDI's",
        )
    return Check(TRIAL, "ok", f"{on}: a box of {trial.image} has {shown}")


def no_trial(why: str, fix: str = "") -> Check:
    """The check if no box could be tried."""
    return Check(TRIAL, "not known", why, fix)


# --- the whole


_WORST_LAST: tuple[Verdict, ...] = ("ok", "not known", "warn", "fail")


def worst_last(found: Sequence[Check]) -> list[Check]:
    """Put what is wrong last, where it stays in sight."""
    return sorted(found, key=lambda check: _WORST_LAST.index(check.verdict))


def summary(found: Sequence[Check]) -> str:
    """How many checks failed, warn or are not known, in one line."""
    failing, warned, unknown = (
        sum(check.verdict == verdict for check in found)
        for verdict in ("fail", "warn", "not known")
    )
    words = [f"{failing} failed"] if failing else []
    words += [counted(warned, "warning")] if warned else []
    words += [f"{unknown} not known"] if unknown else []
    return f"{counted(len(found), 'check')}: " + (", ".join(words) or "all is well")
