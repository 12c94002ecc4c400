"""Who has which GPU: real containers and real processes, on a machine whose GPUs are simulated.

The numbers of the processes go into the simulated driver's list, so that gpubox has to find their
containers by itself.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from lab.engine import PrivateEngine
from lab.images import STAND_IN, build_stand_in
from lab.nvml import GIB, GPU_IS_LOST, MACHINES, Machine, Process
from lab.program import Gpubox
from lab.tmux import Window, window
from lab.waiting import wait_until
from lab.workstation import (
    MACHINE,
    PROFILE,
    SOMEBODY,
    UUIDS,
    Workstation,
    outsider,
    program_of,
    using,
)

ROW = [
    f"{index}    {card.uuid[:12]}  GeForce GTX 1080 Ti" for index, card in enumerate(MACHINE.cards)
]
HEAD = "GPU  UUID          MODEL                MEMORY        UTIL  TEMP  STATE"
CTRL_C, CTRL_Z = "\x03", "\x1a"


def given(engine: PrivateEngine, index: int) -> tuple[str, str]:
    """How docker gives that engine's GPU."""
    if engine.kind == "cdi":
        return ("--device", f"nvidia.com/gpu={index}")
    return ("--gpus", f"device={index}")


# Joining ---------------------------------------------------------------------------------------


def test_a_table_joins_gpu_process_container_and_person(
    engine: PrivateEngine, lab: Workstation
) -> None:
    mine = lab.box("--gpus", "device=0")
    theirs = lab.box("--gpus", "device=1", uid=SOMEBODY)
    container = lab.container("web", *given(engine, 2))
    with outsider("sleep", "600", uid=SOMEBODY) as pid:
        lab.on(using(MACHINE, lab.pid(mine), None, lab.pid(container), pid))
        done = lab()
    assert (done.returncode, done.stderr) == (0, b"")
    outside = f"used outside gpubox by nobody, pid {pid}, sleep 600"
    wide = len(outside)
    rows = [
        f"{HEAD}{' ' * (wide - 5)}  BOX                  PROFILE",
        f"{ROW[0]}  2.0/11.0 GiB  90%   40C   {'mine, working':{wide}}  {mine:19}  {PROFILE}",
        f"{ROW[1]}  0.0/11.0 GiB  0%    40C   {'held by nobody, idle now':{wide}}  {theirs:19}"
        f"  {PROFILE}",
        f"{ROW[2]}  2.0/11.0 GiB  90%   40C   {'held by container web, working':{wide}}  web",
        f"{ROW[3]}  2.0/11.0 GiB  90%   40C   {outside}",
    ]
    assert done.stdout.decode().splitlines() == rows


def test_json_is_a_list_of_objects_of_one_shape(engine: PrivateEngine, lab: Workstation) -> None:
    mine = lab.box("--gpus", "device=0")
    pid = lab.pid(mine)
    lab.on(using(MACHINE, pid))
    first, *others = lab.json()
    identity = lab.docker("inspect", "-f", "{{.Id}}", mine)
    assert first == {
        "index": "0",
        "uuid": UUIDS[0],
        "name": "NVIDIA GeForce GTX 1080 Ti",
        "memory": 11 * GIB,
        "used": 2 * GIB,
        "utilization": 90,
        "temperature": 40,
        "divided": False,
        "state": "mine",
        "working": True,
        "sentence": "mine, working",
        "trouble": "",
        "containers": [
            {"id": identity, "name": mine, "box": True, "owner": "root", "profile": PROFILE}
        ],
        "processes": [
            {
                "pid": pid,
                "memory": 2 * GIB,
                "user": "root",
                "command": "sleep 600",
                "container": identity,
            }
        ],
    }
    assert [list(row) for row in others] == [list(first)] * 3
    assert [(row["uuid"], row["state"], row["containers"], row["processes"]) for row in others] == [
        (uuid, "free", [], []) for uuid in UUIDS[1:]
    ]


