"""Whether a machine meets what an image asks for, as checks; and which of several fits it.

Pure: demands and a machine's GPUs in, checks out. Knows no engine and no NVML.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gpubox.checks import DRIVER, GPU, Check
from gpubox.gpus.machine import Capability, Gpu, Machine
from gpubox.images import demands
from gpubox.images.catalog import numbers
from gpubox.images.demands import GEFORCE, Demand

_COMPARE = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def checks(
    image: str, demand: Demand, machine: Machine, gpus: Sequence[Gpu], *, gated: bool = True
) -> Iterator[Check]:
    """What speaks against an image on these GPUs of a machine.

    `gated`: GPUs come by NVIDIA's hook, which refuses to start an image that asks for a newer CUDA
    than the driver's. By CDI it starts, and its programs may fail.
    """
    yield from _of_the_driver(image, demand, machine, gpus, gated)
    yield from _of_the_gpus(image, demand, gpus, machine.sound)


# --- the driver


def _of_the_driver(
    image: str, demand: Demand, machine: Machine, gpus: Sequence[Gpu], gated: bool
) -> Iterator[Check]:
    """One check at most: the hook's own condition first, then what its programs need."""
    barred = [gpu for gpu in gpus or (None,) if not _met(demand, machine, gpu)]
    told = f"the driver here, {machine.driver}, knows CUDA {cuda_of(machine)}"
    if barred and gated:
        passing = [gpu for gpu in gpus if gpu not in barred]
        unmet = next(each for each in demand.requires if not satisfied(each, machine, barred[0]))
        if not (asked := _CUDA_WAY.search(unmet)):
            yield _of_another_condition(image, unmet, machine, barred, passing)
            return
        maybe = not demand.sure and all(gpu and gpu.brand not in GEFORCE for gpu in barred)
        for_whom = f", too old for {_listed(barred)}" if passing else ""
        yield Check(
            DRIVER,
            "warn" if maybe else "fail",
            f"{image} asks for CUDA {asked[1]}, and {told}{for_whom}"
            + ("; NVIDIA may except it" if maybe else ""),
            _other_gpus(passing)
            or _newer_driver(demands.first_driver(asked[1]), machine, gpus)
            + (_WITHOUT_THE_HOOK if _runs(demand, machine) and not _too_old(demand, gpus) else ""),
            brief=f"the driver knows CUDA {cuda_of(machine)}",
        )
    elif not _runs(demand, machine) and not (gated and _comes_with_driver(demand, gpus)):
        yield Check(
            DRIVER,
            "fail" if not demand.requires and not demand.waived else "warn",
            f"programs in {image} need driver {_least_driver(demand)} or newer: {told}",
            _newer_driver(_least_driver(demand), machine, gpus),
            brief=f"the driver knows CUDA {cuda_of(machine)}",
        )


_CUDA_WAY = re.compile(r"(?:^|\s)cuda>=([\d.]+)(?!\S)")  # not joined to another condition
_WITHOUT_THE_HOOK = "; or add -e NVIDIA_DISABLE_REQUIRE=1: most of its programs run on this driver"


def _of_another_condition(
    image: str,
    condition: str,
    machine: Machine,
    barred: Sequence[Gpu | None],
    passing: Sequence[Gpu],
) -> Check:
    on = f" on {listed}" if (listed := _listed(barred)) else ""
    return Check(
        DRIVER,
        "fail",
        f"{image} asks for {condition!r}, and here is driver {machine.driver} with CUDA"
        f" {cuda_of(machine)}{on}",
        _other_gpus(passing) or "gpubox images lists what runs here",
        brief=f"it asks for {condition!r}",
    )


def _runs(demand: Demand, machine: Machine) -> bool:
    """Whether the driver knows the toolkit's CUDA, or is one of the older ones that run it too."""
    knows = cuda_of(machine)
    as_new = not knows or not demand.cuda or numbers(knows) >= numbers(demand.cuda)
    return as_new or _at_least(machine.driver, _least_driver(demand))


