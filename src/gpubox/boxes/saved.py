"""A box as a profile and an image: what the engine says of it becomes what a person would write.

Also says what the image must not keep, and what neither takes along. Pure: knows no engine and no
files, only their words.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from gpubox import values
from gpubox.boxes import labels
from gpubox.boxes.box import SHORT_ID, Box
from gpubox.boxes.inspection import Inspection, removes_itself, variables
from gpubox.boxes.moved import forgotten
from gpubox.errors import UsageError
from gpubox.gpus import claims
from gpubox.gpus.claims import VISIBLE
from gpubox.plan import notebook
from gpubox.plan.environment import BY_PLACE, NOTHING_VISIBLE, ORDER, is_secret, variables_of
from gpubox.plan.plan import hostname_of, shares_memory
from gpubox.profile import layers
from gpubox.profile.profile import Profile
from gpubox.profile.settings import BY_KEY, SETTINGS
from gpubox.values import ALL_GPUS, NO_GPUS, Device, Gpus, Mount, Port

MARK = "Written by gpubox save"
_WIDE = 98  # characters of a comment
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*")
_LONGEST = 100  # characters of a name: it becomes an image's and a file's
_LOGIN = re.compile(r"://[^/@\s]*:[^/@\s]+@")  # http://anna:password@proxy
_NAMELESS = re.compile(r"[0-9a-f]{64}")


class Saved(msgspec.Struct, frozen=True):
    """What a box is saved as. `settings` are a profile's, as YAML holds them.

    `image` is the configuration of the image of its files; `notes` are sentences for the person.
    """

    settings: Mapping[str, Any]
    notes: tuple[str, ...]
    image: Mapping[str, Any]


def saved(
    box: Box,
    inspection: Inspection,
    image: Inspection,
    environ: Mapping[str, str],
    beneath: Sequence[Profile],
) -> Saved:
    """What a box was run with, by what the engine says of it and of the image that it came from.

    A setting that all profiles in `beneath` have is left out. A secret is saved by its name only,
    and so is a variable that the caller's environment has with the same text: it came from there.
    """
    own = _own_variables(box, inspection, variables(image))
    hidden = [name for name, text in own.items() if _is_hidden(name, text, environ)]
    settings = {
        **_values(box, inspection, image, beneath),
        **_program(box, inspection["Config"], image),
        **_collections(box, inspection, image),
        "environment": {name: None if name in hidden else text for name, text in own.items()},
    }
    keys = [it.key for it in SETTINGS if it.key in settings and settings[it.key] not in ([], {})]
    return Saved(
        settings={key: _in_yaml(settings[key]) for key in keys},
        notes=tuple(_notes(box, inspection, hidden)),
        image=_of_the_image(inspection, image),
    )


def image_name(owner: str, name: str) -> str:
    """`USER/NAME`; a UsageError for what an image and a profile cannot both be called."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        near = _plain(name)[:_LONGEST].strip("-")
        raise UsageError(
            f"'{name}' is no name for an image and a profile",
            "lower-case letters and digits, with '.', '_' or '-' between them"
            + (f": {near}" if near else ""),
        )
    return f"{_plain(owner) or 'box'}/{name}"


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def start(box: Box, name: str) -> str:
    """The command line that starts another box like it."""
    return f"gpubox {'jupyter' if box.kind == 'jupyter' else 'run'} {name}"


def document(made: Saved, box: Box, name: str, image: str, when: str) -> str:
    """The text of the file that holds the profile."""
    head = [
        f"{MARK}: the box {box.name} as of {when}.",
        f"Its files are in the image {image}, which is on its engine alone."
        f" {start(box, name)} starts one like it, gpubox save {box.name} {name} saves it anew.",
        *(f"{note[:1].upper()}{note[1:]}." for note in made.notes),
    ]
    profile = {
        "description": f"the box {box.name} as of {when}",
        "image": image,
        "pull_policy": "never",
        **made.settings,
    }
    comment = "".join(f"# {line}\n" for sentence in head for line in _wrapped(sentence))
    return f"{comment}\n{layers.write({'profiles': {name: profile}})}"


