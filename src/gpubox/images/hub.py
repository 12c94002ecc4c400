"""Asks Docker Hub over HTTP, without an engine: which tags there are, their sizes, the pull limit.

A question without an answer raises HubUnknown, and never means that something is missing. Knows no
engine, no images and no logins.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from gpubox import __version__
from gpubox.errors import GpuboxError, why

SECONDS = 5  # for one answer, including the look-up of names
_MOST_BYTES = 8 << 20  # of one answer; a page of a hundred tags has some hundred kilobytes
_PAGE = 100  # tags, the most that the Hub gives at once
_PAGES = 5
_NAME = re.compile(r"\w[\w.-]{0,127}", re.ASCII)  # of a tag
_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


class HubUnknown(GpuboxError):
    """The Hub gave no answer that can be used."""

    def __init__(self, about: str, reason: str, hint: str = "") -> None:
        super().__init__(f"Docker Hub tells nothing of {about}: {reason}", hint)


class HubBusy(HubUnknown):
    """The Hub was asked too often from here; `wait` is the seconds that it wants us to wait."""

    def __init__(self, about: str, host: str, wait: int | None) -> None:
        again = "" if wait is None else f", again in {_span(wait)}"
        super().__init__(
            about,
            f"{host} takes no more questions from here for now (429){again}",
            "wait; all who share your address are counted together",
        )


class Addresses(msgspec.Struct, frozen=True):
    """The Hub's three hosts: for facts on tags, for tokens, and for manifests."""

    tags: str
    tokens: str
    registry: str


DOCKERS = Addresses(
    "https://hub.docker.com", "https://auth.docker.io", "https://registry-1.docker.io"
)


class HubTag(msgspec.Struct, frozen=True, kw_only=True):
    """A tag: the bytes to download for each architecture, and when it was last pushed.

    `sizes` is for Linux alone, like {"amd64": 2920000000, "arm/v7": 1}; `pushed` is the Hub's ISO
    time. What the Hub leaves out is empty.
    """

    name: str
    sizes: dict[str, int]
    pushed: str = ""
    digest: str = ""


class Pulls(msgspec.Struct, frozen=True, kw_only=True):
    """How often the caller may pull in `window` seconds, and may still pull now.

    `limit` and `remaining` are None where the registry counts no pulls.
    """

    limit: int | None = None
    remaining: int | None = None
    window: int | None = None


def addresses() -> Addresses:
    """Docker's own, or the one that GPUBOX_HUB names for all three."""
    named = os.environ.get("GPUBOX_HUB", "").rstrip("/")
    if not named:
        return DOCKERS
    if not re.fullmatch(r"https?://([\w.-]+|\[[\da-fA-F:.]+\])(:\d{1,5})?", named):
        raise GpuboxError(f"GPUBOX_HUB is no address: {named}", "write https://HOST[:PORT]")
    return Addresses(named, named, named)


# --- what is asked


def tag(repository: str, name: str) -> HubTag | None:
    """The tag of a repository like `nvidia/cuda`; None where the Hub says that there is none."""
    about, tags = f"{repository}:{name}", _tags_of(repository)
    url = f"{tags}/{quote(name, safe='')}"
    answer = _asked(about, url)
    found = _object(about, url, answer)
    if answer.status == 404:
        _must_show(about, f"{tags}?page_size=1", repository)
        return None
    if found.get("name") != name:
        raise _no_hub(about, url, "another tag" if "name" in found else "no tag")
    return _tag(about, url, found)


def _must_show(about: str, url: str, repository: str) -> None:
    """Raise if the Hub does not show the repository: it answers 404 for a private one, too."""
    answer = _asked(about, url)
    _object(about, url, answer)
    if answer.status == 404:
        reason = f"it shows no {repository}: there is none, or it is private"
        raise HubUnknown(about, reason, "check the name; docker login logs in")


def like(repository: str, text: str) -> list[HubTag]:
    """Tags whose name holds `text`, if any, the newest first; no more than a few pages of them."""
    query = urlencode({"page_size": _PAGE} | ({"name": text} if text else {}))
    return list(_pages(repository, f"{_tags_of(repository)}?{query}"))


