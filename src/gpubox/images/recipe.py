"""Turns the name of a deleted `nvidia/cuda` image into a Dockerfile that makes it again.

Pure. Packages and their versions are in data/packages.json (made by scripts/catalog.py), read when
first needed. Knows no engine and no profiles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from gpubox import values
from gpubox.errors import EngineError, UsageError
from gpubox.figures import listed
from gpubox.images import catalog
from gpubox.images.catalog import Tag

NVIDIA = "https://developer.download.nvidia.com/compute"
# Not `gpubox.version`: containers inherit an image's labels, and that one makes a box of them.
BUILT_FROM, BUILT_BY = "gpubox.built-from", "gpubox.built-by"
BASE_NAME = "org.opencontainers.image.base.name"
MACHINES = ("x86_64", "amd64")  # the one that the packages are for, as Docker and Podman spell it

_FLAVORS = ("base", "runtime", "devel")  # each includes those before it
_PATH = (
    "/usr/local/nvidia/bin:/usr/local/cuda/bin"
    ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)
_APT = "apt-get -o Acquire::Retries=3"
_UPDATE = f"{_APT} update"
_INSTALL = f"DEBIAN_FRONTEND=noninteractive {_APT} install -y --no-install-recommends"
_FORGET = "apt-get clean && rm -rf /var/lib/apt/lists/*"
_URL = re.compile(r"https?://[\w.:\[\]-]+(?:/[\w.~%+/-]*)?", re.ASCII)


# NVIDIA changed its key in April 2022: the new one signs the repositories that still grow, but not
# those of machine learning; for ubuntu1710 it is not documented. So whichever of the two lies
# beside the packages is trusted.
_KEYS = {
    "3bf863cc": "EB693B3035CD5710E231E123A4B469963BF863CC",
    "7fa2af80": "AE09FE4BBD223A84B2CCFCE3F60F4B3D7FA2AF80",
}
_LISTS = {"cuda": "cuda", "machine-learning": "nvidia-ml"}  # as in NVIDIA's images


class Group(NamedTuple):
    """Packages of one flavor and addon, from one repository; `pins` are their versions."""

    flavor: str
    addon: str
    repository: str
    pins: Mapping[str, str]


class Step(NamedTuple):
    """One instruction of the Dockerfile, and what it is for."""

    title: str
    instruction: str


class Recipe(msgspec.Struct, frozen=True):
    """All that a build needs. `base` is the image it starts from, `mirror` a URL for packages."""

    image: str
    base: str
    mirror: str
    steps: tuple[Step, ...]

    @property
    def dockerfile(self) -> str:
        head = f"# {self.image}, made again from packages by gpubox build.\n"
        return head + "".join(f"\n# {step.title}\n{step.instruction}\n" for step in self.steps)

    @property
    def is_checked(self) -> bool:
        """Whether the keys must be NVIDIA's own; a mirror may sign with one of its own."""
        return self.mirror == NVIDIA


def recipe(image: str, base: str | None = None, mirror: str | None = None, by: str = "") -> Recipe:
    """The recipe of a deleted image. Raises UsageError for one that it cannot make.

    `by` is who builds it, where that is known.
    """
    tag = _tag(image)
    os = _os(tag)
    made_on = os.replace("ubuntu", "ubuntu:") if base is None else _base(base)
    source = NVIDIA if mirror is None else _mirror(mirror)
    groups = _chosen(tag, os)
    steps = [
        Step("the base image", f"FROM {made_on}"),
        _tools(),
        *_packages(tag.cuda, groups, source),
        _settings(tag, groups),
        _labels(groups, made_on, source, by),
    ]
    return Recipe(image, made_on, source, tuple(steps))


def is_possible(image: str) -> bool:
    try:
        recipe(image)
    except UsageError:
        return False
    return True


def check_machine(architecture: str) -> None:
    """Refuse an engine for whose machine NVIDIA has no such packages."""
    if architecture not in MACHINES:
        raise EngineError(
            f"the packages are for x86_64, and the engine's machine is {architecture}",
            "docker context use NAME goes to another engine",
        )


# --- what can be made


@cache
def _data() -> dict[str, dict[str, tuple[Group, ...]]]:
    """The packages by CUDA and by OS; the first OS is the one that a tag without any means."""
    file = Path(__file__).with_name("data") / "packages.json"
    by_cuda: dict[str, dict[str, tuple[Group, ...]]] = {}
    for name, groups in json.loads(file.read_text(encoding="utf-8")).items():
        cuda, os = name.split()
        by_cuda.setdefault(cuda, {})[os] = tuple(Group(*group) for group in groups)
    return by_cuda


