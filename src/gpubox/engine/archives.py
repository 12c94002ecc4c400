"""Tars, in which an engine takes files and gives them.

Pure: entries in, bytes out, and back.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from typing import NamedTuple


class Entry(NamedTuple):
    """A file, or a folder if it has no `content`; `uid` and `gid` say whose it is."""

    path: str
    content: bytes | None
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


def packed(entries: Iterable[Entry]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for entry in entries:
            member = tarfile.TarInfo(entry.path)
            member.mode, member.uid, member.gid = entry.mode, entry.uid, entry.gid
            member.size = len(entry.content or b"")
            member.type = tarfile.DIRTYPE if entry.content is None else tarfile.REGTYPE
            tar.addfile(member, io.BytesIO(entry.content or b""))
    return archive.getvalue()


def first_text(archive: bytes) -> str:
    """The text of an archive's first file; empty where that is no file."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        file = tar.extractfile(tar.getmembers()[0])
        return file.read().decode(errors="replace") if file else ""
