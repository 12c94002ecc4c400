"""A real headless Chromium, driven as a person would: look at a page, click, type.

Speaks the DevTools protocol over a pipe, so it needs no port, no driver and no library. Reaches
nothing but 127.0.0.1. Knows no Docker and no Jupyter.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any

from lab.engine import ENCLOSE
from lab.errors import LabError
from lab.machine import SYSTEM
from lab.waiting import PATIENCE, wait_until

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-sync", "--disable-component-update"),
    *("--disable-background-networking", "--no-proxy-server"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    *("--window-size=1280,800", "--remote-debugging-pipe"),
)
# The protocol's pipe is descriptors 3 and 4. The shell stays, to be its own processes' init.
BOOT = 'exec 3<"/dev/fd/$0" 4>"/dev/fd/$1"; shift; "$@"; exit $?'
SHIFT = 8  # among the protocol's modifier bits
ENTER = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
PLACE = """
(selector, text) => {
    const seen = [...document.querySelectorAll(selector)].find(
        (one) => one.checkVisibility() && one.innerText.includes(text)
    );
    if (!seen) return null;
    const {x, y, width, height} = seen.getBoundingClientRect();
    return [x + width / 2, y + height / 2];
}
"""


class Page:
    """The one tab of a browser. Elements are named by a CSS selector and a text in them."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._numbers, self._received = itertools.count(1), b""
        self._session = ""
        [target] = [
            target["targetId"]
            for target in self._ask("Target.getTargets")["targetInfos"]
            if target["type"] == "page"
        ]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def open(self, url: str) -> None:
        self._ask("Page.navigate", url=url)

    @property
    def address(self) -> str:
        return str(self._evaluate("location.href"))

    @property
    def text(self) -> str:
        """All that is to be read on it."""
        return str(self._evaluate("document.body?.innerText ?? ''"))

    def shows(self, selector: str, text: str = "") -> tuple[float, float]:
        """The middle of such an element, once one is to be seen."""
        call = f"({PLACE})({json.dumps(selector)}, {json.dumps(text)})"
        try:
            x, y = wait_until(lambda: self._evaluate(call))
        except TimeoutError:
            seen = f"{self.address}:\n{self.text}"
            raise AssertionError(f"no {selector} with {text!r} on {seen}") from None
        return x, y

    def click(self, selector: str, text: str = "") -> None:
        x, y = self.shows(selector, text)
        for event in ("mousePressed", "mouseReleased"):
            self._ask("Input.dispatchMouseEvent", type=event, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        self._ask("Input.insertText", text=text)

    def press_shift_enter(self) -> None:
        for event in ("rawKeyDown", "keyUp"):
            self._ask("Input.dispatchKeyEvent", type=event, modifiers=SHIFT, **ENTER)

    def _evaluate(self, expression: str) -> Any:
        """None, too, while one page makes room for the next."""
        try:
            said = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        except LabError:
            return None
        if "exceptionDetails" in said:
            raise AssertionError(said["exceptionDetails"])
        return said["result"].get("value")

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        addressed = message | ({"sessionId": self._session} if self._session else {})
        os.write(self._commands, json.dumps(addressed).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            pass  # an event that nobody waits for
        if "error" in answer:
            raise LabError(f"{method}: {answer['error']['message']}", "see Chromium's log")
        return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        due = time.monotonic() + PATIENCE
        while b"\0" not in self._received:
            if not select.select([self._answers], [], [], due - time.monotonic())[0]:
                raise TimeoutError(f"the browser's answer: not within {PATIENCE} s")
            part = os.read(self._answers, 1 << 16)
            if not part:
                raise EOFError("the browser has ended: see its log")
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        return dict(json.loads(message))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """With its profile and its log in `folder`, and a process namespace that ends with it."""
    program = which("chromium", path=SYSTEM)
    if not program:
        raise LabError("no chromium on this machine", "apt-get install chromium")
    (folder / "home").mkdir(parents=True)
    theirs_in, commands = os.pipe()
    answers, theirs_out = os.pipe()
    boot = [*ENCLOSE, BOOT, str(theirs_in), str(theirs_out), program, *FLAGS]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*boot, f"--user-data-dir={folder}/profile", "about:blank"],
            env={"PATH": SYSTEM, "HOME": str(folder / "home"), "LANG": "C.UTF-8"},
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(commands, answers)
    finally:
        os.close(commands)  # by which it ends
        os.close(answers)
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
