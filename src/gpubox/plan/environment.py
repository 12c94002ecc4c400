"""The variables of a box: what was asked for, what gpubox adds to it, which of them are secrets.

Pure: a profile, facts and the texts of files in, variables out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gpubox.errors import ProfileError
from gpubox.gpus.claims import VISIBLE
from gpubox.plan import notebook
from gpubox.plan.allocation import Allocation
from gpubox.plan.docker_words import EnvFile, Variable
from gpubox.plan.facts import Ask, Caller, Facts, Kind, home_of
from gpubox.profile.profile import Profile
from gpubox.values import NO_GPUS

ORDER = "CUDA_DEVICE_ORDER"
NOTHING_VISIBLE, BY_PLACE = "void", "PCI_BUS_ID"  # what VISIBLE and ORDER may say

_SECRET = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY"
    r"|(^|_)(KEY|PASS)$",
    re.IGNORECASE,
)


def is_secret(variable: str) -> bool:
    """Whether a variable's name says that its value is a secret, which no printed line may show."""
    return bool(_SECRET.search(variable))


def variables_of(name: str) -> dict[str, str]:
    """The variables that tell programs in a box which user they run as, and where its home is."""
    return {
        "USER": name,
        "LOGNAME": name,
        "HOME": home_of(name),
        # an image may have set it to a folder in a home of its own
        "XDG_CACHE_HOME": f"{home_of(name)}/.cache",
    }


def variables(
    profile: Profile, ask: Ask, allocated: Allocation, facts: Facts, kind: Kind
) -> tuple[Variable, ...]:
    caller = facts.caller
    own = dict(facts.job.variables) if facts.job else {}
    if is_caller(profile, caller):
        own |= variables_of(caller.name)
    if profile.user == "host" and (kind == "jupyter" or caller.uid == 0):
        own |= notebook.stacks(caller.name, caller.uid, caller.gid)
    found = {name: Variable(name, value) for name, value in own.items()}
    for name, value in profile.environment.items():
        if value is not None:
            found[name] = Variable(name, value, is_secret(name))
        elif name in caller.environ or facts.exported:
            value = caller.environ.get(name, "")
            found[name] = Variable(name, value, secret=True, inherited=True)
    if allocated.by_place:
        found.setdefault(ORDER, Variable(ORDER, BY_PLACE))
    if allocated.gpus == NO_GPUS:
        # CUDA images set it to `all`, and an engine's default runtime may be NVIDIA's, which obeys
        found[VISIBLE] = Variable(VISIBLE, NOTHING_VISIBLE)
    if ask.token is not None:
        found[notebook.TOKEN] = Variable(notebook.TOKEN, ask.token, secret=True)
    return tuple(found.values())


def files(profile: Profile, facts: Facts) -> tuple[EnvFile, ...]:
    texts = facts.files or {}
    return tuple(
        EnvFile(path, tuple(_env_lines(path, texts.get(path, ""), facts.caller.environ)))
        for path in profile.env_file
    )


def _env_lines(path: str, text: str, environ: Mapping[str, str]) -> list[str]:
    """Read a file as `docker run --env-file` does: no quotes, no `export`.

    A NAME alone takes the caller's value, and is left out if they have none.
    """
    lines = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = line.lstrip()
        name, equals, value = line.partition("=")
        if not line or line.startswith("#"):
            continue
        if not name or re.search(r"\s", name):
            raise ProfileError(f"{path}:{number}", "env_file", f"'{name}' is no variable's name")
        if equals:
            lines.append(f"{name}={value}")
        elif name in environ:
            lines.append(f"{name}={environ[name]}")
    return lines


def is_caller(profile: Profile, caller: Caller) -> bool:
    """Whether the caller must be made known in the box; root is known there."""
    return profile.user == "host" and caller.uid != 0
