"""The command that looks for changes by hand: drift."""

from __future__ import annotations

import typing as t

from bascule._drift import drift
from bascule.cli._options import read_variables, run_options
from bascule.cli._output import say, say_json
from bascule.result import DONE, FAILED

if t.TYPE_CHECKING:
    import argparse


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    looking = commands.add_parser(
        "drift",
        parents=[common, run_options()],
        help="how the targets of a group differ from what was deployed to them",
    )
    looking.add_argument("group", metavar="GROUP", help="GROUP or APPLICATION/GROUP")
    looking.set_defaults(run=run_drift)


def run_drift(options: argparse.Namespace) -> int:
    """Show each target's differences; 0 without any, 1 with some or if a target cannot be asked."""
    found = drift(
        options.group,
        inventory=options.inventory or None,
        targets=options.targets,
        variables=read_variables(options.extra_vars),
        record=options.record,
    )
    if options.format == "json":
        say_json([one.to_dict() for one in found])
    else:
        for one in found:
            first, *rest = one.message.splitlines() or [""]
            say(f"{one.target}: {one.status}, {first}")
            for line in rest:
                say(f"    {line}")
    return DONE if all(one.status == "InSync" for one in found) else FAILED
