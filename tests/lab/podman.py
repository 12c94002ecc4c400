"""A real Podman behind its Docker-compatible service, as private as the lab's Docker Engines.

Knows no GPUs, for Podman gives none, and no tests. What it publishes is in a network namespace of
its own: `PrivatePodman.fetch` looks in.
"""

from __future__ import annotations

import subprocess

from lab.engine import ENCLOSE, PrivateEngine
from lab.errors import LabError
from lab.images import busybox
from lab.machine import SYSTEM, found
from lab.traces import add_cgroups

INSTALL = "apt-get install podman catatonit iptables"
# What this service shares with no other Podman: its place among the cgroups, which its own cgroup
# namespace takes for the top, and where each Podman notes its networks, boxes and locks.
JOIN = """
set -e
for top in $1; do echo 0 >"$top/$0/cgroup.procs"; done
shift
exec unshare --net --cgroup "$@"
"""
BOOT = """
set -e
for top in $2; do mount --bind "$top/$1" "$top"; done
for place in /run /var /dev/shm; do mount -t tmpfs tmpfs "$place"; done
mkdir -p /var/lib /var/cache /var/tmp
ln -s /run /var/run
ip link set lo up
rm -rf "$0/exec"
shift 2
env HOME="$0" TMPDIR="$0/tmp" CONTAINERS_CONF="$0/containers.conf" \
    CONTAINERS_STORAGE_CONF="$0/storage.conf" \
    CONTAINERS_REGISTRIES_CONF="$0/registries.conf" "$@"
exit $?
"""
# No hook of the machine's, which could be NVIDIA's; limits that a service in a container may set.
CONTAINERS = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
hooks_dir = ["{folder}/hooks"]
init_path = "{init}"
tmp_dir = "{folder}/exec"
[network]
network_config_dir = "{folder}/networks"
"""
STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/data"
runroot = "{folder}/exec/storage"
"""
# The lab's registries, which Docker takes over plain HTTP without a word; short names as ever.
REGISTRIES = """\
unqualified-search-registries = ["docker.io"]
[[registry]]
location = "127.0.0.1"
insecure = true
"""


class PrivatePodman(PrivateEngine):
    """A `podman system service` of this process; lives and ends as any other of the lab's engines.

    Without `init` the program that `--init` needs is missing, as Debian's package leaves it.
    """

    def __init__(self, *, init: bool = True) -> None:
        super().__init__("podman", gpu_count=0)
        self._with_init = init
        self._tops = ""

    def fetch(self, url: str) -> str:
        """What is answered at `url` on the machine that this service takes for its own."""
        inside = ["nsenter", "--target", str(self.pid), "--net"]
        wget = [str(busybox()), "wget", "-q", "-O-", url]
        return subprocess.run([*inside, *wget], capture_output=True, text=True, check=False).stdout

    def _furnish(self, search: str) -> None:
        for name in ("client", "config", "data", "hooks", "networks", "tmp"):
            (self.folder / name).mkdir()
        (self.folder / "client/docker").symlink_to(found("docker", search))
        for program in ("podman", "conmon", "runc", "iptables"):
            _needed(program)
        init = _needed("catatonit") if self._with_init else f"{self.folder}/no-catatonit"
        for name, text in (
            ("containers.conf", CONTAINERS),
            ("storage.conf", STORAGE),
            ("registries.conf", REGISTRIES),
        ):
            (self.folder / name).write_text(text.format(folder=self.folder, init=init))
        self._tops = " ".join(str(top) for top in add_cgroups(self.name))

    def _boot(self) -> list[str]:
        service = ["podman", "system", "service", "--time=0", self.host]
        within = [*ENCLOSE, BOOT, str(self.folder), self.name, self._tops, *service]
        return ["sh", "-c", JOIN, self.name, self._tops, *within]


def _needed(program: str) -> str:
    try:
        return found(program, SYSTEM)
    except LabError as error:
        raise LabError(f"no {program} on this machine", INSTALL) from error
