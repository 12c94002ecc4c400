"""Why no engine answers, and what a person can do about it.

A chain of exceptions comes in and is read as text; a problem and its fix go out. Knows no sockets
and no docker-py; the texts are those of Python's own errors and OpenSSL's.
"""

from __future__ import annotations

from gpubox.engine.contexts import Endpoint, Tls
from gpubox.engine.faults import Fault
from gpubox.errors import EngineError

# `{place}` is the engine's address and what named it; `{ca}`, `{cert}` and `{key}` are TLS files.
CAUSES = (
    Fault(
        r"PermissionError",
        "no permission to use the engine at {place}",
        "sudo usermod -aG docker $USER, then log in again (that group is as good as root)",
    ),
    Fault(
        r"FileNotFoundError",
        "no engine at {place}: Docker is not installed, or not running",
        "sudo systemctl start docker; gpubox doctor tells more",
    ),
    Fault(
        r"ConnectionRefusedError",
        "no engine answers at {place}: it is not running",
        "sudo systemctl start docker",
    ),
    Fault(
        r"timed out",
        "the engine at {place} does not answer within {seconds:g} s",
        "sudo systemctl restart docker",
    ),
    Fault(
        r"gaierror: \[Errno -?\d+\] (?P<what>.+)",
        "the machine of the engine at {place} cannot be found: {what}",
        "correct the name, or docker context use default",
    ),
    Fault(
        r"HTTP request to an HTTPS server",
        "the engine at {place} speaks TLS only",
        "export DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=FOLDER, with its ca.pem, cert.pem, key.pem",
    ),
    Fault(
        r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|packet length too long",
        "the engine at {place} does not speak TLS",
        "unset DOCKER_TLS_VERIFY DOCKER_TLS",
    ),
    Fault(
        r"certificate verify failed: (?:Hostname|IP address) mismatch, (?P<what>.+?)\.? \(_ssl",
        "the engine at {place} has a certificate for another name: {what}",
        "name the engine in DOCKER_HOST as its certificate does",
    ),
    Fault(
        r"CERTIFICATE_VERIFY_FAILED\] certificate verify failed: (?P<what>.+?)\.? \(_ssl",
        "the certificate of the engine at {place} is not trusted: {what}",
        "point DOCKER_CERT_PATH to the folder with its ca.pem",
    ),
    Fault(
        r"NO_CERTIFICATE_OR_CRL_FOUND",
        "{ca} holds no certificate",
        "it must hold, in PEM, the authority that made the engine's certificate",
    ),
    Fault(
        r"\[SSL\] PEM lib|KEY_VALUES_MISMATCH|invalid certificate or key|CERTIFICATE_LIB",
        "{cert} and {key} are no certificate and its key",
        "they must hold, in PEM, what the engine was told to trust",
    ),
    Fault(
        r"_ALERT_|EOF occurred in violation of protocol",
        "the engine at {place} broke off the TLS handshake: it seems not to know your certificate",
        "put the cert.pem and key.pem that it trusts into DOCKER_CERT_PATH",
    ),
    Fault(r"paramiko", "ssh to {place} needs paramiko", "pip install 'docker[ssh]'"),
)


def unreachable(causes: list[BaseException], endpoint: Endpoint, seconds: float) -> EngineError:
    """The error for a chain of causes, the outermost first; `seconds` is how long we waited."""
    text = " | ".join(f"{type(cause).__name__}: {cause}" for cause in causes)
    tls = endpoint.tls or Tls(None, None, None)
    words = {
        "place": place(endpoint),
        "seconds": seconds,
        **{"ca": tls.ca, "cert": tls.cert, "key": tls.key},
    }
    for fault in CAUSES:
        if found := fault.meant(text, words):
            return EngineError(*found)
    return EngineError(f"no engine answers at {words['place']}: {innermost(causes)}")


def innermost(causes: list[BaseException]) -> str:
    """What the last of the causes says, or is."""
    return str(causes[-1]).strip() or type(causes[-1]).__name__


def no_engine(answer: str, endpoint: Endpoint) -> EngineError:
    """The error where something answers that is no Docker Engine."""
    return EngineError(
        f"what answers at {place(endpoint)} is no Docker Engine: {' '.join(answer.split())[:80]}",
        "docker context ls shows which engines there are",
    )


def too_old(version: str, endpoint: Endpoint) -> EngineError:
    """The error for an engine whose API is older than the oldest that docker-py speaks."""
    return EngineError(
        f"the engine at {place(endpoint)} is too old: it speaks API {version}, and 1.24 is needed",
        "upgrade it to Docker 20.10 or newer",
    )


def place(endpoint: Endpoint) -> str:
    return f"{endpoint.host} ({endpoint.source})"
