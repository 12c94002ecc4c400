"""Decides which GPUs a box gets, those that were named or free ones, and how its label claims them.

Pure: what is known of GPUs and their holders comes in, a frozen Allocation out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec
from msgspec.structs import replace

from gpubox import values
from gpubox.errors import EngineError, UsageError
from gpubox.figures import counted
from gpubox.gpus.claims import NO_CLAIM, SHARED
from gpubox.gpus.holders import Holding
from gpubox.gpus.machine import Device, Gpu, Machine, chosen, named, overlap
from gpubox.gpus.pick import NotFree, listed, pick, refuse_held
from gpubox.images import fits
from gpubox.plan.backend import backend, spelt
from gpubox.plan.facts import Ask, Facts
from gpubox.profile.layers import BUILT_IN
from gpubox.profile.profile import Profile
from gpubox.slurm import jobs


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """The GPUs of a box: `gpus` as the engine is asked for them, `claimed` as its label names them.

    `claim` is the kind of claim in the label: SHARED, NO_CLAIM, or empty for an exclusive one.
    GPUs that are `placed` were given by Slurm, which gives them to nobody else.
    """

    gpus: values.Gpus
    claimed: tuple[str, ...] = ()
    claim: str = ""
    placed: bool = False
    notes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return ",".join(self.claimed) or str(self.gpus)

    @property
    def contested(self) -> bool:
        """Whether others may want them at the same time."""
        return self.claim != NO_CLAIM and self.gpus != values.NO_GPUS and not self.placed

    @property
    def by_place(self) -> bool:
        """Whether CUDA is told to number GPUs as NVML does; by itself it puts the fastest first."""
        return bool(self.claimed) and not any("index:" in gpu for gpu in self.claimed)


def allocation(profile: Profile, ask: Ask, facts: Facts) -> Allocation:
    """Decide where the GPUs of a box come from.

    1. An exported plan leaves a count to Docker, and claims nothing.
    2. In a Slurm job they are the job's own.
    3. The built-in default becomes all GPUs, unclaimed, if it cannot be seen which are free.
    4. Else they are those that are named, or some that are free (`allocate`).
    """
    asked = profile.gpus if profile.gpus is not None else values.NO_GPUS
    if ask.share and asked == values.NO_GPUS:
        raise UsageError("--share, and no GPU to share", "leave one of them out")
    share = ask.share or asked.share
    asked = replace(asked, share=False)
    if facts.exported and asked.count:
        return Allocation(gpus=_first(asked.count, facts), claim=NO_CLAIM)
    if facts.job:
        by_default = profile.where("gpus").startswith(BUILT_IN)
        return _placed(asked, facts.job, facts, SHARED if share else "", by_default)
    unseen = asked.count and (facts.machine is None or facts.engine is None)
    if unseen and not share and profile.where("gpus").startswith(BUILT_IN):
        note = f"the box gets all GPUs; which are free is not seen: {_why_unseen(facts)}"
        return Allocation(gpus=values.ALL_GPUS, claim=NO_CLAIM, notes=(note,))
    return allocate(asked, facts, profile.images, share=share)


def _placed(
    asked: values.Gpus, job: jobs.Job, facts: Facts, claim: str, by_default: bool
) -> Allocation:
    """GPUs out of the job's own. If another box already has one, a note says so; it is no error."""
    devices = jobs.share_of(job, jobs.devices(job, facts.machine), asked, default=by_default)
    if not devices:
        none = f"job {job.id} has no GPU, and so the box has none"
        return Allocation(gpus=values.NO_GPUS, notes=(none,) if by_default else ())
    gpus = values.Gpus(tuple(spelt(device, facts.engine) for device in devices))
    notes = [f"{listed(devices)} of job {job.id}"]
    try:
        refuse_held(_named(gpus, facts.holdings), facts.holdings, share=claim == SHARED)
    except NotFree as held:
        notes.append(f"{held.problem}, though Slurm gave it to job {job.id}")
    return Allocation(
        gpus=gpus,
        claimed=tuple(map(_claimed, devices)),
        claim=claim,
        placed=True,
        notes=tuple(notes),
    )


