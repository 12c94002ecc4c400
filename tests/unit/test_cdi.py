"""CDI specifications: what a file promises, against the GPUs of a machine."""

from __future__ import annotations

import json

import pytest

from gpubox.doctor import cdi
from gpubox.doctor.cdi import Spec
from gpubox.gpus.machine import Gpu

TWO = (Gpu(index=0, uuid="GPU-a"), Gpu(index=1, uuid="GPU-b"))
YAML = """
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits: {deviceNodes: [{path: /dev/nvidia0}]}
- name: all
containerEdits:
  mounts:
  - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.535.183.01
    containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.535.183.01
"""


def test_a_specification_is_read_as_nvidias_tool_writes_it() -> None:
    read = Spec("/etc/cdi/nvidia.yaml", ("0", "all"), "535.183.01")
    assert cdi.spec("/etc/cdi/nvidia.yaml", YAML) == read
    same = {"kind": "nvidia.com/gpu", "devices": [{"name": 0}, {"name": "all"}]}
    assert cdi.spec("/a.json", json.dumps(same, indent="\t")) == Spec("/a.json", ("0", "all"))


def test_a_specification_of_other_devices_is_none() -> None:
    assert cdi.spec("/a.yaml", "kind: vendor.com/net\ndevices: [{name: a}]") is None
    assert cdi.spec("/a.json", '{"kind": "intel.com/gpu", "devices": []}') is None
    assert cdi.spec("/a.yaml", "") is None


@pytest.mark.parametrize(
    ("path", "text", "trouble"),
    [
        ("/a.json", "{", "/a.json: not JSON: "),
        ("/a.json", "[]", "/a.json: no CDI specification"),
        ("/a.json", '{"kind": "nvidia.com/gpu"}', "/a.json: no CDI specification"),
        ("/a.json", '{"kind": "nvidia.com/gpu", "devices": ["0"]}', "/a.json: no CDI"),
        ("/a.yaml", "kind: nvidia.com/gpu\ndevices: {}x", "/a.yaml:2: not YAML: "),
        ("/a.yaml", "- kind", "/a.yaml:1: a mapping (KEY: VALUE) is expected here"),
        ("/a.yaml", "kind: nvidia.com/gpu\ndevices:", "/a.yaml: no CDI specification"),
    ],
)
def test_what_cannot_be_read_says_so_with_its_file(path: str, text: str, trouble: str) -> None:
    found = cdi.spec(path, text)
    assert found is not None and found.trouble.startswith(trouble)


def test_an_engines_list_is_narrowed_to_nvidias() -> None:
    listed = ["nvidia.com/gpu=0", "amd.com/gpu=0", "nvidia.com/gpu=all", "nvidia.com/pgpu=0"]
    assert cdi.names(listed) == ("0", "all")


@pytest.mark.parametrize(
    ("devices", "missing", "surplus"),
    [
        (("0", "1", "all"), [], []),
        (("GPU-a", "GPU-b"), [], []),
        (("0", "1", "GPU-a", "GPU-b", "all"), [], []),
        (("0", "all"), [1], []),
        (("0", "1", "2"), [], ["2"]),
        # another card in the same slot
        (("0", "1", "GPU-a", "GPU-old"), [1], ["GPU-old"]),
        # a divided GPU is listed by its parts
        (("0:0", "0:1", "1", "all"), [], []),
        (("0:0", "MIG-1", "GPU-b", "1"), [], []),
        (("gpu0", "gpu1"), [0, 1], []),
        (("all",), [], []),
        ((), [0, 1], []),
    ],
)
def test_what_is_missing_and_what_is_too_much(
    devices: tuple[str, ...], missing: list[int], surplus: list[str]
) -> None:
    assert [gpu.index for gpu in cdi.missing(devices, TWO)] == missing
    assert cdi.surplus(devices, TWO) == surplus


def test_a_gpu_that_cannot_be_read_is_no_fault_of_the_specification() -> None:
    ill = (TWO[0], Gpu(index=1, trouble="GPU is lost"))
    assert cdi.missing(("0", "GPU-a"), ill) == []
    assert cdi.surplus(("0", "1", "GPU-a", "GPU-b"), ill) == []


def test_a_driver_that_tells_no_uuid_is_compared_by_index() -> None:
    assert cdi.missing(("0", "GPU-a"), (Gpu(index=0), Gpu(index=1)))[0].index == 1
