"""The import rule: which module knows what, read from the source; and what a quick word loads."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpubox

SOURCE = Path(gpubox.__file__).parent

# From the ground up: each room knows only rooms before it.
GROUND_UP = """
errors values
claims boxes gpus cgroups holders contest
catalog demands progress figures recipe checks fits pick offers
building docker_words notebook slurm batch facts backend faults
layers written settings profile schema
allocation plan translate export identity moved saved leftovers cdi diagnosis
contexts glance host nvml nvidia hub streams terminal watching jupyter unreachable
engine cluster pull remote survey ports race foreground launch again move save trial
render cli
"""
# Those that meet the outside world; all others are pure, and tested without one.
OUTSIDE_WORLD = """
layers
contexts glance host nvml nvidia hub streams terminal watching jupyter unreachable
engine cluster pull remote survey ports race foreground launch again move save trial
render cli
"""
ROOMS, ACTING = GROUND_UP.split(), OUTSIDE_WORLD.split()
PURE = [room for room in ROOMS if room not in ACTING]
RECORDS_OF = {"layers"}  # an acting room whose records pure ones may know

DOORS = {
    "yaml": {"layers"},
    "docker": {"engine"},
    "pynvml": {"nvml"},
    "requests": {"engine"},
    "urllib3": {"engine"},
    "rich": {"render"},
    "click": {"cli"},
}
# Any module may make records of it; checking and telling what may be written is for these alone.
RECORDS = {"Struct", "structs", "field"}
BEYOND_RECORDS = {"settings", "schema"}

OUTSIDE = (
    "asyncio ctypes datetime fcntl getpass glob grp http importlib locale logging multiprocessing"
    " os platform pty pwd random resource secrets select selectors shutil signal socket ssl stat"
    " subprocess sys tempfile termios threading time tty urllib uuid"
)
OUTSIDE_OF_PATHS = (
    "chmod cwd exists expanduser glob home is_dir is_file iterdir lstat mkdir read_bytes read_text"
    " readlink rename resolve rglob samefile stat touch unlink write_bytes write_text"
)
EXCEPT = {
    ("catalog", "read_text"),  # its own data/cuda.json
    ("recipe", "read_text"),  # its own data/packages.json
    ("values", "expanduser"),  # ~ in a path is the caller's home
}


def module_of(path: Path) -> str:
    """The room a file belongs to: all of cli/ is one."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


FILES = sorted(SOURCE.rglob("*.py"))
PACKAGE = {"__init__", "__main__"}


def imports(tree: ast.AST) -> Iterator[str]:
    """The full name of every imported module, inside functions too; `gpubox.NAME` for our own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide what they name"
            if node.module == "gpubox":
                yield from (f"gpubox.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def own(names: Iterator[str]) -> set[str]:
    rooms = {path.name.removesuffix(".py") for path in SOURCE.iterdir()}
    parts = [name.split(".")[1:] for name in names if name.split(".")[0] == "gpubox"]
    return {part[0] if part and part[0] in rooms else "__init__" for part in parts}


def attributes(tree: ast.AST, *, of: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == of
    }


def calls(tree: ast.AST) -> set[str]:
    """All that is called: `stat` for a method, `open()` for a plain name."""
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    methods = {func.attr for func in called if isinstance(func, ast.Attribute)}
    return methods | {f"{func.id}()" for func in called if isinstance(func, ast.Name)}


def parsed(path: Path) -> ast.AST:
    return ast.parse(path.read_text("utf-8"))


def test_every_module_has_its_place() -> None:
    assert {module_of(path) for path in FILES} == {*ROOMS, *PACKAGE}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_knows_only_those_below_it(path: Path) -> None:
    room, known = module_of(path), own(imports(parsed(path))) - PACKAGE
    below = ROOMS[: ROOMS.index(room)] if room in ROOMS else []
    assert known - {*below, *(["cli"] if room in ("cli", "__main__") else [])} == set()
    if room in PURE:
        assert known & set(ACTING) <= RECORDS_OF


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_each_library_has_one_door(path: Path) -> None:
    tree, module = parsed(path), module_of(path)
    for name in imports(tree):
        library = name.split(".")[0]
        assert library in sys.stdlib_module_names | DOORS.keys() | {"gpubox", "msgspec"}, name
        assert module in DOORS.get(library, {module}), f"{name} comes in by {DOORS[library]}"
    if module not in BEYOND_RECORDS:
        assert attributes(tree, of="msgspec") <= RECORDS


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_imports_no_outside_world(module: str) -> None:
    tree = parsed(SOURCE / f"{module}.py")
    names = {name for name in imports(tree) if name != "os.path"}
    assert {name.split(".")[0] for name in names} & set(OUTSIDE.split()) == set()
    used = {(module, name) for name in calls(tree) & {*OUTSIDE_OF_PATHS.split(), "open()"}}
    assert used - EXCEPT == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_below_the_command_line_prints_or_exits(path: Path) -> None:
    module = module_of(path)
    if module == "cli":
        return
    tree = parsed(path)
    assert calls(tree) & {"print()", "input()", "exit()", "quit()", "SystemExit()"} == set()
    assert attributes(tree, of="sys") & {"exit"} == set()
    assert attributes(tree, of="os") & {"_exit", "abort"} == set()
    if module != "render":
        assert attributes(tree, of="sys") & {"stdin", "stdout", "stderr"} == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_opens_with_what_passes_through_it(path: Path) -> None:
    tree = parsed(path)
    assert isinstance(tree, ast.Module)
    text = ast.get_docstring(tree) or ""
    assert 1 <= len([line for line in text.splitlines() if line]) <= 4


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["pull", "--help"],
        ["gpus", "--help"],
        ["move", "--help"],
        ["save", "--help"],
        ["clean", "--help"],
        ["run", "--dry-run", "--gpus", "none", "cuda8-cudnn5"],
        ["completion", "bash"],
        ["completion", "fish", "gpubox run --gpus "],
        ["completion", "fish", "gpubox move "],
        ["export", "compose", "--gpus", "none", "cuda8-cudnn5"],
    ],
    ids=" ".join,
)
def test_what_needs_no_engine_loads_neither_docker_py_nor_rich(words: list[str]) -> None:
    program = (
        "import json, sys\n"
        "from gpubox.cli import invoke\n"
        f"code = invoke({words!r})\n"
        "print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    code, loaded = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    assert {"docker", "requests", "urllib3", "rich"} & set(loaded) == set()
