"""How a deployment group stands: outdated, and what status says of a group."""

from __future__ import annotations

import typing as t

from bascule import _groups
from bascule.cli._options import read_variables, run_options
from bascule.cli._output import columns, say, say_json
from bascule.result import DONE, FAILED

if t.TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from bascule._groups import Group, GroupTarget
    from bascule.result import Revision


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    outdated = commands.add_parser(
        "outdated",
        parents=[common, run_options()],
        help="which targets have no revision of their group, or an old one",
    )
    outdated.add_argument("group", metavar="GROUP", help="GROUP or APPLICATION/GROUP")
    outdated.set_defaults(run=run_outdated)


def run_outdated(options: argparse.Namespace) -> int:
    """Name the targets that are not up to date; 0 without any, 1 with some."""
    found = find(options)
    wanting = [one for one in found.targets if one.outdated]
    if options.format == "json":
        say_json([one.__dict__ for one in wanting])
    elif wanting:
        for line in target_lines(wanting):
            say(line)
    else:
        number = len(found.targets)
        say(f"all {number} targets of {found.application}/{found.group} are up to date")
    return FAILED if wanting else DONE


def show_group(options: argparse.Namespace, name: str) -> int:
    """Show how a group stands; ``status GROUP``."""
    found = _groups.group(name, record=options.record)
    if options.format == "json":
        say_json(found.to_dict())
        return DONE
    for line in group_lines(found):
        say(line)
    return DONE


def find(options: argparse.Namespace) -> Group:
    """Return the group that the options name."""
    return _groups.group(
        options.group,
        inventory=options.inventory or None,
        targets=options.targets,
        variables=read_variables(options.extra_vars),
        record=options.record,
    )


def group_lines(found: Group) -> list[str]:
    """Return a group and its targets for a person."""
    facts = [
        ("Group", f"{found.application}/{found.group}"),
        ("Revision", _revision(found.revision, found.deployment_id) or "none has succeeded"),
        ("Back to", "" if found.last_known_good == found.revision else _back(found)),
        ("Active", found.active or ""),
    ]
    lines = [f"{name + ':':<16}{value}" for name, value in facts if value]
    return [*lines, "", *target_lines(found.targets)] if found.targets else lines


def target_lines(targets: Sequence[GroupTarget]) -> list[str]:
    """Return targets as a table."""
    rows = [
        (
            one.target,
            one.health,
            one.revision,
            (one.digest or "")[:12],
            "not in the inventory"
            if one.in_inventory is False
            else ("idle pool" if one.idle else ""),
        )
        for one in targets
    ]
    return columns(rows, ("TARGET", "HEALTH", "REVISION", "DIGEST", ""))


def _back(found: Group) -> str:
    return _revision(found.last_known_good) or "nothing: every good revision is marked bad"


def _revision(revision: Revision | None, deployment_id: str | None = None) -> str:
    if revision is None:
        return ""
    label = revision.description or revision.source
    named = f"{label} ({revision.digest[:12]})" if label else revision.digest[:12]
    return f"{named}, by {deployment_id}" if deployment_id else named
