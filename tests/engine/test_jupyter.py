"""`gpubox jupyter`: a real JupyterLab behind a token, the URL that opens, ports and failures."""

from __future__ import annotations

import signal
import socket
import subprocess
import urllib.request
from contextlib import ExitStack, suppress
from urllib.error import HTTPError

import pytest
from docker import DockerClient

from lab.engine import PrivateEngine
from lab.program import Gpubox
from lab.waiting import wait_until

PROFILES = """
profiles:
  lab: {image: IMAGE, gpus: none}
  open:
    extends: lab
    command: [jupyter, lab, --ip=0.0.0.0, --port=8888, --no-browser, --allow-root,
              --IdentityProvider.token=]
  dying: {extends: lab, command: "sh -c 'echo last words; exit 3'"}
default_jupyter: lab
"""


@pytest.fixture
def gpubox_lab(gpubox: Gpubox, jupyter_image: str) -> Gpubox:
    (gpubox.cwd / "gpubox.yaml").write_text(PROFILES.replace("IMAGE", jupyter_image))
    return gpubox


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
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
        with suppress(OSError):  # somebody else's then, which is as good
            held.enter_context(socket.create_server(("127.0.0.1", 8888)))
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


def test_a_server_that_lets_anybody_in_is_stopped_before_its_url_is_said(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient
) -> None:
    done = gpubox_lab("jupyter", "-d", "open")
    assert done.returncode == 125
    assert b"lets anybody in without a token" in done.stderr
    assert done.stdout == b""
    assert client.containers.list() == []


def test_in_the_foreground_ctrl_c_stops_the_box(
    stable_engine: PrivateEngine, gpubox_lab: Gpubox, client: DockerClient
) -> None:
    child = subprocess.Popen(
        [gpubox_lab.program, "jupyter"],
        env=gpubox_lab.env,
        cwd=gpubox_lab.cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline().startswith(b"http://127.0.0.1:")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 0, err
    wait_until(lambda: client.containers.list() == [])
    assert boxes(client) == ["lab-root"]
