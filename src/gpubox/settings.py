"""The one table of settings: what a profile may say, how it merges, how Docker is told.

Options, help, the README's reference and the JSON Schema come from it. Knows the meaning of each
key; knows nothing of files, profiles' names or engines.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

import msgspec

from gpubox import docker_words as say
from gpubox import values, written
from gpubox.catalog import AUTO
from gpubox.errors import ProfileError
from gpubox.layers import COMMAND_LINE, Said, words
from gpubox.values import Gpus
from gpubox.written import Text, Texts


class Item(NamedTuple):
    """A merged value, and where it was said."""

    value: Any
    where: str


class MisreadItemError(ValueError):
    """A problem with one item of a list or mapping, which has a line of its own."""

    def __init__(self, said: Said, problem: str, key: str = "") -> None:
        super().__init__(problem)
        self.said, self.key = said, key


# --- readers: what was said -> what is meant, or a ValueError with the problem


def one(parse: Callable[[str], Any] = str) -> Callable[[Said], Any]:
    return lambda said: parse(str(said.value))


def path(said: Said) -> str:
    return values.host_path(str(said.value), said.base)


def _items(said: Said) -> list[Said]:
    return said.value if isinstance(said.value, list) else [said]


def keyed(parse: Callable[[Said], Iterable[tuple[str, Any]]]) -> Callable[[Said], dict[str, Item]]:
    """A list whose items are known by a key: the same key twice is an error within one layer."""

    def read(said: Said) -> dict[str, Item]:
        found: dict[str, Item] = {}
        for item in _items(said):
            for key, value in _parsed(item, parse):
                if key in found:
                    raise MisreadItemError(item, f"{key} stands here twice; keep one")
                found[key] = Item(value, item.where)
        return found

    return read


def _parsed(item: Said, parse: Callable[[Said], Iterable[Any]]) -> list[Any]:
    try:
        return list(parse(item))
    except MisreadItemError:
        raise
    except ValueError as error:
        raise MisreadItemError(item, str(error)) from None


def mapping(parse: Callable[[str, Said], Any]) -> Callable[[Said], dict[str, Item]]:
    """A mapping, or Compose's list of `NAME=VALUE`; a NAME alone has no value (None)."""

    def pairs(said: Said) -> Iterable[tuple[str, Any]]:
        name, equals, value = str(said.value).partition("=")
        item = Said(value if equals else None, said.where, said.base)
        if not name:
            raise ValueError(f"'{said.value}' has no name before the =")
        return [(name, parse(name, item))]

    def read(said: Said) -> dict[str, Item]:
        if not isinstance(said.value, dict):
            # a repeated -e wins over the one before it, as with docker run
            items = (pair for item in _items(said) for pair in _located(item, pairs))
            return dict(items)
        return {
            name: Item(_parsed(item, partial(_named, parse, name))[0], item.where)
            for name, item in said.value.items()
        }

    return read


def _named(parse: Callable[[str, Said], Any], name: str, item: Said) -> list[Any]:
    return [parse(name, item)]


def _located(item: Said, parse: Callable[[Said], Iterable[Any]]) -> list[tuple[str, Item]]:
    return [(name, Item(value, item.where)) for name, value in _parsed(item, parse)]


def _variable(name: str, said: Said) -> str | None:
    if isinstance(said.value, list | dict):
        raise ValueError(f"{name} has a text as its value")
    return said.value


def _label(name: str, said: Said) -> str:
    if name.startswith("gpubox."):
        raise ValueError(f"labels under gpubox. are gpubox's own; rename '{name}'")
    if any(letter.isspace() for letter in name):
        raise ValueError(f"the name of the label '{name}' has a space in it")
    return _variable(name, said) or ""


def _ulimit(name: str, said: Said) -> values.Ulimit:
    if isinstance(said.value, dict):
        if len(said.value) > 2:
            raise ValueError(f"{name} is a number, or a mapping with soft and hard")
        return values.ulimit(name, "{soft}:{hard}".format_map(said.plain()))
    return values.ulimit(name, str(said.value if said.value is not None else ""))


def _ports(said: Said) -> list[tuple[str, values.Port]]:
    plain = said.plain()
    found = values.long_port(plain) if isinstance(plain, dict) else values.ports(str(plain))
    return [(port.key, port) for port in found]


def _volume(said: Said) -> list[tuple[str, values.Mount]]:
    plain = said.plain()
    if isinstance(plain, dict):
        mount = values.long_volume(plain, said.base)
    else:
        mount = values.volume(str(plain), said.base)
    return [(mount.target, mount)]


