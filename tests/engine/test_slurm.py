"""Boxes in jobs of a real Slurm: which GPUs they get, and that none outlives its job.

One node has the engine with NVIDIA's hook, the other the one with CDI; both have the same four
simulated GPUs. What a box has is asked in the box itself.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect
import pytest

from lab.engine import PrivateEngine
from lab.nvml import Libraries
from lab.program import Gpubox
from lab.slurm import PrivateSlurm
from lab.waiting import PATIENCE, wait_until
from lab.workstation import MACHINE, PROFILE, UUIDS

VIEW = "nvidia-smi -L | sed 's/.*UUID: //; s/)//'"
STUBBORN = 'trap "" TERM; touch /tmp/deaf; sleep 600 & wait; wait'
Done = subprocess.CompletedProcess[bytes]


@pytest.fixture(scope="session")
def nodes(engines: Any) -> dict[str, PrivateEngine]:
    return {"hook": engines.of("stable"), "cdi": engines.of("cdi")}


@pytest.fixture(scope="session")
def private_slurm(
    nodes: dict[str, PrivateEngine], nvml_libraries: Libraries
) -> Iterator[PrivateSlurm]:
    envs = {name: engine.env for name, engine in nodes.items()}
    slurm = PrivateSlurm(envs, nvml_libraries, MACHINE).start()
    yield slurm
    slurm.stop()


@dataclass
class Cluster:
    """Slurm, and somebody on its login node, where there is no engine."""

    slurm: PrivateSlurm
    gpubox: Gpubox
    engines: dict[str, PrivateEngine]

    def submit(self, *words: str, node: str = "hook") -> str:
        done = self.gpubox("submit", f"--partition={node}", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def batch(self, script: str, *options: str) -> str:
        """A job with a script that somebody wrote by hand."""
        line = ["sbatch", "--parsable", "--partition=hook", "--output=%j.log", *options]
        text = f"#!/bin/sh\n{script}\n".encode()
        return self.run(*line, stdin=text).stdout.decode().strip()

    def srun(self, *words: str, gres: int = 1) -> Done:
        return self.run(*self.step(*words, gres=gres))

    def step(self, *words: str, gres: int = 1, run: str = "run") -> list[str]:
        gpus = [f"--gres=gpu:{gres}"] if gres else []
        return ["srun", "--partition=hook", *gpus, str(self.gpubox.program), run, *words]

    def run(self, *words: str, stdin: bytes = b"") -> Done:
        return subprocess.run(
            words,
            input=stdin,
            env=self.gpubox.env,
            cwd=self.gpubox.cwd,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )

    def start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            words,
            env=self.gpubox.env,
            cwd=self.gpubox.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def log(self, job: str) -> str:
        return next(self.gpubox.cwd.glob(f"*{job}.log")).read_text()

    def docker(self, *words: str, node: str = "hook") -> str:
        engine = self.engines[node]
        done = subprocess.run(
            [engine.docker, *words], env=engine.environ(), capture_output=True, check=True
        )
        return done.stdout.decode().strip()

    def boxes(self, node: str = "hook") -> list[dict[str, Any]]:
        done = self.gpubox("ps", "--all", "--json", env=self.engines[node].env)
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def box(self, job: str, node: str = "hook") -> dict[str, Any]:
        """The box of a job, once it runs and has said that it does."""

        def ready() -> dict[str, Any] | None:
            for box in self.boxes(node):
                if (box["job"], box["state"]) == (job, "running"):
                    done = self.docker("exec", box["id"], "ls", "/tmp", node=node)
                    return box if "deaf" in done else None
            return None

        return wait_until(ready, what=f"the box of job {job}") or {}

    def seen_in(self, box: dict[str, Any], node: str = "hook") -> list[str]:
        return self.docker("exec", box["id"], "sh", "-c", VIEW, node=node).split()


@pytest.fixture
def cluster(
    private_slurm: PrivateSlurm, nodes: dict[str, PrivateEngine], tmp_path: Path
) -> Iterator[Cluster]:
    gpubox = Gpubox(tmp_path, private_slurm.env)
    yield Cluster(private_slurm, gpubox, nodes)
    private_slurm.clear()


# Which GPUs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("node", "cgroup"), [("hook", "1"), ("cdi", "")])
def test_jobs_have_gpus_of_their_own_and_end_with_their_boxes(
    cluster: Cluster, node: str, cgroup: str
) -> None:
    cluster.gpubox.env["LAB_CGROUP"] = cgroup
    words = ("--", "sh", "-c", STUBBORN)
    jobs = [cluster.submit("--sbatch=--mem=100", PROFILE, *words, node=node) for _ in range(2)]
    for job in jobs:
        cluster.slurm.without_epilog(job)
    boxes = [cluster.box(job, node) for job in jobs]
    seen = [cluster.seen_in(box, node) for box in boxes]
    assert sorted(seen) == [[uuid] for uuid in sorted(UUIDS[:2])]
    assert [box["gpus"] for box in boxes] == [uuid for (uuid,) in seen]
    assert f"GPU {UUIDS.index(seen[0][0])} of job {jobs[0]}\n" in cluster.log(jobs[0])
    host = json.loads(cluster.docker("inspect", boxes[0]["id"], node=node))[0]["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["Init"]) == (100 << 20, 10**9, True)
    table = cluster.gpubox("ps", env=cluster.engines[node].env).stdout.decode()
    assert "OWNER  JOB" in table.splitlines()[0]

    cluster.slurm.said("scancel", *jobs)
    cluster.slurm.outlast(*jobs)
    assert cluster.boxes(node) == []
    assert [cluster.slurm.job(job)["ExitCode"] for job in jobs] == ["137:0"] * 2  # the box's own


def test_a_step_takes_its_share_and_nothing_goes_beyond_the_job(cluster: Cluster) -> None:
    box, view = f"{cluster.gpubox.program} run", f"{PROFILE} -- sh -c {shlex.quote(VIEW)}"
    job = cluster.batch(
        f"""
        exec 2>&1
        for step in 1 2; do
            srun --exact --ntasks=1 --gres=gpu:1 {box} {view} >step-$step 2>/dev/null &
        done
        wait
        {box} --gpus all {view}
        {box} --gpus 1 {view}
        {box} --gpus none {PROFILE} -- sh -c 'echo $NVIDIA_VISIBLE_DEVICES'
        {box} --gpus 3 {view}
        echo $?
        {box} --gpus device=3 {view}
        {box} -d {view}
        {box} --restart always {view}
        DOCKER_HOST=tcp://127.0.0.1:1 {box} {view}
        {box} {PROFILE} -- sh -c 'echo $SLURM_JOB_ID; exit 7'
        """,
        *("--gres=gpu:2", "--ntasks=2"),
    )
    assert cluster.slurm.code(job) == 7
    steps = [(cluster.gpubox.cwd / f"step-{number}").read_text() for number in (1, 2)]
    assert sorted(steps) == [f"{uuid}\n" for uuid in sorted(UUIDS[:2])]
    assert cluster.log(job).splitlines() == [
        *(f"GPUs 0 and 1 of job {job}", *UUIDS[:2]),
        *(f"GPU 0 of job {job}", UUIDS[0]),
        "void",
        f"gpubox: 3 GPUs are wanted, and job {job} has 2: GPUs 0 and 1",
        "  --gres=gpu:3 asks Slurm for as many",
        "125",
        f"gpubox: GPU 3 is not job {job}'s, which has GPUs 0 and 1",
        "  leave --gpus out: the box gets all that the job has",
        f"gpubox: -d in Slurm's job {job}: the job would end here, and its box would not",
        "  leave -d out; what is in the background is the job: gpubox submit",
        "gpubox: command line: restart: 'always' and a Slurm job exclude each other: it ends with"
        f" job {job}",
        f"gpubox: DOCKER_HOST names tcp://127.0.0.1:1, and the GPUs of job {job} are hook's",
        "  unset it in the job: the engine of the node itself is the right one",
        *(f"GPUs 0 and 1 of job {job}", job),
    ]
    assert cluster.boxes() == []  # none is kept


def test_srun_by_itself_and_where_it_is_missing(cluster: Cluster) -> None:
    engine = cluster.engines["hook"].env
    look = (PROFILE, "--", "sh", "-c", f"{VIEW}; exit 3")
    theirs = cluster.gpubox("run", "-d", "--gpus", "device=0", PROFILE, "sleep", "600", env=engine)
    name = theirs.stdout.decode().strip()
    done = cluster.srun(*look)
    assert (done.returncode, done.stdout.decode()) == (3, f"{UUIDS[0]}\n")
    first, second = done.stderr.decode().splitlines()[:2]
    assert first.startswith("GPU 0 of job ")
    assert second.startswith(f"GPU 0 is mine ({name}), though Slurm gave it to job ")

    done = cluster.srun(*look, gres=0)
    assert (done.returncode, done.stdout) == (3, b"")
    assert " has no GPU, and so the box has none\n" in done.stderr.decode()
    done = cluster.srun("--gpus", "1", *look, gres=0)
    assert b"--gres=gpu:N" in done.stderr

    words = (str(cluster.gpubox.program), "run", *look)
    done = cluster.run("salloc", "-Q", "-p", "hook", "--gres=gpu:1", *words)
    assert done.returncode == 125
    assert b"is on another machine than this shell" in done.stderr
    assert b"srun --pty gpubox run" in done.stderr
    done = cluster.run("srun", "-p", "each", "-N2", *words)
    assert b"has 2 nodes, and a box is on one of them" in done.stderr


def test_a_terminal_by_srun_is_one_in_the_box_and_ends_with_it(cluster: Cluster) -> None:
    words = cluster.step(PROFILE)
    shell = pexpect.spawn(
        words[0],
        ["--pty", *words[1:]],
        env=cluster.gpubox.env,
        cwd=str(cluster.gpubox.cwd),
        encoding="utf-8",
        timeout=PATIENCE,
    )
    shell.expect("#")
    shell.sendline("touch /tmp/deaf; tty; echo $SLURM_JOB_ID.")
    shell.expect(r"/dev/pts/\d+\s+(\d+)\.")
    assert isinstance(shell.match, re.Match)
    job = shell.match[1]
    cluster.slurm.without_epilog(job)
    assert cluster.box(job)["kind"] == "shell"
    shell.send("\x10\x11")  # Docker's keys to leave a box and let it run
    shell.expect(pexpect.EOF)
    shell.close()
    cluster.slurm.outlast(job)
    assert cluster.boxes() == []


# What is typed ---------------------------------------------------------------------------------


def test_a_command_arrives_byte_for_byte(cluster: Cluster) -> None:
    words = [
        *(
            "",
            " ",
            "a b",
            "$HOME `id` $(id) ${X:-y} !!",
            "'\"'\\\\\"\\",
            "*?[a-z]~{a,b}",
            "#SBATCH --x",
        ),
        *(
            "a\n#SBATCH --gres=gpu:9\nb\n",
            "\r\n\r",
            "\t\x01\x7f",
            "ü €",
            "--",
            "-x",
            "%j %%",
            "EOF",
        ),
    ]
    show = 'for word; do printf "%s\\0" "$word"; done'
    command = ("--", "sh", "-c", show, "sh", *words)
    job = cluster.submit("--gpus=none", "--sbatch=--error=said", PROFILE, *command)
    assert cluster.slurm.code(job) == 0
    log = next(cluster.gpubox.cwd.glob(f"gpubox-{PROFILE}-{job}.log"))
    assert log.read_bytes() == "".join(f"{word}\0" for word in words).encode()


def test_what_slurm_refuses_is_told_and_what_it_is_given_is_shown(cluster: Cluster) -> None:
    done = cluster.gpubox("submit", "--gpus", "5", "--partition", "hook", PROFILE, "true")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == (
        b"gpubox: Slurm does not take the job: requested node configuration is not available\n"
        b"  sinfo -o '%P %l %D %c %m %G' shows what there is\n"
    )
    (cluster.gpubox.cwd / "gpubox.yaml").write_text(
        f"profiles: {{p: {{extends: {PROFILE}, slurm: [-p hook, --job-name=x-y]}}}}"
    )
    done = cluster.gpubox("submit", "p", "echo", "done")
    job = done.stdout.decode().strip()
    assert done.stderr.decode() == f"its output: x-y-{job}.log\n"
    assert cluster.slurm.code(job) == 0
    assert (cluster.gpubox.cwd / f"x-y-{job}.log").read_text() == f"GPU 0 of job {job}\ndone\n"


def test_where_slurm_is_required_a_gpu_is_a_jobs(cluster: Cluster) -> None:
    config = cluster.gpubox.home / ".config/gpubox/config.yaml"
    config.parent.mkdir(parents=True)
    engine = cluster.engines["hook"].env
    for words in ("run -d --gpus device=0 --name old " + PROFILE, "stop old"):
        assert cluster.gpubox(*words.split(), env=engine).returncode == 0
    config.write_text("slurm: required\n")
    for verb in ("start", "restart"):
        done = cluster.gpubox(verb, "old", env=engine)
        assert done.returncode == 1
        assert b"GPUs are given by Slurm here" in done.stderr
    at_terminal = pexpect.spawn(
        f"{cluster.gpubox.program} enter old",
        env=cluster.gpubox.env | engine,
        cwd=str(cluster.gpubox.cwd),
        timeout=PATIENCE,
    )
    at_terminal.expect_exact("GPUs are given by Slurm here")
    at_terminal.expect(pexpect.EOF)
    at_terminal.close()
    assert at_terminal.exitstatus == 125
    done = cluster.gpubox("run", PROFILE, "echo", "$x", env=engine)
    words = f"{PROFILE} -- echo '$x'"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (
        125,
        b"",
        "gpubox: GPUs are given by Slurm here (~/.config/gpubox/config.yaml:1)\n"
        f"  gpubox submit {words}; at a terminal: srun --gres=gpu:1 --pty gpubox run {words};"
        f" without a GPU: gpubox run --gpus none {words}\n",
    )
    assert cluster.gpubox("run", "--gpus=none", PROFILE, "true", env=engine).returncode == 0
    assert cluster.srun(PROFILE, "--", "sh", "-c", VIEW).stdout.decode() == f"{UUIDS[0]}\n"


# No leaks --------------------------------------------------------------------------------------


def test_the_epilog_removes_what_nobody_could_stop(cluster: Cluster) -> None:
    command = (PROFILE, "--", "sh", "-c", STUBBORN)
    job = cluster.submit(*command)
    cluster.box(job)
    cluster.slurm.said("scancel", "--signal=KILL", "--full", job)
    step = cluster.start(cluster.step(*command))
    wait_until(lambda: len(cluster.boxes()) == 2 or cluster.boxes()[-1:], what="the step's box")
    cluster.slurm.outlast(job)
    (box,) = wait_until(cluster.boxes, what="the step's box")
    assert cluster.box(box["job"])
    step.kill()  # a terminal that is closed
    step.communicate()
    cluster.slurm.outlast(box["job"])
    assert cluster.boxes() == []


def test_a_job_that_is_requeued_stops_its_box_and_makes_another(cluster: Cluster) -> None:
    job = cluster.submit(PROFILE, "--", "sh", "-c", STUBBORN)
    cluster.slurm.without_epilog(job)
    first = cluster.box(job)
    cluster.slurm.said("scontrol", "requeue", job)
    pending = ("squeue", "-h", "-t", "PENDING", "-o", "%A")
    wait_until(lambda: job in cluster.slurm.said(*pending), what="its place in the queue")
    assert cluster.boxes() == []
    cluster.slurm.said("scontrol", "update", f"jobid={job}", "StartTime=now")  # or in two minutes
    second = cluster.box(job)
    label = '{{index .Config.Labels "gpubox.restarts"}}'
    assert cluster.docker("inspect", "-f", label, second["id"]) == "1"
    assert second["id"] != first["id"]


def test_forty_jobs_on_four_gpus_never_meet(cluster: Cluster) -> None:
    meet = f"""
        for gpu in $({VIEW}); do mkdir /meet/$gpu || exit 99; echo $gpu >>/meet/seen; done
        sleep 0.1
        rmdir /meet/$gpu
        exit $SLURM_ARRAY_TASK_ID
    """
    folder = cluster.gpubox.cwd / "meet"
    folder.mkdir()
    volume = ("-v", f"{folder}:/meet")
    array = cluster.submit("--array", "0-39", *volume, PROFILE, "--", "sh", "-c", meet)
    assert cluster.slurm.codes(array) == {task: task for task in range(40)}
    seen = (folder / "seen").read_text().split()
    assert (len(seen), set(seen)) == (40, set(UUIDS))
    assert cluster.boxes() == []


# Jupyter ---------------------------------------------------------------------------------------


def test_the_tunnel_to_a_notebook_leads_through_its_node(
    cluster: Cluster, jupyter_image: str
) -> None:
    cluster.gpubox.env["SSH_CONNECTION"] = "10.0.0.7 50000 10.0.0.1 22"
    server = cluster.start(cluster.step(jupyter_image, run="jupyter"))
    assert server.stdout and server.stderr
    url = server.stdout.readline().decode()
    assert url, server.communicate()
    (box,) = cluster.boxes()
    cluster.slurm.without_epilog(box["job"])
    assert box["url"] == url.strip()
    port = url.split(":")[2].partition("/")[0]
    cluster.slurm.said("scancel", "--signal=TERM", box["job"])
    said = server.communicate(timeout=PATIENCE)[1].decode()
    assert f"ssh -N -L {port}:127.0.0.1:{port} -J root@10.0.0.1 root@hook\n" in said
    cluster.slurm.outlast(box["job"])
    assert cluster.boxes() == []
