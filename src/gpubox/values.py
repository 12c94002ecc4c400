"""The small notations of `docker run` and Compose, as records and back: ports, mounts, GPUs, sizes.

Text that cannot be read is a ValueError whose message is the problem in one sentence. Knows nothing
of profiles, files or engines.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

LOOPBACK = "127.0.0.1"


# --- sizes and numbers

SIZE = r"(\d+(?:\.\d+)?) ?([kmgtpKMGTP]?)[iI]?[bB]?"
CPUS = r"\d*\.?\d{1,9}|\d+\."


def size(text: str) -> int:
    """Bytes, from Docker's spelling: `8g`, `512m`, `1.5gb`, `64KiB`, or plain bytes."""
    match = re.fullmatch(SIZE, text.strip())
    if not match:
        raise ValueError(f"'{text}' is not a size; write it like 8g or 512m")
    return whole(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def whole(number: float) -> int:
    """A number without its fraction, which the engine can take: its own have 64 bits."""
    if abs(number) >= 2**63:
        raise ValueError(f"{number:.0f} is more than the engine can count")
    return int(number)


def size_written(value: int) -> str:
    """The shortest exact spelling: 8589934592 is `8g`."""
    for power, unit in ((4, "t"), (3, "g"), (2, "m"), (1, "k")):
        if value and value % 1024**power == 0:
            return f"{value // 1024**power}{unit}"
    return str(value)


def cpus(text: str) -> int:
    """Billionths of a CPU, as the engine counts them: `1.5` is 1500000000."""
    if not re.fullmatch(CPUS, text):
        raise ValueError(f"'{text}' is not a number of CPUs; write it like 2 or 1.5")
    whole, _, part = text.partition(".")
    return int(whole or 0) * 10**9 + int(part.ljust(9, "0") or 0)


def cpus_written(value: int) -> str:
    whole, part = divmod(value, 10**9)
    return f"{whole}.{part:09}".rstrip("0").rstrip(".")


def truth(text: str) -> bool:
    """`true` or `false`, and nothing else: in YAML 1.2 `on` and `yes` are plain words."""
    if text.lower() not in ("true", "false"):
        raise ValueError(f"'{text}' is neither true nor false")
    return text.lower() == "true"


def variables(lines: Iterable[str]) -> dict[str, str]:
    """The `NAME=text` lines that containers and images list, as a mapping."""
    pairs = (line.partition("=") for line in lines)
    return {name: text for name, _, text in pairs}


# --- ports


class Port(msgspec.Struct, frozen=True):
    """A published port. `host` is a number, a range to choose from, or empty: any free one."""

    container: int
    protocol: str = "tcp"
    host: str = ""
    address: str = LOOPBACK

    @property
    def key(self) -> str:
        return f"{self.container}/{self.protocol}"

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.host}:{self.key}"


def _port_range(text: str) -> range:
    first, _, last = text.partition("-")
    try:
        numbers = range(int(first), int(last or first) + 1)
    except ValueError:
        raise ValueError(f"'{text}' is not a port number") from None
    if not numbers:
        raise ValueError(f"the range {text} runs backwards")
    if not 0 < numbers[0] <= numbers[-1] < 65536:
        raise ValueError(f"{text} is no port; ports are 1 to 65535")
    return numbers


def _address(text: str) -> str:
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        hint = f"; write {LOOPBACK}" if text == "localhost" else ""
        raise ValueError(f"'{text}' is not an IP address{hint}") from None


def ports(text: str) -> list[Port]:
    """`[IP:][HOST[-END]:]CONTAINER[-END][/PROTOCOL]`, as `docker run -p`.

    Without an address it is the loopback one: nothing is published to the network unasked.
    """
    body, _, protocol = text.strip().partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f"'{text}': the protocol is tcp, udp or sctp, not '{protocol}'")
    head, _, container_text = body.rpartition(":")
    address_text, colon, host_text = head.rpartition(":")
    if not colon and ("." in host_text or "[" in host_text):
        raise ValueError(f"'{text}' needs a host port or '::' behind the address")
    address = _address(address_text) if address_text else LOOPBACK
    containers = _port_range(container_text)
    if not host_text or host_text == "0":
        return [Port(number, protocol, "", address) for number in containers]
    hosts = _port_range(host_text)
    if len(containers) == 1 and len(hosts) > 1:
        return [Port(containers[0], protocol, host_text, address)]
    if len(containers) != len(hosts):
        raise ValueError(f"'{text}': {len(hosts)} host ports for {len(containers)} in the box")
    return [
        Port(inner, protocol, str(outer), address)
        for inner, outer in zip(containers, hosts, strict=True)
    ]


