"""The one table of settings: what a profile may say, how that is read, and how it merges.

Options, help, the README's reference and the JSON Schema come from it. Knows nothing of files,
profiles' names or engines; how Docker is told of a setting stands in `docker_words`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from gpubox import values
from gpubox.errors import ProfileError
from gpubox.profile import readers, yaml_types
from gpubox.profile.layers import COMMAND_LINE, Located
from gpubox.profile.yaml_types import Text, Texts


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table.

    `flag` is spelt as `docker run`'s, and may be repeated for a collection; `also` is its short or
    other spelling. `written` is the type that YAML may hold; `read` makes the value of it, and
    `write` makes YAML of the value again. `merge` says what a later layer does to an earlier one.
    """

    key: str
    help: str
    flag: str = ""
    also: str = ""
    metavar: str = "TEXT"
    written: Any
    read: Callable[[Located], Any]
    write: Callable[[Any], Any] = lambda value: value
    merge: Literal["replace", "by key"] = "replace"

    def parse(self, located: Located) -> Any:
        """Read a value; a ProfileError names the line of what is wrong with it."""
        try:
            readers.check_shape(located, self.written)
            return self.read(located)
        except readers.MisreadItemError as error:
            raise ProfileError(error.item.where, self.name_in(located), str(error)) from None
        except ValueError as error:
            raise ProfileError(located.where, self.name_in(located), str(error)) from None

    def name_in(self, located: Located) -> str:
        return self.flag if located.where == COMMAND_LINE and self.flag else self.key