def _least_driver(demand: Demand) -> str:
    """The oldest driver for its programs; before CUDA 11 the first that knows its version."""
    return demand.least_driver or demands.first_driver(demand.cuda)


def _comes_with_driver(demand: Demand, gpus: Sequence[Gpu]) -> bool:
    """Whether the image's own, newer libcuda works: NVIDIA's images bring one, not for GeForce."""
    return bool(demand.requires) and not any(gpu.brand in GEFORCE for gpu in gpus)


def cuda_of(machine: Machine) -> str:
    """The newest CUDA that a machine's driver knows; empty if that cannot be known."""
    if machine.cuda:
        return "{}.{}".format(*machine.cuda)
    return (demands.cuda_of_driver(machine.driver) or "") if _is_version(machine.driver) else ""


def _met(demand: Demand, machine: Machine, gpu: Gpu | None) -> bool:
    return all(satisfied(condition, machine, gpu) for condition in demand.requires)


def satisfied(condition: str, machine: Machine, gpu: Gpu | None) -> bool:
    """Whether a GPU meets a condition in NVIDIA's notation: blanks are "or", commas "and".

    As libnvidia-container evaluates it. What cannot be known here counts as met.
    """
    known = {
        "cuda": cuda_of(machine),
        "driver": machine.driver,
        "arch": "{}.{}".format(*gpu.capability) if gpu and gpu.capability else "",
        "brand": gpu.brand if gpu else "",
    }
    ways = [way.split(",") for way in condition.split()]
    return not ways or any(all(_holds(term, known) for term in way if term) for way in ways)


def _holds(term: str, known: dict[str, str]) -> bool:
    match = re.fullmatch(r"(\w+)([<>=!]+)(\S+)", term)
    if not match or match[1].lower() not in known or match[2] not in _COMPARE:
        return True  # the hook will say that it does not understand it
    value, compare, bound = known[match[1].lower()], _COMPARE[match[2]], match[3]
    if not value:
        return True
    if match[1].lower() == "brand":
        return bool(compare(value.lower(), bound.lower()))
    if not _is_version(value) or not _is_version(bound):
        return True
    return bool(compare(*_alike(numbers(value), numbers(bound))))


def _is_version(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)*", text) is not None


