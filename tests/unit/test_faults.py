"""What engines were seen to say, and what it means to the person: problem, fix, exit code.

The texts are of Docker 20.10 (OLD) and 28 (NEW) and of Podman 4.3 (PODMAN), with their prefixes.
"""

from __future__ import annotations

import ast
import re
import socket
from pathlib import Path

import pytest

from gpubox.engine import faults
from gpubox.engine.build_faults import explain_build
from gpubox.engine.faults import (
    explain,
    is_gpu_refusal,
    is_init_failure,
    is_name_taken,
    is_port_taken,
)
from gpubox.engine.streams import SocketStream
from lab.frames import frame

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
BEGIN, END = "<!-- faults -->\n", "<!-- /faults -->\n"

_RUNC = "OCI runtime create failed: runc create failed: unable to start container process: "
OLD = f"failed to create shim task: {_RUNC}"
NEW = f"failed to create task for container: failed to create shim task: {_RUNC}"
PODMAN = (
    "preparing container 0123 for attach: runc: runc create failed: unable to start container"
    " process: "
)
OLD_HOOK = (
    f"{OLD}error during container init: error running hook #0: error running hook: exit status 1,"
    " stdout: , stderr: "
)
NEW_HOOK = (
    f"{NEW}error during container init: error running prestart hook #0: exit status 1, stdout: ,"
    " stderr: Auto-detected mode as 'legacy'\n"
)
NETWORK = "driver failed programming external connectivity on endpoint box (0123): "
MOUNT = 'error during container init: error mounting "/etc/hosts" to rootfs at "/tmp": mount '
CLI = "nvidia-container-cli: "
HEAD = "unexpected status from HEAD request to https://h/v2/a/b/manifests/c: "

