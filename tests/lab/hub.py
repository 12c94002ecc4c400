"""A small Docker Hub on loopback: tags in pages, tokens, and manifests with a pull limit.

It answers as Docker documents it, or ill, as `faults` say by the first word of the path. Knows no
engine and serves no layer.
"""

from __future__ import annotations

import json
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

REAL = "https://hub.docker.com"  # what the Hub calls itself, wherever it is asked
LOGIN_PAGE = b"<!DOCTYPE html>\n<title>Welcome to the campus network</title>"


@dataclass
class Asked:
    """One question that came in."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Fault:
    """Another answer than the right one. `cut` bytes of it arrive; `never` ends stays silent."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    cut: int | None = None
    never_ends: bool = False


def hub_tag(name: str, **sizes: int) -> dict[str, Any]:
    """A tag as the Hub tells it; `arm__v7` is a variant."""
    images: list[dict[str, Any]] = []
    for word, size in sizes.items():
        architecture, _, variant = word.partition("__")
        told = {"architecture": architecture, "os": "linux", "size": size, "status": "active"}
        images.append(told | {"variant": variant or None, "digest": f"sha256:{word}"})
    unknown = {"architecture": "unknown", "os": "unknown", "size": 7, "variant": None}
    return {
        "name": name,
        "images": [*images, unknown],
        "full_size": sum(sizes.values()),
        "last_updated": "2023-11-10T06:10:21.573206Z",
        "tag_last_pushed": "2023-11-10T06:10:20.000000Z",
        "digest": f"sha256:of-{name}",
    }


class Hub:
    """Listens at `url`; `repositories` has the tags of each, `limit` its pull limit and what is
    left of it, with `page` tags a page. `faults` are by `tags`, `page 2`, `token`, `manifests`."""

    def __init__(self, certificate: tuple[str, str] | None = None) -> None:
        self.repositories: dict[str, list[dict[str, Any]]] = {}
        self.limit: tuple[str, str] | None = ("100;w=21600", "76;w=21600")
        self.page = 2
        self.faults: dict[str, Fault] = {}
        self.asked: list[Asked] = []
        self.ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"{scheme}://{self.address}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> Fault:
        parts = urlsplit(path)
        words = parts.path.strip("/").split("/")
        match words:
            case ["token"]:
                return self.faults.get("token") or _json({"token": "anonymous", "expires_in": 300})
            case ["v2", "namespaces", namespace, "repositories", name, "tags", *tag]:
                known = self.repositories.get(f"{namespace}/{name}")
                return self.faults.get("tags") or self._tags(known, parts.path, parts.query, tag)
            case ["v2", namespace, name, "manifests", tag]:
                known = self.repositories.get(f"{namespace}/{name}", [])
                return self.faults.get("manifests") or self._manifest(known, tag)
        return _json({"message": "no such page"}, 404)

    def _tags(
        self, known: list[dict[str, Any]] | None, path: str, query: str, tag: list[str]
    ) -> Fault:
        if known is None:
            return _json({"message": "object not found", "errinfo": {}}, 404)
        if tag:
            found = [each for each in known if each["name"] == tag[0]]
            missing = {"message": f"tag '{tag[0]}' not found", "errinfo": {}}
            return _json(found[0]) if found else _json(missing, 404)
        wanted = {key: values[0] for key, values in parse_qs(query).items()}
        found = [each for each in known if wanted.get("name", "") in each["name"]]
        page = int(wanted.get("page", "1"))
        if fault := self.faults.get(f"page {page}"):
            return fault
        here = found[(page - 1) * self.page : page * self.page]
        more = page * self.page < len(found)
        name = wanted.get("name", "")
        following = f"{REAL}{path}?name={name}&page={page + 1}&page_size=100" if more else None
        return _json({"count": len(found), "next": following, "previous": None, "results": here})

    def _manifest(self, known: list[dict[str, Any]], tag: str) -> Fault:
        headers = {"Docker-Distribution-Api-Version": "registry/2.0"}
        if self.limit:
            limit, remaining = self.limit
            headers |= {"RateLimit-Limit": limit, "RateLimit-Remaining": remaining}
        found = [each for each in known if each["name"] == tag]
        if not found:
            return _json({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, 404, headers)
        return _json({}, 200, headers | {"Docker-Content-Digest": found[0]["digest"]})


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Fault:
    kind = {"Content-Type": "application/json"}
    return Fault(status, kind | (headers or {}), json.dumps(body).encode())


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.asked.append(Asked(self.command, self.path, dict(self.headers)))
            answer = hub.answer(self.path)
            if answer.never_ends:
                hub.ended.wait()
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(answer.body[: answer.cut])

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the tests' stderr."""

    return Answer
