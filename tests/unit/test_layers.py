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

# From the ground up: each room knows only rooms before it. These are pure, and tested without an
# outside world, but for `layers`, which reads files, and `accounts`, which it asks whose they are:
# of `layers` the others know the records.
GROUND = """
errors figures values boxes.labels
gpus.claims boxes.box gpus.machine gpus.cgroups gpus.holders gpus.contest
images.catalog images.demands images.progress screen.bars screen.keys images.recipe
checks images.fits gpus.pick images.offers images.building
host.accounts profile.layers
profile.yaml_types profile.readers profile.settings profile.datasets profile.profile profile.config
profile.schema
plan.docker_words plan.notebook slurm.jobs slurm.batch plan.facts plan.backend
engine.faults engine.build_faults engine.archives
plan.allocation plan.environment plan.plan plan.translate plan.export plan.identity
boxes.inspection boxes.moved boxes.saved boxes.leftovers doctor.cdi
doctor.seen doctor.ways doctor.running doctor.diagnosis
"""
# These stand on that ground and meet the outside world.
ABOVE = """
engine.contexts engine.glance screen.standard screen.signals
host.caller host.processes host.engines host.paths gpus.nvml doctor.nvidia images.hub
engine.streams engine.unreachable screen.terminal screen.watching boxes.jupyter
engine.connection engine.images engine.containers engine.builds engine.processes engine.engine
slurm.commands images.pull images.registries gpus.survey gpus.race
boxes.ports boxes.foreground boxes.launch boxes.again boxes.move boxes.save doctor.trial
screen.render cli
"""
ROOMS = [*GROUND.split(), *ABOVE.split()]
PURE = [room for room in GROUND.split() if room not in ("profile.layers", "host.accounts")]

# A room, or a folder of rooms.
DOORS = {
    "yaml": {"profile.layers"},
    "docker": {"engine"},
    "pynvml": {"gpus.nvml"},
    "requests": {"engine"},
    "urllib3": {"engine"},
    "rich": {"screen.render"},
    "click": {"cli"},
}
# Any module may make records of it; checking and telling what may be written is for these alone.
RECORDS = {"Struct", "structs", "field"}
BEYOND_RECORDS = {"profile.readers", "profile.schema"}

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
    ("images.catalog", "read_text"),  # its own data/cuda.json
    ("images.recipe", "read_text"),  # its own data/packages.json
    ("values", "expanduser"),  # ~ in a path is the caller's home
}


def module_of(path: Path) -> str:
    """The room a file is, by its folder and name: all of cli/ is one, and no folder itself is."""
    *folders, name = path.relative_to(SOURCE).with_suffix("").parts
    if folders == ["cli"]:
        return "cli"
    return ".".join(folders if name == "__init__" else [*folders, name])


FILES = sorted(SOURCE.rglob("*.py"))
FOLDERS = {""} | {room.partition(".")[0] for room in ROOMS if "." in room}
PACKAGE = FOLDERS | {"__main__"}


def imports(tree: ast.AST) -> Iterator[str]:
    """The full name of all that is imported, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide what they name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(names: Iterator[str]) -> set[str]:
    """The rooms that are among these, whole or in part."""
    parts = [name.split(".")[1:] for name in names if name.split(".")[0] == "gpubox"]
    known = {*ROOMS, *PACKAGE}
    return {
        next(room for end in (3, 2, 1, 0) if (room := ".".join(part[:end])) in known)
        for part in parts
    }


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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_each_library_has_one_door(path: Path) -> None:
    tree, module = parsed(path), module_of(path)
    for name in imports(tree):
        library = name.split(".")[0]
        assert library in sys.stdlib_module_names | DOORS.keys() | {"gpubox", "msgspec"}, name
        doors = DOORS.get(library, {module})
        assert doors & {module, module.partition(".")[0]}, f"{name} comes in by {doors}"
    if module not in BEYOND_RECORDS:
        assert attributes(tree, of="msgspec") <= RECORDS


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_imports_no_outside_world(module: str) -> None:
    tree = parsed((SOURCE / module.replace(".", "/")).with_suffix(".py"))
    names = {name for name in imports(tree) if not name.startswith("os.path")}
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
    if module != "screen.render":
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
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    code, loaded = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    assert {"docker", "requests", "urllib3", "rich"} & set(loaded) == set()