def test_only_what_may_go_on_holds_a_gpu(engine: PrivateEngine, lab: Workstation) -> None:
    ended, paused, comes_back = (
        lab.box("--gpus", f"device={index}", *more)
        for index, more in enumerate(((), (), ("--restart", "unless-stopped")))
    )
    lab.container("once", *given(engine, 3))
    lab.docker("stop", "-t", "0", ended, comes_back, "once")
    lab.docker("pause", paused)
    lab.docker("create", "--name", "made", *given(engine, 0), STAND_IN)
    assert lab.states() == ["free", "mine, idle now", "mine, idle now", "free"]
    lab.docker("start", ended, "once")
    assert lab.states() == [*["mine, idle now"] * 3, "held by container once, idle now"]


def test_whoever_is_privileged_has_all(cdi_engine: PrivateEngine, lab: Workstation) -> None:
    lab.box("--gpus", "device=1", uid=SOMEBODY)
    container = lab.container("prober", "--privileged")
    lab.on(using(MACHINE, None, None, lab.pid(container)))
    prober = "held by container prober"
    assert lab.states() == [
        f"{prober}, idle now",
        f"{prober} and nobody, idle now",
        f"{prober}, working",
        f"{prober}, idle now",
    ]


def test_a_box_that_computes_where_it_claims_nothing_is_seen(lab: Workstation) -> None:
    mine = lab.box("--gpus", "none")
    lab.on(using(MACHINE, lab.pid(mine)))
    assert lab.states() == ["mine, working", *["free"] * 3]


def test_all_and_several_are_held_by_all_who_have_them(lab: Workstation) -> None:
    lab.box("--gpus", "all", "--share")
    lab.box("--gpus", UUIDS[2], "--share", uid=SOMEBODY)
    alone = "mine, idle now"
    assert lab.states() == [alone, alone, "held by nobody and root, idle now", alone]


def test_a_process_that_ends_or_hides_is_only_not_known(lab: Workstation) -> None:
    with outsider("sleep", "600") as gone:
        pass
    process = subprocess.Popen(["true"])
    try:
        wait_until(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "Z")
        lab.on(using(MACHINE, gone, process.pid))
        assert lab.states() == [
            f"used by pid {gone}, which is not seen here",
            f"used outside gpubox by root, pid {process.pid}, [true]",
            *["free"] * 2,
        ]
    finally:
        process.wait()


def test_a_number_is_of_this_machine_and_not_of_a_container(lab: Workstation) -> None:
    """Within a namespace of processes the same number is another one."""
    lab.on(using(MACHINE, 1))
    apart = ("unshare", "--pid", "--fork", "--mount-proc", lab.gpubox.program, "gpus", "--json")
    done = subprocess.run(apart, env=lab.gpubox.env, capture_output=True, check=True)
    first = json.loads(done.stdout)[0]
    assert first["sentence"] == "used by pid 1, which is not seen here"


def test_a_command_cannot_write_on_the_screen(lab: Workstation) -> None:
    script = "exec -a 'py\x1b[31mthon\n' sleep 600"
    with subprocess.Popen(["bash", "-c", script]) as process:
        try:
            wait_until(lambda: "thon" in "".join(program_of(process.pid)[:1]))
            lab.on(using(MACHINE, process.pid))
            out = lab().stdout.decode()
        finally:
            process.kill()
    assert f"pid {process.pid}, py [31mthon  600\n" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_letters_that_a_screen_lacks_are_no_accident(
    lab: Workstation, tmp_path: Path, encoding: str
) -> None:
    program = tmp_path / "tränen→"
    shutil.copy("/bin/sleep", program)
    with outsider(program, "600") as pid:
        lab.on(using(MACHINE, pid))
        done = lab(env={"PYTHONIOENCODING": encoding})
        as_json = lab("--json", env={"PYTHONIOENCODING": encoding})
    assert json.loads(as_json.stdout)[0]["processes"][0]["command"] == f"{program} 600"
    assert (done.returncode, done.stderr) == (0, b"")
    said = {"ascii": b"tr?nen?", "latin-1": b"tr\xe4nen?"}[encoding]
    assert f"pid {pid}, ".encode() + said + b" 600\n" in done.stdout


# Containers that others started ------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_runtimes() -> Iterator[PrivateEngine]:
    """An engine with NVIDIA's runtime beside its own: runc by that name, which gives no GPU."""
    with PrivateEngine() as made:
        made.kill()
        runtimes = {"nvidia": {"path": str(made.folder / "bin/runc")}}
        (made.folder / "daemon.json").write_text(json.dumps({"runtimes": runtimes}))
        made.start()
        build_stand_in(made.host)
        yield made


