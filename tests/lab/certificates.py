"""Certificates for an engine behind TLS: an authority, a server at 127.0.0.1, a client.

Made by openssl in a moment, good for a day. Knows no engine.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

_NEW_KEY = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")


def make_certificates(folder: Path) -> None:
    """`ca.pem`, and `cert.pem` and `key.pem` of a client: what DOCKER_CERT_PATH is to hold.

    `server/` has the same two of the server.
    """
    server = folder / "server"
    server.mkdir(parents=True)
    signs = "keyUsage=critical,keyCertSign,cRLSign"  # without it Python from 3.13 on trusts none
    authority = ("-x509", "-subj", "/CN=gpubox lab", "-addext", signs)
    _openssl(folder, *_NEW_KEY, *authority, "-keyout", "ca-key.pem", "-out", "ca.pem")
    _sign(folder, server, "127.0.0.1", "subjectAltName=IP:127.0.0.1")
    _sign(folder, folder, "client", "extendedKeyUsage=clientAuth")


def _sign(authority: Path, folder: Path, name: str, extension: str) -> None:
    issuer = ("-CA", str(authority / "ca.pem"), "-CAkey", str(authority / "ca-key.pem"))
    subject = ("-x509", "-subj", f"/CN={name}", "-addext", extension)
    basic = ("-addext", "basicConstraints=critical,CA:FALSE")
    _openssl(folder, *_NEW_KEY, *subject, *basic, *issuer, "-keyout", "key.pem", "-out", "cert.pem")


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
