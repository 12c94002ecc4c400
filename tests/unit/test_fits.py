"""Whether an image runs on a machine: each verdict against what was worked out by hand from data/.

By hand: a driver knows the newest CUDA whose first driver it is not older than (cuda_driver.csv);
the hook asks for that CUDA or one of the image's exceptions; code runs from the lowest compute
capability of the toolkit on (cuda_arch.csv, gpu_cc.csv), and is doubtful above its highest.
"""

from __future__ import annotations

import pytest

from gpubox.checks import DRIVER, GPU
from gpubox.gpus.machine import Gpu, Machine
from gpubox.images import demands, fits
from gpubox.images.demands import Demand


def gpu(name: str, brand: str, capability: tuple[int, int] | None, index: int = 0) -> Gpu:
    return Gpu(index=index, uuid=f"GPU-{index}", name=name, brand=brand, capability=capability)


GTX = gpu("NVIDIA GeForce GTX 1080 Ti", "geforce", (6, 1))
A100 = gpu("NVIDIA A100-SXM4-40GB", "nvidia", (8, 0))
MACHINES = {
    # drivers of that time tell neither their CUDA nor a GPU's compute capability
    "1080ti-367.35": Machine("367.35", None, (gpu("GeForce GTX 1080 Ti", "geforce", None),)),
    "1080ti-367.48": Machine("367.48", None, (gpu("GeForce GTX 1080 Ti", "geforce", None),)),
    "1080ti-535": Machine("535.183.01", (12, 2), (GTX,)),
    "1080ti-580": Machine("580.65.06", (13, 0), (GTX,)),
    "t4-535": Machine("535.183.01", (12, 2), (gpu("Tesla T4", "nvidia", (7, 5)),)),
    "v100-580": Machine("580.65.06", (13, 0), (gpu("Tesla V100-SXM2-16GB", "tesla", (7, 0)),)),
    "a100-470": Machine("470.57.02", (11, 4), (A100,)),
    "a100-535": Machine("535.183.01", (12, 2), (A100,)),
    "h100-535": Machine("535.183.01", (12, 2), (gpu("NVIDIA H100 PCIe", "nvidia", (9, 0)),)),
    "4090-550": Machine("550.54.14", (12, 4), (gpu("NVIDIA GeForce RTX 4090", "geforce", (8, 9)),)),
    "5090-570": Machine("570.26", (12, 8), (gpu("NVIDIA GeForce RTX 5090", "geforce", (12, 0)),)),
    "mixed-535": Machine("535.183.01", (12, 2), (GTX, gpu(A100.name, "nvidia", (8, 0), 1))),
}
IMAGES = {
    "8.0": "8.0-cudnn5-devel",
    "9.0": "9.0-cudnn7-devel",
    "10.2": "10.2-cudnn7-devel",
    "11.0": "11.0.3-cudnn8-devel-ubuntu20.04",
    "11.3": "11.3.1-devel-ubuntu20.04",
    "11.7": "11.7.1-devel-ubuntu22.04",
    "11.8": "11.8.0-cudnn8-devel-ubuntu22.04",
    "12.0": "12.0.1-base-ubuntu22.04",
    "12.2": "12.2.2-cudnn8-devel-ubuntu22.04",
    "12.4": "12.4.1-cudnn-devel-ubuntu22.04",
    "12.6": "12.6.3-cudnn-devel-ubuntu24.04",
    "12.8": "12.8.1-cudnn-devel-ubuntu24.04",
    "12.9": "12.9.1-cudnn-devel-ubuntu24.04",
    "13.0": "13.0.2-cudnn-devel-ubuntu24.04",
    "13.1": "13.1.0-devel-ubuntu24.04",
    "13.3": "13.3.0-cudnn-devel-ubuntu24.04",
}
# + runs; d, g: impossible for the driver, the GPU; D, G: doubtful for it
TABLE = """
               8.0 9.0 10.2 11.0 11.3 11.7 11.8 12.0 12.2 12.4 12.6 12.8 12.9 13.0 13.1 13.3
1080ti-367.35  d   d   d    d    d    d    d    d    d    d    d    d    d    dg   dg   dg
1080ti-367.48  +   d   d    d    d    d    d    d    d    d    d    d    d    dg   dg   dg
1080ti-535     +   +   +    +    +    +    +    +    +    +    d    d    d    dg   dg   dg
1080ti-580     +   +   +    +    +    +    +    +    +    +    +    +    +    g    dg   dg
t4-535         G   G   +    +    +    +    +    +    +    +    +    +    +    +    +    D
v100-580       G   +   +    +    +    +    +    +    +    +    +    +    +    g    g    Dg
a100-470       G   G   G    +    +    +    +    +    +    +    +    +    d    d    d    D
a100-535       G   G   G    +    +    +    +    +    +    +    +    +    +    +    +    D
h100-535       G   G   G    G    G    G    +    +    +    +    +    +    +    +    +    D
4090-550       G   G   G    G    G    G    +    +    +    +    d    d    d    d    d    d
5090-570       G   G   G    G    G    G    G    G    G    G    G    +    d    d    d    d
mixed-535      G   G   G    +    +    +    +    +    +    +    d    d    d    dg   dg   dg
"""
HEAD, *ROWS = [line.split() for line in TABLE.strip().splitlines()]
CELLS = [
    (machine, cuda, verdict)
    for machine, *verdicts in ROWS
    for cuda, verdict in zip(HEAD, verdicts, strict=True)
]


