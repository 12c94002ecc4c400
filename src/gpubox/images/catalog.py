"""NVIDIA's `nvidia/cuda` images: a choice of CUDA, cuDNN, flavor and OS becomes a reference.

Which tags exist and which were deleted is in data/cuda.json (made by scripts/catalog.py), read when
first needed. Knows nothing of profiles, YAML or Docker.
"""

from __future__ import annotations

import json
import re
from bisect import bisect
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

import msgspec
from msgspec.structs import replace

from gpubox.errors import UsageError, did_you_mean

State = Literal["live", "deleted", "unknown"]

AUTO = "auto"

_WORD = re.compile(
    r"(?P<cuda>\d+(?:\.\d+)*)|(?P<addon>cudnn\d*|tensorrt)|(?P<flavor>base|runtime|devel)"
    r"|(?P<os>(?:ubuntu|centos|ubi|rockylinux|oraclelinux|opensuse|amzn|azl|cm)[\d.]*)|(?P<rc>rc)"
)
_REFERENCE = re.compile(
    r"(?:(?:registry-1\.|index\.)?docker\.io/)?nvidia/cuda(?::(?P<tag>[\w.-]+))?"
)

# The last CUDA that makes code for Maxwell, Pascal and Volta (13 starts at Turing): with it the
# replacement of an old image still runs on the card that the old one ran on.
_SUCCESSOR = "12"
_SUCCESSOR_OS = {"centos": "rockylinux9", "rockylinux": "rockylinux9", "ubi": "ubi9"}


class CudaImageError(UsageError):
    """NVIDIA has published no such image; `key` names the field of `CudaChoice` at fault."""

    def __init__(self, key: str, problem: str, hint: str) -> None:
        super().__init__(problem, hint)
        self.key = key


class CudaChoice(msgspec.Struct, frozen=True):
    """`cuda`: "auto", "12", "12.4" (the newest such with a live tag) or "12.4.1" (exactly that).

    `cudnn`: its major number; "" is the newest that this CUDA has, None an image without.
    """

    cuda: str
    cudnn: str | None = None
    flavor: str = "devel"
    os: str | None = None


class TagStatus(msgspec.Struct, frozen=True):
    """`when` is, for a live tag, the ISO date of the listing that showed it; for a deleted one the
    time of the deletion, worded to follow "in" ("June 2023"). None if not known."""

    state: State
    when: str | None = None


class Tag(NamedTuple):
    """`CUDA[-ADDON]-FLAVOR[-OS][-rc]`; aliases from 2015 to 2018 lack more parts, `latest` all."""

    cuda: str = ""
    addon: str = ""
    flavor: str = ""
    os: str = ""
    rc: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, self)) or "latest"


class _Version(TypedDict, total=False):
    released: str  # month of the toolkit, "2016-09"
    cudnn: str  # the major version in tags that say `cudnn` without a number
    holds: dict[str, str]  # the whole version of each cuDNN, by its major one
    needs: tuple[str, str, str, list[str] | None, list[str] | None]  # see scripts/catalog.py
    tags: list[tuple[State, str, str, str]]  # state, when, parts, OSes: every part on every OS


class Data(TypedDict):
    listed: str
    first_drivers: dict[str, str]
    supports: dict[str, tuple[str, str]]
    capabilities: dict[str, tuple[str, str, str]]  # generation, last branch of drivers, models
    frameworks: dict[str, tuple[str, str, str, str]]
    sizes: dict[str, tuple[float, float]]  # GB to download and on disk; 0: not known
    versions: dict[str, _Version]


class Listed(NamedTuple):
    """A tag of `nvidia/cuda`, and what is known of it.

    `cudnn` is a major version. `when` is the date of the listing that showed a live tag, the time
    at which a deleted one was deleted.
    """

    tag: Tag
    cudnn: str | None
    state: State
    when: str

    @property
    def image(self) -> str:
        return f"nvidia/cuda:{self.tag}"

    @property
    def is_heard_of(self) -> bool:
        """Whether anybody ever named this very tag; else only other versions' tags suggest it."""
        return self.state != "unknown" or bool(self.when)

    @property
    def cudnn_version(self) -> str:
        """The whole version, where it is known."""
        holds = data()["versions"][self.tag.cuda].get("holds", {})
        return holds.get(self.cudnn or "", self.cudnn or "")


