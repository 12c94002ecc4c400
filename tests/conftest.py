"""For every test: surroundings in which nobody's own Docker, home or colours are seen."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from lab.program import clean

UNIT = Path(__file__).parent / "unit"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-snapshots", action="store_true", help="write tests/unit/snapshots anew"
    )


def pytest_configure() -> None:
    """Heed Ctrl-C: behind `&` in a script it is ignored, and would be in all that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _own_surroundings(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for foreign in os.environ.keys() - clean(os.environ).keys():
        monkeypatch.delenv(foreign)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(autouse=True)
def _no_docker_in_unit_tests(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if UNIT in request.path.parents:
        monkeypatch.setattr(socket.socket, "connect", _refuse)
        monkeypatch.setattr(socket.socket, "connect_ex", _refuse)


def _refuse(_: socket.socket, address: object) -> NoReturn:
    raise AssertionError(f"unit tests do not reach Docker, or any other address: {address}")


@pytest.fixture
def snapshot(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text, whole, with the file of this name in tests/unit/snapshots; or write it."""
    update = request.config.getoption("--update-snapshots")

    def compare(name: str, text: str) -> None:
        path = UNIT / "snapshots" / name
        if update:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
        assert path.is_file(), f"no {path.name}: pytest --update-snapshots writes it"
        assert text == path.read_text("utf-8")

    return compare