def _wrapped(sentence: str) -> list[str]:
    """The lines of a sentence, with whole words; a line break in it, from a name, is a space."""
    text = " ".join(sentence.splitlines())
    return textwrap.wrap(text, _WIDE, break_long_words=False, break_on_hyphens=False)


# --- the image


def _of_the_image(inspection: Inspection, image: Inspection) -> dict[str, Any]:
    """The configuration of the image that it came from, and nothing of how the box was run.

    An engine takes from the box what is empty here, so an empty user is "0", an empty folder "/".
    """
    return {
        **forgotten(inspection, variables(image)),
        "Cmd": image.get("Cmd") or [],
        "Entrypoint": image.get("Entrypoint") or [],
        "User": image.get("User") or "0",
        "WorkingDir": image.get("WorkingDir") or "/",
    }


# --- settings with one value


def _values(
    box: Box, inspection: Inspection, image: Inspection, beneath: Sequence[Profile]
) -> dict[str, Any]:
    """The settings that differ from those beneath; None resets one."""
    config, host = inspection["Config"], inspection["HostConfig"]
    work, folder = _workspace(inspection), config.get("WorkingDir") or "/"
    places = {image.get("WorkingDir") or "/", work.target if work else ""}
    said: dict[str, Any] = {
        "gpus": _gpus(box, inspection) or beneath[0].gpus,
        "working_dir": None if folder in places else folder,
        "workspace": work,
        "user": _user(box, config, image),
        "shm_size": host.get("ShmSize") or None,
        "ipc": _unless(("", "private"), host.get("IpcMode")),
        "mem_limit": host.get("Memory") or None,
        "cpus": host.get("NanoCpus") or None,
        "network_mode": _unless(("", "default", "bridge"), host.get("NetworkMode")),
        "hostname": _hostname(box, inspection),
        "restart": _restart(host.get("RestartPolicy") or {}),
        "init": host.get("Init"),
        "rm": removes_itself(inspection),
    }
    if shares_memory(said["ipc"]):
        del said["shm_size"]
    always = ("user", "workspace") if box.kind == "jupyter" else ()
    texts: dict[str, Callable[[Any], Any]] = {"workspace": lambda it: _workspace_text(it, box)}
    return {
        key: value if value is None else texts.get(key, BY_KEY[key].write)(value)
        for key, value in said.items()
        if key in always or any(getattr(profile, key) != value for profile in beneath)
    }


def _unless(usual: Sequence[str], text: str | None) -> str | None:
    return None if (text or "") in usual else text


def _gpus(box: Box, inspection: Inspection) -> Gpus | None:
    """As many as it had: which ones depends on the machine. None where nobody has asked for any."""
    if box.claim == claims.NO_CLAIM:
        return None
    ids = claims.of_label(box.gpus)
    counted = ids if ids in (ALL_GPUS, NO_GPUS) else Gpus(count=len(ids.ids))
    asked = ALL_GPUS if claims.of_container(inspection) == ALL_GPUS else counted
    return replace(asked, share=box.claim == claims.SHARED)


def _workspace(inspection: Inspection) -> Mount | None:
    """The mount that is the box's workspace: a writable host folder that it starts in.

    How the person asked for it, by `workspace` or by -v and -w, cannot be told.
    """
    folder = inspection["Config"].get("WorkingDir")
    for it in mounts(inspection):
        if it.target == folder and it.bind and not (it.read_only or it.modes or _has_colon(it)):
            return it if it.source != "/" else None
    return None


def _workspace_text(work: Mount, box: Box) -> str:
    source = "." if work.source == box.folder else str(work.source)
    return source if work.target == "/workspace" else f"{source}:{work.target}"


def _user(box: Box, config: Inspection, image: Inspection) -> str | None:
    user = str(config.get("User") or "")
    told = variables(config).get("LOGNAME") == box.owner
    if re.fullmatch(r"\d+:\d+", user) and (told or (user, box.owner) == ("0:0", "root")):
        return "host"
    return _unless(("", image.get("User") or ""), user)


