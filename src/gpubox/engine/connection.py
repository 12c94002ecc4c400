"""A way to an engine that answers, and docker-py's exceptions as ours.

The other rooms of this folder ask over it, each by its subject; `engine` is all of them in one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
import docker.auth
import docker.errors
import docker.tls
import docker.utils.config
import requests.exceptions
import urllib3.exceptions

from gpubox.engine.contexts import Endpoint
from gpubox.engine.faults import EngineSaid, explain
from gpubox.engine.unreachable import no_engine, too_old, unreachable
from gpubox.errors import EngineError

OWN, TICKET = "gpubox.version", "gpubox.ticket"


# What docker-py trips over in a config.json that is none, and in what a credential helper prints.
NOT_AS_DOCKER_WRITES = (ValueError, LookupError, TypeError, AttributeError)
_CALL_SECONDS = 300  # a GPU that wakes up at start takes longer than docker-py's 60
_OLDEST = (1, 24)  # of the API, that docker-py speaks


class ImageMissing(EngineError):
    """The engine does not have the image; it can perhaps be pulled."""


class Connection:
    """To one engine; `podman` is its version, empty for a Docker Engine."""

    def __init__(self, client: docker.DockerClient, endpoint: Endpoint, podman: str) -> None:
        self.client, self.endpoint, self.podman = client, endpoint, podman
        # with its private calls, which the stubs leave out: docker-py cannot wait while it attaches
        self.api: Any = client.api

    @property
    def detach_keys(self) -> str:
        """The keys of Docker's config.json that leave a box, or Docker's own."""
        return str(self.api._general_configs.get("detachKeys") or "ctrl-p,ctrl-q")


# --- connecting


def answering(endpoint: Endpoint, seconds: float) -> tuple[docker.DockerClient, str]:
    """A client that speaks to an engine in its own API version; and the version of a Podman."""
    try:
        # a version of our own choice, so that docker-py asks nothing before trust_env is off
        client = docker.DockerClient(
            base_url=endpoint.host,
            version="1.24",
            timeout=_CALL_SECONDS,
            tls=_tls(endpoint),
            use_ssh_client=endpoint.host.startswith("ssh://"),
        )
        # or REQUESTS_CA_BUNDLE would take the place of the engine's own CA
        api: Any = client.api
        api.trust_env = False
        answer = api.get(f"{api.base_url}/_ping", timeout=seconds)
    except docker.errors.InvalidConfigFile as error:
        raise _bad_config() from error
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise unreachable(list(_causes(error)), endpoint, seconds) from error
    except NOT_AS_DOCKER_WRITES as error:
        raise _bad_config() from error
    version = answer.headers.get("Api-Version")
    if not version:
        raise _no_engine(answer, endpoint, seconds)
    if api_version(version) < _OLDEST:
        raise too_old(version, endpoint)
    api._version = version
    return client, answer.headers.get("Libpod-Api-Version", "")


def config_file() -> str:
    """Where docker-py finds Docker's config.json; empty where it finds none."""
    return str(docker.utils.config.find_config_file() or "")


def _bad_config() -> EngineError:
    return EngineError(
        f"{config_file()} is not as Docker writes it",
        "correct it, or move it away and log in again: docker login",
    )


def _tls(endpoint: Endpoint) -> docker.tls.TLSConfig | bool:
    tls = endpoint.tls
    if tls is None:
        return False
    pair = (str(tls.cert), str(tls.key)) if tls.cert and tls.key else None
    ca = str(tls.ca) if tls.ca else None
    return docker.tls.TLSConfig(client_cert=pair, ca_cert=ca, verify=tls.verify)


def _no_engine(answer: Any, endpoint: Endpoint, seconds: float) -> EngineError:
    """Why what answers is no engine for us: its TLS asks for TLS in plain words."""
    text = f"{answer.status_code} {answer.text}"
    if "HTTPS" in text:
        return unreachable([ConnectionError(text)], endpoint, seconds)
    return no_engine(text, endpoint)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        for part in error.args:
            if isinstance(part, BaseException):
                yield from _causes(part)
        reason = getattr(error, "reason", None)
        if isinstance(reason, BaseException):
            yield reason
        error = error.__cause__ or error.__context__


def _innermost(causes: list[BaseException]) -> str:
    return str(causes[-1]).strip() or type(causes[-1]).__name__


# --- docker-py's exceptions


@contextmanager
def translated(it: str) -> Iterator[None]:
    """docker-py's and its libraries' exceptions as ours; `it` is what the call was about."""
    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise ImageMissing(f"no image {it} on the engine", exit_code=125) from error
    except docker.errors.APIError as error:
        raise _explained(error, it) from error
    except (
        docker.errors.DockerException,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
    ) as error:
        raise EngineError(f"the connection to the engine broke: {_short(error)}") from error


def _explained(error: docker.errors.APIError, it: str) -> EngineSaid:
    return explain(str(error.explanation or error), it)


def _short(error: BaseException) -> str:
    causes = list(_causes(error))
    if isinstance(causes[-1], ValueError):  # http.client could not read on where a chunk begins
        return "its answer stopped in the middle"
    return _innermost(causes) if error.args else type(error).__name__


def api_version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)