def pulls(repository: str, name: str) -> Pulls:
    """The caller's pull limit, which the HEAD of a manifest tells, there or not; a HEAD is free."""
    at = addresses()
    about, path = f"{repository}:{name}", quote(_full(repository))
    scope = urlencode(
        {"service": "registry.docker.io", "scope": f"repository:{_full(repository)}:pull"}
    )
    url = f"{at.tokens}/token?{scope}"
    token = _object(about, url, _asked(about, url)).get("token")
    if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise _no_hub(about, url, "no token")
    url = f"{at.registry}/v2/{path}/manifests/{quote(name, safe=':')}"
    headers = {"Accept": _MANIFESTS, "Authorization": f"Bearer {token}"}
    answer = _asked(about, url, "HEAD", headers)
    if "docker-distribution-api-version" not in answer.headers:
        raise _no_hub(about, url, f"no registry ({answer.status})")
    limit, window = _counted(answer.headers.get("ratelimit-limit", ""))
    remaining, _ = _counted(answer.headers.get("ratelimit-remaining", ""))
    return Pulls(
        limit=limit,
        remaining=remaining,
        window=window,
    )


def _tags_of(repository: str) -> str:
    namespace, _, name = _full(repository).partition("/")
    base = f"{addresses().tags}/v2/namespaces/{quote(namespace)}"
    return f"{base}/repositories/{quote(name, safe='')}/tags"


def _full(repository: str) -> str:
    return repository if "/" in repository else f"library/{repository}"


def _counted(header: str) -> tuple[int | None, int | None]:
    """The number and the seconds of a limit: `100;w=21600` is a hundred in six hours."""
    match = re.match(r"\s*(\d+)\s*(?:;\s*w=(\d+))?", header)
    if not match:
        return None, None
    return int(match[1]), int(match[2]) if match[2] else None


# --- what is answered


def _pages(repository: str, url: str) -> Iterator[HubTag]:
    about, base = repository, addresses().tags
    for number in range(_PAGES):
        try:
            answer = _asked(about, url)
            found = _object(about, url, answer)
        except HubUnknown:
            if number:
                return  # the pages before are enough
            raise
        if answer.status == 404:
            return
        results = found.get("results")
        if not isinstance(results, list):
            raise _no_hub(about, url, "no list of tags")
        for result in results:
            yield _tag(about, url, result)
        following = found.get("next")
        if not isinstance(following, str) or not following:
            return
        # the Hub names its own host there, even if it was asked at another address
        url = re.sub(r"^(https?://[^/]*)?/*", f"{base}/", following)


def _tag(about: str, url: str, found: object) -> HubTag:
    if not isinstance(found, dict) or not _NAME.fullmatch(_text(found.get("name"))):
        raise _no_hub(about, url, "no tag")
    images = found.get("images")
    return HubTag(
        name=found["name"],
        sizes=dict(_sizes(images if isinstance(images, list) else [])),
        pushed=_text(found.get("tag_last_pushed")) or _text(found.get("last_updated")),
        digest=_text(found.get("digest")),
    )


def _sizes(images: list[Any]) -> Iterator[tuple[str, int]]:
    for image in images:
        if not isinstance(image, dict) or image.get("os") != "linux":
            continue  # this includes builders' attestations, whose system is "unknown"
        kind, variant = _text(image.get("architecture")), _text(image.get("variant"))
        size = image.get("size")
        if kind and isinstance(size, int) and size > 0:
            yield (f"{kind}/{variant}" if variant else kind), size


