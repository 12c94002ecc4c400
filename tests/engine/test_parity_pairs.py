"""Settings together that nobody thought of: the printed line and gpubox make the same container.

hypothesis draws them from `lab.spellings`, the same ones each time; a longer search is
`HYPOTHESIS_EXAMPLES=300 bash tests/run.sh tests/engine/test_parity_pairs.py`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from docker import DockerClient
from docker.errors import APIError
from hypothesis import find, given, note

from gpubox.profile.settings import SETTINGS, Setting
from lab.inprocess import Answer, gpubox, gpubox_create
from lab.inspect import inspected, remove_all
from lab.spellings import DATA, SPELLINGS, Asked, Spelling, asked, filled, searched

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "25"))

# What gpubox refuses although `docker run` would take it, or would take it for something else.
REFUSED_ON_PURPOSE = (
    "exclude each other",  # rm, and a policy that starts the box again
    "are both mounted on",
    "stands here twice; keep one",
    "is published twice",
    "image and cuda in one place",
    "has a space in it",  # which the docker program refuses too
    "a terminal in the box (-t) with input from something that is none",
)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_every_setting_of_the_table_is_drawn_as_yaml_and_by_its_flag(setting: Setting) -> None:
    flags = tuple(flag for flag in (*setting.flag.split("/"), setting.also) if flag)

    def as_yaml(drawn: Spelling) -> bool:
        return setting.key in drawn.yaml

    def by_flag(drawn: Spelling) -> bool:
        return drawn.words is not None and drawn.words[0].startswith(flags)

    find(SPELLINGS[setting.key], as_yaml, settings=searched(100))
    if flags:
        find(SPELLINGS[setting.key], by_flag, settings=searched(100))


def refused(answer: Answer) -> bool:
    """Whether gpubox says no, as it should: one sentence, and one more that helps."""
    if answer.code == 0:
        return False
    assert answer.code in (125, 126, 127), answer
    problem, _, hint = answer.err.rpartition("gpubox: ")[2].partition("\n")
    assert problem and hint.count("\n") <= 1, answer.err
    assert "Traceback" not in answer.err
    return True


def test_each_setting_alone_makes_the_same_box(
    client: DockerClient, surroundings: dict[str, str]
) -> None:
    for key in SPELLINGS:

        @searched(3)
        @given(asked([key], 1))
        def check(drawn: Asked) -> None:
            same_box(client, filled(drawn, surroundings), surroundings[DATA], detached=False)

        check()


@pytest.mark.parametrize("detached", [True, False], ids=["detached", "foreground"])
def test_settings_together_make_the_same_box(
    client: DockerClient, surroundings: dict[str, str], detached: bool
) -> None:
    # of a detached box that removes itself nothing would be left to look at
    keys = [key for key in SPELLINGS if not (detached and key == "rm")]

    @searched(EXAMPLES)
    @given(asked(keys, 3))
    def check(drawn: Asked) -> None:
        same_box(client, filled(drawn, surroundings), surroundings[DATA], detached)

    check()


def same_box(client: DockerClient, drawn: Asked, data: str, detached: bool) -> None:
    """Detached both are started; in the foreground both are created, which is all that differs."""
    remove_all(client)
    project = Path("gpubox.yaml")
    project.write_text(yaml.safe_dump(drawn.document(data), allow_unicode=True), "utf-8")
    project.chmod(0o644)
    words = [*(["-d"] if detached else []), *drawn.words]
    note(shlex.join(["gpubox run", *words, "asked", *drawn.command]))
    line = gpubox("run", *words, "--dry-run", "asked", *drawn.command)
    if refused(line):
        assert any(reason in line.err for reason in REFUSED_ON_PURPOSE), line.err
        return
    printed = shlex.split(line.out)
    name = printed[printed.index("--name") + 1]
    printed[1] = "run" if detached else "create"
    theirs = subprocess.run(printed, capture_output=True, text=True, check=False)
    before = inspected(client, name) if theirs.returncode == 0 else {}
    remove_all(client)  # a refused start leaves its container

    if detached:
        ours = gpubox("run", *words, "asked", *drawn.command)
    else:
        ours = gpubox_create(*words, "asked", *drawn.command)
    note(f"{line.out}docker: {theirs.stderr}\ngpubox: {ours.err}")
    if refused(ours):
        # where Docker's init process finds no program, `docker run -d` calls that a start
        assert not before or ours.code in (126, 127), ours.err
        assert not client.containers.list(all=True), "a refused start leaves nothing"
        return
    if not before and not detached:
        # an old `docker` knows less than its engine, which then refuses at the start
        with pytest.raises(APIError):
            client.api.start(name)
        return
    assert inspected(client, name) == before