def _device(said: Said) -> list[tuple[str, values.Device]]:
    device = values.device(str(said.value))
    return [(device.target, device)]


def _sbatch_option(said: Said) -> list[tuple[str, str]]:
    found = values.sbatch_option(str(said.value or ""))
    return [(found, found)]


def _capability(said: Said) -> list[tuple[str, str]]:
    """By its full name, as newer engines store it: `sys_ptrace` is CAP_SYS_PTRACE."""
    name = str(said.value or "").upper()
    if not name.replace("_", "").isalpha():
        raise ValueError(f"'{said.value}' is no capability")
    full = name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"
    return [(full, full)]


def _security(said: Said) -> list[tuple[str, str]]:
    """A seccomp profile is a file of the caller's, named from where it was written.

    Docker's older spelling with a colon is taken too.
    """
    text = str(said.value)
    option, _, value = text.partition("=" if "=" in text else ":")
    if option == "seccomp" and value not in ("unconfined", "builtin", ""):
        return [(option, f"seccomp={values.host_path(value, said.base)}")]
    return [(text if option == "label" else option, text)]


def _env_file(said: Said) -> list[tuple[str, str]]:
    found = path(said)
    return [(found, found)]


def _dataset(said: Said) -> list[tuple[str, str]]:
    name = str(said.value).partition(":")[0]
    return [(name, str(said.value))]


def _gpus(said: Said) -> Gpus:
    if isinstance(said.value, list):
        return values.gpu_ids(",".join(words(said, shlex.split)))
    plain = said.plain()
    return values.long_gpus(plain) if isinstance(plain, dict) else values.gpus(str(plain))


def _command(said: Said) -> tuple[str, ...]:
    try:
        return tuple(words(said, shlex.split))
    except ValueError as error:
        raise ValueError(f"'{said.value}': {str(error).lower()}") from None


def _entrypoint(said: Said) -> tuple[str, ...]:
    # the flag is one word, as docker's: --entrypoint "" and --entrypoint "/a b" are whole
    if said.where == COMMAND_LINE:
        return (str(said.value or ""),)
    return _command(said) or ("",)


def _working_dir(text: str) -> str:
    if not PurePosixPath(text).is_absolute():
        raise ValueError(f"'{text}' is not an absolute path in the box")
    return text


def _workspace(said: Said) -> values.Mount:
    """`DIR[:BOX_PATH]`: read and write, at /workspace unless said otherwise."""
    source, _, target = str(said.value).partition(":")
    if target and not target.startswith("/"):
        raise ValueError(f"'{said.value}' is not DIR[:BOX_PATH]; {values.NO_COLON}")
    folder = values.host_path(source, said.base)
    if folder == "/":
        raise ValueError("the whole machine is no workspace; name a folder")
    return values.Mount(values.box_path(target or "/workspace"), folder, bind=True)


def _cudnn(text: str) -> str:
    if text != AUTO and not text.isdigit():
        raise ValueError(f"'{text}' is not a major version of cuDNN, like 8, or {AUTO}")
    return text


def _cuda(text: str) -> str:
    parts = text.split(".")
    if text != AUTO and (len(parts) > 3 or not all(part.isdigit() for part in parts)):
        raise ValueError(f"'{text}' is not a version of CUDA, like 12.4, or {AUTO}")
    return text


def _flavor(text: str) -> str:
    if text not in ("base", "runtime", "devel"):
        raise ValueError(f"'{text}' is not base, runtime or devel")
    return text


def _images(said: Said) -> tuple[str, ...]:
    """One image, or several in the order in which they are wanted."""
    found = tuple(words(said, lambda text: [text]))
    for image in found:
        values.reference(image)
    if not found:
        raise ValueError("an empty list")
    return found


def _hostname(text: str) -> str:
    if not text or len(text) > 63 or not text.replace("-", "").replace(".", "").isalnum():
        raise ValueError(f"'{text}' is no host name: letters, digits, - and . (63 at most)")
    return text


# --- the table


