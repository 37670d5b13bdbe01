"""Commands that read the record: status, history, events."""

from __future__ import annotations

import dataclasses
import json
import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._advice import ways_on
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_text import duration

from bascule import _control, api
from bascule._upgrade import record_version
from bascule.cli._output import (
    columns,
    complain,
    flush,
    moment,
    overview,
    revision_text,
    say,
    say_json,
    took,
)
from bascule.cli.groups import show_group
from bascule.result import DONE

if t.TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Event

    from bascule.result import Deployment

LOOK_BACK = 200
LOG_LINES = 12


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    status = commands.add_parser(
        "status", parents=[common], help="how a deployment stands, or where each group stands"
    )
    status.add_argument(
        "id", nargs="?", metavar="ID|GROUP", help="a deployment, as d-ABCDEFGHI, or a group"
    )
    status.set_defaults(run=run_status)

    history = commands.add_parser("history", parents=[common], help="deployments, newest first")
    history.add_argument("group", nargs="?", metavar="GROUP", help="GROUP or APPLICATION/GROUP")
    history.add_argument("-n", "--limit", type=int, default=20, help="how many (20)")
    history.set_defaults(run=run_history)

    events = commands.add_parser("events", parents=[common], help="all that a deployment did")
    events.add_argument("id", metavar="ID")
    events.add_argument("--target", help="only this target's events")
    events.add_argument("-f", "--follow", action="store_true", help="go on until it has ended")
    events.set_defaults(run=run_events)


def run_status(options: argparse.Namespace) -> int:
    """Show one deployment with its targets, or the newest deployment of each group."""
    if options.id is None:
        return _groups(options)
    if not options.id.startswith("d-"):
        return show_group(options, options.id)
    deployment = api.status(options.id, record=options.record)
    if options.format == "json":
        say_json(deployment.to_dict())
        return DONE
    for line in deployment_lines(deployment):
        say(line)
    return DONE


def run_history(options: argparse.Namespace) -> int:
    """Show deployments, newest first."""
    found = api.history(options.group, limit=options.limit, record=options.record)
    if options.format == "json":
        say_json([_brief(deployment) for deployment in found])
    elif found:
        for line in history_lines(found):
            say(line)
    else:
        complain_of_nothing(options)
    return DONE


def run_events(options: argparse.Namespace) -> int:
    """Show what the record holds of a deployment, in order."""
    if options.follow:
        return _follow(options)
    found = api.events(options.id, target=options.target, record=options.record)
    if options.format == "json":
        say_json([dataclasses.asdict(event) for event in found])
    else:
        width = max((len(event.target) for event in found), default=0)
        for event in found:
            for line in event_lines(event, width):
                say(line)
    return DONE


def _follow(options: argparse.Namespace) -> int:
    """Show events as they are added; in JSON, one document a line."""
    known = api.status(options.id, record=options.record).targets
    width = max((len(target.name) for target in known), default=0)
    for event in _control.follow(options.id, target=options.target, record=options.record):
        if options.format == "json":
            say(json.dumps(dataclasses.asdict(event)))
        else:
            for line in event_lines(event, width):
                say(line)
        flush()
    ended = api.status(options.id, record=options.record)
    if ended.rolled_back_by:
        complain(f"{ended.id} is rolled back by {ended.rolled_back_by}.")
    return DONE


def deployment_lines(deployment: Deployment) -> list[str]:
    """Return a deployment and its targets for a person."""
    facts = [
        ("Deployment", f"{deployment.id}  {deployment.status}"),
        ("Strategy", deployment.strategy),
        ("Group", f"{deployment.application}/{deployment.group}"),
        ("Revision", revision_text(deployment)),
        ("Plan", deployment.plan_hash[:12]),
        ("Before", (deployment.previous_digest or "").removeprefix("sha256:")[:12]),
        ("Rollback of", deployment.rollback_of or ""),
        ("Joined after", deployment.follows or ""),
        ("Rolled back by", deployment.rolled_back_by or ""),
        (
            "Error",
            f"{deployment.error.kind}: {deployment.error.message}" if deployment.error else "",
        ),
        ("Waits for", _waits_for(deployment)),
        (
            "Paused",
            f"{deployment.pause_reason}, since {moment(deployment.paused_at)}"
            if deployment.paused_at is not None
            else "",
        ),
        ("Stop asked by", deployment.stop_requested_by or ""),
        *(("Gates", _gates(one)) for one in deployment.gates if one["verdict"]),
        ("Alarms", _alarms(deployment)),
        *(("Approval", _approval(one)) for one in deployment.approvals if one["decided_at"]),
        ("Controller", str(deployment.lease["text"]) if deployment.lease else ""),
        ("Started", _started(deployment)),
        ("Took", took(deployment)),
        ("Targets", overview(deployment)),
    ]
    lines = [f"{name + ':':<16}{value}" for name, value in facts if value]
    if deployment.lease is not None and deployment.lease["state"] != "Alive":
        lines += ["", ways_on(str(deployment.id))]
    if deployment.steps:
        lines += ["", *columns(_steps(deployment), ("STEP", "STATUS", "TOOK", "WHAT"))]
    if deployment.targets:
        rows = [
            (
                target.name,
                target.status
                + ("" if target.changed or target.status != "Succeeded" else " (had it)"),
                {True: "in", False: "out", None: ""}[target.in_service],
                _span(target.started_at, target.finished_at),
                _first(target.error_code, target.message),
            )
            for target in deployment.targets
        ]
        lines += ["", *columns(rows, ("TARGET", "STATUS", "SERVICE", "TOOK", "MESSAGE"))]
    return lines


