"""What will happen: a profile, the words typed behind it and the facts become one frozen Plan.

Every question is answered here and nothing is done. Pure: knows no files, no engine, no terminal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from gpubox import __version__, fits, notebook, slurm, values
from gpubox.claims import NO_CLAIM, SHARED
from gpubox.docker_words import EnvFile, GpuRequest, SecurityOption, Variable
from gpubox.errors import EngineError, GpuboxError, ProfileError, UsageError
from gpubox.gpus import Device, Gpu, Machine, chosen, named, overlap
from gpubox.holders import Holding
from gpubox.layers import BUILT_IN
from gpubox.pick import NotFree, listed, pick, refuse_held
from gpubox.profile import Profile

Kind = Literal["shell", "command", "jupyter"]

LABEL = "gpubox."
VISIBLE, ORDER = "NVIDIA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
NOTHING_VISIBLE, BY_PLACE = "void", "PCI_BUS_ID"

_SECRET = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY"
    r"|(^|_)(KEY|PASS)$",
    re.IGNORECASE,
)


# --- what is known


def home_of(name: str) -> str:
    """Somebody's home in a box that runs as them."""
    return f"/home/{name}"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who runs gpubox, where, and what their standard streams are. `groups` are names by number."""

    name: str
    uid: int
    gid: int
    groups: Mapping[int, str]
    home: Path
    folder: Path
    environ: Mapping[str, str]
    stdin_is_terminal: bool
    stdout_is_terminal: bool
    rows_columns: tuple[int, int] | None = None

    @property
    def at_terminal(self) -> bool:
        return self.stdin_is_terminal and self.stdout_is_terminal

    @property
    def box_home(self) -> str:
        """The caller's home in a box that runs as them: a folder of the box, not the host's."""
        return home_of(self.name)


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says of itself. `cdi_devices` are names like `nvidia.com/gpu=0`.

    `podman` is the version of Podman behind a Docker-compatible service, or empty. Images go into
    the folder `root` of its machine, which is empty where that is not known.
    """

    api: tuple[int, int]
    podman: str = ""
    runtimes: tuple[str, ...] = ()
    cdi_devices: tuple[str, ...] = ()
    cdi_enabled: bool = False
    mirrors: bool = False
    local: bool = True
    root: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a plan depends on besides the profile. Without an engine, `engine` is None.

    `files` holds the text of each file that the profile names; `taken` are names in use;
    `no_hook` says that the engine has just refused the usual GPU request; below `jupyter_port`
    the ports from 8888 on were found taken. Without a `machine` the reason is in `unseen`.

    `holdings` say who has which GPU, `last` are the UUIDs of those that the caller had last,
    `wanted` the keys of those that other starters are about to take. `printed` is a plan that
    nobody carries out, `exported` one that other programs do, whenever and wherever.
    """

    caller: Caller
    engine: EngineFacts | None = None
    machine: Machine | None = None
    unseen: str = ""
    holdings: tuple[Holding, ...] = ()
    last: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()
    printed: bool = False
    exported: bool = False
    files: Mapping[str, str] | None = None
    taken: frozenset[str] = frozenset()
    no_hook: bool = False
    jupyter_port: int = notebook.PORT
    job: slurm.Job | None = None


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What was typed that belongs to this one start, and to no profile."""

    command: tuple[str, ...] = ()
    kind: Kind | None = None
    name: str | None = None
    detach: bool = False
    interactive: bool = False
    tty: bool | None = None
    token: str | None = None
    port: int | None = None
    public: bool = False
    share: bool = False