def _text(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() else ""


class _Answer(msgspec.Struct, frozen=True):
    """Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def _object(about: str, url: str, answer: _Answer) -> dict[str, Any]:
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        found = None
    # gateways answer 404 of their own, as does the Hub for an address that it has given up
    denied = answer.status == 404 and not re.search(rb"(?i)(?<!page )not found", answer.body)
    if not isinstance(found, dict) or denied:
        start = " ".join(answer.body[:200].decode("utf-8", "replace").split())[:40]
        raise _no_hub(about, url, start if start.isprintable() and start else "nothing to read")
    return found


def _no_hub(about: str, url: str, what: str) -> HubUnknown:
    return HubUnknown(
        about,
        f"what answers as {_host(url)} is no Docker Hub: {what}",
        "some networks want a login in the browser first; others a proxy: export HTTPS_PROXY=...",
    )


# --- how it is asked


def _asked(
    about: str, url: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> _Answer:
    """The Hub's answer if its status is 200 or 404; all else raises HubUnknown."""
    request = urllib.request.Request(url, method=method, headers=dict(headers or {}))
    request.add_header("User-Agent", f"gpubox/{__version__}")
    try:
        answer = _within(SECONDS, request)
    except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
        raise HubUnknown(about, _reason(error, url), _way_there(url)) from error
    if answer.status in (200, 404):
        return answer
    raise _refused(about, url, answer)


def _within(seconds: float, request: urllib.request.Request) -> _Answer:
    """The answer, or a TimeoutError after so many seconds.

    A thread asks, because urllib's own timeout ends neither the look-up of a name nor an answer
    that comes byte by byte.
    """
    results = queue.SimpleQueue[_Answer | Exception]()

    def fetch() -> None:
        try:
            results.put(_fetch(request))
        except Exception as error:
            results.put(error)

    threading.Thread(target=fetch, daemon=True).start()
    try:
        result = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(result, Exception):
        raise result
    return result


def _fetch(request: urllib.request.Request) -> _Answer:
    opener = urllib.request.build_opener(_Redirects)
    try:
        answer = opener.open(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        body = b"" if request.get_method() == "HEAD" else answer.read(_MOST_BYTES + 1)
        if len(body) > _MOST_BYTES:
            raise OverflowError
        headers = {name.lower(): value for name, value in answer.headers.items()}
        whole = headers.get("content-length", "")
        if request.get_method() == "GET" and whole.isdigit() and len(body) < int(whole):
            raise http.client.IncompleteRead(body)
        return _Answer(answer.status, headers, body)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """A redirect keeps the method, and takes no token to another host."""

    def redirect_request(self, req: Any, *rest: Any) -> urllib.request.Request | None:
        following = super().redirect_request(req, *rest)
        if following is None or following.type not in ("http", "https"):
            return None
        before, after = urlsplit(req.full_url), urlsplit(following.full_url)
        if (before.scheme, before.netloc) != (after.scheme, after.netloc):
            following.remove_header("Authorization")
        following.method = req.get_method()  # urllib makes a GET of it, which counts as a pull
        return following


# --- why there is no answer


def _reason(error: Exception, url: str) -> str:
    host, first = _host(url), _host(_proxy(url) or url)  # first: whom we connect to
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    match cause:
        case TimeoutError():
            return f"{host} does not answer within {SECONDS:g} s"
        case socket.gaierror():
            return f"no machine {first} is found"
        case ssl.SSLCertVerificationError():
            return f"the certificate of {host} is not trusted: {cause.verify_message}"
        case ssl.SSLError():
            return f"{host} does not speak TLS"
        case http.client.IncompleteRead() | ConnectionResetError() | BrokenPipeError():
            return f"{host} breaks off in mid-answer"
        case http.client.HTTPException():
            return f"{host} speaks no HTTP"
        case OverflowError():
            return f"{host} gives an answer without end"
        case OSError():
            return f"{first} cannot be reached: {why(cause)}"
    return f"{first} cannot be reached: {cause}"


def _way_there(url: str) -> str:
    """The hint: through which proxy we asked, or how to name one."""
    variable = f"{url.partition(':')[0].upper()}_PROXY"
    if proxy := _proxy(url):
        return f"it is asked through the proxy {_host(proxy)}, which {variable} names"
    return f"where only a proxy leads out of the network: export {variable}=http://HOST:PORT"


def _proxy(url: str) -> str:
    """The address of the proxy for this URL, or empty."""
    proxy = urllib.request.getproxies().get(url.partition(":")[0], "")
    return "" if urllib.request.proxy_bypass(_host(url)) else proxy


def _host(url: str) -> str:
    """With its port, and without the password that a proxy's address may hold."""
    return re.sub(r"^\w+:/*", "", url).partition("/")[0].rpartition("@")[2]


def _refused(about: str, url: str, answer: _Answer) -> HubUnknown:
    host, status = _host(url), answer.status
    if status == 429:
        return HubBusy(about, host, _wait(answer.headers))
    if status in (401, 403):
        return HubUnknown(
            about,
            f"{host} wants a login ({status})",
            "the repository is private, or there is none of this name",
        )
    if status == 407:
        return HubUnknown(about, f"a proxy wants a login ({status})", _way_there(url))
    if status >= 500:
        return HubUnknown(about, f"{host} is out of order ({status})", "try again later")
    return HubUnknown(about, f"{host} answers {status}", _way_there(url))


def _wait(headers: Mapping[str, str]) -> int | None:
    """Seconds until the next question, from a header that has seconds, a Unix time or a date."""
    for name in ("retry-after", "x-retry-after", "x-ratelimit-reset"):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"\d{1,12}", value):
            number = int(value)
            moment = number > 1_000_000_000  # else it is a span
            return max(0, round(number - time.time()) if moment else number)
        try:
            return max(0, round(parsedate_to_datetime(value).timestamp() - time.time()))
        except ValueError:
            continue
    return None


def _span(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    return f"{round(seconds / 60)} min" if seconds < 7200 else f"{round(seconds / 3600)} h"
