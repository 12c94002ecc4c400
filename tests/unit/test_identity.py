"""In a box that runs as the caller they have name, groups and home; the image keeps its own."""

from __future__ import annotations

import io
import tarfile

from msgspec.structs import replace

from gpubox.engine.archives import packed
from gpubox.plan.identity import files, group, passwd
from lab.anna import ANNA

CALLER = replace(ANNA, gid=1001, groups={1001: "anna", 27: "sudo", 5000: "lab"})
ROOT = "root:x:0:0:root:/root:/bin/bash"
OWN = "anna:x:1000:1001::/home/anna:/bin/bash"


def test_the_caller_comes_first_and_takes_the_name_of_nobody_else() -> None:
    """The first with a number is who it is; an image's scripts may ask for theirs by name."""
    theirs = "jovyan:x:1000:100::/home/jovyan:/bin/bash"
    assert passwd(f"{ROOT}\n{theirs}\n", CALLER).splitlines() == [OWN, ROOT, theirs]


def test_a_user_of_the_callers_name_is_the_caller() -> None:
    assert passwd(f"{ROOT}\nanna:x:7:7::/:/bin/sh\n", CALLER).splitlines() == [OWN, ROOT]


def test_an_image_without_users_gets_one() -> None:
    assert passwd("", CALLER) == "anna:x:1000:1001::/home/anna:/bin/sh\n"


def test_groups_that_the_image_has_not_come_under_their_hosts_names() -> None:
    assert group("root:x:0:\nsudo:x:27:\nlab:x:99:\n", CALLER).splitlines() == [
        *("root:x:0:", "sudo:x:27:", "lab:x:99:"),
        "anna:x:1001:anna",
        "lab-5000:x:5000:anna",
    ]


def test_the_archive_has_both_files_and_a_home_of_the_callers() -> None:
    with tarfile.open(fileobj=io.BytesIO(packed(files({"etc/passwd": ROOT}, CALLER)))) as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert set(members) == {"etc/passwd", "etc/group", "home/anna"}
        file = tar.extractfile("etc/passwd")
        assert file is not None and file.read().decode() == f"{OWN}\n{ROOT}\n"
    home = members["home/anna"]
    assert (home.isdir(), home.uid, home.gid, home.mode) == (True, 1000, 1001, 0o750)
