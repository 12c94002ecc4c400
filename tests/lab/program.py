"""The installed gpubox program as a person would start it: own home, own folder, one engine.

Knows the engine by its environment variables only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.waiting import PATIENCE

# What of the person's own surroundings would change what gpubox says or does.
FOREIGN = ("DOCKER_", "GPUBOX_", "NV_GPU", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "SSH_", "XDG_")


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without anything that speaks to gpubox, Docker or the terminal's drawing."""
    return {key: value for key, value in environment.items() if not key.startswith(FOREIGN)}


# The program with other constants in one of its modules.
ALLOWING = """\
#!{python}
import importlib
module = importlib.import_module("{module}")
vars(module).update({seconds})
importlib.import_module("gpubox.__main__").main()
"""


class Child(subprocess.Popen[bytes]):
    """Who leaves its `with` ends it."""

    def __exit__(self, *error: Any) -> None:
        self.kill()
        super().__exit__(*error)


class Gpubox:
    """Call it with the words behind `gpubox`; `env`, `home` and `cwd` may be changed before."""

    def __init__(self, folder: Path, engine_env: Mapping[str, str]) -> None:
        self.program = Path(sys.executable).with_name("gpubox")
        if not self.program.exists():
            raise LabError(f"no {self.program}", "pip install -e .  (or: bash tests/run.sh)")
        self.home = folder / "home"
        self.cwd = folder / "work"
        for made in (self.home, self.cwd):
            made.mkdir(parents=True)
        own = {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / ".config")}
        self.env = clean(os.environ) | {"TERM": "xterm", "LANG": "C.UTF-8"} | own | dict(engine_env)
        self.env.pop("PYTHONPATH", None)

    def allow(self, module: str, **seconds: float) -> None:
        """`module` waits so long from now on, where it would soon give up: machines are slow."""
        self.program = self.home.parent / "bin/gpubox"
        self.program.parent.mkdir(exist_ok=True)
        text = ALLOWING.format(python=sys.executable, module=module, seconds=seconds)
        self.program.write_text(text)
        self.program.chmod(0o755)

    def __call__(
        self,
        *words: str | Path,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = PATIENCE,
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs to its end, never on a terminal; `env` is added to `self.env`."""
        return subprocess.run(
            [self.program, *words],
            input=stdin if stdin is not None else b"",
            env=self.env | dict(env or {}),
            cwd=cwd or self.cwd,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def begin(self, *words: str | Path) -> Child:
        """A child with pipes, to be spoken to while it runs."""
        pipe = subprocess.PIPE
        return Child(
            [self.program, *words],
            env=self.env,
            cwd=self.cwd,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
        )
