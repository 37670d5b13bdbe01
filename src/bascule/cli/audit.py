"""The commands for the audit of the record: verify, export, show."""

from __future__ import annotations

import typing as t
from pathlib import Path

import bascule._audit as api
from bascule.cli._output import columns, moment, say, say_json, write
from bascule.result import DONE, FAILED

if t.TYPE_CHECKING:
    import argparse


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    audit = commands.add_parser("audit", help="who changed what: verify, export and show it")
    actions = audit.add_subparsers(title="commands", metavar="COMMAND", required=True)

    verify = actions.add_parser(
        "verify", parents=[common], help="tell the first link that was changed, removed or added"
    )
    verify.add_argument("file", nargs="?", metavar="FILE", help="an exported file, not the record")
    verify.set_defaults(run=run_verify)

    export = actions.add_parser(
        "export", parents=[common], help="write JSON lines in the shape of CloudTrail's events"
    )
    export.add_argument("-o", "--output", metavar="FILE", help="a new file (standard output)")
    export.add_argument("--since", metavar="TIME", help="from this on, as 2026-11-24T13:05")
    export.add_argument("--deployment", metavar="ID", help="only the chain of this deployment")
    export.set_defaults(run=run_export)

    show = actions.add_parser("show", parents=[common], help="the newest changes")
    show.add_argument("--deployment", metavar="ID", help="only those of this deployment")
    show.add_argument("-n", "--limit", type=int, default=20, help="how many (20)")
    show.set_defaults(run=run_show)


def run_verify(options: argparse.Namespace) -> int:
    """Say whether the audit is whole; exit status 1 if it is not."""
    report = api.audit_verify(options.file, record=options.record)
    if options.format == "json":
        say_json({"verified": report.broken is None, **report.as_dict()})
    elif report.broken is not None:
        say(f"The audit of {report.source} is broken at {report.broken.text()}")
    else:
        say(
            f"The audit of {report.source} is whole: {_number(report.links, 'link')} in "
            f"{_number(report.chains, 'chain')}."
        )
        if report.head:
            say(f"The chain main ends with link {report.length}, {report.head}.")
    return DONE if report.broken is None else FAILED


def run_export(options: argparse.Namespace) -> int:
    """Write the audit to a file or to standard output."""
    about: dict[str, t.Any] = {
        "deployment": options.deployment,
        "since": None if options.since is None else api.moment_of(options.since),
        "record": options.record,
    }
    if options.output is None:
        api.audit_export(write, **about)
    else:
        api.export_file(Path(options.output).expanduser(), **about)
    return DONE


def run_show(options: argparse.Namespace) -> int:
    """Show the newest changes, the newest last."""
    found = api.audit_events(options.deployment, limit=options.limit, record=options.record)
    if options.format == "json":
        say_json(found)
        return DONE
    for line in columns([_row(event) for event in found], ("TIME", "WHO", "WHAT", "OF", "WHY")):
        say(line)
    return DONE


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _row(event: dict[str, t.Any]) -> tuple[str, ...]:
    asked, about = event["requestParameters"], event["additionalEventData"]
    what = " ".join(part for part in (asked["deploymentId"], asked["target"]) if part)
    return (
        moment(about["at"]),
        f"{event['userIdentity']['userName']}@{event['sourceIPAddress']}",
        event["eventName"],
        what or asked["applicationName"] or about["chain"],
        asked["why"].splitlines()[0] if asked["why"] else "",
    )
