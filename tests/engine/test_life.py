"""The life of a box: hard to lose, easy to come back to, and clear whose it is."""

from __future__ import annotations

import json
import signal

import pytest

from lab.engine import PrivateEngine
from lab.images import STAND_IN
from lab.person import at_window
from lab.tmux import Window
from lab.waiting import PATIENCE, wait_until
from lab.workstation import BOX, PROFILE, SOMEBODY, UUIDS, Workstation

THEIRS = f"{PROFILE}-nobody"
DETACH = "\x10\x11"


# Several at once -------------------------------------------------------------------------------


def test_boxes_stop_and_start_again_at_once_and_keep_their_gpus(
    engine: PrivateEngine, lab: Workstation
) -> None:
    one, two = lab.box(), lab.box("--gpus", "2")
    none = lab.box("--gpus", "none")
    code, out, err = lab.says("stop", "-t", "1", one, two, none)
    assert (code, sorted(out.split())) == (0, sorted([one, two, none]))
    assert sorted(err.splitlines()) == sorted(f"{box} is stopped" for box in (one, two, none))
    code, out, err = lab.says("start", one, two, none)
    assert (code, sorted(out.split())) == (0, sorted([one, two, none])), err
    assert sorted(err.splitlines()) == sorted(
        [f"{one} runs on GPU 0", f"{two} runs on GPUs 1 and 2", f"{none} runs"]
    )
    assert [lab.seen_in(box) for box in (one, two)] == [UUIDS[:1], UUIDS[1:3]]
    assert lab.says("start", one) == (0, f"{one}\n", f"{one} runs already\n")
    before = lab.docker("inspect", "-f", "{{.State.StartedAt}}", one)
    assert lab.says("restart", "-t", "0", one) == (
        0,
        f"{one}\n",
        f"{one} runs on GPU 0, started anew\n",
    )
    assert lab.docker("inspect", "-f", "{{.State.StartedAt}}", one) != before
    assert set(lab.containers()) == {one, two, none}  # no ticket is left


def test_only_what_is_stopped_is_removed_unless_forced(lab: Workstation) -> None:
    one, two = lab.box("--gpus", "none"), lab.box("--gpus", "none")
    lab.docker("stop", "-t", "0", two)
    code, out, err = lab.says("rm", one, two)
    assert (code, out) == (1, f"{two}\n")
    assert sorted(err.splitlines()) == sorted(
        [
            f"{two} is removed",
            f"gpubox: {one} runs",
            f"  gpubox stop {one} first, or gpubox rm -f {one}",
        ]
    )
    assert lab.says("rm", "-f", one) == (0, f"{one}\n", f"{one} is removed\n")
    assert lab.containers() == {}


def test_a_name_may_be_shortened_and_one_that_is_wrong_stops_it_all(lab: Workstation) -> None:
    lab.container("redis")
    lab.box("--gpus", "none")
    code, _, err = lab.says("stop", PROFILE, "nix", "redis")
    assert code == 2
    assert err == (
        f"gpubox: no box 'nix'\n  there is: {BOX}\n"
        "gpubox: redis is a container that gpubox did not start\n"
        "  docker ps -a and docker inspect redis tell of it\n"
    )
    assert lab.containers() == {BOX: "running", "redis": "running"}
    assert lab.says("stop", "-t", "0", PROFILE) == (0, f"{BOX}\n", f"{BOX} is stopped\n")


@pytest.mark.parametrize("verb", ["stop", "start", "restart", "rm", "logs", "enter", "move"])
def test_another_persons_box_is_touched_only_with_its_owner_and_full_name(
    lab: Workstation, verb: str
) -> None:
    lab.box("--gpus", "none", uid=SOMEBODY)
    more = ("--gpus", "none") if verb == "move" else ()
    code, out, err = lab.says(verb, *more, THEIRS)
    assert code == (125 if verb == "enter" else 1)
    assert out == ""
    assert err == (
        f"gpubox: {THEIRS} is nobody's box\n"
        "  another person's box is not touched without --owner NAME and its full name\n"
    )
    code, _, err = lab.says(verb, *more, "--owner", "nobody", THEIRS[:-1])
    assert code == (125 if verb == "enter" else 2)
    assert f"no box '{THEIRS[:-1]}'" in err
    assert lab.containers() == {THEIRS: "running"}


