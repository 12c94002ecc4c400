"""Profiles: layers, merging, `extends`, variables, origins, and every mistake with its line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from gpubox.errors import GpuboxError
from gpubox.profile.config import Config
from gpubox.profile.layers import Layer, find_project, from_flags, read, read_all
from gpubox.profile.profile import Profile
from gpubox.values import NO_GPUS, Gpus, Mount, Port
from lab import anna

CWD = Path("/cwd")


def config(*texts: str, environ: dict[str, str] | None = None) -> Config:
    """The built-in layer, and above it each text as a project's file in /base."""
    own = [
        Layer(f"{number}.yaml", read(dedent(text), f"{number}.yaml", Path("/base")))
        for number, text in enumerate(texts, 1)
    ]
    return anna.config(*own, environ=environ or {}, folder=CWD)


def resolved(name: str, *texts: str, flags: dict[str, Any] | None = None, **env: str) -> Profile:
    return config(*texts, environ=env).profile(name, from_flags(flags or {}, CWD))


def problem(name: str, *texts: str, flags: dict[str, Any] | None = None, **env: str) -> str:
    with pytest.raises(GpuboxError) as caught:
        resolved(name, *texts, flags=flags, **env)
    return f"{caught.value.problem} | {caught.value.hint}"


def test_images_of_a_list_are_left_to_the_machine_in_their_order() -> None:
    assert resolved("p", "profiles: {p: {image: [b:1, a:2]}}").images == ("b:1", "a:2")
    lower = "profiles: {p: {image: [b:1, a:2]}}"
    assert resolved("p", lower, "profiles: {p: {image: c}}").images == ("c",)


def test_an_open_version_of_cuda_is_left_to_the_machine() -> None:
    found = resolved("p", 'profiles: {p: {cuda: "12", cudnn: 8}}')
    assert found.image == "nvidia/cuda:12.2.2-cudnn8-devel-ubuntu22.04"
    assert len(found.images) == 3
    assert len(resolved("p", "profiles: {p: {cuda: auto, cudnn: auto}}").images) == 22
    assert len(resolved("cuda12-cudnn").images) == 9


# --- what is built in


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("cuda8-cudnn5", "nvidia/cuda:8.0-cudnn5-devel"),
        ("cuda8-cudnn6", "nvidia/cuda:8.0-cudnn6-devel"),
        ("cuda12.4-cudnn-ubuntu22.04", "nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04"),
        ("a/b", "a/b"),
        ("ubuntu:22.04", "ubuntu:22.04"),
    ],
)
def test_a_name_is_an_image(name: str, image: str) -> None:
    assert resolved(name).image == image


def test_the_built_in_profiles_are_whole() -> None:
    built_in = config()
    assert built_in.default() == "pytorch"
    assert built_in.default("default_jupyter") == "jupyter"
    for name in built_in.names():
        profile = built_in.profile(name)
        assert profile.image and profile.description, name
        brings_its_own_init = name == "jupyter"
        assert profile.init is not brings_its_own_init
        assert (profile.gpus, profile.shm_size) == (Gpus(count=1), 8 << 30)


# --- merging


def test_values_replace_and_collections_merge_by_key() -> None:
    profile = resolved(
        "p",
        """
        defaults: {environment: {A: "1", B: "1"}, shm_size: 1g, ports: ["1:80"]}
        profiles:
          p:
            image: a
            environment: [B=2, C]
            volumes: ["/x:/data", "/y:/other"]
            command: one two
            cap_add: [SYS_PTRACE]
        """,
        """
        profiles:
          p:
            environment: {C: "3"}
            volumes: ["/z:/data:ro"]
            command: [three]
            ports: ["2:80", "3:81"]
            cap_add: [NET_ADMIN]
        """,
        flags={"environment": ["D=4"], "shm_size": "2g"},
    )
    assert profile.environment == {"A": "1", "B": "2", "C": "3", "D": "4"}
    assert profile.volumes == (
        Mount("/data", "/z", bind=True, read_only=True),
        Mount("/other", "/y", bind=True),
    )
    assert profile.command == ("three",)
    assert profile.shm_size == 2 << 30
    assert profile.ports == (Port(80, host="2"), Port(81, host="3"))
    assert profile.cap_add == ("CAP_SYS_PTRACE", "CAP_NET_ADMIN")


