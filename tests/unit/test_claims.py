"""Which GPUs a container was given, by its label or by Docker's words for it."""

from __future__ import annotations

from typing import Any

import pytest

from gpubox.gpus.claims import of_container, of_label
from gpubox.values import ALL_GPUS, NO_GPUS, Gpus

UUID = "GPU-cc0e209c-1d38-5274-a0b0-0b1436fa07e9"
MIG = "MIG-24001730-5f7a-5cf4-9b0c-6d1f3f7f2c11"


@pytest.mark.parametrize(
    ("label", "gpus"),
    [
        ("all", ALL_GPUS),
        ("none", NO_GPUS),
        ("", NO_GPUS),
        ("index:0", Gpus(("0",))),
        ("index:0,index:2", Gpus(("0", "2"))),
        (f"{UUID},index:0:1", Gpus((UUID, "0:1"))),
        (MIG, Gpus((MIG,))),
        ("index:1, index:1", Gpus(("1",))),
        (f"{UUID},all", ALL_GPUS),
    ],
)
def test_a_label_says_what_its_box_has(label: str, gpus: Gpus) -> None:
    assert of_label(label) == gpus


def inspected(*variables: str, runtime: str = "runc", **host: Any) -> dict[str, Any]:
    return {"Config": {"Env": [*variables]}, "HostConfig": {"Runtime": runtime, **host}}


def asked(count: int = 0, *ids: str, driver: str = "", capability: str = "gpu") -> dict[str, Any]:
    request = {"Driver": driver, "Count": count, "DeviceIDs": list(ids) or None, "Options": {}}
    return {"DeviceRequests": [request | {"Capabilities": [[capability]] if capability else None}]}


def cdi(*names: str) -> dict[str, Any]:
    return asked(0, *names, driver="cdi", capability="")


VISIBLE = "NVIDIA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("found", "gpus"),
    [
        # nothing at all, as engines say it
        ({}, NO_GPUS),
        ({"Config": None, "HostConfig": None}, NO_GPUS),
        (
            {"Config": {"Env": None}, "HostConfig": {"DeviceRequests": None, "Devices": None}},
            NO_GPUS,
        ),
        (inspected(), NO_GPUS),
        # privileged
        (inspected(Privileged=True), ALL_GPUS),
        (inspected(Privileged=True, **asked(0, "1")), ALL_GPUS),
        # --gpus
        (inspected(**asked(-1)), ALL_GPUS),
        (inspected(**asked(2)), Gpus(("0", "1"))),
        (inspected(**asked(0, "3", UUID)), Gpus(("3", UUID))),
        (inspected(**asked(0, "0:1")), Gpus(("0:1",))),
        (inspected(**asked(0, "all")), ALL_GPUS),
        (inspected(**asked(-1, driver="nvidia", capability="compute")), ALL_GPUS),
        (inspected(**asked(-1, capability="nvidia")), ALL_GPUS),
        (inspected(f"{VISIBLE}=2", **asked(0, "1")), Gpus(("1",))),  # the request wins
        (inspected(f"{VISIBLE}=2", **asked(0)), Gpus(("2",))),  # one for none leaves it to it
        (inspected(**asked(0)), NO_GPUS),
        # other devices
        (inspected(**asked(-1, driver="amd")), NO_GPUS),
        (inspected(**asked(-1, capability="tpu")), NO_GPUS),
        # CDI
        (inspected(**cdi("nvidia.com/gpu=1")), Gpus(("1",))),
        (inspected(**cdi("nvidia.com/gpu=gpu1", "nvidia.com/gpu=mig0:2")), Gpus(("1", "0:2"))),
        (inspected(**cdi(f"nvidia.com/gpu={UUID}", f"nvidia.com/gpu={MIG}")), Gpus((UUID, MIG))),
        (inspected(**cdi("nvidia.com/gpu=all")), ALL_GPUS),
        (inspected(**cdi("amd.com/gpu=0")), NO_GPUS),
        (inspected(f"{VISIBLE}=void", **cdi("nvidia.com/gpu=0")), Gpus(("0",))),
        (inspected(Devices=[{"PathOnHost": "nvidia.com/gpu=2"}]), Gpus(("2",))),  # Podman
        # device files
        (
            inspected(
                Devices=[{"PathOnHost": f"/dev/nvidia{end}"} for end in ("1", "ctl", "-uvm")]
            ),
            Gpus(("/dev/nvidia1",)),
        ),
        (inspected(Devices=[{"PathOnHost": "/dev/fuse"}, {}]), NO_GPUS),
        # the variable
        (inspected(f"{VISIBLE}=all"), NO_GPUS),  # nobody reads it
        (inspected(f"{VISIBLE}=all", runtime="nvidia"), ALL_GPUS),
        (inspected(f"{VISIBLE}=all", runtime="nvidia-cdi"), ALL_GPUS),
        (inspected(f"{VISIBLE}=0,{UUID},0", runtime="nvidia"), Gpus(("0", UUID))),
        (inspected(f"{VISIBLE}=nvidia.com/gpu=1", runtime="nvidia"), Gpus(("1",))),
        (inspected(f"{VISIBLE}=runtime.nvidia.com/gpu=all", runtime="nvidia"), ALL_GPUS),
        *(
            (inspected(f"{VISIBLE}{value}", runtime="nvidia"), NO_GPUS)
            for value in ("=", "=void", "=none", "")
        ),
        (inspected(runtime="nvidia"), NO_GPUS),
        (inspected("CUDA_VERSION=8.0.61", runtime="nvidia"), ALL_GPUS),
        (inspected("CUDA_VERSION=8.0.61"), NO_GPUS),
        (
            inspected("CUDA_VERSION=12", "NVIDIA_REQUIRE_CUDA=cuda>=12", runtime="nvidia"),
            NO_GPUS,
        ),
        # some of each
        (
            inspected(**asked(1), Devices=[{"PathOnHost": "/dev/nvidia3"}]),
            Gpus(("0", "/dev/nvidia3")),
        ),
    ],
    ids=str,
)
def test_any_other_container_has_what_docker_says(found: dict[str, Any], gpus: Gpus) -> None:
    assert of_container(found) == gpus