def test_with_its_owner_named_it_is(lab: Workstation) -> None:
    lab.box("--gpus", "none", uid=SOMEBODY)
    assert lab.says("enter", "--owner", "nobody", THEIRS, "echo", "hi") == (0, "hi\n", "")
    code, _, err = lab.says("rm", "-f", "--owner", "nobody", THEIRS)
    assert (code, err.splitlines()[0]) == (2, "gpubox: -f removes boxes of yours only")
    assert lab.says("stop", "-t", "0", "--owner", "nobody", THEIRS)[0] == 0
    assert lab.says("rm", "--owner", "nobody", THEIRS)[0] == 0
    assert lab.containers() == {}


def test_all_of_a_profile_stop_and_those_of_others_do_not(lab: Workstation) -> None:
    mine = [lab.box("--gpus", "none") for _ in range(3)]
    lab.gpubox("run", "-d", "--gpus", "none", STAND_IN, "sleep", "600")
    lab.box("--gpus", "none", uid=SOMEBODY)
    code, out, _ = lab.says("stop", "-t", "0", "--profile", PROFILE)
    assert (code, sorted(out.split())) == (0, sorted(mine))
    stopped = {name for name, state in lab.containers().items() if state == "exited"}
    assert stopped == set(mine)
    assert lab.says("stop", "--profile", PROFILE) == (
        0, "", f"no box of the profile {PROFILE} runs\n",
    )  # fmt: skip
    assert lab.says("stop", "--profile", PROFILE, BOX)[0] == 2


def test_a_stop_says_what_becomes_of_a_box_that_does_not_just_stop(lab: Workstation) -> None:
    lab.gpubox("run", "-d", "--rm", "--gpus", "none", "--name", "gone", PROFILE, "sleep", "600")
    back = lab.box("--restart", "always")
    code, _, err = lab.says("stop", "-t", "0", "gone", back)
    assert code == 0
    assert sorted(err.splitlines()) == [
        f"{back} is stopped, and keeps its GPUs: it starts again by itself (--restart always);"
        f" gpubox rm {back} frees them",
        "gone is stopped, and removed: it was started with --rm",
    ]


# Its GPUs, taken meanwhile ---------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_a_box_whose_gpu_is_taken_does_not_start_and_can_wait_for_it(
    engine: PrivateEngine, lab: Workstation, verb: str
) -> None:
    lab.box()
    lab.says("stop", "-t", "0", BOX)
    lab.box("--gpus", "device=0", uid=SOMEBODY)
    assert lab.says(verb, BOX) == (
        1,
        "",
        f"gpubox: the GPUs of {BOX} are held by {THEIRS}, nobody's box\n"
        f"  gpubox save {BOX} NAME and gpubox run NAME take its files to a free one; --wait waits"
        " for these\n",
    )
    assert lab.containers() == {BOX: "exited", THEIRS: "running"}
    waiting = lab.gpubox.begin(verb, "--wait", BOX)
    assert waiting.stderr
    assert waiting.stderr.readline().startswith(b"waiting: the GPUs of ")
    lab.docker("stop", "-t", "0", THEIRS)
    assert waiting.wait(PATIENCE) == 0
    assert lab.containers() == {BOX: "running", THEIRS: "exited"}


def test_who_waits_for_the_gpus_of_a_box_can_be_ended(lab: Workstation) -> None:
    lab.box()
    lab.says("stop", "-t", "0", BOX)
    lab.box("--gpus", "device=0", uid=SOMEBODY)
    waiting = lab.gpubox.begin("start", "--wait", BOX)
    assert waiting.stderr
    assert waiting.stderr.readline().startswith(b"waiting: ")
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(PATIENCE) == 130
    assert lab.containers() == {BOX: "exited", THEIRS: "running"}


# Coming back -----------------------------------------------------------------------------------


def test_a_shell_box_that_was_left_is_entered_again_with_its_files(
    engine: PrivateEngine, lab: Workstation
) -> None:
    with at_window(lab.gpubox) as person:
        run(person, f"gpubox run {PROFILE}")
        person.type("echo kept > /root/note; exit 3\r")
        told = "".join(person.shows("[3]$"))  # folded at the window's edge
        assert f"gpubox enter {BOX} comes back (if its GPU" in told
        run(person, "gpubox enter", f"entering {BOX} (the latest of this folder)")
        person.type("cat /root/no''te; nvidia-smi -L | grep -c GPU\r")
        person.shows("kept")
        person.shows("1")
        person.type(DETACH)
        person.shows("[0]$")
        run(person, f"gpubox enter {BOX}", f"another shell in {BOX}, which ends with the first one")
        person.type("cat /root/no''te; exit 4\r")
        person.shows("kept")
        person.shows("[4]$")
        person.type(f"clear; gpubox enter --attach {BOX}\r")
        person.shows("/ #")
        person.type("exit 5\r")
        person.shows("[5]$")
    assert lab.containers() == {BOX: "exited"}


