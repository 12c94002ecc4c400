"""What a Slurm job is and allows: its variables and scontrol's output in, a Job and its GPUs out.

Pure: asks nobody. Slurm numbers GPUs as gres.conf lists them, which is NVIDIA's order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from gpubox.errors import EngineError, GpuboxError
from gpubox.gpus.machine import Device, Machine, named
from gpubox.gpus.pick import listed
from gpubox.values import NO_GPUS, Gpus

ALWAYS = {"init": "true"}
"""Settings of every box in a job: without an init its first process may ignore signals."""

_ID, _NODE = "SLURM_JOB_ID", "SLURMD_NODENAME"
# The job's variables that a box gets. It gets none about a step's tasks: libraries would obey them.
_PASSED_ON = (_ID, "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT")
_KILL_WAIT, _MARGIN = 30, 10  # seconds: Slurm's default, and what the engine itself may take


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The Slurm job that this process is in.

    `gpus` are numbers as Slurm counts them on the node, or names (`GPU-`, `MIG-`). `memory` and
    `cpus` are spelt as settings are, empty if the job has no limit. A box must stop within `grace`
    seconds.
    """

    id: str
    node: str
    gpus: tuple[str, ...] = ()
    memory: str = ""
    cpus: str = ""
    restarts: str = "0"
    grace: int = _KILL_WAIT - _MARGIN
    variables: Mapping[str, str] = {}

    @property
    def beneath(self) -> dict[str, str]:
        """Settings if a profile has none: the job's limits, and that nothing is left of the box."""
        settings = {"mem_limit": self.memory, "cpus": self.cpus, "rm": "true"}
        return {key: text for key, text in settings.items() if text}


def is_in_job(environ: Mapping[str, str]) -> bool:
    return _ID in environ


def job(environ: Mapping[str, str], details: str = "", config: str = "") -> Job:
    """The job of a process, from its variables and scontrol's output on the job and the cluster.

    A job that was submitted from a step of another one inherits that one's variables, so scontrol
    counts more, if it says anything.
    """
    number, node = environ[_ID], environ.get(_NODE, "")
    if not node:
        raise GpuboxError(
            f"job {number} is on another machine than this shell, which only holds it",
            "srun --pty gpubox run ... starts the box on the job's node",
        )
    nodes = environ.get("SLURM_JOB_NUM_NODES", "1")
    one = nodes == "1"
    if not one and environ.get("SLURM_STEP_NUM_NODES") != "1":
        raise GpuboxError(
            f"job {number} has {nodes} nodes, and a box is on one of them",
            "ask for --nodes=1, or srun --nodes=1 --ntasks=1 gpubox run ...",
        )
    # an array's last task has the number of the array, for which scontrol lists all its tasks
    lines = (line for line in details.splitlines() if line.startswith(f"JobId={number} "))
    own_line = next(lines, "")
    cpus = environ.get("SLURM_CPUS_ON_NODE", "")
    return Job(
        id=number,
        node=node,
        gpus=_gpus(environ, _allocated(own_line) if one and own_line else None),
        memory=_memory(environ, own_line, int(cpus or 1)),
        cpus=cpus,
        restarts=environ.get("SLURM_RESTART_COUNT", "0"),
        grace=_grace(config),
        variables={name: environ[name] for name in _PASSED_ON if name in environ},
    )


def _gpus(environ: Mapping[str, str], allocated: Sequence[str] | None) -> tuple[str, ...]:
    """The GPUs of the step, which may be some of its job's, else of the job.

    Of CUDA_VISIBLE_DEVICES only names are of use: its numbers begin at 0 in each job that has a
    device cgroup.
    """
    step, whole = _words(environ, "SLURM_STEP_GPUS"), _words(environ, "SLURM_JOB_GPUS")
    numbers = step or whole
    if allocated is not None and not (step and set(step) <= set(allocated)):
        numbers = tuple(allocated)
    visible = _words(environ, "CUDA_VISIBLE_DEVICES")
    by_name = visible and all(word.startswith(("GPU-", "MIG-")) for word in visible)
    return visible if numbers and by_name else numbers


