"""Mistakes with host paths, by root and by an ordinary user: the sentence, and nothing made.

One engine serves both users; what can be told is told before it is asked.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import docker
import pytest

from lab.engine import PrivateEngine
from lab.images import STAND_IN, build_stand_in
from lab.program import Gpubox
from lab.waiting import PATIENCE
from lab.workstation import PROFILE

UID, GROUP = "12345", "54321"
USERS = {
    "root": (),
    "somebody": ("setpriv", "--reuid", UID, "--regid", GROUP, "--clear-groups"),
}
Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def shared() -> Iterator[PrivateEngine]:
    with PrivateEngine(group=GROUP) as made:
        build_stand_in(made.host)
        yield made


@pytest.fixture(scope="module")
def place(shared: PrivateEngine) -> Iterator[Gpubox]:
    """A folder that everybody may look into, with something of each kind to stumble over."""
    with tempfile.TemporaryDirectory(prefix="paths") as folder:
        Path(folder).chmod(0o755)
        made = Gpubox(Path(folder), shared.env)
        here = made.cwd
        for name in ("data", "with space", "ünï", "a:b", "closed/inner", "dark"):
            (here / name).mkdir(parents=True)
            (here / name / "train").write_text(f"{name}\n")
        (made.home / "notes").write_text("notes\n")
        (here / "file").write_text("file\n")
        (here / "train.py").write_text("print()\n")
        for name, leads in {"link": "data", "dangling": "gone", "loop": "loop"}.items():
            (here / name).symlink_to(leads)
        (here / "closed").chmod(0o700)
        (here / "dark").chmod(0o711)
        yield made


class Person:
    """One of the users in that folder."""

    def __init__(self, name: str, gpubox: Gpubox) -> None:
        self.name, self.gpubox, self.here = name, gpubox, gpubox.cwd

    def __call__(self, *words: str) -> Done:
        return self.starts(*USERS[self.name], self.gpubox.program, *words)

    def starts(self, *command: str | Path) -> Done:
        return subprocess.run(
            command,
            env=self.gpubox.env,
            cwd=self.here,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def is_refused(
        self, words: tuple[str, ...], problem: str, hint: str = "", code: int = 125
    ) -> None:
        """Word for word, with the path's own part as {here}; nothing is made and none started."""
        before = sorted(self.here.rglob("*"))
        done = self(*words)
        said = done.stderr.replace(str(self.here), "{here}").splitlines()
        assert said == [f"gpubox: {problem}", *([f"  {hint}"] if hint else [])]
        assert (done.returncode, done.stdout) == (code, "")
        assert sorted(self.here.rglob("*")) == before


@pytest.fixture(params=USERS)
def person(
    request: pytest.FixtureRequest, place: Gpubox, shared: PrivateEngine
) -> Iterator[Person]:
    yield Person(request.param, place)
    (place.cwd / "gpubox.yaml").unlink(missing_ok=True)
    client = docker.DockerClient(base_url=shared.host)
    left = client.containers.list(all=True)
    for box in left:
        box.remove(force=True)
    client.close()
    assert left == []


def by(way: str, person: Person, path: str) -> tuple[str, ...]:
    """The words that mount `path` on /data in this way."""
    if way == "--dataset":
        text = json.dumps({"datasets": {"it": f"{path}:/data"}})
        (person.here / "gpubox.yaml").write_text(text)
        return ("run", "--gpus", "none", "--dataset", "it", PROFILE, "true")
    if way == "mount":
        return ("mount", "--gpus", "none", f"{path}:/data", PROFILE, "true")
    return ("run", "--gpus", "none", way, f"{path}:/data", PROFILE, "true")


# Mistakes --------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A path, and what is said of it whichever of the `ways` names it; {here} is the folder."""

    path: str
    problem: str
    hint: str = ""
    ways: str = "mount --dataset -v --workspace"

    def __str__(self) -> str:
        return self.path


