"""Makes checks of what was seen of a machine: each an id, a verdict, the evidence and the fix.

Pure: records of facts come in; `host`, `nvidia`, `nvml` and `engine` do the looking. What also
speaks against a single start is taken from `checks` and `fits`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from gpubox import checks
from gpubox.checks import Check, Room, Verdict
from gpubox.doctor import cdi
from gpubox.engine.faults import INSTALL_TOOLKIT, NO_SUPPORT
from gpubox.figures import counted, size_text
from gpubox.gpus.machine import Gpu, Machine
from gpubox.images import fits
from gpubox.plan.backend import backend, has_cdi, ignores_devices, is_gated, knows_requests
from gpubox.plan.facts import EngineFacts
from gpubox.values import ALL_GPUS, Gpus

ENGINE, API, SETUP = "engine", "api", "setup"
DRIVER, LIBRARY, GPUS = "driver", "library", "gpus"
TOOLKIT, CDI, CGROUPS = "toolkit", "cdi", "cgroups"
LOST, OPEN_PORTS, PRIVILEGED, JUPYTER = "lost-gpus", "open-ports", "privileged", "open-jupyter"
DISK, DELETED = checks.DISK, checks.DELETED
PROFILES, IMAGES, TRIAL = "profiles", "images", "gpu-box"
BOXES = (LOST, OPEN_PORTS, PRIVILEGED, JUPYTER)

GENERATE = "sudo nvidia-ctk cdi generate --output={}"
_SPEC = "/etc/cdi/nvidia.yaml"
_CUDA_IMAGE = 12 * 10**9  # bytes: NVIDIA's devel images, while they are pulled
_RESTART = "sudo systemctl restart docker"


# --- what is seen


class EngineSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says of itself and its machine. `place` is its address, in words for people.

    `folders` are those of its images and boxes, as far as they are known; `runtime` is the program
    behind the runtime `nvidia`.
    """

    place: str
    version: str
    facts: EngineFacts
    system: str = ""
    kernel: str = ""
    rootless: bool = False
    cgroup_version: str = ""
    cgroup_driver: str = ""
    folders: tuple[str, ...] = ()
    cdi_folders: tuple[str, ...] = ()
    runtime: str = ""


class NoEngine(msgspec.Struct, frozen=True, kw_only=True):
    """Why no engine answers. `others` are sockets of other engines on this machine; whether dockerd
    is `installed` is only looked up if the engine should be this machine's."""

    problem: str
    hint: str = ""
    installed: bool = True
    others: tuple[str, ...] = ()


class DriverSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What NVML says of the driver, or the `problem` and what is `at_fault`; and what files say.

    `loaded` is the version of the driver in the kernel, `libraries` are the versions of those that
    are installed, `cards` counts NVIDIA's on the PCI bus. `elsewhere` is why the driver cannot be
    asked if the engine is on another machine.
    """

    machine: Machine | None = None
    problem: str = ""
    hint: str = ""
    at_fault: Literal["driver", "library", "no library"] = "driver"
    loaded: str = ""
    libraries: tuple[str, ...] = ()
    cards: int = 0
    elsewhere: str = ""

    @property
    def has_gpus(self) -> bool:
        return bool((self.machine and self.machine.gpus) or self.loaded or self.cards)


class Toolkit(msgspec.Struct, frozen=True, kw_only=True):
    """NVIDIA's container toolkit, where an engine of this machine looks for it.

    `hook` is the hook's path, `late` says that it was installed after the engine's start, and
    `runtime_gone` that the program of the runtime `nvidia` is missing. `no_cgroups` is a setting of
    the toolkit.
    """

    hook: str = ""
    late: bool = False
    runtime_gone: bool = False
    no_cgroups: bool = False


class BoxSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A running box; None is what could not be seen. `gpus` is its label, `ports` are as listed.

    `open_at` are addresses at which a Jupyter showed its state to somebody without a token. There
    is an `owner` only if it is not the caller.
    """

    name: str
    owner: str = ""
    gpus: str = ""
    ports: tuple[str, ...] = ()
    privileged: bool | None = False
    reaches_gpus: bool | None = True
    open_at: tuple[str, ...] | None = ()

    @property
    def meant(self) -> str:
        """The words that mean this box behind a command of gpubox's."""
        return f"--owner {self.owner} {self.name}" if self.owner else self.name


