"""Finds and reads configuration files: each value comes with the file and line where it stands.

Knows YAML and where configuration lies; knows nothing of what the keys mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from gpubox.errors import GpuboxError, ProfileError, why
from gpubox.host.accounts import is_private_group, user_name

COMMAND_LINE = "command line"
BUILT_IN = "built in"
PROJECT_FILE = "gpubox.yaml"

Value: TypeAlias = "str | list[Located] | dict[str, Located] | None"


class Located(msgspec.Struct, frozen=True):
    """A value, and where it was written.

    Scalars stay the text that was written, because only the reader of a key knows whether `12.10`
    is a version or a number; an empty or null one is None. `where` is `FILE:LINE`, or
    `command line`; relative paths start at `base`.
    """

    value: Value
    where: str
    base: Path

    def plain(self) -> Any:
        """The value alone, without its places."""
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        return self.value


class Layer(msgspec.Struct, frozen=True):
    """The settings of one file. `name` is its path as people would type it.

    A `shared` file belongs to no project: its `workspace: .` is the working directory.
    """

    name: str
    settings: Mapping[str, Located]
    shared: bool = False


def from_flags(
    flags: Mapping[str, Any], base: Path, where: str = COMMAND_LINE
) -> dict[str, Located]:
    """Flags (texts, lists of texts, mappings) in the shape of a file's settings: one more layer."""

    def located(value: Any) -> Located:
        if isinstance(value, list | tuple):
            return Located([located(item) for item in value], where, base)
        if isinstance(value, dict):
            return Located({key: located(item) for key, item in value.items()}, where, base)
        return Located(value, where, base)

    return {key: located(value) for key, value in flags.items()}


# --- reading YAML


def read(text: str, name: str, base: Path) -> dict[str, Located]:
    """Read one YAML document, which must be a mapping; errors begin with `NAME:LINE`."""
    import yaml

    # libyaml's parser where PyYAML was built with it: ten times as fast
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        root = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark and text[mark.index : mark.index + 1] == "\t":
            problem = "not YAML: a tab; it is indented with spaces"
            raise ProfileError(f"{name}:{mark.line + 1}", "", problem) from None
        line = mark.line + 1 if mark else 1
        problem = error.problem or ""
        if problem.startswith("but "):  # the second half of a sentence
            problem = f"{error.context}, {problem}"
        raise ProfileError(f"{name}:{line}", "", f"not YAML: {problem}") from None
    except yaml.YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        problem = str(error).splitlines()[0]
        raise ProfileError(f"{name}:{line}", "", f"not YAML: {problem}") from None
    if root is None:
        return {}
    try:
        document = _Reader(name, base).located(root)
    except RecursionError:
        raise ProfileError(f"{name}:1", "", "lists and mappings nested too deep") from None
    if not isinstance(document.value, dict):
        raise ProfileError(document.where, "", "a mapping (KEY: VALUE) is expected here")
    return document.value


