"""What NVML says of a machine reaches gpubox, on old drivers and ill ones too: a library simulated
below nvidia-ml-py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpubox.gpus.machine import Device, Gpu
from gpubox.gpus.machine import Machine as Told
from gpubox.gpus.machine import Process as Listed
from lab import gpus
from lab.nvml import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    MACHINES,
    MIB,
    NO_PERMISSION,
    NOT_SUPPORTED,
    VERSION_MISMATCH,
    Machine,
    Process,
)
from lab.waiting import PATIENCE

Serve = Callable[[Machine], dict[str, str]]

ASK = """
import json, msgspec
from gpubox.gpus import nvml
{before}
try:
    print(msgspec.json.encode(nvml.{what}()).decode())
except nvml.NoNvml as error:
    print(json.dumps([type(error).__name__, error.problem, error.hint]))
"""


def child(program: str, env: dict[str, str]) -> Any:
    """What a Python program printed, which is all that it may print."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


def asked(env: dict[str, str], before: str = "", what: str = "machine") -> Any:
    return child(ASK.format(before=before, what=what), env)


def told(env: dict[str, str]) -> Told:
    """gpubox's record of the machine, from a process of its own."""
    answer = asked(env)
    assert isinstance(answer, dict), answer
    return msgspec.convert(answer, Told)


GTX = ("NVIDIA GeForce GTX 1080 Ti", "geforce", (6, 1), 11264)
A100 = ("NVIDIA A100-SXM4-40GB", "nvidia", (8, 0), 40960)

