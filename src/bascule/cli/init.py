"""The command init: a new project that deploys as it is."""

from __future__ import annotations

import shlex
import typing as t
from pathlib import Path

from bascule.cli._output import say, say_json
from bascule.result import DONE

if t.TYPE_CHECKING:
    import argparse

COMMAND = ("bascule", "deploy", "rolling", "--revision", "revision")


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    init = commands.add_parser(
        "init",
        parents=[common],
        help="write a new project: revision, inventory, settings, editor support",
    )
    init.add_argument("directory", metavar="DIRECTORY", help="the project's folder; it is made")
    init.set_defaults(run=run_init)


def run_init(options: argparse.Namespace) -> int:
    """Write a project and say how to deploy it."""
    from bascule.project import create

    directory = Path(options.directory)
    files = create(directory)
    if options.format == "json":
        say_json(
            {
                "directory": str(directory.resolve()),
                "files": [str(path) for path in files],
                "command": list(COMMAND),
            }
        )
        return DONE
    for path in files:
        say(str(directory / path))
    say()
    say("It deploys as it is, to two folders on this machine:")
    say(f"  cd {shlex.quote(str(directory))}")
    say(f"  {' '.join(COMMAND)}")
    return DONE