class _Reader:
    def __init__(self, name: str, base: Path) -> None:
        self.name, self.base = name, base
        self.reading: set[int] = set()  # ids of the nodes around this one

    def located(self, node: Any) -> Located:
        where = f"{self.name}:{node.start_mark.line + 1}"
        if id(node) in self.reading:
            raise ProfileError(where, "", "an alias that contains itself")
        self.reading.add(id(node))
        value = self.value(node, where)
        self.reading.discard(id(node))
        return Located(value, where, self.base)

    def value(self, node: Any, where: str) -> Value:
        if node.id == "sequence":
            return [self.located(item) for item in node.value]
        if node.id == "mapping":
            return self.mapping(node)
        if not node.style and node.value in ("", "~", "null", "Null", "NULL"):
            return None
        if node.tag.startswith("!") and not node.tag.startswith("tag:"):
            raise ProfileError(where, "", f"the tag {node.tag} is not understood")
        return str(node.value)

    def mapping(self, node: Any) -> dict[str, Located]:
        written: dict[str, Located] = {}
        merged: dict[str, Located] = {}
        for key_node, value_node in node.value:
            where = f"{self.name}:{key_node.start_mark.line + 1}"
            if key_node.id != "scalar":
                raise ProfileError(where, "", "a key is a word")
            key, item = str(key_node.value), self.located(value_node)
            if key == "<<":
                merged = self.merged(item, where) | merged
            elif key in written:
                raise ProfileError(where, key, "written twice in one mapping; keep one")
            else:
                # the key's line, because a block value starts on the next one
                written[key] = replace(item, where=where)
        return {**merged, **written}

    @staticmethod
    def merged(item: Located, where: str) -> dict[str, Located]:
        """The settings that `<<` brings; of several mappings the earlier one wins, says YAML."""
        merged: dict[str, Located] = {}
        for each in item.value if isinstance(item.value, list) else [item]:
            if not isinstance(each.value, dict):
                raise ProfileError(where, "<<", "a mapping is expected here, or a list of them")
            merged = each.value | merged
        return merged


# --- writing YAML

# Texts that readers of YAML 1.1 and 1.2 alike read as this text when it has no quotes.
_PLAIN = re.compile(r"(?:[A-Za-z/]|\.(?!\d))[\w./@+=-]*(?::[\w./@+=-]+)*", re.ASCII)


def write(document: Mapping[str, Any]) -> str:
    """The document as YAML; a text that might be read as something else is quoted."""
    import yaml

    class Writer(yaml.SafeDumper):
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
            super().increase_indent(flow)  # so that a list stands further in than its key

    def text(writer: Writer, value: str) -> Any:
        style = None if _PLAIN.fullmatch(value) else '"'
        return writer.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Writer.add_representer(str, text)
    return yaml.dump(document, Dumper=Writer, sort_keys=False, width=10_000, allow_unicode=True)


# --- ${VAR}

_WORD = r"[^}]*"
for _ in range(3):  # a word may hold variables, and so on; expressions cannot recurse
    _WORD = rf"(?:[^}}$]|\$(?!\{{)|\$\{{{_WORD}\}})*"
_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)|(?P<plain>[A-Za-z_]\w*)"
    rf"|\{{(?P<name>[A-Za-z_]\w*)(?:(?P<how>:?[-?+])(?P<word>{_WORD}))?\}}|(?P<bad>\{{?))"
)


def interpolate(item: Located, environ: Mapping[str, str]) -> Located:
    """Expand `$VAR`, `${VAR}`, `${VAR:-else}`, `${VAR:?problem}`, `${VAR:+other}`, `$$`.

    As Compose does, in all texts of a value; `else` and `other` may hold variables themselves.
    """
    if isinstance(item.value, str):
        if "$" not in item.value:
            return item
        return replace(item, value=_expand(item.value, item.where, environ))
    if isinstance(item.value, list):
        return replace(item, value=[interpolate(each, environ) for each in item.value])
    if isinstance(item.value, dict):
        items = {key: interpolate(each, environ) for key, each in item.value.items()}
        return replace(item, value=items)
    return item


