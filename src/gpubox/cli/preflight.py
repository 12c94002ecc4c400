"""What speaks against a start, asked before it: folders, the driver and GPUs, getting the image.

Asks this machine and the engine; `checks` and `fits` judge. All is told at once: what stops is
raised, what is doubtful said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gpubox import checks, values
from gpubox.checks import Check
from gpubox.errors import GpuboxError, together
from gpubox.gpus.machine import absent
from gpubox.host import paths
from gpubox.images import demands, fits, pull
from gpubox.plan.allocation import asked_gpus
from gpubox.plan.backend import backend, is_gated
from gpubox.profile.layers import COMMAND_LINE
from gpubox.values import ALL_GPUS, NO_GPUS

if TYPE_CHECKING:
    from gpubox.cli.app import App
    from gpubox.engine.engine import Engine
    from gpubox.engine.images import LocalImage
    from gpubox.gpus.machine import Gpu, Machine
    from gpubox.plan.facts import EngineFacts, Facts
    from gpubox.plan.plan import Plan
    from gpubox.profile.profile import Profile


def report(app: App, found: Iterable[Check], ignored: frozenset[str]) -> None:
    """Say what is doubtful, and raise all that stops."""
    told = [check for check in found if check.id not in ignored]
    for check in told:
        if not check.stops:
            app.screen.warn(f"{check.evidence}; {check.fix}")
    errors = [GpuboxError(check.evidence, _hint(check)) for check in told if check.stops]
    if errors:
        raise together(errors)


def _hint(check: Check) -> str:
    """The fix; and, for a check that may be ignored, the option that does so."""
    may_pass = check.id in checks.IGNORABLE and "--ignore" not in check.fix
    return f"{check.fix}; or go past this check: --ignore {check.id}" if may_pass else check.fix


def of_image(
    app: App, plan: Plan, profile: Profile, engine: Engine, facts: Facts
) -> Iterator[Check]:
    """What speaks against this image on these GPUs, and against getting it if it is not here."""
    here, said = engine.image(plan.image), profile.where("pull_policy")
    if here is None and plan.pull_policy == "never" and said != COMMAND_LINE:
        yield checks.of_never_pulled(plan.image, said)
        return
    yield from _on_its_gpus(app, plan, here, facts)
    if _is_pulled(plan, here):
        known = facts.engine or engine.facts()
        yield from _of_the_pull(plan.image, plan.registry, engine, known, here)


def foreseen(app: App, plan: Plan, engine: Engine, facts: Facts) -> Iterator[Check]:
    """For a line that is only printed: as warnings, what would stop its box. Asks no registry."""
    here = engine.image(plan.image)
    found = [*_on_its_gpus(app, plan, here, facts)]
    if _is_pulled(plan, here) and (gone := checks.of_deletion(plan.image)):
        found += [gone] if _from_the_hub(plan.image, plan.registry, facts.engine) else []
    return (replace(check, verdict="warn") for check in found)


def _is_pulled(plan: Plan, here: LocalImage | None) -> bool:
    return plan.pull_policy == "always" or (here is None and plan.pull_policy == "missing")


def _on_its_gpus(app: App, plan: Plan, here: LocalImage | None, facts: Facts) -> Iterator[Check]:
    asked = plan.gpus.gpus
    if asked == NO_GPUS or app.machine is None:
        return
    devices = [holding.device for holding in facts.holdings]
    # in a job Slurm has the GPUs, and counts them its own way
    if not facts.job and (words := absent(asked.ids, devices)):
        yield checks.of_absent_gpus(words)
    gpus = asked_gpus(asked, app.machine, facts.holdings)
    filed = values.variables([line for file in plan.env_file for line in file.variables])
    own = filed | {item.name: item.value for item in plan.environment}
    gated = is_gated(plan.gpus.backend, facts.engine)
    yield from of_gpus(app.machine, gpus, plan.image, here, own, gated)


def of_pull(app: App, image: str, registry: str | None, engine: Engine) -> Iterator[Check]:
    """What speaks against pulling an image, also that no GPU of this machine can run it."""
    here, facts = engine.image(image), engine.facts()
    if machine := app.machine:
        gated = is_gated(backend(ALL_GPUS, facts), facts)
        each = [list(of_gpus(machine, [gpu], image, here, {}, gated)) for gpu in machine.sound]
        if each and all(any(check.stops for check in found) for found in each):
            yield from of_gpus(machine, machine.sound, image, here, {}, gated)
    yield from _of_the_pull(image, registry, engine, facts, here)


def of_gpus(
    machine: Machine,
    gpus: Sequence[Gpu],
    image: str,
    here: LocalImage | None,
    own: Mapping[str, str],
    gated: bool,
) -> Iterator[Check]:
    """What speaks against an image on GPUs; what it asks for it says itself, if it is `here`."""
    if demand := demands.of_box(image, here.variables if here else None, own):
        yield from fits.checks(image, demand, machine, gpus, gated=gated)


def _of_the_pull(
    image: str,
    registry: str | None,
    engine: Engine,
    facts: EngineFacts,
    here: LocalImage | None,
) -> Iterator[Check]:
    from_the_hub = _from_the_hub(image, registry, facts)
    if from_the_hub and (gone := checks.of_deletion(image)):
        yield gone
        return
    if here is None:
        yield from of_room(image, facts)
    if from_the_hub and facts.local and not engine.has_login(image):
        yield from _of_the_pull_limit(image)


def of_room(image: str, facts: EngineFacts) -> Iterator[Check]:
    """Too little room for an image that comes or is built, if the engine's disk is seen here."""
    if facts.local and facts.root and (room := paths.room(facts.root)):
        yield from checks.of_room(image, room)


def _from_the_hub(image: str, registry: str | None, facts: EngineFacts | None) -> bool:
    return pull.order(image, registry).source == image and not (facts and facts.mirrors)


def _of_the_pull_limit(image: str) -> Iterator[Check]:
    """What Docker Hub's limit says against a pull; nothing where the Hub does not answer."""
    from gpubox.images import hub

    reference = values.reference(image)
    if reference.registry:
        return
    try:
        pulls = hub.pulls(reference.repository, reference.digest or reference.tag)
    except hub.HubBusy as busy:
        yield Check(checks.RATE_LIMIT, "warn", busy.problem, busy.hint)
        return
    except hub.HubUnknown:
        return
    if pulls.limit is not None and pulls.remaining is not None:
        yield from checks.of_the_pull_limit(pulls.limit, pulls.remaining, pulls.window or 0)
