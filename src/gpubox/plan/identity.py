"""Makes the caller known in a box: the files with their passwd and group entries, and a home.

In a box that runs as a mere uid the caller has no name, no groups and no home; these files give
them. Pure: texts in, an archive out; knows no engine.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

from gpubox.plan.facts import Caller

PASSWD, GROUP = "etc/passwd", "etc/group"


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


def archive(texts: Mapping[str, str], caller: Caller) -> bytes:
    """A tar to unpack at the box's root: passwd, group and an empty home.

    `texts` are the image's own two files, by path.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, make in ((PASSWD, passwd), (GROUP, group)):
            content = make(texts.get(path, ""), caller).encode()
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
        home = tarfile.TarInfo(caller.box_home.lstrip("/"))
        home.type, home.mode = tarfile.DIRTYPE, 0o750
        home.uid, home.gid = caller.uid, caller.gid
        tar.addfile(home)
    return packed.getvalue()


def _shell(text: str) -> str:
    """The shell that the image gives to root."""
    root = next((line for line in text.splitlines() if line.startswith("root:")), "")
    return root.rpartition(":")[2] or "/bin/sh"
