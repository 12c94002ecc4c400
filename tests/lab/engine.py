"""A real Docker Engine as a child process: own data, socket, bridge, process and mount namespace.

Leaves nothing behind, whichever way it or its parent ends, and touches no other engine. Knows no
images and no tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from shutil import which
from typing import Literal

from lab import gpus
from lab.certificates import make_certificates
from lab.errors import LabError
from lab.machine import INSTALL, SYSTEM, found, free_port, require_root
from lab.newer import newer_engine
from lab.server import Server
from lab.traces import add_bridge, new_folder, remove, sweep
from lab.waiting import PATIENCE, wait_until

Kind = Literal["stable", "cdi", "podman"]  # the last is lab.podman's
Network = Literal["tcp", "tls"]

# All that dockerd and its children start. A PATH of just these keeps a real NVIDIA hook out.
NEEDED = ("dockerd", "containerd", "containerd-shim-runc-v2", "runc", "docker-proxy", "docker-init")
USEFUL = (
    *("iptables", "ip6tables", "ip", "modprobe", "mount", "umount", "ps", "sh"),
    *("git", "pigz", "unpigz", "xz"),
)
# Kills everything with its parent; the shell stays PID 1, where dockerd would leave zombies. The
# tmpfs hides a system containerd and takes the sockets of killed shims with it. What a killed
# dockerd wrote about its processes is wrong in the next one's process namespace. The machine's
# forwarding is not switched on, so dockerd reads that it is: else each box comes with a warning.
ENCLOSE = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--propagation", "slave"),
    *("--pid", "--fork", "--kill-child=KILL", "--mount-proc"),
    *("sh", "-c"),
)
BOOT = (
    "mkdir -p /run/containerd && mount -t tmpfs tmpfs /run/containerd && "
    'echo 1 >"$0/on" && mount --bind "$0/on" /proc/sys/net/ipv4/ip_forward && '
    'rm -rf "$0/pid" "$0/exec" && env PATH="$0/bin" TMPDIR="$0/tmp" "$@"; exit $?'
)
SMALL_DISK = ("sh", "-c", 'mount -t tmpfs -o "size=$0" tmpfs "$1" && shift && exec "$@"')


class PrivateEngine(Server):
    """A dockerd of this process, `stable` or `cdi`; start it from a thread that outlives it.

    `stable` is the distribution's with NVIDIA's hook simulated, `cdi` a newer one with CDI specs
    and no hook. `gpu_count=0` is an engine without any GPU support. `group` may use the socket.
    With `network` it also listens on loopback, plainly or to those with its certificates. With
    `disk`, a size like `32m`, its data has that much room in memory, and does not outlive `kill`.
    `config` goes into its daemon.json.
    """

    def __init__(
        self,
        kind: Kind = "stable",
        *,
        gpu_count: int = 4,
        network: Network | None = None,
        group: str = "root",
        disk: str = "",
        config: Mapping[str, object] | None = None,
    ) -> None:
        self.kind = kind
        self._config = dict(config or {})
        self.group = group
        self._disk = disk
        self.simulated = gpus.simulated(gpu_count)
        self.gpus = [gpu.uuid for gpu in self.simulated]
        self._network = network
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0
        self._held = contextlib.ExitStack()
        self.folder = Path()
        self.network_host = ""

    # What a client needs -----------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Also the name of the bridge and of the cgroup."""
        return self.folder.name.split("_")[0]

    @property
    def host(self) -> str:
        return f"unix://{self.folder}/s"

    @property
    def docker(self) -> Path:
        """The docker program that fits this engine."""
        return self.folder / "client/docker"

    @property
    def env(self) -> dict[str, str]:
        """What makes a client talk to this engine, its own docker program coming first."""
        return {
            "DOCKER_HOST": self.host,
            "DOCKER_CONFIG": str(self.folder / "config"),
            "PATH": f"{self.folder}/client:{os.environ.get('PATH', SYSTEM)}",
        }

    @property
    def network_env(self) -> dict[str, str]:
        """What makes a client come by its network listener instead of the socket."""
        there = {"DOCKER_HOST": self.network_host}
        if self._network == "tls":
            there |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(self.certificates)}
        return self.env | there

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    def environ(self, **more: str) -> dict[str, str]:
        """The whole environment for a child process: this one's, with no other Docker in it."""
        mine = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
        return mine | self.env | more

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def pid(self) -> int:
        """The first process of the engine's process namespace: all else dies with it."""
        return self._init

    # Its life ----------------------------------------------------------------------------------

    def start(self) -> PrivateEngine:
        """Up and answering, in well under a second; after `kill` with the data it had."""
        if self._process is not None:
            raise RuntimeError("this engine is running")
        if self.folder == Path():
            self._prepare()
        try:
            self._launch()
        except BaseException:
            self.stop()
            raise
        return self

    def kill(self) -> None:
        """The engine and all its containers die at once, as by a power cut; its data stays."""
        if self._process is None:
            return
        if self._process.poll() is None:
            # Not the parent: it returns only when the last process in there is gone.
            os.kill(self._init or self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        self._init = 0

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> None:
        """Killed, and every trace of it removed."""
        self.kill()
        if self.folder != Path():
            remove(self.folder)
            self._held.close()
            self.folder = Path()

    # How it is made ----------------------------------------------------------------------------

    def _prepare(self) -> None:
        require_root()
        sweep()
        search = f"{SYSTEM}:/usr/local/sbin:/usr/local/bin"
        if self.kind == "cdi":
            prefix = newer_engine()
            search = f"{prefix}/usr/bin:{prefix}/usr/sbin:{prefix}/usr/libexec/docker:{search}"
        self.folder, lock = new_folder()
        self._held.callback(os.close, lock)
        try:
            self._furnish(search)
        except BaseException:
            self.stop()
            raise

    def _furnish(self, search: str) -> None:
        for name in ("bin", "client", "config", "data", "tmp"):
            (self.folder / name).mkdir()
        link_programs(self.folder / "bin", search)
        (self.folder / "client/docker").symlink_to(found("docker", search))
        self._write_gpus()
        if self._network:
            self.network_host = f"tcp://127.0.0.1:{free_port()}"
        if self._network == "tls":
            make_certificates(self.certificates)
        add_bridge(self.name)

    def _write_gpus(self) -> None:
        config = self._config
        if self.kind == "cdi":  # of its own even if empty: never the machine's /etc/cdi
            config = config | {"cdi-spec-dirs": [f"{self.folder}/cdi"]}
            (self.folder / "cdi").mkdir()
        (self.folder / "daemon.json").write_text(json.dumps(config))
        if not self.simulated:
            return
        identities = self.folder / "gpus"
        gpus.write_identities(identities, self.simulated)
        program = gpus.write_nvidia_smi(self.folder)
        if self.kind == "cdi":
            gpus.write_cdi_spec(self.folder / "cdi", identities, program, self.simulated)
        else:
            gpus.write_hook(self.folder / "bin")

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._boot(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": SYSTEM} | _proxies(),
                start_new_session=True,  # Ctrl-C is for the program that was started, not for it
            )
        wait_until(self._answers, what="the engine's first answer")

    def _boot(self) -> list[str]:
        """The whole command line: the enclosure, and the engine in it."""
        disk = [*SMALL_DISK, self._disk, f"{self.folder}/data"] if self._disk else []
        return [*ENCLOSE, BOOT, str(self.folder), *disk, *self._command()]

    def _command(self) -> list[str]:
        folder = self.folder
        return [
            *(f"{folder}/bin/dockerd", "--config-file", f"{folder}/daemon.json"),
            *("--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"),
            *("--pidfile", f"{folder}/pid", "-G", self.group),
            *self._listeners(),
            # Any other way takes docker0 or the first engine's firewall rules away from it.
            *("--bridge", self.name, "--iptables=false", "--ip6tables=false"),
            *("--ip-forward=false", "--ip-masq=false"),
            *("--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{self.name}"),
        ]

    def _listeners(self) -> list[str]:
        unix, network = ["-H", self.host], ["-H", self.network_host]
        if not self._network:
            return unix
        if self._network == "tcp":
            return [*unix, *network, "--tls=false"]
        own = self.certificates / "server"
        pair = [f"--tlscert={own}/cert.pem", f"--tlskey={own}/key.pem"]
        return [*unix, *network, "--tlsverify", f"--tlscacert={self.certificates}/ca.pem", *pair]

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise LabError(f"the private {self.kind} engine died:\n{self._last_words()}", INSTALL)
        self._init = self._init or _only_child(self._process.pid)
        return pings(self.folder / "s")

    def _last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def link_programs(folder: Path, search: str) -> None:
    for program in NEEDED + USEFUL:
        if path := found(program, search) if program in NEEDED else which(program, path=search):
            (folder / program).symlink_to(path)


def pings(path: Path) -> bool:
    """Whether an engine answers on this socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(str(path))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 OK" in connection.recv(100)
        except (FileNotFoundError, ConnectionError):
            return False


def _proxies() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}


def _only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else 0