def _tag(image: str) -> Tag:
    """The parts of an image's tag; raises UsageError if the image cannot be made."""
    try:
        reference = values.reference(image)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if (reference.registry, reference.repository) != ("", "nvidia/cuda") or reference.digest:
        raise UsageError(
            f"{image} is none of NVIDIA's deleted nvidia/cuda images, which gpubox build makes",
            f"gpubox pull {image}",
        )
    tag = catalog.parse_tag(reference.tag)
    if tag is None:
        raise UsageError(
            f"nvidia/cuda never had a tag '{reference.tag}'",
            "a tag reads as in nvidia/cuda:8.0-cudnn5-devel",
        )
    state = catalog.status(f"nvidia/cuda:{tag}").state
    if state != "deleted":
        known = "is on Docker Hub" if state == "live" else "is not known to be deleted"
        raise UsageError(f"{image} {known}: there is nothing to build", f"gpubox pull {image}")
    return _possible(tag._replace(flavor=tag.flavor or "devel"), image)


def _possible(tag: Tag, image: str) -> Tag:
    """The tag, if there are packages for all of its parts."""
    systems = _data().get(tag.cuda)
    if systems is None:
        raise UsageError(
            f"gpubox build makes images of CUDA {listed(_data())}, and {image} is none",
            f"for new code: gpubox run {catalog.successor(f'nvidia/cuda:{tag}')}",
        )
    groups = [group for of_os in systems.values() for group in of_os]
    flavors = {group.flavor for group in groups}
    if tag.flavor not in flavors:
        there = listed(flavor for flavor in _FLAVORS if flavor in flavors)
        raise UsageError(f"CUDA {tag.cuda} has no flavor '{tag.flavor}'", f"there is: {there}")
    if tag.addon and tag.flavor == "base":
        raise UsageError(f"{image}: base images are without cuDNN", "with it: runtime and devel")
    addons = list(dict.fromkeys(group.addon for group in groups if group.addon))
    if tag.addon not in ("", *addons):
        there = f"there is: {listed(addons)}"
        raise UsageError(f"CUDA {tag.cuda} has no '{tag.addon}'", there)
    if tag.os and tag.os not in systems:
        other = tag._replace(os=next(iter(systems)))
        raise UsageError(
            f"CUDA {tag.cuda} can be made on {listed(systems)}, not on {tag.os}",
            f"gpubox build nvidia/cuda:{other}",
        )
    return tag


def _os(tag: Tag) -> str:
    return tag.os or next(iter(_data()[tag.cuda]))


def _chosen(tag: Tag, os: str) -> list[Group]:
    flavors = _FLAVORS[: _FLAVORS.index(tag.flavor) + 1]
    groups = _data()[tag.cuda][os]
    return [each for each in groups if each.flavor in flavors and each.addon in ("", tag.addon)]


def _base(image: str) -> str:
    try:
        values.reference(image)
    except ValueError as error:
        raise UsageError(f"--base: {error}") from None
    return image


def _mirror(url: str) -> str:
    if "@" in url:
        raise UsageError(
            "--apt-mirror: a name and password in the URL could be read in the image by everybody",
            "use a mirror that wants none",
        )
    if not _URL.fullmatch(url):
        raise UsageError(
            f"--apt-mirror: '{url}' is not a URL",
            f"it stands for {NVIDIA}, as in http://mirror.lab/compute",
        )
    return url.rstrip("/")


# --- the Dockerfile


def _run(*commands: str) -> str:
    return "RUN " + " \\\n && ".join(commands)


def _tools() -> Step:
    """Ubuntu 16.04's apt does not speak https by itself. nvidia-docker 1 mounts these folders."""
    https = "$(test -e /usr/lib/apt/methods/https || echo apt-transport-https)"
    folders = "/usr/local/nvidia/lib\\n/usr/local/nvidia/lib64\\n"
    return Step(
        "what apt needs for repositories over https, and where the driver's libraries are",
        _run(
            _UPDATE,
            f"{_INSTALL} {https} ca-certificates gnupg",
            _FORGET,
            f"printf '{folders}' > /etc/ld.so.conf.d/nvidia.conf",
        ),
    )


def _packages(cuda: str, groups: Sequence[Group], mirror: str) -> Iterator[Step]:
    """Install first what all images of a CUDA have, so that they share it on the engine's disk."""
    known = set[str]()
    for part in dict.fromkeys((group.addon, group.flavor) for group in groups):
        here = [group for group in groups if (group.addon, group.flavor) == part]
        for group in here:
            if group.repository not in known:
                yield _repository(group.repository, mirror)
        known |= {group.repository for group in here}
        pins = {name: version for group in here for name, version in group.pins.items()}
        addon, flavor = part
        what = addon.replace("cudnn", "cuDNN ") or f"CUDA {cuda}"
        yield _install(f"{what}: {flavor} packages", pins)


