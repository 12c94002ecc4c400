"""A box as a profile and an image: of what the engine says of it becomes what a person would write.

What its image must not keep, and what neither takes along, is said here, too. Pure: knows no engine
and no files, only their words.
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
from gpubox.boxes.boxes import Box, Inspection
from gpubox.boxes.moved import forgotten, variables
from gpubox.errors import UsageError
from gpubox.gpus import claims
from gpubox.plan import notebook
from gpubox.plan.plan import (
    BY_PLACE,
    LABEL,
    NOTHING_VISIBLE,
    ORDER,
    VISIBLE,
    hostname_of,
    is_secret,
    shares_memory,
    variables_of,
)
from gpubox.profile import layers
from gpubox.profile.profile import Profile
from gpubox.profile.settings import BY_KEY, SETTINGS
from gpubox.values import ALL_GPUS, NO_GPUS, Device, Gpus, Mount, Port

MARK = "Written by gpubox save"
_WIDE = 98  # characters of a comment
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*")
_LONGEST = 100  # characters of a name, which an image's and a file's must hold
_LOGIN = re.compile(r"://[^/@\s]*:[^/@\s]+@")  # http://anna:password@proxy
_NAMELESS = re.compile(r"[0-9a-f]{64}")
_SHORT_ID = 12


class Saved(msgspec.Struct, frozen=True):
    """`settings` are a profile's, as YAML holds them; `notes` what a person must know of them.

    `image` is what the image of its files says of itself.
    """

    settings: Mapping[str, Any]
    notes: tuple[str, ...]
    image: Mapping[str, Any]


def saved(
    box: Box,
    found: Inspection,
    image: Inspection,
    environ: Mapping[str, str],
    beneath: Sequence[Profile],
) -> Saved:
    """What a box was run with, by the engine's words about it and about the image it came from.

    What holds in all profiles `beneath` is left out. Of secrets there are only the names, and of
    what the caller has in their environment, too, for it was taken from there.
    """
    own = _own_variables(box, found, variables(image))
    hidden = [name for name, text in own.items() if _is_hidden(name, text, environ)]
    settings = {
        **_values(box, found, image, beneath),
        **_program(box, found["Config"], image),
        **_collections(box, found, image),
        "environment": {name: None if name in hidden else text for name, text in own.items()},
    }
    keys = [it.key for it in SETTINGS if it.key in settings and settings[it.key] not in ([], {})]
    return Saved(
        settings={key: _in_yaml(settings[key]) for key in keys},
        notes=tuple(_notes(box, found, hidden)),
        image=_of_the_image(found, image),
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
    """What starts another one like it."""
    return f"gpubox {'jupyter' if box.kind == 'jupyter' else 'run'} {name}"


def document(made: Saved, box: Box, name: str, image: str, when: str) -> str:
    """The file that holds the profile."""
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
    """Its lines, with words whole; what a name may hold that ends a line is a space."""
    text = " ".join(sentence.splitlines())
    return textwrap.wrap(text, _WIDE, break_long_words=False, break_on_hyphens=False)


# --- the image


def _of_the_image(found: Inspection, image: Inspection) -> dict[str, Any]:
    """What the image that it came from says, and nothing of how the box was run.

    An engine takes from the box what is empty here, so that is said in other words.
    """
    return {
        **forgotten(found, variables(image)),
        "Cmd": image.get("Cmd") or [],
        "Entrypoint": image.get("Entrypoint") or [],
        "User": image.get("User") or "0",
        "WorkingDir": image.get("WorkingDir") or "/",
    }


# --- settings with one value


def _values(
    box: Box, found: Inspection, image: Inspection, beneath: Sequence[Profile]
) -> dict[str, Any]:
    """Those that differ from what holds anyway; None resets it."""
    config, host = found["Config"], found["HostConfig"]
    work, folder = _workspace(found), config.get("WorkingDir") or "/"
    places = {image.get("WorkingDir") or "/", work.target if work else ""}
    said: dict[str, Any] = {
        "gpus": _gpus(box, found) or beneath[0].gpus,
        "working_dir": None if folder in places else folder,
        "workspace": work,
        "user": _user(box, config, image),
        "shm_size": host.get("ShmSize") or None,
        "ipc": _unless(("", "private"), host.get("IpcMode")),
        "mem_limit": host.get("Memory") or None,
        "cpus": host.get("NanoCpus") or None,
        "network_mode": _unless(("", "default", "bridge"), host.get("NetworkMode")),
        "hostname": _hostname(box, found),
        "restart": _restart(host.get("RestartPolicy") or {}),
        "init": host.get("Init"),
        "rm": bool(host.get("AutoRemove")),
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


def _gpus(box: Box, found: Inspection) -> Gpus | None:
    """As many as it had, for which ones is the machine's; None where nobody has said."""
    if box.claim == claims.NO_CLAIM:
        return None
    ids = claims.of_label(box.gpus)
    counted = ids if ids in (ALL_GPUS, NO_GPUS) else Gpus(count=len(ids.ids))
    asked = ALL_GPUS if claims.of_container(found) == ALL_GPUS else counted
    return replace(asked, share=box.claim == claims.SHARED)