@pytest.fixture
def beside(
    with_runtimes: PrivateEngine, tmp_path: Path, nvml: Callable[[Machine], dict[str, str]]
) -> Iterator[Workstation]:
    made = Workstation(with_runtimes, Gpubox(tmp_path, with_runtimes.env), nvml)
    yield made
    if names := made.docker("ps", "-aq").split():
        made.docker("rm", "-f", *names)


WEB = "held by container web, idle now"


@pytest.mark.parametrize(
    ("words", "held"),
    [
        (("--gpus", "1"), {0}),  # Docker's count is of the first
        (("--gpus", "2"), {0, 1}),
        (("--gpus", "all"), {0, 1, 2, 3}),
        (("--gpus", '"device=1,3"'), {1, 3}),
        (("--gpus", f"device={UUIDS[2]}"), {2}),
        (("--gpus", f"device={UUIDS[2]}", "-e", "NVIDIA_VISIBLE_DEVICES=0"), {2}),
        (("--runtime", "nvidia", "-e", "NVIDIA_VISIBLE_DEVICES=1"), {1}),
        (("--runtime", "nvidia", "-e", f"NVIDIA_VISIBLE_DEVICES=0,{UUIDS[3][:12]}"), {0, 3}),
        (("--runtime", "nvidia", "-e", "NVIDIA_VISIBLE_DEVICES=nvidia.com/gpu=2"), {2}),
        (("--runtime", "nvidia", "-e", "NVIDIA_VISIBLE_DEVICES=void"), set()),
        (("--runtime", "nvidia", "-e", "NVIDIA_VISIBLE_DEVICES=none"), set()),
        (("-e", "NVIDIA_VISIBLE_DEVICES=1"), set()),  # without the runtime nobody reads it
        ((), set()),
    ],
    ids=str,
)
def test_what_docker_gave_a_container_is_held_by_it(
    beside: Workstation, words: tuple[str, ...], held: set[int]
) -> None:
    beside.container("web", *words)
    assert beside.states() == [WEB if index in held else "free" for index in range(4)]


def test_an_engine_whose_default_runtime_is_nvidias_gives_what_the_variable_says(
    beside: Workstation,
) -> None:
    config = beside.engine.folder / "daemon.json"
    before = config.read_text()
    config.write_text(json.dumps(json.loads(before) | {"default-runtime": "nvidia"}))
    try:
        beside.engine.restart()
        beside.container("web", "-e", "NVIDIA_VISIBLE_DEVICES=3")
        assert beside.states() == ["free", "free", "free", WEB]
    finally:
        config.write_text(before)
        beside.engine.restart()


def test_a_mig_instance_and_its_gpu_overlap_and_two_instances_do_not(beside: Workstation) -> None:
    machine = MACHINES["a100-mig-535"]
    migs = machine.cards[0].migs
    visible = ("--runtime", "nvidia", "-e")
    name = beside.container("web", *visible, f"NVIDIA_VISIBLE_DEVICES={migs[1].uuid}")
    beside.container("other", *visible, "NVIDIA_VISIBLE_DEVICES=0:2")
    work = Process(beside.pid(name), 3 * GIB, instance=migs[1].instance)
    beside.on(machine.with_card(0, used=3 * GIB, processes=(work,)))
    rows = beside.json()
    assert [(row["index"], row["uuid"], row["memory"], row["sentence"]) for row in rows] == [
        (
            "0",
            machine.cards[0].uuid,
            40 * GIB,
            "held by container other and container web, working",
        ),
        ("0:0", migs[0].uuid, 20 * GIB, "free"),
        ("0:1", migs[1].uuid, 5 * GIB, "held by container web, working"),
        ("0:2", migs[2].uuid, 5 * GIB, "held by container other, idle now"),
    ]
    models = [line[19:41].rstrip() for line in beside().stdout.decode().splitlines()[1:]]
    assert models == ["A100-SXM4-40GB (MIG)", "  MIG 3g.20gb", "  MIG 1g.5gb", "  MIG 1g.5gb"]


