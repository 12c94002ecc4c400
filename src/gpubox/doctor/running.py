"""Makes checks of the boxes that run: lost GPUs, and doors that stand open to others.

Pure: what was seen of each box comes in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gpubox.checks import Check
from gpubox.doctor.seen import BoxSeen
from gpubox.gpus.machine import Machine

LOST, OPEN_PORTS, PRIVILEGED, JUPYTER = "lost-gpus", "open-ports", "privileged", "open-jupyter"
BOXES = (LOST, OPEN_PORTS, PRIVILEGED, JUPYTER)


def of_boxes(boxes: Sequence[BoxSeen] | None, machine: Machine | None, why: str) -> Iterator[Check]:
    """What is wrong with running boxes; if they are None, `why` says why they are not known."""
    if boxes is None:
        for check in BOXES:
            yield Check(check, "not known", why)
        return
    with_gpus = [box for box in boxes if box.gpus not in ("", "none")]
    unreached = [box.name for box in with_gpus if box.reaches_gpus is None]
    lost = [_lost(box, machine) for box in with_gpus]
    yield from _each(LOST, lost, unreached, _none_of(with_gpus, " with GPUs"))
    for check, question, unseen in (
        (OPEN_PORTS, _open_ports, []),
        (PRIVILEGED, _privileged, [box.name for box in boxes if box.privileged is None]),
        (JUPYTER, _open_jupyter, [box.name for box in boxes if box.open_at is None]),
    ):
        yield from _each(check, map(question, boxes), unseen, _none_of(boxes))


def _none_of(boxes: Sequence[BoxSeen], kind: str = "") -> str:
    return f"none of {len(boxes)} running{kind}" if boxes else f"no box{kind} runs"


def _each(
    check: str, found: Iterable[Check | None], unknown: Sequence[str], fine: str
) -> Iterator[Check]:
    """The checks that were found, and one for boxes that could not be seen; else one that is ok."""
    wrong = [one for one in found if one]
    yield from wrong
    if unknown:
        yield Check(check, "not known", f"it could not be seen of {', '.join(unknown)}")
    elif not wrong:
        yield Check(check, "ok", fine)


def _lost(box: BoxSeen, machine: Machine | None) -> Check | None:
    gone = _gone(box.gpus, machine) if machine else []
    if gone:
        problem = f"{box.name} holds {', '.join(gone)}, which the driver does not list any more"
    elif box.reaches_gpus is False:
        problem = f"{box.name} may not open its GPUs any more"
    else:
        return None
    return Check(LOST, "fail", problem, f"gpubox restart {box.meant}")


def _gone(label: str, machine: Machine) -> list[str]:
    """The GPUs of a claim that are not there any more; MIG instances are not looked at."""
    known = {gpu.uuid for gpu in machine.gpus} | {f"index:{gpu.index}" for gpu in machine.gpus}
    whole = [
        gpu
        for gpu in label.split(",")
        if gpu.startswith(("GPU-", "index:")) and ":" not in gpu.removeprefix("index:")
    ]
    unread = any(not gpu.uuid for gpu in machine.gpus)
    return [
        gpu.removeprefix("index:")
        for gpu in whole
        if gpu not in known and not (unread and gpu.startswith("GPU-"))
    ]


def _open_ports(box: BoxSeen) -> Check | None:
    opened = [port for port in box.ports if published_at(port)[0] in ("0.0.0.0", "::", "")]
    inner = dict.fromkeys(port.partition("->")[2] for port in opened)
    if not opened:
        return None
    again = " ".join(f"-p {_outer(inside, opened)}" for inside in inner)
    return Check(
        OPEN_PORTS,
        "warn",
        f"{box.name} publishes {', '.join(opened)}: open to the whole network, past ufw",
        f"gpubox stop {box.meant}, and start it anew with {again}",
    )


def _outer(inner: str, opened: Sequence[str]) -> str:
    """What to publish instead, on 127.0.0.1."""
    outer = next(port for port in opened if port.endswith(f"->{inner}")).partition("->")[0]
    return f"127.0.0.1:{outer.rpartition(':')[2]}:{inner.removesuffix('/tcp')}"


def published_at(port: str) -> tuple[str, int]:
    """The host's address and port, of a port that is listed as `ADDRESS:PORT->PORT/PROTOCOL`."""
    address, _, number = port.partition("->")[0].rpartition(":")
    return address, int(number)


def address_text(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _privileged(box: BoxSeen) -> Check | None:
    if not box.privileged:
        return None
    return Check(
        PRIVILEGED,
        "warn",
        f"{box.name} is privileged: it has every GPU and every device of the machine, whatever it"
        " claims, and its root is this machine's",
        f"gpubox stop {box.meant}, and start it anew without --privileged",
    )


def _open_jupyter(box: BoxSeen) -> Check | None:
    if not box.open_at:
        return None
    return Check(
        JUPYTER,
        "fail",
        f"{box.name} lets anybody who reaches {', '.join(box.open_at)} into its Jupyter, without a"
        " token",
        f"gpubox stop {box.meant}; gpubox jupyter starts one with a token",
    )