# the engine's text; words of the problem; words of the fix
FAULTS = [
    # GPUs
    (
        'could not select device driver "" with capabilities: [[gpu]]',
        "no NVIDIA support",
        "install nvidia-container-toolkit",
    ),
    (
        'could not select device driver "nvidia" with capabilities: []',
        "no NVIDIA support",
        "restart docker",
    ),
    (
        'could not select device driver "cdi" with capabilities: []',
        "CDI support is off",
        "features.cdi",
    ),
    (
        "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=9",
        "no GPU 'nvidia.com/gpu=9'",
        "nvidia-ctk cdi list",
    ),
    (
        f"{NEW}CDI device injection failed: unresolvable CDI devices vendor.com/net=7: unknown",
        "no CDI device 'vendor.com/net=7'",
        "docker info",
    ),
    (
        f"{NEW}CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=7,"
        " nvidia.com/gpu=0:1: unknown",
        "no GPU 'nvidia.com/gpu=7, nvidia.com/gpu=0:1'",
        "--gpus none",
    ),
    (f"{OLD_HOOK}{CLI}device error: 7: unknown device: unknown", "no GPU 7", "nvidia-smi -L"),
    (f"{NEW_HOOK}{CLI}device error: 7: unknown device", "no GPU 7", "nvidia-smi -L"),
    (
        f"{NEW_HOOK}{CLI}initialization error: nvml error: driver not loaded",
        "driver is not loaded",
        "nvidia-smi must work",
    ),
    (
        f"{OLD_HOOK}{CLI}initialization error: load library failed: libnvidia-ml.so.1: cannot open"
        " shared object file: no such file or directory: unknown",
        "find no driver",
        "nvidia-smi must work",
    ),
    (
        f"{NEW_HOOK}{CLI}requirement error: unsatisfied condition: cuda>=12.8, please update your"
        " driver to a newer version, or use an earlier cuda container",
        "too old for a/b:c: it needs cuda>=12.8",
        "take an older CUDA",
    ),
    (
        f"{OLD_HOOK}{CLI}requirement error: unsatisfied condition: cuda >= 10.0: unknown",
        "too old for a/b:c: it needs cuda >= 10.0",
        "take an older CUDA",
    ),
    (
        f"{OLD_HOOK}{CLI}requirement error: unsatisfied condition: arch>=9.0: unknown",
        "a/b:c asks for arch>=9.0, and this machine is otherwise",
        "gpubox images lists",
    ),
    (
        f"{NEW_HOOK}{CLI}initialization error: nvml error: driver/library version mismatch",
        "the old one is still loaded",
        "reboot",
    ),
    (
        f"{NEW_HOOK}{CLI}mount error: failed to add device rules",
        "tools failed: mount error: failed to add device rules",
        "--gpus none",
    ),
    (
        f"{OLD_HOOK}{CLI}mount error: failed to add device rules: unknown",
        "tools failed: mount error: failed to add device rules",
        "nvidia-smi must work",
    ),
    ("Unknown runtime specified nvidia", "no runtime 'nvidia'", "nvidia-ctk runtime configure"),
    (
        "unknown or invalid runtime name: nvidia",
        "no runtime 'nvidia'",
        "nvidia-ctk runtime configure",
    ),
    # ports and names
    (
        f"{NETWORK}Bind for 0.0.0.0:18091 failed: port is already allocated",
        "port 0.0.0.0:18091 is taken by another container",
        "docker ps",
    ),
    (
        f"{NETWORK}Error starting userland proxy: listen tcp4 0.0.0.0:18090: bind: address already"
        " in use",
        "port 0.0.0.0:18090 is taken by a program",
        "ss -ltnp",
    ),
    (
        f"{NETWORK}failed to bind host port for 127.0.0.1:18090:172.17.0.2:80/tcp: address already"
        " in use",
        "port 127.0.0.1:18090 is taken by a program",
        "ss -ltnp",
    ),
    (
        f"{NETWORK}listen tcp4 10.9.9.9:80: bind: cannot assign requested address",
        "10.9.9.9 is no address of the engine's machine",
        "ip address",
    ),
    (
        f"failed to set up container networking: {NETWORK}failed to bind host port for"
        " 203.0.113.9:18080:172.17.0.2:80/tcp: cannot assign requested address",
        "203.0.113.9 is no address of the engine's machine",
        "ip address",
    ),
    (
        f"failed to set up container networking: {NETWORK}failed to bind host port for"
        " [2001:db8::1]::172.17.0.2:80/tcp: cannot assign requested address",
        "[2001:db8::1] is no address of the engine's machine",
        "ip address",
    ),
    (
        f"{NETWORK}listen tcp4 127.0.0.1:80: bind: permission denied",
        "port 127.0.0.1:80 is below 1024",
        "higher port",
    ),
    (
        'Conflict. The container name "/box" is already in use by container "0123". You have to'
        " remove (or rename) that container to be able to reuse that name.",
        "the name 'box' is taken",
        "docker rm box",
    ),
    (
        'creating container storage: the container name "box" is already in use by 0123. You have'
        " to remove that container to be able to reuse that name: that name is already in use",
        "the name 'box' is taken",
        "docker rm box",
    ),
    # mounts and devices
    (
        'invalid mount config for type "bind": bind source path does not exist: /x',
        "no folder /x on the engine's machine",
        "make it there first",
    ),
    (
        'invalid mount config for type "bind": stat /nfs/x: permission denied',
        "may not look into /nfs/x",
        "root_squash",
    ),
    (
        f"{OLD}{MOUNT}/etc/hosts:/tmp (via /proc/self/fd/6), flags: 0x5000: not a directory:"
        " unknown",
        "/etc/hosts cannot be mounted on /tmp of the box",
        "a file on a file",
    ),
    (
        f"{NEW}{MOUNT}src=/etc/hosts, dst=/tmp, flags=MS_BIND|MS_REC: not a directory: Are you"
        " trying to mount a directory onto a file (or vice-versa)?",
        "/etc/hosts cannot be mounted on /tmp of the box",
        "a file on a file",
    ),
    (
        f'{NEW}error during container init: error mounting "/d" to rootfs at "/proc/x":'
        ' "/data/merged/proc/x" cannot be mounted because it is inside /proc',
        "nothing can be mounted on /proc/x",
        "another place",
    ),
    (
        f'{OLD}error during container init: error mounting "/e" to rootfs at "/x/y": mkdir /y:'
        " read-only file system: unknown",
        "/x/y lies in a folder that is mounted read-only",
        "make it there first",
    ),
    (
        f'{OLD}error during container init: error mounting "/d" to rootfs at "/etc/hosts/x": open'
        " o_path procfd: open /data/merged/etc/hosts/x: not a directory: unknown",
        "nothing can be mounted on /etc/hosts/x of the box",
        "another place",
    ),
    ("Duplicate mount point: /m", "two mounts on /m", "gpubox profiles"),
    (
        f"{OLD}path / is mounted on / but it is not a shared or slave mount: unknown",
        "/ is not a shared mount",
        "make-rshared /",
    ),
    (
        'error gathering device information while adding custom device "/dev/nvidia7": no such'
        " file or directory",
        "no device /dev/nvidia7",
        "--device",
    ),
    (
        'error gathering device information while adding custom device "/etc/hosts": not a device'
        " node",
        "/etc/hosts on the engine's machine is no device",
        "-v /etc/hosts:/etc/hosts",
    ),
    # limits
    (
        f"{NEW}error during container init: error setting rlimits for ready process: error setting"
        " rlimit type 8: operation not permitted",
        "may not raise the memlock limit",
        "LimitMEMLOCK",
    ),
    (
        f"{OLD}error setting rlimits for ready process: error setting rlimit type 7: operation not"
        " permitted: unknown",
        "may not raise the nofile limit",
        "LimitNOFILE",
    ),
    ("Minimum memory limit allowed is 6MB", "the least is 6MB", "-m 8g"),
    (
        "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        "0.01 to 2.00",
        "--cpus",
    ),
    (
        f"{OLD}error during container init: error setting cgroup config for procHooks process:"
        ' failed to write "100": write /sys/fs/cgroup/cpu/docker/0123/cpu.cfs_quota_us: invalid'
        " argument",
        "the least is 0.01",
        "--cpus",
    ),
    # user, folder, network, API
    (
        "unable to find user x: no matching entries in passwd file",
        "the image has no user 'x'",
        "--user UID:GID",
    ),
    (
        "unable to find group x: no matching entries in group file",
        "the image has no group 'x'",
        "--user UID:GID",
    ),
    (
        "uids and gids must be in range 0-2147483647",
        "number is outside 0-2147483647",
        "--user",
    ),
    (
        "Cannot mkdir: /etc/hosts is not a directory",
        "/etc/hosts cannot be the working directory",
        "--workdir",
    ),
    (
        f"lstat /var/lib/docker/overlay2/{64 * 'a'}/merged/etc/hosts/x: not a directory",
        "/etc/hosts/x cannot be the working directory",
        "--workdir",
    ),
    (
        f"cannot join network of a non running container: {64 * 'a'}",
        f"the container {64 * 'a'}",
        "docker start",
    ),
    (
        "cannot join network namespace of a non running container: container train is created",
        "the container train, which",
        "docker start train",
    ),
    (
        "can't join IPC of container 0123: container 0123 is not running",
        "the container 0123",
        "docker start",
    ),
    (
        "failed to join IPC namespace: container 0123 is not running",
        "the container 0123",
        "docker start",
    ),
    ("Invalid IPC mode: nonsense", "no IPC mode 'nonsense'", "container:NAME"),
    ('invalid --security-opt 1: "nonsense"', "no security option 'nonsense'", "seccomp=FILE"),
    (
        "failed to create shim task: OCI runtime create failed: runc create failed: string ALLOW is"
        " not a valid action for seccomp: unknown",
        "names 'ALLOW', and there is no such action",
        "seccomp=",
    ),
    ("network lab not found", "no network 'lab'", "docker network ls"),
    (
        "client version 1.99 is too new. Maximum supported API version is 1.51",
        "API 1.99",
        "20.10 or newer",
    ),
    # pulls
    (
        "manifest for a/b:c not found: manifest unknown: manifest unknown",
        "the registry has no image a/b:c",
        "check the name and the tag",
    ),
    (
        'failed to resolve reference "docker.io/a/b:c": docker.io/a/b:c: not found',
        "the registry has no image a/b:c",
        "check the name and the tag",
    ),
    (
        "pull access denied for a/b, repository does not exist or may require 'docker login':"
        " denied: requested access to the resource is denied",
        "gives no a/b:c",
        "docker login",
    ),
    (
        'Head "https://h/v2/a/b/manifests/c": unauthorized: authentication required',
        "gives no a/b:c",
        "docker login",
    ),
    (f"{HEAD}401 Unauthorized", "gives no a/b:c", "docker login"),
    (f"{HEAD}403 Forbidden", "gives no a/b:c", "docker login"),
    (f"{HEAD}429 Too Many Requests", "too many requests", "docker login"),
    (f"{HEAD}503 Service Unavailable", "has failed: 503 Service Unavailable", "later"),
    ("received unexpected HTTP status: 502 Bad Gateway", "has failed: 502 Bad Gateway", "later"),
    ("toomanyrequests: You have reached your pull rate limit", "too many requests", "wait"),
    ('error parsing HTTP 429 response body: "<html>"', "too many requests", "wait"),
    (
        "error parsing HTTP 404 response body: invalid character '<' looking for beginning of"
        ' value: "<html>The page you asked for: not found; access denied</html>"',
        "what answers as the registry of a/b:c is none (HTTP 404)",
        "a proxy",
    ),
    (
        'Get "https://h/v2/": net/http: request canceled (Client.Timeout exceeded while awaiting'
        " headers)",
        "does not answer",
        "try again",
    ),
    (
        'Get "https://h/v2/": dial tcp: lookup h on 10.0.0.1:53: no such host',
        "cannot be found",
        "proxy of the engine",
    ),
    (
        'Get "https://h/v2/": dial tcp 10.0.0.2:443: connect: connection refused',
        "does not answer",
        "try again",
    ),
    (
        'Get "https://h:5000/v2/": http: server gave HTTP response to HTTPS client',
        "speaks plain HTTP",
        "insecure-registries",
    ),
    (
        'Get "https://h/v2/": tls: failed to verify certificate: x509: certificate signed by'
        " unknown authority",
        "not trusted by the engine: certificate signed by unknown authority",
        "ca.crt",
    ),
    ("filesystem layer verification failed for digest sha256:00", "damaged layer", "try again"),
    ("unknown blob", "has lost a layer of a/b:c", "another registry"),
    ("unexpected commit digest sha256:00, expected sha256:11", "damaged layer", "try again"),
    (
        "failed to register layer: Error processing tar file(exit status 1): write /a: no space"
        " left on device",
        "the disk is full",
        "docker image prune",
    ),
    (
        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been"
        " removed",
        "schema 1",
        "newer tag",
    ),
    ("No such image: a/b:c", "no image a/b:c on the engine", "--pull never"),
    ("no such image: a/b:c: invalid reference format", "'a/b:c' is not an image's name", "[:TAG]"),
    (
        'Head "https://h:5000/v2/": tls: first record does not look like a TLS handshake',
        "speaks plain HTTP",
        "insecure-registries",
    ),
    (
        "You cannot remove a running container 0123. Stop the container before attempting removal",
        "it runs",
        "stop it",
    ),
    (
        'cannot remove container "/a": container is running: stop the container before removing',
        "it runs",
        "stop it",
    ),
    (
        'conflict: unable to remove repository reference "a/b:c" (must force) - container 0123 is'
        " using its referenced image 4567",
        "the container 0123 has this image",
        "gpubox ps -a",
    ),
    (
        "conflict: unable to delete 4567 (cannot be forced) - image is being used by running"
        " container 0123",
        "the container 0123 has this image",
        "gpubox ps -a",
    ),
    # Podman's own
    (
        "container create: container-init binary not found on the host: stat"
        " /usr/libexec/podman/catatonit: no such file or directory",
        "no init program",
        "--no-init",
    ),
    (
        'preparing container 0123 for attach: workdir "/etc/hosts" exists on container 0123, but'
        " is not a directory",
        "/etc/hosts cannot be the working directory",
        "--workdir",
    ),
    (
        "container create: unable to find network with name or ID lan: network not found",
        "no network 'lan'",
        "network ls",
    ),
    (
        "container create: looking up container to share net namespace with: no container with"
        ' name or ID "db" found: no such container',
        "no container 'db'",
        "gpubox ps -a",
    ),
    ('container create: "CAP_NOPE": unknown capability', "'CAP_NOPE'", "man 7 capabilities"),
    (
        "runc: runc create failed: unable to start container process: error during container init:"
        " error setting cgroup config for procHooks process: unable to set memory limit to 1048576"
        " (current usage: 2650112, peak usage: 3002368): OCI runtime error",
        "the memory limit is too small",
        "-m 8g",
    ),
]

