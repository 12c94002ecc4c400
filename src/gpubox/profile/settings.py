"""The one table of settings: what a profile may say, how it merges, how it is passed to Docker.

Options, help, the README's reference and the JSON Schema come from it. Knows the meaning of each
key; knows nothing of files, profiles' names or engines.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from gpubox import values
from gpubox.errors import ProfileError
from gpubox.images.catalog import AUTO
from gpubox.plan import docker_words as say
from gpubox.profile import yaml_types
from gpubox.profile.layers import COMMAND_LINE, Located, words
from gpubox.profile.yaml_types import Text, Texts
from gpubox.values import Gpus


class Item(NamedTuple):
    """A parsed value, and where it was written."""

    value: Any
    where: str


class MisreadItemError(ValueError):
    """A problem with one item of a list or mapping, which has a line of its own."""

    def __init__(self, item: Located, problem: str) -> None:
        super().__init__(problem)
        self.item = item


# --- readers: a Located value -> what it means, or a ValueError with the problem


def one(parse: Callable[[str], Any] = str) -> Callable[[Located], Any]:
    return lambda located: parse(str(located.value))


def keyed(
    parse: Callable[[Located], Iterable[tuple[str, Any]]],
) -> Callable[[Located], dict[str, Item]]:
    """Read a list as a mapping by each item's key; one key twice in a layer is an error."""

    def read(located: Located) -> dict[str, Item]:
        found: dict[str, Item] = {}
        for item in _items(located):
            with _about(item):
                for key, value in parse(item):
                    if key in found:
                        raise ValueError(f"{key} stands here twice; keep one")
                    found[key] = Item(value, item.where)
        return found

    return read


def mapping(parse: Callable[[str, Located], Any]) -> Callable[[Located], dict[str, Item]]:
    """Read a mapping, or Compose's list of `NAME=VALUE`; a NAME alone has no value (None).

    Of a repeated NAME the last one counts, as with `docker run -e`.
    """

    def read(located: Located) -> dict[str, Item]:
        found: dict[str, Item] = {}
        for name, item in _pairs(located):
            with _about(item):
                found[name] = Item(parse(name, item), item.where)
        return found

    return read


def _items(located: Located) -> list[Located]:
    return located.value if isinstance(located.value, list) else [located]


def _pairs(located: Located) -> Iterator[tuple[str, Located]]:
    if isinstance(located.value, dict):
        yield from located.value.items()
        return
    for item in _items(located):
        name, equals, value = str(item.value).partition("=")
        if not name:
            raise MisreadItemError(item, f"'{item.value}' has no name before the =")
        yield name, replace(item, value=value if equals else None)


@contextmanager
def _about(item: Located) -> Iterator[None]:
    """Turn a ValueError from inside into one that knows this item's line."""
    try:
        yield
    except ValueError as error:
        raise MisreadItemError(item, str(error)) from None


def _variable(name: str, located: Located) -> str | None:
    if isinstance(located.value, list | dict):
        raise ValueError(f"{name} has a text as its value")
    return located.value


def _label(name: str, located: Located) -> str:
    if name.startswith("gpubox."):
        raise ValueError(f"labels under gpubox. are gpubox's own; rename '{name}'")
    if any(letter.isspace() for letter in name):
        raise ValueError(f"the name of the label '{name}' has a space in it")
    return _variable(name, located) or ""


def _ulimit(name: str, located: Located) -> values.Ulimit:
    if isinstance(located.value, dict):
        if len(located.value) > 2:
            raise ValueError(f"{name} is a number, or a mapping with soft and hard")
        return values.ulimit(name, "{soft}:{hard}".format_map(located.plain()))
    return values.ulimit(name, str(located.value if located.value is not None else ""))


def _ports(located: Located) -> list[tuple[str, values.Port]]:
    plain = located.plain()
    found = values.long_port(plain) if isinstance(plain, dict) else values.ports(str(plain))
    return [(port.key, port) for port in found]


def _volume(located: Located) -> list[tuple[str, values.Mount]]:
    plain = located.plain()
    if isinstance(plain, dict):
        mount = values.long_volume(plain, located.base)
    else:
        mount = values.volume(str(plain), located.base)
    return [(mount.target, mount)]


def _device(located: Located) -> list[tuple[str, values.Device]]:
    device = values.device(str(located.value))
    return [(device.target, device)]


def _sbatch_option(located: Located) -> list[tuple[str, str]]:
    found = values.sbatch_option(str(located.value or ""))
    return [(found, found)]


