"""Makes the caller known in a box: the files with their passwd and group entries, and a home.

In a box that runs as a mere uid the caller has no name, no groups and no home; these files give
them. Pure: texts in, files out; knows no engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gpubox.engine.archives import Entry
from gpubox.plan.facts import Caller

CHANGED = PASSWD, GROUP = "etc/passwd", "etc/group"


def passwd(text: str, caller: Caller) -> str:
    """The caller's entry, then the image's: a lookup by uid takes the first that fits.

    An image's user who has the caller's uid stays, since the image's scripts may name them.
    """
    kept = [line for line in text.splitlines() if line.split(":")[0] != caller.name]
    own = f"{caller.name}:x:{caller.uid}:{caller.gid}::{caller.box_home}:{_shell(text)}"
    return "\n".join([own, *kept]) + "\n"


def group(text: str, caller: Caller) -> str:
    """The image's groups, and those of the caller's that it lacks, under their names on the host.

    A name that the image uses for another group gets the gid behind it: `video-44`.
    """
    lines = text.splitlines()
    names = {line.split(":")[0] for line in lines}
    numbers = {line.split(":")[2] for line in lines if line.count(":") >= 2}
    for number, name in caller.groups.items():
        if str(number) not in numbers:
            free = name if name not in names else f"{name}-{number}"
            lines.append(f"{free}:x:{number}:{caller.name}")
    return "\n".join(lines) + "\n"


def files(texts: Mapping[str, str], caller: Caller) -> Iterator[Entry]:
    """What to unpack at the box's root: passwd, group and an empty home.

    `texts` are the image's own two files, by path.
    """
    for path, make in ((PASSWD, passwd), (GROUP, group)):
        yield Entry(path, make(texts.get(path, ""), caller).encode())
    yield Entry(caller.box_home.lstrip("/"), None, 0o750, caller.uid, caller.gid)


def _shell(text: str) -> str:
    """The shell that the image gives to root."""
    root = next((line for line in text.splitlines() if line.startswith("root:")), "")
    return root.rpartition(":")[2] or "/bin/sh"