COMMANDS = [
    (f'{OLD}exec: "nope": executable file not found in $PATH: unknown', "'nope'", 127),
    (
        f'{NEW}error during container init: exec: "nope": executable file not found in $PATH',
        "'nope'",
        127,
    ),
    (f'{OLD}exec: "/nope": stat /nope: no such file or directory: unknown', "'/nope'", 127),
    (f'{NEW}exec: "/nope": stat /nope: no such file or directory', "'/nope'", 127),
    (f'{PODMAN}exec: "nope": executable file not found in $PATH', "'nope'", 127),
    (f'{OLD}exec: "/bin": permission denied: unknown', "'/bin'", 126),
    (f'{NEW}exec: "/bin": is a directory', "'/bin'", 126),
    (f'{PODMAN}exec: "/etc/hosts": permission denied', "'/etc/hosts'", 126),
    ("[FATAL tini (7)] exec nope failed: No such file or directory\n", "'nope'", 127),
    ("[FATAL tini (7)] exec  failed: No such file or directory\n", "''", 127),
    ("[FATAL tini (7)] exec /tmp failed: Permission denied\r\n", "'/tmp'", 126),
    (f'{OLD}exec: "/a/b": stat /a/b: not a directory: unknown: Are you', "'/a/b'", 125),
    (f"{NEW}exec /data/x.sh: exec format error", "another kind of processor", 126),
]