FOR_BOTH = (
    Row(
        "{here}/dato",
        "no folder {here}/dato on this machine to mount on /data",
        "did you mean {here}/data?",
    ),
    Row(
        "./with spaces/",
        "no folder {here}/with spaces on this machine to mount on /data",
        "did you mean {here}/with space?",
    ),
    Row(
        "./unï/x",
        "no folder {here}/unï/x on this machine to mount on /data",
        "did you mean {here}/ünï?",
    ),
    Row(
        "~/zzz",
        "no folder {home}/zzz on this machine to mount on /data",
        "nothing in {home} is named zzz",
        "mount --workspace",
    ),
    Row(
        "./file/",
        "{here}/file is a file, and a workspace is a folder",
        "its folder is {here}",
        ways="--workspace",
    ),
    Row(
        "./file/x",
        "no folder {here}/file/x on this machine to mount on /data",
        "{here}/file is a file",
    ),
    Row(
        "./dangling",
        "{here}/dangling leads by a symbolic link to {here}/gone, and that is not there",
        "nothing in {here} is named gone",
    ),
    Row(
        "./loop/x",
        "{here}/loop is a symbolic link that leads back to itself",
        "ls -l {here}/loop shows it",
    ),
    Row(
        "{socket}",
        "{socket} is the engine's socket: who has it in a box is root on this machine,"
        " read-only mount or not",
        "leave it out, or go past this check: --ignore socket",
        "mount --dataset -v",
    ),
    Row(
        "/",
        "/ holds the engine's socket, {socket}: who has it in a box is root on this machine,"
        " read-only mount or not",
        "leave it out, or go past this check: --ignore socket",
        "mount --dataset -v",
    ),
)
FOR_SOMEBODY = (
    Row(
        "./closed/inner",
        "you may not look into {here}/closed, so {here}/closed/inner cannot be mounted",
        "it belongs to root (drwx------)",
    ),
    Row(
        "./dark",
        "you may not read {here}/dark, which is to be mounted on /data",
        "it belongs to root (drwx--x--x)",
        "mount --dataset --workspace",
    ),
    Row(
        "./data:/x:rw",
        "you may not write in {here}/data, which is to be mounted on /x with :rw",
        "it belongs to root (drwxr-xr-x)",
        "mount",
    ),
)


def check(person: Person, row: Row, shared: PrivateEngine) -> None:
    facts = {"{home}": str(person.gpubox.home), "{socket}": shared.host.removeprefix("unix://")}

    def filled(text: str) -> str:
        for name, value in facts.items():
            text = text.replace(name, value)
        return text

    path = filled(row.path).replace("{here}", str(person.here))
    for way in row.ways.split():
        words = by(way, person, path)
        if path.endswith(":rw"):
            words = (*words[:3], path, PROFILE, "true")
        person.is_refused(words, filled(row.problem), filled(row.hint))


@pytest.mark.parametrize("row", FOR_BOTH, ids=str)
def test_a_path_that_cannot_be_mounted_is_told_before_anything_starts(
    person: Person, shared: PrivateEngine, row: Row
) -> None:
    check(person, row, shared)


@pytest.mark.parametrize("row", FOR_SOMEBODY, ids=str)
@pytest.mark.parametrize("person", ["somebody"], indirect=True)
def test_what_the_caller_may_not_do_the_engines_root_does_not_do_for_them(
    person: Person, shared: PrivateEngine, row: Row
) -> None:
    check(person, row, shared)


LINK = "a path with a colon in it needs a symbolic link without one (ln -s)"
SPELLINGS = (
    (
        "mount ./a:b:/data",
        "'./a:b:/data' is not HOST_PATH:BOX_PATH[:rw]; " + LINK,
    ),
    (
        "run -v ./a:b:/data",
        "command line: --volume: './a:b:/data' is not SOURCE:TARGET[:MODES]; a path with a colon in"
        " it is written {type: bind, source: ..., target: ...} in the YAML",
    ),
    (
        "run --workspace ./a:b",
        "command line: --workspace: './a:b' is not DIR[:BOX_PATH]; " + LINK,
    ),
    ("mount data:/", "a mount over / would hide the whole box"),
    ("run -v ./data:/.", "command line: --volume: a mount over / would hide the whole box"),
    ("run --workspace .:/", "command line: --workspace: a mount over / would hide the whole box"),
    (
        "run --workspace /",
        "command line: --workspace: the whole machine is no workspace; name a folder",
    ),
    ("mount ~nobody-here/x:/data", "'~nobody-here/x': there is no such user's home"),
    ("mount data:data", "'data:data' is neither HOST_PATH:BOX_PATH nor a dataset's name"),
    ("run -v ./data:data", "command line: --volume: 'data' is not an absolute path in the box"),
    ("run -v ./data:/a/..", "command line: --volume: '/a/..' is not an absolute path in the box"),
    ("mount ./data:/m link:/m/", "command line: --volume: /m stands here twice; keep one"),
    ("run -v ./data:/m -v ./link:/m/", "command line: --volume: /m stands here twice; keep one"),
)  # fmt: skip


