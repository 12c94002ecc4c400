"""Which container a process is in, by texts of /proc/PID/cgroup from machines of every kind."""

from __future__ import annotations

import pytest

from gpubox.gpus.cgroups import containers

A = "3f1c6d0a9b7e4c25a8d1f06b93e27c4d5a60b81f7c92e3d4061f5a8b7c9d0e1f"
B = "b94e7a1d2c3f40586e9a7b8c0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f60718293a"

POD = "pod6b1d3c0e_7f7d_4c0e_9a55_0d3a1f2b4c6d"

V1 = """12:pids:{path}
11:hugetlb:{path}
10:devices:{path}
9:cpu,cpuacct:{path}
5:memory:{path}
1:name=systemd:{path}
0::{unified}
"""


def v1(path: str, unified: str = "/") -> str:
    return V1.format(path=path, unified=unified)


def v2(path: str) -> str:
    return f"0::{path}\n"


SEEN = {
    # Docker
    "v1, cgroupfs": (v1(f"/docker/{A}"), (A,)),
    "v1, cgroupfs, containerd's unified": (v1(f"/docker/{A}", "/system.slice/containerd"), (A,)),
    "v1, systemd": (v1(f"/system.slice/docker-{A}.scope"), (A,)),
    "v1, a parent of one's own": (v1(f"/students/anna/{A}"), (A,)),
    "v2, cgroupfs": (v2(f"/docker/{A}"), (A,)),
    "v2, systemd": (v2(f"/system.slice/docker-{A}.scope"), (A,)),
    "v2, a slice of one's own": (v2(f"/gpu.slice/gpu-anna.slice/docker-{A}.scope"), (A,)),
    "v2, systemd inside": (v2(f"/system.slice/docker-{A}.scope/init.scope"), (A,)),
    "v2, a group made inside": (v2(f"/docker/{A}/job_1/step_0"), (A,)),
    "v2, seen from another group": (v2(f"/../../docker-{A}.scope"), (A,)),
    "v2, ended": (v2(f"/system.slice/docker-{A}.scope (deleted)"), (A,)),
    "rootless, systemd": (
        v2(f"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope"),
        (A,),
    ),
    "rootless, cgroupfs": (
        v2(f"/user.slice/user-1000.slice/user@1000.service/app.slice/docker.service/docker/{A}"),
        (A,),
    ),
    "rootless, without cgroups": (
        v2("/user.slice/user-1000.slice/user@1000.service/app.slice/docker.service"),
        (),
    ),
    "in a container's own Docker, v1": (v1(f"/docker/{A}/docker/{B}"), (A, B)),
    "in a container's own Docker, v2": (
        v2(f"/system.slice/docker-{A}.scope/docker/{B}"),
        (A, B),
    ),
    "another one for one controller": (
        f"3:devices:/docker/{A}\n2:memory:/docker/{A}/docker/{B}\n1:name=systemd:/\n",
        (A, B),
    ),
    # others
    "Podman, systemd": (v2(f"/machine.slice/libpod-{A}.scope/container"), (A,)),
    "Podman, cgroupfs": (v2(f"/libpod_parent/libpod-{A}"), (A,)),
    "Podman, rootless": (
        v2(f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container"),
        (A,),
    ),
    "Podman's monitor": (v2(f"/machine.slice/libpod-conmon-{A}.scope"), ()),
    "Kubernetes, containerd, systemd": (
        v2(
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-{POD}.slice/cri-containerd-{A}.scope"
        ),
        (A,),
    ),
    "Kubernetes, containerd's own group": (
        v2(f"/system.slice/containerd.service/kubepods-{POD}.slice:cri-containerd:{A}"),
        (A,),
    ),
    "Kubernetes, CRI-O": (v1(f"/kubepods.slice/kubepods-{POD}.slice/crio-{A}.scope"), (A,)),
    "Kubernetes, CRI-O's monitor": (v1(f"/kubepods.slice/crio-conmon-{A}.scope"), ()),
    "Kubernetes, cgroupfs": (v1(f"/kubepods/besteffort/{POD}/{A}"), (A,)),
    # none
    "a login": (v2("/user.slice/user-1000.slice/session-4.scope"), ()),
    "a service": (v1("/system.slice/cron.service"), ()),
    "Slurm": (v1("/slurm/uid_1000/job_4711/step_0/task_0"), ()),
    "LXC": (v2("/lxc.payload.anna/system.slice/ssh.service"), ()),
    "the root": (v2("/"), ()),
    "a folder by a shorter number": (v2(f"/docker/{A[:63]}"), ()),
    "a folder by a longer number": (v2(f"/docker/{A}0"), ()),
    "a folder in capitals": (v2(f"/docker/{A.upper()}"), ()),
    "a colon in a name": (v2(f"/a:b/docker-{A}.scope"), (A,)),
    "nothing": ("", ()),
    "no text of the kernel's": ("docker\n\n::\n", ()),
}


@pytest.mark.parametrize("name", SEEN)
def test_a_cgroup_tells_the_container(name: str) -> None:
    text, found = SEEN[name]
    assert containers(text) == found