def demand(cuda: str) -> Demand:
    found = demands.of_image(f"nvidia/cuda:{IMAGES[cuda]}")
    assert found is not None
    return found


def verdict(cuda: str, machine: Machine, *, gated: bool = True) -> str:
    image = f"nvidia/cuda:{IMAGES[cuda]}"
    found = fits.checks(image, demand(cuda), machine, machine.gpus, gated=gated)
    letters = {DRIVER: "d", GPU: "g"}
    said = [letters[it.id] if it.stops else letters[it.id].upper() for it in found]
    return "".join(said) or "+"


def test_the_table_covers_every_machine_and_image() -> None:
    assert len(CELLS) == len(MACHINES) * len(IMAGES) == 192


@pytest.mark.parametrize(("machine", "cuda", "expected"), CELLS)
def test_a_verdict_is_the_one_worked_out_by_hand(machine: str, cuda: str, expected: str) -> None:
    assert verdict(cuda, MACHINES[machine]) == expected


def messages(cuda: str, machine: str, *, gated: bool = True) -> list[str]:
    on = MACHINES[machine]
    image = f"nvidia/cuda:{IMAGES[cuda]}"
    found = fits.checks(image, demand(cuda), on, on.gpus, gated=gated)
    return [f"{it.evidence} | {it.fix}" for it in found]


def test_a_driver_that_is_too_old_is_told_with_both_ways_out() -> None:
    assert messages("12.8", "4090-550") == [
        "nvidia/cuda:12.8.1-cudnn-devel-ubuntu24.04 asks for CUDA 12.8, and the driver here,"
        " 550.54.14, knows CUDA 12.4 | take CUDA 12.4 or older: gpubox images lists what runs here;"
        " or update the driver to 570.26 or newer; or add -e NVIDIA_DISABLE_REQUIRE=1: most of its"
        " programs run on this driver"
    ]
    assert "NVIDIA_DISABLE_REQUIRE" not in messages("13.0", "4090-550")[0]  # of another major CUDA


def test_no_driver_is_advised_that_the_gpu_has_not() -> None:
    driver, gpu = messages("13.1", "1080ti-580")
    assert driver.endswith(
        "no driver helps: it takes 590.44.01, and GeForce GTX 1080 Ti ends with branch 580"
    )
    assert gpu == (
        "nvidia/cuda:13.1.0-devel-ubuntu24.04 has no code for GeForce GTX 1080 Ti (Pascal, 6.1):"
        " its CUDA 13.1 begins at compute capability 7.5 | take an older CUDA: gpubox images lists"
        " what runs here"
    )