def test_null_resets_what_a_lower_layer_said() -> None:
    profile = resolved(
        "p",
        "{defaults: {environment: {A: '1'}, init: true}, profiles: {p: {image: a, command: x}}}",
        "profiles: {p: {environment: null, command: , shm_size: ~, init: null}}",
    )
    assert (profile.environment, profile.command, profile.shm_size, profile.init) == (
        {},
        (),
        None,
        None,
    )


def test_image_and_the_cuda_group_clear_each_other() -> None:
    base = 'profiles: {p: {cuda: "8.0", cudnn: 5, flavor: runtime}}'
    assert resolved("p", base).image == "nvidia/cuda:8.0-cudnn5-runtime"
    assert resolved("p", base, "profiles: {p: {image: other}}").image == "other"
    both = resolved("p", "profiles: {p: {image: a}}", 'profiles: {p: {cuda: "8.0"}}')
    assert both.image == "nvidia/cuda:8.0-devel"
    # cuDNN 5, runtime and the OS belonged to the old CUDA
    newer = resolved("p", base, 'profiles: {p: {cuda: "11.8"}}')
    assert newer.image == "nvidia/cuda:11.8.0-devel-ubuntu22.04"
    assert "keep one of them" in problem("p", 'profiles: {p: {image: a, cuda: "8.0"}}')


def test_the_order_is_defaults_then_ancestors_then_own_layers_then_flags() -> None:
    texts = (
        """
        defaults: {user: defaults1, hostname: defaults1}
        profiles:
          base: {image: a, user: base1}
          p: {extends: base, working_dir: /one}
        """,
        """
        defaults: {hostname: defaults2, shm_size: 7m}
        profiles: {base: {shm_size: 1m, working_dir: /base2}, p: {shm_size: 2m}}
        """,
    )
    profile = resolved("p", *texts)
    assert (profile.user, profile.hostname) == ("base1", "defaults2")
    assert (profile.working_dir, profile.shm_size) == ("/one", 2 << 20)
    assert resolved("p", *texts, flags={"user": "flag"}).user == "flag"


def test_extends_reaches_names_that_no_file_defines() -> None:
    assert resolved("p", "profiles: {p: {extends: cuda12.4-cudnn}}").image.startswith(
        "nvidia/cuda:12.4.1-cudnn-devel"
    )


def test_a_circle_of_extends_is_named() -> None:
    text = """\
        profiles:
          a: {extends: b}
          b:
            extends: c
          c: {extends: a}
        """
    assert problem("a", text).startswith("1.yaml:5: extends: a circle: a -> b -> c -> a")
    assert problem("a", "profiles: {a: {extends: a}}").endswith("a circle: a -> a | ")
    assert problem("jupyter", "profiles: {jupyter: {extends: jupyter}}").endswith(
        "a circle: jupyter -> jupyter | leave it out: this adds to the 'jupyter' of lower layers"
    )
    assert "no profile 'bas' | did you mean 'base'?" in problem(
        "p", "profiles: {base: {image: a}, p: {extends: bas}}"
    )
    chain = ", ".join(f"p{number}: {{extends: p{number + 1}}}" for number in range(1500))
    assert "more than 100 profiles" in problem("p0", f"profiles: {{{chain}, p1500: {{image: a}}}}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("profiles:\n\tp: {image: a}", "1.yaml:2: not YAML: a tab; it is indented with spaces"),
        (f"x-deep: {'[' * 400}{']' * 400}", "1.yaml:1: lists and mappings nested too deep"),
    ],
)
def test_tabs_and_depths_that_yaml_does_not_bear_are_named(text: str, said: str) -> None:
    assert problem("p", text).startswith(said)