def _hostname(box: Box, inspection: Inspection) -> str | None:
    if str(inspection["HostConfig"].get("NetworkMode")).startswith(("host", "container:")):
        return None
    usual = ("", hostname_of(box.name), inspection["Id"][:SHORT_ID])
    return _unless(usual, inspection["Config"].get("Hostname"))


def _restart(policy: Inspection) -> str | None:
    name, times = policy.get("Name") or "", policy.get("MaximumRetryCount")
    return _unless(("", "no"), f"{name}:{times}" if times else name)


# --- what runs in it


def _program(box: Box, config: Inspection, image: Inspection) -> dict[str, Any]:
    """`entrypoint` and `command`, where they are not the image's or gpubox's.

    A shell has no command; what stands behind its own entrypoint belongs to that.
    """
    entrypoint, command = list(config.get("Entrypoint") or []), list(config.get("Cmd") or [])
    own = entrypoint != (image.get("Entrypoint") or [])
    if box.kind == "shell":
        return {"entrypoint": shlex.join([*entrypoint, *command])} if own else {}
    program = {"entrypoint": shlex.join(entrypoint)} if own else {}
    if box.kind == "jupyter" and notebook.is_server(command):
        return program
    return {**program, "command": shlex.join(command)}


def _own_variables(box: Box, inspection: Inspection, image: Mapping[str, str]) -> dict[str, str]:
    """The variables that neither the image nor gpubox itself gave it."""
    config = inspection["Config"]
    ours = {VISIBLE: NOTHING_VISIBLE, ORDER: BY_PLACE}
    if _user(box, config, {}) == "host":
        uid, _, gid = config["User"].partition(":")
        ours |= variables_of(box.owner) | notebook.stacks(box.owner, int(uid), int(gid))
    return {
        name: text
        for name, text in variables(config).items()
        if text not in (image.get(name), ours.get(name))
        and (box.kind, name) != ("jupyter", notebook.TOKEN)
    }


def _is_hidden(name: str, text: str, environ: Mapping[str, str]) -> bool:
    return is_secret(name) or environ.get(name) == text or bool(_LOGIN.search(text))


# --- settings with several


def _collections(box: Box, inspection: Inspection, image: Inspection) -> dict[str, Any]:
    host, work = inspection["HostConfig"], _workspace(inspection)
    volumes_of_image = image.get("Volumes") or {}
    said, labels_of_image = inspection["Config"].get("Labels") or {}, image.get("Labels") or {}
    return {
        "ports": [
            _port_text(port)
            for port in _ports(host)
            if (box.kind, port.key) != ("jupyter", notebook.KEY)
        ],
        "volumes": [
            _mount_text(it)
            for it in mounts(inspection)
            if it != work and (it.source or it.target not in volumes_of_image)
        ],
        "ulimits": {
            it["Name"]: f"{it['Soft']}:{it['Hard']}" if it["Soft"] != it["Hard"] else it["Soft"]
            for it in host.get("Ulimits") or ()
        },
        "labels": {
            name: text
            for name, text in said.items()
            if not name.startswith(labels.PREFIX) and labels_of_image.get(name) != text
        },
        "cap_add": list(host.get("CapAdd") or ()),
        "security_opt": _security(host),
        "devices": _devices(host),
    }


def _ports(host: Inspection) -> Iterator[Port]:
    """The ports as they were asked for, without the numbers that the engine chose."""
    for key, places in (host.get("PortBindings") or {}).items():
        number, _, protocol = key.partition("/")
        for place in places or ():
            outer = _unless(("", "0"), place.get("HostPort")) or ""
            yield Port(int(number), protocol, outer, place.get("HostIp") or "0.0.0.0")


def _port_text(port: Port) -> str:
    """A port as short as a person would write it."""
    return str(port).removeprefix(f"{values.LOOPBACK}:").removeprefix(":").removesuffix("/tcp")


