"""What TAB can complete: profiles, boxes, GPUs, datasets, paths.

Each function is a `shell_complete` of click's, for the parameter that takes such a word. Candidates
that do not begin as what was typed are left out later, by `completion`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem
from msgspec.structs import replace

from gpubox.cli.app import App, app
from gpubox.errors import GpuboxError

if TYPE_CHECKING:
    from gpubox.gpus.machine import Device

Candidates = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def my_boxes(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Boxes of the caller, or of the --owner that was typed; if none of them fits, everybody's.

    Those that were typed already are left out.
    """
    from gpubox.engine import glance

    this, typed = app(context), context.params.get(str(parameter.name)) or ()
    owner = context.params.get("owner") or this.caller.name
    fitting = [
        box
        for box in glance.boxes(this.endpoint, stopped=True)
        if box.name.startswith(incomplete) and box.name not in typed
    ]
    own = [box for box in fitting if box.owner == owner]
    return [
        CompletionItem(box.name, help=_state(box.state) + ("" if own else f", {box.owner}'s"))
        for box in own or fitting
    ]


def _state(state: str) -> str:
    return "stopped" if state == "exited" else state


def profiles(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    this = app(context)
    fitting = [name for name in this.config.names() if name.startswith(incomplete)]
    return [CompletionItem(name, help=_meaning(this, name)) for name in fitting]


def _meaning(this: App, name: str) -> str:
    """What a profile is for, or its image; empty for a wrong one: to run it will say why."""
    with suppress(GpuboxError):
        profile = this.config.profile(name)
        return profile.description or profile.image
    return ""


def images(context: click.Context, _: click.Parameter, __: str) -> list[CompletionItem]:
    """Images that the engine has."""
    from gpubox.engine import glance

    return [CompletionItem(name) for name in glance.images(app(context).endpoint)]


def profiles_or_images(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Profiles; images only if no profile fits, for to ask the engine takes time."""
    here = (context, parameter, incomplete)
    return profiles(*here) or images(*here)


def gpus(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """GPUs by index, or by UUID if one is begun; without those that stand before a comma."""
    head, comma, last = incomplete.rpartition(",")
    by_uuid = last[:1] in ("G", "M")
    named = head.removeprefix("device=").split(",")
    before = "" if by_uuid else "device="
    if comma:
        before = head + comma
    keys = {
        device.uuid if by_uuid else device.index: meaning for device, meaning in _gpus(app(context))
    }
    words = {} if comma else {"all": "all GPUs", "none": "no GPU"}
    words |= {before + key: meaning for key, meaning in keys.items() if key and key not in named}
    return [CompletionItem(word, help=meaning) for word, meaning in words.items()]


def _gpus(this: App) -> Iterator[tuple[Device, str]]:
    """Each GPU with its model and who has it; none where this machine's are not the engine's."""
    from gpubox.cli.gpus import model
    from gpubox.engine import glance
    from gpubox.gpus import holders, nvml

    with suppress(GpuboxError):
        if not this.endpoint.local:
            return
        devices = [replace(device, processes=None) for device in nvml.devices()]
        boxes = glance.boxes(this.endpoint, stopped=False)
        for it in holders.join(devices, boxes, {}, this.caller.name):
            held = f", {holders.sentence(it)}" if it.holders else ""
            if not it.device.trouble:
                yield it.device, model(it.device).strip() + held


def datasets(context: click.Context, _: click.Parameter, __: str) -> list[CompletionItem]:
    named = app(context).config.datasets()
    return [CompletionItem(name, help=item.value.source) for name, item in named.items()]


def folders(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Host folders, up to the colon that a path in the box follows."""
    return [] if ":" in incomplete else [CompletionItem(incomplete, type="dir")]


def files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


def specs(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """What can be a SPEC of `mount`: a dataset or a folder."""
    here = (context, parameter, incomplete)
    return [*datasets(*here), *folders(*here)]


def _variables(context: click.Context, _: click.Parameter, __: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(app(context).caller.environ)]


def _one_of(*words: str) -> Candidates:
    return lambda *_: [CompletionItem(word) for word in words]


OF_SETTINGS: Mapping[str, Candidates] = {
    "gpus": gpus,
    "datasets": datasets,
    "volumes": folders,
    "workspace": folders,
    "env_file": files,
    "devices": files,
    "environment": _variables,
    "user": _one_of("host"),
    "pull_policy": _one_of("missing", "always", "never"),
    "ipc": _one_of("private", "shareable", "host"),
    "network_mode": _one_of("bridge", "none", "host"),
    "restart": _one_of("no", "always", "unless-stopped", "on-failure"),
}