# --- scalars, paths, variables


def test_scalars_stay_what_was_written() -> None:
    profile = resolved(
        "p",
        """
        profiles:
          p:
            image: a
            environment: {ON: on, NO: no, PORT: 22:22, V: 12.10, T: true, O: 0o7, E: , N: null}
        """,
    )
    assert profile.environment == {
        "ON": "on",
        "NO": "no",
        "PORT": "22:22",
        "V": "12.10",
        "T": "true",
        "O": "0o7",
        "E": None,
        "N": None,
    }
    assert resolved("p", "profiles: {p: {image: a, ports: [22:22]}}").ports == (
        Port(22, host="22"),
    )
    assert "12.10" in problem("p", "profiles: {p: {cuda: 12.10}}")
    assert "neither true nor false" in problem("p", "profiles: {p: {image: a, init: yes}}")


def test_paths_start_at_the_file_that_wrote_them() -> None:
    text = "profiles: {p: {image: a, volumes: ['./x:/x'], workspace: .}}"
    assert [mount.source for mount in resolved("p", text).volumes] == ["/base/x", "/base"]
    flags = {"volumes": ["./x:/y"], "workspace": "."}
    mounts = resolved("p", text, flags=flags).volumes
    assert [mount.source for mount in mounts] == ["/base/x", "/cwd/x", "/cwd"]


def test_a_shared_layers_workspace_is_the_working_directory() -> None:
    shared = Layer(
        "etc", read("profiles: {p: {image: a, workspace: .}}", "etc", Path("/etc")), True
    )
    mounts = Config((*config().layers, shared), {}, CWD).profile("p").volumes
    assert [mount.source for mount in mounts] == ["/cwd"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("$USER-x", "anna-x"),
        ("${USER}", "anna"),
        ("${NONE:-else}", "else"),
        ("${NONE:-${USER}/${NIL:-$USER}}/x", "anna/anna/x"),
        ("${USER:+$USER-${USER}}", "anna-anna"),
        ("${EMPTY:-else}", "else"),
        ("${EMPTY-else}", ""),
        ("${USER:+other}", "other"),
        ("${NONE:+other}", ""),
        ("$$USER", "$USER"),
        ("a$$", "a$"),
    ],
)
def test_variables_are_composes(written: str, meant: str) -> None:
    text = f"profiles: {{p: {{image: a, environment: {{X: '{written}'}}}}}}"
    assert resolved("p", text, USER="anna", EMPTY="").environment == {"X": meant}


def test_an_unset_variable_is_an_error_with_its_line() -> None:
    text = "profiles:\n  p:\n    image: a\n    user: ${NOPE}\n"
    assert problem("p", text).startswith("1.yaml:4: user: the variable NOPE is not set | set it")
    assert "say NOPE" in problem("p", text.replace("${NOPE}", "${NOPE:?say NOPE}"))
    assert "written $$" in problem("p", text.replace("${NOPE}", "'${'"))


def test_variables_are_for_files_and_not_for_flags() -> None:
    profile = resolved("a/b", flags={"environment": ["X=$HOME ${NOPE}"]})
    assert profile.environment == {"X": "$HOME ${NOPE}"}


def test_another_profiles_mistake_is_no_hindrance() -> None:
    text = "profiles: {broken: {imge: a, user: '${NOPE}'}, p: {image: a}}"
    assert resolved("p", text).image == "a"


# --- datasets


def test_datasets_are_mounted_read_only_where_they_say() -> None:
    text = """
        datasets: {imagenet: /d/imagenet:/data/net, coco: ./coco, out: /o:/out:rw}
        profiles: {p: {image: a, datasets: [imagenet, "coco:/c", out]}}
        """
    assert resolved("p", text).volumes == (
        Mount("/data/net", "/d/imagenet", True, True),
        Mount("/c", "/base/coco", True, True),
        Mount("/out", "/o", True, False),
    )
    assert "no dataset 'imagnet' | did you mean 'imagenet'?" in problem(
        "p", text, flags={"datasets": ["imagnet"]}
    )


