"""Merges the layers of files and flags into one Profile: names, `extends`, defaults.

Knows the settings and the catalogue of CUDA images; knows nothing of this machine or of engines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from gpubox import values
from gpubox.errors import GpuboxError, ProfileError, UsageError, did_you_mean
from gpubox.images import catalog
from gpubox.profile.layers import BUILT_IN, COMMAND_LINE, Layer, Located, from_flags, interpolate
from gpubox.profile.readers import Item
from gpubox.profile.settings import BY_KEY, SETTINGS, Setting

TOP_LEVEL = {
    "default": "the profile, or image, that `gpubox run` starts without a name",
    "default_jupyter": "the same for `gpubox jupyter`",
    "registry": "HOST[:PORT][/PATH] through which Docker Hub's images are pulled",
    "ssh_host": "how other machines name this one, for the tunnel lines",
    "slurm": "`required` where GPUs are given by Slurm's jobs alone",
    "datasets": "host folders by name, HOST_PATH[:BOX_PATH][:rw], read-only unless said",
    "defaults": "settings under every profile",
    "profiles": "settings by the name of a profile",
}
PROFILE_NAME = r"[A-Za-z0-9][\w.-]*"
CUDA_GROUP = ("cuda", "cudnn", "flavor", "os")

ELSEWHERE = {
    "services": "that is Compose's; here: profiles:, with one mapping a profile",
    "deploy": "that is Compose's; here: gpus: all, or gpus: [0, 2]",
    "runtime": "that is Compose's; here: gpus: all",
    "privileged": "no key: it would give the box every device of the machine; name what it needs"
    " with devices, cap_add or security_opt",
    "container_name": "a box is named when it starts: gpubox run --name NAME",
    "env": "did you mean 'environment'?",
    "memory": "did you mean 'mem_limit'?",
    "network": "did you mean 'network_mode'?",
    "mounts": "did you mean 'volumes'?",
    "name": "the name of a profile is the key above it",
}

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


class Config(msgspec.Struct, frozen=True):
    """All layers, ready to be asked for a profile by name."""

    layers: tuple[Layer, ...]
    environ: Mapping[str, str]
    cwd: Path

    def __post_init__(self) -> None:
        for layer in self.layers:
            for key, located in layer.settings.items():
                if key not in TOP_LEVEL and not key.startswith("x-"):
                    _unknown(located.where, key, list(TOP_LEVEL))
                if key in ("datasets", "defaults", "profiles"):
                    _mapping(key, located)
                if key == "slurm" and located.value not in (None, "required"):
                    problem = "'required' is all that can be said here; options go into a profile"
                    raise ProfileError(located.where, key, problem)

    # --- the top level

    def text(self, key: str) -> Item | None:
        """A top-level text, from the highest layer that has one."""
        for layer in reversed(self.layers):
            located = layer.settings.get(key)
            if located and located.value is not None:
                located = interpolate(located, self.environ)
                if not isinstance(located.value, str):
                    raise ProfileError(located.where, key, "a text is expected here")
                return Item(located.value, located.where)
        return None

    def registry(self) -> str | None:
        item, key = self.text("registry"), "registry"
        if named := self.environ.get("GPUBOX_REGISTRY"):
            item, key = Item(named, "GPUBOX_REGISTRY"), ""
        try:
            return values.registry(item.value) if item and item.value else None
        except ValueError as error:
            raise ProfileError(item.where if item else "", key, str(error)) from None

    def slurm_required(self) -> str:
        """The place of `slurm: required`, or empty; no later layer can take it back."""
        settings = (layer.settings.get("slurm") for layer in self.layers)
        return next((slurm.where for slurm in settings if slurm and slurm.value), "")

    def default(self, key: str = "default") -> str:
        item = self.text(key)
        assert item is not None, "the built-in layer has it"
        if item.value not in self.names() and not self._is_image_or_cuda(item.value):
            raise ProfileError(
                item.where,
                key,
                f"no profile '{item.value}'",
                self.nearest(item.value),
            )
        return str(item.value)

    def datasets(self) -> dict[str, Item]:
        """The Mount of each dataset by name; of several layers with one name the highest wins."""
        found: dict[str, Item] = {}
        for layer in self.layers:
            for name, located in _mapping("datasets", layer.settings.get("datasets")).items():
                found.pop(name, None)
                if located.value is not None:
                    located = interpolate(located, self.environ)
                    found[name] = Item(_dataset(name, located), located.where)
        return found

    def names(self) -> list[str]:
        """The profiles that files define, in the order of their first layer."""
        return list(dict.fromkeys(name for layer in self.layers for name in _profiles(layer)))

    def owners(self, name: str) -> list[str]:
        """The files that define a profile, lowest layer first."""
        return [layer.name for layer in self.layers if name in _profiles(layer)]

    # --- profiles

    def knows(self, word: str) -> bool:
        return word in self.names() or self._is_image_or_cuda(word)

    def nearest(self, word: str) -> str:
        """The hint for a word that is no profile."""
        meant = catalog.nearest_name(word)
        return f"did you mean '{meant}'?" if meant else did_you_mean(word, self.names())

    def _is_image_or_cuda(self, word: str) -> bool:
        return "/" in word or ":" in word or catalog.parse_name(word) is not None

    def profile(
        self, word: str, *overrides: Mapping[str, Located], beneath: Mapping[str, str] | None = None
    ) -> Profile:
        """The Profile that `word` means: a profile's name, an image, or a name of a CUDA image.

        The overrides (NV_GPU, flags) are merged last, in their order. `beneath` is the lowest layer
        of all: every other layer overrides it, a `null` too.
        """
        lowest = Located(from_flags(beneath or {}, self.cwd, BUILT_IN), BUILT_IN, self.cwd)
        merged: Merged = self._read("", lowest, None)
        for layer in self.layers:
            _merge(merged, self._read("defaults", layer.settings.get("defaults"), layer))
        for step in self._chain(word, []):
            _merge(merged, step)
        for override in overrides:
            _merge(merged, self._read("", Located(dict(override), COMMAND_LINE, self.cwd), None))
        return self._finish(word, merged)

    def _chain(self, word: str, seen: list[str]) -> Iterator[Merged]:
        """The steps of `extends`, the farthest ancestor first, then the profile's own layers."""
        own = [
            self._read(f"profiles.{word}", _profiles(layer)[word], layer, known="extends")
            for layer in self.layers
            if word in _profiles(layer)
        ]
        if not own:
            yield self._unwritten(word)
            return
        parents = [step["extends"] for step in own if "extends" in step]
        parent = parents[-1] if parents else None
        if isinstance(parent, Item) and parent.value is not None:
            path = [*seen, word]
            if parent.value in path:
                cycle = " -> ".join([*path[path.index(parent.value) :], parent.value])
                raise ProfileError(parent.where, "extends", f"a circle: {cycle}")
            if not self.knows(parent.value):
                hint = self.nearest(parent.value)
                raise ProfileError(parent.where, "extends", f"no profile '{parent.value}'", hint)
            yield from self._chain(parent.value, path)
        for step in own:
            step.pop("extends", None)
            yield step

    def _unwritten(self, word: str) -> Merged:
        """The settings of a word that no file defines: an image, or the name of a CUDA image."""
        if "/" in word or ":" in word:
            try:
                values.reference(word)
            except ValueError as error:
                raise UsageError(str(error)) from None
            return {"image": Item((word,), COMMAND_LINE), **self._policy(word)}
        if choice := catalog.parse_name(word):
            return {"image": Item(catalog.candidates(choice), "NVIDIA's tags")}
        raise UsageError(f"no profile '{word}'", self.nearest(word))

    def _policy(self, image: str) -> Merged:
        """The pull policy that goes with an image: that of the profile which has this image.

        `gpubox save` writes such a profile: its image is on this engine alone, so it is never
        pulled, also if it is named without its profile.
        """
        for layer in self.layers:
            for name, located in _profiles(layer).items():
                settings = _mapping(f"profiles.{name}", located)
                has, policy = settings.get("image"), settings.get("pull_policy")
                if has and policy and has.value in (image, image.removesuffix(":latest")):
                    return {"pull_policy": self._parse(BY_KEY["pull_policy"], policy, layer)}
        return {}

    def _read(
        self, key: str, located: Located | None, layer: Layer | None, known: str = ""
    ) -> Merged:
        """Parse one layer's mapping; `null` stays in it, to reset what lower layers say."""
        read: Merged = {}
        for name, value in _mapping(key, located).items():
            setting = BY_KEY.get(name)
            if setting is None or (name == "extends" and known != "extends"):
                _unknown(value.where, name, [s.key for s in SETTINGS])
            assert setting is not None
            read[name] = self._parse(setting, value, layer)
        if _item_of(read, "image") and _item_of(read, "cuda"):
            where = read["cuda"].where if isinstance(read["cuda"], Item) else ""
            raise ProfileError(where, "cuda", "image and cuda in one place; keep one of them")
        return read

    def _parse(
        self, setting: Setting, value: Located, layer: Layer | None
    ) -> Item | dict[str, Item]:
        if layer is not None:
            try:
                value = interpolate(value, self.environ)
            except ProfileError as error:
                # the key goes behind FILE:LINE
                problem = error.problem.replace(": ", f": {setting.key}: ", 1)
                raise GpuboxError(problem, error.hint, exit_code=error.exit_code) from None
            if setting.key == "workspace" and layer.shared:
                value = Located(value.value, value.where, self.cwd)
        if value.value is None:
            return Item(None, value.where)
        parsed = setting.parse(value)
        if setting.key == "datasets":
            return self._resolve_datasets(parsed, setting.name_in(value))
        return parsed if setting.merge == "by key" else Item(parsed, value.where)

    def _resolve_datasets(self, asked: Mapping[str, Item], key: str) -> dict[str, Item]:
        known, found = self.datasets(), dict[str, Item]()
        for name, item in asked.items():
            if name not in known:
                hint = did_you_mean(name, list(known)) or "name it under datasets: in gpubox.yaml"
                raise ProfileError(item.where, key, f"no dataset '{name}'", hint)
            try:
                mount = _at(known[name].value, item.value.partition(":")[2])
            except ValueError as error:
                raise ProfileError(item.where, key, str(error)) from None
            if mount.target in found:
                both = f"{found[mount.target].value.source} and {mount.source}"
                raise ProfileError(item.where, key, f"{both} are both mounted on {mount.target}")
            found[mount.target] = Item(mount, item.where)
        return found

    def _finish(self, word: str, merged: Merged) -> Profile:
        images, where = self._images(word, merged)
        fields: dict[str, Any] = {}
        for setting in SETTINGS:
            value = merged.get(setting.key)
            if setting.key in ("image", "extends", "datasets", *CUDA_GROUP) or value is None:
                continue
            if isinstance(value, Item):
                fields[setting.key] = value.value
            elif setting.key in ("environment", "labels"):
                fields[setting.key] = {name: item.value for name, item in value.items()}
            else:
                fields[setting.key] = tuple(item.value for item in value.values())
        fields["volumes"] = _all_mounts(merged)
        return Profile(
            name=word,
            images=images,
            image_where=where,
            registry=self.registry(),
            merged=merged,
            **fields,
        )

    def _images(self, word: str, merged: Merged) -> tuple[tuple[str, ...], str]:
        if image := _item_of(merged, "image"):
            for key in CUDA_GROUP:
                if idle := _item_of(merged, key):
                    named = " or ".join(image.value)
                    problem = f"it picks among NVIDIA's CUDA images, and {named} is the image"
                    raise ProfileError(
                        idle.where, key, problem, "leave it out, or write cuda: in place of image:"
                    )
            return image.value, image.where
        cuda = _item_of(merged, "cuda")
        if cuda is None:
            where = next(iter(self.owners(word)), COMMAND_LINE)
            raise ProfileError(
                where, f"profiles.{word}", "no image", "write image: NAME or cuda: VERSION"
            )
        cudnn, flavor, os = (_item_of(merged, key) for key in CUDA_GROUP[1:])
        choice = catalog.CudaChoice(
            cuda=cuda.value,
            cudnn=cudnn.value.replace(catalog.AUTO, "") if cudnn else None,
            flavor=flavor.value if flavor else "devel",
            os=os.value if os else None,
        )
        try:
            return catalog.candidates(choice), cuda.where
        except catalog.CudaImageError as error:
            where = (_item_of(merged, error.key) or cuda).where
            raise ProfileError(where, error.key, error.problem, error.hint) from None


