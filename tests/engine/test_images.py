"""`gpubox images` on a real engine and a simulated machine; `--remote` on real registries.

Docker Hub's API is a small server on loopback that speaks as Docker documents it.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pexpect
import pyte
import pytest
from docker import DockerClient

from lab.engine import PrivateEngine
from lab.hub import Fault, Hub, hub_tag
from lab.images import STAND_IN, build_stand_in, hand_over
from lab.nvml import MACHINES, Machine
from lab.program import Gpubox
from lab.registry import Registry
from lab.waiting import PATIENCE

LIVE = "12.4.1-cudnn-devel-ubuntu22.04"
KEYS = "name image cuda cudnn flavor os state when local size runs reason"

Nvml = Callable[[Machine], dict[str, str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as made:
        made.repositories["nvidia/cuda"] = [hub_tag(LIVE, amd64=4_100_000_000, arm64=3_900_000_000)]
        yield made


def there(hub: Hub) -> dict[str, str]:
    return {"GPUBOX_HUB": hub.url, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}


def listed(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


# The list ---------------------------------------------------------------------------------------


def test_images_has_what_is_here_with_its_size_and_verdict(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient, nvml: Nvml
) -> None:
    found = listed(gpubox("images", "--json", env=nvml(MACHINES["1080ti-535"])))
    assert {" ".join(item) for item in found} == {KEYS}
    here = {item["image"]: item for item in found if item["local"]}
    assert sorted(here) == sorted(name for image in client.images.list() for name in image.tags)
    assert (here[STAND_IN]["state"], here[STAND_IN]["when"]) == ("deleted", "June 2023")
    assert (here[STAND_IN]["runs"], here[STAND_IN]["cudnn"]) == ("yes", "5.1.10")
    assert 10**6 < here[STAND_IN]["size"] < 10**7
    runs = {item["cuda"]: item["runs"] for item in found}
    assert (runs["12.4.1"], runs["12.6.3"], runs["13.0.3"]) == ("yes", "no", "no")
    here_only = gpubox("images", "local", env=nvml(MACHINES["1080ti-535"]))
    assert re.search(rb"; gpubox run \S+ starts one\n$", here_only.stderr)


def test_a_filter_shows_every_tag_that_fits(gpubox: Gpubox) -> None:
    done = gpubox("images", "cuda8.0-cudnn5", "ubuntu16.04")
    lines = done.stdout.decode().splitlines()
    assert lines[0].split() == ["IMAGE", "CUDNN", "STATE", "LOCAL"]
    assert [line.split()[0] for line in lines[1:]] == [
        "nvidia/cuda:8.0-cudnn5-devel-ubuntu16.04",
        "nvidia/cuda:8.0-cudnn5-runtime-ubuntu16.04",
    ]
    assert done.stderr.decode() == (
        "NVIDIA's tags as of 2026-06-18; this machine: not known: this machine has no NVIDIA"
        " driver: there is no libnvidia-ml.so.1\n"
    )
    nothing = gpubox("images", "nothing-like-it")
    assert (nothing.returncode, nothing.stdout) == (0, b"")
    assert nothing.stderr == (b"no image fits 'nothing-like-it'; gpubox images --all lists them\n")
    assert listed(gpubox("images", "nothing-like-it", "--json")) == []


def test_all_is_every_tag_of_the_data_and_what_is_here(
    stable_engine: PrivateEngine, gpubox: Gpubox
) -> None:
    build_stand_in(stable_engine.host, "lab/own:1")
    try:
        images = {item["image"] for item in listed(gpubox("images", "--all", "--json"))}
    finally:
        client = docker.DockerClient(base_url=stable_engine.host)
        client.images.remove("lab/own:1")
        client.close()
    table = (Path(__file__).parents[2] / "data/cuda_tags_full.csv").read_text().splitlines()[1:]
    assert {f"nvidia/cuda:{row.split(',')[0]}" for row in table} <= images
    assert "lab/own:1" in images


def test_without_an_engine_the_catalogue_is_told_all_the_same(gpubox: Gpubox) -> None:
    nowhere = {"DOCKER_HOST": f"unix://{gpubox.home}/no.sock"}
    done = gpubox("images", "12.4.1", "base", env=nowhere)
    assert done.returncode == 0
    assert b"nvidia/cuda:12.4.1-base-ubuntu22.04" in done.stdout
    assert b"LOCAL" not in done.stdout
    assert done.stderr.startswith(b"which are here is not known: no engine at ")
    found = listed(gpubox("images", "12.4.1", "base", "--json", env=nowhere))
    assert {(item["local"], item["size"]) for item in found} == {(None, None)}


@pytest.mark.parametrize("width", [60, 80, 200])
def test_in_a_window_of_any_width_no_line_is_cut(
    stable_engine: PrivateEngine, gpubox: Gpubox, nvml: Nvml, width: int
) -> None:
    screen = pyte.HistoryScreen(width, 100)
    stream = pyte.Stream(screen)
    child = pexpect.spawn(
        str(gpubox.program),
        ["images"],
        env=gpubox.env
        | nvml(MACHINES["1080ti+a100-535"])
        | {"NO_COLOR": "1" if width < 80 else ""},
        cwd=str(gpubox.cwd),
        encoding="utf-8",
        dimensions=(100, width),
        timeout=PATIENCE,
    )
    child.expect(pexpect.EOF)
    stream.feed(child.before or "")
    child.close()
    lines = [line.rstrip() for line in screen.display if line.strip()]
    assert child.exitstatus == 0
    head = lines[0].split()
    assert head[0] == "IMAGE" and "RUNS" in head
    fits = next(line for line in lines if line.startswith(f"nvidia/cuda:{LIVE[:18]}"))
    assert fits.split()[-1] == "yes"
    left_out = re.search(r"a wider window shows (.+); --json everything", "".join(screen.display))
    assert bool(left_out) == (width < 200)
    assert ("\x1b" in (child.before or "")) == (width >= 80)
    reasons = re.findall(r"^CUDA ([\d., ]+): perhaps, the driver knows", "\n".join(lines), re.M)
    assert bool(reasons) == bool(left_out), "why, where the column is left out"
    if width >= 80:
        assert f"nvidia/cuda:{LIVE}" in "\n".join(lines)


# One image, asked for now -----------------------------------------------------------------------


def test_a_tag_that_the_hub_has_is_told_with_its_sizes(gpubox: Gpubox, hub: Hub) -> None:
    done = gpubox("images", "--remote", LIVE, env=there(hub))
    assert done.returncode == 0
    row = done.stdout.decode().splitlines()[1]
    assert row.startswith(f"nvidia/cuda:{LIVE}")
    assert "4.1 GB amd64, 3.9 GB arm64" in row and "2023-11-10" in row
    # the lab's engine does not reach the real one
    assert done.stderr.decode() == (
        f"not known: the registry of nvidia/cuda:{LIVE} cannot be found from the engine's machine\n"
    )
    (found,) = listed(gpubox("images", "--remote", LIVE, "--json", env=there(hub)))
    assert found["sizes"] == {"amd64": 4_100_000_000, "arm64": 3_900_000_000}
    assert (found["state"], found["platforms"]) == ("there", ["linux/amd64", "linux/arm64"])


def test_a_terminal_shows_meanwhile_what_is_asked_for(gpubox: Gpubox, hub: Hub) -> None:
    child = pexpect.spawn(
        str(gpubox.program),
        ["images", "--remote", LIVE],
        env=gpubox.env | there(hub),
        cwd=str(gpubox.cwd),
        encoding="utf-8",
        dimensions=(24, 100),
        timeout=PATIENCE,
    )
    child.expect_exact(f"asking for nvidia/cuda:{LIVE} ...")
    child.expect_exact("\x1b[2K")
    child.expect_exact("IMAGE ")
    child.expect(pexpect.EOF)
    assert "asking" not in (child.before or "")


def test_a_tag_that_the_hub_has_not_is_missing_with_the_nearest(gpubox: Gpubox, hub: Hub) -> None:
    done = gpubox("images", "--remote", "12.4.1-cudnn9-devel-ubuntu22.04", env=there(hub))
    assert (done.returncode, done.stdout) == (1, b"")
    problem, near = done.stderr.decode().splitlines()
    assert problem == "gpubox: the registry has no nvidia/cuda:12.4.1-cudnn9-devel-ubuntu22.04"
    assert near.startswith(f"  the nearest: {LIVE}, ")
    short = gpubox("images", "--remote", "12.4-cudnn", env=there(hub)).stderr.decode()
    assert f"  the nearest: {LIVE}, " in short


def test_a_tag_that_was_there_is_told_as_such_and_is_not_its_own_nearest(
    gpubox: Gpubox, hub: Hub
) -> None:
    gone = "docker.io/nvidia/cuda:12.6.3-devel-ubuntu24.04"
    done = gpubox("images", "--remote", gone, env=there(hub))
    problem, near = done.stderr.decode().splitlines()
    assert problem == f"gpubox: the registry has no {gone}: it was there on 2025-12-15"
    assert near.startswith("  the nearest: ") and "12.6.3-devel-ubuntu24.04" not in near


def test_a_deleted_tag_is_told_as_such(gpubox: Gpubox, hub: Hub) -> None:
    done = gpubox("images", "--remote", "cuda8-cudnn5", env=there(hub))
    assert done.returncode == 1
    problem, hint = done.stderr.decode().splitlines()
    assert problem == (
        "gpubox: the registry has no nvidia/cuda:8.0-cudnn5-devel: deleted in June 2023"
    )
    assert hint.startswith("  gpubox build nvidia/cuda:8.0-cudnn5-devel makes it here; ")


def test_a_hub_that_is_asked_too_often_makes_it_unknown(gpubox: Gpubox, hub: Hub) -> None:
    hub.faults["tags"] = Fault(status=429, headers={"Retry-After": "42"})
    done = gpubox("images", "--remote", LIVE, env=there(hub))
    assert done.returncode == 1
    problem, reasons = done.stderr.decode().splitlines()
    assert problem == f"gpubox: whether there is nvidia/cuda:{LIVE} is not known"
    assert "takes no more questions from here for now (429), again in 42 s" in reasons
    assert "cannot be found from the engine's machine" in reasons
    assert reasons.endswith("; last known: it was there on 2026-06-18")


def test_another_registry_is_asked_through_the_engine(
    engine: PrivateEngine, gpubox: Gpubox, registry: Registry
) -> None:
    image = f"{registry.address}/lab/asked:1"
    client = docker.DockerClient(base_url=engine.host)
    build_stand_in(engine.host, image)
    hand_over(client, image)
    client.close()
    done = gpubox("images", "--remote", image)
    assert done.returncode == 0, done.stderr
    assert re.search(r"linux/amd64.* sha256:[0-9a-f]{64}$", done.stdout.decode().splitlines()[1])
    missing = gpubox("images", "--remote", f"{registry.address}/lab/asked:2")
    assert (missing.returncode, missing.stdout) == (1, b"")
    assert missing.stderr.decode() == (
        f"gpubox: the registry has no {registry.address}/lab/asked:2\n"
    )
    registry_in_front = {"GPUBOX_REGISTRY": registry.address}
    through = gpubox("images", "--remote", "lab/asked:1", "--json", env=registry_in_front)
    assert listed(through)[0]["state"] == "there"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--remote", LIVE, "12"), "--remote asks for one TAG, and not with a FILTER or --all"),
        (("--remote", "not a tag"), "'nvidia/cuda:not a tag': 'not a tag' is not a tag"),
        (("--remote",), "option '--remote' requires an argument"),
    ],
)
def test_bad_words_are_bad_usage(gpubox: Gpubox, words: tuple[str, ...], problem: str) -> None:
    done = gpubox("images", *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines()[0] == f"gpubox: {problem}"


# Before a pull from the Hub ---------------------------------------------------------------------


def test_a_used_up_pull_limit_is_told_before_the_pull(
    stable_engine: PrivateEngine, gpubox: Gpubox, hub: Hub
) -> None:
    hub.limit = ("100;w=21600", "0;w=21600")
    image = f"nvidia/cuda:{LIVE}"
    run = ("run", "--gpus", "none", image, "true")
    done = gpubox(*run, env=there(hub))
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.decode() == (
        "gpubox: Docker Hub gives nothing more to this address for now: of 100 pulls in 6 h none is"
        " left\n"
        "  docker login has a limit of its own, or wait; or go past this check:"
        " --ignore rate-limit\n"
    )
    past = gpubox("run", "--ignore", "rate-limit", *run[1:], env=there(hub))
    assert b"cannot be found from the engine's machine" in past.stderr
    hub.faults["manifests"] = Fault(status=429, headers={"Retry-After": "60"})
    busy = gpubox(*run, env=there(hub)).stderr.decode().splitlines()[0]
    assert busy.startswith(f"warning: Docker Hub tells nothing of {image}: ")
    assert "for now (429), again in " in busy


@pytest.mark.parametrize("left", ["some", "uncounted", "fault"])
def test_a_limit_that_is_not_used_up_or_not_known_is_not_spoken_of(
    stable_engine: PrivateEngine, gpubox: Gpubox, hub: Hub, left: str
) -> None:
    if left == "uncounted":
        hub.limit = None
    if left == "fault":
        hub.faults["token"] = Fault(status=503)
    done = gpubox("run", "--gpus", "none", f"nvidia/cuda:{LIVE}", "true", env=there(hub))
    assert b"pulls in" not in done.stderr
    assert b"cannot be found from the engine's machine" in done.stderr


def test_who_has_logged_in_is_not_counted_by_address(
    stable_engine: PrivateEngine, gpubox: Gpubox, hub: Hub
) -> None:
    hub.limit = ("100;w=21600", "0;w=21600")
    folder = gpubox.home / ".docker"
    folder.mkdir()
    auths = {"https://index.docker.io/v1/": {"auth": "YW5uYTpzZWNyZXQ="}}
    (folder / "config.json").write_text(json.dumps({"auths": auths}))
    with_login = there(hub) | {"DOCKER_CONFIG": str(folder)}
    done = gpubox("run", "--gpus", "none", f"nvidia/cuda:{LIVE}", "true", env=with_login)
    assert b"pulls in" not in done.stderr and not hub.asked