def _repository(repository: str, mirror: str) -> Step:
    """A repository, trusted for its own packages alone."""
    name = _LISTS[repository.partition("/")[0]]
    url, ring = f"{mirror}/{repository}/x86_64", f"/usr/share/keyrings/{name}.gpg"
    fetch = "/usr/lib/apt/apt-helper -o Acquire::Retries=1 download-file"
    export, trouble = "gpg --batch --export", f"no key at {url}"
    if mirror == NVIDIA:
        export += f" {' '.join(_KEYS.values())}"
        trouble = f"the key at {url} is not NVIDIA's"
    return Step(
        f"the repository {repository} and its key",
        _run(
            'export GNUPGHOME="$(mktemp -d)"',
            f"for key in {' '.join(_KEYS)}; do {fetch} {url}/$key.pub /tmp/$key.pub || true; done",
            "ls /tmp/*.pub && gpg --batch --quiet --import /tmp/*.pub",
            f"if ! {export} > {ring} || ! test -s {ring};"
            f' then echo "gpubox: {trouble}"; exit 1; fi',
            f"echo 'deb [signed-by={ring}] {url} /' > /etc/apt/sources.list.d/{name}.list",
            'rm -r "$GNUPGHOME" /tmp/*.pub',
        ),
    )


def _install(what: str, pins: Mapping[str, str]) -> Step:
    """Install packages in exactly these versions, and have apt keep them there.

    The packages with cudart come once; with them the link /usr/local/cuda is made.
    """
    listed = "".join(f" \\\n    {name}={version}" for name, version in pins.items())
    cudart = next((name for name in pins if name.startswith("cuda-cudart-")), "")
    link = re.fullmatch(r"cuda-cudart-(\d+)-(\d+)", cudart)
    return Step(
        what,
        _run(
            _UPDATE,
            f"{_INSTALL}{listed}",
            f"apt-mark hold {' '.join(pins)}",
            *([f"ln -s cuda-{link[1]}.{link[2]} /usr/local/cuda"] if link else []),
            _FORGET,
        ),
    )


def _settings(tag: Tag, groups: Sequence[Group]) -> Step:
    """The image's variables, set after all packages are installed.

    If an NVIDIA runtime runs the build, it obeys them in every later step, and leaves files of the
    driver's in the image.

    NVIDIA's images of 10.x let in some older drivers, by brand. That takes cuda-compat packages,
    which are pinned nowhere, so these images want the driver itself.
    """
    versions = _versions(groups)
    variables = {
        "PATH": _PATH,
        "LD_LIBRARY_PATH": "/usr/local/nvidia/lib:/usr/local/nvidia/lib64",
        **({"LIBRARY_PATH": "/usr/local/cuda/lib64/stubs"} if tag.flavor == "devel" else {}),
        **{f"{name.upper()}_VERSION": version for name, version in versions.items()},
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
        "NVIDIA_REQUIRE_CUDA": f"cuda>={tag.cuda}",
    }
    return Step("what NVIDIA's container tools and compilers look for", _pairs("ENV", variables))


def _labels(groups: Sequence[Group], base: str, mirror: str, by: str) -> Step:
    versions = _versions(groups)
    repositories = dict.fromkeys(f"{mirror}/{group.repository}" for group in groups)
    labels = {
        "com.nvidia.volumes.needed": "nvidia_driver",
        **{
            f"com.nvidia.{name}.version": versions[name]
            for name in ("cuda", "cudnn")
            if name in versions
        },
        BASE_NAME: base,
        BUILT_FROM: " ".join(repositories),
        **({BUILT_BY: by} if by else {}),
    }
    return Step("what it was built from", _pairs("LABEL", labels))


def _versions(groups: Sequence[Group]) -> dict[str, str]:
    """The versions of CUDA, cuDNN and NCCL, as their packages have them."""
    pins = {name: version for group in groups for name, version in group.pins.items()}
    patterns = {"cuda": r"cuda-cudart-\d+-\d+", "cudnn": r"libcudnn\d", "nccl": r"libnccl2"}
    return {
        what: version.partition("-")[0]
        for what, pattern in patterns.items()
        for name, version in pins.items()
        if re.fullmatch(pattern, name)
    }


def _pairs(instruction: str, pairs: Mapping[str, str]) -> str:
    return f"{instruction} " + " \\\n    ".join(f'{key}="{value}"' for key, value in pairs.items())
