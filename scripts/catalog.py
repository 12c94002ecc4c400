"""From data/*.csv to src/gpubox/images/data: the catalogue, and the packages that make its images.

Run it after a change to the CSV files: `python scripts/catalog.py`. Knows nothing of gpubox's code.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "src" / "gpubox" / "images" / "data" / "cuda.json"
PACKAGES = TARGET.with_name("packages.json")
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
    (by_version, by_minor), cudnns = drivers(), cudnn_versions()
    complete: list[dict[tuple[str, str], Fact]] = []
    for row in rows("cuda_tags.csv"):
        known = tags.pop(row["cuda_version"])
        if "only the tags in" in row["note"]:
            known = expected(complete) | known
            row["cudnn_tag_part"] = "cudnn"
            row["cudnn_majors"] = row["cudnn_majors"] or "9"
        else:
            complete.append(known)
        cuda = row["cuda_version"]
        sister = by_minor[minor(cuda)]  # stands in for what is newer than the table
        asked = needs(by_version.get(cuda, sister), sister)
        versions[cuda] = version(row, cudnns.get(cuda, {}), asked) | {"tags": groups(known)}
    assert not tags, f"cuda_tags.csv lacks {', '.join(tags)}"
    tables: dict[str, object] = {
        "first_drivers": first_drivers(by_version.values()),
        "supports": {
            row["cuda_version"]: [row["min_cc"], row["max_cc"]] for row in rows("cuda_arch.csv")
        },
        "capabilities": capabilities(),
        "frameworks": frameworks(),
        "sizes": sizes(),
    }
    return written(tables, versions)


def minor(cuda: str) -> str:
    return ".".join(cuda.split(".")[:2])


def drivers() -> tuple[dict[str, Row], dict[str, Row]]:
    """Each CUDA's row; and by minor version the row whose archived Dockerfile was seen, if any."""
    by_version = {row["cuda_version"]: row for row in rows("cuda_driver.csv")}
    by_minor: dict[str, Row] = {}
    for cuda, row in by_version.items():
        first = by_minor.setdefault(minor(cuda), row)
        if not seen(first) and seen(row):
            by_minor[minor(cuda)] = row
    return by_version, by_minor


def seen(row: Row) -> bool:
    return row["gate_proof"] != "inferred"


def needs(row: Row, sister: Row) -> list[object]:
    """[toolkit's driver, least driver, driver that any GPU passes with, GeForce's branches,
    Tesla's branches]: the last two are null where the exceptions are not known."""
    gate = row if seen(row) else sister
    anybody = "450" if "any brand with driver>=450" in gate["note"] else ""
    exceptions = [gate[f"gate_{brand}_branches"] for brand in ("geforce", "datacenter")]
    branches = [list(filter(None, text.split("|"))) if seen(gate) else None for text in exceptions]
    return [row["linux_min_driver"], row["minor_compat_min"], anybody, *branches]


def first_drivers(of: Iterable[Row]) -> dict[str, str]:
    """The oldest driver that knows each CUDA, newest first."""
    found: dict[str, str] = {}
    for row in of:
        if driver := row["linux_min_driver"]:
            cuda = minor(row["cuda_version"])
            found[cuda] = min(driver, found.get(cuda, driver), key=numbers)
    return dict(sorted(found.items(), key=lambda it: numbers(it[0]), reverse=True))


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(".")]


def capabilities() -> dict[str, list[str]]:
    """[generation, last branch of its drivers, models] of each compute capability."""
    found: dict[str, list[str]] = {}
    for row in rows("gpu_cc.csv"):
        generation = row["architecture"].split(" (")[0]
        entry = found.setdefault(
            row["compute_capability"], [generation, row["last_driver_branch"], ""]
        )
        entry[2] = "|".join(filter(None, (entry[2], row["gpu"].split(" (")[0])))
    return found


def frameworks() -> dict[str, list[str]]:
    """[CUDA, least driver, least and greatest compute capability] of images of others."""
    keys = ("cuda", "least_driver", "min_cc", "max_cc")
    return {row["image"]: [row[key] for key in keys] for row in rows("framework_images.csv")}


def sizes() -> dict[str, list[float]]:
    """[GB to download, GB on disk], of `MAJOR FLAVOR [cudnn]` or of an image; 0 is not known."""
    found: dict[str, list[float]] = {}
    for row in rows("image_sizes.csv"):
        cudnn = ["cudnn"] if row["cudnn"] == "yes" else []
        found[" ".join((row["cuda"].split(".")[0], row["flavor"], *cudnn))] = size(row)
    return found | {
        row["image"]: size(row) for row in rows("framework_images.csv") if any(size(row))
    }


def cudnn_versions() -> dict[str, dict[str, str]]:
    """By CUDA and major version of cuDNN the newest one that its images were made with."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows("cudnn_pairs.csv"):
        newest = row["cudnn_versions_in_dockerfiles"].split(" ")[0].split("/")[-1]
        found[row["cuda_version"]][row["cudnn_major"]] = newest
    return found


def size(row: Row) -> list[float]:
    return [float(row[f"{kind}_gb"] or 0) for kind in ("compressed", "unpacked")]


def version(row: Row, cudnns: dict[str, str], asked: list[object]) -> dict[str, object]:
    """`released`: month of the toolkit. `cudnn`: what a `cudnn` tag without a number holds.
    `holds`: the whole version of each cuDNN. `needs`: see there."""
    said: dict[str, object] = {}
    if row["toolkit_released"]:
        said["released"] = row["toolkit_released"]
    if "cudnn" in row["cudnn_tag_part"].split("|"):
        said["cudnn"] = row["cudnn_majors"]
    if cudnns:
        said["holds"] = cudnns
    said["needs"] = asked
    return said


def written(tables: dict[str, object], versions: dict[str, dict[str, object]]) -> str:
    """One line a version and a table, so that a change reads well in a diff."""
    head = "".join(f"{json.dumps(name)}: {json.dumps(it)},\n" for name, it in tables.items())
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(it)}" for name, it in versions.items())
    return f'{{"listed": {json.dumps(LISTED)},\n{head}"versions": {{\n{lines}\n}}}}\n'


def packages() -> str:
    """For each CUDA on each OS [flavor, addon, repository, {package: version}], in order: the first
    OS of a CUDA is the one that a tag without any means."""
    groups: dict[str, dict[tuple[str, ...], dict[str, str]]] = defaultdict(dict)
    for row in rows("cuda_packages.csv"):
        key = row["flavor"], row["addon"], row["repository"]
        pins = groups[f"{row['cuda']} {row['os']}"].setdefault(key, {})
        pins[row["package"]] = row["version"]
    lines = (
        f"  {json.dumps(name)}: {json.dumps([[*key, pins] for key, pins in them.items()])}"
        for name, them in groups.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    TARGET.write_text(catalogue(), encoding="utf-8", newline="\n")
    PACKAGES.write_text(packages(), encoding="utf-8", newline="\n")