def test_on_a_mixed_machine_the_gpus_that_it_runs_on_are_named() -> None:
    assert messages("12.6", "mixed-535") == [
        "nvidia/cuda:12.6.3-cudnn-devel-ubuntu24.04 asks for CUDA 12.6, and the driver here,"
        " 535.183.01, knows CUDA 12.2, too old for GeForce GTX 1080 Ti (Pascal, 6.1)"
        " | for it leave out that one: --gpus device=1"
    ]
    on = MACHINES["mixed-535"]
    assert not list(fits.checks("it", demand("12.6"), on, on.gpus[1:]))


def test_on_a_newer_gpu_the_warning_says_what_happens() -> None:
    (pascal,) = messages("8.0", "a100-535")
    assert "was made before A100-SXM4-40GB (Ampere, 8.0)" in pascal
    assert "programs fail, or are compiled for minutes when they first start" in pascal
    (ada,) = messages("11.7", "4090-550")
    assert "so code made for 8.7 is what runs" in ada


def test_by_cdi_nothing_is_refused_and_what_may_fail_is_told() -> None:
    assert verdict("12.8", MACHINES["4090-550"], gated=False) == "+"  # of one major CUDA
    assert verdict("12.8", MACHINES["a100-470"], gated=False) == "D"
    assert messages("13.0", "4090-550", gated=False) == [
        "programs in nvidia/cuda:13.0.2-cudnn-devel-ubuntu24.04 need driver 580 or newer: the"
        " driver here, 550.54.14, knows CUDA 12.4 | take CUDA 12.4 or older: gpubox images lists"
        " what runs here; or update the driver to 580 or newer"
    ]


def test_a_geforce_that_is_let_through_with_a_driver_of_an_older_major_cuda_is_doubtful() -> None:
    rtx = gpu("NVIDIA GeForce RTX 3090", "geforce", (8, 6))
    assert verdict("12.4", Machine("470.57.02", (11, 4), (rtx,))) == "D"
    assert verdict("12.4", Machine("470.57.02", (11, 4), (A100,))) == "+"


def test_of_a_machine_without_gpus_the_driver_alone_is_asked() -> None:
    assert verdict("12.4", Machine("550.54.14", (12, 4))) == "+"
    assert verdict("12.8", Machine("555.42.02", (12, 5))) == "d"
    # whose brand is not known, as the hook takes it
    assert verdict("12.8", Machine("550.54.14", (12, 4))) == "+"
    unheard_of = gpu("NVIDIA X9000", "nvidia", None)
    assert verdict("12.4", Machine("550.54.14", (12, 4), (unheard_of,))) == "+"


def test_a_driver_that_tells_nothing_is_not_held_against_an_image() -> None:
    assert verdict("13.0", Machine("unheard-of", None, (A100,))) == "+"


# --- the hook's little language


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("cuda>=12.2", True),
        ("cuda>=12.3", False),
        ("cuda>=12", True),
        ("cuda>=12.2.0", True),
        ("cuda<12.10", True),
        ("driver>=535,driver<536", True),
        ("driver>=535.183.1", True),
        ("driver>=535.183.02", False),
        ("brand=Tesla", False),
        ("brand=GEFORCE", True),
        ("brand!=tesla", True),
        ("arch>=6.1", True),
        ("arch>6.1", False),
        ("cuda>=13 brand=tesla,driver>=450 brand=geforce,driver>=535,driver<536", True),
        ("cuda>=13 brand=geforce,driver>=470,driver<471", False),
        ("  cuda>=13   cuda>=12 ", True),
        ("", True),
        ("nonsense", True),
        ("cuda=>12", True),
        ("cuda>=twelve", True),
        ("os=linux", True),
    ],
)
def test_a_condition_is_read_as_nvidias_hook_reads_it(condition: str, holds: bool) -> None:
    assert fits.satisfied(condition, MACHINES["1080ti-535"], GTX) == holds


