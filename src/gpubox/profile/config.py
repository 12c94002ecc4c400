"""All layers of configuration, asked for a profile by its name: `extends`, defaults, `${VAR}`.

Knows the keys of a file; what became of one profile's settings is for `profile` to know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from gpubox import values
from gpubox.errors import GpuboxError, ProfileError, UsageError, did_you_mean
from gpubox.images import catalog
from gpubox.profile import datasets
from gpubox.profile.layers import BUILT_IN, COMMAND_LINE, Layer, Located, from_flags, interpolate
from gpubox.profile.profile import Merged, Profile, item_of, made, merge
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
MOST_ANCESTORS = 100

ELSEWHERE = {
    "version": "that is Compose's; leave it out",
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
                    found[name] = Item(datasets.dataset(name, located), located.where)
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
            merge(merged, self._read("defaults", layer.settings.get("defaults"), layer))
        for step in self._chain(word, []):
            merge(merged, step)
        for override in overrides:
            merge(merged, self._read("", Located(dict(override), COMMAND_LINE, self.cwd), None))
        where = next(iter(self.owners(word)), COMMAND_LINE)
        return made(word, merged, self.registry(), where)

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
                adds = parent.value == word and len(own) > 1
                hint = f"leave it out: this adds to the '{word}' of lower layers" if adds else ""
                raise ProfileError(parent.where, "extends", f"a circle: {cycle}", hint)
            if len(path) > MOST_ANCESTORS:
                problem = f"more than {MOST_ANCESTORS} profiles, each of which extends the next"
                raise ProfileError(parent.where, "extends", problem)
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
        if item_of(read, "image") and item_of(read, "cuda"):
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
            return datasets.mounts(parsed, self.datasets(), setting.name_in(value))
        return parsed if setting.merge == "by key" else Item(parsed, value.where)


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
