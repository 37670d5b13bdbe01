"""Commands of revisions: list, show, mark-bad, mark-good."""

from __future__ import annotations

import dataclasses
import typing as t

from bascule import _revisions
from bascule.cli._output import columns, moment, say, say_json
from bascule.cli.records import complain_of_nothing
from bascule.result import DONE

if t.TYPE_CHECKING:
    import argparse

    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import KnownRevision

NAME = "digest, its first 6 characters or more, or d-…"


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    group = commands.add_parser("revisions", help="what was pushed or deployed, which is bad")
    actions = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    every = actions.add_parser("list", parents=[common], help="the revisions, newest first")
    every.add_argument("application", nargs="?", metavar="APPLICATION", help="only of this one")
    every.set_defaults(run=run_list)

    show = actions.add_parser("show", parents=[common], help="one revision, and where it is")
    bad = actions.add_parser(
        "mark-bad", parents=[common], help="let nobody deploy a revision or roll back to it"
    )
    bad.add_argument("--why", required=True, metavar="TEXT", help="a sentence for the record")
    good = actions.add_parser("mark-good", parents=[common], help="take the mark back")
    good.add_argument("--why", default="", metavar="TEXT", help="a sentence for the record")
    for parser, run in ((show, run_show), (bad, run_mark), (good, run_mark)):
        parser.add_argument("revision", metavar="REVISION", help=NAME)
        parser.add_argument(
            "--application", metavar="NAME", help="where several have a revision of that name"
        )
        parser.set_defaults(run=run, bad=parser is bad)


def run_list(options: argparse.Namespace) -> int:
    """Show the revisions as a table."""
    found = _revisions.revisions(options.application, record=options.record)
    if options.format == "json":
        say_json([one.as_dict() for one in found])
    elif found:
        header = ("REVISION", "APPLICATION", "FIRST SEEN", "DEPLOYMENTS", "CURRENT IN", "CALLED")
        for line in columns([_row(one) for one in found], header):
            say(line)
    else:
        complain_of_nothing(options, "deployed or registered")
    return DONE


def run_show(options: argparse.Namespace) -> int:
    """Show one revision."""
    found, holders = _revisions.revision(
        options.revision, application=options.application, record=options.record
    )
    if options.format == "json":
        say_json({**found.as_dict(), "holders": [dataclasses.asdict(one) for one in holders]})
        return DONE
    facts = [
        ("Revision", found.digest),
        ("Application", found.application),
        ("Bad", found.why or "yes" if found.bad else "no"),
        ("Called", found.description),
        ("Source", found.source),
        ("First seen", moment(found.first_seen_at)),
        ("Deployments", _counts(found) or "none yet"),
        ("Current in", ", ".join(found.groups)),
        ("Delivered to", ", ".join(sorted({one.target for one in holders}))),
    ]
    for name, value in facts:
        if value:
            say(f"{name + ':':<14}{value}")
    return DONE


def run_mark(options: argparse.Namespace) -> int:
    """Mark a revision."""
    marked = _revisions.mark_revision(
        options.revision,
        bad=options.bad,
        why=options.why,
        application=options.application,
        record=options.record,
    )
    if options.format == "json":
        say_json(marked.as_dict())
    elif marked.bad:
        say(
            f"{marked.digest[:12]} of {marked.application} is marked bad: it is neither deployed "
            "nor gone back to."
        )
        if marked.groups:
            say(f"It is the current revision of {', '.join(marked.groups)}.")
    else:
        say(f"{marked.digest[:12]} of {marked.application} is not marked bad.")
    return DONE


def _row(one: KnownRevision) -> tuple[str, ...]:
    return (
        one.digest[:12],
        one.application,
        moment(one.first_seen_at),
        _counts(one),
        ", ".join(one.groups),
        (one.description or one.source) + (f"  BAD: {one.why}" if one.bad else ""),
    )


def _counts(one: KnownRevision) -> str:
    return ", ".join(f"{number} {status}" for status, number in sorted(one.deployments.items()))