def test_podmans_containers_are_found_by_their_processes(
    podman: PrivateEngine, lab: Workstation
) -> None:
    mine = lab.box("--gpus", "none")
    theirs = lab.box("--gpus", "none", uid=SOMEBODY)
    lab.on(using(MACHINE, lab.pid(mine), lab.pid(theirs)))
    assert lab.states() == ["mine, working", "held by nobody, working", *["free"] * 2]


# What cannot be known ----------------------------------------------------------------------------

NO_DRIVER = "this machine has no NVIDIA driver: there is no libnvidia-ml.so.1"
NO_ENGINE = "only processes are seen, not who was given a GPU: "


def test_without_a_driver_what_containers_were_given_is_all(
    engine: PrivateEngine, gpubox: Gpubox, nvml: Callable[[Machine], dict[str, str]]
) -> None:
    lab = Workstation(engine, gpubox, nvml)
    del gpubox.env["LD_LIBRARY_PATH"]
    lab.box("--gpus", "device=1,0", "--name", "both")
    lab.box("--gpus", UUIDS[3], "--name", "one", uid=SOMEBODY)
    done = lab()
    assert done.returncode == 0
    assert done.stderr.decode() == f"only what containers were given is known: {NO_DRIVER}\n"
    assert done.stdout.decode().splitlines() == [
        "GPU  UUID          STATE           BOX   PROFILE",
        f"0                  mine            both  {PROFILE}",
        f"1                  mine            both  {PROFILE}",
        f"     GPU-bba33432  held by nobody  one   {PROFILE}",
    ]


def test_without_an_engine_only_processes_are_told(lab: Workstation, tmp_path: Path) -> None:
    mine = lab.box("--gpus", "device=0")
    identity = lab.docker("inspect", "-f", "{{.Id}}", mine)
    pid = lab.pid(mine)
    with outsider("sleep", "600") as other:
        lab.on(using(MACHINE, pid, other))
        done = lab("--json", env={"DOCKER_HOST": f"unix://{tmp_path}/none"})
    assert done.returncode == 0
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"{NO_ENGINE}no engine at unix://{tmp_path}/none (DOCKER_HOST)")
    assert [row["sentence"] for row in json.loads(done.stdout)] == [
        f"used in the container {identity[:12]} by root, pid {pid}, sleep 600",
        f"used outside gpubox by root, pid {other}, sleep 600",
        *["no process"] * 2,
    ]


def test_without_driver_and_engine_there_is_nothing_to_tell(gpubox: Gpubox, tmp_path: Path) -> None:
    done = gpubox("gpus", env={"DOCKER_HOST": f"unix://{tmp_path}/none"})
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == (
        f"gpubox: no engine at unix://{tmp_path}/none (DOCKER_HOST): Docker is not installed, or"
        " not running\n  sudo systemctl start docker; gpubox doctor tells more\n"
        f"gpubox: {NO_DRIVER}\n  install the driver, until nvidia-smi lists the GPUs\n"
    )


def test_nothing_of_this_machine_is_taken_for_another_ones(
    tmp_path: Path, nvml: Callable[[Machine], dict[str, str]]
) -> None:
    with PrivateEngine(network="tcp") as engine:
        build_stand_in(engine.host)
        lab = Workstation(engine, Gpubox(tmp_path, engine.network_env), nvml)
        lab.on(using(MACHINE, 1, 1, 1, 1))
        lab.box("--gpus", "device=1")
        done = lab("--json")
        assert done.returncode == 0
        assert done.stderr.decode() == (
            "only what containers were given is known:"
            f" {engine.network_host} may be another machine\n"
        )
        assert [(row["index"], row["sentence"]) for row in json.loads(done.stdout)] == [
            ("1", "mine")
        ]


def test_another_engine_of_somebodys_is_seen_by_its_processes_alone(
    stable_engine: PrivateEngine, engines: Any, lab: Workstation, tmp_path: Path
) -> None:
    other = Workstation(
        engines.of("cdi"), Gpubox(tmp_path / "other", engines.of("cdi").env), lambda _: {}
    )
    container = other.container("web", *given(other.engine, 2))
    identity = other.docker("inspect", "-f", "{{.Id}}", container)
    pid = other.pid(container)
    with TemporaryDirectory() as folder:  # that somebody may look into
        rootless = Path(folder, "dockerd")
        shutil.copy("/bin/sleep", rootless)
        Path(folder).chmod(0o755)
        rootless.chmod(0o755)
        with outsider(rootless, "600", uid=SOMEBODY):
            lab.on(using(MACHINE, None, None, pid))
            done = lab("--json")
    assert done.returncode == 0
    assert done.stderr.decode() == (
        "nobody runs a Docker Engine of their own: what its containers were given is not known,"
        " only their processes are seen\n"
    )
    assert [row["sentence"] for row in json.loads(done.stdout)] == [
        *["free"] * 2,
        f"used in a container of another engine, {identity[:12]}, by root, pid {pid}, sleep 600",
        "free",
    ]