def test_a_box_that_removes_itself_is_not_said_to_be_kept(lab: Workstation) -> None:
    lab.gpubox("run", "-d", "--rm", "--gpus", "none", PROFILE)
    with at_window(lab.gpubox) as person:
        person.type(f"gpubox enter --attach {BOX}\r")
        person.shows("/ #")
        person.type("exit 6\r")
        assert "kept" not in " ".join(person.shows("[6]$"))
    wait_until(lambda: lab.containers() == {}, what="its removal")


def run(person: Window, command: str, says: str = "GPU 0 (of 4)") -> None:
    person.type(f"clear; {command}\r")
    person.fulfils(lambda lines: says in "".join(lines) and "/ #" in lines, f"{says}, and a shell")


def test_enter_runs_no_command_again(lab: Workstation) -> None:
    lab.says("run", "--gpus", "none", PROFILE, "sh", "-c", "echo once >> /root/log")
    code, _, err = lab.says("enter", BOX)
    assert (code, err) == (
        125,
        f"gpubox: {BOX} has run its command, and enter does not run it again\n"
        f"  gpubox start {BOX} does; gpubox save {BOX} NAME and gpubox run NAME look inside\n",
    )
    assert lab.says("enter") == (
        125,
        "",
        "gpubox: you have no box to enter\n  gpubox run starts one\n",
    )
    lab.says("start", BOX)
    wait_until(lambda: lab.containers() == {BOX: "exited"}, what="its end")
    assert lab.docker("cp", f"{BOX}:/root/log", "-").count("once") == 2


def test_a_command_in_a_box_is_what_it_was_typed_and_ends_as_it_does(
    engine: PrivateEngine, lab: Workstation
) -> None:
    lab.box("--gpus", "none")
    script = 'id -u; pwd; echo "$A"; echo err >&2; exit 7'
    assert lab.says(
        "enter", "-u", "nobody", "-w", "/tmp", "-e", "A=b c", BOX, "sh", "-c", script
    ) == (
        7,
        "65534\n/tmp\nb c\n",
        "err\n",
    )
    done = lab.gpubox("enter", "-i", "--", "cat", stdin=b"\x00in\xff")
    assert (done.returncode, done.stdout) == (0, b"\x00in\xff")
    assert done.stderr.decode() == f"entering {BOX} (the latest of this folder)\n"
    code, _, err = lab.says("enter", BOX, "nvdia-smi")
    assert code == 127
    assert f"there is no program 'nvdia-smi' in {STAND_IN}" in err
    assert lab.says("enter", BOX, "/etc/passwd")[0] == 126
    code, _, err = lab.says("enter", "-u", "nosuch", BOX, "id")
    assert (code, "nosuch" in err.splitlines()[-2]) == (125, True), err
    code, out, _ = lab.says("enter", "-e", "LANG", "-e", "UNSET", BOX, "--", "env")
    assert "LANG=C.UTF-8\n" in out
    assert "UNSET" not in out
    code, _, err = lab.says("enter", "nvidia-smi", "-L")
    assert (code, err.splitlines()) == (
        125,
        [
            "gpubox: no box 'nvidia-smi'",
            f"  there is: {BOX}; as a command: gpubox enter -- nvidia-smi -L",
        ],
    )
    assert lab.says("enter", BOX)[0] == 125  # a shell wants a terminal


def test_ctrl_c_ends_the_command_in_the_box_and_not_the_box(lab: Workstation) -> None:
    lab.box("--gpus", "none")
    entered = lab.gpubox.begin("enter", BOX, "sh", "-c", "echo begun; sleep 4321; echo over")
    assert entered.stdout
    assert entered.stdout.readline() == b"begun\n"
    entered.send_signal(signal.SIGTERM)
    assert entered.wait(PATIENCE) == 143
    wait_until(lambda: "sleep 4321" not in lab.docker("top", BOX), what="the command's end")
    assert lab.containers() == {BOX: "running"}


