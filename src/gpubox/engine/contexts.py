"""Which engine: DOCKER_HOST, DOCKER_CONTEXT, the current context, or the default socket.

Docker's own order, strictly: a context that does not exist is an error, never the local engine.
Knows Docker's configuration files; talks to nobody.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gpubox.errors import EngineError

DEFAULT_HOST = "unix:///var/run/docker.sock"


class Tls(msgspec.Struct, frozen=True):
    """Files for TLS; any of them may be missing. Without `verify` any server is trusted."""

    ca: Path | None
    cert: Path | None
    key: Path | None
    verify: bool = True


class Endpoint(msgspec.Struct, frozen=True):
    """Where an engine listens; `source` is the setting of the caller's that says so."""

    host: str
    source: str
    tls: Tls | None = None

    @property
    def socket(self) -> str | None:
        """The path of its socket on this machine."""
        return self.host.removeprefix("unix://") if self.local else None

    @property
    def local(self) -> bool:
        """Whether this machine's paths and GPUs are surely the engine's."""
        return self.host.startswith("unix://")

    @property
    def elsewhere(self) -> str:
        """Why nothing of this machine is taken for the engine's; empty where it is `local`."""
        return "" if self.local else f"{self.host} may be another machine"


def docker_folder(environ: Mapping[str, str], home: Path) -> Path:
    return Path(environ.get("DOCKER_CONFIG") or home / ".docker")


def endpoint(environ: Mapping[str, str], home: Path) -> Endpoint:
    """The engine that the `docker` program would talk to."""
    folder = docker_folder(environ, home)
    if host := environ.get("DOCKER_HOST"):
        return Endpoint(
            _checked(host, "DOCKER_HOST"), "DOCKER_HOST", _tls_variables(environ, folder)
        )
    if name := environ.get("DOCKER_CONTEXT"):
        return _context(name, "DOCKER_CONTEXT", folder)
    config = folder / "config.json"
    if name := _json(config).get("currentContext"):
        return _context(str(name), str(config), folder)
    return Endpoint(DEFAULT_HOST, "the default")


def _checked(host: str, source: str) -> str:
    host = host if "://" in host else f"tcp://{host}"
    scheme = host.partition("://")[0]
    if scheme not in ("unix", "tcp", "ssh", "http", "https"):
        raise EngineError(
            f"{source}={host}: gpubox knows no {scheme}:// engines",
            "unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST",
        )
    if scheme == "tcp" and not host.rpartition(":")[2].rstrip("/").isdigit():
        raise EngineError(f"{source}={host}: the port is missing", f"{source}={host}:2375")
    return host


def _tls_variables(environ: Mapping[str, str], folder: Path) -> Tls | None:
    if not environ.get("DOCKER_TLS_VERIFY") and not environ.get("DOCKER_TLS"):
        return None
    certs = Path(environ.get("DOCKER_CERT_PATH") or folder)
    files = {name: certs / f"{name}.pem" for name in ("ca", "cert", "key")}
    missing = [str(path) for path in files.values() if not os.access(path, os.R_OK)]
    if missing:
        raise EngineError(
            f"DOCKER_TLS_VERIFY is set, but there is no readable {', '.join(missing)}",
            "point DOCKER_CERT_PATH to the folder with ca.pem, cert.pem and key.pem",
        )
    return Tls(**files, verify=bool(environ.get("DOCKER_TLS_VERIFY")))


def _context(name: str, source: str, folder: Path) -> Endpoint:
    if name == "default":
        return Endpoint(DEFAULT_HOST, "the default")
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts" / "meta" / digest / "meta.json"
    if not meta.is_file():
        raise EngineError(
            f"{source} names the context '{name}', and there is none",
            "docker context ls shows the contexts, docker context use default leaves them",
        )
    docker = (_json(meta).get("Endpoints") or {}).get("docker") or {}
    if not docker.get("Host"):
        raise EngineError(f"the context '{name}' ({meta}) names no engine")
    certs = folder / "contexts" / "tls" / digest / "docker"
    files = {
        key: path if (path := certs / f"{key}.pem").is_file() else None
        for key in ("ca", "cert", "key")
    }
    skip = bool(docker.get("SkipTLSVerify"))
    tls = Tls(**files, verify=not skip) if skip or any(files.values()) else None
    return Endpoint(_checked(docker["Host"], f"context '{name}'"), f"the context '{name}'", tls)


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read: {error}") from None
    return document if isinstance(document, dict) else {}