SETTINGS: tuple[Setting, ...] = (
    Setting(
        key="description",
        help="what the profile is for, shown by `gpubox profiles`",
        written=Text,
        read=readers.one(),
    ),
    Setting(
        key="extends",
        help="the profile this one adds to",
        written=Text,
        read=readers.one(),
    ),
    Setting(
        key="image",
        help="the image, as `docker run` takes it; of a list the first that this machine can run",
        written=yaml_types.Images,
        read=readers.images,
    ),
    Setting(
        key="cuda",
        help=(
            "a version of CUDA: an image of NVIDIA's is picked;"
            " 12, or auto, is the newest such that this machine can run"
        ),
        written=yaml_types.Cuda,
        read=readers.one(readers.cuda),
    ),
    Setting(
        key="cudnn",
        help="the major version of cuDNN in that image, or auto",
        written=yaml_types.Cudnn,
        read=readers.one(readers.cudnn),
    ),
    Setting(
        key="flavor",
        help="base, runtime or devel (the default)",
        written=yaml_types.Flavor,
        read=readers.one(readers.flavor),
    ),
    Setting(
        key="os",
        help="the system in that image, like ubuntu22.04",
        written=Text,
        read=readers.one(),
    ),
    Setting(
        key="pull_policy",
        help="when to pull the image: missing (unless said), always or never",
        flag="--pull",
        metavar="WHEN",
        written=yaml_types.PullPolicy,
        read=readers.one(values.pull_policy),
    ),
    Setting(
        key="gpus",
        help=(
            "all, none, a number (any that are free), or exactly these:"
            " 0,2 or device=3 or GPU-<uuid>"
        ),
        flag="--gpus",
        metavar="GPUS",
        written=yaml_types.Gpus,
        read=readers.gpus,
        write=readers.gpus_written,
    ),
    Setting(
        key="command",
        help="what runs in the box instead of a shell",
        written=Text | Texts,
        read=readers.command,
        write=shlex.join,
    ),
    Setting(
        key="entrypoint",
        help="the program that runs the command",
        flag="--entrypoint",
        metavar="PROGRAM",
        written=Text | Texts,
        read=readers.entrypoint,
        write=shlex.join,
    ),
    Setting(
        key="working_dir",
        help="the folder in the box where the command starts",
        flag="--workdir",
        also="-w",
        metavar="BOX_PATH",
        written=yaml_types.BoxPath,
        read=readers.one(readers.working_dir),
    ),
    Setting(
        key="workspace",
        help="a host folder to work in: mounted at /workspace, and where the command starts",
        flag="--workspace",
        metavar="DIR",
        written=Text,
        read=readers.workspace,
    ),
    Setting(
        key="env_file",
        help="files of NAME=VALUE lines, read as `docker run` reads them",
        flag="--env-file",
        metavar="FILE",
        written=Text | Texts,
        read=readers.keyed(readers.env_file),
        merge="by key",
    ),
    Setting(
        key="environment",
        help="variables in the box; a NAME alone takes the caller's value",
        flag="--env",
        also="-e",
        metavar="NAME[=VALUE]",
        written=yaml_types.Variables,
        read=readers.mapping(readers.variable),
        merge="by key",
    ),
    Setting(
        key="user",
        help="who runs the command: NAME, UID[:GID], or host for the caller",
        flag="--user",
        also="-u",
        metavar="USER",
        written=Text,
        read=readers.one(),
    ),
    Setting(
        key="ports",
        help="publish [ADDRESS:][HOST:]BOX[/udp]; on 127.0.0.1 unless an address is given",
        flag="--publish",
        also="-p",
        metavar="PORT",
        written=yaml_types.Ports,
        read=readers.keyed(readers.ports),
        merge="by key",
    ),
    Setting(
        key="volumes",
        help="mount SOURCE:TARGET[:ro], a host folder (it must exist) or a volume",
        flag="--volume",
        also="-v",
        metavar="MOUNT",
        written=yaml_types.Volumes,
        read=readers.keyed(readers.volume),
        merge="by key",
    ),
    Setting(
        key="datasets",
        help="datasets to mount, read-only: NAME or NAME:BOX_PATH",
        flag="--dataset",
        metavar="NAME",
        written=Text | Texts,
        read=readers.keyed(readers.dataset),
        merge="by key",
    ),
    Setting(
        key="shm_size",
        help="shared memory, which data loaders need",
        flag="--shm-size",
        metavar="SIZE",
        written=yaml_types.Size,
        read=readers.one(values.size),
        write=values.size_written,
    ),
    Setting(
        key="ipc",
        help="whose shared memory: private, shareable, host, container:NAME",
        flag="--ipc",
        metavar="MODE",
        written=Text,
        read=readers.one(),
    ),
    Setting(
        key="ulimits",
        help="limits of processes: NAME=SOFT[:HARD]",
        flag="--ulimit",
        metavar="NAME=SOFT[:HARD]",
        written=yaml_types.Limits,
        read=readers.mapping(readers.ulimit),
        merge="by key",
    ),
    Setting(
        key="mem_limit",
        help="the most main memory the box may use",
        flag="--memory",
        also="-m",
        metavar="SIZE",
        written=yaml_types.Size,
        read=readers.one(values.size),
        write=values.size_written,
    ),
    Setting(
        key="cpus",
        help="the most CPUs the box may use",
        flag="--cpus",
        metavar="NUMBER",
        written=yaml_types.Cpus,
        read=readers.one(values.cpus),
        write=values.cpus_written,
    ),
    Setting(
        key="network_mode",
        help="bridge, none, host, container:NAME or a network's name",
        flag="--network",
        also="--net",
        metavar="NETWORK",
        written=Text,
        read=readers.one(),
    ),
    Setting(
        key="hostname",
        help="the host name in the box (its name, unless said)",
        flag="--hostname",
        metavar="NAME",
        written=yaml_types.Hostname,
        read=readers.one(readers.hostname),
    ),
    Setting(
        key="labels",
        help="labels of the container, to find it by",
        flag="--label",
        metavar="NAME[=VALUE]",
        written=yaml_types.Labels,
        read=readers.mapping(readers.label),
        merge="by key",
    ),
    Setting(
        key="restart",
        help="no, always, unless-stopped or on-failure[:TIMES]",
        flag="--restart",
        metavar="POLICY",
        written=yaml_types.Restart,
        read=readers.one(values.restart),
    ),
    Setting(
        key="init",
        help="a small first process that passes signals on and reaps",
        flag="--init/--no-init",
        written=bool,
        read=readers.one(values.truth),
    ),
    Setting(
        key="rm",
        help="remove the box when it stops",
        flag="--rm",
        written=bool,
        read=readers.one(values.truth),
    ),
    Setting(
        key="cap_add",
        help="capabilities to add, like SYS_PTRACE",
        flag="--cap-add",
        metavar="CAPABILITY",
        written=yaml_types.Capability | list[yaml_types.Capability],
        read=readers.keyed(readers.capability),
        merge="by key",
    ),
    Setting(
        key="security_opt",
        help="security options, like seccomp=unconfined",
        flag="--security-opt",
        metavar="OPTION",
        written=Text | Texts,
        read=readers.keyed(readers.security),
        merge="by key",
    ),
    Setting(
        key="devices",
        help="host devices: /dev/x[:/dev/y][:rwm], or a CDI name",
        flag="--device",
        metavar="DEVICE",
        written=yaml_types.Device | list[yaml_types.Device],
        read=readers.keyed(readers.device),
        merge="by key",
    ),
    Setting(
        key="slurm",
        help="options of `gpubox submit` for Slurm, as behind #SBATCH: --time=2:00:00",
        written=Texts,
        read=readers.keyed(readers.sbatch_option),
        merge="by key",
    ),
)

BY_KEY: Mapping[str, Setting] = {setting.key: setting for setting in SETTINGS}
