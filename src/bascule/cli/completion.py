"""The command completion: what a shell needs to complete words of ``bascule``."""

from __future__ import annotations

import argparse
import typing as t

from bascule.cli._output import say
from bascule.result import DONE

if t.TYPE_CHECKING:
    from collections.abc import Iterator

# Where the names of strategies can be typed.
STRATEGIES = {
    "deploy": ("in_place", "rolling", "blue_green", "canary", "ab_test"),
    "plan": ("in_place", "rolling", "blue_green", "canary", "ab_test", "rollback"),
    "simulate": ("in_place", "rolling", "blue_green", "canary"),
}
# Words that are no options stand in their places; what is not known here is completed as a file.
_SCRIPT = """\
_bascule() {
    local known="" given=${COMP_WORDS[COMP_CWORD]} typed="" word
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        [[ $word == -* ]] || typed="$typed $word"
    done
    case "$typed" in
%s
    esac
    mapfile -t COMPREPLY < <(compgen -W "$known" -- "$given")
}
complete -o default -F _bascule bascule
"""


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the command."""
    completion = commands.add_parser(
        "completion",
        parents=[common],
        help="let bash complete words: source <(bascule completion bash)",
    )
    completion.add_argument("shell", choices=("bash",), help="whose script is written")
    completion.set_defaults(run=run_completion, commands=commands)


def run_completion(options: argparse.Namespace) -> int:
    """Write the script."""
    say(script(options.commands))
    return DONE


def script(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> str:
    """Return the script for bash; it asks nothing of ``bascule`` when it completes."""
    # What is below a command comes before it: its words fit the command's pattern as well.
    cases = [
        f'        " {path}"|" {path} "*) known="{" ".join(words)}" ;;'
        for path, words in _paths(commands)
    ]
    cases.append(f'        "") known="{" ".join(commands.choices)} --help --version" ;;')
    return _SCRIPT % "\n".join(cases)


def _paths(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], above: str = ""
) -> Iterator[tuple[str, list[str]]]:
    for name, parser in commands.choices.items():
        path = f"{above} {name}".strip()
        options = [word for one in parser._actions for word in one.option_strings]
        words = [option for option in options if option.startswith("--")]
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from _paths(action, path)
                words = [*action.choices, *words]
        yield path, [*STRATEGIES.get(path, ()), *words]
