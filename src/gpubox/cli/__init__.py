"""The command line: arguments in, one call, one print, an exit code.

The one boundary for errors: a GpuboxError becomes two lines and an exit code, anything else is a
bug and shows itself.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

import click

from gpubox import __version__
from gpubox.cli.app import Commands
from gpubox.errors import GpuboxError, UsageError, why
from gpubox.screen.render import Screen

# These pass on the box's own exit code, so their own failures are 125, as docker run's.
RUNS_BOXES = ("run", "jupyter", "mount", "enter")
FAILED, MISUSED, NOT_RUN, INTERRUPTED = 1, 2, 125, 130
_READER_GONE = 141
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("-f", "--file", type=click.Path(), help="Read this file instead of gpubox.yaml.")
@click.option("--verbose", is_flag=True, help="Say more about what is done and why.")
@click.version_option(__version__, message="gpubox %(version)s")
def cli(**_: object) -> None:
    """The right deep-learning container on the right GPU, with one word.

    \b
      gpubox run cuda8-cudnn5                      a shell with CUDA 8 and cuDNN 5
      gpubox jupyter --port 8888                   a notebook, and the URL that opens it
      gpubox mount /data/imagenet:/data            a shell that sees the dataset, read-only
    """


def main() -> NoReturn:
    _open_missing_streams()
    words = sys.argv[1:]
    try:
        code = invoke(words)
        sys.stdout.flush()
    except BrokenPipeError:
        code = _READER_GONE
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        Screen().fail(GpuboxError(f"output: {why(error)}"))
        code = NOT_RUN if _runs_box(words) else FAILED
    # not by sys.exit: Python's clean-up takes a third as long as its imports took
    os._exit(code)


def _open_missing_streams() -> None:
    """Open closed streams (`<&-`), or the first socket would become standard input."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r+"))


def invoke(words: list[str]) -> int:
    """Do what the words say, and tell every error; the exit code."""
    try:
        with cli.make_context("gpubox", words or ["--help"]) as context:
            return int(cli.invoke(context) or 0)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        Screen().say("")
        return INTERRUPTED
    except click.UsageError as error:
        Screen().fail(GpuboxError(_lower(error.format_message()), _usage_hint(error, words)))
        return NOT_RUN if _runs_box(words) else MISUSED
    except click.ClickException as error:
        Screen().fail(GpuboxError(_lower(error.format_message())))
        return NOT_RUN if _runs_box(words) else FAILED
    except GpuboxError as error:
        Screen().fail(error)
        return _exit_code(error, words)


def _exit_code(error: GpuboxError, words: list[str]) -> int:
    if _runs_box(words):
        return error.exit_code if error.exit_code in (126, 127) else NOT_RUN
    return MISUSED if isinstance(error, UsageError) else FAILED


def _runs_box(words: list[str]) -> bool:
    return _command_of(words) in RUNS_BOXES


def _command_of(words: list[str]) -> str:
    """The command among these words, or empty."""
    rest = iter(words)
    for word in rest:
        if word in ("-f", "--file"):
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return ""


def _lower(text: str) -> str:
    text = " ".join(text.split()).replace("not a valid integer range", "no whole number")
    return text[:1].lower() + text[1:].rstrip(".")


def _usage_hint(error: click.UsageError, words: list[str]) -> str:
    # click gives some of its errors no context
    path = error.ctx.command_path if error.ctx else f"gpubox {_command_of(words)}".rstrip()
    if isinstance(error, click.BadOptionUsage) and "does not take" in error.message:
        return f"it stands alone: {error.option_name}; {path} --help shows how it is used"
    if isinstance(error, click.NoSuchOption):
        for option in cli.params:
            if error.option_name in option.opts:
                words = [error.option_name, *([] if getattr(option, "is_flag", True) else ["FILE"])]
                before = " ".join([*words, path.removeprefix("gpubox ")])
                return f"it stands before the command: gpubox {before}"
    return f"{path} --help shows how it is used"