@pytest.mark.parametrize(("words", "problem"), SPELLINGS, ids=lambda text: text)
@pytest.mark.parametrize("person", ["somebody"], indirect=True)
def test_a_mount_that_means_nothing_is_told_as_it_was_typed(
    person: Person, words: str, problem: str
) -> None:
    hint = "gpubox mount /data/imagenet:/data" if "neither" in problem else ""
    person.is_refused((*words.split(), PROFILE), problem, hint)


@pytest.mark.parametrize("person", ["somebody"], indirect=True)
def test_datasets_are_told_apart_and_named_with_their_file(person: Person) -> None:
    file = person.here / "gpubox.yaml"
    profile = f"profiles: {{mine: {{extends: {PROFILE}, datasets: [gone]}}}}\n"
    file.write_text(f"datasets:\n  odd: ./a:b:/x\n{profile}")
    person.is_refused(
        ("run", "mine"),
        "gpubox.yaml:2: datasets.odd: './a:b:/x' is no HOST_PATH[:BOX_PATH][:rw]; " + LINK,
    )
    file.write_text(f"datasets: {{one: ./data:/d, two: ./link:/d/, gone: ./gone}}\n{profile}")
    person.is_refused(
        ("run", "--dataset", "one", "--dataset", "two", PROFILE),
        "command line: --dataset: {here}/data and {here}/link are both mounted on /d",
    )
    person.is_refused(
        ("run", "mine"),
        "gpubox.yaml:2: datasets: no folder {here}/gone on this machine to mount on /data/gone",
        "nothing in {here} is named gone",
    )
    typed = ("mount", "./data", PROFILE)
    person.is_refused(
        typed,
        "'./data' is neither HOST_PATH:BOX_PATH nor a dataset's name",
        "gpubox mount ./data:/data",
    )


@pytest.mark.parametrize("person", ["root"], indirect=True)
def test_a_file_system_that_is_mounted_read_only_cannot_be_written(person: Person) -> None:
    script = 'mount -t tmpfs -o ro tmpfs data && exec "$0" mount ./data:/x:rw "$1"'
    command = ("unshare", "--mount", "sh", "-c", script)
    done = person.starts(*command, person.gpubox.program, PROFILE)
    assert done.stderr == (
        f"gpubox: you may not write in {person.here}/data, which is to be mounted on /x with :rw\n"
        "  its file system is mounted read-only\n"
    )