def test_without_a_name_the_box_of_this_folder_comes_before_a_later_one(lab: Workstation) -> None:
    lab.box("--gpus", "none")
    elsewhere = lab.gpubox.cwd / "elsewhere"
    elsewhere.mkdir()
    lab.gpubox("run", "-d", "--gpus", "none", PROFILE, "sleep", "600", cwd=elsewhere)
    assert lab.says("enter", "--", "hostname")[1] == f"{BOX}\n"
    done = lab.gpubox("enter", "--", "hostname", cwd=lab.gpubox.home)
    assert done.stdout.decode() == f"{BOX}-2\n"
    assert done.stderr.decode() == f"entering {BOX}-2 (your latest; this folder has none)\n"


# What they said, and how they are --------------------------------------------------------------


def test_logs_keep_the_two_outputs_apart_and_name_several_boxes(
    engine: PrivateEngine, lab: Workstation
) -> None:
    script = "echo out; echo err >&2; printf end"
    lab.says("run", "-d", "--gpus", "none", "--name", "one", PROFILE, "sh", "-c", script)
    lab.says("run", "-dt", "--gpus", "none", "--name", "two", PROFILE, "echo", "tty")
    assert lab.says("logs", "-f", "one") == (0, "out\nend", "err\n")
    assert lab.says("logs", "-n", "1", "one") == (0, "end", "")
    assert lab.says("logs", "-f", "two")[1] == "tty\r\n"
    code, out, err = lab.says("logs", "one", "two")
    assert (code, out, err) == (0, "one | out\none | end\ntwo | tty\r\n", "one | err\n")
    assert lab.says("logs", "--since", "2h", "--timestamps", "two")[1].endswith("Z tty\r\n")
    assert lab.says("logs", "--since", "2999-01-01", "one") == (0, "", "")
    assert lab.says("logs", "--since", "noon", "one")[0] == 2


def test_logs_follow_several_boxes_until_they_end(lab: Workstation) -> None:
    for name in ("one", "two"):
        script = f"for i in 1 2 3; do echo {name} $i; sleep 0.2; done"
        lab.says("run", "-d", "--gpus", "none", "--name", name, PROFILE, "sh", "-c", script)
    code, out, _ = lab.says("logs", "-f", "one", "two")
    expected = [f"{name} | {name} {i}" for name in ("one", "two") for i in (1, 2, 3)]
    assert (code, sorted(out.splitlines())) == (0, expected)


def test_ps_says_how_each_is_in_peoples_words(engine: PrivateEngine, lab: Workstation) -> None:
    hog = "x=a; while :; do x=$x$x; done"
    lab.says("run", "-m", "16m", "--gpus", "none", "--name", "hog", PROFILE, "sh", "-c", hog)
    lab.says(
        "run", "--gpus", "none", "--name", "done", PROFILE, "sh", "-c", "head -c 5000 /dev/zero > x"
    )
    lab.box("--gpus", "none")
    assert lab.says("ps", "-q") == (0, f"{BOX}\n", "")
    code, out, err = lab.says("ps")
    assert (code, err) == (0, "2 of yours are stopped: gpubox ps -a\n")
    assert " up " in out
    code, out, _ = lab.says("ps", "-a", "--size")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert ": its memory of 0.0156 GiB ran out" in rows["hog"]
    assert "stopped " in rows["done"]
    assert ", exit 0 " in rows["done"]
    assert rows["done"].split()[-2:] == ["5", "kB"]
    listed = {box["name"]: box for box in json.loads(lab.says("ps", "-a", "--json")[1])}
    assert [listed[name]["exit_code"] for name in ("hog", "done", BOX)] == [137, 0, None]
    assert listed["hog"]["status"].endswith("its memory of 0.0156 GiB ran out")


def test_boxes_has_this_shape(lab: Workstation) -> None:
    lab.box("--gpus", "2")
    (box,) = json.loads(lab.says("ps", "--json", "--size")[1])
    assert {key: type(value).__name__ for key, value in box.items()} == {
        **dict.fromkeys(("id", "name", "image", "profile", "owner", "kind", "gpus"), "str"),
        **dict.fromkeys(("claim", "folder", "job", "state", "status", "url"), "str"),
        **{"created": "int", "written": "int", "ports": "list", "exit_code": "NoneType"},
    }
