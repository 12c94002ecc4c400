"""The types of YAML values: what msgspec checks, and what the JSON Schema tells editors beyond it.

The check is coarse, because the reader of a setting has better words for what is wrong. Patterns
(`like`) and the list of a long form's keys serve the JSON Schema alone.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, TypedDict

from msgspec import Meta

from gpubox import values

Text = str
Texts = list[str]


# --- what an editor is told


def told(**schema: Any) -> Meta:
    return Meta(extra_json_schema=schema)


def like(pattern: str, *examples: str) -> Meta:
    """A text that the pattern matches from end to end, or a number whose spelling it matches."""
    instead = f"write it like {' or '.join(examples)}"
    shown = {"examples": examples, "patternErrorMessage": instead} if examples else {}
    return told(pattern=f"^(?:{pattern})$", **shown)


def one_of(*words: str) -> Meta:
    return told(enum=words)


NOT_EMPTY = told(minItems=1)
Truth: TypeAlias = Annotated[Text, like("true|false", "true")]

# --- values

Size: TypeAlias = Annotated[Text, like(values.SIZE, "8g", "512m")]
Cpus: TypeAlias = Annotated[Text, like(values.CPUS, "1.5")]
Restart: TypeAlias = Annotated[Text, like(values.RESTART, "no", "unless-stopped", "on-failure:3")]
BoxPath: TypeAlias = Annotated[Text, like("/.*")]
Hostname: TypeAlias = Annotated[Text, like("[A-Za-z0-9.-]{1,63}")]
Capability: TypeAlias = Annotated[Text, like("[A-Za-z_]+", "SYS_PTRACE")]
Device: TypeAlias = Annotated[Text, like("/.*|[^/]+/.+=.+", "/dev/fuse")]

Image: TypeAlias = Annotated[Text, like(r"\S+")]
Images: TypeAlias = Image | Annotated[list[Image], NOT_EMPTY]
Cuda: TypeAlias = Annotated[Text, like(r"auto|\d+(?:\.\d+){0,2}", "auto", "12", "12.4")]
Cudnn: TypeAlias = Annotated[Text, like(r"auto|\d+", "auto", "9")]
Flavor: TypeAlias = Annotated[Text, one_of("base", "runtime", "devel")]
PullPolicy: TypeAlias = Annotated[Text, one_of("missing", "always", "never", "if_not_present")]

# --- GPUs

Gpu: TypeAlias = Annotated[Text, like(values.GPU_ID)]


class LongGpus(TypedDict, total=False):
    count: Annotated[Text, like(r"all|none|[1-9]\d*", "all")] | None
    device_ids: Gpu | Annotated[list[Gpu], NOT_EMPTY] | None
    share: Truth | None


Gpus: TypeAlias = (
    Annotated[Text, like(values.GPUS, "all", "none", "device=0")]
    | Annotated[list[Gpu], NOT_EMPTY]
    | LongGpus
)

# --- variables and labels

_LABEL = r"(?!gpubox\.)[^\s=]+"

Variables: TypeAlias = dict[Text, Text | None] | list[Annotated[Text, like(r"[^=][\s\S]*")]]
Labels: TypeAlias = (
    dict[Annotated[Text, like(_LABEL)], Text | None]
    | list[Annotated[Text, like(rf"{_LABEL}(?:=[\s\S]*)?")]]
)

# --- ports

_BOX_PORT = r"[1-9]\d*(?:-\d+)?"
_HOST_PORT = r"\d*(?:-\d+)?"
_PROTOCOL = "tcp|udp|sctp|TCP|UDP|SCTP"
_ADDRESS = r"[\[\]\da-fA-F.:]*:"

Port: TypeAlias = Annotated[
    Text, like(rf"(?:{_ADDRESS})?(?:{_HOST_PORT}:)?{_BOX_PORT}(?:/(?:{_PROTOCOL}))?", "6006")
]


class PortTarget(TypedDict):
    target: Annotated[Text, like(_BOX_PORT)]


class LongPort(PortTarget, total=False):
    published: Annotated[Text, like(_HOST_PORT)] | None
    host_ip: Text | None
    protocol: Annotated[Text, like(_PROTOCOL, "tcp", "udp")] | None
    mode: Annotated[Text, one_of("ingress", "host")] | None
    name: Text | None


Ports: TypeAlias = Port | list[Port | LongPort]

# --- volumes

Volume: TypeAlias = Annotated[Text, like("(?:.+:)?/.*", "./data:/data:ro")]


class OfBind(TypedDict, total=False):
    propagation: Text | None
    selinux: Text | None
    create_host_path: Truth | None


class OfVolume(TypedDict, total=False):
    nocopy: Truth | None


class VolumeTarget(TypedDict):
    target: BoxPath


class LongVolume(VolumeTarget, total=False):
    type: Annotated[Text, one_of("bind", "volume")]
    source: Text | None
    read_only: Truth | None
    bind: OfBind | None
    volume: OfVolume | None


Volumes: TypeAlias = Volume | list[Volume | LongVolume]

# --- limits

_MOST = r"-?\d+"
_LIMITS = "|".join(values.ULIMITS)

Limit: TypeAlias = Annotated[Text, like(f"{_MOST}(?::{_MOST})?", "-1")]


class LongLimit(TypedDict):
    soft: Annotated[Text, like(_MOST)]
    hard: Annotated[Text, like(_MOST)]


Limits: TypeAlias = (
    dict[Annotated[Text, one_of(*values.ULIMITS)], Limit | LongLimit]
    | list[Annotated[Text, like(f"(?:{_LIMITS})={_MOST}(?::{_MOST})?")]]
)