# driver, CUDA, and each GPU's name, brand, compute capability and MiB
SEEN = {
    "1080ti-367.35": ("367.35", None, [GTX] * 4),
    "1080ti-367.48": ("367.48", None, [GTX] * 4),
    "1080ti-535": ("535.183.01", (12, 2), [GTX] * 4),
    "1080ti-580": ("580.65.06", (13, 0), [GTX] * 4),
    "t4-535": ("535.183.01", (12, 2), [("Tesla T4", "nvidia", (7, 5), 15360)]),
    "v100-580": ("580.65.06", (13, 0), [("Tesla V100-SXM2-16GB", "tesla", (7, 0), 16384)]),
    "a100-470": ("470.57.02", (11, 4), [A100]),
    "a100-535": ("535.183.01", (12, 2), [A100]),
    "h100-535": ("535.183.01", (12, 2), [("NVIDIA H100 80GB HBM3", "nvidia", (9, 0), 81559)]),
    "4090-550": ("550.54.14", (12, 4), [("NVIDIA GeForce RTX 4090", "geforce", (8, 9), 24564)]),
    "5090-570": ("570.26", (12, 8), [("NVIDIA GeForce RTX 5090", "geforce", (12, 0), 32607)]),
    "1080ti+a100-535": ("535.183.01", (12, 2), [GTX, A100]),
    "8xa100-535": ("535.183.01", (12, 2), [A100] * 8),
    "a100-mig-535": ("535.183.01", (12, 2), [A100]),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_machine_is_seen_as_it_is(nvml: Serve, machine: str) -> None:
    found = told(nvml(MACHINES[machine]))
    driver, cuda, cards = SEEN[machine]
    assert (found.driver, found.cuda) == (driver, cuda)
    assert [gpu.index for gpu in found.gpus] == list(range(len(cards)))
    assert [(gpu.name, gpu.brand, gpu.capability, gpu.memory // MIB) for gpu in found.gpus] == cards
    assert len({gpu.uuid for gpu in found.gpus}) == len(cards)
    assert {gpu.trouble for gpu in found.gpus} == {""}


def test_the_labs_engine_and_its_nvml_speak_of_the_same_gpus(nvml: Serve) -> None:
    found = told(nvml(MACHINES["1080ti-535"]))
    given = [(gpu.index, gpu.uuid, gpu.name) for gpu in gpus.simulated(4)]
    assert [(gpu.index, gpu.uuid, gpu.name) for gpu in found.gpus] == given


def test_a_machine_without_gpus_has_a_driver_still(nvml: Serve) -> None:
    assert told(nvml(Machine(driver="580.65.06", cuda=(13, 0)))) == Told("580.65.06", (13, 0))


@pytest.mark.parametrize("machine", ["1080ti-367.35", "5090-570"])
@pytest.mark.parametrize(
    ("code", "problem", "hint"),
    [
        (
            DRIVER_NOT_LOADED,
            "the NVIDIA driver is not loaded on this machine",
            "sudo modprobe nvidia; nvidia-smi says when it works",
        ),
        (
            VERSION_MISMATCH,
            "the NVIDIA driver was updated and the old one is still loaded",
            "reboot the machine",
        ),
        (
            NO_PERMISSION,
            "no permission to ask the NVIDIA driver",
            "ls -l /dev/nvidia* shows who may",
        ),
        (
            999,
            "NVIDIA's management library failed: Unknown Error",
            "nvidia-smi must work first",
        ),
    ],
)
def test_a_driver_that_does_not_answer_is_told_as_what_it_is(
    nvml: Serve, machine: str, code: int, problem: str, hint: str
) -> None:
    env = nvml(MACHINES[machine].failing("nvmlInit", code))
    assert asked(env) == ["NoNvml", problem, hint]


def test_what_fails_after_the_start_is_told_too(nvml: Serve) -> None:
    env = nvml(MACHINES["t4-535"].failing("nvmlDeviceGetCount_v2", 17))
    assert asked(env) == [
        "NoNvml",
        "NVIDIA's management library failed: The operating system has blocked the request.",
        "nvidia-smi must work first",
    ]


def test_a_machine_without_a_driver_is_told_as_such(tmp_path: Path) -> None:
    assert asked({}, f"nvml.LIBRARIES = ('{tmp_path}/none.so', '{tmp_path}/neither.so')") == [
        "NoDriver",
        "this machine has no NVIDIA driver: there is no libnvidia-ml.so.1",
        "install the driver, until nvidia-smi lists the GPUs",
    ]


def test_a_library_that_is_no_library_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "libnvidia-ml.so.1"
    broken.touch()
    assert asked({"LD_LIBRARY_PATH": str(tmp_path)}) == [
        "NoNvml",
        f"NVIDIA's library cannot be loaded: {broken}: file too short",
        "install the NVIDIA driver again",
    ]


def test_a_library_that_lacks_another_is_no_missing_driver(tmp_path: Path) -> None:
    library = tmp_path / "libnvidia-ml.so.1"
    for name, needs in (("libdxcore.so", []), ("libnvidia-ml.so.1", ["-L.", "-l:libdxcore.so"])):
        linked = ("-Wl,--no-as-needed", *needs, "-o", name)
        subprocess.run(
            ["cc", "-shared", "-x", "c", "/dev/null", "-x", "none", *linked],
            cwd=tmp_path,
            check=True,
        )
    (tmp_path / "libdxcore.so").unlink()
    assert asked({}, f"nvml.LIBRARIES = ('{tmp_path}/none.so', '{library}')") == [
        "NoNvml",
        "NVIDIA's library cannot be loaded: libdxcore.so: cannot open shared object file:"
        " No such file or directory",
        "install the NVIDIA driver again",
    ]


def test_a_library_that_only_wsl_has_is_found(nvml: Serve, tmp_path: Path) -> None:
    env = nvml(MACHINES["4090-550"])
    library = Path(env.pop("LD_LIBRARY_PATH"), "libnvidia-ml.so.1")
    answer = asked(env, f"nvml.LIBRARIES = ('{tmp_path}/none.so', '{library}')")
    assert answer["driver"] == "550.54.14"


@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByIndex_v2", "*"])
def test_a_lost_gpu_does_not_hide_the_others(nvml: Serve, function: str) -> None:
    whole = told(nvml(MACHINES["1080ti-535"])).gpus
    ill = MACHINES["1080ti-535"].card_failing(1, function, GPU_IS_LOST)
    found = told(nvml(ill)).gpus
    assert found[1] == Gpu(index=1, trouble="GPU is lost")
    assert (found[0], *found[2:]) == (whole[0], *whole[2:])


def test_a_gpu_that_is_lost_while_it_is_read_keeps_what_it_told(nvml: Serve) -> None:
    whole = told(nvml(MACHINES["t4-535"])).gpus[0]
    found = told(
        nvml(MACHINES["t4-535"].card_failing(0, "nvmlDeviceGetMemoryInfo", GPU_IS_LOST))
    ).gpus
    assert found == (
        Gpu(
            index=0,
            uuid=whole.uuid,
            name="Tesla T4",
            brand="nvidia",
            capability=(7, 5),
            trouble="GPU is lost",
        ),
    )


@pytest.mark.parametrize(
    ("function", "field", "unknown"),
    [
        ("nvmlSystemGetCudaDriverVersion", "cuda", None),
        ("nvmlSystemGetDriverVersion", "driver", ""),
        ("nvmlDeviceGetUUID", "uuid", ""),
        ("nvmlDeviceGetName", "name", ""),
        ("nvmlDeviceGetBrand", "brand", ""),
        ("nvmlDeviceGetCudaComputeCapability", "capability", None),
        ("nvmlDeviceGetMemoryInfo", "memory", 0),
        ("nvmlInitWithFlags", "", None),
    ],
)
def test_a_function_that_a_driver_lacks_is_only_not_known(
    nvml: Serve, function: str, field: str, unknown: object
) -> None:
    machine = MACHINES["a100-535"]
    expected = asked(nvml(machine))
    place = expected if field in expected else expected["gpus"][0]
    if field:
        place[field] = unknown
    assert asked(nvml(replace(machine, without=frozenset({function})))) == expected


def test_a_gpu_whose_memory_is_the_machines_own_has_no_size(nvml: Serve) -> None:
    found = told(
        nvml(MACHINES["t4-535"].card_failing(0, "nvmlDeviceGetMemoryInfo", NOT_SUPPORTED))
    ).gpus[0]
    assert (found.memory, found.trouble) == (0, "")


BRANDS = {0: "unknown", 1: "quadro", 5: "geforce", 11: "cloudgaming", 16: "titanrtx", 18: "unknown"}


@pytest.mark.parametrize(("number", "brand"), BRANDS.items())
def test_a_brand_is_spelt_as_images_ask_for_it(nvml: Serve, number: int, brand: str) -> None:
    machine = MACHINES["t4-535"].with_card(0, brand=number)
    assert told(nvml(machine)).gpus[0].brand == brand


def test_nvml_is_loaded_once_and_left_closed(nvml: Serve) -> None:
    program = (
        "import json, pynvml\n"
        "from gpubox.gpus.nvml import machine\n"
        "same = machine() == machine()\n"
        "try:\n"
        "    pynvml.nvmlDeviceGetCount()\n"
        "    closed = False\n"
        "except pynvml.NVMLError_Uninitialized:\n"
        "    closed = True\n"
        "loaded = {line.split()[-1] for line in open('/proc/self/maps') if 'nvidia-ml' in line}\n"
        "print(json.dumps([same, closed, len(loaded)]))\n"
    )
    assert child(program, nvml(MACHINES["8xa100-535"])) == [True, True, 1]


# --- who uses a GPU, and how it is divided


def seen(env: dict[str, str]) -> tuple[Device, ...]:
    """gpubox's records of what happens on each GPU."""
    answer = asked(env, what="devices")
    assert isinstance(answer, list), answer
    return tuple(msgspec.convert(device, Device) for device in answer)


BUSY = {
    "used": 900 * MIB,
    "reserved": 100 * MIB,
    "utilization": (97, 41),
    "temperature": 83,
    "processes": (
        Process(4711, 700 * MIB),
        Process(12, 50 * MIB, "graphics"),
        Process(4711, 700 * MIB, "graphics"),
        Process(13, 60 * MIB, "mps"),
    ),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_what_happens_on_a_gpu_is_seen_on_every_driver(nvml: Serve, machine: str) -> None:
    on = MACHINES[machine]
    first, *others = seen(nvml(on.with_card(0, **BUSY)))
    branch = int(on.driver.partition(".")[0])
    card = on.cards[0]
    shares = branch >= 455  # before, MPS' clients were not told apart from others
    assert first == Device(
        index="0",
        uuid=card.uuid,
        name=card.name,
        minor=0,
        memory=card.memory,
        used=(900 if branch >= 510 else 1000) * MIB,
        utilization=None if card.migs else 97,
        temperature=83,
        processes=(
            *((Listed(13, 60 * MIB),) if shares else ()),
            Listed(4711, 700 * MIB),
            Listed(12, 50 * MIB, True),
        ),
        divided=bool(card.migs),
    )
    assert {device.processes for device in others} <= {()}
    whole = [device.index for device in others if ":" not in device.index]
    assert whole == [str(index) for index in range(1, len(on.cards))]


def test_each_instance_of_a_divided_gpu_has_its_own(nvml: Serve) -> None:
    on = MACHINES["a100-mig-535"]
    first, second, third = on.cards[0].migs
    work = Process(4711, 700 * MIB, instance=second.instance)
    migs = (first, replace(second, used=700 * MIB), third)
    whole, *instances = seen(nvml(on.with_card(0, processes=(work,), migs=migs)))
    told = (Listed(4711, 700 * MIB),)
    assert (whole.divided, whole.processes) == (True, told)
    assert instances == [
        Device(
            index=f"0:{number}",
            uuid=mig.uuid,
            name=mig.name,
            memory=mig.memory,
            used=mig.used,
            processes=told if mig == migs[1] else (),
        )
        for number, mig in enumerate(migs)
    ]


@pytest.mark.parametrize("machine", ["1080ti-367.48", "1080ti-535"])
@pytest.mark.parametrize("code", [NOT_SUPPORTED, NO_PERMISSION])
def test_processes_that_are_not_told_are_not_known_and_no_trouble(
    nvml: Serve, machine: str, code: int
) -> None:
    on = MACHINES[machine].with_card(1, **BUSY)
    for version in ("", "_v2", "_v3"):
        on = on.card_failing(1, f"nvmlDeviceGetComputeRunningProcesses{version}", code)
    found = seen(nvml(on))
    assert (found[1].processes, found[1].trouble, found[1].temperature) == (None, "", 83)
    assert found[0].processes == ()


@pytest.mark.parametrize("machine", ["1080ti-367.48", "1080ti-535"])
def test_more_processes_than_expected_are_all_listed(nvml: Serve, machine: str) -> None:
    many = tuple(Process(pid, pid * MIB) for pid in range(1, 40))
    found = seen(nvml(MACHINES[machine].with_card(2, processes=many)))[2]
    assert found.processes == tuple(Listed(pid, pid * MIB) for pid in range(1, 40))


@pytest.mark.parametrize("machine", ["1080ti-367.48", "1080ti-535"])
def test_a_processs_memory_that_is_not_told_is_not_known(nvml: Serve, machine: str) -> None:
    untold = Process(7, (1 << 64) - 1)
    found = seen(nvml(MACHINES[machine].with_card(0, processes=(untold,))))[0]
    assert found.processes == (Listed(7, None),)


@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByIndex_v2", "*"])
def test_a_lost_gpu_hides_nothing_of_the_others(nvml: Serve, function: str) -> None:
    ill = MACHINES["1080ti-535"].card_failing(1, function, GPU_IS_LOST)
    found = seen(nvml(ill))
    assert found[1] == Device(index="1", trouble="GPU is lost")
    assert [device.temperature for device in found] == [40, None, 40, 40]


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlDeviceGetUUID", "uuid"),
        ("nvmlDeviceGetName", "name"),
        ("nvmlDeviceGetMinorNumber", "minor"),
        ("nvmlDeviceGetMemoryInfo", "used"),
        ("nvmlDeviceGetUtilizationRates", "utilization"),
        ("nvmlDeviceGetTemperature", "temperature"),
        ("nvmlDeviceGetMigMode", "divided"),
    ],
)
def test_what_is_lost_on_the_way_is_told_with_what_is_known(
    nvml: Serve, function: str, field: str
) -> None:
    on = MACHINES["1080ti-535"].with_card(0, **BUSY)
    whole = seen(nvml(on))[0]
    ill = on.card_failing(0, function, GPU_IS_LOST)
    if field == "used":
        ill = ill.card_failing(0, "nvmlDeviceGetMemoryInfo_v2", GPU_IS_LOST)
    unknown = {"uuid": "", "name": "", "divided": False}.get(field)
    expected = msgspec.structs.replace(whole, trouble="GPU is lost", **{field: unknown})
    if field == "used":
        expected = msgspec.structs.replace(expected, memory=None)
    assert seen(nvml(ill))[0] == expected


def test_a_driver_that_is_not_loaded_tells_of_no_processes(nvml: Serve) -> None:
    env = nvml(MACHINES["t4-535"].failing("nvmlInit", DRIVER_NOT_LOADED))
    assert asked(env, what="devices")[:2] == [
        "NoNvml",
        "the NVIDIA driver is not loaded on this machine",
    ]


def test_many_looks_keep_the_driver_awake_and_see_what_changes(nvml: Serve) -> None:
    env = nvml(MACHINES["8xa100-535"])
    program = (
        "import json, pynvml\n"
        "from gpubox.gpus import nvml\n"
        "with nvml.awake():\n"
        "    first = len(nvml.devices())\n"
        f"    open('{env['SIMULATED_NVML']}', 'a').write('gpu\\nuuid GPU-9\\n')\n"
        "    found = [first, len(nvml.devices()), pynvml.nvmlDeviceGetCount()]\n"
        "try:\n"
        "    pynvml.nvmlDeviceGetCount()\n"
        "except pynvml.NVMLError_Uninitialized:\n"
        "    print(json.dumps(found))\n"
    )
    assert child(program, env) == [8, 9, 9]


def test_a_machine_without_a_driver_has_none_to_keep_awake(tmp_path: Path) -> None:
    program = (
        "from gpubox.gpus import nvml\n"
        f"nvml.LIBRARIES = ('{tmp_path}/none.so',)\n"
        "with nvml.awake():\n"
        "    print('[]')\n"
    )
    assert child(program, {}) == []


# --- what the simulated library serves beside: who uses a GPU, and how it is divided

USE = """
import json
from pynvml import *
nvmlInit()
device = nvmlDeviceGetHandleByIndex(0)
def processes(call, device=device):
    return [[p.pid, p.usedGpuMemory, p.gpuInstanceId] for p in call(device)]
print(json.dumps({what}))
nvmlShutdown()
"""


def used(env: dict[str, str], what: str) -> Any:
    """What nvidia-ml-py gives for an expression."""
    return child(USE.format(what=what), env)


def test_a_gpu_in_use_is_seen_in_use(nvml: Serve) -> None:
    busy = MACHINES["1080ti-535"].with_card(
        0,
        used=900,
        reserved=100,
        utilization=(97, 41),
        temperature=83,
        persistence=True,
        processes=(Process(4711, 700), Process(12, 200, "graphics")),
    )
    env = nvml(busy)
    total = 11264 * MIB
    memory = "nvmlDeviceGetMemoryInfo(device{}).{}"
    assert used(env, memory.format("", "used")) == 1000
    assert used(env, memory.format("", "free")) == total - 1000
    assert used(env, memory.format(", nvmlMemory_v2", "used")) == 900
    assert used(env, memory.format(", nvmlMemory_v2", "reserved")) == 100
    assert used(env, "nvmlDeviceGetUtilizationRates(device).gpu") == 97
    assert used(env, "nvmlDeviceGetUtilizationRates(device).memory") == 41
    assert used(env, "nvmlDeviceGetTemperature(device, NVML_TEMPERATURE_GPU)") == 83
    assert used(env, "nvmlDeviceGetPersistenceMode(device)") == 1
    assert used(env, "nvmlDeviceGetPciInfo(device).busId") == "00000000:01:00.0"
    assert used(env, "nvmlSystemGetNVMLVersion()") == "12.535.183.01"
    alone = 0xFFFFFFFF
    compute, graphics = "nvmlDeviceGetComputeRunning", "nvmlDeviceGetGraphicsRunning"
    assert used(env, f"processes({compute}Processes)") == [[4711, 700, alone]]
    assert used(env, f"processes({graphics}Processes)") == [[12, 200, alone]]
    assert used(env, f"nvmlDeviceGetIndex(nvmlDeviceGetHandleByUUID('{busy.cards[3].uuid}'))") == 3


@pytest.mark.parametrize(
    ("machine", "versions"),
    [
        ("1080ti-367.48", [""]),
        ("a100-470", ["", "_v2"]),
        ("a100-535", ["", "_v2", "_v3"]),
    ],
)
def test_a_driver_lists_processes_by_the_calls_of_its_time(
    nvml: Serve, machine: str, versions: list[str]
) -> None:
    busy = MACHINES[machine].with_card(0, processes=(Process(4711, 700), Process(4712, 800)))
    program = (
        "import ctypes, json, struct\n"
        "library = ctypes.CDLL('libnvidia-ml.so.1')\n"
        "library.nvmlInit_v2()\n"
        "gpu, found = ctypes.c_void_p(), {}\n"
        "library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(gpu))\n"
        "for version, form in {'': '@IQ', '_v2': '@IQII', '_v3': '@IQII'}.items():\n"
        "    call = getattr(library, f'nvmlDeviceGetComputeRunningProcesses{version}', None)\n"
        "    if call:\n"
        "        count, room = ctypes.c_uint(2), ctypes.create_string_buffer(48)\n"
        "        call(gpu, ctypes.byref(count), room)\n"
        "        listed = struct.iter_unpack(form, room.raw[: 2 * struct.calcsize(form)])\n"
        "        found[version] = [process[:2] for process in listed]\n"
        "print(json.dumps(found))\n"
    )
    both = [[4711, 700], [4712, 800]]
    assert child(program, nvml(busy)) == dict.fromkeys(versions, both)


def test_a_divided_gpu_has_its_mig_devices(nvml: Serve) -> None:
    machine = MACHINES["a100-mig-535"]
    first, second, third = machine.cards[0].migs
    env = nvml(
        machine.with_card(
            0, processes=(Process(4711, 700, instance=(2, 0)), Process(12, 50, instance=(9, 0)))
        )
    )
    migs = (
        "(lambda migs: [[nvmlDeviceGetUUID(m), nvmlDeviceGetName(m), nvmlDeviceGetGpuInstanceId(m),"
        " nvmlDeviceGetMemoryInfo(m).total, processes(nvmlDeviceGetComputeRunningProcesses, m),"
        " nvmlDeviceGetAttributes(m).gpuInstanceSliceCount,"
        " nvmlDeviceGetUUID(nvmlDeviceGetDeviceHandleFromMigDeviceHandle(m))] for m in migs])"
        "([nvmlDeviceGetMigDeviceHandleByIndex(device, i) for i in range(3)])"
    )
    gpu = machine.cards[0].uuid
    gib = 1024 * MIB
    assert used(env, "nvmlDeviceGetMigMode(device)") == [1, 1]
    assert used(env, "nvmlDeviceGetMaxMigDeviceCount(device)") == 7
    assert used(env, migs) == [
        [first.uuid, first.name, 2, 20 * gib, [[4711, 700, 2]], 3, gpu],
        [second.uuid, second.name, 9, 5 * gib, [[12, 50, 9]], 1, gpu],
        [third.uuid, third.name, 10, 5 * gib, [], 1, gpu],
    ]
    every = "processes(nvmlDeviceGetComputeRunningProcesses)"
    assert used(env, every) == [[4711, 700, 2], [12, 50, 9]]


def test_what_changes_on_a_machine_is_seen_at_the_next_look(nvml: Serve, tmp_path: Path) -> None:
    env = nvml(MACHINES["8xa100-535"])
    program = (
        "import json, sys\n"
        "from gpubox.gpus.nvml import machine\n"
        "first = len(machine().gpus)\n"
        f"open('{env['SIMULATED_NVML']}', 'a').write('gpu\\nuuid GPU-9\\n')\n"
        "print(json.dumps([first, len(machine().gpus)]))\n"
    )
    assert child(program, env) == [8, 9]
