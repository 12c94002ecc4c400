"""Each setting in the ways a person may write it, for hypothesis to draw: as flags and as YAML.

Values are ones that `docker run` takes, odd ones too. Knows the spellings; knows no engine, and of
the table of settings only the keys.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

# What stands in for the test's own folder and for the first GPU's UUID.
DATA, GPU = "{DATA}", "{GPU}"
STAND_INS = (
    "nvidia/cuda:8.0-cudnn5-devel",
    "nvidia/cuda:8.0-cudnn6-devel",
    "nvidia/cuda:8.0-cudnn5-runtime",
    "nvidia/cuda:8.0-cudnn5-devel-ubuntu16.04",
)
SECRET = {"MY_TOKEN": "it's a $ecret"}
INHERITED = {"INHERITED": "the caller's", **SECRET}


class Spelling(NamedTuple):
    """One value of one setting: the words before PROFILE, or None where there is no flag.

    `yaml` is the part of a profile that means the same, `command` the words behind PROFILE.
    """

    yaml: dict[str, Any]
    words: tuple[str, ...] | None = None
    command: tuple[str, ...] = ()


class Asked(NamedTuple):
    """A box, asked for in a profile and by words; `keys` are the settings that were drawn."""

    keys: tuple[str, ...]
    profile: dict[str, Any]
    words: tuple[str, ...]
    command: tuple[str, ...]

    def document(self, data: str) -> dict[str, Any]:
        """A gpubox.yaml with the profile in it, and what it may lean on."""
        image = (
            {} if self.profile.keys() & {"image", "cuda", "extends"} else {"image": STAND_INS[0]}
        )
        base = {"image": STAND_INS[0], "environment": {"BASE": "1"}, "ports": ["127.0.0.1::9"]}
        return {
            "datasets": {"pictures": f"{data}:/pictures", "sound": f"{data}:rw"},
            "profiles": {"base": base, "asked": {**image, **self.profile}},
        }


# --- texts

_ODD = " '\"\\$,=:;#{}[]()!*&%@`|<>?~^\n\té漢🙂-./"
TEXTS = st.text(st.sampled_from("abcXYZ019_" + _ODD), max_size=10)
_WORDS = st.text(st.sampled_from("abcXYZ019_"), min_size=1, max_size=6)
_FOLDERS = st.sampled_from([DATA, f"{DATA}/inner", f"{DATA}/inner/../inner/", "~", "./here"])
_TARGETS = st.sampled_from(["/a", "/b/c", "/with space", "/comma,d", "/quo\"te'd", "/né/漢", "/e/"])


def _in_yaml(text: str) -> str:
    return text.replace("$", "$$")


def _option(flag: str, value: str, glued: bool) -> tuple[str, ...]:
    """`--flag=value`, `-fvalue`, or two words."""
    if glued and flag.startswith("--"):
        return (f"{flag}={value}",)
    return (flag + value,) if glued and value else (flag, value)


def one(key: str, flags: list[str], values: SearchStrategy[str]) -> SearchStrategy[Spelling]:
    """A setting with one value, whose flag may have a value behind `=` or as the next word."""

    def spelled(value: str, flag: str, glued: bool) -> Spelling:
        return Spelling({key: _in_yaml(value)}, _option(flag, value, glued))

    return st.builds(spelled, values, st.sampled_from(flags), st.booleans())


def several(
    key: str,
    flags: list[str],
    values: SearchStrategy[str],
    known_by: Callable[[str], str] = str,
) -> SearchStrategy[Spelling]:
    """A list, as often the flag; a single item may stand in the YAML as a text."""

    def spelled(items: list[str], flag: str, alone: bool, glued: bool) -> Spelling:
        listed: Any = [_in_yaml(item) for item in items]
        return Spelling(
            {key: listed[0] if alone and len(items) == 1 else listed},
            tuple(word for item in items for word in _option(flag, item, glued)),
        )

    lists = st.lists(values, min_size=1, max_size=3, unique_by=known_by)
    return st.builds(spelled, lists, st.sampled_from(flags), st.booleans(), st.booleans())


def named(
    key: str, flags: list[str], names: SearchStrategy[str], values: SearchStrategy[str | None]
) -> SearchStrategy[Spelling]:
    """NAME=VALUE, as often the flag; in the YAML a mapping or a list. None is a NAME alone."""

    def spelled(items: dict[str, str | None], flag: str, listed: bool, glued: bool) -> Spelling:
        pairs = [name if value is None else f"{name}={value}" for name, value in items.items()]
        mapping = {n: v if v is None else _in_yaml(v) for n, v in items.items()}
        yaml: Any = [_in_yaml(pair) for pair in pairs] if listed else mapping
        return Spelling({key: yaml}, tuple(w for p in pairs for w in _option(flag, p, glued)))

    found = st.dictionaries(names, values, min_size=1, max_size=3)
    return st.builds(spelled, found, st.sampled_from(flags), st.booleans(), st.booleans())


def only_yaml(**yaml: SearchStrategy[Any]) -> SearchStrategy[Spelling]:
    return st.fixed_dictionaries(yaml).map(lambda drawn: Spelling(drawn))


def _truth(key: str, words: dict[bool, tuple[str, ...] | None]) -> SearchStrategy[Spelling]:
    return st.sampled_from([Spelling({key: value}, written) for value, written in words.items()])


# --- commands

_ARGUMENTS = st.lists(TEXTS, max_size=3)
_COMMANDS = st.one_of(
    st.builds(lambda more: ("echo", *more), _ARGUMENTS),
    st.builds(lambda text, more: ("sh", "-c", f": {shlex.quote(text)}", *more), TEXTS, _ARGUMENTS),
    st.just(("true",)),
)


@st.composite
def _command(draw: st.DrawFn) -> Spelling:
    words = draw(_COMMANDS)
    listed = [_in_yaml(word) for word in words]
    yaml = draw(st.sampled_from([listed, _in_yaml(shlex.join(words))]))
    dashes = ("--",) if draw(st.booleans()) else ()
    return Spelling({"command": yaml}, (), (*dashes, *words))


@st.composite
def _entrypoint(draw: st.DrawFn) -> Spelling:
    program = draw(st.sampled_from(["/bin/echo", "echo", "", "true", "/no such program"]))
    if draw(st.booleans()):
        return Spelling({"entrypoint": [program]}, ("--entrypoint", program))
    words = [program or "echo", *draw(_ARGUMENTS)]
    text = _in_yaml(shlex.join(words))
    return Spelling({"entrypoint": draw(st.sampled_from([[_in_yaml(w) for w in words], text]))})


# --- ports

# each test process has its own: hypothesis likes the lowest best
_FIRST = 21000 + 1000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_HOST_PORTS = st.integers(_FIRST, _FIRST + 900)


@st.composite
def _port(draw: st.DrawFn) -> tuple[str, Any]:
    """One port, short, and for the YAML perhaps in the long form."""
    inner, outer = draw(st.integers(1, 999)), draw(_HOST_PORTS)
    protocol = draw(st.sampled_from(["", "/tcp", "/udp", "/UDP"]))
    address = draw(st.sampled_from(["", "127.0.0.1:", "0.0.0.0:", "[::1]:", "127.0.0.2:"]))
    kind = draw(st.sampled_from(["plain", "long", "any", "range", "choice"]))
    if kind == "any":
        short = f"{address}:{inner}{protocol}" if address else f"{inner}{protocol}"
        return short, short
    if kind == "range":
        short = f"{address}{outer}-{outer + 2}:{inner}-{inner + 2}{protocol}"
        return short, short
    if kind == "choice":
        short = f"{address}{outer}-{outer + 3}:{inner}{protocol}"
        return short, short
    short = f"{address}{outer}:{inner}{protocol}"
    if kind == "plain":
        return short, short
    long = {"target": inner, "published": draw(st.sampled_from([outer, str(outer)]))}
    long |= {"host_ip": address[:-1]} if address else {}
    long |= {"protocol": protocol[1:]} if protocol else {}
    return short, long


def _both(key: str, flags: list[str], items: SearchStrategy[Any]) -> SearchStrategy[Spelling]:
    """A list whose items are drawn as (short, in the YAML); a short of None is only for YAML."""

    def spelled(pairs: list[tuple[str | None, Any]], flag: str, glued: bool) -> Spelling:
        shorts = [short for short, _ in pairs if short is not None]
        words = tuple(word for short in shorts for word in _option(flag, short, glued))
        whole = len(shorts) == len(pairs)
        return Spelling({key: [yaml for _, yaml in pairs]}, words if whole else None)

    lists = st.lists(items, min_size=1, max_size=3)
    return st.builds(spelled, lists, st.sampled_from(flags), st.booleans())


# --- volumes


@st.composite
def _volume(draw: st.DrawFn) -> tuple[str | None, Any]:
    target = draw(_TARGETS)
    kind = draw(st.sampled_from(["folder", "folder", "volume", "nameless", "long", "colon"]))
    if kind == "nameless":
        return target, target
    if kind == "volume":
        modes = draw(st.sampled_from(["", ":ro", ":rw", ":nocopy", ":ro,nocopy"]))
        short = f"{draw(st.sampled_from(['some-volume', 'x_2']))}:{target}{modes}"
        return short, short
    if kind == "folder":
        some = ["", ":ro", ":rw", ":z", ":Z,ro", ":rprivate", ":ro,rslave", ":cached", ":delegated"]
        short = f"{draw(_FOLDERS)}:{target}{draw(st.sampled_from(some))}"
        return short, short
    source = draw(_FOLDERS) if kind == "long" else f"{DATA}/a:b"
    long: dict[str, Any] = {"type": "bind", "source": source, "target": target}
    long |= {"read_only": True} if draw(st.booleans()) else {}
    if draw(st.booleans()):
        long["bind"] = draw(st.sampled_from([{"propagation": "rslave"}, {"selinux": "z"}, {}]))
    if kind == "colon":
        long.pop("bind", None)
    return None, long


# --- the rest

_SIZES = st.sampled_from(["64m", "100M", "1.5g", "128mb", "67108864", "64MiB", "80 m", "262144k"])
_IDS = ["nobody", "root", "0", "1000", "1000:1000", "nobody:1234", "0:0", "host", "nosuchuser"]
_DEVICES = [
    *("/dev/null", "/dev/null:/dev/zero2", "/dev/full:/dev/f:r", "/dev/zero:rw"),
    *("/dev/null:/dev/with space:rwm", "nvidia.com/gpu=1"),
]
_LIMITS = st.sampled_from(
    ["1024", "512:1024", "-1", "-1:-1", "100:-1", "0", "67108864", "1048576:1048576"]
)


@st.composite
def _ulimits(draw: st.DrawFn) -> Spelling:
    names = st.sampled_from(["nofile", "memlock", "stack", "core", "nproc", "rtprio", "nice"])
    limits = draw(st.dictionaries(names, _LIMITS, min_size=1, max_size=3))
    pairs = [f"{name}={limit}" for name, limit in limits.items()]
    long = {
        n: {"soft": t.partition(":")[0], "hard": t.rpartition(":")[2]} for n, t in limits.items()
    }
    yaml = draw(st.sampled_from([pairs, limits, long]))
    return Spelling({"ulimits": yaml}, tuple(w for p in pairs for w in ("--ulimit", p)))


_GPUS = ["all", "none", "device=1", "0,2", "device=0,3", '"device=1,2"', GPU, f"device={GPU},3"]


@st.composite
def _gpus(draw: st.DrawFn) -> Spelling:
    text = draw(st.sampled_from(_GPUS))
    listed: Any = text.split(",") if text[0] in "0{" else text
    return Spelling({"gpus": draw(st.sampled_from([text, listed]))}, ("--gpus", text))


# By key: what may be drawn for each setting of the table.
SPELLINGS: dict[str, SearchStrategy[Spelling]] = {
    "description": only_yaml(description=TEXTS.map(_in_yaml)),
    "extends": only_yaml(extends=st.just("base")),
    "image": only_yaml(image=st.sampled_from([*STAND_INS, f"docker.io/{STAND_INS[0]}"])),
    "cuda": only_yaml(cuda=st.sampled_from(["8.0"]), cudnn=st.sampled_from([5, "6"])),
    "cudnn": only_yaml(cuda=st.just("8.0"), cudnn=st.sampled_from([5, "5", 6])),
    "flavor": only_yaml(cuda=st.just("8.0"), cudnn=st.just(5), flavor=st.just("runtime")),
    "os": only_yaml(cuda=st.just("8.0"), cudnn=st.just(5), os=st.just("ubuntu16.04")),
    "pull_policy": one("pull_policy", ["--pull"], st.sampled_from(["missing", "never"])),
    "gpus": _gpus(),
    "command": _command(),
    "entrypoint": _entrypoint(),
    "working_dir": one("working_dir", ["-w", "--workdir"], _TARGETS | st.just("/a/../tmp")),
    "workspace": one("workspace", ["--workspace"], st.sampled_from([DATA, f"{DATA}:/a", "."])),
    "env_file": several(
        "env_file", ["--env-file"], st.sampled_from([f"{DATA}/env", f"{DATA}/inner/env"])
    ),
    "environment": named(
        "environment",
        ["-e", "--env"],
        st.sampled_from(["A", "INHERITED", "NOT_SET", "odd.name-x", "é", "FROM_FILE", "PATH"]),
        st.one_of(st.none(), TEXTS),
    )
    | st.just(Spelling({"environment": dict.fromkeys(SECRET)}, ("-e", "MY_TOKEN")))
    | st.just(
        Spelling(
            {"environment": {name: _in_yaml(text) for name, text in SECRET.items()}},
            tuple(word for name, text in SECRET.items() for word in ("-e", f"{name}={text}")),
        )
    ),
    "user": one("user", ["-u", "--user"], st.sampled_from(_IDS)),
    "ports": _both("ports", ["-p", "--publish"], _port()),
    "volumes": _both("volumes", ["-v", "--volume"], _volume()),
    "datasets": several(
        "datasets",
        ["--dataset"],
        st.sampled_from(["pictures", "pictures:/a", "sound", "sound:/s:ro", "sound:ro"]),
        lambda text: text.partition(":")[0],
    ),
    "shm_size": one("shm_size", ["--shm-size"], _SIZES | st.just("0")),
    "ipc": one(
        "ipc",
        ["--ipc"],
        st.sampled_from(["private", "shareable", "host", "none", "container:gone"]),
    ),
    "ulimits": _ulimits(),
    "mem_limit": one("mem_limit", ["-m", "--memory"], _SIZES),
    "cpus": one("cpus", ["--cpus"], st.sampled_from([".5", "1", "1.50", "0.01", "2", "1."])),
    "network_mode": one(
        "network_mode",
        ["--network", "--net"],
        st.sampled_from(["bridge", "none", "host", "default", "container:gone", "no-such-net"]),
    ),
    "hostname": one("hostname", ["--hostname"], st.sampled_from(["h", "a-b.c", "x" * 63, "H1"])),
    "labels": named(
        "labels",
        ["--label"],
        st.one_of(_WORDS, st.sampled_from(["a.b/c", "é", "x-y", "a b"])),
        st.one_of(st.none(), TEXTS),
    ),
    "restart": one(
        "restart",
        ["--restart"],
        st.sampled_from(["no", "always", "unless-stopped", "on-failure", "on-failure:3"]),
    ),
    "init": _truth("init", {True: ("--init",), False: ("--no-init",)}),
    "rm": _truth("rm", {True: ("--rm",), False: None}),
    "cap_add": several(
        "cap_add",
        ["--cap-add"],
        st.sampled_from(["SYS_PTRACE", "sys_admin", "CAP_NET_ADMIN", "cap_sys_nice", "ALL"]),
    ),
    "security_opt": several(
        "security_opt",
        ["--security-opt"],
        st.sampled_from(
            [
                *("seccomp=unconfined", "seccomp:unconfined", f"seccomp={DATA}/seccomp.json"),
                *("no-new-privileges", "no-new-privileges:true", "no-new-privileges=false"),
                *("label=disable", "label:disable", "label=type:some_t", "label=level:s0:c1"),
                *("apparmor=unconfined", "systempaths=unconfined"),
            ]
        ),
        lambda text: text[:7],
    ),
    "devices": several("devices", ["--device"], st.sampled_from(_DEVICES)),
    "slurm": only_yaml(slurm=st.lists(st.sampled_from(["--nice=9", "-t 2:00:00"]), unique=True)),
}

OWN_OPTIONS: list[tuple[str, ...]] = [
    *((), (), (), ("-i",), ("-t",), ("-it",), ("--name", "chosen.name_1")),
]


@st.composite
def asked(draw: st.DrawFn, keys: Sequence[str], most: int) -> Asked:
    """A box with one to `most` settings among `keys`, each said by flags or in the YAML."""
    chosen = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=most, unique=True))
    profile: dict[str, Any] = {}
    words = draw(st.sampled_from(OWN_OPTIONS))
    command = draw(st.sampled_from([(), ("true",)]))
    for key in chosen:
        spelling = draw(SPELLINGS[key])
        if spelling.words is None or draw(st.booleans()):
            profile.update(spelling.yaml)
        else:
            words += spelling.words
            command = spelling.command or command
    return Asked(tuple(chosen), profile, words, () if "command" in profile else command)


def searched(examples: int) -> settings:
    """So many draws, the same ones each time unless HYPOTHESIS_EXAMPLES asks for more."""
    return settings(
        max_examples=examples,
        derandomize="HYPOTHESIS_EXAMPLES" not in os.environ,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def filled(asked: Asked, places: Mapping[str, str]) -> Asked:
    """The same with the test's own folder and GPU in it."""
    return Asked(*(_filled(part, places) for part in asked))


def _filled(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, places) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, places) for item in value]
    if isinstance(value, str):
        for place, text in places.items():
            value = value.replace(place, text)
    return value
