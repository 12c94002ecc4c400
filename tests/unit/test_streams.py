"""A box's bytes: each stream gets its own, through TLS too, where the end of input is said."""

from __future__ import annotations

import os
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubox.engine import streams
from gpubox.engine.streams import Frames, SocketStream, TlsStream
from gpubox.errors import EngineError
from gpubox.screen import terminal
from gpubox.screen.signals import Signals
from gpubox.screen.terminal import Ending, How
from lab.certificates import make_certificates
from lab.frames import frame
from lab.waiting import PATIENCE

MB = 1_000_000


# Frames ----------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.binary(max_size=40))),
    st.lists(st.integers(min_value=1, max_value=60)),
)
def test_frames_cut_anywhere_give_each_stream_its_bytes(
    sent: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    wire, frames = b"".join(frame(*one) for one in sent), Frames()
    got = {0: b"", 1: b"", 2: b""}
    for cut in [*cuts, len(wire)]:
        data, wire = wire[:cut], wire[cut:]
        for stream, piece in frames.pieces(data):
            got[stream] += piece
    assert got == {n: b"".join(payload for to, payload in sent if to == n) for n in got}


@given(st.integers(min_value=1, max_value=30))
def test_an_error_of_the_engine_is_told_whole(cut: int) -> None:
    wire, frames = frame(3, b"no space left on device\n"), Frames()
    with pytest.raises(EngineError, match="off the output: no space left on device"):
        for part in (wire[:cut], wire[cut:]):
            list(frames.pieces(part))


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(EngineError, match="104"):
        list(Frames().pieces(b"hello, world"))


# TLS -------------------------------------------------------------------------------------------


class Ends(NamedTuple):
    """The two ends of a TLS connection: gpubox's, and the box's."""

    ours: ssl.SSLSocket
    box: ssl.SSLSocket


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def ends(request: pytest.FixtureRequest, certificates: Path) -> Iterator[Ends]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates / "server/cert.pem", certificates / "server/key.pem")
    client = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    client.maximum_version = request.param
    near, far = socket.socketpair()
    far.settimeout(PATIENCE)
    accepted: list[ssl.SSLSocket] = []
    with meanwhile(lambda: accepted.append(server.wrap_socket(far, server_side=True))):
        ours = client.wrap_socket(near, server_hostname="127.0.0.1")
    with ours, accepted[0] as box:
        yield Ends(ours, box)


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join(PATIENCE)
    assert not thread.is_alive()


def read_all(box: ssl.SSLSocket) -> bytes:
    return b"".join(iter(lambda: box.recv(1 << 16), b""))


def attached(ends: Ends, typed: bytes, act: Callable[[], object]) -> tuple[Ending, bytes]:
    """How attach() ended with `typed` on standard input, and what was on standard output."""
    stdin, keys = os.pipe()
    out, stdout = os.pipe()
    shown: list[bytes] = []

    def type_all() -> None:
        with os.fdopen(keys, "wb") as file:
            file.write(typed)

    def show_all() -> None:
        with os.fdopen(out, "rb") as file:
            shown.append(file.read())

    with meanwhile(show_all), meanwhile(type_all), meanwhile(act):
        with Signals() as signals:
            ending = terminal.attach(
                streams.stream(ends.ours, b""),
                signals,
                tty=False,
                stdin=True,
                forward=lambda _: None,
                fds=(stdin, stdout, stdout),
            )
        os.close(stdout)
    os.close(stdin)
    return ending, shown[0]


def test_the_answer_to_the_inputs_end_arrives_whole(ends: Ends) -> None:
    typed, answer = random.randbytes(3 * MB), random.randbytes(3 * MB)
    got: list[bytes] = []

    def box() -> None:
        got.append(read_all(ends.box))  # only an end of the input ends this
        ends.box.sendall(frame(1, answer))
        ends.box.unwrap()

    assert attached(ends, typed, box) == (Ending(How.ENDED), answer)
    assert got == [typed]


def test_output_under_way_while_the_input_ends_is_not_lost(ends: Ends) -> None:
    pieces = [random.randbytes(random.randrange(1, 40_000)) for _ in range(300)]

    def box() -> None:
        for piece in pieces:
            ends.box.sendall(frame(1, piece))
        assert read_all(ends.box) == b"few"
        ends.box.unwrap()

    assert attached(ends, b"few", box) == (Ending(How.ENDED), b"".join(pieces))


def test_a_box_that_talks_before_it_listens_gets_the_end_of_its_input(ends: Ends) -> None:
    """Neither direction may wait for the other while its buffers are full."""
    typed, answer = random.randbytes(2 * MB), random.randbytes(2 * MB)

    def box() -> None:
        ends.box.sendall(frame(1, answer))
        assert read_all(ends.box) == typed
        ends.box.unwrap()

    assert attached(ends, typed, box) == (Ending(How.ENDED), answer)


def test_the_end_of_the_input_waits_for_room_and_is_said_once(ends: Ends) -> None:
    stream, beneath = TlsStream(ends.ours), 0
    with suppress(BlockingIOError):
        while True:
            beneath += os.write(stream.fileno(), bytes(1000))
    assert not stream.close_write() and not stream.close_write()
    while beneath:
        beneath -= len(os.read(ends.box.fileno(), min(beneath, 1 << 16)))
    assert stream.close_write()
    assert read_all(ends.box) == b""
    ends.box.sendall(b"and I still talk")
    ends.ours.setblocking(True)
    assert stream.recv(100) == b"and I still talk"


def test_what_was_decrypted_already_is_said_to_be_at_hand(ends: Ends) -> None:
    stream = TlsStream(ends.ours)
    ends.box.sendall(b"0123456789")
    ends.ours.setblocking(True)
    assert stream.recv(4) == b"0123"
    assert stream.pending()  # though nothing more comes over the wire
    assert stream.close_write()
    assert stream.recv(100) == b"456789"
    assert not stream.pending()


def test_a_broken_connection_is_no_end_of_output(ends: Ends) -> None:
    stream = TlsStream(ends.ours)
    ends.box.detach()
    assert stream.recv(10) in (None, b"")


def test_a_plain_socket_needs_none_of_this() -> None:
    ours, box = socket.socketpair()
    with ours, box:
        stream = streams.stream(ours, b"early")
        assert type(stream) is SocketStream and stream.recv(9) == b"early"
        assert stream.close_write()
        assert box.recv(1) == b""