def mounts(inspection: Inspection) -> list[Mount]:
    """The folders and volumes of a box, sorted by target; a nameless volume has no source."""
    kinds = ("bind", "volume")
    some = [_mount(it) for it in inspection.get("Mounts") or () if it.get("Type") in kinds]
    return sorted(some, key=lambda it: it.target)  # an engine shuffles them


def is_nameless(mount: Inspection) -> bool:
    """Whether it is a volume without a name, which is removed with its box."""
    name = str(mount.get("Name") or "")
    return mount.get("Type") == "volume" and bool(_NAMELESS.fullmatch(name))


def _mount(said: Inspection) -> Mount:
    target, read_only = str(said["Destination"]), not said.get("RW", True)
    if said["Type"] == "volume":
        source = None if is_nameless(said) else said["Name"]
        return Mount(target, source, read_only=read_only)
    relabels = [word for word in str(said.get("Mode") or "").split(",") if word in ("z", "Z")]
    spread = _unless(("", "rprivate"), said.get("Propagation"))
    modes = (*relabels, *([spread] if spread else []))
    return Mount(target, said["Source"], True, read_only, modes)


def _mount_text(mount: Mount) -> Any:
    if not _has_colon(mount) and (mount.source or not mount.read_only):
        return str(mount)
    return {
        "type": "bind" if mount.bind else "volume",
        **({"source": mount.source} if mount.source else {}),
        "target": mount.target,
        **({"read_only": True} if mount.read_only else {}),
    }


def _has_colon(mount: Mount) -> bool:
    return ":" in mount.target or ":" in (mount.source or "")


def _security(host: Inspection) -> list[str]:
    """The options, without what the engine adds for --ipc host, and without a file's rules."""
    options = [
        text
        for text in host.get("SecurityOpt") or ()
        if not _is_rules(text) and (text, host.get("IpcMode")) != ("label=disable", "host")
    ]
    return [*options, *(["systempaths=unconfined"] if host.get("MaskedPaths") == [] else [])]


def _is_rules(option: str) -> bool:
    return option.startswith("seccomp={")


def _devices(host: Inspection) -> list[str]:
    files = [
        Device(it["PathOnHost"], it["PathInContainer"], it.get("CgroupPermissions") or "rwm")
        for it in host.get("Devices") or ()
    ]
    requests = [it for it in host.get("DeviceRequests") or () if not claims.is_for_gpus(it)]
    names = [name for it in requests if it.get("Driver") == "cdi" for name in it["DeviceIDs"]]
    usual = {str(it): it.source for it in files if it == Device(it.source, it.source)}
    return [*(usual.get(str(it), str(it)) for it in files), *names]


# --- what a person must know


def _notes(box: Box, inspection: Inspection, hidden: Sequence[str]) -> Iterator[str]:
    if hidden:
        yield f"not saved, and taken from your environment: {', '.join(hidden)}"
    sources = [it for it in mounts(inspection) if it.source]
    places = [f"{it.target} ({_from(it, box, inspection)})" for it in sources]
    if places:
        yield f"not in the image, and mounted again: {', '.join(places)}"
    for it in mounts(inspection):
        if not it.source:
            yield (
                f"not saved: {it.target}, which is a volume without a name; it stays with the box,"
                f" and docker cp {box.name}:{it.target} . takes its files out"
            )
    if any(_is_rules(text) for text in inspection["HostConfig"].get("SecurityOpt") or ()):
        yield "not saved: the seccomp rules, for which file they came from is not known"


def _from(mount: Mount, box: Box, inspection: Inspection) -> str:
    if mount == _workspace(inspection) and mount.source == box.folder:
        return "the folder where you start it"
    return str(mount.source) if mount.bind else f"the volume {mount.source}"


# --- as YAML


def _in_yaml(value: Any) -> Any:
    """Double each dollar sign: in files a single one begins a variable."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list):
        return [_in_yaml(item) for item in value]
    if isinstance(value, dict):
        return {key: _in_yaml(item) for key, item in value.items()}
    return value
