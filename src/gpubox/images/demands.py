"""What an image asks of a machine: a driver, GPUs that its code was made for, room on the disk.

An image on the engine says so in its variables; for others the catalogue does. Pure; whether a
machine meets the demands is for `fits` to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from gpubox.gpus.machine import Capability
from gpubox.images.catalog import data, minor, numbers, tag_of

# Variables of an image that NVIDIA's hook reads to decide whether a box of it may start.
_REQUIRE, _DISABLE, _CUDA = "NVIDIA_REQUIRE_", "NVIDIA_DISABLE_REQUIRE", "CUDA_VERSION"
# The hook is written in Go, whose strconv.ParseBool takes these for true.
_TRUE = ("1", "t", "T", "TRUE", "true", "True")

GEFORCE = ("geforce", "geforcertx", "titan", "titanrtx")
_PROFESSIONAL = ("unknown", "nvidia", "nvidiartx", "quadro", "quadrortx")
_VIRTUAL = ("grid", "vapps", "vpc", "vcs", "vws", "cloudgaming")
_PUBLISHED_RATIO = 0.45  # an image's size in a registry divided by that on disk: 0.4 to 0.5


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What an image asks of a machine.

    `requires` are the conditions that NVIDIA's hook checks on each GPU before it lets a box start;
    they are not `sure` if NVIDIA's exceptions for older drivers are unknown, and `waived` if a
    variable switches them off. `cuda` is the toolkit in the image (`12.4`); `least_driver` is the
    oldest driver on which its programs run. `capabilities` are the lowest and the highest compute
    capability that it was made for.
    """

    cuda: str
    requires: tuple[str, ...] = ()
    sure: bool = True
    waived: bool = False
    least_driver: str = ""
    capabilities: tuple[Capability, Capability] | None = None


class Generation(NamedTuple):
    """A generation of GPUs, like `Pascal`; `last_driver` is the last branch for it, or empty."""

    name: str
    last_driver: str


class Size(NamedTuple):
    """Bytes to download and bytes on the disk, roughly."""

    download: int
    disk: int


def of_image(image: str) -> Demand | None:
    """What the catalogue knows by an image's name: NVIDIA's CUDA images, and a few others."""
    if facts := data()["frameworks"].get(image):
        cuda, least, low, high = facts
        return Demand(
            cuda=cuda, least_driver=least, capabilities=(_capability(low), _capability(high))
        )
    tag = tag_of(image)
    needs = data()["versions"].get(tag.cuda, {}).get("needs") if tag else None
    if tag is None or needs is None:
        return None
    _, least, anybody, geforce, tesla = needs
    cuda = minor(tag.cuda)
    return Demand(
        cuda=cuda,
        requires=(_requirement(cuda, anybody, geforce or [], tesla or []),),
        sure=tesla is not None,
        least_driver=least,
        capabilities=_capabilities(cuda),
    )


def of_variables(variables: Mapping[str, str], image: str) -> Demand | None:
    """What an image on the engine says in its variables.

    Images from before 2018 say only their CUDA's version, of which the hook makes the condition.
    """
    known = of_image(image)
    cuda = _cuda_in(variables.get(_CUDA, "")) or (known.cuda if known else "")
    requires = tuple(text for name, text in variables.items() if name.startswith(_REQUIRE) and text)
    if variables.get(_CUDA) and not variables.get(f"{_REQUIRE}CUDA"):
        requires = (*requires, f"cuda>={cuda}")
    cuda = cuda or _cuda_in(" ".join(requires))
    if not cuda:
        return None
    return Demand(
        cuda=cuda,
        requires=requires,
        sure=known is None or known.sure or requires != known.requires,
        least_driver=known.least_driver if known else _least_driver(cuda),
        capabilities=known.capabilities if known else _capabilities(cuda),
    )


