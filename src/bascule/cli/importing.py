"""Read what another deployment system has, and write it as ours."""

from __future__ import annotations

import typing as t

from bascule import _import
from bascule.cli._output import say, say_json
from bascule.result import DONE

if t.TYPE_CHECKING:
    import argparse


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    importing = commands.add_parser("import", help="take over what AWS CodeDeploy has")
    kinds = importing.add_subparsers(title="from", metavar="SYSTEM", required=True)
    codedeploy = kinds.add_parser(
        "codedeploy",
        parents=[common],
        help="write the inventory and variables of a deployment group of AWS CodeDeploy",
    )
    codedeploy.add_argument("application", metavar="APPLICATION")
    codedeploy.add_argument("group", metavar="GROUP")
    codedeploy.add_argument(
        "-o",
        "--output",
        metavar="DIRECTORY",
        help="folder for the inventory, a new one; by default APPLICATION-GROUP",
    )
    codedeploy.set_defaults(run=run_codedeploy)


def run_codedeploy(options: argparse.Namespace) -> int:
    """Import a deployment group and say what was not carried over."""
    made = _import.import_codedeploy(options.application, options.group, options.output)
    if options.format == "json":
        say_json(made.to_dict())
        return DONE
    say(f"{made.application}/{made.group} is in {made.directory}: {', '.join(made.files)}")
    if made.notes:
        say()
        say("Not carried over, or to be looked at:")
        for note in made.notes:
            say(f"  - {note}")
    say()
    say(f"bascule targets -i {made.directory}")
    revision = f"'{made.revision}'" if made.revision else "…"
    say(f"bascule deploy {made.strategy} -i {made.directory} --revision {revision}")
    return DONE
