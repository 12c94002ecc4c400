"""A real Slurm from the distribution's packages: a controller, and a slurmd for each node.

All nodes are this machine; each has a Docker Engine of its own and GPUs that are simulated. Knows
engines by their environment only.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lab.errors import LabError
from lab.machine import SYSTEM, free_port
from lab.nvml import Libraries, Machine, write
from lab.traces import new_folder, remove
from lab.waiting import wait_until

INSTALL = "apt-get install --no-install-recommends slurmctld slurmd slurm-client"
EPILOG = Path(__file__).parents[2] / "examples/slurm/epilog.sh"
KILL_WAIT = 12  # seconds between TERM and KILL
OLD = 3600  # seconds for which the controller knows a job that has ended

# No munged and no cgroups: it runs in a container too. Nothing waits for its turn to be looked at.
CONTROLLER = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
SlurmdParameters=config_overrides
GresTypes=gpu
KillWait={kill_wait}
MinJobAge={old}
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/ended
TaskProlog={folder}/task-prolog
Epilog={folder}/epilog
"""
NODE = """\
NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} \
CPUs=16 RealMemory=8000 Gres=gpu:{gpus}
"""
# What a login on that node has: its engine, and its driver. With LAB_CGROUP a job sees as its
# driver and its CUDA_VISIBLE_DEVICES what a device cgroup would leave of them.
TASK_PROLOG = """\
#!/bin/sh
. {folder}/environment-$SLURMD_NODENAME
if [ "$LAB_CGROUP" ]; then
    echo "export SIMULATED_NVML={folder}/nvml-${{SLURM_STEP_GPUS:-$SLURM_JOB_GPUS}}"
    echo export CUDA_VISIBLE_DEVICES=0
fi
"""
# An epilog's own environment is nearly empty. A job that is named in a file has none.
EPILOG_OF_A_NODE = """\
#!/bin/sh
grep -qx "$SLURM_JOB_ID" {folder}/without-epilog && exit
eval "$(. {folder}/environment-$SLURMD_NODENAME)"
exec sh {epilog}
"""


class PrivateSlurm:
    """Nodes by their names, each with what a program on it needs to find its engine and driver.

    A partition `each` has all of them, and one of each node's name that node alone.
    """

    def __init__(
        self, nodes: Mapping[str, Mapping[str, str]], libraries: Libraries, machine: Machine
    ) -> None:
        self._nodes, self._libraries, self._machine = nodes, libraries, machine
        self._processes: list[subprocess.Popen[bytes]] = []
        self.folder = Path()

    @property
    def env(self) -> dict[str, str]:
        """What makes Slurm's commands talk to this one."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    # --- its life

    def start(self) -> PrivateSlurm:
        self.folder, self._lock = new_folder()
        try:
            self._furnish()
            self._launch("slurmctld", "-D")
            for name in self._nodes:
                self._launch("slurmd", "-D", "-N", name)
            wait_until(self._is_up, what="nodes that are idle")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        remove(self.folder)
        os.close(self._lock)

    def _furnish(self) -> None:
        host = socket.gethostname().partition(".")[0]
        for name in ("state", "dev", *(f"spool-{node}" for node in self._nodes)):
            (self.folder / name).mkdir()
        count = len(self._machine.cards)
        lines = [
            CONTROLLER.format(
                folder=self.folder, host=host, port=free_port(), kill_wait=KILL_WAIT, old=OLD
            )
        ]
        for name in self._nodes:
            lines.append(NODE.format(name=name, host=host, port=free_port(), gpus=count))
            lines.append(f"PartitionName={name} Nodes={name} State=UP\n")
        lines.append(f"PartitionName=each Nodes={','.join(self._nodes)} Default=YES State=UP\n")
        (self.folder / "slurm.conf").write_text("".join(lines))
        # NVIDIA's own major number, behind which is nothing here
        for number in range(count):
            os.mknod(self.folder / f"dev/gpu{number}", 0o20666, os.makedev(195, number))
        (self.folder / "gres.conf").write_text(
            f"NodeName={','.join(self._nodes)} Name=gpu File={self.folder}/dev/gpu[0-{count - 1}]\n"
        )
        self._write_environments()

    def _write_environments(self) -> None:
        seen = self._libraries.serve(self._machine, self.folder / "nvml")
        for number, card in enumerate(self._machine.cards):
            write(replace(self._machine, cards=(card,)), self.folder / f"nvml-{number}")
        for name, env in self._nodes.items():
            lines = [f"echo 'export {key}={value}'\n" for key, value in {**seen, **env}.items()]
            (self.folder / f"environment-{name}").write_text("".join(lines))
        (self.folder / "without-epilog").touch()
        for name, text in (("task-prolog", TASK_PROLOG), ("epilog", EPILOG_OF_A_NODE)):
            program = self.folder / name
            program.write_text(text.format(folder=self.folder, epilog=EPILOG))
            program.chmod(0o755)

    def _launch(self, *words: str) -> None:
        program = shutil.which(words[0], path=f"{SYSTEM}:/usr/local/sbin")
        if program is None:
            raise LabError(f"no {words[0]} on this machine", INSTALL)
        with (self.folder / "said").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", program, *words[1:]],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | self.env,
                    start_new_session=True,
                )
            )

    def _is_up(self) -> bool:
        if any(process.poll() is not None for process in self._processes):
            raise LabError(f"Slurm died:\n{(self.folder / 'said').read_text()}", INSTALL)
        states = self.said("sinfo", "-h", "-N", "-p", "each", "-o", "%T", check=False).split()
        return states == ["idle"] * len(self._nodes)

    # --- its jobs

    def said(self, *words: str, check: bool = True) -> str:
        """The output of one of Slurm's commands."""
        done = subprocess.run(
            words, env=os.environ | self.env, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{words}: {done.stderr}")
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What the controller says of a job: JobState, ExitCode, Restarts and so on."""
        words = self.said("scontrol", "-o", "show", "job", number).split()
        return dict(word.partition("=")[::2] for word in words)

    def outlast(self, *numbers: str) -> None:
        """Wait until Slurm is done with jobs, their epilogs too."""
        words = ("squeue", "-h", "-t", "all", "-o", "%T", "-j", ",".join(numbers))
        active = {"PENDING", "RUNNING", "COMPLETING"}
        wait_until(lambda: active.isdisjoint(self.said(*words).split()), what="the jobs' end")

    def code(self, number: str) -> int:
        """The exit code of a job, or minus the signal that ended it; waits for its end."""
        wait_until(lambda: number in self._ended(), what=f"the end of job {number}")
        return self._ended()[number]

    def codes(self, array: str) -> dict[int, int]:
        """Those of the tasks of an array, after their end."""
        self.outlast(array)
        said = self.said("scontrol", "-o", "show", "job", array)
        found = re.findall(r" ArrayTaskId=(\d+) .*? ExitCode=(\d+):", said)
        return {int(task): int(code) for task, code in found}

    def _ended(self) -> dict[str, int]:
        text = (self.folder / "ended").read_text()
        found = re.findall(r"^JobId=(\d+) .*? ExitCode=(\d+):(\d+)", text, re.MULTILINE)
        return {number: int(code) or -int(killed) for number, code, killed in found}

    def without_epilog(self, number: str) -> None:
        with (self.folder / "without-epilog").open("a") as file:
            file.write(f"{number}\n")

    def clear(self) -> None:
        """End all jobs, and wait until the nodes are done with them."""
        self.said("scancel", "--user=root")
        wait_until(lambda: not self.said("squeue", "-h"), what="an empty queue")
