"""What went wrong in a build, and what a person can do about it.

The output of apt and its tools comes in, with the engine's last words behind it; a problem and its
fix go out. Knows no engine.
"""

from __future__ import annotations

import re

from gpubox.engine.faults import EngineSaid, Fault, explain, matched

FAULTS = (
    Fault(
        r"gpubox: the key at (?P<what>\S+) is not NVIDIA's",
        "the signing key at {what} is not NVIDIA's",
        "ask who answers there in NVIDIA's name; nothing was installed",
    ),
    Fault(
        r"no valid OpenPGP data|gpubox: no key at",
        "what the package repository has for a signing key is none",
        "correct the URL behind --apt-mirror",
    ),
    Fault(
        r"GPG error: (?P<what>\S+)|The repository '(?P<what2>\S+)[^']*' is not signed",
        "the package repository {what} is not signed with its key",
        "--apt-mirror URL takes the packages from another one",
    ),
    Fault(
        r"(?:Temporary failure resolving|Could not resolve(?: host:?)?) '?(?P<what>[^'\s]+)",
        "the build cannot find the machine {what}",
        "check the network of the engine's machine; --network host builds with just that",
    ),
    Fault(
        r"(?:Failed to fetch|E:|Err:\d+) (?P<what>http\S+).*?(?:\s|HttpError)404\b|"
        r"The repository '(?P<what2>\S+)[^']*' does not have a Release file",
        "the package repository has no {what}",
        "--apt-mirror URL takes the packages from one that kept them",
    ),
    Fault(
        r"[Cc]ertificate verification failed|certificate verify failed|"
        r"No system certificates available",
        "the build does not trust the certificate of the package repository",
        "a proxy that looks into https needs its certificate in the image: --base IMAGE",
    ),
    Fault(
        r"(?:Could not connect to|Unable to connect to|Cannot initiate the connection to) "
        r"(?P<what>[^\s(]*[^\s(:])|Failed to connect to (?P<what2>\S+)|"
        r"Connection timed out|Connection failed|Connection refused",
        "the package repository {what} does not answer",
        "try again later; --network host builds with the network of the engine's machine,"
        " --apt-mirror URL takes the packages from elsewhere",
    ),
    Fault(
        r"Version '(?P<version>[^']+)' for '(?P<what>[^']+)' was not found",
        "the package repository has no {what} in version {version}",
        "--apt-mirror URL takes the packages from one that kept it",
    ),
    Fault(
        r"Unable to locate package (?P<what>\S+)|"
        r"Package '?(?P<what2>[^\s']+)'? has no installation candidate",
        "the package repository has no {what}",
        "--apt-mirror URL takes the packages from one that kept it",
    ),
    Fault(
        r"Hash Sum mismatch|File has unexpected size",
        "a package did not arrive as its repository describes it",
        "try again; a proxy or a mirror may hold a bad copy",
    ),
    Fault(
        r"unmet dependencies|held broken packages",
        "the packages do not fit {it}'s base",
        "--base takes an Ubuntu of the same version as the one that it stands for",
    ),
    Fault(
        r"apt-get: (?:command )?not found|\bapt-get\b[^\n]*no such file",
        "the base of {it} has no apt-get",
        "--base takes an Ubuntu, or an image made from one",
    ),
    Fault(
        r"returned a non-zero code: (?P<what>\d+)",
        "a step in the build of {it} failed with exit code {what}",
        "what it said stands above",
    ),
)


def explain_build(output: str, text: str, it: str) -> EngineSaid:
    """The error for a build of `it` that ended with `text`; `output` is what its last step said."""
    full = "no space left on device"
    if re.search(rf"(?i){full}|You don't have enough free space", f"{output}{text}"):
        return explain(full, it)  # whatever else the tools made of it
    # only this much of the text: before it stands the whole command, whose words could match
    ended = re.search(r"returned a non-zero code: \d+", text)
    found = matched(FAULTS, f"{output}\n{ended[0]}", it) if ended else None
    return found or explain(text, it)
