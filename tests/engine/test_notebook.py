"""`gpubox jupyter` as people use it: in a real browser, in a window, many at once, on taken ports.

The light server stands in for Jupyter where only what gpubox does around it is in question.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError

import pytest
from docker import DockerClient
from docker.errors import APIError

from lab.browser import Page, browser
from lab.engine import PrivateEngine
from lab.images import STAND_IN
from lab.machine import free_port
from lab.program import Gpubox
from lab.tmux import Window, window
from lab.waiting import PATIENCE, wait_until

MANY = 20
CTRL_C = "\x03"
URL = re.compile(r"http://127\.0\.0\.1:(\d+)/\?token=(\w+)")
ANNA = 12345, 54321  # no user of this machine
CELL = """\
import os
open("result.txt", "w").write("made in a cell\\n")
print("six times seven is", 6 * 7)
print("in", os.getcwd())"""
ANSWER = r"""
read -r method path rest
while read -r line && [ "$line" != "$(printf '\r')" ]; do :; done
case $path in
/api | *"?token=$JUPYTER_TOKEN") said="200 OK" ;;
*) said="403 Forbidden" ;;
esac
printf "HTTP/1.0 $said\r\nContent-Length: 0\r\n\r\n"
"""
# It answers as Jupyter does: /api to everybody, all else to those with the token.
LIGHT = ["sh", "-c", 'exec nc -ll -p 8888 -e sh -c "$0"', ANSWER]


@pytest.fixture
def real(gpubox: Gpubox, jupyter_image: str) -> Gpubox:
    """Whose Jupyter is the real one."""
    return with_profile(gpubox, {"image": jupyter_image})


@pytest.fixture
def light(gpubox: Gpubox, port_8888: None) -> Gpubox:
    """Whose Jupyter is the light server."""
    return with_profile(gpubox, {"image": STAND_IN, "command": LIGHT})


def with_profile(gpubox: Gpubox, profile: dict[str, object]) -> Gpubox:
    settings = {"default_jupyter": "lab", "profiles": {"lab": profile | {"gpus": "none"}}}
    (gpubox.cwd / "gpubox.yaml").write_text(json.dumps(settings).replace("$", "$$"))
    return gpubox


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with browser(tmp_path / "browser") as made:
        yield made


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def started(done: subprocess.CompletedProcess[bytes]) -> re.Match[str]:
    """The URL that a start printed, with its port and its token."""
    url = URL.fullmatch(done.stdout.decode().strip())
    assert done.returncode == 0 and url, done.stderr.decode()
    return url


# In a browser ----------------------------------------------------------------------------------


@pytest.fixture(params=["root", "anna"])
def owner(
    request: pytest.FixtureRequest, stable_engine: PrivateEngine, gpubox: Gpubox
) -> Iterator[tuple[int, int]]:
    """Who starts gpubox, in a folder of theirs; ask for it before `real` writes there."""
    if request.param == "root":
        yield (0, 0)
        return
    engine_socket = stable_engine.folder / "s"
    with TemporaryDirectory() as folder:  # pytest's are closed to all but root
        gpubox.cwd = Path(folder)
        os.chown(engine_socket, 0, ANNA[1])
        os.chown(folder, *ANNA)
        yield ANNA
        os.chown(engine_socket, 0, 0)


def start_as(owner: tuple[int, int], gpubox: Gpubox) -> re.Match[str]:
    """Anna may read what root may, for where gpubox is installed, but writes only what is hers."""
    words = [str(gpubox.program), "jupyter", "-d"]
    if owner == ANNA:
        ids = ("--reuid", str(ANNA[0]), "--regid", str(ANNA[1]), "--clear-groups")
        reads = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
        words = ["setpriv", *ids, *reads, *words]
    done = subprocess.run(
        words, env=gpubox.env, cwd=gpubox.cwd, capture_output=True, timeout=PATIENCE, check=False
    )
    return started(done)


def test_a_cell_run_in_the_browser_writes_a_file_of_mine_here(
    owner: tuple[int, int], real: Gpubox, page: Page
) -> None:
    page.open(start_as(owner, real)[0])
    page.click(".jp-LauncherCard[data-category=Notebook]", "Python 3")
    page.shows("#jp-main-statusbar", "Python 3 (ipykernel) | Idle")
    page.click(".jp-Notebook .cm-content")
    page.shows(".jp-Notebook .cm-focused")
    page.type(CELL)
    page.shows(".jp-Notebook .cm-content", "os.getcwd()")
    page.press_shift_enter()
    page.shows(".jp-OutputArea-output", "six times seven is 42\nin /workspace")
    made = real.cwd / "result.txt"
    assert made.read_text() == "made in a cell\n"
    for file in (made, real.cwd / "Untitled.ipynb"):
        assert (file.stat().st_uid, file.stat().st_gid) == owner


def test_without_the_token_a_browser_sees_the_login_page_and_no_content(
    stable_engine: PrivateEngine, real: Gpubox, page: Page
) -> None:
    url = started(real("jupyter", "-d"))
    base = url[0].partition("?")[0]
    page.open(base)
    page.shows("form", "Password or token")
    assert page.address.startswith(f"{base}login?")
    assert "gpubox.yaml" not in page.text
    wrong = "0" * len(url[2])
    page.open(f"{base}lab?token={wrong}")
    wait_until(lambda: wrong in page.address)
    page.shows("form", "Password or token")
    for path in ("api/status", "api/contents", "api/kernels"):
        assert status(base + path) == 403
        assert status(f"{base}{path}?token={url[2]}") == 200


# In a window -----------------------------------------------------------------------------------


@contextmanager
def at_window(gpubox: Gpubox) -> Iterator[tuple[Window, re.Match[str]]]:
    """A person's window in which `gpubox jupyter` has said its URL."""
    folder = gpubox.home.parent / "window"
    functions = f'box() {{ "{gpubox.program}" jupyter; }}'
    with window(folder, gpubox.env, gpubox.cwd, functions) as made:
        made.shows("[0]$")
        made.type("box\r")
        lines = made.fulfils(lambda lines: any(map(URL.fullmatch, lines)), "URL")
        yield made, next(filter(None, map(URL.fullmatch, lines)))