def test_a_profile_can_be_merged_from_several_mappings() -> None:
    text = """
        x-big: &big {shm_size: 2m, user: big}
        x-image: &image {image: a, user: x}
        profiles: {p: {<<: [*big, *image], shm_size: 1m}}
        """
    profile = resolved("p", text)
    assert (profile.image, profile.user, profile.shm_size) == ("a", "big", 1 << 20)


def test_two_mounts_on_one_target_are_refused() -> None:
    assert "/data stands here twice" in problem(
        "p", "profiles: {p: {image: a, volumes: ['/a:/data', '/b:/data/']}}"
    )
    text = (
        "{datasets: {d: '/d:/data'}, profiles: {p: {image: a, datasets: d, volumes: ['/v:/data']}}}"
    )
    assert "both mounted on /data" in problem("p", text)


# --- mistakes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("profiles:\n  p:\n    imge: a", "1.yaml:3: imge: unknown key | did you mean 'image'?"),
        ("profils: {}", "1.yaml:1: profils: unknown key | did you mean 'profiles'?"),
        (
            "services: {p: {}}",
            "1.yaml:1: services: unknown key | that is Compose's; here: profiles:",
        ),
        (
            "profiles: {p: {image: a, deploy: {}}}",
            "1.yaml:1: deploy: unknown key | that is Compose's; here: gpus:",
        ),
        ("profiles: {p: {image: a, privileged: true}}", "privileged: unknown key | no key:"),
        ("profiles:\n  p: {image: a}\n  p: {image: b}", "1.yaml:3: p: written twice"),
        ("profiles: [p]", "1.yaml:1: profiles: a mapping"),
        ("profiles: {p: text}", "1.yaml:1: profiles.p: a mapping"),
        ("- a\n- b", "1.yaml:1: a mapping"),
        ("a: [", "1.yaml:"),
        ("a: &x [*x]", "1.yaml:1: an alias that contains itself"),
        ("{}\n---\n{}", "1.yaml:2: not YAML: expected a single document in the stream, but found"),
        ("a: b\nc: \x01", "1.yaml:2: not YAML: unacceptable character #x0001"),
        ("profiles:\n  p:\n    <<: [x]", "1.yaml:3: <<: a mapping is expected here, or a list of"),
        (
            "profiles: {p: {image: {b: a}}}",
            "1.yaml:1: image: a text or a list is expected here, not",
        ),
        ("profiles:\n  p:\n    image: a\n    ports:\n    - 1:80\n    - x", "1.yaml:6: ports: 'x'"),
        (
            "profiles:\n  p:\n    image: a\n    ports:\n    - 1:80\n    - {protocol: udp}",
            "1.yaml:6: ports: target is missing here",
        ),
        (
            "profiles: {p: {image: a, volumes: [{target: [/m]}]}}",
            "1.yaml:1: volumes: target: a text is expected here, not a list",
        ),
        ("profiles: {p: {image: []}}", "1.yaml:1: image: an empty list"),
        ("profiles: {p: {image: [a, B]}}", "1.yaml:1: image: 'B': the name of an image is lower"),
        ("profiles: {p: {cuda: automatic}}", "1.yaml:1: cuda: 'automatic' is not a version of CUD"),
        (
            "profiles:\n  p:\n    cuda: auto\n    cudnn: 1",
            "1.yaml:4: cudnn: nvidia/cuda has no cuDNN 1 for any CUDA",
        ),
        ("profiles: {p: {image: a, gpus: 0}}", "1.yaml:1: gpus: 0 can mean two things"),
        (
            "profiles: {p: {image: a, gpus: {count: 1, device_ids: [0]}}}",
            "have count or device_ids",
        ),
        ("profiles: {p: {image: a, gpus: {share: true}}}", "have count or device_ids"),
        (
            "profiles: {p: {image: a, gpus: {count: none, share: true}}}",
            "no GPU is nothing to share",
        ),
        ("profiles: {p: {image: a, gpus: {count: 1, share: 3}}}", "neither true nor false"),
        ("profiles: {p: {image: a, gpus: {counts: 1}}}", "have count or device_ids"),
        ("profiles: {p: {image: a, gpus: {device_ids: }}}", "have count or device_ids"),
        (
            "profiles: {p: {image: a, gpus: {count: [0, 1]}}}",
            "gpus: count: a text is expected here",
        ),
        ("profiles: {p: {image: a, gpus: device=00}}", "neither a GPU's index nor its UUID"),
        ("profiles: {p: {image: a, command: 'a \"b'}}", "command: 'a \"b': no closing quotation"),
        ("profiles: {p: {image: A/b}}", "image: 'A/b': the name of an image is lower-case"),
        ("profiles: {p: {image: a, labels: {gpubox.owner: x}}}", "labels under gpubox. are"),
        (
            "profiles: {p: {image: a, ulimits: {nofile: {soft: 1}}}}",
            "ulimits: hard is missing here",
        ),
        ("profiles: {p: {image: a, environment: {A: [1]}}}", "environment: "),
        ("profiles: {p: {image: a, init: maybe}}", "init: 'maybe' is neither true nor false"),
        ("profiles: {p: {cuda: twelve}}", "1.yaml:1: cuda: 'twelve' is not a version of CUDA"),
        ('profiles: {p: {cuda: "12.7"}}', "1.yaml:1: cuda: "),
        ('profiles: {p: {cuda: "8.0", cudnn: 9}}', "1.yaml:1: cudnn: "),
        ("profiles: {p: {description: x}}", "1.yaml: profiles.p: no image | write image: NAME"),
        ("profiles: {p: {image: a, volumes: ['/x:y']}}", "volumes: 'y' is not an absolute path"),
        ("profiles: {p: {image: a, extends: [b]}}", "extends: a text is expected here"),
        ("defaults: {extends: b}\nprofiles: {p: {image: a}}", "extends: unknown key"),
    ],
)
def test_a_mistake_names_its_file_line_and_key(text: str, words: str) -> None:
    assert words in problem("p", text)


