"""Boxes as the engine lists them: whose each is, which one a word means, what state it is in.

Pure: records and words in; records, sentences or an error that names the owner out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from gpubox.errors import GpuboxError, UsageError, did_you_mean
from gpubox.figures import GIB
from gpubox.gpus import claims
from gpubox.values import NO_GPUS

ALIVE = ("running", "paused", "restarting", "stopping")  # the last is Podman's
KILLED = 137  # by SIGKILL: the kernel's, for want of memory, or somebody's
SHORT_ID = 12  # characters, as Docker prints an id
_ENDED = re.compile(r"(?:Exited|Restarting) \((\d+)\) ?(.*)")


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """A container that gpubox started. `created` is in Unix seconds.

    `ports` are `ADDRESS:PORT->PORT/PROTOCOL`; `status` is the engine's own sentence; `written` the
    bytes that it has written on top of its image, None where they were not asked for.
    """

    id: str
    name: str
    image: str
    profile: str
    owner: str
    kind: str
    gpus: str
    claim: str
    folder: str
    job: str = ""
    state: str
    status: str
    created: int
    ports: tuple[str, ...]
    written: int | None = None

    @property
    def alive(self) -> bool:
        return self.state in ALIVE

    @property
    def has_gpus(self) -> bool:
        """Whether it was given any; it has them only while it is `alive`."""
        return claims.of_label(self.gpus) != NO_GPUS

    @property
    def claims_gpus(self) -> bool:
        """Whether others must not have its GPUs while it runs."""
        return self.has_gpus and self.claim != claims.NO_CLAIM

    @property
    def exit_code(self) -> int | None:
        """The exit code of its last end; None while it runs, and before it has run."""
        ended = _ENDED.match(self.status)
        return int(ended[1]) if ended and not self.alive else None


# --- which one


def meant(word: str, boxes: Sequence[Box], me: str, owner: str | None = None) -> Box:
    """The box of this name, id, or beginning of a name that no other box of the caller's has.

    Another `owner`'s is meant only by its full name.
    """
    named = [box for box in boxes if word == box.name or _is_id(word, box)]
    if named and named[0].owner == (owner or me):
        return named[0]
    mine = [box for box in boxes if box.owner == me]
    shortened = word and not (named or owner)
    begun = [box for box in mine if shortened and box.name.startswith(word)]
    if len(begun) == 1:
        return begun[0]
    if named:
        raise _of_another(named[0])
    if begun:
        names = ", ".join(sorted(box.name for box in begun))
        raise UsageError(f"'{word}' is the beginning of {len(begun)} names", f"say one: {names}")
    raise unknown(word, [box for box in boxes if box.owner == (owner or me)])


def unknown(word: str, boxes: Iterable[Box]) -> UsageError:
    names = [box.name for box in boxes]
    return UsageError(f"no box '{word}'", did_you_mean(word, names) or "gpubox ps -a lists them")


def _is_id(word: str, box: Box) -> bool:
    return len(word) >= SHORT_ID and box.id.startswith(word)


def _of_another(box: Box) -> GpuboxError:
    return GpuboxError(
        f"{box.name} is {box.owner}'s box",
        "another person's box is not touched without --owner NAME and its full name",
    )


# --- how it is


def paused(box: Box) -> GpuboxError:
    """The error for what needs a box to run, or to be stopped."""
    return GpuboxError(f"{box.name} is paused", f"docker unpause {box.name}")


def status(box: Box, ended_by: str = "") -> str:
    """Its state in people's words: `up 3 hours`, `stopped 2 days ago, exit 0`.

    `ended_by` is why it was killed, where that is known.
    """
    if ended := _ENDED.match(box.status):
        code, when = ended[1], ended[2].lower()
        if box.state == "restarting":
            return f"starts again and again, exit {code}"
        how, why = ("killed", f": {ended_by}") if ended_by else ("stopped", f", exit {code}")
        return f"{how} {when}".rstrip() + why
    if box.state == "created":
        return "never started"
    return box.status.lower().replace(" (paused)", ", paused") or box.state


def way_back(name: str, kind: str, *, runs_on: bool, contested: bool = False) -> str:
    """The sentence when a box is left, or ends: what becomes of it, and how to come back.

    `contested`: to start it again, its GPU must be free.
    """
    if runs_on:
        back = f"gpubox enter --attach {name} comes back"
        return f"{name} runs on: {back}, gpubox stop {name} ends it"
    if_free = " (if its GPU is free)" if contested else ""
    if kind == "shell":
        back = f"gpubox enter {name} comes back{if_free}"
    else:
        back = f"gpubox logs {name} shows its output, gpubox start {name} runs it again{if_free}"
    return f"{name} is kept: {back}, gpubox rm {name} removes it"


def out_of_memory(limit: int) -> str:
    """Why a box was killed; `limit` is its own in bytes, 0 for none."""
    return f"its memory of {limit / GIB:.3g} GiB ran out" if limit else _THE_MACHINES


_THE_MACHINES = "the machine's memory ran out"