def of_box(image: str, here: Mapping[str, str] | None, own: Mapping[str, str]) -> Demand | None:
    """What a box asks for.

    Its `own` variables overrule the image's: those `here` on the engine, or if that is None what
    the catalogue says. NVIDIA_DISABLE_REQUIRE among them waives the conditions.
    """
    if here is None and (known := of_image(image)):
        here = {f"{_REQUIRE}CUDA": " ".join(known.requires)}
    variables = {**(here or {}), **own}
    demand = of_variables(variables, image)
    if demand is None or variables.get(_DISABLE) not in _TRUE:
        return demand
    return replace(demand, requires=(), waived=True)


def _least_driver(cuda: str) -> str:
    versions = data()["versions"].items()
    needs = (facts["needs"] for name, facts in versions if name and minor(name) == cuda)
    return next((least for _, least, *_ in needs), "")


def _cuda_in(text: str) -> str:
    found = re.search(r"(?:^|cuda>=?)(\d+\.\d+)", text)
    return found[1] if found else ""


# From CUDA 12.5 on, all brands but the GeForce family have Tesla's exceptions for older drivers.
# Before, professional brands have GeForce's, and virtual GPUs none. This is from the archived
# Dockerfiles of NVIDIA's images.
def _requirement(cuda: str, anybody: str, geforce: list[str], tesla: list[str]) -> str:
    """NVIDIA_REQUIRE_CUDA as the image says it: blanks are "or", commas "and"."""
    later = numbers(cuda) >= (12, 5)
    excepted = {
        **dict.fromkeys(GEFORCE, geforce),
        **dict.fromkeys(_PROFESSIONAL, tesla if later else geforce),
        **dict.fromkeys(_VIRTUAL, tesla if later else []),
        "tesla": tesla,
    }
    exceptions = [
        f"brand={brand},driver>={branch},driver<{int(branch) + 1}"
        for brand, branches in excepted.items()
        for branch in branches
    ]
    any_brand = [f"driver>={anybody}"] if anybody else []
    return " ".join((f"cuda>={cuda}", *any_brand, *exceptions))


def _capabilities(cuda: str) -> tuple[Capability, Capability] | None:
    found = data()["supports"].get(cuda)
    return (_capability(found[0]), _capability(found[1])) if found else None


def _capability(text: str) -> Capability:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


# --- drivers and GPUs


def cuda_of_driver(driver: str) -> str | None:
    """The newest CUDA that a driver knows, by the drivers that NVIDIA released with each."""
    firsts = data()["first_drivers"].items()
    return next((cuda for cuda, first in firsts if numbers(driver) >= numbers(first)), None)


def first_driver(cuda: str) -> str:
    """The oldest driver that knows a CUDA; empty where that is not known."""
    return data()["first_drivers"].get(cuda, "")


def capability_of(model: str) -> Capability | None:
    """The compute capability of a GPU by its name, for drivers that do not tell it."""
    matches = [
        (len(known), capability)
        for capability, (_, _, models) in data()["capabilities"].items()
        for known in models.split("|")
        if re.search(rf"(?:^|[ -]){re.escape(known)}(?:$|[ -])", model)
    ]
    return _capability(max(matches)[1]) if matches else None


def generation(capability: Capability) -> Generation | None:
    known = data()["capabilities"].get("{}.{}".format(*capability))
    return Generation(*known[:2]) if known else None


# --- room


def size(image: str) -> Size | None:
    """The size of an image: measured, else that of the most similar CUDA image that was."""
    known = data()["sizes"]
    if image in known:
        return _whole(*known[image])
    tag = tag_of(image)
    if tag is None or not tag.cuda:
        return None
    flavor, major = tag.flavor or "devel", numbers(tag.cuda)[0]
    kinds = (f" {flavor} cudnn", f" {flavor}") if tag.addon else (f" {flavor}", f" {flavor} cudnn")
    for kind in kinds:
        like = {name: int(name.split()[0]) for name in known if name.endswith(kind)}
        if like:
            nearest = min(like, key=lambda name: (abs(like[name] - major), -like[name]))
            return _whole(*known[nearest])
    return None


def _whole(download: float, disk: float) -> Size:
    """A Size from GB; 0 means not known, and is estimated from the other figure."""
    download, disk = download or disk * _PUBLISHED_RATIO, disk or download / _PUBLISHED_RATIO
    return Size(int(download * 1e9), int(disk * 1e9))