def _expand(text: str, where: str, environ: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        if match["bad"] is not None:
            raise ProfileError(where, "", f"'{text}': a dollar sign itself is written $$")
        name, how = match["plain"] or match["name"], match["how"] or ""
        found = environ.get(name)
        missing = found is None or (how.startswith(":") and not found)
        if how.endswith("+"):
            return "" if missing else _expand(match["word"], where, environ)
        if not missing:
            return found or ""
        if how.endswith("-"):
            return _expand(match["word"], where, environ)
        problem = match["word"] if how.endswith("?") else ""
        raise ProfileError(
            where,
            "",
            problem or f"the variable {name} is not set",
            f"set it, or write ${{{name}:-VALUE}} to have a value without it",
        )

    return _VARIABLE.sub(value, text)


# --- which files


class Read(msgspec.Struct):
    """The layers that were read, lowest first.

    `errors` are for files that could not be read, `warnings` for those that are not trusted.
    """

    layers: list[Layer]
    errors: list[GpuboxError]
    warnings: list[str]


def read_all(
    *, cwd: Path, home: Path, environ: Mapping[str, str], uid: int, file: Path | None = None
) -> Read:
    """Read all layers; a file that cannot be read does not keep the others from being read."""
    result = Read([_built_in()], [], [])
    try:
        files = [(path, True) for path in _shared_files(home, environ)]
    except GpuboxError as error:
        result.errors.append(error)
        return result
    project = file
    if file is None:
        try:
            project, warning = find_project(cwd, home, uid)
        except PermissionError as error:
            closed = error.filename
            project, warning = None, f"{closed} is closed to you, so no {PROJECT_FILE} is used"
        result.warnings += [warning] if warning else []
    if project:
        files.append((project, False))
    for path, shared in files:
        try:
            result.layers.append(_load(path, shared=shared))
        except GpuboxError as error:
            result.errors.append(error)
    return result


def _built_in() -> Layer:
    text = Path(__file__).with_name("profiles.yaml").read_text("utf-8")
    return Layer(BUILT_IN, read(text, BUILT_IN, Path("/")), shared=True)


def config_home(home: Path, environ: Mapping[str, str]) -> Path:
    """`~/.config/gpubox`, or where XDG_CONFIG_HOME (if absolute) puts it."""
    xdg = environ.get("XDG_CONFIG_HOME", "")
    return (Path(xdg) if xdg.startswith("/") else home / ".config") / "gpubox"


def _shared_files(home: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    own = config_home(home, environ)
    candidates = [Path("/etc/gpubox/config.yaml"), own / "config.yaml"]
    for path in candidates:
        try:
            is_there = path.is_file()
        except OSError as error:
            raise GpuboxError(
                f"{path}: {why(error)}",
                f"HOME is {home}; sudo -H, or su -, sets it to the user's own",
            ) from None
        if is_there:
            yield path
    yield from sorted((own / "profiles.d").glob("*.yaml"))


def _load(path: Path, *, shared: bool = False) -> Layer:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise GpuboxError(f"{path}: {why(error)}") from None
    except UnicodeDecodeError:
        raise ProfileError(f"{as_typed(path)}:1", "", "not a UTF-8 text") from None
    name = as_typed(path)
    return Layer(name, read(text, name, path.absolute().parent), shared)


def as_typed(path: Path) -> str:
    """The path as people would type it: relative to here, or to home."""
    absolute = path.absolute()
    for root, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if absolute.is_relative_to(root):
            return prefix + str(absolute.relative_to(root))
    return str(absolute)


def find_project(cwd: Path, home: Path, uid: int) -> tuple[Path | None, str]:
    """The nearest `gpubox.yaml` upward, or a warning why it is not used.

    Somebody else's file could mount and run anything as the caller, so it must be the caller's or
    root's, and writable by nobody else. The walk stops at home, and before another file system.
    """
    device = cwd.stat().st_dev
    for folder in (cwd, *cwd.parents):
        if folder.stat().st_dev != device:
            break
        path = folder / PROJECT_FILE
        if path.is_file():
            reason = _distrust(path, uid)
            return (None, f"{path} is not used: {reason}") if reason else (path, "")
        if folder == home:
            break
    return None, ""


def _distrust(path: Path, uid: int) -> str:
    status = path.stat()
    if status.st_uid not in (uid, 0):
        return f"it belongs to {user_name(status.st_uid)}; --file {path} uses it all the same"
    others_write = status.st_mode & 0o002
    group_writes = status.st_mode & 0o020 and not is_private_group(status.st_gid, uid)
    if others_write or group_writes:
        return f"others may write it; chmod go-w {path}"
    return ""
