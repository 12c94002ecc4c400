"""Facts of machines that nobody has here become checks: each check, each of its verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from gpubox.checks import Check, Room
from gpubox.doctor import diagnosis, running, ways
from gpubox.doctor.cdi import Spec
from gpubox.doctor.seen import (
    BoxSeen,
    DriverSeen,
    EngineSeen,
    ImageUse,
    NoEngine,
    Toolkit,
    Trial,
)
from gpubox.gpus.machine import Gpu, Machine
from gpubox.plan.facts import EngineFacts

TWO = Machine(
    "535.183.01",
    (12, 2),
    tuple(
        Gpu(index=i, uuid=f"GPU-{i}", name="NVIDIA T4", brand="nvidia", capability=(7, 5))
        for i in (0, 1)
    ),
)
DRIVER = DriverSeen(machine=TWO, loaded="535.183.01", cards=2)
NOTHING = DriverSeen(problem="no driver", hint="install it", at_fault="no library")
NO_ENGINE = NoEngine(problem="no engine at X", hint="start it")
HOOK = Toolkit(hook="/usr/bin/hook")
CDI_DEVICES = ("nvidia.com/gpu=0", "nvidia.com/gpu=1")


def engine(**changed: Any) -> EngineSeen:
    """A Docker Engine of today; what belongs to its facts may be named too."""
    facts = {key: changed.pop(key) for key in EngineFacts.__struct_fields__ if key in changed}
    seen = EngineSeen(
        place="unix:///s (the default)",
        version="28.5.2",
        facts=EngineFacts(**({"api": (1, 51)} | facts)),
        system="Debian GNU/Linux 12",
        cgroup_version="1",
        cgroup_driver="cgroupfs",
        folders=("/var/lib/docker",),
    )
    return replace(seen, **changed)


def verdicts(found: Iterable[Check], check: str = "") -> list[tuple[str, str]]:
    """Verdict and evidence, of one check or of all."""
    return [(it.verdict, it.evidence) for it in found if check in ("", it.id)]


def only(found: Iterable[Check], check: str = "") -> Check:
    [one] = [it for it in found if check in ("", it.id)]
    return one


# --- the engine


@pytest.mark.parametrize(
    ("seen", "verdict", "evidence"),
    [
        (engine(), "ok", "1.51"),
        (engine(api=(1, 40)), "ok", "1.40"),
        (
            engine(api=(1, 39)),
            "fail",
            "API 1.39 knows no GPU requests: those came with 1.40, Docker 19.03",
        ),
        (NO_ENGINE, "not known", "no engine answers"),
    ],
)
def test_api(seen: EngineSeen | NoEngine, verdict: str, evidence: str) -> None:
    found = only(diagnosis.of_engine(seen), "api")
    assert (found.verdict, found.evidence) == (verdict, evidence)


@pytest.mark.parametrize(
    ("changed", "verdict", "evidence"),
    [
        ({}, "ok", "Debian GNU/Linux 12"),
        (
            {"system": "Docker Desktop", "kernel": "6.6.12-linuxkit"},
            "warn",
            "Docker Desktop runs boxes in a virtual machine, which has no NVIDIA GPU",
        ),
        (
            {"system": "Docker Desktop", "kernel": "5.15.153.1-microsoft-standard-WSL2"},
            "ok",
            "WSL: the driver is the one of Windows; none is to be installed in here",
        ),
        (
            {"folders": ("/var/snap/docker/common/var-lib-docker",)},
            "warn",
            "Docker is a snap: it sees no folders but your home's, and NVIDIA's toolkit of this"
            " machine does not reach it",
        ),
        (
            {"rootless": True},
            "ok",
            "rootless: what others' engines start is seen here only as processes on the GPUs",
        ),
        (
            {"podman": "5.3.1"},
            "warn",
            "Podman 5.3.1 ignores GPU requests: a box would run without a GPU",
        ),
        ({"podman": "5.4.0"}, "ok", "Debian GNU/Linux 12"),
        ({"podman": "5.4-dev"}, "ok", "Debian GNU/Linux 12"),
    ],
)
def test_setup(changed: dict[str, Any], verdict: str, evidence: str) -> None:
    found = only(diagnosis.of_engine(engine(**changed)), "setup")
    assert (found.verdict, found.evidence) == (verdict, evidence)
    assert bool(found.fix) == (verdict == "warn")


@pytest.mark.parametrize(
    ("seen", "evidence", "fix"),
    [
        (NO_ENGINE, "no engine at X", "start it"),
        (
            replace(NO_ENGINE, installed=False),
            "no engine at X; there is no dockerd here, so it is not installed",
            "install Docker Engine, on Debian and Ubuntu: sudo apt-get install docker.io",
        ),
        (
            replace(NO_ENGINE, installed=False, others=("/a", "/b")),
            "no engine at X; yet there is /a and /b",
            "export DOCKER_HOST=unix:///a",
        ),
    ],
)
def test_no_engine(seen: NoEngine, evidence: str, fix: str) -> None:
    assert only(diagnosis.of_engine(seen), "engine") == Check("engine", "fail", evidence, fix)


# --- the driver


def test_a_gpu_that_the_driver_does_not_list_is_missed_by_the_bus() -> None:
    found = only(diagnosis.of_driver(replace(DRIVER, cards=3)), "gpus")
    assert (found.verdict, found.evidence) == (
        "warn",
        "the PCI bus has 3 NVIDIA GPUs, the driver lists 2",
    )


def test_a_driver_without_gpus_is_a_warning() -> None:
    found = only(diagnosis.of_driver(DriverSeen(machine=Machine("535.1"))), "gpus")
    assert (found.verdict, found.evidence) == ("warn", "the driver lists no GPU")


@pytest.mark.parametrize(
    ("seen", "driver", "library"),
    [
        (DRIVER, "ok", "ok"),
        (NOTHING, "warn", "not known"),
        (replace(NOTHING, cards=1), "fail", "not known"),
        (replace(NOTHING, loaded="535.1"), "ok", "fail"),
        (replace(NOTHING, at_fault="driver"), "fail", "not known"),
        (replace(NOTHING, at_fault="library"), "not known", "fail"),
        (replace(NOTHING, at_fault="library", loaded="535.1"), "ok", "fail"),
        (DriverSeen(elsewhere="X may be another machine"), "not known", "not known"),
    ],
)
def test_driver_and_library(seen: DriverSeen, driver: str, library: str) -> None:
    found = {check.id: check.verdict for check in diagnosis.of_driver(seen)}
    assert (found["driver"], found["library"]) == (driver, library)


# --- from the driver into a box

NVIDIA = {"runtimes": ("runc", "nvidia"), "runtime": "nvidia-container-runtime"}


@pytest.mark.parametrize(
    ("seen", "toolkit", "way"),
    [
        (engine(), HOOK, "hook"),
        (engine(cdi_devices=CDI_DEVICES), HOOK, "cdi"),
        (engine(cdi_devices=CDI_DEVICES, **NVIDIA), HOOK, "hook"),
        (engine(cdi_devices=CDI_DEVICES, api=(1, 53), **NVIDIA), HOOK, "cdi"),
        (engine(cdi_devices=("amd.com/gpu=0",)), HOOK, "hook"),
        (engine(cdi_devices=("amd.com/gpu=0",), api=(1, 53)), HOOK, "hook"),
        (engine(podman="5.4.0"), Toolkit(), "cdi"),
        (engine(**NVIDIA), Toolkit(), ""),
        (engine(local=False, **NVIDIA), Toolkit(), "hook"),
        (engine(cdi_devices=CDI_DEVICES, **NVIDIA), Toolkit(), "cdi"),
        (engine(), Toolkit(), ""),
    ],
)
def test_the_way_of_a_gpu_into_a_box(seen: EngineSeen, toolkit: Toolkit, way: str) -> None:
    assert ways.way(seen, toolkit) == way


LACKS = (
    "the engine has no NVIDIA support, so it can give no GPU: no nvidia-container-runtime-hook"
    " where it looks"
)


@pytest.mark.parametrize(
    ("seen", "toolkit", "driver", "verdict", "evidence"),
    [
        (engine(), HOOK, DRIVER, "ok", "the hook /usr/bin/hook"),
        (engine(**NVIDIA), HOOK, DRIVER, "ok", "the hook /usr/bin/hook, the runtime 'nvidia'"),
        (engine(cdi_devices=CDI_DEVICES), Toolkit(), DRIVER, "ok", "CDI devices"),
        (
            engine(podman="5.4.0"),
            Toolkit(),
            DRIVER,
            "ok",
            "not asked: Podman takes GPUs by CDI alone",
        ),
        (engine(), Toolkit(), DRIVER, "fail", f"{LACKS}, and no CDI device"),
        (engine(), Toolkit(), NOTHING, "warn", f"{LACKS}, and no CDI device"),
        (
            engine(**NVIDIA),
            Toolkit(),
            DRIVER,
            "fail",
            f"{LACKS}, though it has the runtime 'nvidia'",
        ),
        (
            engine(**NVIDIA),
            replace(HOOK, runtime_gone=True),
            DRIVER,
            "fail",
            "the engine's runtime 'nvidia' is nvidia-container-runtime, and that is gone",
        ),
        (
            engine(),
            replace(HOOK, late=True),
            DRIVER,
            "warn",
            "/usr/bin/hook came after the engine's start, when it looks for it",
        ),
        # an upgrade: the engine knows NVIDIA's runtime, so it knew the hook
        (
            engine(**NVIDIA),
            replace(HOOK, late=True),
            DRIVER,
            "ok",
            "the hook /usr/bin/hook, the runtime 'nvidia'",
        ),
        (
            engine(local=False),
            Toolkit(),
            DriverSeen(elsewhere="X"),
            "not known",
            "whether the engine's machine has it cannot be seen here",
        ),
        (NO_ENGINE, HOOK, DRIVER, "not known", "no engine answers"),
    ],
)
def test_toolkit(
    seen: EngineSeen | NoEngine, toolkit: Toolkit, driver: DriverSeen, verdict: str, evidence: str
) -> None:
    assert verdicts(ways.of_toolkit(seen, toolkit, driver)) == [(verdict, evidence)]


@pytest.mark.parametrize(
    ("rootless", "no_cgroups", "problem", "wanted"),
    [
        (False, False, "", ""),
        (True, True, "", ""),
        (True, False, "do not suit a rootless engine: no-cgroups must be true", "true"),
        (False, True, "do not suit an engine of root's: no-cgroups must be false", "false"),
    ],
)
def test_nvidias_settings_suit_the_engine(
    rootless: bool, no_cgroups: bool, problem: str, wanted: str
) -> None:
    toolkit = replace(HOOK, no_cgroups=no_cgroups)
    found = list(ways.of_toolkit(engine(rootless=rootless), toolkit, DRIVER))
    assert found[0].verdict == "ok"
    assert len(found) == 1 + bool(problem)
    if problem:
        assert found[1].verdict == "fail" and problem in found[1].evidence
        assert found[1].fix.endswith(f"no-cgroups={wanted} --in-place")


FILE = "/etc/cdi/nvidia.yaml"
SPEC = Spec(FILE, ("0", "1", "all"))
NO_SPEC = "no CDI specification of NVIDIA's in /etc/cdi, /var/run/cdi"


@pytest.mark.parametrize(
    ("seen", "toolkit", "specs", "driver", "verdict", "evidence"),
    [
        (engine(), HOOK, [SPEC], DRIVER, "ok", f"{FILE} lists the GPUs that the driver lists"),
        (engine(), HOOK, [], DRIVER, "ok", f"{NO_SPEC}: GPUs come by the hook"),
        (engine(), Toolkit(), [], DRIVER, "warn", NO_SPEC),
        (engine(podman="5.4.0"), Toolkit(), [], DRIVER, "fail", NO_SPEC),
        (engine(), Toolkit(), [], NOTHING, "ok", f"{NO_SPEC}, and no GPU that it could list"),
        (
            NO_ENGINE,
            Toolkit(),
            [SPEC],
            DRIVER,
            "ok",
            f"{FILE} lists the GPUs that the driver lists",
        ),
        (
            NO_ENGINE,
            Toolkit(),
            [SPEC],
            NOTHING,
            "not known",
            f"{FILE} has 3 devices; NVML tells nothing to compare them with",
        ),
        (
            engine(),
            HOOK,
            [Spec(FILE, ("0",))],
            DRIVER,
            "warn",
            f"{FILE} is out of date: it lacks GPU 1 (GPU-1)",
        ),
        # the engine's own list counts, for that is what it gives
        (
            engine(cdi_devices=CDI_DEVICES[:1]),
            HOOK,
            [SPEC],
            DRIVER,
            "fail",
            f"{FILE} is out of date: it lacks GPU 1 (GPU-1)",
        ),
        (
            engine(),
            HOOK,
            [replace(SPEC, driver="470.57.02")],
            DRIVER,
            "warn",
            f"{FILE} is out of date: it mounts the libraries of driver 470.57.02, and 535.183.01 is"
            " loaded",
        ),
        (
            engine(cdi_devices=("nvidia.com/gpu=7",), cdi_folders=("/x",)),
            HOOK,
            [],
            DRIVER,
            "fail",
            "the list of the engine is out of date: it lacks GPU 0 (GPU-0), GPU 1 (GPU-1); it has"
            " 7, which the driver does not list",
        ),
        (engine(), HOOK, [Spec(FILE, trouble=f"{FILE}: bad")], DRIVER, "warn", f"{FILE}: bad"),
        (engine(), HOOK, [], DriverSeen(elsewhere="X"), "not known", "X"),
    ],
)
def test_cdi(
    seen: EngineSeen | NoEngine,
    toolkit: Toolkit,
    specs: list[Spec],
    driver: DriverSeen,
    verdict: str,
    evidence: str,
) -> None:
    found = only(ways.of_cdi(seen, toolkit, specs, driver))
    assert (found.verdict, found.evidence) == (verdict, evidence)
    renewed = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
    assert found.fix == (renewed if verdict in ("warn", "fail") else "")


SYSTEMD = {"cgroup_version": "2", "cgroup_driver": "systemd"}


@pytest.mark.parametrize(
    ("seen", "toolkit", "verdict", "evidence"),
    [
        (engine(), HOOK, "ok", "cgroup v1, driver cgroupfs"),
        (
            engine(**SYSTEMD),
            HOOK,
            "warn",
            "cgroup v2, driver systemd, GPUs by the hook: systemctl daemon-reload, which package"
            " upgrades run, takes the GPUs away from running boxes",
        ),
        (engine(cdi_devices=CDI_DEVICES, **SYSTEMD), HOOK, "ok", "cgroup v2, driver systemd"),
        (engine(**SYSTEMD), Toolkit(), "ok", "cgroup v2, driver systemd"),
        (
            engine(cgroup_version="2"),
            HOOK,
            "ok",
            "cgroup v2, driver cgroupfs",
        ),
        (engine(cgroup_version=""), HOOK, "not known", "the engine does not tell its cgroups"),
        (NO_ENGINE, HOOK, "not known", "no engine answers"),
    ],
)
def test_cgroups(
    seen: EngineSeen | NoEngine, toolkit: Toolkit, verdict: str, evidence: str
) -> None:
    found = only(ways.of_cgroups(seen, toolkit))
    assert (found.verdict, found.evidence) == (verdict, evidence)
    assert ("native.cgroupdriver=cgroupfs" in found.fix) == (verdict == "warn")


# --- boxes


def of_box(**seen: Any) -> dict[str, str]:
    """The verdict of each check of boxes on one box beside a harmless one."""
    boxes = [BoxSeen(name="fine", gpus="none"), BoxSeen(name="box", **seen)]
    return {check.id: check.verdict for check in running.of_boxes(boxes, TWO, "")}


FINE = dict.fromkeys(("lost-gpus", "open-ports", "privileged", "open-jupyter"), "ok")


@pytest.mark.parametrize(
    ("seen", "different"),
    [
        ({}, {}),
        ({"gpus": "GPU-0,GPU-1"}, {}),
        ({"gpus": "all"}, {}),
        ({"gpus": "index:1"}, {}),
        ({"gpus": "MIG-1"}, {}),
        ({"gpus": "index:0:1"}, {}),
        ({"gpus": "GPU-0,GPU-7"}, {"lost-gpus": "fail"}),
        ({"gpus": "index:2"}, {"lost-gpus": "fail"}),
        ({"gpus": "all", "reaches_gpus": False}, {"lost-gpus": "fail"}),
        ({"gpus": "all", "reaches_gpus": None}, {"lost-gpus": "not known"}),
        ({"gpus": "none", "reaches_gpus": None}, {}),
        ({"ports": ("127.0.0.1:80->80/tcp", "::1:80->80/tcp")}, {}),
        ({"ports": ("0.0.0.0:80->80/tcp",)}, {"open-ports": "warn"}),
        ({"ports": (":::80->80/tcp",)}, {"open-ports": "warn"}),
        ({"privileged": True}, {"privileged": "warn"}),
        ({"privileged": None}, {"privileged": "not known"}),
        ({"open_at": ("127.0.0.1:80",)}, {"open-jupyter": "fail"}),
        ({"open_at": None}, {"open-jupyter": "not known"}),
    ],
)
def test_boxes(seen: dict[str, Any], different: dict[str, str]) -> None:
    assert of_box(**seen) == FINE | different


def test_a_port_that_is_open_twice_is_closed_once() -> None:
    box = BoxSeen(
        name="box", ports=("0.0.0.0:8080->80/tcp", ":::8080->80/tcp", "0.0.0.0:53->53/udp")
    )
    found = only(running.of_boxes([box], TWO, ""), "open-ports")
    assert found.fix == (
        "gpubox stop box, and start it anew with -p 127.0.0.1:8080:80 -p 127.0.0.1:53:53/udp"
    )


def test_the_fix_for_another_persons_box_says_whose_it_is() -> None:
    box = BoxSeen(name="box", owner="bob", privileged=True)
    found = only(running.of_boxes([box], TWO, ""), "privileged")
    assert found.fix.startswith("gpubox stop --owner bob box, and")


def test_a_gpu_that_cannot_be_read_is_not_known_to_be_another() -> None:
    ill = Machine("535.1", None, (Gpu(index=0, trouble="GPU is lost"),))
    box = BoxSeen(name="box", gpus="GPU-0")
    assert only(running.of_boxes([box], ill, ""), "lost-gpus").verdict == "ok"


def test_without_an_engine_no_box_is_known() -> None:
    found = list(running.of_boxes(None, TWO, "why"))
    assert {check.id for check in found} == set(FINE)
    assert set(verdicts(found)) == {("not known", "why")}


# --- room, profiles, images


@pytest.mark.parametrize(
    ("room", "verdict", "evidence"),
    [
        (Room("/d", 500 * 10**9, 10**7), "ok", "/d has 500.0 GB left"),
        (
            Room("/d", 9 * 10**9, 10**7),
            "warn",
            "/d has 9.0 GB left, less than an image with CUDA takes",
        ),
        (Room("/d", 9 * 10**8, 10**7), "fail", "/d, where images go, has 900.0 MB left"),
        (Room("/d", 500 * 10**9, 400), "fail", "/d, where images go, has 400 files left"),
        (Room("/d", 500 * 10**9, 0), "ok", "/d has 500.0 GB left"),  # btrfs counts none
    ],
)
def test_disk(room: Room, verdict: str, evidence: str) -> None:
    assert verdicts(diagnosis.of_rooms([room], "")) == [(verdict, evidence)]


def test_a_disk_that_is_not_seen_is_not_known() -> None:
    assert verdicts(diagnosis.of_rooms([], "why")) == [("not known", "why")]


def test_one_mistake_under_many_profiles_is_told_once() -> None:
    wrong = [("a.yaml:1: x", "did you mean"), ("a.yaml:1: x", "did you mean")]
    found = list(
        diagnosis.of_profiles(["a.yaml"], wrong, ["/b is not used: others; chmod go-w /b"])
    )
    assert found == [
        Check("profiles", "fail", "a.yaml:1: x", "did you mean"),
        Check("profiles", "warn", "/b is not used: others", "chmod go-w /b"),
    ]
    assert verdicts(diagnosis.of_profiles(["a.yaml", "b.yaml"], [], [])) == [
        ("ok", "a.yaml, b.yaml")
    ]


def use(image: str, **changed: Any) -> ImageUse:
    said = ImageUse(profile="p", where="f.yaml:1", image=image, here=False, pulled=True)
    return replace(said, **changed)


GONE, LIVE = "nvidia/cuda:9.0-cudnn7-devel", "nvidia/cuda:12.2.2-cudnn8-devel-ubuntu22.04"
UNFIT = Check("driver", "fail", "too old", "update it")


@pytest.mark.parametrize(
    ("uses", "deleted", "images"),
    [
        ([], "ok", "ok"),
        ([use(LIVE)], "ok", "ok"),
        ([use(GONE)], "fail", "ok"),
        ([use(GONE, here=True)], "ok", "ok"),
        ([use(GONE, here=None)], "warn", "ok"),
        ([use(GONE, pulled=False)], "ok", "ok"),
        ([use(LIVE, unfit=(UNFIT,))], "ok", "warn"),
        (None, "not known", "not known"),
    ],
)
def test_images(uses: list[ImageUse] | None, deleted: str, images: str) -> None:
    found = {it.id: it.verdict for it in diagnosis.of_images(uses, TWO, "")}
    assert found == {"deleted": deleted, "images": images}


def test_without_a_machine_what_it_runs_is_not_known() -> None:
    found = only(diagnosis.of_images([use(LIVE)], None, "why"), "images")
    assert (found.verdict, found.evidence) == ("not known", "why")


# --- a box on each GPU


@pytest.mark.parametrize(
    ("trial", "verdict", "evidence"),
    [
        (
            {"nodes": ("/dev/nvidia0",), "listed": ("GPU 0: T4 (UUID: GPU-0)",)},
            "ok",
            "GPU 0: a box of i:1 has /dev/nvidia0, GPU 0: T4 (UUID: GPU-0)",
        ),
        ({"problem": "no hook", "hint": "install it"}, "fail", "GPU 0: no hook"),
        ({}, "fail", "GPU 0: a box of i:1 started, but has no GPU"),
        (
            {"nodes": ("/dev/nvidia0",)},
            "warn",
            "GPU 0: a box of i:1 has /dev/nvidia0, but no nvidia-smi to ask",
        ),
        (
            {"nodes": ("/dev/nvidia1",), "listed": ("GPU 0: T4 (UUID: GPU-1)",)},
            "fail",
            "GPU 0: a box of i:1 got another one than GPU-0: /dev/nvidia1, GPU 0: T4 (UUID: GPU-1)",
        ),
        (
            {"gpu": None, "nodes": ("/dev/dxg",), "listed": ("GPU 0: T4 (UUID: GPU-1)",)},
            "ok",
            "all GPUs: a box of i:1 has /dev/dxg, GPU 0: T4 (UUID: GPU-1)",
        ),
    ],
)
def test_gpu_box(trial: dict[str, Any], verdict: str, evidence: str) -> None:
    found = diagnosis.of_trial(replace(Trial(gpu=TWO.gpus[0], image="i:1"), **trial))
    assert (found.verdict, found.evidence) == (verdict, evidence)


# --- the whole


def test_the_summary_counts_what_is_not_well() -> None:
    found = [
        Check("a", "ok", ""),
        Check("b", "fail", ""),
        Check("c", "warn", ""),
        Check("d", "warn", ""),
    ]
    assert diagnosis.summary(found) == "4 checks: 1 failed, 2 warnings"
    assert diagnosis.summary(found[:1]) == "1 check: all is well"
    assert [check.id for check in diagnosis.worst_last(found)] == ["a", "c", "d", "b"]