def _steps(deployment: Deployment) -> list[tuple[str, ...]]:
    """Return the steps of the schedule, with what requests have shown of the shares."""
    return [
        (
            str(step["number"]),
            step["status"],
            _span(step["started_at"], step["ended_at"]),
            _first("", f"{step['told']}: {step['message']}" if step["message"] else step["told"]),
        )
        for step in deployment.steps
    ]


def _waits_for(deployment: Deployment) -> str:
    """Return what a person has to decide, until when, and how."""
    waiting = deployment.waiting
    if waiting is None:
        return _gates_asked(deployment)
    left = ""
    if waiting["until"] is not None and deployment.lease is not None:
        rest = max(0.0, waiting["until"] - deployment.lease["now"])
        left = f", until {moment(waiting['until'])} ({duration(rest)} left)"
    return (
        f"the approval of {waiting['what']}{left}: bascule approve {deployment.id}, or "
        f"bascule reject {deployment.id}"
    )


def _gates_asked(deployment: Deployment) -> str:
    """Return what the gates that are asked now wait for."""
    asked = [one for one in deployment.gates if not one["verdict"]]
    if not asked or deployment.finished_at is not None or deployment.paused_at is not None:
        return ""
    return f"the gates of {asked[-1]['step']}: {asked[-1]['waits_for'] or 'just begun'}"


def _gates(decided: Mapping[str, t.Any]) -> str:
    """Return how the gates of a step have decided."""
    return f"{decided['step']}: {decided['verdict']}, {decided['message']}"


def _alarms(deployment: Deployment) -> str:
    """Return how the alarms stood when they were looked at last."""
    if deployment.alarms is None:
        return ""
    states = ", ".join(f"{name} {state}" for name, state in deployment.alarms["states"].items())
    failures = deployment.alarms["failures"]
    return states + (f" (the last {failures} looks had no answer)" if failures else "")


def _approval(decided: Mapping[str, t.Any]) -> str:
    """Return who answered for a stage, when and why."""
    text = f"{decided['what']} {decided['status']} at {moment(decided['decided_at'])}"
    if decided["decided_by"]:
        text += f" by {decided['decided_by']} on {decided['decided_from']}"
    return text + (f": {decided['why']}" if decided["why"] else "")


def history_lines(found: list[Deployment]) -> list[str]:
    """Return deployments as a table."""
    rows = [
        (
            str(deployment.id),
            moment(deployment.created_at),
            f"{deployment.application}/{deployment.group}",
            deployment.strategy,
            deployment.status,
            took(deployment),
            overview(deployment),
            _history_note(deployment),
        )
        for deployment in found
    ]
    header = ("ID", "CREATED", "GROUP", "STRATEGY", "STATUS", "TOOK", "TARGETS", "REVISION")
    return columns(rows, header)


def event_lines(event: Event, width: int) -> list[str]:
    """Return a recorded event for a person; a failure with the end of its output."""
    seconds = ""
    if event.started is not None and event.ended is not None:
        seconds = f" ({duration(event.ended - event.started)})"
    what = f"{event.event} {event.status}".strip() + seconds
    lines = [f"{moment(event.at)[11:]}  {event.target:<{width}}  {what}"]
    indent = "    "
    if event.message:
        lines += [f"{indent}{line}" for line in event.message.splitlines()]
    if event.status == "Failed" and event.log:
        lines += [f"{indent}| {line}" for line in event.log.splitlines()[-LOG_LINES:]]
    return lines


def _groups(options: argparse.Namespace) -> int:
    newest: dict[tuple[str, str], Deployment] = {}
    for deployment in api.history(limit=LOOK_BACK, record=options.record):
        newest.setdefault((deployment.application, deployment.group), deployment)
    found = list(newest.values())
    if options.format == "json":
        say_json([_brief(deployment) for deployment in found])
    elif found:
        for line in history_lines(found):
            say(line)
    else:
        complain_of_nothing(options)
    return DONE


def complain_of_nothing(options: argparse.Namespace, what: str = "deployed") -> None:
    """Say that the record is empty, and which one that is: it may be another than was meant."""
    complain(
        f"nothing has been {what} yet, says the record {record_version(record=options.record).url}"
    )


def _brief(deployment: Deployment) -> dict[str, t.Any]:
    """Return the JSON of a deployment in a list: without targets and plan."""
    fields = deployment.to_dict()
    return {name: value for name, value in fields.items() if name not in ("targets", "plan")}


def _history_note(deployment: Deployment) -> str:
    note = revision_text(deployment)
    if deployment.rollback_of:
        note += f", rollback of {deployment.rollback_of}"
    if deployment.follows:
        note += f", for targets that joined after {deployment.follows}"
    if deployment.rolled_back_by:
        note += f", rolled back by {deployment.rolled_back_by}"
    return note


def _started(deployment: Deployment) -> str:
    by = f" by {deployment.started_by}" if deployment.started_by else ""
    where = f" on {deployment.started_from}" if deployment.started_from else ""
    return f"{moment(deployment.created_at)}{by}{where}"


def _span(started: float | None, finished: float | None) -> str:
    if started is None or finished is None:
        return ""
    return duration(finished - started)


def _first(code: str | None, message: str) -> str:
    """Return the code and the first line of a message."""
    line = message.splitlines()[0] if message else ""
    return ": ".join(part for part in (code or "", line) if part)