def long_port(item: Mapping[str, Any]) -> list[Port]:
    """Compose's long form: `{target: 80, published: 8080, host_ip: ..., protocol: tcp}`."""
    # a mode is for the nodes of a swarm, a name for people: neither changes a single container
    if set(item) - {"target", "published", "host_ip", "protocol", "mode", "name"}:
        raise ValueError("a port written as a mapping has target, published, host_ip, protocol")
    if (mode := item.get("mode") or "ingress") not in ("ingress", "host"):
        raise ValueError(f"'{mode}' is no mode of a port: ingress or host, which are the same here")
    address = f"{item['host_ip']}:" if item.get("host_ip") else ""
    if ":" in address[:-1]:
        address = f"[{address[:-1].strip('[]')}]:"
    published = item.get("published") or ""
    middle = f"{published}:" if published or address else ""
    return ports(f"{address}{middle}{item['target']}/{item.get('protocol') or 'tcp'}")


# --- mounts

NO_COLON = "a path with a colon in it needs a symbolic link without one (ln -s)"
_ACCESS = ("ro", "rw")
_SELINUX = ("z", "Z")
_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_CONSISTENCY = ("cached", "delegated", "consistent")


class Mount(msgspec.Struct, frozen=True):
    """A host folder (`bind`) or one of the engine's volumes, at `target` in the box.

    A `source` of None is a new volume without a name. `modes` are the words behind the second
    colon, without `ro` and `rw`.
    """

    target: str
    source: str | None = None
    bind: bool = False
    read_only: bool = False
    modes: tuple[str, ...] = ()

    @property
    def relabels(self) -> bool:
        """Whether SELinux labels change: that can be said with `-v`, but not with `--mount`."""
        return bool(set(self.modes) & set(_SELINUX))

    def mode(self, among: tuple[str, ...]) -> str | None:
        return next((mode for mode in self.modes if mode in among), None)

    @property
    def propagation(self) -> str | None:
        return self.mode(_PROPAGATION)

    @property
    def consistency(self) -> str | None:
        return self.mode(_CONSISTENCY)

    @property
    def nocopy(self) -> bool:
        return "nocopy" in self.modes

    def __str__(self) -> str:
        words = [self.source] if self.source else []
        modes = (*self.modes, "ro") if self.read_only else self.modes
        return ":".join([*words, self.target, *([",".join(modes)] if modes else [])])


def box_path(text: str) -> str:
    """A tidied absolute path in the box, to mount something on: not the box's root."""
    path = PurePosixPath(text)
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError(f"'{text}' is not an absolute path in the box")
    if str(path) in ("/", "//"):
        raise ValueError("a mount over / would hide the whole box")
    return str(path)


def host_path(text: str, base: Path) -> str:
    """An absolute host path: `~` is the caller's home, a relative one starts at `base`."""
    if text.startswith("~"):
        try:
            return str(Path(text).expanduser())
        except RuntimeError:
            raise ValueError(f"'{text}': there is no such user's home") from None
    # normpath and not resolve(): a symbolic link stays what the person wrote
    from os.path import normpath

    return normpath(base / text)


def _modes(text: str, spec: str) -> tuple[bool, tuple[str, ...]]:
    known = (*_ACCESS, *_SELINUX, *_PROPAGATION, *_CONSISTENCY, "nocopy")
    modes = [mode for mode in text.split(",") if mode]
    for mode in modes:
        if mode not in known:
            raise ValueError(f"'{spec}': '{mode}' is not one of {', '.join(known)}")
    for group in (_ACCESS, _SELINUX, _PROPAGATION, _CONSISTENCY):
        if len([mode for mode in modes if mode in group]) > 1:
            raise ValueError(f"'{spec}': {' and '.join(m for m in modes if m in group)} exclude")
    return "ro" in modes, tuple(mode for mode in modes if mode not in _ACCESS)


