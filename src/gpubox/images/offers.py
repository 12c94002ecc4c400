"""Lists the images that there are to run, the engine's and NVIDIA's, with what is known of each.

Pure: the engine's images and the machine come in, a list to choose from comes out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Literal

import msgspec

from gpubox.gpus.machine import Gpu, Machine
from gpubox.images import catalog, demands, fits
from gpubox.images.catalog import CudaChoice, CudaImageError, Listed
from gpubox.images.demands import Demand

Runs = Literal["yes", "no", "perhaps", "not known"]
Judge = Callable[[str, Demand | None], tuple[Runs, str]]


class Here(msgspec.Struct, frozen=True):
    """An image that the engine has: bytes on its disk, and the variables that it sets."""

    size: int
    variables: Mapping[str, str]


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One image. `name` is what to type for it; `when` is the time of its `state`, as in a Listed.

    `local` is None if no engine answered; `size` is the bytes on its disk if the image is there.
    """

    name: str
    image: str
    cuda: str = ""
    cudnn: str = ""
    flavor: str = ""
    os: str = ""
    state: catalog.State = "unknown"
    when: str = ""
    local: bool | None = None
    size: int | None = None
    runs: Runs = "not known"
    reason: str = ""


def choices(here: Mapping[str, Here] | None, machine: Machine | None) -> Iterator[Offer]:
    """The engine's images, then one to recommend for each CUDA that there is or was."""
    judge = _judge(machine)
    shown = set(here or ())
    for image, local in (here or {}).items():
        yield _of_here(image, local, judge)
    for cuda in catalog.minors():
        choice, image = _good(cuda)
        if image not in shown:
            yield _of_listed(_by_image()[image], here, judge, catalog.name(choice))


def all_of(here: Mapping[str, Here] | None, machine: Machine | None) -> Iterator[Offer]:
    """The engine's images, then every tag of NVIDIA's."""
    judge = _judge(machine)
    for image, local in (here or {}).items():
        yield _of_here(image, local, judge)
    for listed in sorted(catalog.listed(), key=_newest_first):
        if listed.image not in (here or {}):
            yield _of_listed(listed, here, judge, listed.image)


def matching(offers: Iterable[Offer], words: Sequence[str]) -> list[Offer]:
    """The offers that fit every word: a name's parts (`cuda12.4-cudnn`, `8.0`, `ubuntu22.04`), a
    state, `local`, or any piece of the image's name."""
    parts = [part for word in words for part in _parts(word)]
    return [offer for offer in offers if all(_fits(offer, part) for part in parts)]


def _parts(word: str) -> list[str]:
    """`cuda12.4-cudnn` is two words, `pytorch/pytorch:2.8.0-cuda12.6` one."""
    pieces = [re.sub(r"^cuda(?=\d)", "", piece) for piece in word.lower().split("-")]
    return pieces if all(map(catalog.is_part, pieces)) else [word.lower()]


def _fits(offer: Offer, part: str) -> bool:
    if re.fullmatch(r"\d+(\.\d+)*", part):
        return f"{offer.cuda}.".startswith(f"{part}.")
    if part in ("live", "deleted", "unknown"):
        return offer.state == part
    if part == "local":
        return bool(offer.local)
    if part == "cudnn":
        return bool(offer.cudnn)
    if re.fullmatch(r"cudnn\d[\d.]*", part):
        return f"{offer.cudnn}.".startswith(f"{part.removeprefix('cudnn')}.")
    if part in ("base", "runtime", "devel") and offer.flavor:
        return offer.flavor == part
    return part in offer.image


# --- each


def _of_here(image: str, local: Here, judge: Judge) -> Offer:
    demand = demands.of_variables(local.variables, image) or demands.of_image(image)
    runs, reason = judge(image, demand)
    if listed := _by_image().get(image):
        return msgspec.structs.replace(
            _facts(listed, image), local=True, size=local.size, runs=runs, reason=reason
        )
    return Offer(
        name=image,
        image=image,
        cuda=local.variables.get("CUDA_VERSION") or (demand.cuda if demand else ""),
        cudnn=local.variables.get("CUDNN_VERSION", ""),
        local=True,
        size=local.size,
        runs=runs if demand else "not known",
        reason=reason,
    )


def _of_listed(listed: Listed, here: Mapping[str, Here] | None, judge: Judge, name: str) -> Offer:
    runs, reason = judge(listed.tag.cuda, demands.of_image(listed.image))
    local = None if here is None else False
    return msgspec.structs.replace(_facts(listed, name), local=local, runs=runs, reason=reason)


def _facts(listed: Listed, name: str) -> Offer:
    tag = listed.tag
    return Offer(
        name=name,
        image=listed.image,
        cuda=tag.cuda,
        cudnn=listed.cudnn_version,
        flavor=tag.flavor,
        os=tag.os,
        state=listed.state,
        when=listed.when,
    )


def _newest_first(listed: Listed) -> tuple[object, ...]:
    cuda = [-number for number in catalog.numbers(listed.tag.cuda or "0")]
    return (*cuda, *[0] * (3 - len(cuda))), str(listed.tag)


@cache
def _by_image() -> dict[str, Listed]:
    return {listed.image: listed for listed in catalog.listed()}


def _good(cuda: str) -> tuple[CudaChoice, str]:
    """The image to recommend for a CUDA: one with cuDNN, if there ever was such an image."""
    with suppress(CudaImageError):
        choice = CudaChoice(cuda, "")
        if (image := catalog.image(choice)) in _by_image():
            return choice, image
    return CudaChoice(cuda), catalog.image(CudaChoice(cuda))


def _judge(machine: Machine | None) -> Judge:
    """A function that says whether a machine runs an image, and why not.

    It judges once for each `key`, since images with one key make the same demands.
    """
    known: dict[str, tuple[Runs, str]] = {}

    def judge(key: str, demand: Demand | None) -> tuple[Runs, str]:
        if machine is None or demand is None:
            return "not known", ""
        if key not in known:
            known[key] = _verdict(key, demand, machine)
        return known[key]

    return judge


def _verdict(image: str, demand: Demand, machine: Machine) -> tuple[Runs, str]:
    """Whether all GPUs run an image; if only some of several do, the reason names these."""
    ways: list[tuple[Gpu, ...]] = [(gpu,) for gpu in machine.sound]
    each = {gpus: list(fits.checks(image, demand, machine, gpus)) for gpus in ways or [()]}
    fine = [str(gpu.index) for gpus, found in each.items() if not found for gpu in gpus]
    if all(not found for found in each.values()):
        return "yes", ""
    if fine:
        return "yes", f"on GPU {', '.join(fine)}"
    possible = [found for found in each.values() if not any(check.stops for check in found)]
    briefs = [check.brief for found in possible or each.values() for check in found]
    return ("perhaps" if possible else "no"), "; ".join(dict.fromkeys(briefs))
