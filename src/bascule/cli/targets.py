"""Which targets a group has, by the inventory."""

from __future__ import annotations

import typing as t

from bascule import _targets
from bascule.cli._options import add_inventory, add_variables, read_variables
from bascule.cli._output import columns, say, say_json
from bascule.result import DONE

if t.TYPE_CHECKING:
    import argparse


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    targets = commands.add_parser(
        "targets",
        parents=[common],
        help="which targets the inventory has, how each is reached, where it comes from",
    )
    add_inventory(targets)
    targets.add_argument("--group", metavar="PATTERN", help="group or pattern of the inventory")
    add_variables(targets)
    targets.set_defaults(run=run_targets)


def run_targets(options: argparse.Namespace) -> int:
    """Show the targets."""
    found = _targets.targets(
        options.group,
        inventory=options.inventory or None,
        variables=read_variables(options.extra_vars),
    )
    if options.format == "json":
        say_json([one.to_dict() for one in found])
        return DONE
    rows = [
        (one.target, ",".join(one.groups), one.address, one.connection, one.zone, one.origin)
        for one in found
    ]
    header = ("TARGET", "GROUPS", "ADDRESS", "CONNECTION", "ZONE", "FROM")
    for line in columns(rows, header):
        say(line)
    return DONE
