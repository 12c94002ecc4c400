"""Makes checks of the ways from the driver into a box: NVIDIA's toolkit, CDI files, cgroups.

Pure: what was seen comes in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from gpubox.checks import Check, Verdict
from gpubox.doctor import cdi
from gpubox.doctor.seen import NO_ANSWER, DriverSeen, EngineSeen, NoEngine, Toolkit
from gpubox.engine.faults import INSTALL_TOOLKIT, NO_SUPPORT
from gpubox.figures import counted
from gpubox.gpus.machine import Machine
from gpubox.plan.backend import backend, has_cdi, is_gated
from gpubox.values import ALL_GPUS, Gpus

TOOLKIT, CDI, CGROUPS = "toolkit", "cdi", "cgroups"
RENEW_CDI = "sudo nvidia-ctk cdi generate --output={}"
SPEC = "/etc/cdi/nvidia.yaml"
_RESTART = "sudo systemctl restart docker"


def way(engine: EngineSeen, toolkit: Toolkit) -> Literal["hook", "cdi", ""]:
    """How this engine gives a box GPUs: as a plan chooses, but by the hook only if that is there.

    Empty if the engine has no way.
    """
    facts = engine.facts
    gpus = Gpus(listed) if (listed := cdi.names(facts.cdi_devices)) else ALL_GPUS
    if not is_gated(backend(gpus, facts), facts):
        return "cdi"
    if toolkit.hook or ("nvidia" in facts.runtimes and not facts.local):
        return "hook"
    return "cdi" if listed else ""


def of_toolkit(
    engine: EngineSeen | NoEngine, toolkit: Toolkit, driver: DriverSeen
) -> Iterator[Check]:
    if isinstance(engine, NoEngine):
        yield Check(TOOLKIT, "not known", NO_ANSWER)
        return
    by, runtime = way(engine, toolkit), "nvidia" in engine.facts.runtimes
    told = [f"the hook {toolkit.hook}"] if toolkit.hook else []
    told += ["the runtime 'nvidia'"] if runtime else []
    told += ["CDI devices"] if has_cdi(engine.facts) else []
    if toolkit.runtime_gone:
        gone = f"the engine's runtime 'nvidia' is {engine.runtime}, and that is gone"
        yield Check(TOOLKIT, "fail", gone, INSTALL_TOOLKIT)
    elif engine.facts.podman:
        yield Check(TOOLKIT, "ok", "not asked: Podman takes GPUs by CDI alone")
    elif not by and not engine.facts.local:
        yield Check(TOOLKIT, "not known", "whether the engine's machine has it cannot be seen here")
    elif not by:
        verdict: Verdict = "fail" if driver.has_gpus else "warn"
        lacks = "no nvidia-container-runtime-hook where it looks"
        also = f", though it has {' and '.join(told)}" if told else ", and no CDI device"
        yield Check(TOOLKIT, verdict, f"{NO_SUPPORT}: {lacks}{also}", INSTALL_TOOLKIT)
    elif by == "hook" and toolkit.late and not runtime:
        late = f"{toolkit.hook} came after the engine's start, when it looks for it"
        yield Check(TOOLKIT, "warn", late, _RESTART)
    else:
        yield Check(TOOLKIT, "ok", ", ".join(told))
    yield from _no_cgroups(engine, toolkit, by)


def _no_cgroups(engine: EngineSeen, toolkit: Toolkit, by: str) -> Iterator[Check]:
    """Whether `no-cgroups`, one setting for all engines of a machine, suits this engine.

    Rootless engines need it, and the others must not have it.
    """
    if by != "hook" or toolkit.no_cgroups == engine.rootless or not engine.facts.local:
        return
    wanted = str(engine.rootless).lower()
    does = "it cannot" if engine.rootless else "boxes see GPUs that they may not open"
    kind = "a rootless engine" if engine.rootless else "an engine of root's"
    yield Check(
        TOOLKIT,
        "fail",
        f"NVIDIA's settings do not suit {kind}: no-cgroups must be {wanted}, or {does}",
        f"sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups={wanted} --in-place",
    )


def of_cdi(
    engine: EngineSeen | NoEngine, toolkit: Toolkit, specs: Sequence[cdi.Spec], driver: DriverSeen
) -> Iterator[Check]:
    """Whether what CDI promises is what the driver lists."""
    if driver.elsewhere:
        yield Check(CDI, "not known", driver.elsewhere)
        return
    there = engine if isinstance(engine, EngineSeen) else None
    by = way(there, toolkit) if there else ""
    verdict: Verdict = "fail" if by == "cdi" else "warn"
    for broken in (spec for spec in specs if spec.trouble):
        again = RENEW_CDI.format(broken.path)
        yield Check(CDI, verdict, broken.trouble, again)
    listed = cdi.names(there.facts.cdi_devices) if there else ()
    devices = listed or tuple(name for spec in specs for name in spec.devices)
    if not devices:
        if not any(spec.trouble for spec in specs):
            yield _no_spec(there, by, driver)
        return
    place = next((spec.path for spec in specs if spec.devices), "")
    if driver.machine is None:
        count = counted(len(devices), "device")
        said = f"{place or 'the engine'} has {count}; NVML tells nothing to compare them with"
        yield Check(CDI, "not known", said)
    elif stale := _stale(devices, specs, driver.machine, place):
        yield Check(CDI, verdict, stale, RENEW_CDI.format(place or SPEC))
    else:
        yield Check(CDI, "ok", f"{place or 'the engine'} lists the GPUs that the driver lists")


def _no_spec(engine: EngineSeen | None, by: str, driver: DriverSeen) -> Check:
    folders = ", ".join((engine.cdi_folders if engine else ()) or cdi.FOLDERS)
    nothing = f"no CDI specification of NVIDIA's in {folders}"
    if by == "hook":
        return Check(CDI, "ok", f"{nothing}: GPUs come by the hook")
    if not driver.has_gpus:
        return Check(CDI, "ok", f"{nothing}, and no GPU that it could list")
    verdict: Verdict = "fail" if by == "cdi" else "warn"
    return Check(CDI, verdict, nothing, RENEW_CDI.format(SPEC))


def _stale(devices: Sequence[str], specs: Sequence[cdi.Spec], machine: Machine, place: str) -> str:
    """What the specification has wrong, or nothing."""
    said = []
    if missing := cdi.missing(devices, machine.gpus):
        said.append("lacks " + ", ".join(f"GPU {gpu.index} ({gpu.uuid})" for gpu in missing))
    if surplus := cdi.surplus(devices, machine.gpus):
        said.append(f"has {', '.join(surplus)}, which the driver does not list")
    of_old = [spec.driver for spec in specs if spec.driver not in ("", machine.driver)]
    if of_old:
        said.append(f"mounts the libraries of driver {of_old[0]}, and {machine.driver} is loaded")
    return (
        f"{place or 'the list of the engine'} is out of date: it {'; it '.join(said)}"
        if said
        else ""
    )


def of_cgroups(engine: EngineSeen | NoEngine, toolkit: Toolkit) -> Iterator[Check]:
    """Whether systemd takes GPUs away from boxes when it reloads its units."""
    if isinstance(engine, NoEngine):
        yield Check(CGROUPS, "not known", NO_ANSWER)
    elif not engine.cgroup_version:
        yield Check(CGROUPS, "not known", "the engine does not tell its cgroups")
    else:
        told = f"cgroup v{engine.cgroup_version}, driver {engine.cgroup_driver}"
        by = way(engine, toolkit)
        if (engine.cgroup_version, engine.cgroup_driver, by) != ("2", "systemd", "hook"):
            yield Check(CGROUPS, "ok", told)
            return
        yield Check(
            CGROUPS,
            "warn",
            f"{told}, GPUs by the hook: systemctl daemon-reload, which package upgrades run, takes"
            " the GPUs away from running boxes",
            'put "exec-opts": ["native.cgroupdriver=cgroupfs"] into /etc/docker/daemon.json, then:'
            f" {_RESTART}",
        )
