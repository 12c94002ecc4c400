"""NVIDIA's package repositories in small: dummies under the real names, signed, over plain HTTP.

Knows no Docker and no gpubox. What is served may be held back, left out or signed anew meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import itertools
import os
import subprocess
import threading
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from lab.errors import LabError
from lab.machine import SYSTEM, found
from lab.traces import new_folder, remove, sweep

KEY_FILES = {"cuda": "3bf863cc.pub", "machine-learning": "7fa2af80.pub"}
NVCC = "#!/bin/sh\necho 'a dummy of nvcc'\n"


class AptRepository:
    """`compute`, as NVIDIA's server has it: `url` stands for that, `add` fills it."""

    def __init__(self) -> None:
        sweep()
        self.folder, lock = new_folder()
        self._held = contextlib.ExitStack()
        self._held.callback(os.close, lock)
        self.root = self.folder / "compute"
        self.root.mkdir()
        self.key = self._new_key("NVIDIA")
        self.waits_for: dict[str, threading.Event] = {}  # parts of paths, until they may be had
        self.asked: list[str] = []
        self._repositories: set[str] = set()
        self._others = itertools.count(1)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(self, repository: str, pins: Mapping[str, str]) -> None:
        """Packages into `cuda/repos/ubuntu1604` or another; each with one file under its name."""
        place = self.root / repository / "x86_64"
        place.mkdir(parents=True, exist_ok=True)
        for name, version in pins.items():
            self._package(place, name, version)
        self._repositories.add(repository)
        self.sign()

    def remove(self, repository: str, package: str) -> None:
        """As if NVIDIA had taken it away."""
        for file in (self.root / repository / "x86_64").glob(f"{package}_*.deb"):
            file.unlink()
        self.sign()

    def sign(self, key: str | None = None) -> None:
        """Indexes anew, signed by `key`; what is published beside them is NVIDIA's all the same."""
        for repository in self._repositories:
            place = self.root / repository / "x86_64"
            packages = "\n".join(_entry(file) for file in sorted(place.glob("*.deb")))
            (place / "Packages").write_text(packages)
            size, digest = len(packages.encode()), hashlib.sha256(packages.encode()).hexdigest()
            release = f"Date: Thu, 28 Apr 2022 00:00:00 UTC\nSHA256:\n {digest} {size} Packages\n"
            (place / "InRelease").write_text(
                self._gpg("--local-user", key or self.key, "--clearsign", stdin=release)
            )
            published = self._gpg("--armor", "--export", self.key)
            (place / KEY_FILES[repository.partition("/")[0]]).write_text(published)

    def another_key(self) -> str:
        """The fingerprint of a key that is not published."""
        return self._new_key(f"somebody else {next(self._others)}")

    def close(self) -> None:
        for event in self.waits_for.values():
            event.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        home = ["--homedir", str(self.folder / "gnupg")]
        subprocess.run([found("gpgconf", SYSTEM), *home, "--kill", "all"], check=False)
        remove(self.folder)
        self._held.close()

    def _new_key(self, owner: str) -> str:
        self._gpg("--passphrase", "", "--quick-generate-key", owner, "rsa2048", "sign", "never")
        lines = self._gpg("--with-colons", "--list-keys", f"={owner}").splitlines()
        return next(line.split(":")[9] for line in lines if line.startswith("fpr:"))

    def _gpg(self, *words: str, stdin: str = "") -> str:
        home = self.folder / "gnupg"
        home.mkdir(mode=0o700, exist_ok=True)
        command = [found("gpg", SYSTEM), "--homedir", str(home), "--batch", "--quiet", *words]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"gpg: {done.stderr.strip()}", "apt-get install gnupg")
        return done.stdout

    def _package(self, place: Path, name: str, version: str) -> None:
        made = self.folder / "package"
        files = {f"usr/share/gpubox-lab/{name}": version + "\n"}
        if name.startswith(("cuda-core-", "cuda-minimal-build-")):  # as the real ones have it
            cuda = name.removeprefix("cuda-core-").removeprefix("cuda-minimal-build-")
            files[f"usr/local/cuda-{cuda.replace('-', '.')}/bin/nvcc"] = NVCC
        for path, text in files.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_text(text)
            (made / path).chmod(0o755)
        (made / "DEBIAN").mkdir()
        (made / "DEBIAN" / "control").write_text(_control(name, version))
        build = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(made), str(place)]
        subprocess.run(build, check=True, capture_output=True)
        subprocess.run(["rm", "-r", str(made)], check=True)


def _control(name: str, version: str) -> str:
    return (
        f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
        "Maintainer: gpubox's tests <nobody@example.org>\nDescription: a dummy\n"
    )


def _entry(file: Path) -> str:
    name, version, _ = file.name.split("_")
    content = file.read_bytes()
    return (
        f"{_control(name, version)}Filename: ./{file.name}\nSize: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
    )


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, repository: AptRepository, *arguments: object) -> None:
        self.repository = repository
        super().__init__(*arguments, directory=str(repository.root))  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.repository.asked.append(self.path)
        for part, event in list(self.repository.waits_for.items()):
            if part in self.path:
                event.wait()
        with contextlib.suppress(ConnectionError):  # who asked has left meanwhile
            super().do_GET()

    def log_message(self, format: str, *arguments: object) -> None:
        """Not on the test's screen."""


def fill(repository: AptRepository, groups: Iterable[tuple[str, str, str, dict[str, str]]]) -> None:
    """With groups as packages.json has them: flavor, addon, repository, pins."""
    for _, _, name, pins in groups:
        repository.add(name, pins)
