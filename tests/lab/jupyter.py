"""An image with a real JupyterLab, made of this machine's Python without a registry.

Knows no GPUs and no tests. Made once from PyPI, then kept under .lab/.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import docker

from lab.errors import LabError
from lab.images import busybox, tag
from lab.newer import CACHE, locked
from lab.waiting import PATIENCE

JUPYTER = "gpubox-lab/jupyter:latest"
VENV = "/srv/jupyter"  # there while it is made, in a mount namespace, and in the image
SETTINGS = [
    f"ENV PATH={VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "ENV HOME=/root LANG=C.UTF-8 SHELL=/bin/sh",
    "WORKDIR /workspace",
    "EXPOSE 8888",
    'CMD ["jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser", "--allow-root"]',
]
UNUSED = ("test", "tests", "idlelib", "pip", "setuptools")
MAKE_VENV = """
mount -t tmpfs tmpfs /srv && mkdir "$0" && mount --bind "$1" "$0"
"$2" -m venv "$0"
"$0/bin/pip" install --quiet --disable-pip-version-check 'jupyterlab>=4,<5'
"""


def build_jupyter(host: str, *tags: str) -> None:
    """A real JupyterLab as JUPYTER and as `tags`; made once from PyPI, then kept under .lab/."""
    packed = jupyter_tar()
    api: Any = docker.APIClient(base_url=host, version="auto", timeout=PATIENCE)
    try:
        repository, _, version = JUPYTER.rpartition(":")
        api.import_image(str(packed), repository=repository, tag=version, changes=SETTINGS)
        tag(api, JUPYTER, tags)
    finally:
        api.close()


def jupyter_tar() -> Path:
    """The image's files: this Python, what it needs, busybox, and a venv with JupyterLab."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    packed = CACHE / f"jupyter-{platform.python_version()}-{platform.machine()}-{recipe}.tar"
    CACHE.mkdir(exist_ok=True)
    with locked(CACHE / "jupyter.lock"):
        if not packed.exists():
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="jupyter-") as folder:
                _make_venv(Path(folder))
                _pack(Path(folder), packed.with_suffix(".part"))
            packed.with_suffix(".part").rename(packed)
    return packed


def _make_venv(folder: Path) -> None:
    print("gpubox lab: making the Jupyter image from PyPI (a minute, once)", file=sys.stderr)
    folder.chmod(0o755)  # for whoever the box runs as
    enclosed = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", MAKE_VENV]
    done = subprocess.run(
        [*enclosed, VENV, folder, _interpreter()], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise LabError(
            f"JupyterLab could not be installed: {done.stderr.strip()}",
            "apt-get install python3-venv, and see whether pip reaches PyPI",
        )


def _interpreter() -> Path:
    """The one that this Python, perhaps a venv's, was made from."""
    return Path(sys._base_executable).resolve()  # type: ignore[attr-defined]


def _pack(venv: Path, packed: Path) -> None:
    library = Path(sysconfig.get_path("stdlib"))
    with tarfile.open(packed, "w") as tar:
        for folder in ("tmp", "root", "workspace", "etc", "bin"):
            tar.addfile(_folder(folder, 0o1777 if folder == "tmp" else 0o755))
        tar.add(venv, VENV, filter=_needed)
        tar.add(library, library, filter=_standard)
        tar.add(_interpreter(), filter=_as_root)
        for file in _libraries(venv, library):
            tar.add(file.resolve(), file, filter=_as_root)
        tar.add(busybox(), "bin/busybox", filter=_as_root)
        for applet in subprocess.check_output([busybox(), "--list"], text=True).split():
            if applet != "busybox":
                tar.addfile(_link(f"bin/{applet}", "busybox"))
        passwd = b"root:x:0:0:root:/root:/bin/sh\nanna:x:1000:1000:Anna:/workspace:/bin/sh\n"
        tar.addfile(_file("etc/passwd", passwd), io.BytesIO(passwd))


def _libraries(venv: Path, library: Path) -> set[Path]:
    """What the dynamic loader would load for all of it, beyond what is in these folders."""
    programs = [_interpreter(), *venv.rglob("*.so"), *(library / "lib-dynload").glob("*.so")]
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    words = {word for word in said.split() if word.startswith("/") and not word.endswith(":")}
    paths = {Path(os.path.normpath(word)) for word in words}
    return {path for path in paths if not path.is_relative_to(venv)}


def _needed(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Half of the weight is what no server asks for: sources of its own build, other languages."""
    path = Path(member.name)
    unused = path.name in UNUSED or path.suffix in (".a", ".map", ".pyi")
    foreign = path.parent.name == "locale-data" and not path.name.startswith(("en", "root"))
    if unused or foreign or path.name.startswith("config-3"):
        return None
    return _as_root(member)


def _standard(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """The standard library without what this machine has installed beside it."""
    if Path(member.name).name in ("site-packages", "dist-packages"):
        return None
    return _needed(member)


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _folder(name: str, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, mode
    return member


def _link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def _file(name: str, content: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    return member