@pytest.mark.parametrize("person", ["somebody"], indirect=True)
def test_a_home_or_a_folder_that_is_closed_to_the_caller_is_told(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = person.here / "closed"
    with monkeypatch.context() as patch:
        patch.setattr(person, "here", closed / "inner")
        assert "gpubox mount /data/imagenet:/data" in person("mount", "./train").stderr
        done = person("run", "--dry-run", "--gpus", "none", PROFILE)
        assert done.returncode == 0
        assert f"warning: {closed}/inner is closed to you, so no gpubox.yaml is used" in done.stderr
    with monkeypatch.context() as patch:
        patch.setitem(person.gpubox.env, "DOCKER_HOST", f"unix://{closed}/inner/train")
        done = person("mount", "./data:/data", PROFILE)
        assert "no permission to use the engine" in done.stderr
    monkeypatch.setitem(person.gpubox.env, "XDG_CONFIG_HOME", str(closed))
    done = person("run", "--dry-run", "--gpus", "none", PROFILE)
    assert done.returncode == 125
    assert done.stderr == (
        f"gpubox: {closed}/gpubox/config.yaml: permission denied\n"
        f"  HOME is {person.gpubox.home}; sudo -H, or su -, sets it to the user's own\n"
    )


# What is right ---------------------------------------------------------------------------------


def test_every_other_spelling_of_a_folder_is_mounted(person: Person) -> None:
    datasets = {"spaced": "./with space", "linked": "./link/:/linked/"}
    (person.here / "gpubox.yaml").write_text(json.dumps({"datasets": datasets}))
    paths = {
        "/linked/train": "data",
        "/data/spaced/train": "with space",
        "/workspace/train": "ünï",
        "/relative/train": "data",
        "/slash/train": "with space",
        "/home/notes": "notes",
        "/one": "file",
        "/plain/train": "ünï",
    }
    closed = ["-v", "./dark:/dark:ro"] if person.name == "somebody" else ["./closed/inner:/dark"]
    options = ["--dataset", "linked", "--workspace", "./ünï", "-v", f"{person.here}/ünï/:/plain"]
    specs = [
        "spaced",
        "data:/relative",
        "./with space/:/slash/",
        "~/notes:/home/notes",
        "file:/one",
    ]
    command = ["cat", *paths, "/dark/train"]
    done = person("mount", "--gpus", "none", "--rm", *options, *closed, *specs, PROFILE, *command)
    assert done.returncode == 0, done.stderr
    last = "dark" if person.name == "somebody" else "closed/inner"
    assert done.stdout.splitlines() == [*paths.values(), last]


def test_the_socket_goes_into_a_box_for_who_goes_past_the_check(
    person: Person, shared: PrivateEngine
) -> None:
    socket = shared.host.removeprefix("unix://")
    words = ("run", "--rm", "--gpus", "none", "--ignore", "socket", "-v", f"{socket}:/s")
    done = person(*words, PROFILE, "test", "-S", "/s")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("person", ["root"], indirect=True)
def test_a_folder_closed_to_a_squashed_root_is_warned_of_and_mounted(
    person: Person, tmp_path: Path
) -> None:
    """The machine's own table of mounts, in which that folder is on NFS."""
    closed = person.here / "closed"
    table = tmp_path / "mountinfo"
    line = f"9999 1 0:99 / {closed} rw,relatime - nfs4 nas:/pool rw,vers=4.2\n"
    table.write_text(Path("/proc/self/mountinfo").read_text() + line)
    script = 'mount --bind "$0" /proc/$$/mountinfo && exec "$@"'
    said = {}
    for more in ((), ("--ignore", "root-squash")):
        spec = ("--gpus", "none", "--rm", *more, "./closed/inner:/data", PROFILE, "true")
        done = subprocess.run(
            [
                "unshare",
                "--mount",
                "sh",
                "-c",
                script,
                table,
                person.gpubox.program,
                "mount",
                *spec,
            ],
            env=person.gpubox.env,
            cwd=person.here,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said[more] = done.stderr.splitlines()
    mounting = f"mounting {closed}/inner on /data, read-only (add :rw to write)"
    assert said["--ignore", "root-squash"] == [mounting]
    assert said[()] == [
        f"warning: {closed} is on nfs4 and closed to others, so the engine, which is root, may not"
        f" pass it where root is squashed; chmod o+x {closed}",
        mounting,
    ]


# A program that is here ------------------------------------------------------------------------


@pytest.mark.parametrize("person", ["root"], indirect=True)
def test_a_script_that_is_here_and_not_in_the_box_is_led_there(person: Person) -> None:
    run = ("run", "--gpus", "none", "--no-init")
    nothing = f"there is no program 'train.py' in {STAND_IN}"
    blind = "{} is here, but the box sees nothing of this folder: add --workspace ."
    person.is_refused((*run, PROFILE, "train.py"), nothing, blind.format("train.py"), 127)
    dotted = f"there is no program './train.py' in {STAND_IN}"
    words = (*run, "--init", "-d", PROFILE, "./train.py")
    person.is_refused(words, dotted, blind.format("./train.py"), 127)
    there = "train.py is here and in /workspace of the box, where the command starts"
    words = (*run, "--workspace", ".", PROFILE, "train.py")
    person.is_refused(words, nothing, f"{there}: write python train.py", 127)
    host = f"it is on this machine, but not in {STAND_IN}; gpubox profiles lists other images"
    person.is_refused(
        (*run, PROFILE, "bash"), f"there is no program 'bash' in {STAND_IN}", host, 127
    )
    far = f"there is no program 'gone.py' in {STAND_IN}"
    shown = f"gpubox run --gpus none {STAND_IN} ls /bin /usr/bin shows some that there are"
    person.is_refused((*run, PROFILE, "gone.py"), far, shown, 127)


# Shared memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("person", ["root"], indirect=True)
def test_a_bus_error_names_the_shared_memory_and_its_size(person: Person) -> None:
    full = ("sh", "-c", "kill -BUS $$")
    for options, said in {
        ("--shm-size", "64m"): "its 64m of shared memory probably ran out;"
        " --shm-size 128m gives more",
        ("--ipc", "host"): "its shared memory is that of --ipc host, and is probably full",
    }.items():
        done = person("run", "--rm", "--gpus", "none", *options, PROFILE, *full)
        assert done.returncode == 135
        assert done.stderr == f"warning: cuda8-cudnn5-root ended on a bus error: {said}\n"
