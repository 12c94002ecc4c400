"""What will happen: a profile, the words typed behind it and the facts become one frozen Plan.

Every question is answered here and nothing is done. Pure: knows no files, no engine, no terminal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from gpubox import __version__, values
from gpubox.errors import EngineError, GpuboxError, ProfileError, UsageError
from gpubox.gpus.machine import Gpu, Machine
from gpubox.images import fits
from gpubox.plan import notebook
from gpubox.plan.allocation import Allocation, allocation, asked_gpus
from gpubox.plan.backend import backend, ignores_devices, refuse
from gpubox.plan.docker_words import EnvFile, GpuRequest, SecurityOption, Variable
from gpubox.plan.facts import Ask, Caller, Facts, Kind, home_of
from gpubox.profile.profile import Profile
from gpubox.slurm import jobs

LABEL = "gpubox."
VISIBLE, ORDER = "NVIDIA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
NOTHING_VISIBLE, BY_PLACE = "void", "PCI_BUS_ID"

_SECRET = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY"
    r"|(^|_)(KEY|PASS)$",
    re.IGNORECASE,
)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A box, whole: nothing is left to be decided. Attributes bear the settings' names.

    `notes` are assumptions and surprises, a sentence each, that the person should read, `reasons`
    are why these GPUs were taken; `choice` is why this image, if that was open. A box `as_caller`
    gets that person's name, groups and home before it starts; a `contested` one has GPUs that
    others may want at the same time. One with a `grace` must not outlive its start's process: it is
    stopped with it, in so many seconds.
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
    choice: str = ""
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
    given = allocation(profile, ask, facts)
    gpus = given.gpus
    image, choice = _image(profile, gpus, facts)
    _refuse_what_is_ignored(profile, gpus, facts)
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
        gpus=GpuRequest(gpus, backend(gpus, facts.engine, hook_refused=facts.hook_refused)),
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
        choice=choice,
        notes=(
            *given.notes,
            *port_notes,
            *_gpu_notes(profile, gpus),
            *_folder_notes(profile, kind, caller),
        ),
    )


def _contradictions(profile: Profile, ask: Ask, job: jobs.Job | None) -> None:
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
    profile: Profile, kind: Kind, given: Allocation, facts: Facts
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


def _image(profile: Profile, gpus: values.Gpus, facts: Facts) -> tuple[str, str]:
    machine = facts.machine if gpus != values.NO_GPUS else None  # without one any runs
    return image_for(profile, machine, asked_gpus(gpus, machine, facts.holdings), facts.unseen)


def image_for(
    profile: Profile, machine: Machine | None, gpus: Sequence[Gpu], unseen: str
) -> tuple[str, str]:
    """The image, and the sentence that says why if it was open; `unseen` is why no machine is."""
    choice = fits.choose(profile.images, machine, gpus)
    if choice.why:
        order = "the newest" if profile.is_auto else "the first of its images"
        return choice.image, f"{choice.image}, {order} that {choice.why}"
    if not profile.is_auto:
        return choice.image, ""
    doubt = f"; what suits here is not known: {unseen}" if unseen else ""
    return choice.image, f"{choice.image}, the newest{doubt}"


# --- GPUs


def _refuse_what_is_ignored(profile: Profile, gpus: values.Gpus, facts: Facts) -> None:
    refuse(gpus, facts.engine)
    podman = facts.engine.podman if facts.engine else ""
    named = next((device.source for device in profile.devices if device.is_cdi), None)
    if named and ignores_devices(podman):
        raise EngineError(
            f"Podman {podman} ignores CDI devices: the box would run without {named}",
            "use Podman 5.4 or newer, a Docker Engine, or leave --device out",
        )


def _gpu_notes(profile: Profile, gpus: values.Gpus) -> tuple[str, ...]:
    """The older nvidia-docker chose GPUs by a variable, which a GPU request overrules."""
    if (asked := profile.environment.get(VISIBLE)) in (None, str(gpus)):
        return ()
    way = f"--gpus device={asked}" if re.match(r"\d|GPU-|MIG-", asked) else f"--gpus {asked}"
    return (f"{VISIBLE}={asked} chooses no GPUs here, --gpus {gpus} does; write {way} instead",)


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
    profile: Profile, ask: Ask, given: Allocation, facts: Facts, kind: Kind
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
