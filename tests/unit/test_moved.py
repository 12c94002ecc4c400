"""What a box becomes on other GPUs, and what the image of its files does not say."""

from __future__ import annotations

from typing import Any

import pytest

from gpubox.boxes.moved import by_cdi, forgotten, further_networks, is_of_files, others, successor
from gpubox.errors import EngineError
from gpubox.gpus.holders import Container, Holding, join, without
from gpubox.gpus.machine import Device, Machine
from gpubox.gpus.pick import NotFree
from gpubox.plan.allocation import Allocation
from gpubox.plan.docker_words import GpuRequest
from gpubox.plan.facts import EngineFacts, Facts
from gpubox.values import ALL_GPUS, NO_GPUS, Gpus
from lab.anna import ANNA

ID = "a" * 64
IMAGE = {"PATH": "/bin", "NVIDIA_VISIBLE_DEVICES": "all"}
MACHINE = Machine("535.183.01")
FOUR = tuple(Device(index=str(it), uuid=f"GPU-{it}", processes=(), used=0) for it in range(4))


def found(gpus: str = "GPU-0", **host: Any) -> dict[str, Any]:
    """A box as the engine tells of it."""
    return {
        "Id": ID,
        "Config": {
            "Image": "nvidia/cuda:8.0-cudnn5-devel",
            "Hostname": "box",
            "Cmd": ["python", "train.py"],
            "Env": ["TOKEN=secret", "NVIDIA_VISIBLE_DEVICES=all", "PATH=/own:/bin"],
            "Labels": {"gpubox.version": "1", "gpubox.gpus": gpus, "team": "vision"},
        },
        "HostConfig": {
            "NetworkMode": "default",
            "DeviceRequests": [
                {"Driver": "", "DeviceIDs": ["GPU-0"], "Capabilities": [["gpu"]]},
                {"Driver": "cdi", "DeviceIDs": ["example.com/disk=1"]},
            ],
            **host,
        },
        "NetworkSettings": {"Ports": {}, "Networks": {"bridge": {"Aliases": None}}},
    }


def new(*ids: str, **said: Any) -> Allocation:
    return Allocation(gpus=Gpus(ids), claimed=ids, **said)


def body(box: dict[str, Any], given: Allocation) -> dict[str, Any]:
    return successor(box, "sha256:files", given, GpuRequest(given.gpus), IMAGE)


def facts(*boxes: Container, machine: Machine | None = MACHINE) -> Facts:
    holdings = join(FOUR, boxes, {}, "anna")
    return Facts(caller=ANNA, machine=machine, engine=EngineFacts(api=(1, 41)), holdings=holdings)


def box(*gpus: str, id: str = ID, owner: str = "anna") -> Container:
    given = Gpus(gpus)
    return Container(id=id, name=id[:4], box=True, owner=owner, gpus=given, claimed=given)


# Its GPUs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has", "asked", "gets"),
    [
        ("GPU-0", Gpus(count=1), "GPU-1"),
        ("GPU-1", Gpus(count=2), "GPU-0,GPU-1"),
        ("GPU-2,GPU-3", Gpus(count=1), "GPU-2"),
        ("GPU-0", Gpus(("0", "3")), "GPU-0,GPU-3"),
        ("GPU-0", ALL_GPUS, "GPU-0,GPU-1,GPU-2,GPU-3"),
        ("GPU-0", NO_GPUS, "none"),
        ("none", Gpus(count=1), "GPU-0"),
        ("GPU-0", Gpus(("0",)), None),
        ("GPU-1,GPU-0", Gpus(("0", "1")), None),
        ("none", NO_GPUS, None),
    ],
)
def test_its_own_are_free_for_it_unless_it_is_to_leave_them(
    has: str, asked: Gpus, gets: str | None
) -> None:
    mine = box(*has.split(",")) if has != "none" else box()
    given = others(found(has), asked, facts(mine))
    assert (given.label if given else None) == gets


def test_others_gpus_are_not_taken() -> None:
    rest = box("GPU-1", "GPU-2", "GPU-3", id="b" * 64, owner="bob")
    with pytest.raises(NotFree) as held:
        others(found(), Gpus(count=1), facts(box("GPU-0"), rest))
    assert held.value.problem.endswith("GPU 3 held by bob, idle now; GPU 0 is the box's own")
    with pytest.raises(NotFree, match=r"GPU 1 is held by bob \(bbbb\)"):
        others(found(), Gpus(("1",)), facts(box("GPU-0"), rest))


def test_a_gpu_that_is_not_there_is_refused_before_anything_ends() -> None:
    with pytest.raises(EngineError, match="this machine has no GPU 7"):
        others(found(), Gpus(("1", "7")), facts(box("GPU-0")))


def test_where_gpus_are_not_seen_none_are_picked() -> None:
    with pytest.raises(EngineError, match="2 free GPUs cannot be picked"):
        others(found(), Gpus(count=2), facts(machine=None))


def test_to_share_is_a_change() -> None:
    given = others(found(), Gpus(("0",)), facts(box("GPU-0")), share=True)
    assert given
    assert given.claim == "shared"