def is_path(text: str) -> bool:
    """Docker's and Compose's rule: a source that is a path, and not a volume's name."""
    return text.startswith(("/", "./", "../", "~")) or text in (".", "..")


def volume(text: str, base: Path) -> Mount:
    """`[SOURCE:]TARGET[:MODES]`, as `docker run -v`; relative sources start at `base`."""
    parts = text.split(":")
    colon_in_source = len(parts) == 3 and parts[2].startswith("/")
    if len(parts) > 3 or not all(parts) or colon_in_source:
        raise ValueError(
            f"'{text}' is not SOURCE:TARGET[:MODES]; a path with a colon in it is written"
            " {type: bind, source: ..., target: ...} in the YAML"
        )
    if len(parts) == 1:
        return Mount(box_path(text))
    source, target = parts[:2]
    read_only, modes = _modes(parts[2] if len(parts) == 3 else "", text)
    if is_path(source):
        if "nocopy" in modes:
            raise ValueError(f"'{text}': nocopy is for volumes, not for folders")
        return Mount(box_path(target), host_path(source, base), True, read_only, modes)
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", source):
        raise ValueError(f"'{source}' is no volume's name; for a folder write ./{source}")
    if any(mode in (*_SELINUX, *_PROPAGATION) for mode in modes):
        raise ValueError(f"'{text}': {modes[0]} is for folders, not for volumes")
    return Mount(box_path(target), source, False, read_only, modes)


# create_host_path changes nothing: a missing folder is always an error
_UNDER = {"bind": ("propagation", "selinux", "create_host_path"), "volume": ("nocopy",)}


def long_volume(item: Mapping[str, Any], base: Path) -> Mount:
    """Compose's long form, the only one for paths with a colon in them."""
    unknown = set(item) - {"type", "source", "target", "read_only", "bind", "volume"}
    kind = item.get("type", "volume")
    if unknown or kind not in ("bind", "volume"):
        raise ValueError(
            "a volume written as a mapping has type (bind or volume), source, target, read_only"
        )
    for name, known in _UNDER.items():
        if unknown := set(item.get(name) or ()).difference(known):
            raise ValueError(f"no '{unknown.pop()}' under {name}; there is: {', '.join(known)}")
    bind, source = item.get("bind") or {}, item.get("source")
    if kind == "bind" and not source:
        raise ValueError("a bind has a source")
    modes = [bind.get("propagation"), bind.get("selinux")]
    if truth((item.get("volume") or {}).get("nocopy") or "false"):
        modes.append("nocopy")
    _, kept = _modes(",".join(mode for mode in modes if mode), str(item["target"]))
    return Mount(
        target=box_path(item["target"]),
        source=host_path(str(source), base) if kind == "bind" else source,
        bind=kind == "bind",
        read_only=truth(item.get("read_only") or "false"),
        modes=kept,
    )


def data_folder(text: str, base: Path) -> Mount:
    """`HOST_PATH:BOX_PATH[:rw]`: a host folder, never a volume, read-only unless said otherwise."""
    source, colon, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not colon or not source or not target or mode not in ("", *_ACCESS):
        known = f"'{text}' is not HOST_PATH:BOX_PATH[:rw]"
        needs = NO_COLON if mode.startswith("/") else "-v takes Docker's modes"
        raise ValueError(f"{known}; {needs}" if mode else known)
    return Mount(box_path(target), host_path(source, base), True, mode != "rw")


# --- devices


class Device(msgspec.Struct, frozen=True):
    """A host device in the box, or a CDI device.

    Of a CDI device `source` and `target` are both its name, `vendor.com/class=name`.
    """

    source: str
    target: str
    permissions: str = "rwm"

    @property
    def is_cdi(self) -> bool:
        return self.source == self.target and "=" in self.source

    def __str__(self) -> str:
        return self.source if self.is_cdi else f"{self.source}:{self.target}:{self.permissions}"