def parse_tag(text: str) -> Tag | None:
    found = _read([] if text == "latest" else text.split("-"))
    tag = Tag(**found) if found is not None else None
    return tag if str(tag) == text else None


def parse_name(name: str) -> CudaChoice | None:
    """A profile's name that reads as a CUDA image, such as `cuda12.4-cudnn-runtime`; the order of
    its parts is free. Whether NVIDIA has such an image is for `image` to say."""
    found = _read(re.sub(r"\bcuda(?=\d)", "", name, count=1).split("-"))
    if not found or f"cuda{found.get('cuda')}" not in name.split("-"):
        return None
    addon = found.get("addon")
    if addon == "tensorrt" or "rc" in found:
        return None
    cudnn = None if addon is None else addon.removeprefix("cudnn")
    return CudaChoice(found["cuda"], cudnn, found.get("flavor", "devel"), found.get("os"))


def nearest_name(word: str) -> str:
    """The name that `cuda12.4-cudn`, `CUDA 12.4` or `12.4-cudnn8.9` means, if NVIDIA has it."""
    from difflib import get_close_matches

    joined = re.sub(r"\b(cuda|cudnn|ubuntu)[-_= ]+(?=\d)", r"\1", word.lower())
    cuda, *parts = re.findall(r"[^-_,+= ]+", re.sub(r"^(?=\d)", "cuda", joined)) or [""]
    series = _series(cuda.removeprefix("cuda"))
    tags = [listed.tag for version in series for listed in _listed(version)]
    known = {part for tag in tags for part in tag[1:] if part}
    near = [
        part if is_part(part) else next(iter(get_close_matches(part, sorted(known), 1, 0.7)), "")
        for part in parts
    ]
    choice = parse_name("-".join((cuda, *near))) if all(near) else None
    try:
        return name(choice) if choice and candidates(choice) else ""
    except CudaImageError:
        return ""


def is_part(word: str) -> bool:
    """Whether a word is a part of a tag: a version, a cuDNN, a flavor, an OS."""
    return _kind(word) is not None


def name(choice: CudaChoice) -> str:
    """What `parse_name` reads back as `choice`."""
    cudnn = "" if choice.cudnn is None else f"cudnn{choice.cudnn}"
    flavor = "" if choice.flavor == "devel" else choice.flavor
    return "-".join(filter(None, (f"cuda{choice.cuda}", cudnn, flavor, choice.os)))


def image(choice: CudaChoice) -> str:
    """The reference `nvidia/cuda:TAG`: a live tag if any fits, else one that is merely expected,
    else a deleted one (`status` tells). Raises `CudaImageError`."""
    return candidates(choice)[0]


def candidates(choice: CudaChoice) -> tuple[str, ...]:
    """The references that fit a choice, the best first: of them the machine takes one.

    For "12" or "auto" they are the best live tag of each minor version, since an older driver runs
    only the older ones. Else it is one, as `image` says. Raises `CudaImageError`.
    """
    listed = [one for version in _series(choice.cuda) for one in _listed(version)]
    fitting = sorted((one for one in listed if _fits(one, choice)), key=_preference, reverse=True)
    if not fitting:
        raise _refusal(choice, listed)
    best = {minor(one.tag.cuda): one for one in reversed(fitting) if one.state == fitting[0].state}
    is_open = fitting[0].state == "live" and "." not in choice.cuda
    chosen = sorted(best.values(), key=_preference, reverse=True) if is_open else fitting[:1]
    return tuple(f"nvidia/cuda:{one.tag}" for one in chosen)