# --- what will happen


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A box, whole: nothing is left to be decided. Attributes bear the settings' names.

    `notes` are assumptions and surprises, a sentence each, that the person should read, `reasons`
    are why these GPUs were taken. A box `as_caller` gets that person's name, groups and home before
    it starts; a `contested` one has GPUs that others may want at the same time. One with a `grace`
    must not outlive its start's process: it is stopped with it, in so many seconds.
    """

    name: str
    image: str
    profile: str
    kind: Kind
    command: tuple[str, ...]
    detach: bool
    tty: bool
    interactive: bool
    pull_policy: str
    gpus: GpuRequest
    environment: tuple[Variable, ...]
    labels: tuple[tuple[str, str], ...]
    volumes: tuple[values.Mount, ...]
    ports: tuple[values.Port, ...]
    env_file: tuple[EnvFile, ...] = ()
    entrypoint: tuple[str, ...] = ()
    working_dir: str | None = None
    user: str | None = None
    shm_size: int | None = None
    ipc: str | None = None
    ulimits: tuple[values.Ulimit, ...] = ()
    mem_limit: int | None = None
    cpus: int | None = None
    network_mode: str | None = None
    hostname: str | None = None
    restart: str | None = None
    init: bool | None = None
    rm: bool = False
    cap_add: tuple[str, ...] = ()
    security_opt: tuple[SecurityOption, ...] = ()
    devices: tuple[values.Device, ...] = ()
    registry: str | None = None
    rows_columns: tuple[int, int] | None = None
    group_add: tuple[str, ...] = ()
    as_caller: Caller | None = None
    named_by_caller: bool = False
    port_by_caller: bool = False
    contested: bool = False
    grace: int | None = None
    notes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        """The first word of what runs in the box; CMD where that is the image's own."""
        return next(iter((*self.entrypoint, *self.command)), "CMD")

    def folders(self) -> tuple[values.Mount, ...]:
        """The host folders that the box mounts."""
        return tuple(mount for mount in self.volumes if mount.bind)


def plan(profile: Profile, ask: Ask, facts: Facts) -> Plan:
    """The box that `profile` and `ask` mean on this machine; raises what cannot be."""
    _contradictions(profile, ask, facts.job)
    caller = facts.caller
    kind = ask.kind or ("command" if ask.command or profile.command else "shell")
    tty, interactive = _streams(ask, kind, caller)
    name = ask.name or _name(profile, facts)
    given = _given(profile, ask, facts)
    gpus = given.gpus
    image, image_notes = _image(profile, gpus, facts)
    _refuse_what_podman_ignores(profile, gpus, facts)
    own = ask.command or profile.command
    if kind == "jupyter" and not own and not profile.entrypoint:
        own = _server(profile, ask, facts)
    entrypoint, command = _program(profile.entrypoint, own)
    as_caller = _is_caller(profile, caller)
    ports, port_notes = _ports(profile, ask, facts, kind)
    return Plan(
        name=name,
        image=image,
        profile=profile.name,
        kind=kind,
        command=command,
        entrypoint=entrypoint,
        detach=ask.detach,
        tty=tty,
        interactive=interactive,
        pull_policy=profile.pull_policy,
        gpus=GpuRequest(gpus, backend(gpus, facts)),
        environment=_environment(profile, ask, given, facts, kind),
        env_file=_env_files(profile, facts),
        labels=_labels(profile, kind, given, facts),
        volumes=profile.volumes,
        ports=ports,
        working_dir=profile.working_dir
        or (profile.workspace.target if profile.workspace else None),
        user=_user(profile, caller),
        shm_size=None if shares_memory(profile.ipc) else profile.shm_size,
        ipc=profile.ipc,
        ulimits=profile.ulimits,
        mem_limit=profile.mem_limit,
        cpus=profile.cpus,
        network_mode=profile.network_mode,
        hostname=_hostname(profile, name, facts),
        restart=profile.restart,
        init=profile.init,
        rm=profile.rm,
        cap_add=_capabilities(profile.cap_add),
        security_opt=_security(profile, facts),
        devices=profile.devices,
        registry=profile.registry,
        rows_columns=caller.rows_columns if tty else None,
        group_add=_other_groups(caller) if as_caller else (),
        as_caller=caller if as_caller else None,
        named_by_caller=ask.name is not None,
        port_by_caller=_port_said(profile, ask),
        contested=given.contested,
        grace=facts.job.grace if facts.job else None,
        reasons=given.reasons,
        notes=(
            *given.notes,
            *image_notes,
            *port_notes,
            *_gpu_notes(profile, gpus),
            *_folder_notes(profile, kind, caller),
        ),
    )


