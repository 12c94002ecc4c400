"""The little languages: what is read, and what is refused in which words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubox import values
from gpubox.values import Device, Gpus, Mount, Port, Ulimit

BASE = Path("/base")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("64", 64),
        ("64b", 64),
        ("1k", 1024),
        ("8g", 8 << 30),
        ("8G", 8 << 30),
        ("8gb", 8 << 30),
        ("8GiB", 8 << 30),
        ("1.5g", 3 << 29),
        ("512m", 512 << 20),
        ("2t", 2 << 40),
    ],
)
def test_sizes_are_dockers(text: str, expected: int) -> None:
    assert values.size(text) == expected


@pytest.mark.parametrize("text", ["", "8q", "g", "-1", "8 8g", "8x", "1,5g"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        values.size(text)


@given(st.integers(min_value=0, max_value=1 << 45))
def test_a_size_is_printed_exactly(count: int) -> None:
    assert values.size(values.size_written(count)) == count


@given(st.integers(min_value=0, max_value=10**12))
def test_cpus_are_printed_exactly(nano: int) -> None:
    assert values.cpus(values.cpus_written(nano)) == nano


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", [Port(80, "tcp", "8080")]),
        ("80", [Port(80)]),
        (":80", [Port(80)]),
        ("0:80", [Port(80)]),
        ("80/udp", [Port(80, "udp")]),
        ("8080:80/TCP", [Port(80, "tcp", "8080")]),
        ("127.0.0.1::80", [Port(80, "tcp", "")]),
        ("0.0.0.0:8080:80", [Port(80, "tcp", "8080", "0.0.0.0")]),
        ("[::1]:8080:80", [Port(80, "tcp", "8080", "::1")]),
        ("::1:8080:80", [Port(80, "tcp", "8080", "::1")]),
        ("8000-8001:80-81", [Port(80, "tcp", "8000"), Port(81, "tcp", "8001")]),
        ("8000-8010:80", [Port(80, "tcp", "8000-8010")]),
        ("80-81", [Port(80), Port(81)]),
    ],
)
def test_ports_are_dockers_but_on_loopback(text: str, expected: list[Port]) -> None:
    assert values.ports(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("localhost:80:80", "not an IP address; write 127.0.0.1"),
        ("80:", "not a port"),
        ("99999:80", "ports are 1 to 65535"),
        ("80:0", "ports are 1 to 65535"),
        ("8001-8000:80-81", "runs backwards"),
        ("8000-8002:80-81", "3 host ports for 2"),
        ("80/icmp", "tcp, udp or sctp"),
        ("abc", "not a port"),
        ("127.0.0.1:80", "needs a host port or '::'"),
        ("", "not a port"),
    ],
)
def test_what_is_no_port_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        values.ports(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/d:/m", Mount("/m", "/d", bind=True)),
        ("/d:/m:ro", Mount("/m", "/d", bind=True, read_only=True)),
        ("./x:/m", Mount("/m", "/base/x", bind=True)),
        (".:/m", Mount("/m", "/base", bind=True)),
        ("../x/:/m/", Mount("/m", "/x", bind=True)),
        ("/d:/m:ro,Z", Mount("/m", "/d", bind=True, read_only=True, modes=("Z",))),
        ("/d:/m:rslave", Mount("/m", "/d", bind=True, modes=("rslave",))),
        ("data:/m", Mount("/m", "data")),
        ("data:/m:nocopy", Mount("/m", "data", modes=("nocopy",))),
        ("/m", Mount("/m")),
    ],
)
def test_volumes_are_dockers(text: str, expected: Mount) -> None:
    assert values.volume(text, BASE) == expected


def test_a_tilde_is_the_callers_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    assert values.volume("~/x:/m", BASE).source == "/home/anna/x"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/d:/m:bogus", "'bogus' is not one of"),
        ("/d:/m:ro,rw", "ro and rw exclude"),
        ("/d:/m:z,Z", "z and Z exclude"),
        ("/d:relative", "not an absolute path"),
        ("/d:/", "would hide the whole box"),
        ("/d:/a/../..", "not an absolute path"),
        ("d:/m", "for a folder write ./d"),
        ("a b:/m", "no volume's name"),
        ("::", "is not SOURCE:TARGET"),
        ("/a:/b:/c:/d", "is not SOURCE:TARGET"),
        ("data:/m:rslave", "for folders, not for volumes"),
        ("/d:/m:nocopy", "for volumes, not for folders"),
        ("~nobody-here/x:/m", "no such user"),
    ],
)
def test_what_is_no_volume_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        values.volume(text, BASE)


def test_a_dataset_folder_is_read_only_unless_said() -> None:
    assert values.data_folder("x:/data", BASE) == Mount("/data", "/base/x", True, True)
    assert values.data_folder("x:/data:rw", BASE) == Mount("/data", "/base/x", True, False)
    for wrong in ("x", "x:", ":/data", "x:/data:z"):
        words = f"'{wrong}' is not HOST_PATH:BOX_PATH[:rw]"
        with pytest.raises(ValueError, match=re.escape(words)):
            values.data_folder(wrong, BASE)
    with pytest.raises(ValueError, match="'data' is not an absolute path in the box"):
        values.data_folder("x:data", BASE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", Gpus(all=True)),
        ("none", Gpus()),
        ("0,2", Gpus(("0", "2"))),
        ("device=3", Gpus(("3",))),
        ('"device=0,2"', Gpus(("0", "2"))),
        ("GPU-6af1-22", Gpus(("GPU-6af1-22",))),
        ("MIG-GPU-1/2/0", Gpus(("MIG-GPU-1/2/0",))),
        ("device=0:1", Gpus(("0:1",))),
        ("2", Gpus(count=2)),
    ],
)
def test_gpus_are_named_or_counted(text: str, expected: Gpus) -> None:
    assert values.gpus(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0", "device=0 is the first GPU, none is no GPU"),
        ("x", "neither a GPU's index nor its UUID"),
        ("99999", "no machine has 99999 GPUs"),
        ("\N{SUPERSCRIPT TWO}", "neither"),
        ("all,capabilities=utility", "capabilities go into the variable"),
        ("count=2", "here: all, none, 2"),
        ("0,0", "named twice"),
        ("", "neither"),
        ("-1", "neither"),
        ("0,", "neither"),
    ],
)
def test_what_names_no_gpus_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        values.gpus(text)


def test_devices_and_ulimits() -> None:
    assert values.device("/dev/a") == Device("/dev/a", "/dev/a")
    assert values.device("/dev/a:/dev/b:r") == Device("/dev/a", "/dev/b", "r")
    assert values.device("/dev/a:rw") == Device("/dev/a", "/dev/a", "rw")
    assert values.device("nvidia.com/gpu=0").is_cdi
    assert values.ulimit("nofile", "1:2") == Ulimit("nofile", 1, 2)
    assert values.ulimit("memlock", "-1") == Ulimit("memlock", -1, -1)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("nofil", "1", "no ulimit 'nofil'; there is: as, core,"),
        ("nofile", "2:1", "'nofile=2:1': the soft limit is above the hard one"),
        ("nofile", "-1:5", "'nofile=-1:5': the soft limit is above the hard one"),
        ("nofile", "x", "'nofile=x' is not NAME=SOFT[:HARD]"),
        ("nofile", str(2**63), f"{2**63} is more than the engine can count"),
    ],
)
def test_what_is_no_ulimit_is_refused(name: str, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        values.ulimit(name, text)


@pytest.mark.parametrize("text", ["dev/a", "/a:/b:/c", ""])
def test_what_is_no_device_is_refused(text: str) -> None:
    words = f"'{text}' is not HOST_DEVICE[:BOX_DEVICE][:rwm]"
    with pytest.raises(ValueError, match=re.escape(words)):
        values.device(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ubuntu", "ubuntu:latest"),
        ("nvidia/cuda:8.0-cudnn5-devel", "nvidia/cuda:8.0-cudnn5-devel"),
        ("docker.io/nvidia/cuda:8.0", "nvidia/cuda:8.0"),
        ("docker.io/library/ubuntu:22.04", "ubuntu:22.04"),
        ("nvcr.io/nvidia/pytorch:24.01-py3", "nvcr.io/nvidia/pytorch:24.01-py3"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("a@sha256:" + "0" * 64, "a@sha256:" + "0" * 64),
    ],
)
def test_references_are_dockers(text: str, expected: str) -> None:
    assert str(values.reference(text)) == expected


@pytest.mark.parametrize(
    ("listed", "name"),
    [
        ("docker.io/nvidia/cuda:8.0-devel", "nvidia/cuda:8.0-devel"),
        ("docker.io/library/debian:12", "debian:12"),
        ("localhost/own:1", "localhost/own:1"),
        ("h:5000/a/b:c", "h:5000/a/b:c"),
        ("nvidia/cuda:8.0-devel", "nvidia/cuda:8.0-devel"),
        ("odd:<none>", "odd:<none>"),
    ],
)
def test_an_image_is_named_as_docker_lists_it(listed: str, name: str) -> None:
    assert values.familiar(listed) == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a/b:1:2", "'1:2' is not a tag"),
        ("a:", "'' is not a tag"),
        ("a:é", "'é' is not a tag"),
        ("A/b", "the name of an image is lower-case"),
        *((text, "is not an image: REPOSITORY[:TAG]") for text in ("a//b", "", "a b", "-a")),
    ],
)
def test_what_is_no_reference_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"'{text}'") + ".*" + re.escape(words)):
        values.reference(text)


@pytest.mark.parametrize(
    "text", ["mirror.lab:5000", "localhost", "docker.io", "[::1]:5000", "lab.org/hub", "a.b:1/c/d"]
)
def test_a_registry_is_how_an_images_name_begins(text: str) -> None:
    assert values.registry(text) == values.registry(f"{text}/") == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://mirror.lab", "without https://"),
        ("mirror", "would be read as a folder of Docker Hub's: write mirror:443"),
        ("mirror.lab:port", "HOST[:PORT]"),
        ("mirror.lab/A B", "'A B' is no place in a registry"),
        ("a b.c", "HOST[:PORT]"),
        ("/", "HOST[:PORT]"),
    ],
)
def test_what_is_no_registry_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        values.registry(text)