def test_what_is_not_known_is_met() -> None:
    assert fits.satisfied("brand=tesla", MACHINES["1080ti-535"], None)
    assert fits.satisfied("arch>=9.0", MACHINES["1080ti-535"], None)


def said(condition: str, *gpus: Gpu) -> list[str]:
    on = MACHINES["1080ti-535"]
    found = fits.checks("it", Demand(cuda="8.0", requires=(condition,)), on, gpus)
    return [f"{each.evidence} | {each.fix}" for each in found]


def test_a_condition_that_asks_for_no_cuda_is_told_as_it_is() -> None:
    here = ", and here is driver 535.183.01 with CUDA 12.2 on GeForce GTX 1080 Ti (Pascal, 6.1)"
    for condition in ("arch>=7.0", "driver>=545", "brand=tesla,driver>=450", "cuda<12.0"):
        (told,) = said(condition, GTX)
        assert told == f"it asks for '{condition}'{here} | gpubox images lists what runs here"
    assert said("arch>=7.0", GTX, A100)[0].endswith("leave out that one: --gpus device=0")


def test_the_cuda_that_is_told_is_that_of_the_condition() -> None:
    (told,) = said("brand=tesla,driver>=450 cuda>=12.10", GTX)
    assert told.startswith("it asks for CUDA 12.10, and the driver here, 535.183.01, knows CUDA 12")


def test_a_gpu_that_cannot_be_read_is_neither_judged_nor_advised() -> None:
    lost = Gpu(index=1, trouble="GPU is lost")
    on = Machine("535.183.01", (12, 2), (GTX, lost))
    assert on.sound == (GTX,)
    _, found = fits.checks("it", demand("13.0"), on, on.sound)
    assert found.fix.startswith("take an older CUDA")


# --- choosing


def test_the_first_image_that_fits_is_chosen_with_the_reason() -> None:
    images = [f"nvidia/cuda:{IMAGES[cuda]}" for cuda in ("13.0", "12.9", "12.8", "12.2")]
    on = MACHINES["a100-470"]
    chosen = fits.choose(images, on, on.gpus)
    assert chosen == fits.Choice(
        images[2], "driver 470.57.02 (CUDA 11.4) runs on A100-SXM4-40GB (Ampere, 8.0)"
    )
    assert fits.choose(images, MACHINES["1080ti-580"], (GTX,)).image == images[1]
    assert fits.choose(images, MACHINES["5090-570"], MACHINES["5090-570"].gpus).image == images[2]


def test_where_nothing_is_known_it_is_the_first() -> None:
    images = [f"nvidia/cuda:{IMAGES[cuda]}" for cuda in ("13.0", "12.9")]
    assert fits.choose(images, None, ()) == fits.Choice(images[0], "")


def test_where_nothing_fits_it_is_what_a_newer_driver_would_run() -> None:
    images = [f"nvidia/cuda:{IMAGES[cuda]}" for cuda in ("13.0", "12.9", "12.8")]
    assert fits.choose(images, MACHINES["1080ti-367.35"], (GTX,)) == fits.Choice(
        images[1], "a newer driver than 367.35 runs on GeForce GTX 1080 Ti (Pascal, 6.1)"
    )
    assert fits.choose(images[1:], MACHINES["1080ti-367.35"], (GTX,)) == fits.Choice(images[1], "")


def test_what_is_doubtful_is_taken_before_what_is_impossible() -> None:
    images = [f"nvidia/cuda:{IMAGES[cuda]}" for cuda in ("12.9", "11.8")]
    on = MACHINES["5090-570"]
    assert fits.choose(images, on, on.gpus).image == images[1]
