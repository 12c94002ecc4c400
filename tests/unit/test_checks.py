"""The checks of what a start would touch: recorded facts in, checks out."""

from __future__ import annotations

import pytest

from gpubox.checks import IGNORABLE, Check, Seen, Source, Use, file_system, of_program, of_sources
from gpubox.values import Mount

HERE = Seen(real="/d", readable=True, writable=True)
MOUNTINFO = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 0:50 / /net rw,relatime shared:1 - autofs systemd-1 rw,fd=29
41 40 0:51 / /net rw,relatime shared:2 - nfs4 nas:/pool rw,vers=4.2,addr=192.0.2.1
42 41 0:52 /a /net/scratch rw,relatime shared:3 - xfs /dev/sdb rw
43 27 0:53 / /home/lab\040one rw,relatime shared:4 - nfs nas:/home rw,vers=3
no line of mountinfo
"""


def mount(source: str = "/d", *, read_only: bool = True) -> Mount:
    return Mount("/data", source, bind=True, read_only=read_only)


def found(source: Source, **facts: object) -> list[Check]:
    return list(of_sources([source], **({"sockets": ()} | facts)))  # type: ignore[arg-type]


def one(source: Source, **facts: object) -> Check:
    (check,) = found(source, **facts)
    return check


def problem(source: Source) -> str:
    return one(source).evidence


# Paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["volume", "data", "workspace"])
def test_what_is_there_and_open_to_the_caller_is_no_finding(use: Use) -> None:
    assert found(Source(mount(read_only=False), use, seen=HERE)) == []


@pytest.mark.parametrize("use", ["volume", "data", "workspace"])
@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (Seen(trouble="missing", at="/d"), "no folder /d on this machine to mount on /data"),
        (Seen(trouble="loop", at="/l"), "/l is a symbolic link that leads back to itself"),
        (Seen(trouble="barred", at="/b"), "you may not look into /b, so /d cannot be mounted"),
        (Seen(trouble="broken", at="stale file handle"), "/d: stale file handle"),
        (
            Seen(trouble="dangling", at="/gone"),
            "/d leads by a symbolic link to /gone, and that is not there",
        ),
    ],
    ids=lambda value: value.trouble if isinstance(value, Seen) else "",
)
def test_what_the_caller_does_not_see_stops_every_mount(use: Use, seen: Seen, said: str) -> None:
    check = one(Source(mount(), use, seen=seen))
    assert (check.evidence, check.stops) == (said, True)
    assert check.id not in IGNORABLE


def test_data_must_be_readable_and_writable_only_where_it_is_written() -> None:
    closed = Seen(real="/d", hint="whose")
    assert problem(Source(mount(), "data", seen=closed)) == (
        "you may not read /d, which is to be mounted on /data"
    )
    still = Seen(real="/d", readable=True)
    assert found(Source(mount(), "data", seen=still)) == []
    assert problem(Source(mount(read_only=False), "data", seen=still)) == (
        "you may not write in /d, which is to be mounted on /data with :rw"
    )


def test_a_plain_volume_is_dockers_own_and_needs_only_to_be_seen() -> None:
    assert found(Source(mount(read_only=False), "volume", seen=Seen(real="/d"))) == []


def test_a_workspace_is_a_folder() -> None:
    file = Seen(real="/d", folder=False, readable=True, writable=True)
    assert found(Source(mount(), "data", seen=file)) == []
    assert problem(Source(mount(), "workspace", seen=file)) == (
        "/d is a file, and a workspace is a folder"
    )


def test_a_finding_names_the_file_that_said_it() -> None:
    source = Source(mount(), "data", "x.yaml:3: datasets", Seen(trouble="loop", at="/l"))
    assert problem(source) == "x.yaml:3: datasets: /l is a symbolic link that leads back to itself"


# The engine's socket ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "real", "said"),
    [
        ("/run/docker.sock", "/run/docker.sock", "/run/docker.sock is the engine's socket"),
        ("/mine", "/run/docker.sock", "/mine is the engine's socket"),
        ("/var/run", "/run", "/var/run holds the engine's socket, /run/docker.sock"),
        ("/", "/", "/ holds the engine's socket, /run/docker.sock"),
    ],
)
def test_the_engines_socket_is_refused_under_every_name(path: str, real: str, said: str) -> None:
    seen = Seen(real=real, readable=True, writable=True)
    check = one(Source(mount(path), "volume", seen=seen), sockets=["/run/docker.sock"])
    assert check.evidence == (
        f"{said}: who has it in a box is root on this machine, read-only mount or not"
    )
    assert check.fix == "leave it out, or go past this check: --ignore socket"
    assert check.stops and check.id in IGNORABLE


def test_a_folder_beside_the_socket_is_none() -> None:
    for path in ("/run/docker", "/run/docker.sock.d", "/var"):
        seen = Seen(real=path, readable=True)
        assert found(Source(mount(path), "data", seen=seen), sockets=["/run/docker.sock"]) == []


def test_on_another_machine_only_the_names_are_known() -> None:
    assert found(Source(mount(), "data")) == []
    (check,) = of_sources([Source(mount("/var/run"), "volume")])
    assert check.id == "socket"


# Root squashed ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/data", "ext4"),
        ("/net", "nfs4"),
        ("/net/a/b", "nfs4"),
        ("/nets", "ext4"),
        ("/net/scratch/x", "xfs"),
        ("/home/lab one/anna", "nfs"),
    ],
)
def test_the_file_system_of_a_path_is_the_last_mounted_above_it(path: str, kind: str) -> None:
    assert file_system(path, MOUNTINFO) == kind


def test_an_unknown_table_of_mounts_says_nothing() -> None:
    assert file_system("/net", "") == ""


def on_nfs(*modes: int, use: Use = "data", folder: bool = True) -> Source:
    """A place below /net/a/b with the modes of these three."""
    ways = zip(("/net/a", "/net/a/b", "/net/a/b/c"), modes, strict=True)
    steps = (("/", 0o755), ("/net", 0o755), *ways)
    return Source(
        mount("/net/a/b/c"),
        use,
        seen=Seen(real="/net/a/b/c", folder=folder, readable=True, writable=True, steps=steps),
    )


def test_root_is_warned_of_a_folder_that_it_may_not_pass_on_nfs() -> None:
    check = one(on_nfs(0o755, 0o750, 0o700), mountinfo=MOUNTINFO)
    assert check == Check(
        "root-squash",
        "warn",
        "/net/a/b is on nfs4 and closed to others, so the engine, which is root, may not pass it"
        " where root is squashed",
        "chmod o+x /net/a/b",
    )
    assert check.id in IGNORABLE


def test_the_last_folder_must_be_readable_by_a_box_of_root_and_not_by_one_of_the_callers() -> None:
    source = on_nfs(0o711, 0o711, 0o750)
    check = one(source, mountinfo=MOUNTINFO)
    assert "may not read it" in check.evidence
    assert check.fix == "chmod o+rx /net/a/b/c, or --user host"
    assert found(source, mountinfo=MOUNTINFO, as_caller=True) == []


def test_a_file_on_nfs_needs_no_x() -> None:
    assert found(on_nfs(0o711, 0o711, 0o644, folder=False), mountinfo=MOUNTINFO) == []
    check = one(on_nfs(0o711, 0o711, 0o600, folder=False), mountinfo=MOUNTINFO)
    assert check.fix == "chmod o+r /net/a/b/c, or --user host"


def test_what_is_open_or_local_is_not_warned_of() -> None:
    assert found(on_nfs(0o755, 0o755, 0o755), mountinfo=MOUNTINFO) == []
    assert found(on_nfs(0o700, 0o700, 0o700), mountinfo="27 1 8:1 / / rw - ext4 /dev/a rw") == []


# A program that is here and not in the box -----------------------------------------------------


@pytest.mark.parametrize(
    ("program", "mounts", "starts_in", "hint"),
    [
        (
            "train.py",
            [],
            None,
            "train.py is here, but the box sees nothing of this folder: add --workspace .",
        ),
        (
            "./train.py",
            [Mount("/data", "/other", bind=True), Mount("/cache", "vol")],
            "/workspace",
            "./train.py is here, but the box sees nothing of this folder: add --workspace .",
        ),
        (
            "train.py",
            [Mount("/workspace", "/home/anna", bind=True)],
            "/workspace",
            "train.py is here and in /workspace of the box, where the command starts:"
            " write python train.py",
        ),
        (
            "./src/run.sh",
            [Mount("/workspace", "/home/anna", bind=True)],
            "/workspace",
            "./src/run.sh is here and in /workspace of the box, where the command starts;"
            " what its first line (#!) names is not in a/b:c",
        ),
        (
            "run.sh",
            [Mount("/workspace", "/home/anna", bind=True)],
            "/workspace",
            "run.sh is here and in /workspace of the box, where the command starts: write ./run.sh",
        ),
        (
            "train.py",
            [Mount("/all", "/home", bind=True)],
            None,
            "train.py is here and in /all/anna of the box, but the command starts in the folder"
            " that a/b:c names: add -w /all/anna",
        ),
        (
            "train.py",
            [Mount("/all", "/home", bind=True), Mount("/me", "/home/anna", bind=True)],
            "/elsewhere",
            "train.py is here and in /me of the box, but the command starts in /elsewhere:"
            " add -w /me",
        ),
    ],
)
def test_a_script_that_is_here_is_led_into_the_box(
    program: str, mounts: list[Mount], starts_in: str | None, hint: str
) -> None:
    assert of_program(program, "/home/anna", mounts, starts_in, "a/b:c") == hint