def _capability(located: Located) -> list[tuple[str, str]]:
    """The full name, as newer engines store it: `sys_ptrace` is CAP_SYS_PTRACE."""
    name = str(located.value or "").upper()
    if not name.replace("_", "").isalpha():
        raise ValueError(f"'{located.value}' is no capability")
    full = name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"
    return [(full, full)]


def _security(located: Located) -> list[tuple[str, str]]:
    """A path to a seccomp profile is relative to the file that names it.

    Docker's older spelling with a colon (`seccomp:unconfined`) is taken too.
    """
    text = str(located.value)
    option, _, value = text.partition("=" if "=" in text else ":")
    if option == "seccomp" and value not in ("unconfined", "builtin", ""):
        return [(option, f"seccomp={values.host_path(value, located.base)}")]
    return [(text if option == "label" else option, text)]


def _env_file(located: Located) -> list[tuple[str, str]]:
    found = values.host_path(str(located.value), located.base)
    return [(found, found)]


def _dataset(located: Located) -> list[tuple[str, str]]:
    name = str(located.value).partition(":")[0]
    return [(name, str(located.value))]


def _gpus(located: Located) -> Gpus:
    if isinstance(located.value, list):
        return values.gpu_ids(",".join(words(located, shlex.split)))
    plain = located.plain()
    return values.long_gpus(plain) if isinstance(plain, dict) else values.gpus(str(plain))


def _gpus_written(gpus: Gpus) -> Any:
    plain = gpus.count or str(gpus)
    if not gpus.share:
        return plain
    which = {"device_ids": list(gpus.ids)} if gpus.ids else {"count": plain}
    return {**which, "share": True}


def _command(located: Located) -> tuple[str, ...]:
    try:
        return tuple(words(located, shlex.split))
    except ValueError as error:
        raise ValueError(f"'{located.value}': {str(error).lower()}") from None


def _entrypoint(located: Located) -> tuple[str, ...]:
    # the flag is one word, as docker's: --entrypoint "" and --entrypoint "/a b" are whole
    if located.where == COMMAND_LINE:
        return (str(located.value or ""),)
    return _command(located) or ("",)


def _working_dir(text: str) -> str:
    if not PurePosixPath(text).is_absolute():
        raise ValueError(f"'{text}' is not an absolute path in the box")
    return text


def _workspace(located: Located) -> values.Mount:
    """`DIR[:BOX_PATH]`: read and write, at /workspace unless said otherwise."""
    source, _, target = str(located.value).partition(":")
    if target and not target.startswith("/"):
        raise ValueError(f"'{located.value}' is not DIR[:BOX_PATH]; {values.NO_COLON}")
    folder = values.host_path(source, located.base)
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


def _images(located: Located) -> tuple[str, ...]:
    """One image, or several in the order in which they are wanted."""
    found = tuple(words(located, lambda text: [text]))
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


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table.

    `flag` is spelt as `docker run`'s, and may be repeated for a collection; `also` is its short or
    other spelling. `written` is the type that YAML may hold; `read` makes the value of it, and
    `write` makes YAML of the value again. `merge` says what a later layer does to an earlier one.
    `said` passes the value to Docker and Compose; without it the plan turns it into other settings.
    """

    key: str
    help: str
    flag: str = ""
    also: str = ""
    metavar: str = "TEXT"
    written: Any
    read: Callable[[Located], Any]
    write: Callable[[Any], Any] = lambda value: value
    merge: Literal["replace", "by key"] = "replace"
    said: say.Say | None = None

    def parse(self, located: Located) -> Any:
        """Read a value; a ProfileError names the line of what is wrong with it."""
        try:
            self._check_shape(located)
            return self.read(located)
        except MisreadItemError as error:
            raise ProfileError(error.item.where, self.name_in(located), str(error)) from None
        except ValueError as error:
            raise ProfileError(located.where, self.name_in(located), str(error)) from None

    def name_in(self, located: Located) -> str:
        return self.flag if located.where == COMMAND_LINE and self.flag else self.key

    def _check_shape(self, located: Located) -> None:
        # a boolean is still a text here: its reader has a message that shows what was written
        shape = Text if self.written is bool else self.written
        try:
            msgspec.convert(located.plain(), shape, strict=False)
        except msgspec.ValidationError as error:
            raise MisreadItemError(
                _pointed_to(located, str(error)), _in_words(str(error))
            ) from None


def _pointed_to(located: Located, problem: str) -> Located:
    """The list item that msgspec's sentence is about, for its own line; else the whole value."""
    item = re.search(r"at `\$\[(\d+)\]", problem)
    return located.value[int(item[1])] if item and isinstance(located.value, list) else located


