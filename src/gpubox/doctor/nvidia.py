"""Finds NVIDIA's software on this machine: kernel module, libraries, container toolkit, CDI files.

Reads files, so it works where NVML does not; decides nothing. Knows no engine but folders it names.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from gpubox.doctor import cdi
from gpubox.doctor.seen import Toolkit
from gpubox.errors import why

HOOK = "nvidia-container-runtime-hook"
# A service's usual PATH, for an engine whose own cannot be seen.
PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LIBRARIES = (
    *("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"),
    *("/usr/lib/wsl/lib", "/usr/local/lib"),
)
_SETTINGS = Path("/etc/nvidia-container-runtime/config.toml")
_NVIDIA, _DISPLAY = "0x10de", "0x03"  # on the PCI bus


def loaded_driver() -> str:
    """The version of the driver in the kernel; empty where there is none."""
    found = re.search(
        r"Kernel Module\s+(?:for \S+\s+)?(\d[\d.]*)", _text("/proc/driver/nvidia/version")
    )
    return found[1] if found else ""


def libraries(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The versions of the driver's libraries that are installed, by their files' names."""
    folders = (*environ.get("LD_LIBRARY_PATH", "").split(":"), *_LIBRARIES)
    names = [
        path.name for folder in folders if folder for path in _named(folder, "libnvidia-ml.so.*")
    ]
    versions = [name.removeprefix("libnvidia-ml.so.") for name in names]
    return tuple(dict.fromkeys(version for version in versions if "." in version))


def cards() -> int:
    """How many of NVIDIA's GPUs the PCI bus has."""
    devices = _named("/sys/bus/pci/devices", "*")
    return sum(
        _text(device / "vendor").strip() == _NVIDIA and _text(device / "class").startswith(_DISPLAY)
        for device in devices
    )


def toolkit(path: str, since: float | None, runtime: str) -> Toolkit:
    """NVIDIA's container toolkit on an engine's PATH; the engine started at `since` (Unix seconds).

    `runtime` is the program of the engine's runtime `nvidia`, if it has one.
    """
    hook = shutil.which(HOOK, path=path) or ""
    installed = 0.0
    with suppress(OSError):
        installed = Path(hook).stat().st_ctime
    return Toolkit(
        hook=hook,
        late=bool(hook and since and installed > since),
        runtime_gone=bool(runtime) and shutil.which(runtime, path=path) is None,
        no_cgroups=bool(re.search(r"(?m)^\s*no-cgroups\s*=\s*true", _text(_SETTINGS))),
    )


def specs(folders: Iterable[str]) -> tuple[cdi.Spec, ...]:
    """The CDI specifications of NVIDIA's GPUs in these folders."""
    return tuple(_specs(folders))


def _specs(folders: Iterable[str]) -> Iterator[cdi.Spec]:
    for folder in folders:
        for path in sorted((*_named(folder, "*.json"), *_named(folder, "*.yaml"))):
            try:
                found = cdi.spec(str(path), path.read_text("utf-8"))
            except OSError as error:
                problem = why(error)
                found = cdi.Spec(str(path), trouble=f"{path}: {problem}")
            except UnicodeDecodeError:
                found = cdi.Spec(str(path), trouble=f"{path}: not a UTF-8 text")
            if found:
                yield found


def _named(folder: str | Path, pattern: str) -> list[Path]:
    try:
        return list(Path(folder).glob(pattern))
    except OSError:
        return []


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
