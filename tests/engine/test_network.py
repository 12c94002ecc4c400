"""An engine across the network is the same engine: by tcp, and behind TLS with its own authority.

Its machine is taken for another one, though here it is this.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from lab.certificates import make_certificates
from lab.engine import Kind, Network, PrivateEngine
from lab.images import build_stand_in
from lab.program import Gpubox
from lab.tmux import window
from lab.workstation import PROFILE

WAYS: dict[str, tuple[Kind, Network]] = {
    "tcp": ("stable", "tcp"),
    "tls": ("stable", "tls"),
    "newer-tls": ("cdi", "tls"),
}
CTRL_C, DETACH = "\x03", "\x10\x11"
RUN = ("run", "--rm", "--gpus", "none")


@pytest.fixture(scope="module", params=WAYS)
def far(request: pytest.FixtureRequest) -> Iterator[PrivateEngine]:
    kind, network = WAYS[request.param]
    with PrivateEngine(kind, network=network) as engine:
        build_stand_in(engine.host)
        yield engine


@pytest.fixture
def gpubox(far: PrivateEngine, tmp_path: Path) -> Gpubox:
    """The installed program, talking to that engine over the network."""
    return Gpubox(tmp_path, far.network_env)


@pytest.fixture(scope="module")
def tls() -> Iterator[PrivateEngine]:
    with PrivateEngine("stable", gpu_count=0, network="tls") as engine:
        build_stand_in(engine.host)
        yield engine


@pytest.fixture
def near_tls(tls: PrivateEngine, tmp_path: Path) -> Gpubox:
    return Gpubox(tmp_path, tls.network_env)


def is_running(engine: PrivateEngine, name: str) -> bool:
    client = docker.DockerClient(base_url=engine.host)
    try:
        return bool(client.containers.get(name).status == "running")
    finally:
        client.close()


# Streams ---------------------------------------------------------------------------------------


def test_a_command_gives_its_output_and_its_exit_code(gpubox: Gpubox) -> None:
    done = gpubox(*RUN, PROFILE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_the_inputs_end_reaches_the_box_and_all_of_its_answer_comes_back(gpubox: Gpubox) -> None:
    data = random.randbytes(5_000_000)
    script = "sha256sum; head -c 5000000 /dev/zero; echo the end"
    done = gpubox(*RUN, "-i", PROFILE, "sh", "-c", script, stdin=data)
    digest = hashlib.sha256(data).hexdigest().encode()
    assert done.stdout == digest + b"  -\n" + bytes(5_000_000) + b"the end\n", done.stderr


def test_random_bytes_go_there_and_back_unchanged(gpubox: Gpubox) -> None:
    data = random.randbytes(10_000_000)
    done = gpubox(*RUN, "-i", PROFILE, "cat", stdin=data)
    assert done.stdout == data, done.stderr


def test_no_input_is_an_end_of_input_too(gpubox: Gpubox) -> None:
    for _ in range(5):
        done = gpubox(*RUN, "-i", PROFILE, "sh", "-c", "cat; echo tail", stdin=b"")
        assert done.stdout == b"tail\n", done.stderr


# At a terminal ---------------------------------------------------------------------------------


def test_a_terminal_is_a_terminal_across_the_network(
    far: PrivateEngine, gpubox: Gpubox, tmp_path: Path
) -> None:
    env = gpubox.env | {"PATH": f"{gpubox.program.parent}:{gpubox.env['PATH']}"}
    with window(tmp_path / "window", env, gpubox.cwd) as person:
        person.shows("[0]$")
        person.type(f"gpubox {' '.join(RUN)} {PROFILE}\r")
        person.shows("/ #")
        person.type("sh -c 'stty size; exec sleep 600'\r")
        person.shows("24 80")  # said by who has the keyboard then
        person.type(CTRL_C)
        person.shows("/ #")
        person.type("exit 9\r")
        person.shows("[9]$")
        person.type(f"gpubox run --name left --gpus none {PROFILE}\r")
        person.shows("/ #")
        person.type(DETACH)
        person.shows("[0]$")
    assert b"left" in gpubox("ps").stdout


# What belongs to which machine -----------------------------------------------------------------


def test_a_detached_box_is_listed(gpubox: Gpubox) -> None:
    assert gpubox("run", "-d", "--gpus", "none", "--name", "far", PROFILE).stdout == b"far\n"
    assert "far" in {box["name"] for box in json.loads(gpubox("ps", "--json").stdout)}


def test_gpus_are_the_engines(far: PrivateEngine, gpubox: Gpubox) -> None:
    done = gpubox("run", "--rm", "--gpus", "device=1", PROFILE, "nvidia-smi", "-L")
    assert far.gpus[1].encode() in done.stdout, done.stderr
    assert done.stdout.count(b"GPU-") == 1


def test_a_folder_of_this_machine_is_not_asked_for_there(gpubox: Gpubox, tmp_path: Path) -> None:
    """Whether a path exists over there is the engine's to say."""
    done = gpubox(*RUN, "-v", f"{tmp_path}/none:/data", PROFILE, "true")
    assert done.returncode == 125
    assert done.stderr.decode().startswith(
        f"gpubox: no folder {tmp_path}/none on the engine's machine\n"
    )
    assert not (tmp_path / "none").exists()