def _contradictions(profile: Profile, ask: Ask, job: slurm.Job | None) -> None:
    restarts = profile.restart not in (None, "no")
    if job and restarts:
        raise ProfileError(
            profile.where("restart"),
            "restart",
            f"'{profile.restart}' and a Slurm job exclude each other: it ends with job {job.id}",
        )
    if profile.rm and restarts:
        raise ProfileError(
            profile.where("restart"),
            "restart",
            f"'{profile.restart}' and rm exclude each other: a removed box cannot start again",
        )
    published: dict[str, values.Port] = {}
    for port in profile.ports:
        place = f"{port.address}:{port.host}/{port.protocol}"
        first = published.setdefault(place, port)
        if port.host.isdigit() and first is not port:  # of a range each gets one
            raise ProfileError(
                profile.where("ports", port.key),
                "ports",
                f"{place} is published twice: as {first.key} and as {port.key} of the box",
            )
    if ask.name is not None and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", ask.name):
        raise UsageError(
            f"'{ask.name}' is no name for a box",
            "two or more of letters, digits, '_', '.' and '-', a letter or digit first",
        )


# --- streams and command


def _streams(ask: Ask, kind: Kind, caller: Caller) -> tuple[bool, bool]:
    """Whether the box has a terminal, and whether its standard input is open.

    At a terminal both by themselves; detached a shell needs both to stay alive.
    """
    if ask.detach:
        keeps_alive = kind == "shell"
        return keeps_alive if ask.tty is None else ask.tty, ask.interactive or keeps_alive
    tty = caller.at_terminal if ask.tty is None else ask.tty
    interactive = ask.interactive or caller.at_terminal
    if tty and interactive and not caller.stdin_is_terminal:
        raise GpuboxError(
            "a terminal in the box (-t) with input from something that is none",
            "leave -t out: gpubox allocates a terminal by itself where there is one",
        )
    return tty, interactive


