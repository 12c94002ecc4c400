"""Starts a small box on a GPU, looks what of the GPU arrives there, and removes the box at once.

It starts as every box does, by a plan, but holds no claim: a GPU in use can be tried too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from secrets import token_hex

from msgspec.structs import replace

from gpubox.doctor.seen import Trial
from gpubox.engine import faults
from gpubox.engine.engine import Engine
from gpubox.engine.faults import EngineSaid
from gpubox.errors import EngineError, GpuboxError
from gpubox.gpus.machine import Gpu
from gpubox.plan.facts import Ask, Facts
from gpubox.plan.plan import Plan, plan
from gpubox.plan.translate import arguments
from gpubox.profile.profile import Profile
from gpubox.screen.signals import stoppable
from gpubox.values import ALL_GPUS, Gpus

_SECONDS = 60  # an idle GPU may take some to wake up
_LOOK = (
    'for node in /dev/nvidia[0-9]* /dev/dxg; do [ ! -e "$node" ] || echo "$node"; done;'
    " nvidia-smi -L 2>&1"
)


def of(engine: Engine, image: str, gpu: Gpu | None, facts: Facts) -> Trial:
    """What a box of an image sees of a GPU, or of all of them if that is None."""
    wanted = Gpus((gpu.uuid or str(gpu.index),)) if gpu else ALL_GPUS
    profile = Profile(
        name="doctor",
        images=(image,),
        image_where="doctor",
        gpus=wanted,
        entrypoint=("sh",),
        command=("-c", _LOOK),
        environment={"NVIDIA_DISABLE_REQUIRE": "1"},  # this tries the way to the GPU, not the image
        network_mode="none",
        rm=True,
    )
    try:
        lines = _with_the_way_it_takes(engine, lambda facts: plan(profile, Ask(), facts), facts)
    except GpuboxError as error:
        return Trial(gpu=gpu, image=image, problem=error.problem, hint=error.hint)
    nodes = tuple(line for line in lines if re.fullmatch(r"/dev/(nvidia\d+|dxg)", line))
    listed = tuple(line for line in lines if line.startswith("GPU "))
    return Trial(gpu=gpu, image=image, nodes=nodes, listed=listed)


def _with_the_way_it_takes(
    engine: Engine, planned: Callable[[Facts], Plan], facts: Facts
) -> list[str]:
    """Try the usual GPU request, and CDI if the engine refuses that, as every start does."""
    first = planned(facts)
    try:
        return _lines(engine, first)
    except EngineSaid as refusal:
        other = planned(replace(facts, hook_refused=True))
        if not faults.is_gpu_refusal(refusal.text) or other.gpus == first.gpus:
            raise
        return _lines(engine, other)


def _lines(engine: Engine, planned: Plan) -> list[str]:
    """The lines that a box writes."""
    with stoppable():  # so that the box is removed
        return _said(engine, planned).splitlines()


def _said(engine: Engine, planned: Plan) -> str:
    name = f"gpubox-doctor-{token_hex(4)}"  # others may be trying at the same time
    unclaimed = replace(planned, name=name, labels=(), tty=True, hostname=None)
    box = engine.create(arguments(unclaimed), lambda _: None)
    try:
        streams = engine.attach(box, planned.image, stdin=False)
        engine.start(box, planned.image)
        streams.socket.settimeout(_SECONDS)
        said = streams.early
        while more := streams.socket.recv(65536):
            said += more
        return said.decode(errors="replace")
    except TimeoutError:
        raise EngineError(f"a box of {planned.image} said nothing for {_SECONDS} s") from None
    except OSError as error:
        raise EngineError(f"the connection to the box broke: {error.strerror or error}") from None
    finally:
        engine.remove(box)