class Setting(msgspec.Struct, frozen=True):
    """One line of the table.

    `written` is what YAML may hold; `merge` says what a later layer does to an earlier one; `flag`
    is `docker run`'s (a repeatable one for a collection). Without `said` the plan turns the value
    into another setting.
    """

    key: str
    written: Any
    read: Callable[[Said], Any]
    help: str
    flag: str = ""
    merge: Literal["replace", "by key"] = "replace"
    said: say.Say | None = None
    short: str = ""
    metavar: str = "TEXT"

    def parse(self, said: Said) -> Any:
        """What was said, as this setting means it; a ProfileError names the line."""
        try:
            self._check_shape(said)
            return self.read(said)
        except MisreadItemError as error:
            raise ProfileError(error.said.where, self.name_in(said), str(error)) from None
        except ValueError as error:
            raise ProfileError(said.where, self.name_in(said), str(error)) from None

    def name_in(self, said: Said) -> str:
        return self.flag if said.where == COMMAND_LINE and self.flag else self.key

    def _check_shape(self, said: Said) -> None:
        # a truth is read from its text, with a message that shows it
        shape = Text if self.written is bool else self.written
        try:
            msgspec.convert(said.plain(), shape, strict=False)
        except msgspec.ValidationError as error:
            raise MisreadItemError(_pointed_to(said, str(error)), _in_words(str(error))) from None


def _pointed_to(said: Said, problem: str) -> Said:
    """The item of a list that msgspec's sentence is about, which has a line of its own."""
    item = re.search(r"at `\$\[(\d+)\]", problem)
    return said.value[int(item[1])] if item and isinstance(said.value, list) else said


def _in_words(problem: str) -> str:
    """msgspec's sentence in YAML's words; in a long form with the key that it is about."""
    text, _, place = problem.replace("`", "").partition(" - at ")
    text = text.removeprefix("Expected ")
    if text.startswith("Object missing required field"):
        return f"{text.rpartition(' ')[2]} is missing here"
    expected, _, got = text.partition(", got ")
    for theirs, ours in (
        ("object", "a mapping"),
        ("array", "a list"),
        ("str", "a text"),
        ("bool", "true or false"),
        ("null", "nothing"),
    ):
        expected, got = expected.replace(theirs, ours), got.replace(theirs, ours)
    expected = expected.replace(" | nothing", "").replace(" | ", " or ")
    key = place.rpartition(".")[2] + ": " if "." in place.replace("...", "") else ""
    return f"{key}{expected} is expected here" + (f", not {got}" if got else "")


