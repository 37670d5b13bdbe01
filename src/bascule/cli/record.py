"""The command that looks after the record itself: its version, and the way to a newer one."""

from __future__ import annotations

import typing as t

from bascule._upgrade import record_version, upgrade_record
from bascule.cli._output import say, say_json
from bascule.result import DONE

if t.TYPE_CHECKING:
    import argparse

    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import RecordVersion


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    record = commands.add_parser("record", help="which version the record has; upgrade a server's")
    actions = record.add_subparsers(title="commands", metavar="COMMAND", required=True)

    show = actions.add_parser("show", parents=[common], help="where it is, and its version")
    show.set_defaults(run=run_show)

    upgrade = actions.add_parser(
        "upgrade", parents=[common], help="migrate a record to the version of this Bascule"
    )
    upgrade.set_defaults(run=run_upgrade)


def run_show(options: argparse.Namespace) -> int:
    """Say where the record is and which version it has."""
    return _tell(record_version(record=options.record), options)


def run_upgrade(options: argparse.Namespace) -> int:
    """Migrate the record, if it is older than this version of Bascule."""
    return _tell(upgrade_record(record=options.record), options)


def _tell(found: RecordVersion, options: argparse.Namespace) -> int:
    if options.format == "json":
        say_json(found.as_dict())
        return DONE
    if found.upgraded_from is not None:
        text = f"was brought from version {found.upgraded_from} to version {found.version}."
    elif found.version is None:
        text = "is not there yet; the first deployment makes it."
    elif found.version == found.needed:
        text = f"has version {found.version}, which this Bascule works with."
    else:
        text = f"has version {found.version}, this Bascule works with version {found.needed}."
        if found.version < found.needed:
            text += " `bascule record upgrade` migrates it."
    say(f"The record {found.url} {text}")
    return DONE