def _program(
    entrypoint: tuple[str, ...], command: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`docker run --entrypoint` takes one word, so further ones become the command's first."""
    return entrypoint[:1], (*entrypoint[1:], *command)


# --- names and labels


def safe(text: str) -> str:
    """A word fit for a container's name; an image gives the last part of its repository."""
    if "/" in text or ":" in text:
        text = values.reference(text).repository.rpartition("/")[2]
    return re.sub(r"[^a-zA-Z0-9_.-]+", "-", text).strip("-_.") or "box"


def _name(profile: Profile, facts: Facts) -> str:
    """The first free one of profile and caller; the profile alone where anybody may start it."""
    base = safe(profile.name)
    if facts.exported:
        return base
    base += f"-{safe(facts.caller.name)}"
    number, name = 1, base
    while name in facts.taken:
        number += 1
        name = f"{base}-{number}"
    return name


def _hostname(profile: Profile, name: str, facts: Facts) -> str | None:
    if profile.hostname or facts.exported:
        return profile.hostname
    if (profile.network_mode or "").startswith(("host", "container:")):
        return None
    return hostname_of(name)


def hostname_of(name: str) -> str:
    """What a box calls itself, unless somebody has said."""
    return name.replace("_", "-")[:63].rstrip("-.")


def _labels(
    profile: Profile, kind: Kind, given: Given, facts: Facts
) -> tuple[tuple[str, str], ...]:
    if facts.exported:  # it is nobody's box, and nobody has looked whether its GPUs are free
        return tuple(profile.labels.items())
    job = facts.job
    own = {
        "profile": profile.name,
        "owner": facts.caller.name,
        "folder": str(facts.caller.folder),
        "kind": kind,
        "gpus": given.label,
        **({"claim": given.claim} if given.claim else {}),
        **({"job": job.id, "restarts": job.restarts} if job else {}),
        "version": __version__,
    }
    return (*profile.labels.items(), *((LABEL + key, text) for key, text in own.items()))


# --- the image


def _image(profile: Profile, gpus: values.Gpus, facts: Facts) -> tuple[str, tuple[str, ...]]:
    """The image that this machine can run of those that the profile leaves to it, and why."""
    machine = facts.machine if gpus != values.NO_GPUS else None  # without one any runs
    choice = fits.choose(profile.images, machine, asked_gpus(gpus, machine))
    if choice.why:
        return choice.image, (f"{choice.image}, because {choice.why}",)
    if not profile.is_auto:
        return choice.image, ()
    doubt = f"; what suits here is not known: {facts.unseen}" if facts.unseen else ""
    return choice.image, (f"{choice.image}, the newest{doubt}",)


def asked_gpus(gpus: values.Gpus, machine: Machine | None) -> tuple[Gpu, ...]:
    """Those of the machine's GPUs that the box will see."""
    return chosen(machine, gpus.ids, all=gpus.all)


# --- GPUs


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """The GPUs of a box, as they are asked of the engine, and as its label `claimed` them.

    `claim` is what its label says of that, in the words of `claims`. What is `placed` was given by
    Slurm, which gives it to nobody else.
    """

    gpus: values.Gpus
    claimed: tuple[str, ...] = ()
    claim: str = ""
    placed: bool = False
    notes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return ",".join(self.claimed) or str(self.gpus)

    @property
    def contested(self) -> bool:
        """Whether others may want them at the same time."""
        return self.claim != NO_CLAIM and self.gpus != values.NO_GPUS and not self.placed

    @property
    def by_place(self) -> bool:
        """Whether CUDA must count as everybody else does: its own numbers are by speed."""
        return bool(self.claimed) and not any("index:" in gpu for gpu in self.claimed)


def _given(profile: Profile, ask: Ask, facts: Facts) -> Given:
    """Which GPUs the box gets: those that are named, or some that are free."""
    asked = profile.gpus if profile.gpus is not None else values.NO_GPUS
    if ask.share and asked == values.NO_GPUS:
        raise UsageError("--share, and no GPU to share", "leave one of them out")
    share = ask.share or asked.share
    asked = replace(asked, share=False)
    if facts.exported and asked.count:
        return Given(gpus=_first(asked.count, facts), claim=NO_CLAIM)
    if facts.job:
        by_default = profile.where("gpus").startswith(BUILT_IN)
        return _placed(asked, facts.job, facts, SHARED if share else "", by_default)
    unseen = asked.count and (facts.machine is None or facts.engine is None)
    if unseen and not share and profile.where("gpus").startswith(BUILT_IN):
        note = f"the box gets all GPUs; which are free is not seen: {_why_unseen(facts)}"
        return Given(gpus=values.ALL_GPUS, claim=NO_CLAIM, notes=(note,))
    return given(asked, facts, profile.images, share=share)


def _placed(
    asked: values.Gpus, job: slurm.Job, facts: Facts, claim: str, by_default: bool
) -> Given:
    """Of the job's own GPUs. Who has one past Slurm is told, and left to it."""
    devices = slurm.share_of(job, slurm.devices(job, facts.machine), asked, default=by_default)
    if not devices:
        none = f"job {job.id} has no GPU, and so the box has none"
        return Given(gpus=values.NO_GPUS, notes=(none,) if by_default else ())
    gpus = values.Gpus(tuple(_spelt(device, facts.engine) for device in devices))
    notes = [f"{listed(devices)} of job {job.id}"]
    try:
        refuse_held(_named(gpus, facts.holdings), facts.holdings, share=claim == SHARED)
    except NotFree as held:
        notes.append(f"{held.problem}, though Slurm gave it to job {job.id}")
    return Given(
        gpus=gpus,
        claimed=tuple(map(_claimed, devices)),
        claim=claim,
        placed=True,
        notes=tuple(notes),
    )


def given(
    asked: values.Gpus,
    facts: Facts,
    images: Sequence[str] = (),
    *,
    share: bool = False,
    but: Sequence[str] = (),
) -> Given:
    """The GPUs that were asked for, if they are free; of a number not those `but` (by key)."""
    if asked == values.NO_GPUS:
        return Given(gpus=asked)
    claim = SHARED if share else ""
    if asked.count:
        try:
            return _picked(asked, facts, images, claim, but)
        except EngineError as error:
            if not facts.printed:
                raise
            return _dockers_first(asked, claim, error.problem)
    named = _named(asked, facts.holdings)
    if not facts.printed:
        refuse_held(named, facts.holdings, share=share)
    known = {device.key: _claimed(device) for device in named}
    words = [_claim_of(word, known, facts) for word in asked.ids]
    if asked.all and facts.machine:
        words = [*known.values()]
    return Given(gpus=asked, claimed=tuple(words), claim=claim)


def _picked(
    asked: values.Gpus, facts: Facts, images: Sequence[str], claim: str, but: Sequence[str]
) -> Given:
    if facts.machine is None or facts.engine is None:
        raise EngineError(
            f"{asked} free GPU{'s'[: asked.count != 1]} cannot be picked: {_why_unseen(facts)}",
            "name them, like --gpus device=0, or say --gpus all",
        )
    picked = pick(
        asked.count,
        facts.holdings,
        doubt=partial(_doubt, images, facts.machine),
        last=facts.last,
        wanted=facts.wanted,
        share=claim == SHARED,
        but=but,
    )
    return Given(
        gpus=values.Gpus(tuple(_spelt(device, facts.engine) for device in picked.devices)),
        claimed=tuple(map(_claimed, picked.devices)),
        claim=claim,
        notes=(picked.said,),
        reasons=picked.reasons,
    )


def _dockers_first(asked: values.Gpus, claim: str, why: str) -> Given:
    """What a line can say where none is picked."""
    note = f"assumed: GPUs that are free; Docker's own --gpus {asked} is its first ones ({why})"
    first = tuple(f"index:{number}" for number in range(asked.count))
    return Given(gpus=asked, claimed=first, claim=claim, notes=(note,))


def _first(count: int, facts: Facts) -> values.Gpus:
    """So many of any, as Docker understands it; CDI knows no counts."""
    first = values.Gpus(tuple(map(str, range(count))))
    return first if backend(first, facts) == "cdi" else values.Gpus(count=count)


def _why_unseen(facts: Facts) -> str:
    return facts.unseen or "the engine was not asked"


def _doubt(images: Sequence[str], machine: Machine | None, device: Device) -> int:
    """How doubtful the best of the images is on a GPU, or on that of which it is an instance."""
    gpus = chosen(machine, [device.index], all=False)
    if machine is None or not gpus:
        return 0
    return min(fits.doubt(image, machine, gpus) for image in images)


def _named(asked: values.Gpus, holdings: Sequence[Holding]) -> list[Device]:
    devices = [holding.device for holding in holdings]
    if asked.all:
        return [device for device in devices if ":" not in device.index]
    keys = [named(word, devices) for word in asked.ids]
    return [
        device
        for device in devices  # all, where no driver lists them
        if device.key == "all" or any(overlap(key, device.key) for key in keys)
    ]


def _claim_of(word: str, known: Mapping[str, str], facts: Facts) -> str:
    devices = [holding.device for holding in facts.holdings]
    return known.get(named(word, devices)) or (word if "-" in word else f"index:{word}")


def _claimed(device: Device) -> str:
    """How a label names a GPU: for ever, if its driver says how."""
    return device.uuid or f"index:{device.index}"


def _spelt(device: Device, engine: EngineFacts | None) -> str:
    """How this engine is asked for a GPU: by its UUID, unless its CDI devices are only numbered."""
    listed = set(engine.cdi_devices) if engine else set()
    numbered = f"nvidia.com/gpu={device.index}" in listed
    by_uuid = device.uuid and (not numbered or f"nvidia.com/gpu={device.uuid}" in listed)
    return device.uuid if by_uuid else device.index


def _refuse_what_podman_ignores(profile: Profile, gpus: values.Gpus, facts: Facts) -> None:
    """Before 5.4 it starts a box without the GPUs, or CDI devices, that were asked for."""
    podman = facts.engine.podman if facts.engine else ""
    if not podman or _numbers(podman) >= (5, 4):
        return
    if gpus != values.NO_GPUS:
        raise EngineError(
            f"Podman {podman} ignores GPU requests: the box would run without a GPU",
            "use Podman 5.4 or newer, a Docker Engine, or --gpus none",
        )
    for device in profile.devices:
        if device.is_cdi:
            raise EngineError(
                f"Podman {podman} ignores CDI devices: the box would run without {device.source}",
                "use Podman 5.4 or newer, a Docker Engine, or leave --device out",
            )


def backend(gpus: values.Gpus, facts: Facts) -> Literal["hook", "cdi"]:
    """How this engine gives GPUs. Without an engine to ask, as most do: by device requests."""
    engine = facts.engine
    if gpus == values.NO_GPUS or gpus.count or engine is None:
        return "hook"
    if engine.podman:
        return "cdi"
    if engine.api < (1, 40):
        raise EngineError(
            f"this engine (API {engine.api[0]}.{engine.api[1]}) knows no GPU requests",
            "upgrade to Docker 20.10 or newer, or use --gpus none",
        )
    wanted = set(GpuRequest(gpus, "cdi").cdi_names)
    listed = wanted <= set(engine.cdi_devices)
    if facts.no_hook:
        return "cdi" if engine.cdi_enabled or listed else "hook"
    # an engine of API 1.53 turns --gpus into CDI devices itself
    by_name = listed and "nvidia" not in engine.runtimes and engine.api < (1, 53)
    return "cdi" if by_name else "hook"


def _gpu_notes(profile: Profile, gpus: values.Gpus) -> tuple[str, ...]:
    """The older nvidia-docker chose GPUs by a variable, which a GPU request overrules."""
    if (asked := profile.environment.get(VISIBLE)) in (None, str(gpus)):
        return ()
    way = f"--gpus device={asked}" if re.match(r"\d|GPU-|MIG-", asked) else f"--gpus {asked}"
    return (f"{VISIBLE}={asked} chooses no GPUs here, --gpus {gpus} does; write {way} instead",)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def is_gated(by: Literal["hook", "cdi"], engine: EngineFacts | None) -> bool:
    """Whether NVIDIA's hook gives the box its GPUs; it alone refuses what asks for a newer driver.

    From API 1.53 on an engine turns the usual request into CDI devices, if it has them.
    """
    turned = engine is not None and engine.api >= (1, 53) and bool(engine.cdi_devices)
    return by == "hook" and not turned


# --- environment


def is_secret(variable: str) -> bool:
    """Whether a variable's name speaks of something that no printed line may show."""
    return bool(_SECRET.search(variable))


def variables_of(name: str) -> dict[str, str]:
    """What tells a box that runs as somebody who and where at home that is."""
    return {
        "USER": name,
        "LOGNAME": name,
        "HOME": home_of(name),
        # an image may have named a home of its own for this
        "XDG_CACHE_HOME": f"{home_of(name)}/.cache",
    }


def _environment(
    profile: Profile, ask: Ask, given: Given, facts: Facts, kind: Kind
) -> tuple[Variable, ...]:
    caller = facts.caller
    own = dict(facts.job.variables) if facts.job else {}
    if _is_caller(profile, caller):
        own |= variables_of(caller.name)
    if profile.user == "host" and (kind == "jupyter" or caller.uid == 0):
        own |= notebook.stacks(caller.name, caller.uid, caller.gid)
    found = {name: Variable(name, value) for name, value in own.items()}
    for name, value in profile.environment.items():
        if value is not None:
            found[name] = Variable(name, value, is_secret(name))
        elif name in caller.environ or facts.exported:
            value = caller.environ.get(name, "")
            found[name] = Variable(name, value, secret=True, inherited=True)
    if given.by_place:
        found.setdefault(ORDER, Variable(ORDER, BY_PLACE))
    if given.gpus == values.NO_GPUS:
        # every CUDA image says `all`, which a default NVIDIA runtime would obey
        found[VISIBLE] = Variable(VISIBLE, NOTHING_VISIBLE)
    if ask.token is not None:
        found[notebook.TOKEN] = Variable(notebook.TOKEN, ask.token, secret=True)
    return tuple(found.values())


def _env_files(profile: Profile, facts: Facts) -> tuple[EnvFile, ...]:
    texts = facts.files or {}
    return tuple(
        EnvFile(path, tuple(_env_lines(path, texts.get(path, ""), facts.caller.environ)))
        for path in profile.env_file
    )


def _env_lines(path: str, text: str, environ: Mapping[str, str]) -> list[str]:
    """`docker run --env-file`'s language: no quotes, no `export`; a NAME alone is the caller's."""
    found = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = line.lstrip()
        name, equals, value = line.partition("=")
        if not line or line.startswith("#"):
            continue
        if not name or re.search(r"\s", name):
            raise ProfileError(f"{path}:{number}", "env_file", f"'{name}' is no variable's name")
        if equals:
            found.append(f"{name}={value}")
        elif name in environ:
            found.append(f"{name}={environ[name]}")
    return found


def _security(profile: Profile, facts: Facts) -> tuple[SecurityOption, ...]:
    texts = facts.files or {}
    return tuple(
        SecurityOption(text, texts.get(text.partition("=")[2], "")) for text in profile.security_opt
    )


def _capabilities(names: tuple[str, ...]) -> tuple[str, ...]:
    """In the order in which newer `docker` programs send them; ALL holds all others."""
    return ("ALL",) if "ALL" in names else tuple(sorted(names))


def files_named(profile: Profile) -> tuple[str, ...]:
    """The host files that a plan of this profile needs to have read."""
    seccomp = (option.removeprefix("seccomp=") for option in profile.security_opt)
    return (*profile.env_file, *(path for path in seccomp if path.startswith("/")))


# --- ports, user, memory


def _ports(
    profile: Profile, ask: Ask, facts: Facts, kind: Kind
) -> tuple[tuple[values.Port, ...], tuple[str, ...]]:
    ports = profile.ports
    if kind == "jupyter":
        ports = _jupyter_ports(ports, ask, facts)
    if profile.network_mode == "host" and ports:
        others = [port.key for port in ports if kind != "jupyter" or port.key != notebook.KEY]
        if not others:
            return (), ()
        listed = ", ".join(others)
        return (), (f"with host networking nothing is published: {listed} is the machine's own",)
    return ports, ()


def _port_said(profile: Profile, ask: Ask) -> bool:
    """Whether Jupyter's port on the host was chosen by a person, so that it is this or none."""
    return ask.port is not None or any(port.key == notebook.KEY for port in profile.ports)


def _jupyter_ports(
    ports: tuple[values.Port, ...], ask: Ask, facts: Facts
) -> tuple[values.Port, ...]:
    """Jupyter's own port: `--port`, else what the profile publishes for it, else from 8888 on."""
    own = [port for port in ports if port.key == notebook.KEY]
    others = tuple(port for port in ports if port.key != notebook.KEY)
    jupyter = own[0] if own else values.Port(notebook.PORT, host=str(facts.jupyter_port))
    if ask.port is not None:
        jupyter = replace(jupyter, host=str(ask.port))
    if ask.public:
        jupyter = replace(jupyter, address="0.0.0.0")
    return (*others, jupyter)


def _server(profile: Profile, ask: Ask, facts: Facts) -> tuple[str, ...]:
    """The command that starts Jupyter; with the host's own network it is the one that listens."""
    if profile.network_mode != "host":
        return notebook.server(address="0.0.0.0", port=notebook.PORT)
    (*_, port) = _jupyter_ports(profile.ports, ask, facts)
    number = int(port.host) if port.host.isdigit() else facts.jupyter_port
    return notebook.server(address=port.address, port=number)


def _folder_notes(profile: Profile, kind: Kind, caller: Caller) -> tuple[str, ...]:
    folder = profile.workspace.source if profile.workspace and kind == "jupyter" else None
    return notebook.notes(folder, str(caller.home))


def _user(profile: Profile, caller: Caller) -> str | None:
    return f"{caller.uid}:{caller.gid}" if profile.user == "host" else profile.user


def _is_caller(profile: Profile, caller: Caller) -> bool:
    """Whether the box needs to be told of the caller; root it knows."""
    return profile.user == "host" and caller.uid != 0


def _other_groups(caller: Caller) -> tuple[str, ...]:
    return tuple(str(number) for number in sorted(caller.groups) if number != caller.gid)


def shares_memory(ipc: str | None) -> bool:
    return ipc == "host" or (ipc or "").startswith("container:")
