"""The connection to an engine that answers; docker-py's exceptions become ours.

`containers`, `images`, `builds` and `processes` extend it by their calls; `engine` is all in one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
import docker.errors
import docker.tls
import docker.utils.config
import requests.exceptions
import urllib3.exceptions

from gpubox.engine.contexts import Endpoint
from gpubox.engine.faults import explain
from gpubox.engine.unreachable import innermost, no_engine, too_old, unreachable
from gpubox.errors import EngineError

# What docker-py raises for a config.json, or a credential helper's answer, that is malformed.
NOT_AS_DOCKER_WRITES = (ValueError, LookupError, TypeError, AttributeError)
_CALL_SECONDS = 300  # a GPU that wakes up at start takes longer than docker-py's 60
_OLDEST = (1, 24)  # version of the API that docker-py speaks


class ImageMissing(EngineError):
    """The engine does not have the image; a pull may get it."""


class Connection:
    """A connection to one engine; `podman` is Podman's version, empty for a Docker Engine."""

    def __init__(self, client: docker.DockerClient, endpoint: Endpoint, podman: str) -> None:
        self.client, self.endpoint, self.podman = client, endpoint, podman
        # untyped, for its private calls: the public ones cannot wait for a box while attached to it
        self.api: Any = client.api

    @property
    def detach_keys(self) -> str:
        """The keys of Docker's config.json that leave a box, or Docker's own."""
        return str(self.api._general_configs.get("detachKeys") or "ctrl-p,ctrl-q")


# --- connecting


def answering(endpoint: Endpoint, seconds: float) -> tuple[docker.DockerClient, str]:
    """A client that speaks the engine's own API version, and Podman's version if it is one."""
    try:
        # with a version given, docker-py does not ask the engine for it before trust_env is off
        client = docker.DockerClient(
            base_url=endpoint.host,
            version="1.24",
            timeout=_CALL_SECONDS,
            tls=_tls(endpoint),
            use_ssh_client=endpoint.host.startswith("ssh://"),
        )
        # else REQUESTS_CA_BUNDLE would take the place of the engine's own CA
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
    """The error for an answer without an API version: of no engine, or of one that wants TLS."""
    text = f"{answer.status_code} {answer.text}"
    if "HTTPS" in text:
        return unreachable([ConnectionError(text)], endpoint, seconds)
    return no_engine(text, endpoint)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and all that it came of, the outermost first."""
    while error is not None:
        yield error
        for part in error.args:
            if isinstance(part, BaseException):
                yield from _causes(part)
        reason = getattr(error, "reason", None)
        if isinstance(reason, BaseException):
            yield reason
        error = error.__cause__ or error.__context__


# --- docker-py's exceptions


@contextmanager
def translated(subject: str) -> Iterator[None]:
    """Turn docker-py's and its libraries' exceptions into ours; the call is about `subject`."""
    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise ImageMissing(f"no image {subject} on the engine", exit_code=125) from error
    except docker.errors.APIError as error:
        raise explain(str(error.explanation or error), subject) from error
    except (
        docker.errors.DockerException,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
    ) as error:
        raise EngineError(f"the connection to the engine broke: {_short(error)}") from error


def _short(error: BaseException) -> str:
    causes = list(_causes(error))
    if isinstance(causes[-1], ValueError):  # http.client found no size where a chunk must begin
        return "its answer stopped in the middle"
    return innermost(causes) if error.args else type(error).__name__


def api_version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)
