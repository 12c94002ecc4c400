"""What will happen: a profile, the words typed behind it and the facts become one frozen Plan.

Every question is answered here and nothing is done. Pure: knows no files, no engine, no terminal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec.structs import replace

from gpubox import __version__, values
from gpubox.boxes import labels
from gpubox.errors import EngineError, GpuboxError, ProfileError, UsageError
from gpubox.gpus.claims import VISIBLE
from gpubox.gpus.machine import Gpu, Machine
from gpubox.images import fits
from gpubox.plan import environment, notebook
from gpubox.plan.allocation import Allocation, allocation, asked_gpus
from gpubox.plan.backend import backend, ignores_devices, refuse
from gpubox.plan.docker_words import EnvFile, GpuRequest, SecurityOption, Variable
from gpubox.plan.facts import Ask, Caller, Facts, Kind
from gpubox.profile.profile import AsAsked, Profile
from gpubox.slurm import jobs


class Plan(AsAsked, frozen=True, kw_only=True):
    """Everything about a box: nothing is left to decide. Attributes have the settings' names.

    `notes` are sentences that the person should read, on assumptions and surprises; `reasons` say
    why these GPUs were taken, and `choice` why this image if there were several. A box `as_caller`
    gets that person's name, groups and home before it starts; a `contested` one has GPUs that
    others may want at the same time. A box with a `grace` must not outlive the process that starts
    it: it is stopped with that process, within that many seconds.
    """

    name: str
    image: str
    profile: str
    kind: Kind
    command: tuple[str, ...]
    detach: bool
    tty: bool
    interactive: bool
    gpus: GpuRequest
    environment: tuple[Variable, ...]
    labels: tuple[tuple[str, str], ...]
    ports: tuple[values.Port, ...]
    env_file: tuple[EnvFile, ...] = ()
    entrypoint: tuple[str, ...] = ()
    working_dir: str | None = None
    user: str | None = None
    shm_size: int | None = None
    hostname: str | None = None
    cap_add: tuple[str, ...] = ()
    security_opt: tuple[SecurityOption, ...] = ()
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
    """The box that `profile` and `ask` mean on this machine; raises if there can be none."""
    _contradictions(profile, ask, facts.job)
    caller = facts.caller
    kind = ask.kind or ("command" if ask.command or profile.command else "shell")
    tty, interactive = _streams(ask, kind, caller)
    name = ask.name or _name(profile, facts)
    allocated = allocation(profile, ask, facts)
    gpus = allocated.gpus
    image, choice = _image(profile, gpus, facts)
    _refuse_what_is_ignored(profile, gpus, facts)
    entrypoint, command = _program(profile, ask, facts, kind)
    as_caller = environment.is_caller(profile, caller)
    ports, port_notes = _ports(profile, ask, facts, kind)
    return Plan(
        **{key: getattr(profile, key) for key in AsAsked.__struct_fields__},
        name=name,
        image=image,
        profile=profile.name,
        kind=kind,
        command=command,
        entrypoint=entrypoint,
        detach=ask.detach,
        tty=tty,
        interactive=interactive,
        gpus=GpuRequest(gpus, backend(gpus, facts.engine, hook_refused=facts.hook_refused)),
        environment=environment.variables(profile, ask, allocated, facts, kind),
        env_file=environment.files(profile, facts),
        labels=_labels(profile, kind, allocated, facts),
        ports=ports,
        working_dir=profile.working_dir
        or (profile.workspace.target if profile.workspace else None),
        user=caller.numbers if profile.user == "host" else profile.user,
        shm_size=None if shares_memory(profile.ipc) else profile.shm_size,
        hostname=_hostname(profile, name, facts),
        cap_add=_capabilities(profile.cap_add),
        security_opt=_security(profile, facts),
        rows_columns=caller.rows_columns if tty else None,
        group_add=_other_groups(caller) if as_caller else (),
        as_caller=caller if as_caller else None,
        named_by_caller=ask.name is not None,
        port_by_caller=_port_said(profile, ask),
        contested=allocated.contested,
        grace=facts.job.grace if facts.job else None,
        reasons=allocated.reasons,
        choice=choice,
        notes=(
            *allocated.notes,
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
        if port.host.isdigit() and first is not port:  # of a range each gets its own
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

    At a terminal both are on by default; a detached shell needs both to stay alive.
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
    profile: Profile, ask: Ask, facts: Facts, kind: Kind
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Entrypoint and command.

    `docker run --entrypoint` takes one word, so further ones become the command's first.
    """
    first, words = profile.entrypoint, ask.command or profile.command
    if kind == "jupyter" and not words and not first:
        words = _server(profile, ask, facts)
    return first[:1], (*first[1:], *words)


# --- names and labels