def device(text: str) -> Device:
    """`HOST[:BOX][:PERMISSIONS]`, as `docker run --device`, or a CDI name."""
    if re.fullmatch(r"[\w.-]+\.[\w.-]+/[\w-]+=[\w.:-]+", text):
        return Device(text, text)
    parts = text.split(":")
    permissions = parts.pop() if len(parts) > 1 and re.fullmatch("[rwm]+", parts[-1]) else "rwm"
    if len(parts) > 2 or not all(part.startswith("/") for part in parts):
        raise ValueError(f"'{text}' is not HOST_DEVICE[:BOX_DEVICE][:rwm]")
    return Device(parts[0], parts[-1], permissions)


# --- ulimits, restart and pulls


class Ulimit(msgspec.Struct, frozen=True):
    name: str
    soft: int
    hard: int

    def __str__(self) -> str:
        return f"{self.name}={self.soft}:{self.hard}"


# fmt: off
ULIMITS = (
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile",
    "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
)
# fmt: on


def ulimit(name: str, text: str) -> Ulimit:
    """`SOFT[:HARD]` of the limit `name`; -1 is no limit."""
    if name not in ULIMITS:
        raise ValueError(f"no ulimit '{name}'; there is: {', '.join(ULIMITS)}")
    soft, _, hard = text.partition(":")
    try:
        limits = int(soft), int(hard or soft)
    except ValueError:
        raise ValueError(f"'{name}={text}' is not NAME=SOFT[:HARD]") from None
    limit = Ulimit(name, *map(whole, limits))
    if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
        raise ValueError(f"'{name}={text}': the soft limit is above the hard one")
    return limit


def sbatch_option(text: str) -> str:
    """The text behind one `#SBATCH`: an option, on a single line."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"'{text}': {str(error).lower()}") from None
    if not text.startswith("-") or "\n" in text or not words:
        raise ValueError(f"'{text}' is no option of sbatch, like --time=2:00:00")
    return text


RESTART = r"no|always|unless-stopped|on-failure(?::\d+)?"


def restart(text: str) -> str:
    """`no`, `always`, `unless-stopped`, `on-failure[:TIMES]`."""
    if not re.fullmatch(RESTART, text):
        raise ValueError(f"'{text}' is not no, always, unless-stopped or on-failure[:TIMES]")
    whole(int(text.partition(":")[2] or 0))
    return text


def pull_policy(text: str) -> str:
    """When an image is pulled; `if_not_present` is Compose's other word for `missing`."""
    policy = "missing" if text == "if_not_present" else text
    if policy not in ("missing", "always", "never"):
        raise ValueError(f"'{text}' is not missing, always or never")
    return policy


# --- GPUs


class Gpus(msgspec.Struct, frozen=True):
    """Which GPUs are asked for: all, none, exactly `ids` (indexes, UUIDs, MIG names), or any free
    `count` of them. With `share`, other boxes that share may have them at the same time."""

    ids: tuple[str, ...] = ()
    all: bool = False
    count: int = 0
    share: bool = False

    def __str__(self) -> str:
        return "all" if self.all else ",".join(self.ids) or (str(self.count or "none"))


ALL_GPUS = Gpus(all=True)
NO_GPUS = Gpus()

_INDEX = r"(?:0|[1-9]\d*)"
GPU_ID = rf"(?:{_INDEX}(?::{_INDEX})?|GPU-[0-9a-fA-F-]+|MIG-[0-9a-zA-Z/-]+)"
GPUS = rf'(?!0$)"?(?:all|none|(?:device=)?{GPU_ID}(?:,{GPU_ID})*)"?'


def gpu_ids(text: str) -> Gpus:
    """Exactly these GPUs, by index or UUID: `0,2`, `GPU-6af1...`, `MIG-...`."""
    ids = tuple(part.strip() for part in text.split(","))
    for gpu in ids:
        if not re.fullmatch(GPU_ID, gpu):
            raise ValueError(
                f"'{gpu}' is neither a GPU's index nor its UUID (GPU-..., MIG-...);"
                " there is also: all, none, or how many, such as 2"
            )
        if ids.count(gpu) > 1:
            raise ValueError(f"GPU {gpu} is named twice")
    return Gpus(ids)