def _alike(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Both at one length, because 12 is 12.0."""
    longest = max(len(one), len(other))
    fill = (0,) * longest
    return (one + fill)[:longest], (other + fill)[:longest]


def _at_least(driver: str, least: str) -> bool:
    return not least or not _is_version(driver) or numbers(driver) >= numbers(least)


def _newer_driver(driver: str, machine: Machine, gpus: Sequence[Gpu]) -> str:
    """The fix: another image, or a newer driver if these GPUs are not too old for it."""
    instead = f"take CUDA {cuda_of(machine)} or older: gpubox images lists what runs here"
    for gpu in gpus:
        made = _generation(gpu)
        if driver and made and made.last_driver and numbers(made.last_driver) < numbers(driver)[:1]:
            last = f"{gpu.name.removeprefix('NVIDIA ')} ends with branch {made.last_driver}"
            return f"{instead}; no driver helps: it takes {driver}, and {last}"
    return f"{instead}; or update the driver to {driver} or newer" if driver else instead


# --- the GPUs


def _of_the_gpus(
    image: str, demand: Demand, gpus: Sequence[Gpu], all_gpus: Sequence[Gpu]
) -> Iterator[Check]:
    if demand.capabilities is None:
        return
    lowest, highest = demand.capabilities
    too_old = _too_old(demand, gpus)
    too_new = [gpu for gpu in gpus if (capability(gpu) or highest) > highest]
    if too_old:
        fitting = [gpu for gpu in all_gpus if lowest <= (capability(gpu) or lowest) <= highest]
        yield Check(
            GPU,
            "fail",
            f"{image} has no code for {_listed(too_old)}: its CUDA {demand.cuda} begins at compute"
            f" capability {_text(lowest)}",
            _other_gpus(fitting) or "take an older CUDA: gpubox images lists what runs here",
            brief=f"no code for {_listed(too_old)}",
        )
    if too_new:
        yield Check(
            GPU,
            "warn",
            f"{image} was made before {_listed(too_new)}: its CUDA {demand.cuda} ends at compute"
            f" capability {_text(highest)}, so {_newer(too_new, highest)}",
            "take a newer CUDA: gpubox images lists what runs here",
            brief=f"made before {_listed(too_new)}",
        )


def _too_old(demand: Demand, gpus: Sequence[Gpu]) -> list[Gpu]:
    lowest = demand.capabilities[0] if demand.capabilities else (0, 0)
    return [gpu for gpu in gpus if (capability(gpu) or lowest) < lowest]


def _newer(gpus: Sequence[Gpu], highest: Capability) -> str:
    """What happens on GPUs newer than the image: its code runs only within one major capability."""
    if all((capability(gpu) or highest)[0] == highest[0] for gpu in gpus):
        return f"code made for {_text(highest)} is what runs"
    return "programs fail, or are compiled for minutes when they first start"


def capability(gpu: Gpu) -> Capability | None:
    """A GPU's compute capability, by its name where its driver does not tell."""
    return gpu.capability or demands.capability_of(gpu.name)


def _generation(gpu: Gpu) -> demands.Generation | None:
    known = capability(gpu)
    return demands.generation(known) if known else None


def _text(capability: Capability) -> str:
    return "{}.{}".format(*capability)


def _other_gpus(gpus: Sequence[Gpu]) -> str:
    if not gpus:
        return ""
    listed = ",".join(str(gpu.index) for gpu in gpus)
    return f"for it leave out that one: --gpus device={listed}"


def _listed(gpus: Sequence[Gpu | None]) -> str:
    """`GeForce GTX 1080 Ti (Pascal, 6.1)`; each model once."""
    words = []
    for gpu in filter(None, gpus):
        made, known = _generation(gpu), capability(gpu)
        said = ", ".join(filter(None, (made.name if made else "", _text(known) if known else "")))
        words.append(f"{gpu.name.removeprefix('NVIDIA ')} ({said})" if said else gpu.name)
    return " and ".join(dict.fromkeys(words))


# --- choosing


class Choice(NamedTuple):
    """The image that was chosen; `why` says what runs it, empty if it is the first of several."""

    image: str
    why: str


def choose(images: Sequence[str], machine: Machine | None, gpus: Sequence[Gpu]) -> Choice:
    """The first of the images about which there is the least doubt, even if that is IMPOSSIBLE."""
    if machine is None or len(images) == 1:
        return Choice(images[0], "")
    doubts = {image: doubt(image, machine, gpus) for image in images}
    best = min(images, key=lambda image: doubts[image])
    if best == images[0]:
        return Choice(best, "")
    on = f" on {_listed(gpus)}" if gpus else ""
    if doubts[best] >= IMPOSSIBLE:
        return Choice(best, f"a newer driver than {machine.driver} runs{on}")
    return Choice(best, f"driver {machine.driver} (CUDA {cuda_of(machine)}) runs{on}")


IMPOSSIBLE = 2  # with this driver; one more with this GPU, which no update changes


def least_doubt(images: Sequence[str], machine: Machine, gpus: Sequence[Gpu]) -> int:
    return min(doubt(image, machine, gpus) for image in images)


def doubt(image: str, machine: Machine, gpus: Sequence[Gpu]) -> int:
    """How doubtful an image is on GPUs, by its name: 0, 1 if it may run, IMPOSSIBLE or more."""
    demand = demands.of_image(image)
    against = checks(image, demand, machine, gpus) if demand else ()
    return max((_weight(check) for check in against), default=0)


def _weight(check: Check) -> int:
    if not check.stops:
        return 1
    return IMPOSSIBLE + 1 if check.id == GPU else IMPOSSIBLE