# Whom to trust ---------------------------------------------------------------------------------


def problem(gpubox: Gpubox, **env: str) -> str:
    done = gpubox(*RUN, PROFILE, "true", env=env)
    assert done.returncode == 125, done.stderr
    sentence, hint = done.stderr.decode().splitlines()
    assert sentence.startswith("gpubox: ") and hint.startswith("  ")
    return sentence.removeprefix("gpubox: ") + " / " + hint.strip()


def test_speaking_plainly_to_tls_says_which_variable_is_missing(
    tls: PrivateEngine, near_tls: Gpubox
) -> None:
    del near_tls.env["DOCKER_TLS_VERIFY"]
    assert problem(near_tls) == (
        f"the engine at {tls.network_host} (DOCKER_HOST) speaks TLS only"
        " / export DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=FOLDER, with its ca.pem, cert.pem, key.pem"
    )


def test_another_authoritys_engine_is_not_trusted(
    tls: PrivateEngine, near_tls: Gpubox, tmp_path: Path
) -> None:
    make_certificates(tmp_path / "other")
    said = problem(near_tls, DOCKER_CERT_PATH=str(tmp_path / "other"))
    assert said.startswith(
        f"the certificate of the engine at {tls.network_host} (DOCKER_HOST) is not trusted: "
    )
    assert said.endswith(" / point DOCKER_CERT_PATH to the folder with its ca.pem")


def test_a_client_that_the_engine_does_not_trust_is_told_so(
    tls: PrivateEngine, near_tls: Gpubox, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    make_certificates(folder)
    shutil.copy(tls.certificates / "ca.pem", folder)
    assert problem(near_tls, DOCKER_CERT_PATH=str(folder)) == (
        f"the engine at {tls.network_host} (DOCKER_HOST) broke off the TLS handshake:"
        " it seems not to know your certificate"
        " / put the cert.pem and key.pem that it trusts into DOCKER_CERT_PATH"
    )


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
def test_a_missing_file_is_named(
    tls: PrivateEngine, near_tls: Gpubox, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "certificates"
    shutil.copytree(tls.certificates, folder)
    (folder / f"{name}.pem").unlink()
    said = problem(near_tls, DOCKER_CERT_PATH=str(folder))
    assert said.startswith(
        f"DOCKER_TLS_VERIFY is set, but there is no readable {folder}/{name}.pem / "
    )


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
def test_a_file_that_is_no_certificate_is_named(
    tls: PrivateEngine, near_tls: Gpubox, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "certificates"
    shutil.copytree(tls.certificates, folder)
    (folder / f"{name}.pem").write_text("nothing\n")
    assert f"{folder}/{name}.pem" in problem(near_tls, DOCKER_CERT_PATH=str(folder))


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_callers_other_authorities_are_not_the_engines(
    tls: PrivateEngine, near_tls: Gpubox, tmp_path: Path, variable: str
) -> None:
    make_certificates(tmp_path / "other")
    done = near_tls(*RUN, PROFILE, "true", env={variable: f"{tmp_path}/other/ca.pem"})
    assert done.returncode == 0, done.stderr


def test_a_proxy_of_the_callers_is_not_asked_for_the_engine(near_tls: Gpubox) -> None:
    nobody = "http://127.0.0.1:9"
    done = near_tls(*RUN, PROFILE, "true", env={"HTTPS_PROXY": nobody, "ALL_PROXY": nobody})
    assert done.returncode == 0, done.stderr


def context(gpubox: Gpubox, engine: PrivateEngine, *fields: str) -> dict[str, str]:
    """The variables that choose a context of the docker program's making."""
    gpubox.env = {key: text for key, text in gpubox.env.items() if not key.startswith("DOCKER_")}
    there = ",".join([f"host={engine.network_host}", *fields])
    create = [str(engine.docker), "context", "create", "far", "--docker", there]
    subprocess.run(create, env=gpubox.env, check=True, capture_output=True)
    return {"DOCKER_CONTEXT": "far"}


def pem(engine: PrivateEngine, *names: str) -> list[str]:
    return [f"{name}={engine.certificates}/{name}.pem" for name in names]


def test_a_context_brings_its_own_certificates(tls: PrivateEngine, near_tls: Gpubox) -> None:
    there = context(near_tls, tls, *pem(tls, "ca", "cert", "key"))
    done = near_tls(*RUN, PROFILE, "echo", "hello", env=there)
    assert done.stdout == b"hello\n", done.stderr


def test_a_context_may_trust_any_server(tls: PrivateEngine, near_tls: Gpubox) -> None:
    there = context(near_tls, tls, *pem(tls, "cert", "key"), "skip-tls-verify=true")
    done = near_tls(*RUN, PROFILE, "echo", "hello", env=there)
    assert done.stdout == b"hello\n", done.stderr


def test_a_context_with_an_authority_alone_is_tls_all_the_same(
    tls: PrivateEngine, near_tls: Gpubox
) -> None:
    """This engine wants a certificate of us: it can only say so to who speaks TLS."""
    there = context(near_tls, tls, *pem(tls, "ca"))
    assert "(the context 'far') broke off the TLS handshake" in problem(near_tls, **there)