# Words of the command's own faults in a text that is about something else.
TRAPS = [
    (
        f'{OLD_HOOK}exec: "nvidia-container-runtime-hook": executable file not found in $PATH:'
        " unknown",
        "nvidia-container-toolkit was removed",
    ),
    (
        f'{NEW_HOOK}exec: "/usr/bin/nvidia-container-runtime-hook": stat'
        " /usr/bin/nvidia-container-runtime-hook: no such file or directory",
        "nvidia-container-toolkit was removed",
    ),
    (
        "fork/exec /usr/bin/nvidia-container-runtime-hook: no such file or directory",
        "nvidia-container-toolkit was removed",
    ),
    ("/dev/nvidia7: no such file or directory", "no device /dev/nvidia7"),
    ("stat nvidia.com/gpu=0: no such file or directory", "no device nvidia.com/gpu=0"),
    (
        'invalid mount config for type "bind": stat /nfs/x: permission denied',
        "may not look into /nfs/x",
    ),
    (
        f'{OLD}chdir to cwd ("/root/x") set in config.json failed: permission denied: unknown',
        "cannot start in /root/x",
    ),
    (f"{NETWORK}listen tcp4 127.0.0.1:80: bind: permission denied", "port 127.0.0.1:80"),
]


@pytest.mark.parametrize(("text", "problem", "hint"), FAULTS)
def test_a_refusal_becomes_a_problem_and_a_fix(text: str, problem: str, hint: str) -> None:
    said = explain(text, "a/b:c")
    assert problem in said.problem
    assert hint in said.hint
    assert (said.exit_code, said.text) == (125, text)