def _words(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(filter(None, environ.get(name, "").split(",")))


def _allocated(details: str) -> list[str]:
    """The numbers 0, 1 and 3 of `GRES=gpu:tesla:3(IDX:0-1,3)`."""
    numbers = list[int]()
    for ranges in re.findall(r"gpu(?::[^(,\s]+)?\(IDX:([\d,-]+)\)", details):
        for part in ranges.split(","):
            first, _, last = part.partition("-")
            numbers += range(int(first), int(last or first) + 1)
    return [str(number) for number in sorted(numbers)]


def _memory(environ: Mapping[str, str], details: str, cpus: int) -> str:
    """The memory that the job asked for, as a setting; Slurm's 0, the whole node, is no limit.

    A job that is only an `srun` has no variable for it, so scontrol's details come first.
    """
    if asked := re.search(r"\bMinMemory(Node|CPU)=([\d.]+)([KMGT]?)", details):
        per, size, unit = asked.groups()
    elif whole := environ.get("SLURM_MEM_PER_NODE"):
        per, size, unit = "Node", whole, "M"
    else:
        per, size, unit = "CPU", environ.get("SLURM_MEM_PER_CPU", "0"), "M"
    kib = {"K": 1, "M": 1 << 10, "G": 1 << 20, "T": 1 << 30}[unit or "M"]
    total = int(float(size) * kib) * (cpus if per == "CPU" else 1)
    return f"{total}k" if total else ""


def _grace(config: str) -> int:
    """The seconds that Slurm leaves between TERM and KILL, less a margin."""
    match = re.search(r"(?m)^KillWait\s*=\s*(\d+)", config)
    return max(1, (int(match[1]) if match else _KILL_WAIT) - _MARGIN)


# --- its GPUs


def devices(job: Job, machine: Machine | None) -> tuple[Device, ...]:
    """The job's GPUs, with their UUIDs if a driver tells them.

    A driver that shows as many GPUs as the job has shows just these: a device cgroup hides the
    others. Else it shows the node's, and Slurm's numbers are their indexes.
    """
    if not all(gpu.isdigit() for gpu in job.gpus):
        return tuple(Device(index="", uuid=gpu) for gpu in job.gpus)
    if machine is None:
        return tuple(Device(index=gpu) for gpu in job.gpus)
    seen = [gpu.uuid for gpu in machine.gpus]
    if len(seen) == len(job.gpus):
        return tuple(Device(index=gpu, uuid=uuid) for gpu, uuid in zip(job.gpus, seen, strict=True))
    if beyond := [gpu for gpu in job.gpus if int(gpu) >= len(seen)]:
        raise EngineError(
            f"job {job.id} has GPU {beyond[0]}, and the driver of {job.node} shows {len(seen)}",
            "the node's gres.conf and nvidia-smi must list the same GPUs",
        )
    return tuple(Device(index=gpu, uuid=seen[int(gpu)]) for gpu in job.gpus)


def share_of(
    job: Job, own: Sequence[Device], asked: Gpus, *, default: bool = False
) -> tuple[Device, ...]:
    """Those of the job's `own` GPUs that a box asks for; raises if it asks for any others.

    By `default`, when nobody chose, it gets all that the job has, even if that is none.
    """
    if asked == NO_GPUS:
        return ()
    if default or (own and asked.all):
        return tuple(own)
    if not own:
        raise EngineError(
            f"--gpus {asked}, and job {job.id} has no GPU",
            "ask Slurm for them with --gres=gpu:N; --gpus none does without",
        )
    if asked.count > len(own):
        raise EngineError(
            f"{asked.count} GPUs are wanted, and job {job.id} has {len(own)}: {listed(own)}",
            f"--gres=gpu:{asked.count} asks Slurm for as many",
        )
    keys = [named(word, own) for word in asked.ids]
    known = {device.key: device for device in own}
    if strange := [key for key in keys if key not in known]:
        raise EngineError(
            f"GPU {strange[0]} is not job {job.id}'s, which has {listed(own)}",
            "leave --gpus out: the box gets all that the job has",
        )
    return tuple(known[key] for key in keys) if keys else tuple(own[: asked.count])
