"""The simulated GPUs and the two ways an engine hands them out: NVIDIA's hook, and CDI.

Writes files only; knows no engine. A simulated GPU is a name, a UUID and a device node that is
/dev/null's (c 1:3), which every device cgroup lets a container open.
"""

from __future__ import annotations

import json
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HOOK = "nvidia-container-runtime-hook"  # the name that dockerd looks for on its PATH
IDENTITIES = "/dev/simulated-gpus"  # in the box; /dev is a tmpfs, so images saved stay clean
NVIDIA_SMI = "/usr/bin/nvidia-smi"


@dataclass(frozen=True)
class Gpu:
    """One simulated GPU as the host counts them."""

    index: int
    uuid: str
    name: str = "NVIDIA GeForce GTX 1080 Ti"


def simulated(count: int) -> tuple[Gpu, ...]:
    """The first `count` GPUs; index 0 has the same UUID in every run and on every engine."""
    return tuple(Gpu(index, _uuid(index)) for index in range(count))


def _uuid(index: int) -> str:
    return f"GPU-{uuid.uuid5(uuid.NAMESPACE_URL, f'gpubox/simulated/{index}')}"


def write_identities(folder: Path, gpus: tuple[Gpu, ...]) -> None:
    """`folder/00`, `folder/01`, ...: what the simulated nvidia-smi and the hook read."""
    folder.mkdir()
    for gpu in gpus:
        (folder / f"{gpu.index:02}").write_text(f"{gpu.name}\n{gpu.uuid}\n")


def write_nvidia_smi(folder: Path) -> Path:
    """A copy that root owns and every user may run, wherever the repository lies."""
    program = folder / "nvidia-smi"
    program.write_bytes((HERE / "nvidia-smi").read_bytes())
    program.chmod(0o755)
    return program


def write_hook(folder: Path) -> None:
    """The hook, to be found on dockerd's PATH; it reads `../gpus` and `../nvidia-smi`."""
    hook = folder / HOOK
    hook.write_text(f"#!{sys.executable} -IS\n" + (HERE / "hook.py").read_text())
    hook.chmod(0o755)


def write_cdi_spec(
    spec_folder: Path, identities: Path, nvidia_smi: Path, gpus: tuple[Gpu, ...]
) -> None:
    """What `nvidia-ctk cdi generate` writes: every GPU by index and by UUID, and `all`."""
    edits = {gpu: _cdi_edits(gpu, identities) for gpu in gpus}
    devices = [{"name": str(gpu.index), "containerEdits": edits[gpu]} for gpu in gpus]
    devices += [{"name": gpu.uuid, "containerEdits": edits[gpu]} for gpu in gpus]
    devices += [{"name": "all", "containerEdits": _joined(list(edits.values()))}]
    spec = {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": devices,
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "mounts": [_bind(nvidia_smi, NVIDIA_SMI)],
        },
    }
    spec_folder.mkdir(exist_ok=True)
    (spec_folder / "nvidia.json").write_text(json.dumps(spec, indent=2))


def _cdi_edits(gpu: Gpu, identities: Path) -> dict[str, list[Any]]:
    number = f"{gpu.index:02}"
    node = {"path": f"/dev/nvidia{gpu.index}", "type": "c", "major": 1, "minor": 3}
    return {
        "deviceNodes": [node],
        "mounts": [_bind(identities / number, f"{IDENTITIES}/{number}")],
    }


def _joined(edits: list[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    return {key: [item for edit in edits for item in edit[key]] for key in edits[0]}


def _bind(source: Path, target: str) -> dict[str, Any]:
    return {
        "hostPath": str(source),
        "containerPath": target,
        "options": ["ro", "nosuid", "nodev", "bind"],
    }