class ImageUse(msgspec.Struct, frozen=True, kw_only=True):
    """The image that a profile would start on this machine, and what speaks against that.

    Whether it is `here` is None without an engine; `pulled` is one that would come from Docker Hub.
    """

    profile: str
    where: str
    image: str
    here: bool | None
    pulled: bool
    unfit: tuple[Check, ...] = ()


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What a box on one GPU, or on all where none is named, has shown: device nodes, and the lines
    of `nvidia-smi -L`; or why it did not start."""

    gpu: Gpu | None
    image: str
    nodes: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    problem: str = ""
    hint: str = ""


# --- the engine


def of_engine(engine: EngineSeen | NoEngine) -> Iterator[Check]:
    if isinstance(engine, NoEngine):
        yield _no_engine(engine)
        yield Check(API, "not known", "no engine answers")
        yield Check(SETUP, "not known", "no engine answers")
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


# --- from the driver into a box


def way(engine: EngineSeen, toolkit: Toolkit) -> Literal["hook", "cdi", ""]:
    """How this engine gives a box GPUs: as a plan chooses, but by the hook only if that is there.

    Empty if the engine has no way.
    """
    facts = engine.facts
    gpus = Gpus(listed) if (listed := cdi.names(facts.cdi_devices)) else ALL_GPUS
    if not is_gated(backend(gpus, facts), facts):
        return "cdi"
    if toolkit.hook or ("nvidia" in facts.runtimes and not facts.local):
        return "hook"
    return "cdi" if listed else ""


def of_toolkit(
    engine: EngineSeen | NoEngine, toolkit: Toolkit, driver: DriverSeen
) -> Iterator[Check]:
    if isinstance(engine, NoEngine):
        yield Check(TOOLKIT, "not known", "no engine answers")
        return
    by, runtime = way(engine, toolkit), "nvidia" in engine.facts.runtimes
    told = [f"the hook {toolkit.hook}"] if toolkit.hook else []
    told += ["the runtime 'nvidia'"] if runtime else []
    told += ["CDI devices"] if has_cdi(engine.facts) else []
    if toolkit.runtime_gone:
        gone = f"the engine's runtime 'nvidia' is {engine.runtime}, and that is gone"
        yield Check(TOOLKIT, "fail", gone, INSTALL_TOOLKIT)
    elif engine.facts.podman:
        yield Check(TOOLKIT, "ok", "not asked: Podman takes GPUs by CDI alone")
    elif not by and not engine.facts.local:
        yield Check(TOOLKIT, "not known", "whether the engine's machine has it cannot be seen here")
    elif not by:
        verdict: Verdict = "fail" if driver.has_gpus else "warn"
        lacks = "no nvidia-container-runtime-hook where it looks"
        also = f", though it has {' and '.join(told)}" if told else ", and no CDI device"
        yield Check(TOOLKIT, verdict, f"{NO_SUPPORT}: {lacks}{also}", INSTALL_TOOLKIT)
    elif by == "hook" and toolkit.late and not runtime:
        late = f"{toolkit.hook} came after the engine's start, when it looks for it"
        yield Check(TOOLKIT, "warn", late, _RESTART)
    else:
        yield Check(TOOLKIT, "ok", ", ".join(told))
    yield from _no_cgroups(engine, toolkit, by)


def _no_cgroups(engine: EngineSeen, toolkit: Toolkit, by: str) -> Iterator[Check]:
    """Whether `no-cgroups`, one setting for all engines of a machine, suits this engine.

    Rootless engines need it, and the others must not have it.
    """
    if by != "hook" or toolkit.no_cgroups == engine.rootless or not engine.facts.local:
        return
    wanted = str(engine.rootless).lower()
    does = "it cannot" if engine.rootless else "boxes see GPUs that they may not open"
    kind = "a rootless engine" if engine.rootless else "an engine of root's"
    yield Check(
        TOOLKIT,
        "fail",
        f"NVIDIA's settings do not suit {kind}: no-cgroups must be {wanted}, or {does}",
        f"sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups={wanted} --in-place",
    )


def of_cdi(
    engine: EngineSeen | NoEngine, toolkit: Toolkit, specs: Sequence[cdi.Spec], driver: DriverSeen
) -> Iterator[Check]:
    """Whether what CDI promises is what the driver lists."""
    if driver.elsewhere:
        yield Check(CDI, "not known", driver.elsewhere)
        return
    there = engine if isinstance(engine, EngineSeen) else None
    by = way(there, toolkit) if there else ""
    verdict: Verdict = "fail" if by == "cdi" else "warn"
    for broken in (spec for spec in specs if spec.trouble):
        again = GENERATE.format(broken.path)
        yield Check(CDI, verdict, broken.trouble, again)
    listed = cdi.names(there.facts.cdi_devices) if there else ()
    devices = listed or tuple(name for spec in specs for name in spec.devices)
    if not devices:
        if not any(spec.trouble for spec in specs):
            yield _no_spec(there, by, driver)
        return
    place = next((spec.path for spec in specs if spec.devices), "")
    if driver.machine is None:
        count = counted(len(devices), "device")
        said = f"{place or 'the engine'} has {count}; NVML tells nothing to compare them with"
        yield Check(CDI, "not known", said)
    elif stale := _stale(devices, specs, driver.machine, place):
        yield Check(CDI, verdict, stale, GENERATE.format(place or _SPEC))
    else:
        yield Check(CDI, "ok", f"{place or 'the engine'} lists the GPUs that the driver lists")


def _no_spec(engine: EngineSeen | None, by: str, driver: DriverSeen) -> Check:
    folders = ", ".join((engine.cdi_folders if engine else ()) or cdi.FOLDERS)
    nothing = f"no CDI specification of NVIDIA's in {folders}"
    if by == "hook":
        return Check(CDI, "ok", f"{nothing}: GPUs come by the hook")
    if not driver.has_gpus:
        return Check(CDI, "ok", f"{nothing}, and no GPU that it could list")
    verdict: Verdict = "fail" if by == "cdi" else "warn"
    return Check(CDI, verdict, nothing, GENERATE.format(_SPEC))


def _stale(devices: Sequence[str], specs: Sequence[cdi.Spec], machine: Machine, place: str) -> str:
    """What the specification has wrong, or nothing."""
    said = []
    if missing := cdi.missing(devices, machine.gpus):
        said.append("lacks " + ", ".join(f"GPU {gpu.index} ({gpu.uuid})" for gpu in missing))
    if surplus := cdi.surplus(devices, machine.gpus):
        said.append(f"has {', '.join(surplus)}, which the driver does not list")
    of_old = [spec.driver for spec in specs if spec.driver not in ("", machine.driver)]
    if of_old:
        said.append(f"mounts the libraries of driver {of_old[0]}, and {machine.driver} is loaded")
    return (
        f"{place or 'the list of the engine'} is out of date: it {'; it '.join(said)}"
        if said
        else ""
    )


def of_cgroups(engine: EngineSeen | NoEngine, toolkit: Toolkit) -> Iterator[Check]:
    """Whether systemd takes GPUs away from boxes when it reloads its units."""
    if isinstance(engine, NoEngine):
        yield Check(CGROUPS, "not known", "no engine answers")
    elif not engine.cgroup_version:
        yield Check(CGROUPS, "not known", "the engine does not tell its cgroups")
    else:
        told = f"cgroup v{engine.cgroup_version}, driver {engine.cgroup_driver}"
        by = way(engine, toolkit)
        if (engine.cgroup_version, engine.cgroup_driver, by) != ("2", "systemd", "hook"):
            yield Check(CGROUPS, "ok", told)
            return
        yield Check(
            CGROUPS,
            "warn",
            f"{told}, GPUs by the hook: systemctl daemon-reload, which package upgrades run, takes"
            " the GPUs away from running boxes",
            'put "exec-opts": ["native.cgroupdriver=cgroupfs"] into /etc/docker/daemon.json, then:'
            f" {_RESTART}",
        )


# --- boxes


def of_boxes(boxes: Sequence[BoxSeen] | None, machine: Machine | None, why: str) -> Iterator[Check]:
    """What is wrong with running boxes; if they are None, `why` says why they are not known."""
    if boxes is None:
        for check in BOXES:
            yield Check(check, "not known", why)
        return
    with_gpus = [box for box in boxes if box.gpus not in ("", "none")]
    unreached = [box.name for box in with_gpus if box.reaches_gpus is None]
    lost = [_lost(box, machine) for box in with_gpus]
    yield from _each(LOST, lost, unreached, _none_of(with_gpus, " with GPUs"))
    for check, question, unseen in (
        (OPEN_PORTS, _open_ports, []),
        (PRIVILEGED, _privileged, [box.name for box in boxes if box.privileged is None]),
        (JUPYTER, _open_jupyter, [box.name for box in boxes if box.open_at is None]),
    ):
        yield from _each(check, map(question, boxes), unseen, _none_of(boxes))


def _none_of(boxes: Sequence[BoxSeen], kind: str = "") -> str:
    return f"none of {len(boxes)} running{kind}" if boxes else f"no box{kind} runs"


def _each(
    check: str, found: Iterable[Check | None], unknown: Sequence[str], fine: str
) -> Iterator[Check]:
    """The checks that were found, and one for boxes that could not be seen; else one that is ok."""
    wrong = [one for one in found if one]
    yield from wrong
    if unknown:
        yield Check(check, "not known", f"it could not be seen of {', '.join(unknown)}")
    elif not wrong:
        yield Check(check, "ok", fine)


def _lost(box: BoxSeen, machine: Machine | None) -> Check | None:
    gone = _gone(box.gpus, machine) if machine else []
    if gone:
        problem = f"{box.name} holds {', '.join(gone)}, which the driver does not list any more"
    elif box.reaches_gpus is False:
        problem = f"{box.name} may not open its GPUs any more"
    else:
        return None
    return Check(LOST, "fail", problem, f"gpubox restart {box.meant}")


def _gone(label: str, machine: Machine) -> list[str]:
    """The GPUs of a claim that are not there any more; MIG instances are not looked at."""
    known = {gpu.uuid for gpu in machine.gpus} | {f"index:{gpu.index}" for gpu in machine.gpus}
    whole = [
        gpu
        for gpu in label.split(",")
        if gpu.startswith(("GPU-", "index:")) and ":" not in gpu.removeprefix("index:")
    ]
    unread = any(not gpu.uuid for gpu in machine.gpus)
    return [
        gpu.removeprefix("index:")
        for gpu in whole
        if gpu not in known and not (unread and gpu.startswith("GPU-"))
    ]


def _open_ports(box: BoxSeen) -> Check | None:
    opened = [port for port in box.ports if published_at(port)[0] in ("0.0.0.0", "::", "")]
    inner = dict.fromkeys(port.partition("->")[2] for port in opened)
    if not opened:
        return None
    again = " ".join(f"-p {_outer(inside, opened)}" for inside in inner)
    return Check(
        OPEN_PORTS,
        "warn",
        f"{box.name} publishes {', '.join(opened)}: open to the whole network, past ufw",
        f"gpubox stop {box.meant}, and start it anew with {again}",
    )


def _outer(inner: str, opened: Sequence[str]) -> str:
    """What to publish instead, on 127.0.0.1."""
    outer = next(port for port in opened if port.endswith(f"->{inner}")).partition("->")[0]
    return f"127.0.0.1:{outer.rpartition(':')[2]}:{inner.removesuffix('/tcp')}"


def published_at(port: str) -> tuple[str, int]:
    """The host's address and port, of a port that is listed as `ADDRESS:PORT->PORT/PROTOCOL`."""
    address, _, number = port.partition("->")[0].rpartition(":")
    return address, int(number)


def address_text(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _privileged(box: BoxSeen) -> Check | None:
    if not box.privileged:
        return None
    return Check(
        PRIVILEGED,
        "warn",
        f"{box.name} is privileged: it has every GPU and every device of the machine, whatever it"
        " claims, and its root is this machine's",
        f"gpubox stop {box.meant}, and start it anew without --privileged",
    )


def _open_jupyter(box: BoxSeen) -> Check | None:
    if not box.open_at:
        return None
    return Check(
        JUPYTER,
        "fail",
        f"{box.name} lets anybody who reaches {', '.join(box.open_at)} into its Jupyter, without a"
        " token",
        f"gpubox stop {box.meant}; gpubox jupyter starts one with a token",
    )


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
            "nvidia-smi -L shows the GPUs; " + GENERATE.format(_SPEC) + " renews CDI's",
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
