"""`completion`: the script by which a shell asks what may come next, and the answers to it.

click and `candidates` know what may come next; this module knows how each shell asks and is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem, ShellComplete, split_arg_string

# A script asks with the line up to the cursor. The answer's first line says what the shell itself
# is to complete, `dir` or `file`; each further one is a word. What goes wrong stays off the prompt.

_BASH = r"""
_gpubox() {
    local answer
    mapfile -t answer < <(gpubox completion bash -- "${COMP_LINE:0:COMP_POINT}" "$2" 2>/dev/null)
    COMPREPLY=("${answer[@]:1}")
    case ${answer-} in
        dir) compopt -o plusdirs ;;
        file) compopt -o default ;;
    esac
}
complete -o nosort -F _gpubox gpubox
"""

_ZSH = r"""
#compdef gpubox
_gpubox() {
    local typed="${(j: :)words[1,CURRENT-1]} $QIPREFIX$PREFIX" none=1
    local -a answer found
    answer=("${(@f)$(gpubox completion zsh -- "$typed" 2>/dev/null)}")
    found=("${(@)answer[2,-1]}")
    compset -P 1 '--*='
    _describe -V gpubox found && none=0
    case $answer[1] in
        dir) _files -/ && none=0 ;;
        file) _files && none=0 ;;
    esac
    return none
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _gpubox "$@"
else
    compdef _gpubox gpubox
fi
"""

_FISH = r"""
function __gpubox
    set -l answer (gpubox completion fish -- (commandline -cp | string collect) 2>/dev/null)
    set -l word (commandline -ct)
    set -l option (string match -r -- '^--[^=]+=' $word)
    set -l path (string replace -- "$option" "" $word)
    switch "$answer[1]"
        case dir
            set -a answer (__fish_complete_directories "$path")
        case file
            set -a answer (__fish_complete_path "$path")
    end
    string replace -r -- '^' "$option" $answer[2..]
end
complete -k -c gpubox -f -a '(__gpubox)'
"""


class Line(NamedTuple):
    """A line up to the cursor: its whole words, and the word that is begun.

    In `--option=value` only the value is the word that is begun; `option` is what stands before it.
    """

    before: list[str]
    option: str
    begun: str


def line_of(text: str) -> Line:
    *before, last = split_arg_string(f"{text}\0")
    last = last.removesuffix("\0")
    option, equals, value = last.partition("=")
    if equals and option.startswith("--"):
        return Line(before, option + equals, value)
    return Line(before, "", last)


def _for_bash(word: str, _: str) -> str:
    return word


def _for_zsh(word: str, meaning: str) -> str:
    word = word.replace("\\", r"\\").replace(":", r"\:")
    return f"{word}:{meaning}" if meaning else word


def _for_fish(word: str, meaning: str) -> str:
    return f"{word}\t{meaning}"


class Shell(NamedTuple):
    """A shell's script, how it takes a word with its meaning, and where a person puts the script:
    their own place, and the one for everybody."""

    script: str
    written: Callable[[str, str], str]
    own: str
    shared: str


SHELLS = {
    "bash": Shell(
        _BASH,
        _for_bash,
        'eval "$(gpubox completion bash)" in ~/.bashrc',
        "gpubox completion bash > /etc/bash_completion.d/gpubox",
    ),
    "zsh": Shell(
        _ZSH,
        _for_zsh,
        'eval "$(gpubox completion zsh)" in ~/.zshrc, behind compinit',
        "gpubox completion zsh > /usr/local/share/zsh/site-functions/_gpubox",
    ),
    "fish": Shell(
        _FISH,
        _for_fish,
        "gpubox completion fish > ~/.config/fish/completions/gpubox.fish",
        "gpubox completion fish > /etc/fish/completions/gpubox.fish",
    ),
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(SHELLS)), metavar="SHELL")
@click.argument("line", required=False)
@click.argument("replaced", required=False, metavar="[WORD]")
@click.pass_context
def completion_command(
    context: click.Context, shell: str, line: str | None, replaced: str | None
) -> None:
    """Print the script by which TAB completes gpubox's words in SHELL: bash, zsh or fish.

    Its last lines say where it goes. By LINE it asks what may come next in one, and by WORD for
    only as much as stands in place of this.
    """
    script, written, own, shared = SHELLS[shell]
    if line is None:
        click.echo(f"{script.lstrip()}# for yourself: {own}\n# for everybody, as root: {shared}")
        return
    typed = line_of(line)
    items = _next(context.find_root().command, typed)
    click.echo(next((item.type for item in items if item.type != "plain"), "plain"))
    for item in items:
        if item.type == "plain" and item.value.startswith(typed.begun):
            word = item.value if replaced is None else _in_place_of(replaced, item.value, typed)
            click.echo(written(word, " ".join((item.help or "").split())))


def _next(cli: click.Command, line: Line) -> list[CompletionItem]:
    asked = ShellComplete(cli, {}, "gpubox", "")
    return asked.get_completions(line.before[1:], line.option + line.begun)


def _in_place_of(replaced: str, word: str, line: Line) -> str:
    """The word behind what bash keeps of the line: all up to a `:` or `=` that divides words."""
    kept = len(line.option + line.begun) - len(replaced)
    return (line.option + word)[kept:]