SETTINGS: tuple[Setting, ...] = (
    Setting("description", Text, one(), "what the profile is for, shown by `gpubox profiles`"),
    Setting("extends", Text, one(), "the profile this one adds to"),
    Setting(
        "image",
        written.Images,
        _images,
        "the image, as `docker run` takes it; of a list the first that this machine can run",
    ),
    Setting(
        "cuda",
        written.Cuda,
        one(_cuda),
        "a version of CUDA: an image of NVIDIA's is picked;"
        " 12, or auto, is the newest such that this machine can run",
    ),
    Setting(
        "cudnn", written.Cudnn, one(_cudnn), "the major version of cuDNN in that image, or auto"
    ),
    Setting("flavor", written.Flavor, one(_flavor), "base, runtime or devel (the default)"),
    Setting("os", Text, one(), "the system in that image, like ubuntu22.04"),
    Setting(
        "pull_policy",
        written.PullPolicy,
        one(values.pull_policy),
        "when to pull the image: missing (unless said), always or never",
        "--pull",
        said=say.pull,
        metavar="WHEN",
    ),
    Setting(
        "gpus",
        written.Gpus,
        _gpus,
        "all, none, a number (any that are free), or exactly these: 0,2 or device=3 or GPU-<uuid>",
        "--gpus",
        said=say.gpus,
        metavar="GPUS",
    ),
    Setting("command", Text | Texts, _command, "what runs in the box instead of a shell"),
    Setting(
        "entrypoint",
        Text | Texts,
        _entrypoint,
        "the program that runs the command",
        "--entrypoint",
        said=say.entrypoint,
        metavar="PROGRAM",
    ),
    Setting(
        "working_dir",
        written.BoxPath,
        one(_working_dir),
        "the folder in the box where the command starts",
        "--workdir",
        said=say.option("--workdir", "working_dir"),
        short="-w",
        metavar="BOX_PATH",
    ),
    Setting(
        "workspace",
        Text,
        _workspace,
        "a host folder to work in: mounted at /workspace, and where the command starts",
        "--workspace",
        metavar="DIR",
    ),
    Setting(
        "env_file",
        Text | Texts,
        keyed(_env_file),
        "files of NAME=VALUE lines, read as `docker run` reads them",
        "--env-file",
        "by key",
        say.env_files,
        metavar="FILE",
    ),
    Setting(
        "environment",
        written.Variables,
        mapping(_variable),
        "variables in the box; a NAME alone takes the caller's value",
        "--env",
        "by key",
        say.environment,
        "-e",
        metavar="NAME[=VALUE]",
    ),
    Setting(
        "user",
        Text,
        one(),
        "who runs the command: NAME, UID[:GID], or host for the caller",
        "--user",
        said=say.option("--user", "user"),
        short="-u",
        metavar="USER",
    ),
    Setting(
        "ports",
        written.Ports,
        keyed(_ports),
        "publish [ADDRESS:][HOST:]BOX[/udp]; on 127.0.0.1 unless an address is given",
        "--publish",
        "by key",
        say.ports,
        "-p",
        metavar="PORT",
    ),
    Setting(
        "volumes",
        written.Volumes,
        keyed(_volume),
        "mount SOURCE:TARGET[:ro], a host folder (it must exist) or a volume",
        "--volume",
        "by key",
        say.mounts,
        "-v",
        metavar="MOUNT",
    ),
    Setting(
        "datasets",
        Text | Texts,
        keyed(_dataset),
        "datasets to mount, read-only: NAME or NAME:BOX_PATH",
        "--dataset",
        "by key",
        metavar="NAME",
    ),
    Setting(
        "shm_size",
        written.Size,
        one(values.size),
        "shared memory, which data loaders need",
        "--shm-size",
        said=say.option("--shm-size", "shm_size", text=values.size_text),
        metavar="SIZE",
    ),
    Setting(
        "ipc",
        Text,
        one(),
        "whose shared memory: private, shareable, host, container:NAME",
        "--ipc",
        said=say.option("--ipc", "ipc_mode", key="ipc"),
        metavar="MODE",
    ),
    Setting(
        "ulimits",
        written.Limits,
        mapping(_ulimit),
        "limits of processes: NAME=SOFT[:HARD]",
        "--ulimit",
        "by key",
        say.ulimits,
        metavar="NAME=SOFT[:HARD]",
    ),
    Setting(
        "mem_limit",
        written.Size,
        one(values.size),
        "the most main memory the box may use",
        "--memory",
        said=say.option("--memory", "mem_limit", text=values.size_text),
        short="-m",
        metavar="SIZE",
    ),
    Setting(
        "cpus",
        written.Cpus,
        one(values.cpus),
        "the most CPUs the box may use",
        "--cpus",
        said=say.option("--cpus", "nano_cpus", text=values.cpus_text, key="cpus"),
        metavar="NUMBER",
    ),
    Setting(
        "network_mode",
        Text,
        one(),
        "bridge, none, host, container:NAME or a network's name",
        "--network",
        said=say.option("--network", "network_mode"),
        metavar="NETWORK",
    ),
    Setting(
        "hostname",
        written.Hostname,
        one(_hostname),
        "the host name in the box (its name, unless said)",
        "--hostname",
        said=say.option("--hostname", "hostname"),
        metavar="NAME",
    ),
    Setting(
        "labels",
        written.Labels,
        mapping(_label),
        "labels of the container, to find it by",
        "--label",
        "by key",
        say.labels,
        metavar="NAME[=VALUE]",
    ),
    Setting(
        "restart",
        written.Restart,
        one(values.restart),
        "no, always, unless-stopped or on-failure[:TIMES]",
        "--restart",
        said=say.restart,
        metavar="POLICY",
    ),
    Setting(
        "init",
        bool,
        one(values.truth),
        "a small first process that passes signals on and reaps",
        "--init/--no-init",
        said=say.init,
    ),
    Setting("rm", bool, one(values.truth), "remove the box when it stops", "--rm", said=say.remove),
    Setting(
        "cap_add",
        written.Capability | list[written.Capability],
        keyed(_capability),
        "capabilities to add, like SYS_PTRACE",
        "--cap-add",
        "by key",
        say.each("--cap-add", "cap_add"),
        metavar="CAPABILITY",
    ),
    Setting(
        "security_opt",
        Text | Texts,
        keyed(_security),
        "security options, like seccomp=unconfined",
        "--security-opt",
        "by key",
        say.security_opt,
        metavar="OPTION",
    ),
    Setting(
        "devices",
        written.Device | list[written.Device],
        keyed(_device),
        "host devices: /dev/x[:/dev/y][:rwm], or a CDI name",
        "--device",
        "by key",
        say.devices,
        metavar="DEVICE",
    ),
    Setting(
        "slurm",
        Texts,
        keyed(_sbatch_option),
        "options of `gpubox submit` for Slurm, as behind #SBATCH: --time=2:00:00",
        merge="by key",
    ),
)

BY_KEY: Mapping[str, Setting] = {setting.key: setting for setting in SETTINGS}