def test_a_gpu_that_is_lost_keeps_its_row_and_its_holder(lab: Workstation) -> None:
    lab.box("--gpus", "device=1")
    lab.box("--gpus", "device=3")
    ill = MACHINE
    for index in (1, 2):
        ill = ill.card_failing(index, "*", GPU_IS_LOST)
    lab.on(replace(ill, cards=ill.cards[:3]))
    lost = "GPU is lost"
    assert [(row["index"], row["sentence"]) for row in lab.json()] == [
        ("0", "free"),
        ("1", f"not known: {lost}"),  # nor its UUID, by which its box has it
        ("2", f"not known: {lost}"),
        *[("", "mine; the driver lists no such GPU")] * 2,
    ]


def test_a_machine_without_gpus_says_so(lab: Workstation) -> None:
    lab.on(replace(MACHINE, cards=()))
    done = lab()
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"this machine has no GPU\n"
    assert lab("--json").stdout == b"[]\n"
    with at_window(lab) as person:
        person.type("gpubox gpus --watch\r")
        lines = person.fulfils(lambda lines: footer(lines) != "", "a footer")
        assert [line for line in lines if line] == ["this machine has no GPU", footer(lines)]
        person.type("q")
        person.shows("[0]$")


def test_a_context_that_does_not_exist_is_no_reason_to_ask_this_machine(lab: Workstation) -> None:
    del lab.gpubox.env["DOCKER_HOST"]
    done = lab(env={"DOCKER_CONTEXT": "nope"})
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == (
        "gpubox: DOCKER_CONTEXT names the context 'nope', and there is none\n"
        "  docker context ls shows the contexts, docker context use default leaves them\n"
    )


# Watching ----------------------------------------------------------------------------------------


@contextmanager
def at_window(lab: Workstation) -> Iterator[Window]:
    env = lab.gpubox.env | {"PATH": f"{lab.gpubox.program.parent}:{lab.gpubox.env['PATH']}"}
    with window(lab.gpubox.home.parent / "window", env, lab.gpubox.cwd) as made:
        made.shows("[0]$")
        yield made


def states(lines: list[str]) -> list[str]:
    return [line.rpartition("GiB  ")[2].lstrip("0123456789%C ") for line in lines if "GiB" in line]


def footer(lines: list[str]) -> str:
    return next((line for line in lines if line.endswith("; q ends it")), "")


def test_a_watched_table_changes_in_place_and_leaves_the_terminal_as_it_was(
    lab: Workstation,
) -> None:
    with at_window(lab) as person:
        person.type("stty -a >before; gpubox gpus --watch; echo left with $?; stty -a >after\r")
        person.fulfils(lambda lines: states(lines) == ["free"] * 4, "free GPUs")
        assert person.look().endswith("second screen: 1\n")
        first = footer(person.lines())
        lab.box("--gpus", "device=2")
        now = ["free", "free", "mine, idle now", "free"]
        person.fulfils(lambda lines: [it.split("  ")[0] for it in states(lines)] == now, "a box")
        person.fulfils(lambda lines: footer(lines) not in ("", first), "a later time")
        person.type("keys that mean nothing")
        with outsider("sleep", "600") as pid:
            lab.on(using(MACHINE, pid))
            told = f"by root, pid {pid}, sleep"  # on two lines, if the number is a long one
            person.fulfils(lambda lines: told in " ".join(" ".join(lines).split()), "a process")
        assert not any("keys" in line for line in person.lines())
        person.type(CTRL_C)
        person.shows("left with 0")
        person.shows("[0]$")
        assert person.look().endswith("second screen: 0\n")
        person.type("echo sa''ne\r")
        person.shows("sane")
        assert person.cursor_is_seen()
    before, after = ((lab.gpubox.cwd / name).read_text() for name in ("before", "after"))
    assert before == after


