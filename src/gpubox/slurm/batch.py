"""Writes the script that Slurm's `sbatch` is given, and says in which file its output will be.

Pure: runs nothing, and knows of gpubox only the words that start it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence


def directives(name: str, gpus: int, options: Sequence[str]) -> list[str]:
    """What stands behind `#SBATCH`: ours first, because of two options Slurm obeys the later one.

    GPUs are asked for by `--gres`, which every version of Slurm counts per node, unless `options`
    ask for some.
    """
    return [
        f"--job-name=gpubox-{name}",
        *("--nodes=1", "--ntasks=1"),
        *([f"--gres=gpu:{gpus}"] if gpus and not asks_for_gpus(options) else []),
        f"--output=%x-{'%A_%a' if _value(options, '--array', '-a') else '%j'}.log",
        *options,
    ]


def asks_for_gpus(options: Sequence[str]) -> bool:
    return any(re.match("--gres[ =]|--gpus|-G", option) for option in options)


def script(directives: Sequence[str], words: Sequence[str]) -> str:
    """A script that ends in `exec`, so that Slurm's signals reach the program and no shell."""
    return "".join(
        f"{line}\n"
        for line in (
            "#!/bin/sh",
            *(f"#SBATCH {directive}" for directive in directives),
            f"exec {' '.join(map(_quoted, words))}",
        )
    )


def _quoted(word: str) -> str:
    """Quote a word for a shell; `sbatch` refuses a script that has a DOS line end anywhere."""
    return shlex.quote(word).replace("\r\n", "'\"$(printf '\\r')\"'\n")


def log(directives: Sequence[str], job: str) -> str:
    """The file that the output goes into; for an array's tasks `*` stands for their numbers."""
    name = _value(directives, "--job-name", "-J")
    output = _value(directives, "--output", "-o")
    known = {"%x": name, "%j": job, "%A": job, "%a": "*", "%%": "%"}
    return re.sub(r"%[xjAa%]", lambda found: known[found[0]], output)


def _value(options: Sequence[str], long: str, short: str = "") -> str:
    """What the last of these options says: `--array=0-9`, `--array 0-9` or `-a 0-9`; else empty."""
    found = ""
    for option in options:
        words = shlex.split(option)
        head, equals, value = words[0].partition("=")
        if head == long:
            found = value if equals else " ".join(words[1:])
        elif short and head.startswith(short) and not head.startswith("--"):
            found = words[0][len(short) :] or " ".join(words[1:])
    return found
