"""What was asked for: settings merged from all layers become one Profile.

Pure. Knows the settings and the catalogue of CUDA images; knows no files, this machine or engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gpubox import values
from gpubox.errors import ProfileError
from gpubox.images import catalog
from gpubox.profile.layers import BUILT_IN
from gpubox.profile.readers import Item
from gpubox.profile.settings import SETTINGS

CUDA_GROUP = ("cuda", "cudnn", "flavor", "os")

Merged = dict[str, Item | dict[str, Item]]


class AsAsked(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that a box gets just as its profile says them; None or empty where it does not.

    Sizes are bytes, `cpus` billionths of a CPU. Volumes include datasets and the workspace.
    """

    pull_policy: str = "missing"
    registry: str | None = None
    volumes: tuple[values.Mount, ...] = ()
    devices: tuple[values.Device, ...] = ()
    ulimits: tuple[values.Ulimit, ...] = ()
    mem_limit: int | None = None
    cpus: int | None = None
    ipc: str | None = None
    network_mode: str | None = None
    restart: str | None = None
    init: bool | None = None
    rm: bool = False


class Profile(AsAsked, frozen=True, kw_only=True):
    """A named set of settings after all layers are merged; what no layer says is None or empty.

    `images` are the candidates for this machine, the most wanted one, `image`, first. `merged`
    keeps each value with the place where it was written.
    """

    name: str
    images: tuple[str, ...]
    image_where: str
    description: str = ""
    gpus: values.Gpus | None = None
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    working_dir: str | None = None
    workspace: values.Mount | None = None
    environment: Mapping[str, str | None] = {}
    env_file: tuple[str, ...] = ()
    user: str | None = None
    ports: tuple[values.Port, ...] = ()
    shm_size: int | None = None
    hostname: str | None = None
    labels: Mapping[str, str] = {}
    cap_add: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    slurm: tuple[str, ...] = ()
    merged: Merged = {}

    @property
    def image(self) -> str:
        return self.images[0]

    @property
    def is_auto(self) -> bool:
        """Whether `cuda` is `auto` or only a major version: the newest that this machine runs."""
        cuda = self.said("cuda").get("")
        return cuda is not None and "." not in cuda.value

    def said(self, key: str) -> Mapping[str, Item]:
        """What was written for a setting: its items by key, or its one value under an empty key."""
        found = self.merged.get(key, {})
        return {"": found} if isinstance(found, Item) else found

    def where(self, key: str, item: str = "") -> str:
        """Where a setting, or one item of a collection, was written."""
        written = self.said(key)
        found = written.get("") or written.get(item)
        return found.where if found else BUILT_IN


# --- merging


def merge(into: Merged, layer: Merged) -> None:
    """Compose's rules: values replace, collections merge by key, `null` resets."""
    if item_of(layer, "image"):
        _drop(into, CUDA_GROUP)
    if "cuda" in layer:
        _drop(into, ("image", "cudnn", "flavor", "os"))
    for key, setting in layer.items():
        if isinstance(setting, Item):
            into.pop(key, None)
            if setting.value is not None:
                into[key] = setting
        else:
            before = into.get(key)
            into[key] = {**(before if isinstance(before, dict) else {}), **setting}


def _drop(merged: Merged, keys: tuple[str, ...]) -> None:
    for key in keys:
        merged.pop(key, None)


def item_of(merged: Merged, key: str) -> Item | None:
    found = merged.get(key)
    return found if isinstance(found, Item) and found.value is not None else None


# --- making


def made(name: str, merged: Merged, registry: str | None, where: str) -> Profile:
    """The profile that merged settings make; `where` it stands, for what it lacks."""
    images, image_where = _images(name, merged, where)
    fields: dict[str, Any] = {}
    for setting in SETTINGS:
        value = merged.get(setting.key)
        if setting.key in ("image", "extends", "datasets", *CUDA_GROUP) or value is None:
            continue
        if isinstance(value, Item):
            fields[setting.key] = value.value
        elif setting.key in ("environment", "labels"):
            fields[setting.key] = {key: item.value for key, item in value.items()}
        else:
            fields[setting.key] = tuple(item.value for item in value.values())
    fields["volumes"] = _all_mounts(merged)
    return Profile(
        name=name,
        images=images,
        image_where=image_where,
        registry=registry,
        merged=merged,
        **fields,
    )


def _images(name: str, merged: Merged, where: str) -> tuple[tuple[str, ...], str]:
    """The candidates, and where the first was written."""
    if image := item_of(merged, "image"):
        for key in CUDA_GROUP:
            if idle := item_of(merged, key):
                named = " or ".join(image.value)
                problem = f"it picks among NVIDIA's CUDA images, and {named} is the image"
                raise ProfileError(
                    idle.where, key, problem, "leave it out, or write cuda: in place of image:"
                )
        return image.value, image.where
    cuda = item_of(merged, "cuda")
    if cuda is None:
        raise ProfileError(
            where, f"profiles.{name}", "no image", "write image: NAME or cuda: VERSION"
        )
    cudnn, flavor, os = (item_of(merged, key) for key in CUDA_GROUP[1:])
    choice = catalog.CudaChoice(
        cuda=cuda.value,
        cudnn=cudnn.value.replace(catalog.AUTO, "") if cudnn else None,
        flavor=flavor.value if flavor else "devel",
        os=os.value if os else None,
    )
    try:
        return catalog.candidates(choice), cuda.where
    except catalog.CudaImageError as error:
        where = (item_of(merged, error.key) or cuda).where
        raise ProfileError(where, error.key, error.problem, error.hint) from None


def _all_mounts(merged: Merged) -> tuple[values.Mount, ...]:
    """Volumes, datasets and the workspace together; two on one target are an error."""
    found: dict[str, Item] = {}
    workspace = merged.get("workspace")
    groups = [merged.get("volumes"), merged.get("datasets")]
    if isinstance(workspace, Item):
        groups.append({workspace.value.target: workspace})
    for group in groups:
        for target, item in (group if isinstance(group, dict) else {}).items():
            if target in found:
                raise ProfileError(
                    item.where,
                    "volumes",
                    f"{item.value.source} and {found[target].value.source}"
                    f" ({found[target].where}) are both mounted on {target}",
                )
            found[target] = item
    return tuple(item.value for item in found.values())