def allocate(
    asked: values.Gpus,
    facts: Facts,
    images: Sequence[str] = (),
    *,
    share: bool = False,
    excluding: Sequence[str] = (),
) -> Allocation:
    """The GPUs that were asked for; raises if a box has one that was named, or too few are free.

    For a count, GPUs that are excluded by their keys are not taken. A printed plan raises nothing:
    it says what it assumes.
    """
    if asked == values.NO_GPUS:
        return Allocation(gpus=asked)
    claim = SHARED if share else ""
    if asked.count:
        try:
            return _picked(asked, facts, images, claim, excluding)
        except EngineError as error:
            if not facts.printed:
                raise
            return _dockers_first(asked, claim, error.problem)
    named = _named(asked, facts.holdings)
    if not facts.printed:
        refuse_held(named, facts.holdings, share=share)
    known = {device.key: _claimed(device) for device in named}
    words = [_claim_of(word, known, facts) for word in asked.ids]
    if asked.all and facts.machine:
        words = list(known.values())
    return Allocation(gpus=asked, claimed=tuple(words), claim=claim)


def _picked(
    asked: values.Gpus, facts: Facts, images: Sequence[str], claim: str, excluding: Sequence[str]
) -> Allocation:
    if facts.machine is None or facts.engine is None:
        raise EngineError(
            f"{counted(asked.count, 'free GPU')} cannot be picked: {_why_unseen(facts)}",
            "name them, like --gpus device=0, or say --gpus all",
        )
    picked = pick(
        asked.count,
        facts.holdings,
        doubt=partial(_doubt, images, facts.machine),
        last=facts.last,
        wanted=facts.wanted,
        share=claim == SHARED,
        excluding=excluding,
    )
    return Allocation(
        gpus=values.Gpus(tuple(spelt(device, facts.engine) for device in picked.devices)),
        claimed=tuple(map(_claimed, picked.devices)),
        claim=claim,
        notes=(picked.said,),
        reasons=picked.reasons,
    )


def _dockers_first(asked: values.Gpus, claim: str, why: str) -> Allocation:
    """Docker's own count, for a printed line where no GPU could be picked: its first GPUs."""
    note = f"assumed: GPUs that are free; Docker's own --gpus {asked} is its first ones ({why})"
    first = tuple(f"index:{number}" for number in range(asked.count))
    return Allocation(gpus=asked, claimed=first, claim=claim, notes=(note,))


def _first(count: int, facts: Facts) -> values.Gpus:
    """A count of GPUs as the engine understands it: CDI has no counts, so it gets indexes."""
    first = values.Gpus(tuple(map(str, range(count))))
    return first if backend(first, facts.engine) == "cdi" else values.Gpus(count=count)


def _why_unseen(facts: Facts) -> str:
    return facts.unseen or "the engine was not asked"


def _doubt(images: Sequence[str], machine: Machine | None, device: Device) -> int:
    """How doubtful the best of the images is on a GPU; of a MIG instance its GPU is judged."""
    gpus = chosen(machine, [device.index], all=False)
    if machine is None or not gpus:
        return 0
    return fits.least_doubt(images, machine, gpus)


def _named(asked: values.Gpus, holdings: Sequence[Holding]) -> list[Device]:
    devices = [holding.device for holding in holdings]
    if asked.all:
        return [device for device in devices if ":" not in device.index]
    keys = [named(word, devices) for word in asked.ids]
    return [
        device
        for device in devices  # all, where no driver lists them
        if device.key == "all" or any(overlap(key, device.key) for key in keys)
    ]


def _claim_of(word: str, known: Mapping[str, str], facts: Facts) -> str:
    devices = [holding.device for holding in facts.holdings]
    return known.get(named(word, devices)) or (word if "-" in word else f"index:{word}")


def _claimed(device: Device) -> str:
    """A GPU's name in a label: its UUID, which never changes, or its index if it has none."""
    return device.uuid or f"index:{device.index}"


def asked_gpus(
    gpus: values.Gpus, machine: Machine | None, holdings: Sequence[Holding] = ()
) -> tuple[Gpu, ...]:
    """The machine's GPUs that the box will see; for a count the first ones, which Docker takes.

    Only with `holdings` can a MIG instance be found by its UUID.
    """
    if machine and gpus.count:
        return machine.sound[: gpus.count]
    devices = [holding.device for holding in holdings]
    return chosen(machine, [named(word, devices) for word in gpus.ids], all=gpus.all)
