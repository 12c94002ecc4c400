"""`gpubox jupyter`: a real JupyterLab behind a token, the URL that opens, ports and failures."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import subprocess
import tarfile
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.error import HTTPError

import pytest
from docker import DockerClient

from lab.engine import PrivateEngine
from lab.machine import free_port
from lab.program import Gpubox
from lab.waiting import PATIENCE, wait_until

PROFILES = """
profiles:
  lab: {image: IMAGE, gpus: none}
  open:
    extends: lab
    command: [jupyter, lab, --ip=0.0.0.0, --port=8888, --no-browser, --allow-root,
              --IdentityProvider.token=]
  dying: {extends: lab, command: "sh -c 'echo last words; exit 3'"}
  slow:
    extends: lab
    command:
      - sh
      - -c
      - echo loading the model; until [ -e model ]; do sleep .1; done;
        exec jupyter-lab --ip=0.0.0.0 --allow-root
default_jupyter: lab
"""


@pytest.fixture
def gpubox_lab(gpubox: Gpubox, jupyter_image: str) -> Gpubox:
    (gpubox.cwd / "gpubox.yaml").write_text(PROFILES.replace("IMAGE", jupyter_image))
    return gpubox


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def boxes(client: DockerClient) -> list[str]:
    return [box.name or "" for box in client.containers.list(all=True)]


def test_the_printed_url_opens_and_nothing_opens_without_its_token(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient
) -> None:
    done = gpubox_lab("jupyter", "-d", env={"SSH_CONNECTION": "1.2.3.4 5 10.0.0.7 2222"})
    assert done.returncode == 0, done.stderr
    url = done.stdout.decode().strip()
    base, _, token = url.partition("/?token=")
    assert status(url) == 200
    assert status(f"{base}/api/status?token={token}") == 200
    assert status(f"{base}/api/status") == 403
    [box] = client.containers.list()
    port = base.rpartition(":")[2]
    assert box.ports["8888/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": port}]
    assert f"ssh -N -L {port}:127.0.0.1:{port} -p 2222 " in done.stderr.decode()
    # in the container's environment, on no command line, in no label
    assert f"JUPYTER_TOKEN={token}" in box.attrs["Config"]["Env"]
    assert token not in str(box.attrs["Config"]["Labels"]) + str(box.attrs["Args"])
    assert token not in box.logs().decode()


def test_without_a_port_the_next_free_one_is_taken_and_said(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient
) -> None:
    with ExitStack() as held:
        hold_8888(held)
        done = gpubox_lab("jupyter", "-d")
    assert done.returncode == 0, done.stderr
    port = int(done.stdout.decode().partition("/?")[0].rpartition(":")[2])
    assert port > 8888
    assert f"port 8888 is taken: Jupyter is on {port}" in done.stderr.decode()
    assert boxes(client) == ["lab-root"]


def test_a_port_that_was_asked_for_is_that_one_or_an_error(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = gpubox_lab("jupyter", "-d", "--port", str(port))
    assert done.returncode == 125
    assert f"port {port} is taken by " in done.stderr.decode()
    assert boxes(client) == []


def test_a_box_that_dies_shows_its_last_words(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient
) -> None:
    done = gpubox_lab("jupyter", "-d", "dying")
    assert done.returncode == 125
    assert b"has ended" in done.stderr and b"last words" in done.stderr
    assert done.stdout == b""


def test_who_waits_for_a_slow_start_sees_what_it_does(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox
) -> None:
    with gpubox_lab.begin("jupyter", "-d", "slow") as child:
        assert child.stderr
        said = iter(child.stderr.readline, b"")
        assert any(re.fullmatch(rb"  \d+ s: loading the model\n", line) for line in said)
        (gpubox_lab.cwd / "model").touch()
        _, err = child.communicate(timeout=PATIENCE)
        assert child.returncode == 0, err


def test_a_server_that_lets_anybody_in_is_stopped_before_its_url_is_said(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient
) -> None:
    done = gpubox_lab("jupyter", "-d", "open")
    assert done.returncode == 125
    assert b"lets anybody in without a token" in done.stderr
    assert done.stdout == b""
    assert client.containers.list() == []


def test_an_image_that_switches_the_token_off_by_itself_is_stopped_too(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient, jupyter_image: str
) -> None:
    """Its command is gpubox's, its configuration is not."""
    text = b"c.IdentityProvider.token = ''\nc.ServerApp.disable_check_xsrf = True\n"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("etc/jupyter/jupyter_server_config.py")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    made = client.containers.create(jupyter_image)
    made.put_archive("/", packed.getvalue())
    made.commit("open-to-all", "1")
    made.remove()
    done = gpubox_lab("jupyter", "-d", "--gpus", "none", "open-to-all:1")
    assert done.returncode == 125
    assert b"lets anybody in without a token, so it was stopped" in done.stderr
    assert (done.stdout, client.containers.list()) == (b"", [])


