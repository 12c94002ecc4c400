"""The README and docs/ against the program: links, pictures, the keys of every --json."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from gpubox.boxes.box import Box
from gpubox.checks import Check
from gpubox.cli import doctor, gpus, invoke, ps
from gpubox.cli.app import SECTIONS
from gpubox.gpus.holders import Container, Holding, Use
from gpubox.gpus.machine import Device, Process
from gpubox.images.offers import Offer
from gpubox.images.registries import Remote

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PICTURES = sorted((ROOT / "docs").glob("*.svg"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in _links(page):
        if not link.startswith("https://"):
            path, _, place = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not place or place in _places(target), link


def test_the_readme_leads_to_every_page_and_the_guides_contents_to_all_of_it() -> None:
    readme, guide = PAGES[0], ROOT / "docs" / "guide.md"
    assert {f"docs/{page.name}" for page in PAGES[1:]} <= set(_links(readme))
    assert {f"#{place}" for place in _places(guide)[1:]} <= set(_links(guide))


def _links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))


def _places(page: Path) -> list[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


def test_every_picture_is_small_and_shown_and_of_commands_that_there_are() -> None:
    readme = PAGES[0].read_text("utf-8")
    commands = {name for section in SECTIONS.values() for name in section}
    assert PICTURES
    for picture in PICTURES:
        assert picture.stat().st_size < 40_000
        assert f"(docs/{picture.name})" in readme
        typed = re.findall(r"\$&#160;gpubox&#160;(\w+)", picture.read_text("utf-8"))
        assert typed and set(typed) <= commands, picture.name


# --- JSON

BOX = Box(
    id="",
    name="",
    image="",
    profile="",
    owner="",
    kind="",
    gpus="",
    claim="",
    folder="",
    state="",
    status="",
    created=0,
    ports=(),
)
HOLDING = Holding(
    device=Device(index="0"),
    state="held",
    holders=(Container(id="0", name="box"),),
    uses=(Use(process=Process(pid=1), program=None),),
)


def documented(heading: str) -> list[list[str]]:
    """The keys of each table below this heading."""
    text = (ROOT / "docs" / "json.md").read_text("utf-8")
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    tables = section.split("| key | value |\n|---|---|\n")[1:]
    return [re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) for table in tables]


def fields(record: type[msgspec.Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(record)]


def test_the_page_of_json_has_the_keys_of_records() -> None:
    assert documented("images") == [fields(Offer), fields(Remote)]
    assert documented("doctor") == [list(doctor.object_of(Check("gpus", "ok", "")))]
    assert [sorted(keys) for keys in documented("ps")] == [sorted(ps.object_of(BOX, {}, {}))]


def test_the_page_of_json_has_the_keys_of_gpus_and_of_who_is_on_them() -> None:
    found = gpus.object_of(HOLDING)
    assert documented("gpus") == [list(found)]
    text = (ROOT / "docs" / "json.md").read_text("utf-8")
    for of in ("containers", "processes"):
        [row] = re.findall(rf"^\| `{of}` \|.*with (.*) \|$", text, re.MULTILINE)
        assert re.findall(r"`(\w+)`", row) == list(found[of][0])


def test_the_page_of_json_has_the_keys_of_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gpubox.yaml"
    file.write_text(f"datasets: {{here: {tmp_path}}}\nprofiles: {{p: {{image: a}}}}\n")

    def keys(*words: str) -> Sequence[str]:
        assert invoke(["--file", str(file), *words, "--json"]) == 0
        return list(json.loads(capsys.readouterr().out)[0])

    assert documented("profiles") == [keys("profiles"), keys("profiles", "p")]
    assert documented("datasets") == [keys("datasets", "--size")]


def test_every_listing_that_takes_json_is_on_its_page() -> None:
    snapshots = (ROOT / "tests/unit/snapshots").glob("help-*.txt")
    listings = {
        path.stem.removeprefix("help-") for path in snapshots if "--json" in path.read_text()
    }
    assert {name for name in listings if not documented(name)} == set()
