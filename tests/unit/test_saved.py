"""What a box was run with, of the engine's words about it, and written as a person would."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from docker.models import containers
from docker.types import ContainerConfig

from gpubox.boxes.box import Box
from gpubox.boxes.saved import document, image_name, saved
from gpubox.errors import UsageError
from gpubox.plan.docker_words import Arguments
from gpubox.plan.facts import Ask, Caller, Facts
from gpubox.plan.notebook import server
from gpubox.plan.plan import plan
from gpubox.plan.translate import arguments
from gpubox.profile.config import Config
from gpubox.profile.layers import Layer, read
from gpubox.profile.profile import Profile
from gpubox.profile.settings import SETTINGS
from gpubox.values import variables

ID = "a" * 64
IMAGE: dict[str, Any] = {
    "Env": ["PATH=/bin", "NVIDIA_VISIBLE_DEVICES=all"],
    "Cmd": ["/bin/sh"],
    "Labels": {"maintainer": "somebody"},
    "Volumes": {"/cache": {}},
}
DEFAULTS = "defaults: {gpus: 1, shm_size: 8g, init: true}"
BUILT_IN = Layer("built in", read(DEFAULTS, "built in", Path("/")))


def beneath(*defaults: str) -> list[Profile]:
    layers = (BUILT_IN, *(Layer("site", read(text, "site", Path("/"))) for text in defaults))
    configs = [Config((BUILT_IN,), {}, Path("/")), Config(layers, {}, Path("/"))]
    return [config.profile("anna/mine") for config in configs]


def box(kind: str = "command", **said: Any) -> Box:
    usual = {"gpus": "GPU-0", "claim": "", "folder": "/home/anna/work"} | said
    return Box(
        id=ID, name="pytorch-anna", image="pytorch", profile="pytorch", owner="anna", kind=kind,
        state="exited", status="", created=0, ports=(), **usual,
    )  # fmt: skip


def found(config: dict[str, Any] | None = None, **host: Any) -> dict[str, Any]:
    """A box that says nothing but a command, as the engine tells of it."""
    mounts = host.pop("mounts", [])
    said = {**IMAGE, "Cmd": ["python", "train.py"], "Hostname": "pytorch-anna", **(config or {})}
    usual = {"ShmSize": 8 << 30, "Init": True, "IpcMode": "private", "NetworkMode": "default"}
    return {"Id": ID, "Config": said, "HostConfig": {**usual, **host}, "Mounts": mounts}


def settings(
    config: dict[str, Any] | None = None, of: Box | None = None, **host: Any
) -> dict[str, Any]:
    made = saved(of or box(), found(config, **host), IMAGE, {"LANG": "C"}, beneath())
    said = dict(made.settings)
    assert of or said.pop("command") == "python train.py"
    return said


def mount(target: str, source: str, **said: Any) -> dict[str, Any]:
    kind, where = ("bind", "Source") if source.startswith("/") else ("volume", "Name")
    return {"Type": kind, where: source, "Destination": target, "RW": True, **said}


def env(*lines: str) -> dict[str, Any]:
    return {"Env": [*IMAGE["Env"], *lines]}


# The profile -----------------------------------------------------------------------------------


def test_what_holds_anyway_is_not_written() -> None:
    assert settings() == {}


@pytest.mark.parametrize(
    ("config", "host", "expected"),
    [
        ({}, {"ShmSize": 1 << 30}, {"shm_size": "1g"}),
        ({}, {"IpcMode": "host", "ShmSize": 1 << 26, "SecurityOpt": ["label=disable"]},
         {"ipc": "host"}),
        ({}, {"Init": False}, {"init": False}),
        ({}, {"AutoRemove": True}, {"rm": True}),
        ({}, {"Memory": 1 << 29, "NanoCpus": 1_500_000_000}, {"mem_limit": "512m", "cpus": "1.5"}),
        ({}, {"NetworkMode": "host"}, {"network_mode": "host"}),
        ({"Hostname": "machine"}, {"NetworkMode": "host"}, {"network_mode": "host"}),
        ({"Hostname": "head"}, {}, {"hostname": "head"}),
        ({}, {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
         {"restart": "on-failure:3"}),
        ({}, {"RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}}, {}),
        ({"User": "1000:1000"}, {}, {"user": "1000:1000"}),
        ({"WorkingDir": "/opt"}, {}, {"working_dir": "/opt"}),
        ({"Labels": {"maintainer": "somebody", "gpubox.owner": "anna", "team": "vision"}}, {},
         {"labels": {"team": "vision"}}),
        ({}, {"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2},
                          {"Name": "core", "Soft": -1, "Hard": -1}]},
         {"ulimits": {"nofile": "1:2", "core": -1}}),
        ({}, {"CapAdd": ["CAP_SYS_PTRACE"], "SecurityOpt": ["seccomp=unconfined", 'seccomp={"a"}'],
              "MaskedPaths": []},
         {"cap_add": ["CAP_SYS_PTRACE"],
          "security_opt": ["seccomp=unconfined", "systempaths=unconfined"]}),
        ({}, {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/null",
                           "CgroupPermissions": "rwm"},
                          {"PathOnHost": "/dev/full", "PathInContainer": "/dev/x",
                           "CgroupPermissions": "r"}],
              "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["example.com/disk=1"]},
                                 {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"]}]},
         {"devices": ["/dev/null", "/dev/full:/dev/x:r", "example.com/disk=1"]}),
    ],
)  # fmt: skip
def test_what_a_person_said_is_written_as_they_would(
    config: dict[str, Any], host: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert settings(config, **host) == expected


@pytest.mark.parametrize(
    ("said", "asked", "expected"),
    [
        ({"gpus": "GPU-0"}, {"DeviceIDs": ["GPU-0"]}, None),
        ({"gpus": "GPU-0,GPU-1"}, {"DeviceIDs": ["GPU-0", "GPU-1"]}, 2),
        ({"gpus": "GPU-0,GPU-1"}, {"Count": -1}, "all"),
        ({"gpus": "none"}, None, "none"),
        (
            {"gpus": "GPU-0", "claim": "shared"},
            {"DeviceIDs": ["GPU-0"]},
            {"count": 1, "share": True},
        ),
        ({"gpus": "all", "claim": "none"}, {"Count": -1}, None),
    ],
)
def test_gpus_are_as_many_and_not_the_same(
    said: dict[str, str], asked: dict[str, Any] | None, expected: Any
) -> None:
    requests = [] if asked is None else [{"Capabilities": [["gpu"]], **asked}]
    hidden = env() if asked is not None else {"Env": ["NVIDIA_VISIBLE_DEVICES=void"]}
    made = settings(hidden, box(**said), DeviceRequests=requests)
    assert made.get("gpus") == expected


def test_what_a_lab_has_for_all_is_written_where_a_box_is_without_it() -> None:
    site = "defaults: {shm_size: 16g, mem_limit: 8g}"
    of = found(ShmSize=16 << 30)
    made = saved(box(), of, IMAGE, {}, beneath(site)).settings
    # elsewhere 8g would hold
    assert made == {"command": "python train.py", "shm_size": "16g", "mem_limit": None}


def test_variables_of_a_persons_own_are_written_and_secrets_are_named() -> None:
    said = env(
        "MODE=offline", "PAID=$5", "MY_TOKEN=hush", "LANG=C", "DB=sql://anna:hush@host/db",
        "CUDA_DEVICE_ORDER=PCI_BUS_ID",
    )  # fmt: skip
    made = saved(box(), found(said), IMAGE, {"LANG": "C"}, beneath())
    assert made.settings["environment"] == {
        "MODE": "offline", "PAID": "$$5", "MY_TOKEN": None, "LANG": None, "DB": None,
    }  # fmt: skip
    assert made.notes[0] == "not saved, and taken from your environment: MY_TOKEN, LANG, DB"
    assert "hush" not in str((made.image, document(made, box(), "mine", "anna/mine", "now")))


def test_ports_are_those_that_were_asked_for() -> None:
    bindings = {
        "70/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
        "71/tcp": [{"HostIp": "127.0.0.1", "HostPort": "7100"}],
        "72/udp": [{"HostIp": "0.0.0.0", "HostPort": "0"}],
        "73/tcp": [{"HostIp": "::1", "HostPort": "7300-7309"}],
    }
    assert settings(PortBindings=bindings) == {
        "ports": ["70", "7100:71", "0.0.0.0::72/udp", "[::1]:7300-7309:73"]
    }


def test_what_is_mounted_is_told_and_mounted_again() -> None:
    mounts = [
        mount("/data", "/data/imagenet", RW=False, Mode="z", Propagation="rslave"),
        mount("/odd", "/a:b", RW=False),
        mount("/v", "named"),
        mount("/scratch", "f" * 64),
        mount("/cache", "e" * 64),
        {"Type": "tmpfs", "Destination": "/tmp"},
    ]
    made = saved(box(), found(mounts=mounts), IMAGE, {}, beneath())
    assert made.settings["volumes"] == [
        "/data/imagenet:/data:z,rslave,ro",
        {"type": "bind", "source": "/a:b", "target": "/odd", "read_only": True},
        "/scratch",
        "named:/v",
    ]
    assert made.notes == (
        "not in the image, and mounted again: /data (/data/imagenet), /odd (/a:b),"
        " /v (the volume named)",
        *(
            f"not saved: {place}, which is a volume without a name; it stays with the box, and"
            f" docker cp pytorch-anna:{place} . takes its files out"
            for place in ("/cache", "/scratch")
        ),
    )


@pytest.mark.parametrize(
    ("target", "source", "expected"),
    [
        ("/workspace", "/home/anna/work", "."),
        ("/workspace", "/data", "/data"),
        ("/here", "/home/anna/work", ".:/here"),
    ],
)
def test_the_folder_where_it_was_started_is_where_the_next_one_is(
    target: str, source: str, expected: str
) -> None:
    said = settings({"WorkingDir": target}, mounts=[mount(target, source)])
    assert said == {"workspace": expected}


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        ("shell", {"Cmd": ["/bin/sh"]}, {}),
        ("shell", {"Entrypoint": ["bash"], "Cmd": ["-l"]}, {"entrypoint": "bash -l"}),
        ("command", {"Cmd": ["sh", "-c", "echo $HOME"]}, {"command": "sh -c 'echo $$HOME'"}),
        ("command", {"Entrypoint": ["a b"], "Cmd": ["c"]}, {"entrypoint": "'a b'", "command": "c"}),
    ],
)
def test_what_runs_in_it(kind: str, config: dict[str, Any], expected: dict[str, str]) -> None:
    assert settings(config, box(kind)) == expected


def test_a_notebook_has_its_command_port_and_token_from_gpubox_again() -> None:
    ours = [
        *("USER=anna", "LOGNAME=anna", "HOME=/home/anna", "XDG_CACHE_HOME=/home/anna/.cache"),
        *("NB_USER=anna", "NB_UID=1000", "NB_GID=100", "JUPYTER_TOKEN=hush"),
    ]
    config = {
        **env(*ours, "MODE=x"),
        "Cmd": [*server(address="0.0.0.0", port=8888)],
        "User": "1000:100",
        "WorkingDir": "/workspace",
    }
    bindings = {
        "8888/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8890"}],
        "6006/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
    }
    mounts = [mount("/workspace", "/home/anna/work")]
    assert settings(config, box("jupyter"), PortBindings=bindings, mounts=mounts) == {
        "workspace": ".",
        "environment": {"MODE": "x"},
        "user": "host",
        "ports": ["6006"],
    }
    # without what gpubox jupyter would give it by itself
    plain = {**config, "User": "", "WorkingDir": "", **env()}
    assert settings(plain, box("jupyter")) == {"workspace": None, "user": None}


def test_the_file_reads_as_what_was_written() -> None:
    odd = "a 'b' \"c\": #d\n$é 漢 ${X}"
    of = found(
        {**env(f"ODD={odd}", "YES=yes", "NULL=null", "NO="), "Cmd": ["echo", odd, "", "~"]},
        Init=False,
        mounts=[mount("/with space", "/a $b"), mount("/x\u2028default: y", "/z")],
    )
    made = saved(box(gpus="GPU-0,GPU-1"), of, IMAGE, {}, beneath())
    text = document(made, box(), "mine", "anna/mine", "2026-02-03 14:05")
    layer = Layer("mine.yaml", read(text, "mine.yaml", Path("/")), shared=True)
    profile = Config((BUILT_IN, layer), {}, Path("/")).profile("mine")
    assert (profile.images, profile.pull_policy) == (("anna/mine",), "never")
    assert profile.command == ("echo", odd, "", "~")
    assert profile.environment == {"ODD": odd, "YES": "yes", "NULL": "null", "NO": ""}
    assert [str(it) for it in profile.volumes] == ["/a $b:/with space", "/z:/x\u2028default: y"]
    assert list(layer.settings) == ["profiles"]
    assert (str(profile.gpus), profile.init) == ("2", False)
    assert profile.description == "the box pytorch-anna as of 2026-02-03 14:05"
    assert text.startswith("# Written by gpubox save: the box pytorch-anna as of 2026-02-03 14:05.")


# Every setting ---------------------------------------------------------------------------------

SAID = {
    "gpus": "{count: all, share: true}",
    "command": "[python, train.py, 'a $$b']",
    "entrypoint": "[env, A=1]",
    "working_dir": "/opt",
    "workspace": ".",
    "env_file": "vars",
    "environment": "{MODE: offline}",
    "user": "host",
    "ports": "['7000', '0.0.0.0:7100:71/udp']",
    "volumes": "['/data:/data:ro', 'named:/named']",
    "datasets": "[imagenet]",
    "shm_size": "1g",
    "ipc": "host",
    "ulimits": "{nofile: {soft: 1, hard: 2}}",
    "mem_limit": "512m",
    "cpus": "1.5",
    "network_mode": "host",
    "hostname": "head",
    "labels": "{team: vision}",
    "restart": "on-failure:3",
    "init": "false",
    "rm": "true",
    "cap_add": "[SYS_PTRACE]",
    "security_opt": "[seccomp=unconfined, systempaths=unconfined]",
    "devices": "['/dev/null:/dev/x:r', 'example.com/disk=1']",
}
NOT_KEPT = {
    "description": "the saved one says which box it was, and when",
    "extends": "what it adds is in the box",
    "image": "the image of the box's files has its place",
    "cuda": "as image",
    "cudnn": "as image",
    "flavor": "as image",
    "os": "as image",
    "pull_policy": "never, for the image is on its engine alone",
    "slurm": "a job's, and not its box's",
}
ANNA = Caller(
    name="anna",
    uid=1000,
    gid=1000,
    groups={1000: "anna", 27: "sudo"},
    home=Path("/home/anna"),
    folder=Path("/home/anna/work"),
    environ={},
    stdin_is_terminal=False,
    stdout_is_terminal=False,
)


def started(layer: Layer) -> Arguments:
    """What the engine is asked for when a profile `mine` is run."""
    profile = Config((BUILT_IN, layer), {}, ANNA.folder).profile("mine")
    files = {"/base/vars": "OTHER=1"}
    return arguments(plan(profile, Ask(name="pytorch-anna"), Facts(caller=ANNA, files=files)))


def engine_says(asked: Arguments) -> dict[str, Any]:
    """Its words about the container that these arguments make of the image."""
    make: Any = containers._create_container_args  # type: ignore[attr-defined]
    low_level = make({"command": None} | asked.run | {"version": "1.41"})
    low_level["host_config"].update(asked.host_config)
    del low_level["name"]
    config = dict(ContainerConfig("1.41", **low_level))
    host = config.pop("HostConfig")
    program = config["Cmd"] or (None if config["Entrypoint"] else IMAGE["Cmd"])
    own = variables(config["Env"] or ())
    return {
        "Id": ID,
        "Config": config
        | {
            "Cmd": program,
            "Env": [f"{name}={text}" for name, text in (variables(IMAGE["Env"]) | own).items()],
            "Labels": IMAGE["Labels"] | config["Labels"],
        },
        "HostConfig": host,
        "Mounts": [
            {
                "Type": it["Type"],
                "Name" if it["Type"] == "volume" else "Source": it["Source"],
                "Destination": it["Target"],
                "RW": not it.get("ReadOnly"),
            }
            for it in host.get("Mounts", ())
        ],
    }


def compared(asked: Arguments) -> dict[str, Any]:
    """All but the image; the order of variables and of labels means nothing."""
    whole = asked.run | asked.host_config | {"image": ""}
    return whole | {"environment": sorted(whole.get("environment", ()))}


def test_every_setting_is_kept_or_there_is_a_reason() -> None:
    assert sorted([*SAID, *NOT_KEPT]) == sorted(setting.key for setting in SETTINGS)


@pytest.mark.parametrize("key", SAID)
def test_the_saved_profile_says_each_setting_of_the_box_again(key: str) -> None:
    def layer(settings: str) -> Layer:
        text = f"datasets: {{imagenet: /data}}\nprofiles: {{mine: {{image: x, {settings}}}}}"
        return Layer("x.yaml", read(text, "x.yaml", Path("/base")))

    asked = started(layer(f"{key}: {SAID[key]}"))
    assert compared(asked) != compared(started(layer("")))
    labels: Mapping[str, str] = asked.run["labels"]
    its = {name: labels.get(f"gpubox.{name}", "") for name in ("gpus", "claim", "folder")}
    of = box(labels["gpubox.kind"], **its)
    made = saved(of, engine_says(asked), IMAGE, {}, beneath())
    text = document(made, of, "mine", "anna/mine", "now")
    again = Layer("mine.yaml", read(text, "mine.yaml", Path("/")), shared=True)
    assert compared(started(again)) == compared(asked)


# The image -------------------------------------------------------------------------------------


def test_the_image_says_what_the_one_it_came_from_said() -> None:
    config = {
        **env("MY_TOKEN=hush"), "Entrypoint": ["/bin/env"], "User": "1000", "WorkingDir": "/opt",
        "Labels": {"gpubox.gpus": "GPU-0", "team": "vision"},
    }  # fmt: skip
    made = saved(box(), found(config), IMAGE, {}, beneath()).image
    assert made == {
        "Env": ["MY_TOKEN="],
        "Labels": {"gpubox.gpus": ""},
        "Cmd": ["/bin/sh"],
        "Entrypoint": [],
        "User": "0",
        "WorkingDir": "/",
    }


@pytest.mark.parametrize(
    ("owner", "expected"),
    [("anna", "anna/mine"), ("Anna.B", "anna-b/mine"), ("LAB\\anna", "lab-anna/mine")],
)
def test_an_image_is_called_by_its_owner(owner: str, expected: str) -> None:
    assert image_name(owner, "mine") == expected


@pytest.mark.parametrize("name", ["", "My Model", "a/b", "a:b", "-a", "a..b", "a" * 101, "é"])
def test_a_name_must_do_for_a_profile_and_an_image(name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"'{name}' is no name for an image")):
        image_name("anna", name)


def test_a_name_that_would_do_is_offered() -> None:
    with pytest.raises(UsageError) as refused:
        image_name("anna", "My Model")
    assert refused.value.hint.endswith("between them: my-model")
