"""What an engine's refusal means, and what a person can do about it.

The engine's text comes in, a problem and its fix go out. Status codes are not looked at, for they
differ between engines. Knows no engine; the texts were seen on Docker 20.10 and 28, and Podman 4.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gpubox.errors import EngineError

WITHOUT_GPU = "or run without a GPU: --gpus none"
NO_SUPPORT = "the engine has no NVIDIA support, so it can give no GPU"
INSTALL_TOOLKIT = (
    "install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure"
    " && sudo systemctl restart docker"
)
# in the order of Linux's numbers for them, from 0
RLIMITS = (
    *("cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks"),
    *("sigpending", "msgqueue", "nice", "rtprio", "rttime"),
)


class Fault(NamedTuple):
    """A pattern, and what a text means in which it is found.

    `problem` and `hint` may use the pattern's groups, and `{it}` for what the call was about. The
    groups `what2` and `what3` are `{what}`, too: a pattern cannot have two groups of one name.
    """

    pattern: str
    problem: str
    hint: str = ""
    exit_code: int = 125

    def meant(self, text: str, words: Mapping[str, object]) -> tuple[str, str] | None:
        """Problem and hint, if the pattern is in the text; `words` are for other braces."""
        if not (match := re.search(self.pattern, text)):
            return None
        groups = {key.rstrip("23"): value for key, value in match.groupdict().items() if value}
        filled = {**words, **groups}
        return self.problem.format(**filled), self.hint.format(**filled)


_SOME_PROGRAMS = "gpubox run --gpus none {it} ls /bin /usr/bin shows some that there are"
_CANNOT_RUN = "it is a folder, or lacks the x permission: chmod +x, or name its interpreter"
_NO_REGISTRY = "error parsing HTTP"  # what answers is no registry, whatever its page says
_NO_MANIFEST = r"manifest for \S+ not found|manifest unknown|name unknown|: not found"

# The first that fits is taken. GPU, mount and device texts come before the command's own faults,
# whose words they hold, too.
FAULTS = (
    # --- GPUs
    Fault(
        r'could not select device driver "cdi"',
        "the engine's CDI support is off",
        "Docker 28.2 and newer have it on, Docker 25 with features.cdi in its daemon.json;"
        " or leave the --device out",
    ),
    Fault(
        r"could not select device driver|no known GPU vendor found",
        NO_SUPPORT,
        f"{INSTALL_TOOLKIT}; gpubox doctor tells more; {WITHOUT_GPU}",
    ),
    Fault(
        r"unresolvable CDI devices (?P<what>(?!nvidia\.com/gpu=)[^\s,\"]*[^\s,:\"])",
        "the engine has no CDI device '{what}'",
        "docker info lists those that it has; correct the name behind --device",
    ),
    Fault(
        r"unresolvable CDI devices (?P<what>[^\s,\"]*[^\s,:\"](?:, [^\s,\"]*[^\s,:\"])*)",
        "the engine has no GPU '{what}' among its CDI devices",
        f"nvidia-ctk cdi list shows them; sudo nvidia-ctk cdi generate renews them; {WITHOUT_GPU}",
    ),
    Fault(
        r"nvidia-container-cli: device error: (?P<what>\S+): unknown device",
        "the engine's machine has no GPU {what}",
        "nvidia-smi -L lists its GPUs",
    ),
    Fault(
        r"requirement error: unsatisfied condition: (?P<what>cuda ?>=? ?[\d.]+)",
        "the NVIDIA driver is too old for {it}: it needs {what}",
        "nvidia-smi shows the driver's CUDA; take an older CUDA, or update the driver",
    ),
    Fault(
        r"requirement error: unsatisfied condition: (?P<what>(?:(?!, please|: unknown).)+)",
        "{it} asks for {what}, and this machine is otherwise",
        "gpubox images lists what runs here; -e NVIDIA_DISABLE_REQUIRE=1 starts it all the same",
    ),
    Fault(
        r"libnvidia-ml\.so",
        "the NVIDIA container tools find no driver on the engine's machine (libnvidia-ml.so)",
        f"install the driver, nvidia-smi must work there; {WITHOUT_GPU}",
    ),
    Fault(
        r"nvml error: driver not loaded",
        "the NVIDIA driver is not loaded on the engine's machine",
        f"nvidia-smi must work there first; {WITHOUT_GPU}",
    ),
    Fault(
        r"driver/library version mismatch",
        "the NVIDIA driver was updated and the old one is still loaded",
        f"reboot the machine; {WITHOUT_GPU}",
    ),
    Fault(
        r"nvidia-container-runtime-hook\S*: executable file not found|"
        r"nvidia-container-runtime-hook: no such file",
        "nvidia-container-toolkit was removed since the engine started",
        f"install it again and restart Docker: sudo systemctl restart docker; {WITHOUT_GPU}",
    ),
    Fault(
        r"[Uu]nknown (?:or invalid )?runtime (?:specified|name:?) ?:?(?P<what>\S+)",
        "the engine has no runtime '{what}'",
        f"sudo nvidia-ctk runtime configure && sudo systemctl restart docker; {WITHOUT_GPU}",
    ),
    Fault(
        r"nvidia-container-cli: (?P<what>[^\n]+?)(?:: unknown)?(?:\n|$)",
        "the NVIDIA container tools failed: {what}",
        "nvidia-smi must work on the engine's machine first; gpubox doctor tells more;"
        f" {WITHOUT_GPU}",
    ),
    # --- ports and names
    Fault(
        r"Bind for (?P<what>\S+) failed: port is already allocated",
        "port {what} is taken by another container",
        "docker ps shows which; take another port with -p",
    ),
    Fault(
        r"listen \w+ (?P<what>\S+): bind: address already in use|"
        r"failed to bind host port (?:for )?(?P<what2>(?:\[\S*?\]|[^\s:]+):\d+)?"
        r".*address already in use",
        "port {what} is taken by a program on this machine",
        "ss -ltnp shows which; take another port with -p",
    ),
    Fault(
        r"listen \w+ (?P<what>\[\S*?\]|[\d.]+):\d+: bind: cannot assign requested address|"
        r"failed to bind host port for (?P<what2>\[\S*?\]|[\d.]+):"
        r".*cannot assign requested address",
        "{what} is no address of the engine's machine, so nothing can be published on it",
        "ip address shows the machine's own; without an address it is 127.0.0.1",
    ),
    Fault(
        r"listen \w+ (?P<what>\S+): bind: permission denied",
        "port {what} is below 1024, and the engine may not take it",
        "take a higher port with -p",
    ),
    Fault(
        r'container name "?/?(?P<what>[^"\s]+)"? is already in use|'
        r'the name "?(?P<what2>[^"\s]+)"? is already in use',
        "the name '{what}' is taken by another container",
        "choose another with --name, or: docker rm {what}",
    ),
    # --- mounts and devices
    Fault(
        r"bind source path does not exist: (?P<what>.+)",
        "no folder {what} on the engine's machine",
        "make it there first, or correct the path",
    ),
    Fault(
        r"invalid mount config for type \"bind\": stat (?P<what>[^:]+): permission denied",
        "the engine, which is root, may not look into {what}",
        "a network file system that mistrusts root (root_squash) must let others pass",
    ),
    Fault(
        r"error mounting \"[^\"]+\" to rootfs at \"(?P<what>[^\"]+)\""
        r".*(?:inside /proc|not of type proc)",
        "nothing can be mounted on {what}: it is the kernel's own in every box",
        "choose another place in the box",
    ),
    Fault(
        r"to rootfs at \"(?P<what>[^\"]+)\": open o_path procfd: .*not a directory",
        "nothing can be mounted on {what} of the box: a part of that path is a file",
        "choose another place in the box",
    ),
    Fault(
        r"to rootfs at \"(?P<what>[^\"]+)\".*read-only file system",
        "{what} lies in a folder that is mounted read-only, and is not there to be mounted on",
        "make it there first, or choose another place in the box",
    ),
    Fault(
        r"error mounting \"(?P<what>[^\"]+)\" to rootfs at \"(?P<to>[^\"]+)\".*not a directory",
        "{what} cannot be mounted on {to} of the box: one is a file, the other a folder",
        "mount a file on a file or a new name, a folder on a folder or a new name",
    ),
    Fault(
        r"[Dd]uplicate mount point:? (?P<what>\S+)",
        "two mounts on {what}",
        "gpubox profiles NAME shows where each comes from",
    ),
    Fault(
        r"is mounted on (?P<what>\S+) but it is not a (?:shared|slave|shared or slave) mount",
        "{what} is not a shared mount on the engine's machine",
        "sudo mount --make-rshared {what}, or leave the propagation out",
    ),
    Fault(
        r"while adding custom device \"(?P<what>[^\"]+)\": not a device node",
        "{what} on the engine's machine is no device",
        "-v {what}:{what} mounts a file or a folder",
    ),
    Fault(
        r"error gathering device information while adding custom device \"(?P<what>[^\"]+)\"|"
        # Podman's, of a CDI name
        r"(?P<what2>/dev/[^\s:\"]+|[\w.-]+/[\w-]+=[^\s:\"]+): no such file or directory",
        "no device {what} on the engine's machine",
        "correct the path behind --device",
    ),
    *(
        Fault(
            rf"error setting rlimit type {number}: operation not permitted",
            f"the engine may not raise the {name} limit",
            f"leave --ulimit {name} out, or let the engine's service have"
            f" Limit{name.upper()}=infinity",
        )
        for number, name in enumerate(RLIMITS)
    ),
    # --- the command
    Fault(
        r"unable to find user (?P<what>[^:]+):",
        "the image has no user '{what}'",
        "--user UID:GID needs none, --user host is you",
    ),
    Fault(
        r"unable to find group (?P<what>[^:]+):",
        "the image has no group '{what}'",
        "--user UID:GID needs none",
    ),
    Fault(
        r"uids and gids must be in range (?P<what>[\d-]+)",
        "a user's or group's number is outside {what}",
        "correct it behind --user; --user host is you",
    ),
    Fault(
        r"[Cc]annot mkdir: (?P<what>\S+) is not a directory|"
        r"workdir \"(?P<what3>[^\"]+)\" exists on container \S+ but is not a directory|"  # Podman's
        # a path in the engine's own storage, of which only the end is in the image
        r"lstat \S*/[0-9a-f]{64}(?:/merged)?(?P<what2>/\S+): not a directory",
        "{what} cannot be the working directory: it is a file in the image, or below one",
        "choose a folder with --workdir",
    ),
    Fault(
        r"chdir to cwd \(\"(?P<what>[^\"]+)\"\)",
        "the command cannot start in {what}",
        "choose a folder with --workdir",
    ),
    Fault(
        r"\[FATAL tini \(\d+\)\] exec (?P<what>.*) failed: (?:No such file or|Not a) directory|"
        r"\(catatonit:\d+\): failed to exec pid1: No such file or directory",
        "there is no program '{what}' in {it}",
        _SOME_PROGRAMS,
        127,
    ),
    Fault(
        r"\[FATAL tini \(\d+\)\] exec (?P<what>.*) failed: |"
        r"\(catatonit:\d+\): failed to exec pid1: ",
        "'{what}' in {it} is no program that can run",
        _CANNOT_RUN,
        126,
    ),
    Fault(
        r"exec: \"(?P<what>[^\"]*)\": (?:stat [^:]*: )?"
        r"(?:executable file not found|no such file or directory)|"
        r"^stat (?P<what2>/\S+): no such file or directory",
        "there is no program '{what}' in {it}",
        _SOME_PROGRAMS,
        127,
    ),
    Fault(
        r"exec: \"(?P<what>[^\"]*)\": (?:permission denied|is a directory)|"
        r"exec (?P<what2>\S+): permission denied|exec: \"(?P<what3>[^\"]*)\".*is a directory",
        "'{what}' in {it} is no program that can run",
        _CANNOT_RUN,
        126,
    ),
    Fault(
        r"exec: \"(?P<what>[^\"]*)\": stat [^:]*: not a directory",
        "there is no program '{what}' in {it}: a part of its path is a file",
        _SOME_PROGRAMS,
    ),
    Fault(
        r"exec format error",
        "the program is made for another kind of processor, or is a script without #!",
        "name its interpreter, or take an image for this machine",
        126,
    ),
    Fault(
        r"container-init binary not found on the host",
        "the engine has no init program to put into the box: Podman takes catatonit for it",
        "sudo apt-get install catatonit on the engine's machine, or start without: --no-init",
    ),
    # --- limits
    Fault(
        r"unable to set memory limit to (?P<what>\d+) ",  # Podman's; Docker tells its least
        "the memory limit is too small: a box does not even start within {what} bytes",
        "give the box more with -m, like -m 8g",
    ),
    Fault(
        r"[Mm]inimum memory limit allowed is (?P<what>\S+)",
        "the memory limit is too small: the least is {what}",
        "give the box more with -m, like -m 8g",
    ),
    Fault(
        r"failed to write \"\d{1,3}\": write \S+/cpu\.(?:cfs_quota_us|max): invalid argument",
        "the part of a CPU is too small: the least is 0.01",
        "give the box more with --cpus, like --cpus 1",
    ),
    Fault(
        r"[Rr]ange of CPUs is from (?P<what>.+?), as",
        "the engine's machine cannot give so many CPUs: it gives {what}",
        "choose a number in that range with --cpus",
    ),
    Fault(
        r"invalid CapAdd: unknown capability: \"?(?P<what>[^\"\s]+)|"
        r"\"(?P<what2>\w+)\": unknown capability",
        "there is no capability '{what}'",
        "man 7 capabilities lists them, without CAP_",
    ),
    Fault(
        r"invalid --security-opt \d+: \"(?P<what>[^\"]*)\"",
        "there is no security option '{what}'",
        "there is: apparmor=PROFILE, label=LABEL, seccomp=FILE, no-new-privileges",
    ),
    Fault(
        r"string (?P<what>\S+) is not a valid (?P<kind>\w+) for seccomp",
        "the seccomp profile names '{what}', and there is no such {kind}",
        "correct the file behind --security-opt seccomp=",
    ),
    Fault(
        r"cannot join network .*non running container: (?:container )?(?P<what>\S+)|"
        r"join IPC .*container (?P<what2>\S+) is not running",
        "the container {what}, which the box was to share with, does not run",
        "docker start {what}",
    ),
    Fault(
        r"[Ii]nvalid IPC mode: (?P<what>\S+)",
        "there is no IPC mode '{what}'",
        "there is: host, private, shareable, none, container:NAME",
    ),
    Fault(
        r"[Nn]o such container: (?P<what>\S+)|"
        r"no container with name or ID \"(?P<what2>[^\"]+)\" found",
        "no container '{what}'",
        "gpubox ps -a lists yours",
    ),
    Fault(
        r"cannot remove a running container|cannot remove container .* running",
        "it runs, and what runs is not removed",
        "stop it first",
    ),
    Fault(
        r"container (?P<what>\w+) is using its referenced image|"
        r"image is being used by \w+ container (?P<what2>\w+)",
        "the container {what} has this image",
        "gpubox ps -a lists yours",
    ),
    Fault(
        r"network (?P<what>\S+) not found|"
        r"unable to find network with name or ID (?P<what2>[^\s:]+)",
        "the engine has no network '{what}'",
        "docker network ls lists them",
    ),
    Fault(
        r"client version (?P<what>\S+) is too (?:new|old)",
        "the engine does not speak API {what}",
        "upgrade to Docker 20.10 or newer",
    ),
    # --- pulls
    Fault(
        r"toomanyrequests|429 Too Many|parsing HTTP 429",
        "the registry lets nobody here pull for now: too many requests",
        "log in for a higher limit (docker login), or wait an hour",
    ),
    Fault(
        rf"{_NO_REGISTRY} (?P<what>\d+) response",
        "what answers as the registry of {it} is none (HTTP {what})",
        "check its name; the engine's network may want a login in the browser, or a proxy",
    ),
    Fault(
        r"no space left on device",
        "the disk is full where the engine keeps images and containers",
        "docker system df shows what takes it, docker image prune frees some",
    ),
    Fault(
        r"pull access denied|repository does not exist|requested access to the resource is denied|"
        r"no basic auth credentials|unauthorized|401 Unauthorized|403 Forbidden|"
        r"(?<!permission )\bdenied\b",
        "the registry gives no {it}: there is none, or it wants a login",
        "check the name; docker login REGISTRY logs in",
    ),
    Fault(
        _NO_MANIFEST,
        "the registry has no image {it}",
        "check the name and the tag; gpubox profiles lists images that there are",
    ),
    Fault(
        r"no matching manifest for (?P<what>\S+)",
        "{it} is not made for this machine ({what})",
        "choose another tag",
    ),
    Fault(
        r"schema 1 support has been removed|manifest version 2, schema 1",
        "{it} is in a format that this engine no longer reads (schema 1)",
        "choose a newer tag",
    ),
    Fault(
        r"server gave HTTP response to HTTPS client|first record does not look like a TLS",
        "the registry of {it} speaks plain HTTP, which the engine refuses",
        "add it to insecure-registries in Docker's daemon.json",
    ),
    Fault(
        r"no such host|Temporary failure in name resolution|server misbehaving",
        "the registry of {it} cannot be found from the engine's machine",
        "check the network and the proxy of the engine; a mirror near you goes into registry:",
    ),
    Fault(
        r"connection refused|i/o timeout|TLS handshake timeout|context deadline exceeded|"
        r"Client\.Timeout exceeded|"
        r"network is unreachable|connection reset|unexpected EOF|\bEOF\b|no route to host",
        "the registry of {it} does not answer",
        "check the network and the proxy of the engine, then try again",
    ),
    Fault(
        r"unexpected (?:HTTP )?status\b.*: (?P<what>5\d\d[^\n]*)",
        "the registry of {it} has failed: {what}",
        "try again later",
    ),
    Fault(
        r"unknown blob",
        "the registry has lost a layer of {it}",
        "pull it from another registry, or have it pushed there again",
    ),
    Fault(
        r"filesystem layer verification failed|unexpected commit digest",
        "the registry sent a damaged layer of {it}",
        "try again; a mirror may hold a bad copy",
    ),
    Fault(
        r"x509: (?P<what>.+)",
        "the registry's certificate is not trusted by the engine: {what}",
        "put its CA into /etc/docker/certs.d/REGISTRY/ca.crt on the engine's machine",
    ),
    Fault(
        r"invalid reference format(?P<what>.*)",
        "'{it}' is not an image's name{what}",
        "REPOSITORY[:TAG], in lower case",
    ),
    Fault(
        r"[Nn]o such image: (?P<what>\S+)",
        "no image {what} on the engine",
        "gpubox pulls it without --pull never",
    ),
)


class EngineSaid(EngineError):
    """A refusal of the engine's, explained; `text` is the engine's own."""

    def __init__(self, text: str, problem: str, hint: str, exit_code: int) -> None:
        super().__init__(problem, hint, exit_code=exit_code)
        self.text = text


def explain(text: str, it: str, program: str = "") -> EngineSaid:
    """The error for what the engine said about `it` (an image, a box, a command).

    `program` is what was to run, for texts that do not name it.
    A text that no fault fits is passed on as it is, without the engine's own prefixes.
    """
    return matched(FAULTS, text, it, program) or EngineSaid(
        text, f"the engine says: {_tail(text)}", "", 125
    )


def matched(faults: Iterable[Fault], text: str, it: str, program: str = "") -> EngineSaid | None:
    """The error for the first of the faults that fits."""
    for fault in faults:
        if found := fault.meant(text, {"it": it, "what": program}):
            return EngineSaid(text, *found, fault.exit_code)
    return None


def is_init_failure(text: str) -> bool:
    """Whether a box's last words are its init process's, which could not run the command."""
    failures = r"\[FATAL tini \(\d+\)\] exec .* failed: |\(catatonit:\d+\): failed to exec pid1: "
    return bool(re.search(failures, text))


def is_gpu_refusal(text: str) -> bool:
    """Whether the engine lacks the hook that the usual GPU request needs: then CDI may work."""
    return bool(re.search(r'could not select device driver ""|no known GPU vendor', text))


def is_port_taken(text: str) -> bool:
    return "port is already allocated" in text or "address already in use" in text


def is_image_absent(text: str) -> bool:
    """Whether the registry was asked and has not got it."""
    return bool(re.search(_NO_MANIFEST, text)) and _NO_REGISTRY not in text


def is_image_denied(text: str) -> bool:
    """Whether the registry denied it; Docker Hub does for an image that does not exist, too."""
    return "pull access denied" in text


def is_gone(box: str, text: str) -> bool:
    """Whether a box that is to start has been removed, or is about to be."""
    about_it = "no such container" in text.lower() and box in text
    return about_it or "marked for removal" in text


def is_name_taken(text: str) -> bool:
    return bool(re.search(r"name \S+ is already in use", text))


def _tail(text: str) -> str:
    """The text without the runtime's chain of prefixes, on one line."""
    for prefix in ("unable to start container process: ", "runc create failed: "):
        text = text.rpartition(prefix)[2] or text
    text = re.sub(r"^preparing container \w+ for attach: ", "", text)  # Podman's
    return " ".join(text.removesuffix(": unknown").split())