@pytest.mark.parametrize(("text", "problem", "exit_code"), COMMANDS)
def test_a_command_that_cannot_run_exits_as_docker_run_does(
    text: str, problem: str, exit_code: int
) -> None:
    said = explain(text, "a/b:c")
    assert problem in said.problem
    assert said.exit_code == exit_code


@pytest.mark.parametrize(
    ("why", "problem", "exit_code"),
    [
        ("No such file or directory\n", "there is no program 'train' in a/b:c", 127),
        ("Permission denied\r\n", "'train' in a/b:c is no program that can run", 126),
    ],
)
def test_podmans_init_does_not_name_the_program_and_gpubox_does(
    why: str, problem: str, exit_code: int
) -> None:
    text = f"ERROR (catatonit:6): failed to exec pid1: {why}"
    said = explain(text, "a/b:c", "train")
    assert is_init_failure(text)
    assert (said.problem, said.exit_code) == (problem, exit_code)


@pytest.mark.parametrize(("text", "problem"), TRAPS)
def test_what_is_not_the_commands_fault_is_not_said_to_be(text: str, problem: str) -> None:
    said = explain(text, "a/b:c")
    assert problem in said.problem
    assert said.exit_code == 125


@pytest.mark.parametrize("text", [row[0] for row in (*FAULTS, *COMMANDS, *TRAPS)])
def test_a_message_is_one_line_with_nothing_left_to_fill_in(text: str) -> None:
    said = explain(text, "a/b:c")
    for words in (said.problem, said.hint):
        assert "\n" not in words
        assert "{" not in words and not words.endswith((".", ": unknown"))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("something new", "something new"),
        (f"{OLD}something new: unknown", "something new"),
        (f"{NEW}something\n new", "something new"),
        (f"{PODMAN}something new", "something new"),
        ("preparing container 0123 for attach: something new", "something new"),
    ],
)
def test_a_text_that_nobody_has_met_is_passed_on_without_its_prefixes(text: str, kept: str) -> None:
    said = explain(text, "a/b:c")
    assert (said.problem, said.exit_code) == (f"the engine says: {kept}", 125)


