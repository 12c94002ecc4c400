"""Docker Hub is asked without an engine; what it does not say is unknown, and never "missing"."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from gpubox.errors import GpuboxError
from gpubox.images import hub as asking
from gpubox.images.hub import HubBusy, HubTag, HubUnknown, Pulls, like, pulls, tag
from lab.certificates import make_certificates
from lab.hub import LOGIN_PAGE, Fault, Hub, hub_tag
from lab.machine import free_port
from lab.waiting import PATIENCE

CUDA = "nvidia/cuda"
LIVE = "12.4.1-devel-ubuntu22.04"
NAMES = [LIVE, "12.4.1-runtime-ubuntu22.04", "12.4.0-devel-ubuntu22.04", "11.8.0-base-ubuntu20.04"]
PUSHED = "2023-11-10T06:10:20.000000Z"

NO_PROXY = "where only a proxy leads out of the network: export HTTP_PROXY=http://HOST:PORT"
NO_HUB = "some networks want a login in the browser first; others a proxy: export HTTPS_PROXY=..."


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as made:
        made.repositories[CUDA] = [hub_tag(name, amd64=2_920_000_000, arm64=9) for name in NAMES]
        made.repositories["library/ubuntu"] = [hub_tag("22.04", amd64=29_000_000, arm__v7=26)]
        monkeypatch.setenv("GPUBOX_HUB", made.url)
        yield made


def refusal(repository: str = CUDA, name: str = LIVE) -> tuple[str, str]:
    with pytest.raises(HubUnknown) as caught:
        tag(repository, name)
    return caught.value.problem, caught.value.hint


def unknown(reason: str, about: str = f"{CUDA}:{LIVE}") -> str:
    return f"Docker Hub tells nothing of {about}: {reason}"


# --- what it says


def test_a_tag_has_its_sizes_by_architecture(hub: Hub) -> None:
    assert tag(CUDA, LIVE) == HubTag(
        name=LIVE,
        sizes={"amd64": 2_920_000_000, "arm64": 9},
        pushed=PUSHED,
        digest=f"sha256:of-{LIVE}",
    )


def test_a_name_without_a_slash_is_an_official_image(hub: Hub) -> None:
    found = tag("ubuntu", "22.04")
    assert found is not None
    assert found.sizes == {"amd64": 29_000_000, "arm/v7": 26}


def test_what_is_not_there_is_missing(hub: Hub) -> None:
    assert tag(CUDA, "8.0-cudnn5-devel") is None
    assert like("nvidia/cudda", "12") == []


def test_what_may_be_private_is_not_missing(hub: Hub) -> None:
    with pytest.raises(HubUnknown) as caught:
        tag("anna/own", "1")
    assert caught.value.problem.endswith(": it shows no anna/own: there is none, or it is private")


def test_near_misses_come_from_all_pages(hub: Hub) -> None:
    assert [found.name for found in like(CUDA, "12.4")] == NAMES[:3]
    assert [asked.path.partition("?")[2] for asked in hub.asked] == [
        "page_size=100&name=12.4",
        "name=12.4&page=2&page_size=100",
    ]
    assert like(CUDA, "8.0-cudnn5") == []


def test_a_page_that_is_not_given_takes_nothing_from_those_before(hub: Hub) -> None:
    hub.faults["page 2"] = Fault(429)
    assert [found.name for found in like(CUDA, "12.4")] == NAMES[:2]


def test_pages_without_end_are_not_followed_without_end(hub: Hub) -> None:
    hub.page = 1
    hub.repositories[CUDA] = [hub_tag(f"12.4.{number}", amd64=1) for number in range(50)]
    assert len(like(CUDA, "12.4")) == 5
    assert len(hub.asked) == 5


def test_the_pull_limit_is_read_without_a_pull(hub: Hub) -> None:
    assert pulls(CUDA, LIVE) == Pulls(limit=100, remaining=76, window=21600)
    token, manifest = hub.asked
    assert token.path == (
        "/token?service=registry.docker.io&scope=repository%3Anvidia%2Fcuda%3Apull"
    )
    assert (manifest.method, manifest.path) == ("HEAD", f"/v2/{CUDA}/manifests/{LIVE}")
    assert manifest.headers["Authorization"] == "Bearer anonymous"
    assert "application/vnd.oci.image.index.v1+json" in manifest.headers["Accept"]


def test_a_registry_that_counts_no_pulls_has_no_limit(hub: Hub) -> None:
    hub.limit = None
    assert pulls(CUDA, LIVE) == Pulls()
    hub.limit = ("", "many")
    assert pulls(CUDA, LIVE) == Pulls()


def test_a_manifest_that_is_not_there_has_a_limit_still(hub: Hub) -> None:
    assert pulls(CUDA, "8.0") == Pulls(limit=100, remaining=76, window=21600)


def test_tags_are_told_with_what_the_hub_leaves_out(hub: Hub) -> None:
    bare = {"name": "old", "images": [{"os": "linux", "architecture": "amd64", "size": None}]}
    hub.repositories[CUDA] = [bare, {"name": "older", "images": None, "last_updated": "2016"}]
    assert like(CUDA, "old") == [
        HubTag(name="old", sizes={}),
        HubTag(name="older", sizes={}, pushed="2016"),
    ]


# --- what it does not say


@pytest.mark.parametrize("place", ["tags", "token", "manifests"])
@pytest.mark.parametrize(
    ("status", "reason", "hint"),
    [
        (401, "wants a login (401)", "the repository is private, or there is none of this name"),
        (403, "wants a login (403)", "the repository is private, or there is none of this name"),
        (500, "is out of order (500)", "try again later"),
        (503, "is out of order (503)", "try again later"),
        (418, "answers 418", NO_PROXY),
    ],
)
def test_a_refusal_is_not_a_no(hub: Hub, place: str, status: int, reason: str, hint: str) -> None:
    hub.faults[place] = Fault(status)
    with pytest.raises(HubUnknown) as caught:
        (tag if place == "tags" else pulls)(CUDA, LIVE)
    assert caught.value.problem == unknown(f"{hub.address} {reason}")
    assert caught.value.hint == hint


def moments() -> list[tuple[dict[str, str], str]]:
    now = time.time()
    return [
        ({"Retry-After": "42"}, ", again in 42 s"),
        ({"Retry-After": "600"}, ", again in 10 min"),
        ({"Retry-After": "21600"}, ", again in 6 h"),
        ({"Retry-After": formatdate(now + 3000, usegmt=True)}, ", again in 50 min"),
        ({"X-Retry-After": f"{now + 900:.0f}"}, ", again in 15 min"),
        ({"X-RateLimit-Reset": f"{now + 1200:.0f}"}, ", again in 20 min"),
        ({"Retry-After": "soon", "X-RateLimit-Reset": f"{now - 60:.0f}"}, ", again in 0 s"),
        ({}, ""),
    ]


@pytest.mark.parametrize("place", ["tags", "manifests"])
@pytest.mark.parametrize("case", range(8))
def test_asked_too_often_it_says_for_how_long(hub: Hub, place: str, case: int) -> None:
    headers, again = moments()[case]
    hub.faults[place] = Fault(429, headers)
    with pytest.raises(HubBusy) as caught:
        (tag if place == "tags" else pulls)(CUDA, LIVE)
    assert caught.value.problem == unknown(
        f"{hub.address} takes no more questions from here for now (429){again}"
    )
    assert caught.value.hint == "wait; all who share your address are counted together"


LOGIN = LOGIN_PAGE.decode().replace("\n", " ")[:40]


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (Fault(200, {"Content-Type": "text/html"}, LOGIN_PAGE), LOGIN),
        (Fault(404, {"Content-Type": "text/html"}, LOGIN_PAGE), LOGIN),
        (Fault(body=b'{"name": "12'), '{"name": "12'),
        (Fault(body=b"[]"), "[]"),
        (Fault(body=b""), "nothing to read"),
        (Fault(body=b"\x1b[31m"), "nothing to read"),
        (Fault(body=b"[" * 100_000), "[" * 40),
        (Fault(404, body=b'{"error": "no route"}'), '{"error": "no route"}'),
        (Fault(404, body=b'{"message": "Page Not Found"}'), '{"message": "Page Not Found"}'),
        (Fault(body=b'{"name": "12"}'), "another tag"),
        (Fault(body=b"{}"), "no tag"),
        (Fault(body=b'{"name": "12\\u001b[2J"}'), "another tag"),
    ],
)
def test_another_page_than_the_hubs_is_not_believed(hub: Hub, fault: Fault, what: str) -> None:
    hub.faults["tags"] = fault
    assert refusal() == (unknown(f"what answers as {hub.address} is no Docker Hub: {what}"), NO_HUB)


@pytest.mark.parametrize("body", [b"{}", b'{"results": {}}', b'{"results": ["12"]}'])
def test_a_list_that_is_no_list_is_not_believed(hub: Hub, body: bytes) -> None:
    hub.faults["tags"] = Fault(body=body)
    with pytest.raises(HubUnknown, match=r"is no Docker Hub: no (list of tags|tag)$"):
        like(CUDA, "12")


@pytest.mark.parametrize("following", ["http://[", "?page=2", "gopher://x", "\\n"])
def test_a_next_page_that_is_none_is_not_followed_into_the_wild(hub: Hub, following: str) -> None:
    hub.faults["tags"] = Fault(body=b'{"results": [], "next": "%s"}' % following.encode())
    assert like(CUDA, "12") == []
    assert len(hub.asked) <= 5


@pytest.mark.parametrize("body", [b"{}", b'{"token": 7}', b'{"token": "a\\r\\nHost: b"}'])
def test_a_token_that_is_none_is_not_used(hub: Hub, body: bytes) -> None:
    hub.faults["token"] = Fault(body=body)
    with pytest.raises(HubUnknown) as caught:
        pulls(CUDA, LIVE)
    assert caught.value.problem == unknown(
        f"what answers as {hub.address} is no Docker Hub: no token"
    )
    assert len(hub.asked) == 1


@pytest.mark.parametrize("status", [200, 404])
def test_a_manifest_that_no_registry_answers_for_is_unknown(hub: Hub, status: int) -> None:
    hub.faults["manifests"] = Fault(status, {"Content-Type": "text/html"}, LOGIN_PAGE)
    with pytest.raises(HubUnknown) as caught:
        pulls(CUDA, LIVE)
    assert caught.value.problem == unknown(
        f"what answers as {hub.address} is no Docker Hub: no registry ({status})"
    )


def test_an_answer_that_is_cut_is_no_answer(hub: Hub) -> None:
    whole = b'{"name": "12"}'
    hub.faults["tags"] = Fault(body=whole + b"  ", cut=len(whole))
    assert refusal() == (unknown(f"{hub.address} breaks off in mid-answer"), NO_PROXY)


def test_an_answer_without_end_is_not_read_to_its_end(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_MOST_BYTES", 1000)
    hub.faults["tags"] = Fault(body=b" " * 1001)
    assert refusal() == (unknown(f"{hub.address} gives an answer without end"), NO_PROXY)


def test_silence_is_waited_for_a_moment_only(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "SECONDS", 0.3)
    hub.faults["tags"] = Fault(never_ends=True)
    assert refusal() == (unknown(f"{hub.address} does not answer within 0.3 s"), NO_PROXY)


class Raw:
    """Speaks whatever it is told to, on one connection; if it `drips`, byte by byte."""

    def __init__(self, greeting: bytes, *, drips: bool = False) -> None:
        self._greeting, self._drips = greeting, drips
        self._ended = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._speak)

    def __enter__(self) -> Raw:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._server.close()

    def _speak(self) -> None:
        connection, _ = self._server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(self._greeting)
            while self._drips and not self._ended.wait(0.05):
                connection.sendall(b"X")


def test_bytes_that_drip_are_waited_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "SECONDS", 0.5)
    began = time.monotonic()
    with Raw(b"HTTP/1.1 200 OK\r\nX: ", drips=True) as dripping:
        monkeypatch.setenv("GPUBOX_HUB", f"http://{dripping.address}")
        problem, _ = refusal()
    assert problem == unknown(f"{dripping.address} does not answer within 0.5 s")
    assert time.monotonic() - began < PATIENCE


@pytest.mark.parametrize(
    ("greeting", "reason"),
    [(b"SSH-2.0-OpenSSH_9.2\r\n", "speaks no HTTP"), (b"", "breaks off in mid-answer")],
)
def test_what_is_no_web_server_is_told(
    monkeypatch: pytest.MonkeyPatch, greeting: bytes, reason: str
) -> None:
    with Raw(greeting) as strange:
        monkeypatch.setenv("GPUBOX_HUB", f"http://{strange.address}")
        assert refusal() == (unknown(f"{strange.address} {reason}"), NO_PROXY)


def test_nobody_there_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("GPUBOX_HUB", f"http://{address}")
    assert refusal() == (unknown(f"{address} cannot be reached: connection refused"), NO_PROXY)


def test_a_name_that_nobody_knows_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBOX_HUB", "http://hub.invalid")
    assert refusal() == (unknown("no machine hub.invalid is found"), NO_PROXY)


# --- the way there


def test_a_certificate_of_a_stranger_is_not_trusted_and_ones_own_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_certificates(tmp_path / "tls")
    server = tmp_path / "tls/server"
    with Hub((str(server / "cert.pem"), str(server / "key.pem"))) as hub:
        hub.repositories[CUDA] = [hub_tag(LIVE, amd64=1)]
        monkeypatch.setenv("GPUBOX_HUB", hub.url)
        assert refusal() == (
            unknown(
                f"the certificate of {hub.address} is not trusted:"
                " unable to get local issuer certificate"
            ),
            NO_PROXY.replace("HTTP_", "HTTPS_"),
        )
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls/ca.pem"))
        found = tag(CUDA, LIVE)
        assert found is not None and found.name == LIVE


def test_https_at_a_plain_server_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBOX_HUB", f"https://{hub.address}")
    assert refusal()[0] == unknown(f"{hub.address} does not speak TLS")


def test_a_proxy_is_used_and_named_when_it_fails(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBOX_HUB", "http://hub.example")
    monkeypatch.setenv("http_proxy", f"http://anna:secret@{hub.address}")
    hub.faults["tags"] = Fault(407)
    through = f"it is asked through the proxy {hub.address}, which HTTP_PROXY names"
    assert refusal() == (unknown("a proxy wants a login (407)"), through)
    assert hub.asked[0].path.startswith("http://hub.example/v2/namespaces/nvidia/")
    del hub.faults["tags"]
    found = tag(CUDA, LIVE)
    assert found is not None and found.name == LIVE
    gone = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("http_proxy", f"http://anna:secret@{gone}")
    assert refusal() == (
        unknown(f"{gone} cannot be reached: connection refused"),
        through.replace(hub.address, gone),
    )


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("proxy.invalid", "no machine proxy.invalid is found"),
        ("http://[::1", "no machine [::1 is found"),
        ("http:/proxy.lab", "proxy.lab cannot be reached: "),
        ("socks5://127.0.0.1:1", "127.0.0.1:1 cannot be reached: "),
    ],
)
def test_a_proxy_that_is_none_is_told(
    monkeypatch: pytest.MonkeyPatch, proxy: str, reason: str
) -> None:
    monkeypatch.setenv("GPUBOX_HUB", "http://hub.example")
    monkeypatch.setenv("http_proxy", proxy)
    problem, hint = refusal()
    assert problem.startswith(unknown(reason)), problem
    assert hint.startswith("it is asked through the proxy "), hint


def test_a_host_that_needs_no_proxy_is_asked_without(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.invalid")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert tag(CUDA, LIVE) is not None
    hub.faults["tags"] = Fault(418)
    assert refusal() == (unknown(f"{hub.address} answers 418"), NO_PROXY)


def test_a_token_is_not_carried_to_another_host(hub: Hub) -> None:
    with Hub() as other:
        other.repositories[CUDA] = [hub_tag(LIVE, amd64=1)]
        path = f"/v2/{CUDA}/manifests/{LIVE}"
        hub.faults["manifests"] = Fault(307, {"Location": other.url + path})
        pulls(CUDA, LIVE)
        (asked,) = other.asked
        assert (asked.method, asked.path) == ("HEAD", path)
        assert "Authorization" not in asked.headers


def test_a_redirect_on_the_same_host_keeps_the_token(hub: Hub) -> None:
    hub.faults["manifests"] = Fault(302, {"Location": f"/v2/{CUDA}/manifests/again"})
    with pytest.raises(HubUnknown):  # it leads to itself
        pulls(CUDA, LIVE)
    assert {asked.headers.get("Authorization") for asked in hub.asked[1:]} == {"Bearer anonymous"}
    assert {asked.method for asked in hub.asked[1:]} == {"HEAD"}


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_leads_to_no_file(hub: Hub, place: str) -> None:
    hub.faults["tags"] = Fault(302, {"Location": place})
    assert refusal()[0] == unknown(f"{hub.address} answers 302")


@pytest.mark.parametrize(
    "named",
    ["hub.lab:80", "ftp://hub.lab", "http://hub.lab/path", "http:// ", "http://[", "http://a:b"],
)
def test_an_address_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("GPUBOX_HUB", named)
    with pytest.raises(GpuboxError) as caught:
        tag(CUDA, LIVE)
    assert caught.value.problem == f"GPUBOX_HUB is no address: {named}"
    assert caught.value.hint == "write https://HOST[:PORT]"


def test_without_another_address_it_is_dockers() -> None:
    assert asking.addresses() == asking.DOCKERS