def status(image_reference: str) -> TagStatus:
    """What was last known of a tag. Other repositories and digests are "unknown"."""
    tag = tag_of(image_reference)
    listed = _listed(tag.cuda) if tag else []
    known = next((one for one in listed if one.tag == tag), None)
    if known is None and tag and tag.cuda and _all_deleted(listed):
        known = listed[-1]  # deletions are in the order of time
    if known is None or known.state == "unknown":
        return TagStatus("unknown")
    return TagStatus(known.state, known.when or None)


def successor(image_reference: str) -> str | None:
    """For a deleted image: the name to type instead for new code, such as `cuda12-cudnn`."""
    tag = tag_of(image_reference)
    if tag is None or status(image_reference).state != "deleted":
        return None
    cudnn = "" if tag.addon.startswith("cudnn") else None
    os = _SUCCESSOR_OS.get(tag.os.rstrip("0123456789."))
    return name(CudaChoice(_SUCCESSOR, cudnn, tag.flavor or "devel", os))


# --- the data


def listed() -> Iterator[Listed]:
    """Every tag that anybody ever named, the newest CUDA first."""
    for version in reversed(data()["versions"]):
        yield from (listed for listed in _listed(version) if listed.is_heard_of)


def minors() -> list[str]:
    """Every CUDA of which there was an image, newest first: `12.4`."""
    known = dict.fromkeys(minor(version) for version in data()["versions"] if version)
    return sorted(known, key=numbers, reverse=True)


@cache
def data() -> Data:
    file = Path(__file__).with_name("data") / "cuda.json"
    found: Data = json.loads(file.read_text(encoding="utf-8"))
    return found


@cache
def _listed(version: str) -> list[Listed]:
    facts = data()["versions"].get(version, _Version())
    listed = []
    for state, when, parts, systems in facts.get("tags", []):
        for part in parts.split():
            for os in systems.split():
                words = [word for word in (version, part, os) if word not in ("", "-")]
                tag = parse_tag("-".join(words))
                assert tag is not None, f"{version} {part} {os}"
                listed.append(Listed(tag, _cudnn_in(tag.addon, facts), state, when))
    return listed


def _all_deleted(listed: list[Listed]) -> bool:
    return bool(listed) and all(one.state == "deleted" for one in listed)


def _cudnn_in(addon: str, facts: _Version) -> str | None:
    if not addon.startswith("cudnn"):
        return None
    return addon.removeprefix("cudnn") or facts.get("cudnn", "")