def test_a_watched_table_keeps_to_the_window_and_goes_with_q(lab: Workstation) -> None:
    with at_window(lab) as person:
        person.type("gpubox gpus -w\r")
        person.fulfils(lambda lines: lines[4].startswith("3 "), "all rows")
        person.resize(4, 60)
        more = "4 more lines; a higher window shows them"
        lines = person.shows(more)
        assert lines[0] == "GPU  MODEL                MEMORY        UTIL  TEMP  STATE"
        assert [line[:1] for line in lines[1:3]] == ["0", "1"]
        person.resize(20, 140)
        person.fulfils(
            lambda lines: (
                "UUID" in lines[0] and footer(lines) == lines[5] != "" and not any(lines[6:])
            ),
            "all columns, and nothing below the footer",
        )
        person.type("q")
        person.shows("[0]$")


def test_a_watch_can_be_stopped_and_brought_back(lab: Workstation) -> None:
    with at_window(lab) as person:
        person.type("clear; gpubox gpus --watch\r")
        person.fulfils(lambda lines: states(lines) == ["free"] * 4, "free GPUs")
        person.type(CTRL_Z)
        person.shows(f"[{128 + signal.SIGTSTP}]$")
        person.type("echo sa''ne\r")
        person.shows("sane")
        assert person.cursor_is_seen()
        person.type("fg\r")
        person.fulfils(lambda lines: states(lines) == ["free"] * 4, "free GPUs again")
        assert not any("sane" in line for line in person.lines())
        assert not person.cursor_is_seen()
        for ending in (signal.SIGQUIT, signal.SIGTERM):
            person.send(ending)
            person.shows(f"[{128 + ending}]$")
            person.type("clear; echo sa''ne\r")
            person.shows("sane")
            assert person.cursor_is_seen()
            person.type("clear; gpubox gpus --watch\r")
            person.fulfils(lambda lines: states(lines) == ["free"] * 4, "free GPUs anew")
        person.type("q")
        person.shows("[0]$")


def test_a_watch_goes_on_without_an_engine_and_finds_it_again(beside: Workstation) -> None:
    with at_window(beside) as person:
        person.resize(20, 200)
        person.type("gpubox gpus --watch\r")
        person.fulfils(lambda lines: states(lines) == ["free"] * 4, "free GPUs")
        beside.engine.kill()
        lines = person.fulfils(lambda lines: states(lines) == ["no process"] * 4, "no engine")
        assert any(line.startswith(NO_ENGINE) for line in lines)
        beside.engine.start()
        person.fulfils(lambda lines: states(lines) == ["free"] * 4, "free GPUs again")
        person.type("q")
        person.shows("[0]$")


@pytest.mark.parametrize(
    ("columns", "left_out"),
    [(60, "UUID, PROFILE, TEMP, MODEL and BOX"), (80, "UUID, PROFILE, TEMP and MODEL"), (140, "")],
)
def test_a_narrow_window_leaves_columns_out_and_says_which(
    lab: Workstation, columns: int, left_out: str
) -> None:
    with at_window(lab) as person:
        person.resize(30, columns)
        lab.box("--gpus", "device=2", uid=SOMEBODY)
        person.type("clear; gpubox gpus\r")
        lines = person.fulfils(lambda lines: "[0]$" in lines[1:], "the end")
        told = [line for line in lines if line.startswith("a wider window shows ")]
        wanted = [f"a wider window shows {left_out}; --json everything"] if left_out else []
        assert [line[:columns] for line in told] == [line[:columns] for line in wanted]
        rows = [line for line in lines if "GiB" in line]
        assert [line[0] for line in rows] == ["0", "1", "2", "3"]
        assert "held by nobody, idle now" in rows[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--watch",),
            "gpubox: --watch needs a terminal to draw on\n  leave it out, or: watch gpubox gpus\n",
        ),
        (
            ("--watch", "--json"),
            "gpubox: --watch draws a table, and --json prints none\n  leave one of them out\n",
        ),
    ],
    ids=str,
)
def test_a_watch_of_nobody_is_refused(lab: Workstation, words: tuple[str, ...], said: str) -> None:
    done = lab(*words)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", said)
