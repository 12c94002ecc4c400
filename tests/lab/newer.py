"""A newer Docker Engine than the distribution's, and Compose, unpacked from Debian sid beside it.

Nothing is installed: apt works in a state folder of its own and checks the archive's signatures;
`debian-sid.txt` pins what is expected. Knows no engine.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.errors import LabError

REPOSITORY = Path(__file__).parents[2]
CACHE = REPOSITORY / ".lab"
PINS = Path(__file__).with_name("debian-sid.txt")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEFAULT_MIRROR = "http://deb.debian.org/debian/"


def newer_engine() -> Path:
    """The prefix (with `usr/bin`, `usr/sbin`) of the newer engine; fetched at the first call.

    LabError, with what to do, if the archive could not be reached or is not what it should be.
    """
    pins = PINS.read_bytes()
    prefix = CACHE / f"engine-sid-{hashlib.sha256(pins).hexdigest()[:12]}"
    CACHE.mkdir(exist_ok=True)
    with locked(CACHE / "lock"):
        if not prefix.is_dir():
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="fetch-") as folder:
                _unpack(_download(Path(folder)), Path(folder) / "prefix")
                (Path(folder) / "prefix").rename(prefix)
    return prefix


def compose() -> Path:
    """Docker Compose, for either engine."""
    return newer_engine() / "usr/libexec/docker/cli-plugins/docker-compose"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time; the kernel lets go when the holder dies."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(folder: Path) -> list[Path]:
    apt = _private_apt(folder)
    print(
        "gpubox lab: fetching Docker Engine 28 and Compose from Debian sid (75 MB, once)",
        file=sys.stderr,
    )
    _run([*apt, "update"], folder)
    pinned = [line.split() for line in PINS.read_text().splitlines() if not line.startswith("#")]
    _run([*apt, "download", *(f"{package}/sid" for package, *_ in pinned)], folder)
    for package, version, architecture, sha256 in pinned:
        _compare(next(folder.glob(f"{package}_*.deb")), version, architecture, sha256)
    return sorted(folder.glob("*.deb"))


def _private_apt(folder: Path) -> list[str]:
    """apt-get with state of its own and one source, sid; proxies stay the machine's."""
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} sid main\n")
    settings = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State": folder,
        "Dir::State::Lists": folder / "lists",
        "Dir::State::Status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Acquire::Languages": "none",
        "APT::Update::Error-Mode": "any",
        "APT::Sandbox::User": "root",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    return ["apt-get", "-qq", *options]


def mirror() -> str:
    """Where this machine takes Debian from."""
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    found = subprocess.run(targets, capture_output=True, text=True, check=False).stdout.split()
    return next((uri for uri in found if uri.rstrip("/").endswith("/debian")), DEFAULT_MIRROR)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(
            "the newer engine could not be fetched from Debian sid: " + done.stderr.strip(),
            "see whether `apt-get update` reaches a mirror that has sid, then try again",
        )


def _compare(archive: Path, version: str, architecture: str, sha256: str) -> None:
    """Same version, other content: refused. A newer version: said, since the archive moves on."""
    _, got_version, rest = archive.name.split("_")
    if f"{got_version}_{rest}" != f"{version}_{architecture}.deb".replace(":", "%3a"):
        print(
            f"gpubox lab: {archive.name} (signed by Debian), not {version} ({architecture}): "
            f"if the tests pass with it, pin it in {PINS.relative_to(REPOSITORY)}",
            file=sys.stderr,
        )
    elif hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
        raise LabError(
            f"{archive.name} is not the file that {PINS.name} pins",
            "another content under the same version: find out why before you run it",
        )


def _unpack(archives: list[Path], prefix: Path) -> None:
    for archive in archives:
        subprocess.run(["dpkg-deb", "--extract", archive, prefix], check=True)
        archive.unlink()
    for name in ("usr/share", "etc", "lib"):
        shutil.rmtree(prefix / name, ignore_errors=True)
    prefix.chmod(0o755)