def test_a_mistyped_name_finds_the_nearest() -> None:
    assert problem("cuda8-cudn5") == "no profile 'cuda8-cudn5' | did you mean 'cuda8-cudnn5'?"
    with pytest.raises(GpuboxError, match=r"1.yaml:1: default: no profile 'pytorhc'"):
        config("default: pytorhc").default()


def test_a_flag_is_named_as_it_was_typed() -> None:
    assert problem("a/b", flags={"shm_size": "8q"}).startswith("command line: --shm-size: '8q'")
    assert problem("a/b", flags={"ports": ["x"]}).startswith("command line: --publish: 'x'")


def test_entrypoint_as_a_flag_is_one_word() -> None:
    assert resolved("a/b", flags={"entrypoint": "/a b"}).entrypoint == ("/a b",)
    assert resolved("a/b", flags={"entrypoint": ""}).entrypoint == ("",)
    assert resolved("p", "profiles: {p: {image: a, entrypoint: /a b}}").entrypoint == ("/a", "b")


def test_each_value_knows_where_it_was_said() -> None:
    text = "profiles:\n  p:\n    image: a\n    environment:\n      A: '1'\n    user: root\n"
    profile = resolved("p", text, flags={"gpus": "none"})
    assert (profile.image_where, profile.where("user")) == ("1.yaml:3", "1.yaml:6")
    assert profile.where("environment", "A") == "1.yaml:5"
    assert (profile.where("gpus"), profile.gpus) == ("command line", NO_GPUS)
    assert profile.where("shm_size").startswith("built in:")


# --- which files


Write = Callable[[Path, str], Path]


