"""`--gpus N`: boxes take GPUs that are free, and no two take the same, whatever happens to them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import docker
import pytest

from lab.engine import Kind, PrivateEngine
from lab.images import STAND_IN, build_stand_in
from lab.nvml import GIB, MACHINES, Machine, gtx_1080_ti
from lab.program import Gpubox
from lab.waiting import PATIENCE, wait_until
from lab.workstation import MACHINE, PROFILE, SOMEBODY, UUIDS, Workstation, outsider, using

CUDA = "CUDA_DEVICE_ORDER=PCI_BUS_ID"
Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def run(lab: Workstation) -> Run:
    """A box of the caller's that sleeps in the background."""

    def started(*options: str, profile: str = PROFILE) -> subprocess.CompletedProcess[bytes]:
        return lab.gpubox("run", "-d", *options, profile, "sleep", "600")

    return started


def said(done: subprocess.CompletedProcess[bytes]) -> tuple[int, str]:
    return done.returncode, done.stderr.decode()


# Picking ---------------------------------------------------------------------------------------


def test_each_box_gets_a_gpu_of_its_own(engine: PrivateEngine, lab: Workstation, run: Run) -> None:
    first, second, pair = run("--gpus", "1"), run(), run("--gpus", "2")
    assert [said(done) for done in (first, second, pair)] == [
        (0, "GPU 0 (of 4)\n"),
        (0, "GPU 1 (of 4; 0 mine)\n"),
        (0, "GPUs 2 and 3 (of 4; 0 mine, 1 mine)\n"),
    ]
    boxes = [done.stdout.decode().strip() for done in (first, second, pair)]
    assert [lab.labels(box)["gpubox.gpus"] for box in boxes] == [
        *UUIDS[:2],
        f"{UUIDS[2]},{UUIDS[3]}",
    ]
    assert [lab.seen_in(box) for box in boxes] == [UUIDS[:1], UUIDS[1:2], UUIDS[2:]]
    for box in boxes:
        assert CUDA in lab.docker("inspect", "-f", "{{.Config.Env}}", box)


def test_a_stopped_box_frees_its_gpu_and_its_owner_gets_it_again(
    lab: Workstation, run: Run
) -> None:
    for _ in range(3):
        run()
    lab.docker("stop", "-t", "0", f"{PROFILE}-root-3", f"{PROFILE}-root")
    assert said(run()) == (0, "GPU 2 (of 4; 1 mine)\n")  # the last one, though 0 is free
    lab.docker("rm", "-f", f"{PROFILE}-root-3")
    assert lab.box("--gpus", "1", uid=SOMEBODY) == f"{PROFILE}-nobody"
    assert lab.labels(f"{PROFILE}-nobody")["gpubox.gpus"] == UUIDS[0]


