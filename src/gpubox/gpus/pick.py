"""Which GPUs a box gets of those that are free, and in what words; or who has them.

Pure: who holds which GPU comes in, a choice or an error that names the holders comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from gpubox.errors import EngineError
from gpubox.gpus.claims import NO_CLAIM, SHARED
from gpubox.gpus.holders import Container, Holding, sentence
from gpubox.gpus.machine import Device
from gpubox.images.fits import IMPOSSIBLE


class NotFree(EngineError):
    """Others have the GPUs that are wanted; that may change."""


class Picked(msgspec.Struct, frozen=True):
    """The GPUs that were picked; `said` is that in a line, `reasons` a line for each GPU."""

    devices: tuple[Device, ...]
    said: str
    reasons: tuple[str, ...]


def pick(
    count: int,
    holdings: Sequence[Holding],
    *,
    doubt: Callable[[Device], int] = lambda _: 0,
    last: Sequence[str] = (),
    wanted: Sequence[str] = (),
    share: bool = False,
    but: Sequence[str] = (),
) -> Picked:
    """`count` GPUs that are free: those that the person had `last` (UUIDs) before the emptiest.

    With `share` those count as free, too, that have only boxes which share; the least filled first.
    What others have `wanted` meanwhile (keys, as often as they do) comes last. `doubt` is that of
    the image on a GPU, as `fits` has it; where it is possible on too few, all are as good, and the
    checks say what is wrong. Those that the box is to leave (`but`, by their keys) are not taken.
    """
    usable = [it for it in holdings if not it.device.divided and not it.device.trouble]
    fit = [it for it in usable if doubt(it.device) < IMPOSSIBLE]
    if len(fit) < count:
        fit = usable
    if len(fit) < count:
        raise _too_few(count, len(fit), holdings)
    free = [it for it in fit if is_free(it, share=share)]
    others = [it for it in free if it.device.key not in but]
    if len(others) < count:
        raise _none_free(count, others, usable, fit, but)

    def preference(holding: Holding) -> tuple[object, ...]:
        device, boxes = holding.device, _boxes(holding)
        idle = len(holding.holders) - len(boxes)  # containers that do nothing now
        rivals = wanted.count(device.key)
        filled = idle, device.used or 0
        return doubt(device), rivals, len(boxes), device.uuid not in last, *filled

    chosen = sorted(others, key=preference)[:count]
    taken = tuple(it.device for it in holdings if it in chosen)
    reasons = tuple(
        f"GPU {it.device.key}: {_reason(it, it in chosen, last, it in fit)}" for it in usable
    )
    return Picked(taken, _said(taken, holdings, free, fit), reasons)


def refuse_held(
    wanted: Iterable[Device], holdings: Sequence[Holding], *, share: bool = False
) -> None:
    """Raise if somebody's box has one of the GPUs that were named."""
    keys = {device.key for device in wanted}
    held = [it for it in holdings if it.device.key in keys and not _shareable(it, share)]
    if not held:
        return
    rows = "; ".join(f"{_which(it.device)} is {_brief(it)} ({_names(it)})" for it in held)
    raise NotFree(rows, f"{_stop_mine(held)}--wait waits for it; gpubox gpus shows who has which")


def is_free(holding: Holding, *, share: bool = False) -> bool:
    """Whether no box has it, or only such as share it, and nobody else computes on it.

    A container that is no box and does nothing is no reason: monitors are given all GPUs.
    """
    boxes = {box.id for box in _boxes(holding)}
    others = [use for use in holding.uses if not use.container or use.container.id not in boxes]
    used_unseen = holding.state == "used" and not holding.uses
    return _shareable(holding, share) and not others and not used_unseen


def _shareable(holding: Holding, share: bool) -> bool:
    return all(share and box.claim == SHARED for box in _boxes(holding))


def _boxes(holding: Holding) -> list[Container]:
    return [holder for holder in holding.holders if holder.box and holder.claim != NO_CLAIM]


# --- in words


def _said(
    taken: Sequence[Device],
    holdings: Sequence[Holding],
    free: Sequence[Holding],
    fit: Sequence[Holding],
) -> str:
    """`GPUs 0 and 2 (of 4; 1 held by bob)`."""
    whole = [it for it in holdings if ":" not in it.device.key]
    others = [
        f"{it.device.key} {_brief(it) if it in fit or it.device.trouble else _UNFIT}"
        for it in whole
        if it not in free and not it.device.divided
    ]
    return (
        f"{listed(taken)} ({'; '.join([f'of {len(whole)}', *filter(None, [', '.join(others)])])})"
    )


def listed(devices: Sequence[Device]) -> str:
    """`GPUs 0, 1 and 3`."""
    *most, last = [device.key for device in devices]
    return f"GPUs {', '.join(most)} and {last}" if most else f"GPU {last}"


def _which(device: Device) -> str:
    """Without a driver all is known as one."""
    return "every GPU" if device.key == "all" else f"GPU {device.key}"


def _brief(holding: Holding) -> str:
    return sentence(holding).partition(",")[0].partition(";")[0]


def _names(holding: Holding) -> str:
    return ", ".join(box.name for box in _boxes(holding))


def _reason(holding: Holding, chosen: bool, last: Sequence[str], fits: bool) -> str:
    said = [sentence(holding)]
    said += ["yours last"] if holding.device.uuid in last else []
    said += [] if fits else [_UNFIT]
    return "; ".join([*said, *(["taken"] if chosen else [])])


def _too_few(count: int, there: int, holdings: Sequence[Holding]) -> EngineError:
    if there:
        return EngineError(
            f"{_wanted(count)}, and {there} of this machine's GPUs can be given", f"--gpus {there}"
        )
    ill = [f"GPU {it.device.key}: {it.device.trouble or _DIVIDED}" for it in holdings]
    return EngineError(
        f"{_wanted(count)}, and this machine has none" + ("; ".join(["", *ill]) if ill else ""),
        "gpubox doctor tells more; --gpus none starts without",
    )


_UNFIT = "cannot run the image"
_DIVIDED = "it is divided by MIG, and has no instance"


def _none_free(
    count: int,
    free: Sequence[Holding],
    usable: Sequence[Holding],
    fit: Sequence[Holding],
    but: Sequence[str],
) -> NotFree:
    left = [it for it in usable if it.device.key in but]
    rows = [
        f"GPU {it.device.key} {sentence(it) if it in fit else _UNFIT}"
        for it in usable
        if it not in left and it not in free
    ]
    rows += [f"GPU {it.device.key} is the box's own" for it in left]
    there = f"{len(free) or 'none'} of {len(usable)} {'are' if len(free) > 1 else 'is'} free"
    return NotFree(
        f"{_wanted(count)}, and {there}: {'; '.join(rows)}",
        f"{_stop_mine(usable)}--wait waits for it; gpubox gpus shows who has which",
    )


def _wanted(count: int) -> str:
    return f"{count} GPU{'s'[: count != 1]} {'is' if count == 1 else 'are'} wanted"


def _stop_mine(holdings: Iterable[Holding]) -> str:
    """The caller's own boxes come first, those that do nothing before all."""
    mine = [it for it in holdings if it.state == "mine"]
    idle = [it for it in mine if not it.working] or mine
    boxes = [box for it in idle for box in _boxes(it)]
    run = dict.fromkeys(box.name for box in boxes if box.state != "exited")
    kept = dict.fromkeys(box.name for box in boxes if box.state == "exited")  # they come back
    ways = [
        f"gpubox {verb} {' '.join(names)}" for verb, names in (("stop", run), ("rm", kept)) if names
    ]
    return f"{' and '.join(ways)} frees yours; " if ways else ""