def test_the_layers_lie_where_xdg_and_the_project_say(tmp_path: Path) -> None:
    home, xdg = tmp_path / "home", tmp_path / "xdg"
    project = home / "a" / "b"
    project.mkdir(parents=True)
    for path, name in (
        (home / ".config/gpubox/config.yaml", "x"),
        (xdg / "gpubox/config.yaml", "own"),
        (xdg / "gpubox/profiles.d/one.yaml", "one"),
        (home / "a" / "gpubox.yaml", "project"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"profiles: {{{name}: {{image: a}}}}")
    found = read_all(cwd=project, home=home, environ={"XDG_CONFIG_HOME": str(xdg)}, uid=os.getuid())
    names = Config(tuple(found.layers), {}, CWD).names()
    assert names[-3:] == ["own", "one", "project"]
    assert not found.warnings
    explicit = read_all(
        cwd=project,
        home=home,
        environ={},
        uid=os.getuid(),
        file=home / ".config/gpubox/config.yaml",
    )
    assert "project" not in Config(tuple(explicit.layers), {}, CWD).names()


def test_the_walk_ends_at_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "a").mkdir(parents=True)
    (tmp_path / "gpubox.yaml").write_text("{}")
    assert find_project(home / "a", home, os.getuid()) == (None, "")


def test_a_file_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "gpubox.yaml"
    path.write_text("{}")
    path.chmod(0o666)
    found, warning = find_project(tmp_path, Path("/"), os.getuid())
    assert found is None
    assert warning == f"{path} is not used: others may write it; chmod go-w {path}"
    path.chmod(0o644)
    assert find_project(tmp_path, Path("/"), os.getuid()) == (path, "")


def test_somebody_elses_file_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "gpubox.yaml"
    path.write_text("{}")
    stranger = os.getuid() + 1 if os.getuid() else 1
    os.chown(path, 4321, -1)
    found, warning = find_project(tmp_path, Path("/"), stranger)
    assert found is None and "it belongs to" in warning


@pytest.mark.parametrize("key", ["cudnn: 8", "flavor: base", "os: ubuntu22.04"])
def test_what_picks_a_cuda_image_is_not_idle_beside_another_image(key: str) -> None:
    for parent in ("image: x/y:1", "extends: pytorch"):
        said = problem("a", f"profiles: {{a: {{{parent}, {key}}}}}")
        assert f"{key.partition(':')[0]}: it picks among NVIDIA's CUDA images, and " in said


# --- the registry in front


def test_a_registry_is_told_by_the_environment_above_the_files() -> None:
    said = "registry: mirror.lab:5000/"
    assert resolved("pytorch", said).registry == "mirror.lab:5000"
    assert resolved("pytorch", said, GPUBOX_REGISTRY="other.lab:1").registry == "other.lab:1"
    assert resolved("pytorch", "registry: ${NONE:-}").registry is None


def test_what_is_no_registry_is_told_with_its_place() -> None:
    told = "'https://x.y' is no registry: HOST[:PORT], without https://"
    assert problem("pytorch", "registry: https://x.y") == f"1.yaml:1: registry: {told} | "
    assert problem("pytorch", GPUBOX_REGISTRY="https://x.y") == f"GPUBOX_REGISTRY: {told} | "


# --- when an image is pulled


def test_an_image_that_a_profile_keeps_from_being_pulled_is_not_by_its_name_either() -> None:
    saved = "profiles: {mine: {image: anna/mine, pull_policy: never}}"
    for word in ("mine", "anna/mine", "anna/mine:latest"):
        found = resolved(word, saved)
        assert (found.pull_policy, found.where("pull_policy")) == ("never", "1.yaml:1")
        assert resolved(word, saved, flags={"pull_policy": "always"}).pull_policy == "always"
    assert resolved("anna/mine:2", saved).pull_policy == "missing"
    assert resolved("pytorch", saved).pull_policy == "missing"


def test_pull_policy_has_composes_words() -> None:
    text = "profiles: {p: {image: a, pull_policy: %s}}"
    assert resolved("p", text % "if_not_present").pull_policy == "missing"
    told = problem("p", text % "daily")
    assert told == "1.yaml:1: pull_policy: 'daily' is not missing, always or never | "