def gpus(text: str) -> Gpus:
    """`all`, `none`, `2` (any two that are free), `0,2`, `device=3`, `GPU-...`, `MIG-...`."""
    text = text.strip().strip("\"'")
    if re.search("(?:capabilities|count|driver|options)=", text):
        raise ValueError(
            f"'{text}' is docker's alone; here: all, none, 2 (any two), or device=0,2;"
            " capabilities go into the variable NVIDIA_DRIVER_CAPABILITIES"
        )
    if text in ("all", "none"):
        return ALL_GPUS if text == "all" else NO_GPUS
    exact = text.removeprefix("device=")
    if exact != text or not re.fullmatch("[0-9]+", text):
        return gpu_ids(exact)
    if int(text) == 0:
        raise ValueError("0 can mean two things: device=0 is the first GPU, none is no GPU")
    if len(text) > len("9999"):
        raise ValueError(f"no machine has {text} GPUs")
    return Gpus(count=int(text))


def long_gpus(item: Mapping[str, Any]) -> Gpus:
    """Compose's long form, with gpubox's own key `share`: `{count: 1, share: true}`."""
    count, ids = item.get("count"), item.get("device_ids")
    if set(item) - {"count", "device_ids", "share"} or (count is None) == (ids is None):
        raise ValueError("GPUs written as a mapping have count or device_ids, and perhaps share")
    if ids is not None:
        asked = gpu_ids(",".join(map(str, ids)) if isinstance(ids, list) else str(ids))
    elif str(count).isdigit() or count in ("all", "none"):
        asked = gpus(str(count))
    else:
        raise ValueError(f"'{count}' is no count of GPUs")
    share = truth(str(item.get("share") or "false"))
    if share and asked == NO_GPUS:
        raise ValueError("no GPU is nothing to share")
    return msgspec.structs.replace(asked, share=share)


# --- names of images


class Reference(msgspec.Struct, frozen=True):
    """An image's name in parts. `registry` is empty for Docker Hub's."""

    registry: str
    repository: str
    tag: str
    digest: str = ""

    def __str__(self) -> str:
        prefix = f"{self.registry}/" if self.registry else ""
        suffix = f"@{self.digest}" if self.digest else ""
        return f"{prefix}{self.repository}" + (f":{self.tag}" if self.tag else "") + suffix


_REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
)


def reference(text: str) -> Reference:
    """`[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`; without tag and digest the tag is `latest`."""
    name, _, digest = text.partition("@")
    head, slash, rest = name.partition("/")
    registry = head if slash and ("." in head or ":" in head or head == "localhost") else ""
    path = rest if registry else name
    repository, colon, tag = path.partition(":")
    if repository != repository.lower():
        raise ValueError(f"'{text}': the name of an image is lower-case")
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(f"'{text}' is not an image: REPOSITORY[:TAG]")
    if colon and not re.fullmatch(r"[\w][\w.-]{0,127}", tag, re.ASCII):
        raise ValueError(f"'{text}': '{tag}' is not a tag")
    if digest and not re.fullmatch(r"[a-z0-9]+:[0-9a-f]{32,}", digest):
        raise ValueError(f"'{text}': '{digest}' is not a digest")
    if registry in ("docker.io", "index.docker.io"):
        registry, repository = "", repository.removeprefix("library/")
    return Reference(registry, repository, tag or ("" if digest else "latest"), digest)


def familiar(name: str) -> str:
    """An image's name as Docker lists it; Podman's lists begin with `docker.io/`."""
    try:
        return str(reference(name))
    except ValueError:
        return name


def registry(text: str) -> str:
    """`HOST[:PORT][/PATH]`, as it begins an image's name."""
    place = text.rstrip("/")
    host, slash, path = place.partition("/")
    if not re.fullmatch(r"([\w.-]+|\[[\da-f:]+\])(:\d+)?", host, re.ASCII | re.IGNORECASE):
        raise ValueError(f"'{text}' is no registry: HOST[:PORT], without https://")
    if not ("." in host or ":" in host or host == "localhost"):
        raise ValueError(f"'{text}' would be read as a folder of Docker Hub's: write {host}:443")
    if slash and not _REPOSITORY.fullmatch(path):
        raise ValueError(f"'{text}': '{path}' is no place in a registry; it is lower-case")
    return place
