"""What speaks against a start, asked before it: folders, the driver and GPUs, getting the image.

Facts from this machine and the engine, findings from the checks, all told at once: what stops is
raised, what is doubtful said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from gpubox import checks, demands, fits, host, pull, values
from gpubox.backend import backend, is_gated
from gpubox.checks import Finding
from gpubox.errors import GpuboxError
from gpubox.layers import COMMAND_LINE
from gpubox.plan import asked_gpus
from gpubox.values import ALL_GPUS, NO_GPUS

if TYPE_CHECKING:
    from gpubox.cli.app import App
    from gpubox.engine import Engine, LocalImage
    from gpubox.facts import EngineFacts
    from gpubox.gpus import Gpu, Machine
    from gpubox.plan import Plan
    from gpubox.profile import Profile


def report(app: App, found: Iterable[Finding], ignored: frozenset[str]) -> None:
    """Say what is doubtful, and raise all that stops."""
    told = [finding for finding in found if finding.id not in ignored]
    for finding in told:
        if not finding.stops:
            app.screen.warn(f"{finding.problem}; {finding.hint}")
    errors = [GpuboxError(finding.problem, _hint(finding)) for finding in told if finding.stops]
    if errors:
        first, *others = errors
        raise GpuboxError(first.problem, first.hint, also=tuple(others))


def _hint(finding: Finding) -> str:
    """The fix; and that a person who knows better may go on."""
    may_pass = finding.id in checks.IGNORABLE and "--ignore" not in finding.hint
    return (
        f"{finding.hint}; or go past this check: --ignore {finding.id}"
        if may_pass
        else finding.hint
    )


def of_image(
    app: App, plan: Plan, profile: Profile, engine: Engine, facts: EngineFacts | None
) -> Iterator[Finding]:
    """What speaks against this image on these GPUs, and against getting it if it is not here."""
    here, said = engine.image(plan.image), profile.where("pull_policy")
    if here is None and plan.pull_policy == "never" and said != COMMAND_LINE:
        yield checks.of_never_pulled(plan.image, said)
        return
    if plan.gpus.gpus != NO_GPUS and app.machine:
        gpus = asked_gpus(plan.gpus.gpus, app.machine)
        own = {item.name: item.value for item in plan.environment}
        gated = is_gated(plan.gpus.backend, facts)
        yield from on(app.machine, gpus, plan.image, here, own, gated)
    if plan.pull_policy == "always" or (here is None and plan.pull_policy == "missing"):
        yield from _of_the_pull(plan.image, plan.registry, engine, facts or engine.facts(), here)


def of_pull(app: App, image: str, registry: str | None, engine: Engine) -> Iterator[Finding]:
    """What speaks against pulling an image; that no GPU of this machine can run it, too."""
    here, facts = engine.image(image), engine.facts()
    if machine := app.machine:
        gated = is_gated(backend(ALL_GPUS, facts), facts)
        each = [list(on(machine, [gpu], image, here, {}, gated)) for gpu in machine.gpus]
        if each and all(any(finding.stops for finding in found) for found in each):
            yield from on(machine, machine.gpus, image, here, {}, gated)
    yield from _of_the_pull(image, registry, engine, facts, here)


def on(
    machine: Machine,
    gpus: Sequence[Gpu],
    image: str,
    here: LocalImage | None,
    own: Mapping[str, str],
    gated: bool,
) -> Iterator[Finding]:
    """What speaks against an image on GPUs; one that is here says itself what it asks for."""
    said = {**here.variables, **own} if here else own
    demand = demands.of_variables(said, image) if here else demands.of_image(image)
    if demand:
        asked = demands.waived(demand, said)
        yield from fits.findings(image, asked, machine, gpus, gated=gated)


def _of_the_pull(
    image: str,
    registry: str | None,
    engine: Engine,
    facts: EngineFacts,
    here: LocalImage | None,
) -> Iterator[Finding]:
    from_the_hub = pull.order(image, registry).source == image and not facts.mirrors
    if from_the_hub and (gone := checks.of_deletion(image)):
        yield gone
        return
    if facts.local and facts.root and here is None and (room := host.room(facts.root)):
        yield from checks.of_room(image, room)
    if from_the_hub and facts.local and not engine.has_login(image):
        yield from _of_the_pull_limit(image)


def _of_the_pull_limit(image: str) -> Iterator[Finding]:
    """Nothing where it cannot be asked: the pull itself will say."""
    from gpubox import hub

    reference = values.reference(image)
    if reference.registry:
        return
    try:
        pulls = hub.pulls(reference.repository, reference.digest or reference.tag)
    except hub.HubUnknown:
        return
    if pulls.limit is not None and pulls.remaining is not None:
        yield from checks.of_the_pull_limit(pulls.limit, pulls.remaining, pulls.window or 0)
