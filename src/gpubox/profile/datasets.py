"""Host folders that have a name, and where a box mounts them.

Pure: texts and their places in, mounts out. Looks at no folder.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from gpubox import values
from gpubox.errors import ProfileError, did_you_mean
from gpubox.profile.layers import Located
from gpubox.profile.readers import Item


def dataset(name: str, located: Located) -> values.Mount:
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


def mounts(asked: Mapping[str, Item], known: Mapping[str, Item], key: str) -> dict[str, Item]:
    """The mounts of the datasets that a profile asks for, by their target in the box.

    `asked` are texts like `NAME:BOX_PATH` by name; errors name `key`.
    """
    found: dict[str, Item] = {}
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
