"""Numbers and lists as a person reads them: `1 GPU`, `0, 2 and 3`, `3.9 GB`, `2 min 5 s`.

Pure; knows nothing of what is counted.
"""

from __future__ import annotations

from collections.abc import Iterable

GIB = 1 << 30


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 GPU`, `2 GPUs`."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def listed(words: Iterable[str]) -> str:
    """`0, 2 and 3`."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def size_text(count: float) -> str:
    """Bytes by powers of 1000, as registries and disks are measured: `3.9 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration_text(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def parts_text(done: int, total: int, all_known: bool = True) -> str:
    """`1.2 of 3.4 GB`; `of 3.4+ GB` where not all sizes are known yet."""
    if not total:
        return size_text(done)
    whole, unit = size_text(total).split()
    part, its_unit = size_text(done).split()
    same = "" if unit == its_unit else f" {its_unit}"
    return f"{part}{same} of {whole}{'' if all_known else '+'} {unit}"