COMMAND = "The command '/bin/sh -c apt-get update && echo 'gpubox: the key at u is not NVIDIA's'"
ENDED = f"{COMMAND} returned a non-zero code: 100"
DEB = "http://a/b/x86_64/./c_1_amd64.deb"
# what apt said in a step that failed; words of the problem; words of the fix
BUILDS = [
    ("gpubox: the key at http://a/k is not NVIDIA's\n", "at http://a/k is not NVIDIA's", "who"),
    ("gpg: no valid OpenPGP data found.\n", "what the package repository has for a", "correct"),
    ("gpubox: no key at http://a/k\n", "what the package repository has for a", "--apt-mirror"),
    (
        "W: GPG error: http://a/b InRelease: The following signatures couldn't be verified because"
        " the public key is not available: NO_PUBKEY A4B469963BF863CC\n"
        "E: There were unauthenticated packages and -y was used without --allow-unauthenticated\n",
        "the package repository http://a/b is not signed",
        "--apt-mirror URL",
    ),
    (
        "E: The repository 'http://a/b Release' is not signed.\n",
        "the package repository http://a/b is not signed",
        "--apt-mirror URL",
    ),
    (
        "E: Failed to fetch http://a/k  Temporary failure resolving 'a.b'\n",
        "cannot find the machine a.b",
        "--network host",
    ),
    ("W: Failed to fetch https://a  Could not resolve host: a.b\n", "machine a.b", "--network"),
    (f"E: Failed to fetch {DEB}  404  Not Found [IP: 1.2.3.4 80]\n", f"has no {DEB}", "kept"),
    (f"E: Failed to fetch {DEB}  HttpError404\n", f"has no {DEB}", "kept"),
    (
        "Err:2 http://a/b  Release\n  404  File not found\n"
        "E: The repository 'http://a/b  Release' does not have a Release file.\n",
        "the package repository has no http://a/b",
        "--apt-mirror URL",
    ),
    (
        "E: Failed to fetch http://a/k  Could not connect to 127.0.0.1:1 (127.0.0.1). - connect"
        " (111: Connection refused)\n",
        "repository 127.0.0.1:1 does not answer",
        "try again later",
    ),
    (
        "W: Failed to fetch http://a/k  Unable to connect to a:http:\n"
        "E: Unable to locate package x\n",
        "repository a:http does not answer",
        "--network host",
    ),
    (
        "E: Failed to fetch https://a/k  server certificate verification failed. CAfile: none\n",
        "does not trust the certificate",
        "--base IMAGE",
    ),
    (
        "E: Version '8.0.61-1' for 'cuda-core-8-0' was not found\n",
        "has no cuda-core-8-0 in version 8.0.61-1",
        "--apt-mirror URL",
    ),
    ("E: Unable to locate package cuda-core-8-0\n", "has no cuda-core-8-0", "--apt-mirror"),
    ("E: Package 'a' has no installation candidate\n", "repository has no a", "--apt-mirror"),
    ("E: Failed to fetch http://a  Hash Sum mismatch\n", "as its repository describes", "again"),
    (
        "The following packages have unmet dependencies:\n a : Depends: libc6 (>= 9)\n",
        "the packages do not fit a/b:c's base",
        "same version",
    ),
    ("/bin/sh: 1: apt-get: not found\n", "the base of a/b:c has no apt-get", "Ubuntu"),
    ("tar: write error: No space left on device\n", "the disk is full", "docker system df"),
    (
        "E: You don't have enough free space in /var/cache/apt/archives/.\n",
        "the disk is full",
        "docker system df",
    ),
    ("something new\n", "a step in the build of a/b:c failed with exit code 100", "above"),
]