def test_a_window_that_is_closed_leaves_the_notebook_working(
    stable_engine: PrivateEngine, real: Gpubox, client: DockerClient
) -> None:
    with at_window(real) as (_, url):
        assert working_in(real.cwd)
    wait_until(lambda: not working_in(real.cwd))
    assert status(url[0]) == 200
    [box] = client.containers.list()
    assert box.name == "lab-root"


def working_in(folder: Path) -> list[Path]:
    """The processes that have this working directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            if (process / "cwd").readlink() == folder:
                found.append(process)
    return found


def test_ctrl_c_in_the_window_stops_the_notebook_and_keeps_its_box(
    stable_engine: PrivateEngine, light: Gpubox, client: DockerClient
) -> None:
    with at_window(light) as (person, _):
        person.type(CTRL_C)
        person.shows("[0]$")
    [box] = client.containers.list(all=True)
    assert (box.name, box.status) == ("lab-root", "exited")


# Ports -----------------------------------------------------------------------------------------


def test_twenty_at_once_are_twenty_boxes_with_twenty_urls_that_work(
    stable_engine: PrivateEngine, real: Gpubox, client: DockerClient
) -> None:
    """Real ones: half a minute or more, by the machine, and 1.5 GB of memory."""
    with ThreadPoolExecutor(MANY) as people:
        begun = [people.submit(real, "jupyter", "-d", "--new") for _ in range(MANY)]
        urls = [started(each.result()) for each in begun]
    ports, tokens = ([url[part] for url in urls] for part in (1, 2))
    assert len(client.containers.list()) == len(set(ports)) == len(set(tokens)) == MANY
    neighbours = zip(ports, tokens, [*tokens[1:], tokens[0]], strict=True)
    for port, token, other in neighbours:
        asked = f"http://127.0.0.1:{port}/api/status?token="
        assert (status(asked + token), status(asked + other)) == (200, 403)


HOLDERS = pytest.mark.parametrize("kind", ["listener", "box", "container"])


@contextmanager
def holder(kind: str, gpubox: Gpubox, client: DockerClient, port: int) -> Iterator[str]:
    """Who has the port, in words. The boxes go when the test ends."""
    if kind == "listener":
        with socket.create_server(("127.0.0.1", port)):
            yield f"{Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"
    elif kind == "box":
        words = ("-d", "-p", f"{port}:80", "--name", "first", "--gpus", "none")
        gpubox("run", *words, STAND_IN, "sleep", "1000")
        yield "root's box first"
    else:
        published = {"80/tcp": ("127.0.0.1", port)}
        client.containers.run(
            STAND_IN, ["sleep", "1000"], detach=True, name="first", ports=published
        )
        yield "the container first"


@HOLDERS
def test_who_holds_the_port_that_was_asked_for_is_named(
    stable_engine: PrivateEngine, light: Gpubox, client: DockerClient, kind: str
) -> None:
    port = free_port()
    with holder(kind, light, client, port) as who:
        before = client.containers.list(all=True)
        done = light("jupyter", "-d", "--port", str(port))
    said = f"gpubox: port {port} is taken by {who}\n  take another port with --port\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (125, b"", said)
    assert client.containers.list(all=True) == before


@HOLDERS
def test_nobody_needs_to_know_who_holds_8888(
    stable_engine: PrivateEngine, light: Gpubox, client: DockerClient, kind: str
) -> None:
    with ExitStack() as held:
        with suppress(OSError, APIError):  # somebody else's then, which is as good
            held.enter_context(holder(kind, light, client, 8888))
        done = light("jupyter", "-d")
    url = started(done)
    assert int(url[1]) > 8888
    assert f"port 8888 is taken: Jupyter is on {url[1]}\n" in done.stderr.decode()
    assert status(url[0]) == 200
