"""Reads the value of each setting: what was written becomes what it means.

A Located value comes in; a ValueError is the problem in one sentence. Knows nothing of files and
profiles, nor which key a value stands under.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from gpubox import values
from gpubox.boxes import labels
from gpubox.images.catalog import AUTO
from gpubox.profile.layers import COMMAND_LINE, Located
from gpubox.profile.yaml_types import Text
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


# --- of any setting


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


def _words(located: Located, split: Callable[[str], list[str]]) -> list[str]:
    """The items of a list as they are, or a single text after `split`."""
    if isinstance(located.value, list):
        return [str(item.value if item.value is not None else "") for item in located.value]
    return split(str(located.value))


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


# --- of one


def variable(name: str, located: Located) -> str | None:
    if isinstance(located.value, list | dict):
        raise ValueError(f"{name} has a text as its value")
    return located.value


def label(name: str, located: Located) -> str:
    if name.startswith(labels.PREFIX):
        raise ValueError(f"labels under gpubox. are gpubox's own; rename '{name}'")
    if any(letter.isspace() for letter in name):
        raise ValueError(f"the name of the label '{name}' has a space in it")
    return variable(name, located) or ""


def ulimit(name: str, located: Located) -> values.Ulimit:
    if isinstance(located.value, dict):
        if len(located.value) > 2:
            raise ValueError(f"{name} is a number, or a mapping with soft and hard")
        return values.ulimit(name, "{soft}:{hard}".format_map(located.plain()))
    return values.ulimit(name, str(located.value if located.value is not None else ""))


def ports(located: Located) -> list[tuple[str, values.Port]]:
    plain = located.plain()
    found = values.long_port(plain) if isinstance(plain, dict) else values.ports(str(plain))
    return [(port.key, port) for port in found]


def volume(located: Located) -> list[tuple[str, values.Mount]]:
    plain = located.plain()
    if isinstance(plain, dict):
        mount = values.long_volume(plain, located.base)
    else:
        mount = values.volume(str(plain), located.base)
    return [(mount.target, mount)]


def device(located: Located) -> list[tuple[str, values.Device]]:
    device = values.device(str(located.value))
    return [(device.target, device)]


def sbatch_option(located: Located) -> list[tuple[str, str]]:
    found = values.sbatch_option(str(located.value or ""))
    return [(found, found)]


def capability(located: Located) -> list[tuple[str, str]]:
    """The full name, as newer engines store it: `sys_ptrace` is CAP_SYS_PTRACE."""
    name = str(located.value or "").upper()
    if not name.replace("_", "").isalpha():
        raise ValueError(f"'{located.value}' is no capability")
    full = name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"
    return [(full, full)]


def security(located: Located) -> list[tuple[str, str]]:
    """A path to a seccomp profile is relative to the file that names it.

    Docker's older spelling with a colon (`seccomp:unconfined`) is taken too.
    """
    text = str(located.value)
    option, _, value = text.partition("=" if "=" in text else ":")
    if option == "seccomp" and value not in ("unconfined", "builtin", ""):
        return [(option, f"seccomp={values.host_path(value, located.base)}")]
    return [(text if option == "label" else option, text)]


def env_file(located: Located) -> list[tuple[str, str]]:
    found = values.host_path(str(located.value), located.base)
    return [(found, found)]


def dataset(located: Located) -> list[tuple[str, str]]:
    name = str(located.value).partition(":")[0]
    return [(name, str(located.value))]


def gpus(located: Located) -> Gpus:
    if isinstance(located.value, list):
        return values.gpu_ids(",".join(_words(located, shlex.split)))
    plain = located.plain()
    return values.long_gpus(plain) if isinstance(plain, dict) else values.gpus(str(plain))


def gpus_written(gpus: Gpus) -> Any:
    plain = gpus.count or str(gpus)
    if not gpus.share:
        return plain
    which = {"device_ids": list(gpus.ids)} if gpus.ids else {"count": plain}
    return {**which, "share": True}


def command(located: Located) -> tuple[str, ...]:
    try:
        return tuple(_words(located, shlex.split))
    except ValueError as error:
        raise ValueError(f"'{located.value}': {str(error).lower()}") from None


def entrypoint(located: Located) -> tuple[str, ...]:
    # the flag is one word, as docker's: --entrypoint "" and --entrypoint "/a b" are whole
    if located.where == COMMAND_LINE:
        return (str(located.value or ""),)
    return command(located) or ("",)


def working_dir(text: str) -> str:
    if not PurePosixPath(text).is_absolute():
        raise ValueError(f"'{text}' is not an absolute path in the box")
    return text


def workspace(located: Located) -> values.Mount:
    """`DIR[:BOX_PATH]`: read and write, at /workspace unless said otherwise."""
    source, _, target = str(located.value).partition(":")
    if target and not target.startswith("/"):
        raise ValueError(f"'{located.value}' is not DIR[:BOX_PATH]; {values.NO_COLON}")
    folder = values.host_path(source, located.base)
    if folder == "/":
        raise ValueError("the whole machine is no workspace; name a folder")
    return values.Mount(values.box_path(target or "/workspace"), folder, bind=True)


def cudnn(text: str) -> str:
    if text != AUTO and not text.isdigit():
        raise ValueError(f"'{text}' is not a major version of cuDNN, like 8, or {AUTO}")
    return text


def cuda(text: str) -> str:
    parts = text.split(".")
    if text != AUTO and (len(parts) > 3 or not all(part.isdigit() for part in parts)):
        raise ValueError(f"'{text}' is not a version of CUDA, like 12.4, or {AUTO}")
    return text


def flavor(text: str) -> str:
    if text not in ("base", "runtime", "devel"):
        raise ValueError(f"'{text}' is not base, runtime or devel")
    return text


def images(located: Located) -> tuple[str, ...]:
    """One image, or several in the order in which they are wanted."""
    found = tuple(_words(located, lambda text: [text]))
    for image in found:
        values.reference(image)
    if not found:
        raise ValueError("an empty list")
    return found


def hostname(text: str) -> str:
    if not text or len(text) > 63 or not text.replace("-", "").replace(".", "").isalnum():
        raise ValueError(f"'{text}' is no host name: letters, digits, - and . (63 at most)")
    return text


# --- shapes


def check_shape(located: Located, written: Any) -> None:
    """Raise where a value is not of the type that YAML may hold for its key."""
    # a boolean is still a text here: its reader has a message that shows what was written
    shape = Text if written is bool else written
    try:
        msgspec.convert(located.plain(), shape, strict=False)
    except msgspec.ValidationError as error:
        raise MisreadItemError(_pointed_to(located, str(error)), _in_words(str(error))) from None


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
