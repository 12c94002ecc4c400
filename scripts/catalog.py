"""From data/cuda_tags*.csv to src/gpubox/data/cuda.json, the catalogue that gpubox carries.

Run it after a change to the CSV files: `python scripts/catalog.py`. Knows nothing of gpubox's code.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "src" / "gpubox" / "data" / "cuda.json"
LISTED = "2026-06-18"  # the newest listing of Docker Hub in the data

# What the evidence of a deletion says about its time, worded to follow "in"; oldest first.
DELETED = {
    "withdrawn ~2021-01": "January 2021",
    "in cog listing 2021-11-09, gone 2022-03-22": "late 2021 or early 2022",
    "between 2022-05-28 and 2022-08-12": "mid-2022",
    "libnvidia-container#181 (2022-08)": "mid-2022",
    "kokkos#5509 (2022-09-26)": "mid-2022",
    "deletion list": "June 2023",
    "deleted 2023-06/07": "June 2023",
    "in Hub listing of cog 2023-06-05, absent 2023-07-03": "June 2023",
    "nerdctl#2756 (2024-01)": "June 2023",
    "docker/docs#18898 (2023-12)": "June 2023",
    "last seen in live listing 2023-06-30": "2023, 2024 or 2025",
}
UNDATED = "short alias pushed by NVIDIA/nvidia-docker"

Row = dict[str, str]
Fact = tuple[str, str]  # state, and when: last listed, deleted, or (unknown) first heard of


def rows(name: str) -> list[Row]:
    with (ROOT / "data" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fact(row: Row) -> Fact:
    """Only a listing proves a tag to be live: a mention in somebody's code does not."""
    if row["status"] == "removed":
        return "deleted", deleted(row["evidence"])
    if row["status"] == "available" and row["proof"] == "listing":
        return "live", row["last_seen_live"]
    return "unknown", row["first_seen"]


def deleted(evidence: str) -> str:
    if evidence.startswith(UNDATED):
        return ""
    return next(when for words, when in DELETED.items() if words in evidence)


def suffix(row: Row) -> tuple[str, str]:
    """What follows the version in a tag, in two halves that multiply: `cudnn8-devel`, `ubi8`."""
    if row["tag"] == "latest":
        return "latest", ""
    part = "-".join(filter(None, (row["addon"], row["flavor"])))
    return part, "-".join(filter(None, (row["os"], row["rc"])))


def groups(facts: dict[tuple[str, str], Fact]) -> list[list[str]]:
    """[state, when, parts, OSes]: each part exists on each OS; `-` stands for nothing there."""
    parts: dict[tuple[Fact, str], list[str]] = defaultdict(list)
    for (part, os), known in facts.items():
        parts[known, os].append(part or "-")
    oses: dict[tuple[Fact, str], list[str]] = defaultdict(list)
    for (known, os), names in parts.items():
        oses[known, " ".join(sorted(names))].append(os or "-")
    times = ["", *DELETED.values()]
    made = [[*known, names, " ".join(sorted(on))] for (known, names), on in oses.items()]
    return sorted(made, key=lambda it: (it[0], it[0] == "deleted" and times.index(it[1]), *it[1:]))


def expected(complete: list[dict[tuple[str, str], Fact]]) -> dict[tuple[str, str], Fact]:
    """The newest versions were listed for cudnn-devel on Ubuntu alone. That the rest exists too is
    likely, so whatever the three complete versions before them had counts as unknown."""
    each = [it for facts in complete[-3:] for it in facts if not it[0].startswith("tensorrt")]
    return dict.fromkeys(each, ("unknown", ""))


def catalogue() -> str:
    tags: dict[str, dict[tuple[str, str], Fact]] = defaultdict(dict)
    for row in rows("cuda_tags_full.csv"):
        tags[row["cuda"]][suffix(row)] = fact(row)
    versions: dict[str, dict[str, object]] = {"": {"tags": groups(tags.pop(""))}}
    complete: list[dict[tuple[str, str], Fact]] = []
    for row in rows("cuda_tags.csv"):
        known = tags.pop(row["cuda_version"])
        if "only the tags in" in row["note"]:
            known = expected(complete) | known
            row["cudnn_tag_part"] = "cudnn"
            row["cudnn_majors"] = row["cudnn_majors"] or "9"
        else:
            complete.append(known)
        versions[row["cuda_version"]] = version(row) | {"tags": groups(known)}
    assert not tags, f"cuda_tags.csv lacks {', '.join(tags)}"
    return written(versions)


def version(row: Row) -> dict[str, object]:
    """`released`: month of the toolkit. `cudnn`: what a `cudnn` tag without a number holds."""
    said: dict[str, object] = {}
    if row["toolkit_released"]:
        said["released"] = row["toolkit_released"]
    if "cudnn" in row["cudnn_tag_part"].split("|"):
        said["cudnn"] = row["cudnn_majors"]
    return said


def written(versions: dict[str, dict[str, object]]) -> str:
    """One line a version, so that a change reads well in a diff."""
    lines = (f"  {json.dumps(name)}: {json.dumps(it)}" for name, it in versions.items())
    head = f'{{"listed": {json.dumps(LISTED)}, "versions": {{\n'
    return head + ",\n".join(lines) + "\n}}\n"


if __name__ == "__main__":
    TARGET.write_text(catalogue(), encoding="utf-8", newline="\n")
