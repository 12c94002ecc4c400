"""Which of the free GPUs a box gets, and the sentences that say so; or who has them.

Pure: who holds which GPU comes in, a choice or an error that names the holders comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from gpubox.errors import EngineError
from gpubox.figures import counted
from gpubox.gpus.claims import NO_CLAIM, SHARED
from gpubox.gpus.holders import Container, Holding, sentence
from gpubox.gpus.machine import Device, gpus_text
from gpubox.images.fits import IMPOSSIBLE


class NotFree(EngineError):
    """Others have the GPUs that are wanted; they may give them back, so waiting can help."""


class Picked(msgspec.Struct, frozen=True):
    """The GPUs that were picked; `said` says so in one line, `reasons` has a line for each GPU."""

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
    excluding: Sequence[str] = (),
) -> Picked:
    """Pick `count` free GPUs. EngineError: there are not so many; NotFree: others have them.

    The order of preference:

    1. least `doubt` that the image runs on it, as `fits` has it;
    2. fewest others about to take it: `wanted` has its key once for each of them;
    3. fewest boxes on it: with `share`, a GPU whose boxes all share counts as free, too;
    4. one that the person had `last`, by UUID;
    5. fewest idle containers, and least memory in use.

    Where the image is possible on too few, all count as fit, and the checks say what is wrong.
    Those in `excluding`, by their keys, are not taken: the box is to leave them.
    """
    usable = [it for it in holdings if not it.device.divided and not it.device.trouble]
    fit = [it for it in usable if doubt(it.device) < IMPOSSIBLE]
    if len(fit) < count:
        fit = usable
    if len(fit) < count:
        raise _too_few(count, len(fit), holdings)
    free = [it for it in fit if is_free(it, share=share)]
    allowed = [it for it in free if it.device.key not in excluding]
    if len(allowed) < count:
        raise _none_free(count, allowed, usable, fit, excluding)

    def preference(holding: Holding) -> tuple[object, ...]:
        device, boxes = holding.device, _boxes(holding)
        idle = len(holding.holders) - len(boxes)  # containers that do nothing now
        rivals = wanted.count(device.key)
        filled = idle, device.used or 0
        return doubt(device), rivals, len(boxes), device.uuid not in last, *filled

    chosen = sorted(allowed, key=preference)[:count]
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
    """Whether nobody computes on it, and no box has it or, with `share`, only boxes that share.

    An idle container that is no box does not count: monitoring is given all GPUs.
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
    known = f"of {len(whole)}; {', '.join(others)}" if others else f"of {len(whole)}"
    return f"{listed(taken)} ({known})"


def listed(devices: Sequence[Device]) -> str:
    """`GPUs 0, 1 and 3`."""
    return gpus_text([device.key for device in devices])


def _which(device: Device) -> str:
    """`GPU 0`; without a driver all GPUs may be known as one device."""
    return "every GPU" if device.key == "all" else f"GPU {device.key}"


def _brief(holding: Holding) -> str:
    """Who has it, without whether they work on it or who else does."""
    return sentence(holding).partition(",")[0].partition(";")[0]


def _names(holding: Holding) -> str:
    return ", ".join(box.name for box in _boxes(holding))


def _reason(holding: Holding, chosen: bool, last: Sequence[str], fits: bool) -> str:
    reasons = [sentence(holding)]
    if holding.device.uuid in last:
        reasons.append("yours last")
    if not fits:
        reasons.append(_UNFIT)
    if chosen:
        reasons.append("taken")
    return "; ".join(reasons)


def _too_few(count: int, there: int, holdings: Sequence[Holding]) -> EngineError:
    if there:
        return EngineError(
            f"{_wanted(count)}, and {there} of this machine's GPUs can be given", f"--gpus {there}"
        )
    unusable = [f"GPU {it.device.key}: {it.device.trouble or _DIVIDED}" for it in holdings]
    return EngineError(
        "; ".join([f"{_wanted(count)}, and this machine has none", *unusable]),
        "gpubox doctor tells more; --gpus none starts without",
    )


_UNFIT = "cannot run the image"
_DIVIDED = "it is divided by MIG, and has no instance"


def _none_free(
    count: int,
    free: Sequence[Holding],
    usable: Sequence[Holding],
    fit: Sequence[Holding],
    excluding: Sequence[str],
) -> NotFree:
    own = [it for it in usable if it.device.key in excluding]
    rows = [
        f"GPU {it.device.key} {sentence(it) if it in fit else _UNFIT}"
        for it in usable
        if it not in own and it not in free
    ]
    rows += [f"GPU {it.device.key} is the box's own" for it in own]
    there = f"{len(free) or 'none'} of {len(usable)} {'are' if len(free) > 1 else 'is'} free"
    return NotFree(
        f"{_wanted(count)}, and {there}: {'; '.join(rows)}",
        f"{_stop_mine(usable)}--wait waits for it; gpubox gpus shows who has which",
    )


def _wanted(count: int) -> str:
    return f"{counted(count, 'GPU')} {'is' if count == 1 else 'are'} wanted"


def _stop_mine(holdings: Iterable[Holding]) -> str:
    """How the caller frees GPUs of their own: of the idle boxes if there are any, else of all."""
    mine = [it for it in holdings if it.state == "mine"]
    idle = [it for it in mine if not it.working] or mine
    boxes = [box for it in idle for box in _boxes(it)]
    run = dict.fromkeys(box.name for box in boxes if box.state != "exited")
    # a restart policy brings these back, so only their removal frees the GPUs
    kept = dict.fromkeys(box.name for box in boxes if box.state == "exited")
    ways = [
        f"gpubox {verb} {' '.join(names)}" for verb, names in (("stop", run), ("rm", kept)) if names
    ]
    return f"{' and '.join(ways)} frees yours; " if ways else ""
