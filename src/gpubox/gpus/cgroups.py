"""Which containers a process lives in, by the text of its /proc/PID/cgroup.

Pure: that text in, ids out. Reads the paths of Docker, Podman and Kubernetes, made by cgroupfs or
systemd, in cgroup v1 or v2, rootless or not. Knows no engine.
"""

from __future__ import annotations

import re

# One part of a path: ID, docker-ID.scope, libpod-ID.scope, cri-containerd-ID.scope, ...; cgroup v2
# writes " (deleted)" behind the group of a container that has just ended.
_PART = re.compile(r"(?P<kind>.*[-:])?(?P<id>[0-9a-f]{64})(?:\.scope|\.slice)?(?: \(deleted\))?")
_MONITORS = ("libpod-conmon-", "crio-conmon-")  # of processes that watch a container from outside


def containers(text: str) -> tuple[str, ...]:
    """The ids of the containers around a process, the outermost first; none where it is in none."""
    paths = [line.split(":", 2)[-1] for line in text.splitlines()]
    parts = [_PART.fullmatch(part) for path in paths for part in path.split("/")]
    ids = [part["id"] for part in parts if part and part["kind"] not in _MONITORS]
    return tuple(dict.fromkeys(ids))
