"""Which engine: Docker's own order, and an error where Docker's library would take this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpubox.engine.contexts import DEFAULT_HOST, endpoint
from gpubox.errors import EngineError

FAR = "tcp://far:2376"

Make = Callable[..., None]


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    folder = tmp_path / ".docker"
    folder.mkdir()
    return folder


@pytest.fixture
def make(docker: Path) -> Make:
    """Write a context as `docker context create` does, with the named certificate files."""

    def context(name: str, *certificates: str, host: str | None = FAR, **more: Any) -> None:
        digest = hashlib.sha256(name.encode()).hexdigest()
        meta, tls = (docker / "contexts" / kind / digest for kind in ("meta", "tls"))
        meta.mkdir(parents=True)
        said = {"Name": name, "Endpoints": {"docker": {"Host": host, **more}}}
        (meta / "meta.json").write_text(json.dumps(said))
        for certificate in certificates:
            (tls / "docker").mkdir(parents=True, exist_ok=True)
            (tls / "docker" / f"{certificate}.pem").write_text("a certificate")

    return context


def current(docker: Path, name: str) -> None:
    (docker / "config.json").write_text(json.dumps({"currentContext": name}))


def certificates(folder: Path, *names: str) -> str:
    folder.mkdir()
    for name in names:
        (folder / f"{name}.pem").write_text("a certificate")
    return str(folder)


# --- the order


def test_without_a_word_it_is_the_local_socket(tmp_path: Path) -> None:
    found = endpoint({}, tmp_path)
    assert (found.host, found.local, found.tls) == (DEFAULT_HOST, True, None)


def test_docker_host_beats_docker_context_beats_the_current_one(
    tmp_path: Path, docker: Path, make: Make
) -> None:
    make("a", host="tcp://a:1")
    make("b", host="tcp://b:1")
    current(docker, "b")
    assert endpoint({}, tmp_path).host == "tcp://b:1"
    assert endpoint({"DOCKER_CONTEXT": "a"}, tmp_path).host == "tcp://a:1"
    both = {"DOCKER_CONTEXT": "a", "DOCKER_HOST": "unix:///x"}
    assert endpoint(both, tmp_path).host == "unix:///x"


@pytest.mark.parametrize("variable", ["DOCKER_HOST", "DOCKER_CONTEXT"])
def test_an_empty_variable_counts_as_unset(
    variable: str, tmp_path: Path, docker: Path, make: Make
) -> None:
    make("lab")
    current(docker, "lab")
    assert endpoint({variable: ""}, tmp_path).host == FAR


def test_the_context_default_is_the_local_socket(tmp_path: Path, docker: Path, make: Make) -> None:
    make("lab")
    current(docker, "lab")
    assert endpoint({"DOCKER_CONTEXT": "default"}, tmp_path).host == DEFAULT_HOST
    current(docker, "default")
    assert endpoint({}, tmp_path).host == DEFAULT_HOST


def test_docker_config_moves_the_contexts(tmp_path: Path, docker: Path, make: Make) -> None:
    make("lab")
    elsewhere = {"DOCKER_CONFIG": str(docker), "DOCKER_CONTEXT": "lab"}
    assert endpoint(elsewhere, Path("/nobody")).host == FAR


# --- never another engine than the one that was meant


@pytest.mark.parametrize("by", ["variable", "file"])
def test_a_context_that_does_not_exist_is_an_error(by: str, tmp_path: Path, docker: Path) -> None:
    current(docker, "nope" if by == "file" else "")
    environ = {"DOCKER_CONTEXT": "nope"} if by == "variable" else {}
    with pytest.raises(EngineError, match="names the context 'nope', and there is none") as caught:
        endpoint(environ, tmp_path)
    assert "docker context ls" in caught.value.hint


def test_contexts_need_no_config_json(tmp_path: Path, docker: Path, make: Make) -> None:
    make("lab")
    assert not (docker / "config.json").exists()
    found = endpoint({"DOCKER_CONTEXT": "lab"}, tmp_path)
    assert (found.host, found.source, found.local) == (FAR, "the context 'lab'", False)


def test_a_context_without_a_host_is_an_error(tmp_path: Path, make: Make) -> None:
    make("lab", host=None)
    with pytest.raises(EngineError, match=r"the context 'lab' .* names no engine"):
        endpoint({"DOCKER_CONTEXT": "lab"}, tmp_path)


@pytest.mark.parametrize("text", ["{", "\udcff"])
def test_an_unreadable_config_is_an_error_that_names_it(
    text: str, tmp_path: Path, docker: Path
) -> None:
    (docker / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(EngineError, match=r"config\.json cannot be read"):
        endpoint({}, tmp_path)


# --- TLS


def test_a_context_with_only_a_ca_speaks_tls(tmp_path: Path, make: Make) -> None:
    make("lab", "ca")
    tls = endpoint({"DOCKER_CONTEXT": "lab"}, tmp_path).tls
    assert tls is not None and tls.ca is not None
    assert (tls.ca.name, tls.cert, tls.key, tls.verify) == ("ca.pem", None, None, True)


def test_a_context_that_skips_verification_speaks_tls(tmp_path: Path, make: Make) -> None:
    make("lab", SkipTLSVerify=True)
    tls = endpoint({"DOCKER_CONTEXT": "lab"}, tmp_path).tls
    assert tls is not None
    assert (tls.ca, tls.cert, tls.verify) == (None, None, False)


def test_a_context_without_certificates_speaks_plainly(tmp_path: Path, make: Make) -> None:
    make("lab", host="ssh://anna@far")
    found = endpoint({"DOCKER_CONTEXT": "lab"}, tmp_path)
    assert (found.host, found.tls, found.local) == ("ssh://anna@far", None, False)


def test_tls_variables_name_the_certificates(tmp_path: Path) -> None:
    folder = certificates(tmp_path / "certs", "ca", "cert", "key")
    environ = {"DOCKER_HOST": FAR, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": folder}
    tls = endpoint(environ, tmp_path).tls
    assert tls is not None and tls.verify
    assert tls.ca == Path(folder, "ca.pem")
    del environ["DOCKER_TLS_VERIFY"]
    assert endpoint(environ, tmp_path).tls is None
    unverified = endpoint(environ | {"DOCKER_TLS": "1"}, tmp_path).tls
    assert unverified is not None and not unverified.verify


def test_missing_certificates_are_named(tmp_path: Path) -> None:
    folder = certificates(tmp_path / "certs", "ca")
    environ = {"DOCKER_HOST": FAR, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": folder}
    with pytest.raises(EngineError) as caught:
        endpoint(environ, tmp_path)
    assert f"{folder}/cert.pem, {folder}/key.pem" in caught.value.problem
    assert "ca.pem" not in caught.value.problem
    assert "DOCKER_CERT_PATH" in caught.value.hint


# --- addresses


@pytest.mark.parametrize(
    ("said", "host"),
    [
        ("tcp://h:2375", "tcp://h:2375"),
        ("h:2375", "tcp://h:2375"),
        ("unix:///run/user/1000/docker.sock", "unix:///run/user/1000/docker.sock"),
        ("ssh://anna@h", "ssh://anna@h"),
    ],
)
def test_an_address_is_taken_as_docker_takes_it(said: str, host: str, tmp_path: Path) -> None:
    assert endpoint({"DOCKER_HOST": said}, tmp_path).host == host


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("tcp://h", "the port is missing"),
        ("h", "the port is missing"),
        ("fd://", "knows no fd:// engines"),
        ("foo://h:1", "knows no foo:// engines"),
        ("npipe:////./pipe/docker", "knows no npipe:// engines"),
    ],
)
def test_an_address_that_is_none_names_its_variable(
    said: str, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=f"DOCKER_HOST=.*{problem}"):
        endpoint({"DOCKER_HOST": said}, tmp_path)