@pytest.mark.parametrize(("output", "problem", "hint"), BUILDS)
def test_a_failing_step_of_a_build_becomes_a_problem_and_a_fix(
    output: str, problem: str, hint: str
) -> None:
    said = explain_build(f"Get:1 http://a/b\n{output}", ENDED, "a/b:c")
    assert problem in said.problem
    assert hint in said.hint
    assert "{" not in said.problem + said.hint


def test_what_the_engine_refuses_in_a_build_is_its_own_matter() -> None:
    said = explain_build("E: Unable to locate package x\n", "network nope not found", "a/b:c")
    assert said.problem == "the engine has no network 'nope'"


@pytest.mark.parametrize("cut", [4, 17, 512])
def test_an_inits_last_words_are_understood_in_however_many_pieces_they_come(cut: int) -> None:
    text = b"[FATAL tini (7)] exec no/pe failed: No such file or directory\n"
    pieces = [text[start : start + cut] for start in range(0, len(text), cut)]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = SocketStream(ours)
        for piece in pieces:
            theirs.sendall(frame(2, piece))
            while stream.recv(100):
                pass
    assert is_init_failure(stream.last_words())
    assert "'no/pe'" in explain(stream.last_words(), "a/b:c").problem


def test_a_page_that_is_no_registrys_does_not_say_what_a_registry_has() -> None:
    page = "error parsing HTTP 404 response body: invalid character '<': \"<p>Page: not found\""
    assert faults.is_image_absent("docker.io/a/b:c: not found")
    assert not faults.is_image_absent(page)


def test_what_a_new_plan_can_mend_is_told_apart() -> None:
    problems = {row[0]: explain(row[0], "a/b:c").problem for row in FAULTS}
    ports = [text for text, problem in problems.items() if re.match(r"port \S+ is taken", problem)]
    names = [text for text, problem in problems.items() if problem.startswith("the name '")]
    assert ports and [*filter(is_port_taken, problems)] == ports
    assert names and [*filter(is_name_taken, problems)] == names
    assert [*filter(is_gpu_refusal, problems)] == [
        'could not select device driver "" with capabilities: [[gpu]]'
    ]


def test_the_texts_of_the_troubleshooting_page_are_explained_there_as_gpubox_does(
    request: pytest.FixtureRequest,
) -> None:
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    found, _, after = rest.partition(END)
    head, texts = found.splitlines()[:2], re.findall(r"^\| `(.+?)` \|", found, re.MULTILINE)
    rows = [f"| `{text}` | {it.problem} | {it.hint} |" for text in texts if (it := _met(text))]
    table = "".join(f"{line}\n" for line in (*head, *rows))
    if request.config.getoption("--update-snapshots"):
        PAGE.write_text(f"{before}{BEGIN}{table}{END}{after}", "utf-8")
        return
    assert len(rows) >= 10
    assert found == table, "pytest --update-snapshots writes it"


def _met(text: str) -> faults.EngineSaid | None:
    said = explain(text, "IMAGE")
    return None if said.problem.startswith("the engine says") else said


def test_the_troubles_of_that_page_are_ones_that_gpubox_says() -> None:
    table = PAGE.read_text("utf-8").partition("| gpubox says | do |\n|---|---|\n")[2]
    rows = [
        line.split(" | ")[0].removeprefix("| ") for line in table.partition("\n\n")[0].split("\n")
    ]
    modules = [_strings(path) for path in Path(faults.__file__).parents[1].rglob("*.py")]
    assert len(rows) >= 10
    assert [row for row in rows if not any(_has(module, row) for module in modules)] == []


def _strings(module: Path) -> str:
    nodes = ast.walk(ast.parse(module.read_text("utf-8")))
    return "\n".join(str(node.value) for node in nodes if isinstance(node, ast.Constant))


def _has(module: str, row: str) -> bool:
    """Whether all words of the row but for the examples are the module's, joint by joint."""
    joints = r"\.\.\.|[,:](?: and)?|nfs4|cuda>="
    return all(piece.strip() in module for piece in re.split(joints, row))
