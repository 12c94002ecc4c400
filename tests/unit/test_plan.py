"""The plan: every question answered, purely, and refused where there is no answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gpubox.errors import GpuboxError, UsageError
from gpubox.gpus.holders import Holding
from gpubox.gpus.machine import Device, Gpu, Machine, absent
from gpubox.plan.allocation import asked_gpus
from gpubox.plan.docker_words import GpuRequest
from gpubox.plan.environment import is_secret
from gpubox.plan.facts import Ask, Caller, EngineFacts, Facts
from gpubox.plan.plan import Plan, plan
from gpubox.plan.translate import arguments, docker_run_line, hidden
from gpubox.profile.layers import Layer, from_flags, read
from gpubox.values import Gpus, Port
from lab import anna
from lab.anna import ANNA

AT_TERMINAL = replace(ANNA, stdin_is_terminal=True, stdout_is_terminal=True, rows_columns=(40, 120))
HOOK = EngineFacts(api=(1, 41), runtimes=("runc",))
CDI = EngineFacts(
    api=(1, 51),
    runtimes=("runc",),
    cdi_enabled=True,
    cdi_devices=("nvidia.com/gpu=all", "nvidia.com/gpu=0", "nvidia.com/gpu=1"),
)


ALL = {"gpus": "all"}


def planned(
    word: str = "cuda8-cudnn5",
    text: str = "{}",
    *,
    flags: dict[str, Any] | None = None,
    caller: Caller = ANNA,
    engine: EngineFacts | None = None,
    files: dict[str, str] | None = None,
    taken: frozenset[str] = frozenset(),
    hook_refused: bool = False,
    machine: Machine | None = None,
    printed: bool = False,
    **ask: Any,
) -> Plan:
    own = Layer("x.yaml", read(text, "x.yaml", Path("/base")))
    config = anna.config(own, environ=caller.environ, folder=caller.folder)
    profile = config.profile(word, from_flags(flags or {}, caller.folder))
    facts = Facts(
        caller=caller,
        engine=engine,
        files=files,
        taken=taken,
        hook_refused=hook_refused,
        machine=machine,
        printed=printed,
        unseen="" if machine else "there is no driver",
    )
    return plan(profile, Ask(**ask), facts)


def line(*words: Any, **more: Any) -> str:
    return docker_run_line(planned(*words, **more))


# --- names


def test_a_box_is_named_after_profile_and_person() -> None:
    assert planned().name == "cuda8-cudnn5-anna"
    taken = frozenset({"cuda8-cudnn5-anna", "cuda8-cudnn5-anna-2"})
    third = planned(taken=taken)
    assert (third.name, third.hostname) == ("cuda8-cudnn5-anna-3", "cuda8-cudnn5-anna-3")
    assert planned("nvcr.io/nvidia/pytorch:24.01-py3").name == "pytorch-anna"
    assert planned(name="mine").name == "mine"
    odd = planned(caller=replace(ANNA, name="LAB\\anna.b@x"))
    assert odd.name == "cuda8-cudnn5-LAB-anna.b-x"
    with pytest.raises(GpuboxError, match="is no name for a box"):
        planned(name="a b")


def test_the_hostname_is_the_name_where_the_box_has_its_own() -> None:
    assert planned(flags={"network_mode": "host"}).hostname is None
    assert planned(flags={"network_mode": "container:x"}).hostname is None
    assert planned(flags={"network_mode": "host", "hostname": "h"}).hostname == "h"
    assert len(planned(name="x" * 100).hostname or "") == 63


# --- streams


@pytest.mark.parametrize(
    ("caller", "ask", "tty", "interactive"),
    [
        (ANNA, {}, False, False),
        (ANNA, {"interactive": True}, False, True),
        (ANNA, {"detach": True}, True, True),
        (ANNA, {"detach": True, "command": ("true",)}, False, False),
        (ANNA, {"detach": True, "command": ("sh",), "tty": True}, True, False),
        (ANNA, {"tty": True}, True, False),
        (AT_TERMINAL, {}, True, True),
        (AT_TERMINAL, {"command": ("ls",)}, True, True),
        (AT_TERMINAL, {"detach": True, "command": ("ls",)}, False, False),
        (replace(AT_TERMINAL, stdout_is_terminal=False), {}, False, False),
    ],
)
def test_a_terminal_gets_a_terminal(
    caller: Caller, ask: dict[str, Any], tty: bool, interactive: bool
) -> None:
    made = planned(caller=caller, **ask)
    assert (made.tty, made.interactive) == (tty, interactive)


def test_a_terminal_in_the_box_needs_one_outside() -> None:
    with pytest.raises(GpuboxError, match="input from something that is none"):
        planned(tty=True, interactive=True)


# --- GPUs


@pytest.mark.parametrize(
    ("engine", "gpus", "hook_refused", "words"),
    [
        (None, "all", False, "--gpus all"),
        (HOOK, "all", False, "--gpus all"),
        (HOOK, "0,2", False, "--gpus '\"device=0,2\"'"),
        (HOOK, "device=1", False, "--gpus device=1"),
        (CDI, "all", False, "--device nvidia.com/gpu=all"),
        (CDI, "device=1", False, "--device nvidia.com/gpu=1"),
        (CDI, "0,1", False, "--device nvidia.com/gpu=0 --device nvidia.com/gpu=1"),
        (CDI, "device=7", False, "--gpus device=7"),
        (CDI, "device=7", True, "--device nvidia.com/gpu=7"),
        (replace(CDI, runtimes=("runc", "nvidia")), "all", False, "--gpus all"),
        (replace(CDI, runtimes=("runc", "nvidia")), "all", True, "--device nvidia.com/gpu=all"),
        (replace(CDI, api=(1, 53)), "all", False, "--gpus all"),
        (replace(HOOK, cdi_enabled=True), "all", True, "--device nvidia.com/gpu=all"),
        (replace(CDI, podman="5.4.1", api=(1, 41)), "all", False, "--device nvidia.com/gpu=all"),
    ],
)
def test_gpus_are_spelled_for_the_engine_in_hand(
    engine: EngineFacts | None, gpus: str, hook_refused: bool, words: str
) -> None:
    said = line(flags={"gpus": gpus}, engine=engine, hook_refused=hook_refused)
    assert f" {words} " in said


def test_engines_that_ignore_gpu_requests_are_refused() -> None:
    with pytest.raises(GpuboxError, match=r"Podman 4\.3\.1 ignores GPU requests"):
        planned(engine=replace(HOOK, podman="4.3.1"))
    with pytest.raises(GpuboxError, match="knows no GPU requests"):
        planned(engine=replace(HOOK, api=(1, 39)))
    none = planned(flags={"gpus": "none"}, engine=replace(HOOK, podman="4.3.1"))
    assert none.gpus == GpuRequest(Gpus())


def test_a_podman_that_ignores_cdi_devices_is_refused() -> None:
    flags = {"gpus": "none", "devices": ["nvidia.com/gpu=0"]}
    with pytest.raises(GpuboxError, match=r"ignores CDI devices: .* without nvidia\.com/gpu=0"):
        planned(flags=flags, engine=replace(HOOK, podman="5.3.2"))
    for engine in (None, HOOK, replace(HOOK, podman="5.4.0"), replace(HOOK, podman="5.4-dev")):
        assert " --device nvidia.com/gpu=0 " in line(flags=flags, engine=engine)


def test_no_gpu_is_really_none() -> None:
    none = planned(flags={"gpus": "none", "environment": ["NVIDIA_VISIBLE_DEVICES=all"]})
    assert "NVIDIA_VISIBLE_DEVICES=void" in arguments(none).run["environment"]
    assert "device_requests" not in arguments(none).run


@pytest.mark.parametrize(
    ("gpus", "label"),
    [("all", "all"), ("none", "none"), ("0,2", "index:0,index:2"), ("GPU-1a-2", "GPU-1a-2")],
)
def test_the_claim_is_in_a_label(gpus: str, label: str) -> None:
    assert ("gpubox.gpus", label) in planned(flags={"gpus": gpus}).labels


# --- environment


def test_variables_of_the_caller_are_taken_by_name() -> None:
    made = planned(flags={"environment": ["WANDB_API_KEY", "NOT_SET", "A=b"]})
    assert arguments(made).run["environment"] == ["WANDB_API_KEY=s3cret", "A=b"]
    assert "-e WANDB_API_KEY -e A=b" in docker_run_line(made)


def test_a_secret_is_named_and_never_printed() -> None:
    made = planned(flags={"environment": ["MY_TOKEN=s3cret", "PASSWORD=s3cret"]}, token="s3cret")
    assert "s3cret" not in docker_run_line(made)
    assert hidden(made) == ["MY_TOKEN", "PASSWORD", "JUPYTER_TOKEN"]
    assert "JUPYTER_TOKEN=s3cret" in arguments(made).run["environment"]


def test_an_env_file_is_read_as_docker_reads_it() -> None:
    text = "# c\n\n A=1\nB='x y'\nWANDB_API_KEY\nNOPE\nE=\n"
    made = planned(flags={"env_file": ["/f"], "environment": ["A=2"]}, files={"/f": text})
    assert arguments(made).run["environment"] == [
        "A=1",
        "B='x y'",
        "WANDB_API_KEY=s3cret",
        "E=",
        "A=2",
    ]
    assert "--env-file /f -e A=2" in docker_run_line(made)
    with pytest.raises(GpuboxError, match=r"/f:1: env_file: 'A B' is no variable's name"):
        planned(flags={"env_file": ["/f"]}, files={"/f": "A B=1"})


# --- the rest


def test_further_words_of_an_entrypoint_lead_the_command() -> None:
    made = planned("p", "profiles: {p: {image: a, entrypoint: x y, command: z}}")
    assert (made.entrypoint, made.command) == (("x",), ("y", "z"))
    assert planned(command=("ls", "-l")).kind == "command"
    assert planned().kind == "shell"


def test_host_networking_publishes_nothing_and_says_so() -> None:
    made = planned(flags={"network_mode": "host", "ports": ["80"], "gpus": "all"})
    assert made.ports == ()
    assert made.notes == ("with host networking nothing is published: 80/tcp is the machine's own",)


def test_shared_memory_of_the_host_has_no_size_of_its_own() -> None:
    assert planned(flags={"ipc": "host"}).shm_size is None
    assert planned(flags={"ipc": "private"}).shm_size == 8 << 30


def test_a_port_of_the_machine_leads_to_one_port_of_the_box() -> None:
    with pytest.raises(GpuboxError, match=r"127\.0\.0\.1:8080/tcp is published twice"):
        planned(flags={"ports": ["8080:80", "8080:81"]})
    others = ["80", "81", "8080:82/tcp", "8080:83/udp", "9000-9001:84", "9000-9001:85"]
    assert len(planned(flags={"ports": others}).ports) == 6


def test_a_removed_box_cannot_restart() -> None:
    with pytest.raises(GpuboxError, match="exclude each other"):
        planned(flags={"rm": "true", "restart": "always"})


def test_jupyters_port_is_the_one_asked_for_or_the_next_free() -> None:
    assert planned(kind="jupyter").ports == (Port(8888, host="8888"),)
    assert planned(kind="jupyter", port=9000).ports == (Port(8888, host="9000"),)
    by_flag = planned(kind="jupyter", flags={"ports": ["7000:8888", "6006"]})
    assert by_flag.ports == (Port(6006), Port(8888, host="7000"))
    assert by_flag.port_by_caller
    public = planned(kind="jupyter", public=True)
    assert public.ports[0].address == "0.0.0.0"


def test_nvidias_own_published_line_works() -> None:
    said = line(
        "nvcr.io/nvidia/pytorch:24.01-py3",
        flags={
            "gpus": "all",
            "rm": "true",
            "ipc": "host",
            "ulimits": ["memlock=-1", "stack=67108864"],
        },
        caller=AT_TERMINAL,
    )
    for words in (
        "docker run -it --name pytorch-anna",
        "--gpus all",
        "--rm",
        "--ipc host",
        "--ulimit memlock=-1:-1 --ulimit stack=67108864:67108864",
    ):
        assert words in said
    assert said.endswith(" nvcr.io/nvidia/pytorch:24.01-py3")


def test_a_box_of_the_callers_has_their_other_groups_too() -> None:
    caller = replace(ANNA, groups={1000: "anna", 27: "sudo"})
    made = planned(flags={"user": "host"}, caller=caller)
    assert (made.user, made.group_add) == ("1000:1000", ("27",))


def test_root_is_told_to_images_that_would_make_another_of_root() -> None:
    root = replace(ANNA, name="root", uid=0, gid=0, groups={0: "root"})
    told = {"NB_USER=root", "NB_UID=0", "NB_GID=0"}
    said = {str(item) for item in planned(flags={"user": "host"}, caller=root).environment}
    assert told <= said
    others = {str(item) for item in planned(flags={"user": "host"}).environment}
    assert not any(text.startswith("NB_") for text in others)


# --- the image that a machine can run

GTX = Gpu(index=0, uuid="GPU-0", name="GTX", brand="geforce", capability=(6, 1))
A100 = Gpu(index=1, uuid="GPU-1", name="A100", brand="nvidia", capability=(8, 0))
RTX = Gpu(index=0, uuid="GPU-2", name="RTX", brand="geforce", capability=(12, 0))
MIXED = Machine("535.183.01", (12, 2), (GTX, A100))


@pytest.mark.parametrize(
    ("machine", "image"),
    [
        (None, "2.8.0-cuda12.6-cudnn9-runtime"),
        (MIXED, "2.8.0-cuda12.6-cudnn9-runtime"),
        (Machine("570.26", (12, 8), (RTX,)), "2.8.0-cuda12.8-cudnn9-runtime"),
        (Machine("470.57.02", (11, 4), (A100,)), "2.7.1-cuda11.8-cudnn9-runtime"),
    ],
)
def test_the_built_in_pytorch_is_the_one_for_the_driver_and_the_gpus(
    machine: Machine | None, image: str
) -> None:
    assert planned("pytorch", machine=machine).image == f"pytorch/pytorch:{image}"


@pytest.mark.parametrize(
    ("gpus", "image"),
    [
        ("all", "12.4.1-cudnn-devel-ubuntu22.04"),
        ("0", "12.4.1-cudnn-devel-ubuntu22.04"),
        ("device=1", "12.9.2-cudnn-devel-ubuntu24.04"),
        ("GPU-1", "12.9.2-cudnn-devel-ubuntu24.04"),
    ],
)
def test_cuda12_suits_the_gpus_that_the_box_sees(gpus: str, image: str) -> None:
    said = {"gpus": gpus.split(",") if gpus == "0" else gpus}
    assert planned("cuda12", flags=said, machine=MIXED).image == f"nvidia/cuda:{image}"


def test_an_instance_is_judged_as_the_gpu_that_it_is_of_and_a_number_as_the_first_ones() -> None:
    devices = Device(index="1", uuid="GPU-1"), Device(index="1:0", uuid="MIG-1")
    held = [Holding(device=it, state="free") for it in devices]
    for word in ("MIG-1", "1:0", "gpu-1"):
        assert asked_gpus(Gpus((word,)), MIXED, held) == (A100,)
    assert absent(["1:0", "MIG-1", "1:1", "7", "MIG-2"], devices) == ["1:1", "7", "MIG-2"]
    assert asked_gpus(Gpus(count=1), MIXED) == (GTX,)


def test_without_a_gpu_the_newest_image_is_as_good_as_any() -> None:
    old = Machine("470.57.02", (11, 4), (A100,))
    assert planned("cuda12", machine=old).image == "nvidia/cuda:12.8.1-cudnn-devel-ubuntu24.04"
    found = planned("cuda12", flags={"gpus": "none"}, machine=old)
    assert found.image == "nvidia/cuda:12.9.2-cudnn-devel-ubuntu24.04"


def test_another_image_than_the_first_is_said_with_the_reason() -> None:
    text = 'profiles: {p: {image: ["nvidia/cuda:12.9.1-base-ubuntu24.04", "b:2"]}}'
    found = planned("p", text, flags=ALL, machine=MIXED)
    assert (found.image, found.choice) == (
        "b:2",
        "b:2, the first of its images that driver 535.183.01 (CUDA 12.2) runs on GTX (Pascal, 6.1)"
        " and A100 (Ampere, 8.0)",
    )
    assert planned("pytorch", flags=ALL, machine=MIXED).choice == ""


def test_auto_always_says_what_it_is() -> None:
    text = "profiles: {p: {cuda: auto, cudnn: auto}}"
    newest = "nvidia/cuda:13.3.0-cudnn-devel-ubuntu24.04"
    assert planned("p", text, flags=ALL).choice == (
        f"{newest}, the newest; what suits here is not known: there is no driver"
    )
    newer = Machine("610.43.02", (13, 3), (A100,))
    assert planned("p", text, flags=ALL, machine=newer).choice == f"{newest}, the newest"
    assert planned("cuda12", flags=ALL, machine=newer).choice.endswith("-ubuntu24.04, the newest")
    found = planned("p", text, flags=ALL, machine=Machine("580.65.06", (13, 0), (GTX,)))
    assert found.image == "nvidia/cuda:12.9.2-cudnn-devel-ubuntu24.04"
    assert found.choice == (
        f"{found.image}, the newest that driver 580.65.06 (CUDA 13.0) runs on GTX (Pascal, 6.1)"
    )


# --- GPUs that are picked


def printed(text: str, **said: Any) -> str:
    made = planned(flags={"gpus": text}, printed=True, **said)
    return docker_run_line(made) + " | " + "; ".join(made.notes)


def test_a_line_that_cannot_pick_says_so_and_claims_what_docker_gives() -> None:
    for engine in (None, HOOK, CDI):
        line = printed("2", engine=engine)
        assert " --gpus 2 " in line
        assert "--label gpubox.gpus=index:0,index:1 " in line
        assert "assumed: GPUs that are free; Docker's own --gpus 2 is its first ones" in line


def test_nothing_to_share_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="--share, and no GPU to share"):
        planned(flags={"gpus": "none"}, share=True)


def test_variables_whose_names_speak_of_secrets() -> None:
    secret = (
        "HF_TOKEN MYSQL_PASSWORD DB_PASS WANDB_API_KEY SSH_KEY KEY my_private_key client_secret"
    )
    assert [name for name in secret.split() if not is_secret(name)] == []
    plain = "PATH KEYBOARD MONKEY COMPASS PASSES KEYS_DIR OMP_NUM_THREADS"
    assert [name for name in plain.split() if is_secret(name)] == []