def _workspace(found: Inspection) -> Mount | None:
    """A host folder to write in that the box starts in is one, however it was said."""
    folder = found["Config"].get("WorkingDir")
    for it in mounts(found):
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


def _hostname(box: Box, found: Inspection) -> str | None:
    if str(found["HostConfig"].get("NetworkMode")).startswith(("host", "container:")):
        return None
    usual = ("", hostname_of(box.name), found["Id"][:_SHORT_ID])
    return _unless(usual, found["Config"].get("Hostname"))


def _restart(policy: Inspection) -> str | None:
    times = policy.get("MaximumRetryCount")
    return _unless(("", "no"), f"{policy.get('Name') or ''}{f':{times}' if times else ''}")


# --- what runs in it


def _program(box: Box, config: Inspection, image: Inspection) -> dict[str, Any]:
    """A shell's command is its image's; the first words behind an entrypoint may be its own."""
    entrypoint, command = list(config.get("Entrypoint") or []), list(config.get("Cmd") or [])
    own = entrypoint != (image.get("Entrypoint") or [])
    if box.kind == "shell":
        return {"entrypoint": shlex.join([*entrypoint, *command])} if own else {}
    program = {"entrypoint": shlex.join(entrypoint)} if own else {}
    if box.kind == "jupyter" and notebook.is_server(command):
        return program
    return {**program, "command": shlex.join(command)}


def _own_variables(box: Box, found: Inspection, image: Mapping[str, str]) -> dict[str, str]:
    """Those that neither the image nor gpubox itself gave it."""
    config = found["Config"]
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


def _collections(box: Box, found: Inspection, image: Inspection) -> dict[str, Any]:
    host, work = found["HostConfig"], _workspace(found)
    given_by_image = image.get("Volumes") or {}
    labels, its = found["Config"].get("Labels") or {}, image.get("Labels") or {}
    return {
        "ports": [
            _port_text(port)
            for port in _ports(host)
            if (box.kind, port.key) != ("jupyter", notebook.KEY)
        ],
        "volumes": [
            _mount_text(it)
            for it in mounts(found)
            if it != work and (it.source or it.target not in given_by_image)
        ],
        "ulimits": {
            it["Name"]: f"{it['Soft']}:{it['Hard']}" if it["Soft"] != it["Hard"] else it["Soft"]
            for it in host.get("Ulimits") or ()
        },
        "labels": {
            name: text
            for name, text in labels.items()
            if not name.startswith(LABEL) and its.get(name) != text
        },
        "cap_add": list(host.get("CapAdd") or ()),
        "security_opt": _security(host),
        "devices": _devices(host),
    }


def _ports(host: Inspection) -> Iterator[Port]:
    """As they were asked for: which number the engine chose is no wish of anybody's."""
    for key, places in (host.get("PortBindings") or {}).items():
        number, _, protocol = key.partition("/")
        for place in places or ():
            outer = _unless(("", "0"), place.get("HostPort")) or ""
            yield Port(int(number), protocol, outer, place.get("HostIp") or "0.0.0.0")


def _port_text(port: Port) -> str:
    """As short as a person would write it."""
    return str(port).removeprefix(f"{values.LOOPBACK}:").removeprefix(":").removesuffix("/tcp")


def mounts(found: Inspection) -> list[Mount]:
    """The folders and volumes of a box, by where they are; one without a source has no name."""
    kinds = ("bind", "volume")
    some = [_mount(it) for it in found.get("Mounts") or () if it.get("Type") in kinds]
    return sorted(some, key=lambda it: it.target)  # an engine shuffles them


def is_nameless(mount: Inspection) -> bool:
    """Whether it is a volume that goes when its box is removed."""
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
    """Without what the engine adds for --ipc host, and without rules that were read from a file."""
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


def _notes(box: Box, found: Inspection, hidden: Sequence[str]) -> Iterator[str]:
    if hidden:
        yield f"not saved, and taken from your environment: {', '.join(hidden)}"
    places = [f"{it.target} ({_from(it, box, found)})" for it in mounts(found) if it.source]
    if places:
        yield f"not in the image, and mounted again: {', '.join(places)}"
    for it in mounts(found):
        if not it.source:
            yield (
                f"not saved: {it.target}, which is a volume without a name; it stays with the box,"
                f" and docker cp {box.name}:{it.target} . takes its files out"
            )
    if any(_is_rules(text) for text in found["HostConfig"].get("SecurityOpt") or ()):
        yield "not saved: the seccomp rules, for which file they came from is not known"


def _from(mount: Mount, box: Box, found: Inspection) -> str:
    if mount == _workspace(found) and mount.source == box.folder:
        return "the folder where you start it"
    return str(mount.source) if mount.bind else f"the volume {mount.source}"


# --- as YAML


def _in_yaml(value: Any) -> Any:
    """In files a dollar sign is a variable's, and two are one."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list):
        return [_in_yaml(item) for item in value]
    if isinstance(value, dict):
        return {key: _in_yaml(item) for key, item in value.items()}
    return value