# --- merging


def _merge(into: Merged, layer: Merged) -> None:
    """Compose's rules: values replace, collections merge by key, `null` resets."""
    if _item_of(layer, "image"):
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


def _item_of(merged: Merged, key: str) -> Item | None:
    found = merged.get(key)
    return found if isinstance(found, Item) and found.value is not None else None


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


# --- shapes


def _mapping(key: str, located: Located | None) -> dict[str, Located]:
    if located is None or located.value is None:
        return {}
    if not isinstance(located.value, dict):
        raise ProfileError(located.where, key, "a mapping (KEY: VALUE) is expected here")
    return located.value


def _profiles(layer: Layer) -> dict[str, Located]:
    found = _mapping("profiles", layer.settings.get("profiles"))
    for name, located in found.items():
        if not re.fullmatch(PROFILE_NAME, name):
            raise ProfileError(
                located.where, name, "no name for a profile: letters, digits, '.', '_' and '-'"
            )
    return found


def _unknown(where: str, key: str, known: list[str]) -> None:
    hint = ELSEWHERE.get(key) or did_you_mean(key, known)
    raise ProfileError(where, key, "unknown key", hint)


def _dataset(name: str, located: Located) -> values.Mount:
    """`HOST_PATH[:BOX_PATH][:rw]`; without BOX_PATH it is /data/NAME."""
    if not isinstance(located.value, str):
        raise ProfileError(
            located.where, f"datasets.{name}", "HOST_PATH[:BOX_PATH][:rw] is expected"
        )
    source, _, rest = located.value.partition(":")
    try:
        if rest.count(":") and not rest.startswith("/"):
            raise ValueError(
                f"'{located.value}' is no HOST_PATH[:BOX_PATH][:rw]; {values.NO_COLON}"
            )
        folder = values.host_path(source, located.base)
        return _at(values.Mount(f"/data/{name}", folder, bind=True, read_only=True), rest)
    except ValueError as error:
        raise ProfileError(located.where, f"datasets.{name}", str(error)) from None


def _at(mount: values.Mount, text: str) -> values.Mount:
    """The mount, moved and made read-only or writable as `[BOX_PATH][:ro|:rw]` says."""
    path, _, mode = ("", "", text) if text in ("ro", "rw") else text.partition(":")
    if mode not in ("", "ro", "rw"):
        raise ValueError(f"'{mode}' is neither ro nor rw")
    return replace(
        mount,
        target=values.box_path(path) if path else mount.target,
        read_only=mode != "rw" if mode else mount.read_only,
    )