def _in_words(problem: str) -> str:
    """msgspec's sentence in YAML's words, with the key if it is about one of a mapping."""
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
    Setting(
        key="description",
        help="what the profile is for, shown by `gpubox profiles`",
        written=Text,
        read=one(),
    ),
    Setting(
        key="extends",
        help="the profile this one adds to",
        written=Text,
        read=one(),
    ),
    Setting(
        key="image",
        help="the image, as `docker run` takes it; of a list the first that this machine can run",
        written=yaml_types.Images,
        read=_images,
    ),
    Setting(
        key="cuda",
        help=(
            "a version of CUDA: an image of NVIDIA's is picked;"
            " 12, or auto, is the newest such that this machine can run"
        ),
        written=yaml_types.Cuda,
        read=one(_cuda),
    ),
    Setting(
        key="cudnn",
        help="the major version of cuDNN in that image, or auto",
        written=yaml_types.Cudnn,
        read=one(_cudnn),
    ),
    Setting(
        key="flavor",
        help="base, runtime or devel (the default)",
        written=yaml_types.Flavor,
        read=one(_flavor),
    ),
    Setting(
        key="os",
        help="the system in that image, like ubuntu22.04",
        written=Text,
        read=one(),
    ),
    Setting(
        key="pull_policy",
        help="when to pull the image: missing (unless said), always or never",
        flag="--pull",
        metavar="WHEN",
        written=yaml_types.PullPolicy,
        read=one(values.pull_policy),
        said=say.pull,
    ),
    Setting(
        key="gpus",
        help=(
            "all, none, a number (any that are free), or exactly these:"
            " 0,2 or device=3 or GPU-<uuid>"
        ),
        flag="--gpus",
        metavar="GPUS",
        written=yaml_types.Gpus,
        read=_gpus,
        write=_gpus_written,
        said=say.gpus,
    ),
    Setting(
        key="command",
        help="what runs in the box instead of a shell",
        written=Text | Texts,
        read=_command,
        write=shlex.join,
    ),
    Setting(
        key="entrypoint",
        help="the program that runs the command",
        flag="--entrypoint",
        metavar="PROGRAM",
        written=Text | Texts,
        read=_entrypoint,
        write=shlex.join,
        said=say.entrypoint,
    ),
    Setting(
        key="working_dir",
        help="the folder in the box where the command starts",
        flag="--workdir",
        also="-w",
        metavar="BOX_PATH",
        written=yaml_types.BoxPath,
        read=one(_working_dir),
        said=say.option("--workdir", "working_dir"),
    ),
    Setting(
        key="workspace",
        help="a host folder to work in: mounted at /workspace, and where the command starts",
        flag="--workspace",
        metavar="DIR",
        written=Text,
        read=_workspace,
    ),
    Setting(
        key="env_file",
        help="files of NAME=VALUE lines, read as `docker run` reads them",
        flag="--env-file",
        metavar="FILE",
        written=Text | Texts,
        read=keyed(_env_file),
        merge="by key",
        said=say.env_files,
    ),
    Setting(
        key="environment",
        help="variables in the box; a NAME alone takes the caller's value",
        flag="--env",
        also="-e",
        metavar="NAME[=VALUE]",
        written=yaml_types.Variables,
        read=mapping(_variable),
        merge="by key",
        said=say.environment,
    ),
    Setting(
        key="user",
        help="who runs the command: NAME, UID[:GID], or host for the caller",
        flag="--user",
        also="-u",
        metavar="USER",
        written=Text,
        read=one(),
        said=say.option("--user", "user"),
    ),
    Setting(
        key="ports",
        help="publish [ADDRESS:][HOST:]BOX[/udp]; on 127.0.0.1 unless an address is given",
        flag="--publish",
        also="-p",
        metavar="PORT",
        written=yaml_types.Ports,
        read=keyed(_ports),
        merge="by key",
        said=say.ports,
    ),
    Setting(
        key="volumes",
        help="mount SOURCE:TARGET[:ro], a host folder (it must exist) or a volume",
        flag="--volume",
        also="-v",
        metavar="MOUNT",
        written=yaml_types.Volumes,
        read=keyed(_volume),
        merge="by key",
        said=say.mounts,
    ),
    Setting(
        key="datasets",
        help="datasets to mount, read-only: NAME or NAME:BOX_PATH",
        flag="--dataset",
        metavar="NAME",
        written=Text | Texts,
        read=keyed(_dataset),
        merge="by key",
    ),
    Setting(
        key="shm_size",
        help="shared memory, which data loaders need",
        flag="--shm-size",
        metavar="SIZE",
        written=yaml_types.Size,
        read=one(values.size),
        write=values.size_text,
        said=say.option("--shm-size", "shm_size", text=values.size_text),
    ),
    Setting(
        key="ipc",
        help="whose shared memory: private, shareable, host, container:NAME",
        flag="--ipc",
        metavar="MODE",
        written=Text,
        read=one(),
        said=say.option("--ipc", "ipc_mode", key="ipc"),
    ),
    Setting(
        key="ulimits",
        help="limits of processes: NAME=SOFT[:HARD]",
        flag="--ulimit",
        metavar="NAME=SOFT[:HARD]",
        written=yaml_types.Limits,
        read=mapping(_ulimit),
        merge="by key",
        said=say.ulimits,
    ),
    Setting(
        key="mem_limit",
        help="the most main memory the box may use",
        flag="--memory",
        also="-m",
        metavar="SIZE",
        written=yaml_types.Size,
        read=one(values.size),
        write=values.size_text,
        said=say.option("--memory", "mem_limit", text=values.size_text),
    ),
    Setting(
        key="cpus",
        help="the most CPUs the box may use",
        flag="--cpus",
        metavar="NUMBER",
        written=yaml_types.Cpus,
        read=one(values.cpus),
        write=values.cpus_text,
        said=say.option("--cpus", "nano_cpus", text=values.cpus_text, key="cpus"),
    ),
    Setting(
        key="network_mode",
        help="bridge, none, host, container:NAME or a network's name",
        flag="--network",
        also="--net",
        metavar="NETWORK",
        written=Text,
        read=one(),
        said=say.option("--network", "network_mode"),
    ),
    Setting(
        key="hostname",
        help="the host name in the box (its name, unless said)",
        flag="--hostname",
        metavar="NAME",
        written=yaml_types.Hostname,
        read=one(_hostname),
        said=say.option("--hostname", "hostname"),
    ),
    Setting(
        key="labels",
        help="labels of the container, to find it by",
        flag="--label",
        metavar="NAME[=VALUE]",
        written=yaml_types.Labels,
        read=mapping(_label),
        merge="by key",
        said=say.labels,
    ),
    Setting(
        key="restart",
        help="no, always, unless-stopped or on-failure[:TIMES]",
        flag="--restart",
        metavar="POLICY",
        written=yaml_types.Restart,
        read=one(values.restart),
        said=say.restart,
    ),
    Setting(
        key="init",
        help="a small first process that passes signals on and reaps",
        flag="--init/--no-init",
        written=bool,
        read=one(values.truth),
        said=say.init,
    ),
    Setting(
        key="rm",
        help="remove the box when it stops",
        flag="--rm",
        written=bool,
        read=one(values.truth),
        said=say.remove,
    ),
    Setting(
        key="cap_add",
        help="capabilities to add, like SYS_PTRACE",
        flag="--cap-add",
        metavar="CAPABILITY",
        written=yaml_types.Capability | list[yaml_types.Capability],
        read=keyed(_capability),
        merge="by key",
        said=say.each("--cap-add", "cap_add"),
    ),
    Setting(
        key="security_opt",
        help="security options, like seccomp=unconfined",
        flag="--security-opt",
        metavar="OPTION",
        written=Text | Texts,
        read=keyed(_security),
        merge="by key",
        said=say.security_opt,
    ),
    Setting(
        key="devices",
        help="host devices: /dev/x[:/dev/y][:rwm], or a CDI name",
        flag="--device",
        metavar="DEVICE",
        written=yaml_types.Device | list[yaml_types.Device],
        read=keyed(_device),
        merge="by key",
        said=say.devices,
    ),
    Setting(
        key="slurm",
        help="options of `gpubox submit` for Slurm, as behind #SBATCH: --time=2:00:00",
        written=Texts,
        read=keyed(_sbatch_option),
        merge="by key",
    ),
)

BY_KEY: Mapping[str, Setting] = {setting.key: setting for setting in SETTINGS}