def test_without_a_box_its_gpu_is_free_and_a_shared_one_is_the_others() -> None:
    def states(*boxes: Container) -> list[str]:
        holdings: tuple[Holding, ...] = join(FOUR[:1], boxes, {}, "anna")
        return [holding.state for holding in without(holdings, ID, "anna")]

    bobs = box("GPU-0", id="b" * 64, owner="bob")
    assert (states(box("GPU-0")), states(box("GPU-0"), bobs)) == (["free"], ["held"])


# Its successor ---------------------------------------------------------------------------------


def test_only_gpus_and_claim_are_other_ones() -> None:
    old = found(ShmSize=8, RestartPolicy={"Name": "always"})
    made = body(old, new("GPU-2", claim="shared"))
    assert made["Labels"] == {
        "gpubox.version": "1",
        "gpubox.gpus": "GPU-2",
        "gpubox.claim": "shared",
        "team": "vision",
    }
    assert made["HostConfig"]["DeviceRequests"] == [
        {"Driver": "cdi", "DeviceIDs": ["example.com/disk=1"]},
        {"Capabilities": [["gpu"]], "DeviceIDs": ["GPU-2"]},
    ]
    assert made["HostConfig"]["ShmSize"] == 8
    assert made["HostConfig"]["RestartPolicy"] == {"Name": "always"}
    assert (made["Cmd"], made["Hostname"]) == (["python", "train.py"], "box")
    assert set(made["Env"]) - set(old["Config"]["Env"]) == {"CUDA_DEVICE_ORDER=PCI_BUS_ID"}


def test_none_is_void_and_gpus_again_are_what_the_image_says() -> None:
    old = found()
    old["Config"]["Env"] = body(old, Allocation(gpus=NO_GPUS))["Env"]
    assert "NVIDIA_VISIBLE_DEVICES=void" in old["Config"]["Env"]
    assert "NVIDIA_VISIBLE_DEVICES=all" in body(old, new("GPU-1"))["Env"]
    image = {"PATH": "/bin"}
    made = successor(old, "sha256:files", new("GPU-1"), GpuRequest(Gpus(("GPU-1",))), image)
    assert not any("VISIBLE" in line for line in made["Env"])


def test_a_port_that_the_engine_chose_stays() -> None:
    old = found(
        PortBindings={
            "70/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
            "71/tcp": [{"HostIp": "", "HostPort": "0"}],
            "72/tcp": [{"HostIp": "", "HostPort": "7200"}],
            "73/tcp": [{"HostIp": "", "HostPort": "7300-7309"}],
        }
    )
    old["NetworkSettings"]["Ports"] = {
        "70/tcp": [{"HostIp": "127.0.0.1", "HostPort": "32768"}],
        "71/tcp": [
            {"HostIp": "::", "HostPort": "32770"},
            {"HostIp": "0.0.0.0", "HostPort": "32769"},
        ],
        "73/tcp": [{"HostIp": "0.0.0.0", "HostPort": "7303"}],
    }
    ports = body(old, new("GPU-1"))["HostConfig"]["PortBindings"]
    numbers = [one["HostPort"] for bindings in ports.values() for one in bindings]
    assert numbers == ["32768", "32769", "7200", "7303"]


def test_volumes_come_from_the_old_box_and_no_nameless_one_is_made() -> None:
    old = found(
        Mounts=[{"Type": "volume", "Target": "/nameless"}, {"Type": "tmpfs", "Target": "/tmp"}],
        Binds=["named:/named", "/nameless"],
        VolumesFrom=["gone"],
    )
    host = body(old, new("GPU-1"))["HostConfig"]
    assert host["VolumesFrom"] == [ID]
    assert host["Binds"] == ["named:/named"]
    assert host["Mounts"] == [{"Type": "tmpfs", "Target": "/tmp"}]


def test_each_network_is_joined_as_it_was_asked_for() -> None:
    old = found(NetworkMode="lab")
    lab = {"Aliases": [ID[:12], "db"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}, "Gateway": "x"}
    old["NetworkSettings"]["Networks"] = {"lab": lab, "more": {"Gateway": "y"}}
    assert body(old, new("GPU-1"))["NetworkingConfig"] == {
        "EndpointsConfig": {"lab": {"Aliases": ["db"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}}}
    }
    assert further_networks(old) == {"more": {}}


def test_a_hostname_that_nobody_said_is_its_own() -> None:
    old = found()
    old["Config"]["Hostname"] = ID[:12]
    assert "Hostname" not in body(old, new("GPU-1"))
    assert "Hostname" not in body(found(NetworkMode="container:b"), new("GPU-1"))


def test_the_way_of_its_gpus_is_known() -> None:
    cdi = {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"]}
    assert by_cdi(found(DeviceRequests=[cdi]))
    assert not by_cdi(found())


# The image of its files ------------------------------------------------------------------------


def test_an_image_of_a_move_is_known_again() -> None:
    assert is_of_files(forgotten(found(), IMAGE)["Labels"])
    assert not is_of_files({"team": "vision"})


def test_the_image_says_neither_claim_nor_variables() -> None:
    assert forgotten(found(), IMAGE) == {
        "Env": ["TOKEN=", "PATH=/bin"],
        "Labels": {"gpubox.version": "", "gpubox.gpus": ""},
    }