def test_what_is_used_outside_or_filled_comes_last_or_not_at_all(
    lab: Workstation, run: Run
) -> None:
    with outsider("sleep", "600") as pid:
        machine = using(MACHINE, pid)
        lab.on(machine.with_card(1, used=GIB // 2).with_card(2, used=GIB // 4))
        assert said(run("--gpus", "2")) == (
            0,
            "GPUs 2 and 3 (of 4; 0 used outside gpubox by root)\n",
        )
        assert said(run()) == (
            0, "GPU 1 (of 4; 0 used outside gpubox by root, 2 mine, 3 mine)\n",
        )  # fmt: skip


def test_verbose_gives_the_reason_for_every_gpu(lab: Workstation, run: Run) -> None:
    lab.box("--gpus", "device=1", uid=SOMEBODY)
    done = lab.gpubox("--verbose", "run", "-d", PROFILE, "sleep", "600")
    assert done.stderr.decode().splitlines()[:4] == [
        "GPU 0: free; taken",
        "GPU 1: held by nobody, idle now",
        "GPU 2: free",
        "GPU 3: free",
    ]


def test_only_gpus_that_can_run_the_image_are_taken(lab: Workstation) -> None:
    mixed = MACHINES["1080ti+a100-535"]
    lab.on(replace(mixed, cards=(mixed.cards[1], mixed.cards[0])))
    done = lab.gpubox("run", "--dry-run", PROFILE, "true")
    assert f"--gpus device={mixed.cards[0].uuid}" in done.stdout.decode()
    assert said(done) == (0, "GPU 1 (of 2)\n")


def test_a_dry_run_says_which_it_would_take(
    engine: PrivateEngine, lab: Workstation, run: Run
) -> None:
    run("--gpus", "1")
    done = lab.gpubox("run", "--dry-run", "--gpus", "2", PROFILE, "true")
    assert said(done) == (0, "GPUs 1 and 2 (of 4; 0 mine)\n")
    words = {
        "stable": f"""--gpus '"device={UUIDS[1]},{UUIDS[2]}"'""",
        "cdi": f"--device nvidia.com/gpu={UUIDS[1]} --device nvidia.com/gpu={UUIDS[2]}",
    }
    assert words[engine.kind] in done.stdout.decode()
    assert len(lab.docker("ps", "-aq").split()) == 1


# Held ------------------------------------------------------------------------------------------


def test_an_error_names_who_has_them_and_frees_mine_first(lab: Workstation, run: Run) -> None:
    lab.box("--gpus", "device=1", uid=SOMEBODY)
    run("--gpus", "1")
    done = run("--gpus", "3")
    assert said(done) == (
        125,
        "gpubox: 3 GPUs are wanted, and 2 of 4 are free: GPU 0 mine, idle now; GPU 1 held by"
        " nobody, idle now\n"
        f"  gpubox stop {PROFILE}-root frees yours; --wait waits for it; gpubox gpus shows who"
        " has which\n",
    )
    assert lab.docker("ps", "-aq").split() == lab.docker("ps", "-q").split()


def test_gpus_that_somebody_holds_are_not_taken_from_them(lab: Workstation, run: Run) -> None:
    theirs = lab.box("--gpus", "device=1", uid=SOMEBODY)
    for words in (("--gpus", "device=1"), ("--gpus", UUIDS[1]), ("--gpus", "all")):
        code, text = said(run(*words))
        assert code == 125
        assert text.startswith(f"gpubox: GPU 1 is held by nobody ({theirs})\n"), text
    assert said(run("--gpus", "5"))[1].startswith("gpubox: 5 GPUs are wanted, and 4 of this")
    assert lab.docker("ps", "-aq").split() == lab.docker("ps", "-q").split()


def test_wait_takes_a_gpu_as_soon_as_it_is_free(lab: Workstation, run: Run) -> None:
    theirs = lab.box("--gpus", "all", uid=SOMEBODY)
    begun = time.monotonic()
    assert said(run("--wait-for", "1s"))[0] == 125
    assert time.monotonic() - begun >= 1
    process = starter(lab, "--wait")
    assert process.stderr
    assert (
        process.stderr.readline()
        .decode()
        .startswith(
            "waiting: 1 GPU is wanted, and none of 4 is free: GPU 0 held by nobody, idle now; GPU 1"
        )
    )
    lab.docker("stop", "-t", "0", theirs)
    assert (process.stderr.read(), process.wait(PATIENCE)) == (b"GPU 0 (of 4)\n", 0)
    assert said(run("--wait-for", "soon")) == (
        125,
        "gpubox: --wait-for soon is no time\n  write 90s, 30m, 2h or 1h30m\n",
    )


def test_those_who_share_are_together_and_nobody_else_is_with_them(
    lab: Workstation, run: Run
) -> None:
    for _ in range(3):
        run("--gpus", "1")
    assert said(run("--share")) == (0, "GPU 3 (of 4; 0 mine, 1 mine, 2 mine)\n")
    assert said(run("--share"))[0] == 0
    assert said(run())[0] == said(run("--gpus", "device=3"))[0] == 125
    lab.docker("stop", "-t", "0", f"{PROFILE}-root")
    assert said(run("--share")) == (0, "GPU 0 (of 4; 1 mine, 2 mine)\n")  # the least filled
    assert said(run("--share", "--gpus", "device=3"))[0] == 0
    Path(lab.gpubox.cwd, "gpubox.yaml").write_text(
        f"profiles: {{class: {{image: {STAND_IN}, gpus: {{count: 1, share: true}}}}}}"
    )
    assert said(run(profile="class"))[0] == 0
    assert lab.labels("class-root")["gpubox.claim"] == "shared"


def test_a_box_that_comes_back_keeps_its_gpus(lab: Workstation, run: Run) -> None:
    run("--gpus", "device=0", "--restart", "unless-stopped")
    lab.docker("stop", "-t", "0", f"{PROFILE}-root")
    assert said(run("--gpus", "1")) == (0, "GPU 1 (of 4; 0 mine)\n")


def test_where_gpus_are_not_seen_the_default_is_all_and_claims_nothing(
    engine: PrivateEngine, gpubox: Gpubox
) -> None:
    words = ("run", "-d", PROFILE, "sleep", "600")
    for _ in range(2):
        done = gpubox(*words)
        assert said(done) == (
            0,
            "the box gets all GPUs; which are free is not seen: this machine has no NVIDIA"
            " driver: there is no libnvidia-ml.so.1\n",
        )
    refused = gpubox("run", "--gpus", "1", PROFILE, "true")
    assert said(refused) == (
        125,
        "gpubox: 1 free GPU cannot be picked: this machine has no NVIDIA driver: there is no"
        " libnvidia-ml.so.1\n  name them, like --gpus device=0, or say --gpus all\n",
    )


# Starting again --------------------------------------------------------------------------------


def test_a_notebook_starts_again_only_while_its_gpu_is_free(
    lab: Workstation, run: Run, jupyter_image: str
) -> None:
    Path(lab.gpubox.cwd, "gpubox.yaml").write_text(
        f"profiles: {{nb: {{image: {jupyter_image}, gpus: 1}}}}"
    )
    words = ("jupyter", "-d", "nb")
    assert lab.gpubox(*words).returncode == 0
    lab.docker("stop", "-t", "0", "nb-root")
    assert lab.gpubox(*words).returncode == 0
    assert len(lab.docker("ps", "-aq").split()) == 1  # no ticket is left
    lab.docker("stop", "-t", "0", "nb-root")
    theirs = lab.box("--gpus", "device=0", uid=SOMEBODY)
    assert said(lab.gpubox(*words)) == (
        125,
        "starting nb-root again; --new makes another\n"
        f"gpubox: the GPUs of nb-root are held by {theirs}, nobody's box\n"
        "  --new makes another on a GPU that is free; --wait waits for these\n",
    )
    assert len(lab.docker("ps", "-aq").split()) == 2


# Races -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["stable", "cdi"])
def eight(request: pytest.FixtureRequest) -> Iterator[PrivateEngine]:
    """An engine with eight GPUs."""
    kind: Kind = request.param
    with PrivateEngine(kind, gpu_count=8) as engine:
        build_stand_in(engine.host)
        yield engine


EIGHT = replace(MACHINE, cards=gtx_1080_ti(8))


ROUNDS = int(os.environ.get("RACE_ROUNDS", "1"))  # of each race; ten of them take ten minutes


@pytest.mark.parametrize("number", range(ROUNDS))
def test_of_24_starters_on_8_gpus_each_gpu_goes_to_one(
    eight: PrivateEngine, tmp_path: Path, nvml: Callable[[Machine], dict[str, str]], number: int
) -> None:
    lab = at_eight(eight, tmp_path, nvml)
    starters = [starter(lab) for _ in range(24)]
    ended = [process.wait(timeout=PATIENCE) for process in starters]
    errors = [process.stderr.read().decode() for process in starters if process.stderr]
    assert Counter(ended) == {0: 8, 125: 16}, errors
    claimed = held(eight)
    assert sorted(claimed) == sorted(card.uuid for card in EIGHT.cards)
    for code, error in zip(ended, errors, strict=True):
        assert code == 0 or "1 GPU is wanted, and none of 8 is free" in error
    assert len(lab.docker("ps", "-aq").split()) == 8
    lab.docker("rm", "-f", *lab.docker("ps", "-aq").split())


@pytest.mark.parametrize("number", range(ROUNDS))
def test_whatever_starts_restarts_stops_and_is_killed_no_gpu_has_two_boxes(
    eight: PrivateEngine, tmp_path: Path, nvml: Callable[[Machine], dict[str, str]], number: int
) -> None:
    lab, chance = at_eight(eight, tmp_path, nvml), random.Random(number)
    for _ in range(8):
        assert lab.gpubox("run", "-d", PROFILE, "sleep", "600").returncode == 0
    names = lab.docker("ps", "--format", "{{.Names}}").split()
    lab.docker("stop", "-t", "0", *names[:5])
    what: list[tuple[str, ...]] = [("run", "-d", PROFILE, "sleep", "600")] * 10
    what += [("start", name) for name in names[:5]] * 2
    what += [("restart", "-t", "0", name) for name in names[5:]]
    what += [("stop", "-t", "0", name) for name in names[6:]]
    chance.shuffle(what)
    begun = time.time()
    with no_gpu_has_two(eight):
        callers = [lab.gpubox.begin(*words) for words in what]
        victims = []
        for made in range(1, len(callers) // 3 + 1):  # one at work dies as each container is made
            wait_until(partial(is_time, lab, begun, made, callers), what="a container")
            if at_work := [caller for caller in callers if caller.poll() is None]:
                victims.append(chance.choice(at_work))
                victims[-1].kill()
        for process in callers:
            process.wait(timeout=PATIENCE)
        while len(held(eight)) < 8:  # what is left is free, whatever the dead had begun
            done = lab.gpubox("run", "-d", PROFILE, "sleep", "600")
            assert done.returncode == 0, done.stderr
    assert any(victim.returncode == -signal.SIGKILL for victim in victims)
    assert sorted(held(eight)) == sorted(card.uuid for card in EIGHT.cards)
    lab.docker("rm", "-f", *lab.docker("ps", "-aq").split())


def is_time(
    lab: Workstation, begun: float, number: int, callers: Sequence[subprocess.Popen[bytes]]
) -> bool:
    """Whether so many containers were made, or all callers are through."""
    through = all(caller.poll() is not None for caller in callers)
    return len(made_since(lab, begun)) >= number or through


def at_eight(
    eight: PrivateEngine, folder: Path, nvml: Callable[[Machine], dict[str, str]]
) -> Workstation:
    lab = Workstation(eight, Gpubox(folder, eight.env), nvml)
    lab.on(EIGHT)
    return lab


@contextmanager
def no_gpu_has_two(engine: PrivateEngine) -> Iterator[None]:
    """Looked at all the time."""
    over, seen = threading.Event(), list[Counter[str]]()

    def look() -> None:
        while not over.is_set():
            seen.append(Counter(held(engine)))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    assert seen
    assert [each for each in seen if max(each.values(), default=0) > 1] == []


def starter(lab: Workstation, *options: str) -> subprocess.Popen[bytes]:
    return lab.gpubox.begin("run", "-d", "--gpus", "1", *options, PROFILE, "sleep", "600")


def held(engine: PrivateEngine) -> list[str]:
    """What the running boxes have."""
    client = docker.DockerClient(base_url=engine.host)
    boxes = client.containers.list(ignore_removed=True)
    found = [uuid for box in boxes for uuid in box.labels["gpubox.gpus"].split(",")]
    client.close()
    return found


# Fences ----------------------------------------------------------------------------------------


def rival(lab: Workstation, index: int, **labels_: str) -> str:
    """What a starter that was killed leaves: a box that was created and never starts."""
    said_ = {"gpubox.version": "1", "gpubox.owner": "eve", "gpubox.gpus": UUIDS[index]} | labels_
    words = [word for key, text in said_.items() for word in ("--label", f"{key}={text}")]
    return lab.docker("create", *words, STAND_IN, "sleep", "600")


def test_a_dead_starter_is_waited_for_and_then_removed(
    engine: PrivateEngine, lab: Workstation, run: Run
) -> None:
    dead = [rival(lab, index) for index in range(4)]
    begun = time.monotonic()
    assert said(run("--gpus", "4")) == (0, "GPUs 0, 1, 2 and 3 (of 4)\n")
    assert time.monotonic() - begun > 9
    left = lab.docker("ps", "-aq", "--no-trunc").split()
    assert not set(left) & set(dead)
    assert len(left) == 1


def made_since(lab: Workstation, begun: float) -> list[str]:
    """The containers that were created since, gone again or not."""
    when = ("--since", f"{begun:.3f}", "--until", f"{time.time():.3f}")
    return lab.docker("events", *when, "--filter", "event=create").splitlines()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_who_waits_for_a_starter_can_be_ended(
    lab: Workstation, sent: signal.Signals, code: int
) -> None:
    begun = time.time()
    dead = [rival(lab, index) for index in range(4)]
    process = lab.gpubox.begin("run", "-d", "--gpus", "4", PROFILE, "sleep", "600")
    wait_until(lambda: len(made_since(lab, begun)) == 5, what="its own box")
    process.send_signal(sent)
    assert process.wait(PATIENCE) == code
    assert sorted(lab.docker("ps", "-aq", "--no-trunc").split()) == sorted(dead)


def test_a_container_of_a_wrong_name_is_told_and_not_tried_for_ever(
    engine: PrivateEngine, lab: Workstation, run: Run
) -> None:
    for option in ("--network", "--ipc"):
        code, text = said(run(option, "container:nowhere"))
        assert code == 125
        assert "nowhere" in text
    assert lab.docker("ps", "-aq") == ""


def test_a_dry_run_on_a_busy_machine_prints_its_line(lab: Workstation) -> None:
    lab.box("--gpus", "all", uid=SOMEBODY)
    done = lab.gpubox("run", "--dry-run", PROFILE, "true")
    assert done.returncode == 0
    assert " --gpus 1 " in done.stdout.decode()
    assert b"assumed: GPUs that are free; Docker's own --gpus 1" in done.stderr
    assert b"none of 4 is free" in done.stderr