def test_in_the_foreground_ctrl_c_stops_the_box(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient
) -> None:
    child = gpubox_lab.begin("jupyter")
    assert child.stdout is not None
    assert child.stdout.readline().startswith(b"http://127.0.0.1:")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, err
    wait_until(lambda: client.containers.list() == [])
    assert boxes(client) == ["lab-root"]


def url_of(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def port_of(url: str) -> int:
    return int(url.partition("/?")[0].rpartition(":")[2])


def hold_8888(held: ExitStack) -> None:
    """Until the stack is left. Another test's Jupyter, which has it, ends; anybody else's stays."""

    def had() -> bool:
        with suppress(OSError):
            held.enter_context(socket.create_server(("127.0.0.1", 8888)))
            return True
        return False

    with suppress(TimeoutError):
        wait_until(had)


def get(url: str, path: str) -> object:
    base, _, token = url.partition("/?")
    with urllib.request.urlopen(f"{base}{path}?{token}", timeout=PATIENCE) as answer:
        return json.load(answer)


# The same notebook again -----------------------------------------------------------------------


def test_the_current_folder_is_the_notebooks_folder(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox
) -> None:
    (gpubox_lab.cwd / "mine.txt").touch()
    contents = get(url_of(gpubox_lab("jupyter", "-d")), "/api/contents")
    assert isinstance(contents, dict)
    assert "mine.txt" in [entry["name"] for entry in contents["content"]]


def test_called_again_in_a_folder_it_is_the_same_notebook(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient
) -> None:
    url = url_of(gpubox_lab("jupyter", "-d"))
    again = gpubox_lab("jupyter")  # gives the URL of what runs, and does not stay
    assert url_of(again) == url
    assert again.stderr == b"lab-root runs already; --new makes another\n"
    assert boxes(client) == ["lab-root"]


def test_a_stopped_one_is_started_again_with_its_port_and_token(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient
) -> None:
    url = url_of(gpubox_lab("jupyter", "-d", "--port", str(free_port())))
    client.containers.get("lab-root").stop()
    again = gpubox_lab("jupyter", "-d")
    assert url_of(again) == url
    assert b"starting lab-root again; --new makes another\n" in again.stderr
    assert status(url) == 200
    assert boxes(client) == ["lab-root"]


def test_new_makes_another_and_so_does_another_folder_or_profile(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient
) -> None:
    urls = [url_of(gpubox_lab("jupyter", "-d")), url_of(gpubox_lab("jupyter", "-d", "--new"))]
    below = gpubox_lab.cwd / "below"
    below.mkdir()
    urls.append(url_of(gpubox_lab("jupyter", "-d", cwd=below)))
    assert len({port_of(url) for url in urls}) == 3
    assert sorted(boxes(client)) == ["lab-root", "lab-root-2", "lab-root-3"]


def test_what_only_a_new_box_can_have_is_said(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient
) -> None:
    port = port_of(url_of(gpubox_lab("jupyter", "-d")))
    other = gpubox_lab("jupyter", "-d", "--port", str(port + 1000))
    assert other.returncode == 125
    assert other.stderr.decode().splitlines() == [
        f"gpubox: lab-root, your notebook of this folder, has port {port}, not {port + 1000}",
        f"  gpubox jupyter --new --port {port + 1000} makes another",
    ]
    more = gpubox_lab("jupyter", "-d", "-m", "1g")
    assert more.stderr.decode().splitlines() == [
        "warning: lab-root stays as it was made; --new makes one as asked",
        "lab-root runs already; --new makes another",
    ]


def test_a_stopped_ones_port_that_was_taken_meanwhile_is_named_with_its_holder(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient
) -> None:
    port = free_port()
    url_of(gpubox_lab("jupyter", "-d", "--port", str(port)))
    client.containers.get("lab-root").stop()
    with socket.create_server(("127.0.0.1", port)):
        done = gpubox_lab("jupyter", "-d")
    assert done.returncode == 125
    assert f"gpubox: the port of lab-root, {port}, is taken by " in done.stderr.decode()
    assert boxes(client) == ["lab-root"]  # with all that is in it


def test_ps_gives_the_url_of_ones_own(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient
) -> None:
    url = url_of(gpubox_lab("jupyter", "-d"))
    assert url in gpubox_lab("ps").stdout.decode()
    (box,) = json.loads(gpubox_lab("ps", "--json").stdout)
    assert box["url"] == url


# Where it is -----------------------------------------------------------------------------------


def test_with_the_hosts_network_it_listens_on_loopback_only_and_on_a_free_port(
    engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient
) -> None:
    with ExitStack() as held:
        hold_8888(held)
        url = url_of(gpubox_lab("jupyter", "-d", "--network", "host"))
    assert port_of(url) > 8888
    assert status(url) == 200 and get(url, "/api/status")
    assert "--ip=127.0.0.1" in client.containers.get("lab-root").attrs["Args"]
    assert boxes(client) == ["lab-root"]


def test_with_the_hosts_network_a_held_port_is_no_answer_of_jupyters(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient
) -> None:
    port = port_of(url_of(gpubox_lab("jupyter", "-d")))  # one that would answer
    done = gpubox_lab("jupyter", "-d", "--new", "--network", "host", "--port", str(port))
    assert done.returncode == 125
    assert f"gpubox: port {port} is taken by root's box lab-root\n" in done.stderr.decode()
    assert boxes(client) == ["lab-root"]


def test_the_name_that_reaches_this_machine_from_elsewhere_is_the_configurations(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox
) -> None:
    with (gpubox_lab.cwd / "gpubox.yaml").open("a") as file:
        file.write("ssh_host: gpu1.lab\n")
    ssh = {"SSH_CONNECTION": "1.2.3.4 5 10.0.0.7 2222"}
    done = gpubox_lab("jupyter", "-d", "-p", "6006", env=ssh)
    said, port = done.stderr.decode(), port_of(url_of(done))
    assert f"ssh -N -L {port}:127.0.0.1:{port} root@gpu1.lab\n" in said
    other = re.search(r"port 6006/tcp of the box listens on 127\.0\.0\.1:(\d+)\n", said)
    assert other and f"ssh -N -L {other[1]}:127.0.0.1:{other[1]} root@gpu1.lab\n" in said
    assert "8888/tcp of the box" not in said


def test_open_opens_it_in_the_browser_that_there_is(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >{seen}\n')
    browser.chmod(0o755)
    url = url_of(gpubox_lab("jupyter", "-d", "--open", env={"BROWSER": f"{browser} %s"}))
    assert seen.read_text() == f"{url}\n"
    bare = {"BROWSER": "", "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    assert b"no browser here to open it with" in gpubox_lab("jupyter", "--open", env=bare).stderr


def test_a_whole_home_as_workspace_is_warned_of(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox
) -> None:
    file = gpubox_lab.cwd / "gpubox.yaml"
    done = gpubox_lab("-f", file, "jupyter", "-d", cwd=gpubox_lab.home)
    assert url_of(done)
    assert f"\nthe workspace is all of {gpubox_lab.home}," in done.stderr.decode()


def test_an_image_without_jupyter_is_told_and_nothing_stays(
    engine: PrivateEngine, gpubox: Gpubox, client: DockerClient
) -> None:
    done = gpubox("jupyter", "-d", "--gpus", "none", "cuda8-cudnn5")
    assert done.returncode == 125
    assert done.stderr.decode().splitlines()[1:] == [
        "gpubox: there is no Jupyter in nvidia/cuda:8.0-cudnn5-devel",
        "  the profile 'jupyter' has it; or add it: gpubox run cuda8-cudnn5, in it"
        " pip install jupyterlab, then gpubox save",
    ]
    assert boxes(client) == []