def safe(text: str) -> str:
    """The text made fit for a container's name; of an image the last part of its repository."""
    if "/" in text or ":" in text:
        text = values.reference(text).repository.rpartition("/")[2]
    return re.sub(r"[^a-zA-Z0-9_.-]+", "-", text).strip("-_.") or "box"


def _name(profile: Profile, facts: Facts) -> str:
    """The first free of PROFILE-USER, PROFILE-USER-2 and so on.

    An exported plan is named PROFILE, since anybody may start it.
    """
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
    """The host name in a box unless another is set: the box's name, made fit for a host name."""
    return name.replace("_", "-")[:63].rstrip("-.")


def _labels(
    profile: Profile, kind: Kind, allocated: Allocation, facts: Facts
) -> tuple[tuple[str, str], ...]:
    if facts.exported:  # it has no owner, and nobody has looked whether its GPUs are free
        return tuple(profile.labels.items())
    job = facts.job
    own = {
        labels.PROFILE: profile.name,
        labels.OWNER: facts.caller.name,
        labels.FOLDER: str(facts.caller.folder),
        labels.KIND: kind,
        labels.GPUS: allocated.label,
        **({labels.CLAIM: allocated.claim} if allocated.claim else {}),
        **({labels.JOB: job.id, labels.RESTARTS: job.restarts} if job else {}),
        labels.VERSION: __version__,
    }
    return (*profile.labels.items(), *own.items())


# --- the image


def _image(profile: Profile, gpus: values.Gpus, facts: Facts) -> tuple[str, str]:
    machine = facts.machine if gpus != values.NO_GPUS else None  # without a GPU any runs
    return image_for(profile, machine, asked_gpus(gpus, machine, facts.holdings), facts.unseen)


def image_for(
    profile: Profile, machine: Machine | None, gpus: Sequence[Gpu], unseen: str
) -> tuple[str, str]:
    """The image, and a sentence that says why, empty if there was no choice.

    `unseen` is the reason if `machine` is None.
    """
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
    """Say so if a profile sets the variable by which older nvidia-docker chose GPUs.

    Here the GPU request overrules it.
    """
    if (asked := profile.environment.get(VISIBLE)) in (None, str(gpus)):
        return ()
    way = f"--gpus device={asked}" if re.match(r"\d|GPU-|MIG-", asked) else f"--gpus {asked}"
    return (f"{VISIBLE}={asked} chooses no GPUs here, --gpus {gpus} does; write {way} instead",)


# --- what files say


def _security(profile: Profile, facts: Facts) -> tuple[SecurityOption, ...]:
    texts = facts.files or {}
    return tuple(
        SecurityOption(text, texts.get(text.partition("=")[2], "")) for text in profile.security_opt
    )


def _capabilities(names: tuple[str, ...]) -> tuple[str, ...]:
    """Sorted, as newer `docker` programs send them; ALL includes all others."""
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
    """Whether a person chose Jupyter's port on the host: then no other one is tried."""
    return ask.port is not None or any(port.key == notebook.KEY for port in profile.ports)


def _jupyter_ports(
    ports: tuple[values.Port, ...], ask: Ask, facts: Facts
) -> tuple[values.Port, ...]:
    """The ports with Jupyter's own last.

    It is the one of `--port`, else what the profile publishes for it, else a free one from 8888 on.
    """
    own = [port for port in ports if port.key == notebook.KEY]
    others = tuple(port for port in ports if port.key != notebook.KEY)
    jupyter = own[0] if own else values.Port(notebook.PORT, host=str(facts.jupyter_port))
    if ask.port is not None:
        jupyter = replace(jupyter, host=str(ask.port))
    if ask.public:
        jupyter = replace(jupyter, address="0.0.0.0")
    return (*others, jupyter)


def _server(profile: Profile, ask: Ask, facts: Facts) -> tuple[str, ...]:
    """The command that starts Jupyter.

    In the host's own network nothing is published, so Jupyter itself listens at the address and
    port that Docker would publish.
    """
    if profile.network_mode != "host":
        return notebook.server(address="0.0.0.0", port=notebook.PORT)
    (*_, port) = _jupyter_ports(profile.ports, ask, facts)
    number = int(port.host) if port.host.isdigit() else facts.jupyter_port
    return notebook.server(address=port.address, port=number)


def _folder_notes(profile: Profile, kind: Kind, caller: Caller) -> tuple[str, ...]:
    folder = profile.workspace.source if profile.workspace and kind == "jupyter" else None
    return notebook.notes(folder, str(caller.home))


def _other_groups(caller: Caller) -> tuple[str, ...]:
    return tuple(str(number) for number in sorted(caller.groups) if number != caller.gid)


def shares_memory(ipc: str | None) -> bool:
    return ipc == "host" or (ipc or "").startswith("container:")