def _read(words: Iterable[str]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for word in words:
        kind = _kind(word)
        if kind is None or kind in found:
            return None
        found[kind] = word
    return found


@cache
def _kind(word: str) -> str | None:
    match = _WORD.fullmatch(word)
    return match.lastgroup if match else None


def tag_of(image_reference: str) -> Tag | None:
    match = _REFERENCE.fullmatch(image_reference)
    return parse_tag(match["tag"] or "latest") if match else None


def numbers(version: str) -> tuple[int, ...]:
    """`12.4.1` as numbers that compare."""
    return tuple(int(number) for number in version.split("."))


def minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _series(cuda: str) -> list[str]:
    """The published versions that `cuda` stands for: "12" and "12.4" for several."""
    prefix = "" if cuda == AUTO else f"{cuda}."
    versions = filter(None, data()["versions"])
    return [version for version in versions if f"{version}.".startswith(prefix)]


def _fits(listed: Listed, choice: CudaChoice) -> bool:
    tag = listed.tag
    return (
        tag.flavor == choice.flavor
        and not tag.rc
        and tag.addon != "tensorrt"
        and (listed.cudnn == choice.cudnn or (choice.cudnn == "" and listed.cudnn is not None))
        and (tag.os == choice.os if choice.os else _is_default_os(tag.os))
    )


def _is_default_os(os: str) -> bool:
    return not os or re.fullmatch(r"ubuntu\d[02468]\.04", os) is not None


def _preference(listed: Listed) -> tuple[object, ...]:
    state = ("deleted", "unknown", "live").index(listed.state), bool(listed.when)
    return state, numbers(listed.tag.cuda), int(listed.cudnn or 0), _os_preference(listed.tag)


def _os_preference(tag: Tag) -> tuple[int, int]:
    """No OS, where tags without one exist. Else the newest Ubuntu LTS that had been out for three
    months when that CUDA came: a younger one has no point release yet and few others' packages.
    (The same rule gives the OS that NVIDIA itself meant by its tags without one, 9.0 to 11.4.)"""
    if not tag.os.startswith("ubuntu"):
        return 2, 0
    year = int(tag.os[len("ubuntu") :].split(".")[0])
    series = _series(minor(tag.cuda))
    months = [data()["versions"][version].get("released") for version in series]
    released = min(filter(None, months), default=data()["listed"])
    mature = f"20{year}-07" <= released
    return (1, year) if mature else (0, -year)


def _refusal(choice: CudaChoice, listed: list[Listed]) -> CudaImageError:
    """The error for a choice without an image: the first part, in a tag's order, that has none."""
    flavor, cudnn, cuda = choice.flavor, choice.cudnn, _cuda_text(choice)
    if not listed:
        return CudaImageError("cuda", f"nvidia/cuda has no {cuda}", _cuda_hint(choice.cuda))
    flavors = {one.tag.flavor for one in listed if one.tag.flavor}
    if flavor not in flavors:
        problem = f"nvidia/cuda has no flavor '{flavor}' of {cuda}"
        return CudaImageError("flavor", problem, did_you_mean(flavor, sorted(flavors)))
    if cudnn is not None and flavor == "base":
        problem = f"nvidia/cuda has no '{name(choice)}': base images are without cuDNN"
        return CudaImageError("flavor", problem, "flavors with cuDNN: devel, runtime")
    on_any_os = [one for one in listed if _fits(one, replace(choice, os=one.tag.os or None))]
    systems = {one.tag.os for one in on_any_os}
    if not systems:
        problem = f"nvidia/cuda has no {_cudnn_text(cudnn)} for {cuda}"
        return CudaImageError("cudnn", problem, _cudnn_hint(choice, listed))
    problem = f"nvidia/cuda has no '{name(replace(choice, os=None))}' on '{choice.os or 'ubuntu'}'"
    return CudaImageError("os", problem, did_you_mean(choice.os or "", sorted(systems - {""})))


def _cuda_hint(cuda: str) -> str:
    """The versions nearest to `cuda`: of the same minor version, else those before and after it."""
    if sisters := _series(minor(cuda)):
        return "there is: " + ", ".join(sisters)
    known = sorted({minor(version) for version in data()["versions"] if version}, key=numbers)
    if not re.fullmatch(r"\d+(\.\d+)*", cuda):
        return f"a CUDA version is said as in '{known[-1]}'"
    place = bisect(known, numbers(cuda), key=numbers)
    return "the nearest: CUDA " + " and ".join(known[max(place - 1, 0) : place + 1])


def _cudnn_hint(choice: CudaChoice, listed: list[Listed]) -> str:
    here = sorted({one.cudnn for one in listed if one.cudnn}, key=int)
    has = f"{_cuda_text(choice)} has " + (_cudnn_text(", ".join(here)) if here else "none")
    versions = filter(None, data()["versions"])
    having = [version for version in versions if _has_cudnn(version, choice.cudnn)]
    if not having:
        return f"{has}; a cuDNN is named by its major number"
    if sisters := [version for version in having if minor(version) == minor(choice.cuda)]:
        return f"{has}; CUDA {', '.join(sisters)} has it"
    cudnn, first, last = _cudnn_text(choice.cudnn), minor(having[0]), minor(having[-1])
    return f"{has}; {cudnn} is in CUDA {first} to {last}"


def _has_cudnn(version: str, cudnn: str | None) -> bool:
    return any(one.cudnn and cudnn in ("", one.cudnn) for one in _listed(version))


def _cuda_text(choice: CudaChoice) -> str:
    return "any CUDA" if choice.cuda == AUTO else f"CUDA {choice.cuda}"


def _cudnn_text(cudnn: str | None) -> str:
    return f"cuDNN {cudnn}" if cudnn else "cuDNN"
