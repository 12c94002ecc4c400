"""A person's window with a shell in it: a tmux of its own. Knows no Docker and no gpubox."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lab.waiting import wait_until

# How each shell starts without anybody's settings, and with the prompt that all have here.
SHELLS = {
    "bash": ("bash --noprofile --rcfile {}/.zshrc -i", "PS1='[$?]$ '"),
    "zsh": ("env ZDOTDIR={} zsh -d -i", "bindkey -e; PS1='[%?]$ '"),
    "fish": (
        "fish --init-command 'source {}/.zshrc'",
        "set fish_autosuggestion_enabled 0; function fish_prompt; printf '[%s]$ ' $status; end",
    ),
}


class Window:
    """Keys go in, and what a person sees comes out. The prompt tells the last exit code.

    `functions` are lines for the shell to begin with.
    """

    def __init__(
        self, folder: Path, env: Mapping[str, str], cwd: Path, functions: str, shell: str
    ) -> None:
        self._socket, self._env = folder / "tmux", dict(env)
        command, prompt = SHELLS[shell]
        # of that name because zsh takes no other
        (folder / ".zshrc").write_text(f"{prompt}\n{functions}\n")
        words = shlex.split(command.format(folder))
        self._tmux("new-session", "-d", "-x", "80", "-y", "24", "-c", str(cwd), *words)
        self._shell = int(self._tmux("display-message", "-p", "#{pane_pid}"))

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-u", "-S", str(self._socket), "-f", "/dev/null", *words]
        done = subprocess.run(command, env=self._env, capture_output=True, check=True, text=True)
        return done.stdout

    def type(self, text: str) -> None:
        r"""Keys by their characters: `\r` is Enter, `\x03` Ctrl-C."""
        self._tmux("send-keys", "-l", "--", text)

    def resize(self, rows: int, columns: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def send(self, sent: signal.Signals) -> None:
        """A signal to the program in the foreground."""
        children = Path(f"/proc/{self._shell}/task/{self._shell}/children").read_text()
        os.kill(int(children), sent)

    def lines(self) -> list[str]:
        """The screen without colours and without the blanks at the ends."""
        return [line.rstrip() for line in self._tmux("capture-pane", "-p").splitlines()]

    def look(self) -> str:
        """All that is to be seen: text, colours, the cursor, whether it is a second screen."""
        cursor = "cursor at #{cursor_y},#{cursor_x}, second screen: #{alternate_on}"
        return self._tmux("capture-pane", "-p", "-e", ";", "display-message", "-p", cursor)

    def cursor_is_seen(self) -> bool:
        return self._tmux("display-message", "-p", "#{cursor_flag}") == "1\n"

    def shows(self, line: str) -> list[str]:
        """The screen, once this line is on it."""
        return self.fulfils(lambda lines: line in lines, repr(line))

    def fulfils(self, condition: Callable[[list[str]], bool], what: str) -> list[str]:
        """The screen, once it fulfils the condition."""

        def seen() -> list[str] | None:
            lines = self.lines()
            return lines if condition(lines) else None

        try:
            return wait_until(seen) or []
        except TimeoutError:
            raise AssertionError(f"no {what} in\n{self.look()}") from None

    def close(self) -> None:
        """As by a click on the window's X."""
        self._tmux("kill-server")


@contextmanager
def window(
    folder: Path, env: Mapping[str, str], cwd: Path, functions: str = "", shell: str = "bash"
) -> Iterator[Window]:
    folder.mkdir()
    made = Window(folder, env, cwd, functions, shell)
    try:
        yield made
    finally:
        made.close()
