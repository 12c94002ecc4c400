"""What a Slurm job is and allows: Slurm's own words, as 22.05 said them, and the GPUs of a box."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gpubox.errors import GpuboxError, UsageError
from gpubox.gpus.holders import Container, join
from gpubox.gpus.machine import Device, Gpu, Machine
from gpubox.plan.facts import Ask, EngineFacts, Facts
from gpubox.plan.plan import Plan, plan
from gpubox.profile.layers import from_flags
from gpubox.slurm.jobs import Job, devices, job, share_of
from gpubox.values import ALL_GPUS, NO_GPUS, Gpus, gpus
from lab import anna
from lab.anna import ANNA, WORK

BATCH = {
    "CUDA_VISIBLE_DEVICES": "0",  # in a device cgroup
    "SLURMD_NODENAME": "n1",
    "SLURM_CPUS_ON_NODE": "2",
    "SLURM_JOB_GPUS": "1",
    "SLURM_JOB_ID": "42",
    "SLURM_JOB_NUM_NODES": "1",
}
SRUN = {
    "SLURMD_NODENAME": "n1",
    "SLURM_CPUS_ON_NODE": "2",
    "SLURM_JOB_ID": "42",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_STEP_GPUS": "3",
    "SLURM_STEP_NUM_NODES": "1",
}
SALLOC = {"SLURM_JOB_ID": "42", "SLURM_JOB_NUM_NODES": "1"}
SHOWN = (
    "JobId={id} JobName=wrap UserId=root(0) Requeue=1 Restarts=0 NumNodes=1 NumCPUs=1"
    " TRES=cpu=1,mem=321M,node=1,billing=1   Nodes=n1 CPU_IDs=0 Mem=321 GRES={gres}"
    " MinCPUsNode=1 {memory} MinTmpDiskNode=0 TresPerNode=gres:gpu:1 \n"
)


def shown(gres: str = "gpu:1(IDX:1)", memory: str = "MinMemoryNode=0", id: str = "42") -> str:
    return SHOWN.format(gres=gres, memory=memory, id=id)


# --- a job


@pytest.mark.parametrize(
    ("environ", "said", "gpus"),
    [
        (BATCH, "", "1"),
        (BATCH, shown(), "1"),
        (SRUN, "", "3"),
        (BATCH | {"SLURM_JOB_GPUS": "0,1,2", "SLURM_STEP_GPUS": "1,2"}, "", "1,2"),
        (BATCH | {"SLURM_STEP_GPUS": "1"}, shown("gpu:tesla:3(IDX:0-1,3)"), "1"),
        # a step's variables, in the job that was submitted from it
        (BATCH | {"SLURM_STEP_GPUS": "0,2"}, shown(), "1"),
        (BATCH | {"SLURM_STEP_GPUS": "0,2"}, shown("(null)"), ""),
        (BATCH, shown("gpu:a:1(IDX:3),gpu:b:2(IDX:0-1)"), "0,1,3"),
        # an array's last task has its number
        (BATCH, shown("gpu:1(IDX:0)", id="43") + shown(), "1"),
        (BATCH | {"CUDA_VISIBLE_DEVICES": "MIG-1,MIG-2"}, shown(), "MIG-1,MIG-2"),
        (BATCH | {"CUDA_VISIBLE_DEVICES": "GPU-1"}, shown("(null)"), ""),
        ({name: text for name, text in BATCH.items() if "GPU" not in name}, "", ""),
    ],
)
def test_a_jobs_gpus_are_those_that_slurm_means(
    environ: dict[str, str], said: str, gpus: str
) -> None:
    assert ",".join(job(environ, said).gpus) == gpus


@pytest.mark.parametrize(
    ("variable", "memory", "limit"),
    [
        ({}, "MinMemoryNode=0", ""),
        ({}, "MinMemoryNode=321M", f"{321 << 10}k"),
        ({}, "MinMemoryCPU=1.50G", f"{3 << 20}k"),
        ({"SLURM_MEM_PER_NODE": "7"}, "MinMemoryNode=0", ""),  # of the job that submitted this one
        ({"SLURM_MEM_PER_NODE": "200"}, "", f"{200 << 10}k"),
        ({"SLURM_MEM_PER_CPU": "50"}, "", f"{100 << 10}k"),
    ],
)
def test_the_jobs_memory_is_what_it_asked_for(
    variable: dict[str, str], memory: str, limit: str
) -> None:
    found = job(BATCH | variable, shown(memory=memory) if memory else "")
    assert (found.memory, found.cpus) == (limit, "2")


def test_a_box_has_stopped_before_slurm_kills() -> None:
    for config, grace in [("", 20), ("KillWait                = 60 sec\n", 50), ("KillWait=3", 1)]:
        assert job(BATCH, config=f"JobRequeue = 1\n{config}").grace == grace


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        (SALLOC, "job 42 is on another machine than this shell, which only holds it"),
        (BATCH | {"SLURM_JOB_NUM_NODES": "2"}, "job 42 has 2 nodes, and a box is on one of them"),
    ],
)
def test_where_no_box_can_be_a_jobs(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(GpuboxError) as refused:
        job(environ)
    assert refused.value.problem == problem
    assert "srun" in refused.value.hint
    one_of_two = SRUN | {"SLURM_JOB_NUM_NODES": "2"}
    assert job(one_of_two, shown("gpu:1(IDX:0) Nodes=n2 GRES=gpu:1(IDX:1)")).gpus == ("3",)


# --- its GPUs

GPUS = tuple(Gpu(index=index, uuid=f"GPU-{index}") for index in range(4))
MACHINE = Machine("580.65.06", (13, 0), GPUS)
ONE = Job(id="42", node="n1", gpus=("2",))
TWO = Job(id="42", node="n1", gpus=("1", "3"), cpus="2", memory="9k", variables={"SLURM_X": "x"})


def test_a_device_cgroup_renumbers_what_the_driver_shows() -> None:
    hidden = Machine("580.65.06", (13, 0), (Gpu(index=0, uuid="GPU-2"),))
    for seen in (MACHINE, hidden):
        assert devices(ONE, seen) == (Device(index="2", uuid="GPU-2"),)
    assert devices(ONE, None) == (Device(index="2"),)
    named = replace(ONE, gpus=("MIG-7",))
    assert devices(named, MACHINE) == (Device(index="", uuid="MIG-7"),)
    with pytest.raises(GpuboxError, match="job 42 has GPU 7, and the driver of n1 shows 4"):
        devices(replace(ONE, gpus=("7",)), MACHINE)


@pytest.mark.parametrize(
    ("asked", "keys"),
    [(ALL_GPUS, "13"), (gpus("1"), "1"), (gpus("device=3"), "3"), (gpus("GPU-1"), "1")],
)
def test_a_box_asks_for_some_of_the_jobs(asked: Gpus, keys: str) -> None:
    own = devices(TWO, MACHINE)
    assert [it.key for it in share_of(TWO, own, asked)] == list(keys)
    assert share_of(TWO, own, gpus("1"), default=True) == own
    assert share_of(TWO, own, NO_GPUS) == ()


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (gpus("3"), "3 GPUs are wanted, and job 42 has 2: GPUs 1 and 3"),
        (gpus("device=0"), "GPU 0 is not job 42's, which has GPUs 1 and 3"),
        (gpus("GPU-2"), "GPU GPU-2 is not job 42's, which has GPUs 1 and 3"),
    ],
)
def test_nothing_beyond_the_job_is_given(asked: Gpus, problem: str) -> None:
    with pytest.raises(GpuboxError) as refused:
        share_of(TWO, devices(TWO, MACHINE), asked)
    assert refused.value.problem == problem
    with pytest.raises(GpuboxError, match="and job 42 has no GPU"):
        share_of(TWO, (), asked)


# --- the plan


def planned(
    job: Job,
    flags: dict[str, str],
    *,
    cdi: tuple[str, ...] = (),
    holders: tuple[Container, ...] = (),
) -> Plan:
    said = from_flags(flags, WORK)
    profile = anna.config().profile("cuda8-cudnn5", said, beneath=job.beneath)
    facts = Facts(
        caller=ANNA,
        engine=EngineFacts(api=(1, 41), cdi_devices=cdi),
        machine=MACHINE,
        holdings=join(anna.idle(GPUS), holders, {}, "anna"),
        job=job,
    )
    return plan(profile, Ask(command=("true",)), facts)


def test_a_box_in_a_job_has_its_gpus_its_limits_and_its_end() -> None:
    made = planned(TWO, {})
    assert made.gpus.gpus.ids == ("GPU-1", "GPU-3")
    assert (made.mem_limit, made.cpus, made.rm) == (9 << 10, 2 * 10**9, True)
    assert (made.grace, made.contested) == (20, False)
    assert dict(made.labels) | {"gpubox.version": ""} == {
        "gpubox.profile": "cuda8-cudnn5",
        "gpubox.owner": "anna",
        "gpubox.folder": str(WORK),
        "gpubox.kind": "command",
        "gpubox.gpus": "GPU-1,GPU-3",
        "gpubox.job": "42",
        "gpubox.restarts": "0",
        "gpubox.version": "",
    }
    assert "SLURM_X=x" in map(str, made.environment)
    assert not any("CUDA_VISIBLE_DEVICES" in str(it) for it in made.environment)
    assert made.notes == ("GPUs 1 and 3 of job 42",)
    assert planned(TWO, {"mem_limit": "1g", "cpus": "1"}).mem_limit == 1 << 30
    with pytest.raises(UsageError, match="'always' and a Slurm job exclude each other"):
        planned(TWO, {"restart": "always"})


def test_cdi_devices_that_are_only_numbered_have_slurms_numbers() -> None:
    made = planned(TWO, {}, cdi=("nvidia.com/gpu=1", "nvidia.com/gpu=3"))
    assert made.gpus.gpus.ids == ("1", "3")
    assert dict(made.labels)["gpubox.gpus"] == "GPU-1,GPU-3"


def test_who_has_a_gpu_past_slurm_is_named() -> None:
    theirs = Container(
        id="c1",
        name="train-bob",
        box=True,
        owner="bob",
        profile="train",
        gpus=Gpus(("GPU-3",)),
        claimed=Gpus(("GPU-3",)),
        claim="",
        state="running",
        created=0,
    )
    assert planned(TWO, {}, holders=(theirs,)).notes[1:] == (
        "GPU 3 is held by bob (train-bob), though Slurm gave it to job 42",
    )


def test_a_job_without_gpus_has_a_box_without() -> None:
    bare = Job(id="42", node="n1")
    assert planned(bare, {}).gpus.gpus == NO_GPUS
    assert planned(bare, {}).notes == ("job 42 has no GPU, and so the box has none",)
    assert planned(bare, {"gpus": "none"}).notes == ()
    with pytest.raises(GpuboxError, match="--gpus all, and job 42 has no GPU"):
        planned(bare, {"gpus": "all"})
