# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Events as lines of text: the log of a deployment, and what is said at its end. Pure."""

from __future__ import annotations

import difflib
import json
import typing as t

from ..module_utils._host._events import START_OLD
from ._progress_model import revision_name

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from ._progress_events import Event
    from ._progress_model import DeploymentProgress, Progress

# How much of a failed hook's output is shown; the whole is in the host's log and in the record.
LOG_LINES = 12
# How many targets are called by name in a sentence.
NAMES = 5
# How many reasons of targets are told at the end.
REASONS = 3
REASON_LENGTH = 400


def event_lines(event: Event, progress: Progress, *, verbose: bool = False) -> list[str]:
    """Return the lines for an event; none for what a reader of a log does not need."""
    writer = _WRITERS.get(event.kind)
    if writer is None:
        return []
    deployment = progress.current
    width = max((len(name) for name in deployment.targets), default=0) if deployment else 0
    who = (event.target or event.deployment_id or "bascule").ljust(width)
    lines = writer(event, verbose)
    return [f"{who}  {lines[0]}", *lines[1:]] if lines else []


def closing(deployment: DeploymentProgress, now: float) -> list[str]:
    """Return the lines that tell how a deployment ended, or how far it came."""
    took = duration(deployment.seconds(now))
    what = f"{deployment.application}/{deployment.group}"
    if deployment.closed is None:
        return [f"not finished after {took}: {counts(deployment)}"]
    if deployment.status != "Succeeded":
        lines = [f"{deployment.status} after {took}: {counts(deployment)}"]
        told = (deployment.reason, *reasons(deployment), deployment.note)
        return lines + [f"  {line}" for line in told if line]
    total = len(deployment.targets)
    left_out = deployment.plan.get("left_out") or ()
    if not total and deployment.plan.get("schedule"):
        return [f"Succeeded in {took}: the traffic of {what} is at {deployment.revision}"]
    if not total and left_out:
        return [f"nothing to do: {_targets(len(left_out))} already at {deployment.revision}"]
    if deployment.unchanged:
        return [f"nothing to do: {_targets(total)} already at {deployment.revision}"]
    done = deployment.count("Succeeded", "Current")
    line = f"Succeeded in {took}: {what} is at {deployment.revision}, {done} of {_targets(total)}"
    failed = deployment.named("Failed")
    return [line + (f"; failed: {_few(failed)}" if failed else "")]


def reasons(deployment: DeploymentProgress) -> list[str]:
    """Return why targets have failed, each reason once and the most frequent first."""
    named: dict[str, list[str]] = {}
    for target in deployment.targets.values():
        if target.state == "Failed" and target.message:
            named.setdefault(" ".join(target.message.split()), []).append(target.name)
    found = sorted(named.items(), key=lambda item: -len(item[1]))
    lines = [f"{_few(names)}: {_short(message)}" for message, names in found[:REASONS]]
    left = len(found) - REASONS
    return lines + ([f"and {left} more reasons"] if left > 0 else [])


def outcome(progress: Progress, now: float) -> list[str]:
    """Return the last lines of a run: what happened to what was asked for, and where to look."""
    if not progress.deployments:
        return []
    known = list(progress.deployments)
    # A fresh baseline comes before what was asked for, which there is only if that has succeeded.
    lines: list[str] = []
    while len(known) > 1 and known[0].is_baseline:
        first, *rest = closing(known[0], now)
        lines += _headed(known.pop(0), [f"fresh baseline {first[0].lower()}{first[1:]}", *rest])
    asked, *others = known
    lines += _headed(asked, closing(asked, now))
    for other in others:
        first, *rest = closing(other, now)
        what = "targets that joined:" if other.follows else "rollback"
        lines += _headed(other, [f"{what} {first[0].lower()}{first[1:]}", *rest])
    if asked.closed is None or asked.status != "Succeeded" or asked.named("Failed"):
        lines += [
            f"Look further with: bascule status {deployment.id}, bascule events {deployment.id}"
            for deployment in (asked, *(one for one in others if one.status != "Succeeded"))
            if deployment.id
        ]
    return lines


def counts(deployment: DeploymentProgress) -> str:
    """Return how many targets are in which state, as a sentence part."""
    named = [
        ("succeeded", deployment.count("Succeeded")),
        ("had it already", deployment.count("Current")),
        ("failed", deployment.count("Failed")),
        ("not touched", deployment.count("Skipped", "Refused", "Pending")),
        ("in flight", deployment.count("InProgress")),
        ("waiting", deployment.count("Waiting")),
    ]
    return ", ".join(f"{number} {name}" for name, number in named if number) or "no targets"


def duration(seconds: float) -> str:
    """Return a time span as people write it: ``0.4 s``, ``42 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: float) -> str:
    """Return a number of bytes as people write it."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def failure_lines(event: Event) -> list[str]:
    """Return what is known of a failure: the message, the script, the end of its output."""
    lines = [event.message] if event.message else []
    script = event.data.get("script")
    if script and str(script) not in event.message:
        lines.append(f"script: {script}")
    log = event.data.get("log")
    text = log if isinstance(log, list) else str(log or "").splitlines()
    lines += [f"| {line}".rstrip() for line in text[-LOG_LINES:]]
    return lines


def difference_lines(difference: t.Any) -> list[str]:
    """Return a task's ``diff`` as unified text: prepared text, or before and after, or a list."""
    if isinstance(difference, list):
        return [line for one in difference for line in difference_lines(one)]
    if not isinstance(difference, dict):
        return []
    if difference.get("prepared"):
        return str(difference["prepared"]).splitlines()
    before, after = (_as_lines(difference.get(side)) for side in ("before", "after"))
    header = difference.get("before_header") or difference.get("after_header") or ""
    shown = difflib.unified_diff(
        before,
        after,
        f"before: {difference.get('before_header') or header}".rstrip(": "),
        f"after: {difference.get('after_header') or header}".rstrip(": "),
        lineterm="",
    )
    return list(shown)


def _opened(event: Event, _verbose: bool) -> list[str]:
    about = event.data.get("deployment") or {}
    plan = event.data.get("plan") or {}
    what = f"{about.get('application', '')}/{about.get('group', '')}"
    verb = "rollback of" if about.get("rollback_of") else str(about.get("strategy") or event.name)
    verb = f"targets that joined, {verb}" if about.get("follows") else verb
    verb = "fresh baseline of" if about.get("is_baseline") else verb
    revision = revision_name(about)
    parts = [_targets(len(plan["targets"]))] if plan.get("targets") else []
    if not plan.get("targets") and plan.get("schedule"):
        return [f"{verb} {what}" + (f" to {revision}" if revision else "") + ": only the traffic"]
    if isinstance(plan.get("minimum_healthy"), int):
        parts.append(f"{plan['minimum_healthy']} stay healthy")
    if isinstance(plan.get("slots"), int):
        parts.append(f"{plan['slots']} at a time")
    line = f"{verb} {what}" + (f" to {revision}" if revision else "")
    return [f"{line}: {', '.join(parts)}" if parts else line]


def _staged(event: Event, _verbose: bool) -> list[str]:
    if event.status == "Failed":
        return _failed("staging", event)
    if event.status == "Current":
        return ["has the revision already"]
    details = []
    what = f"version {event.data['version']} is ready" if event.data.get("version") else "staged"
    sent, seconds = event.data.get("bytes_sent"), event.data.get("seconds")
    if sent:
        details.append(f"{size(sent)} sent")
    if isinstance(seconds, (int, float)):
        details.append(duration(seconds))
    release = event.data.get("release") or {}
    if release.get("again"):
        details.append(f"goes back to {release['path']}")
    return [f"{what} ({', '.join(details)})" if details else what]


def _admitted(event: Event, _verbose: bool) -> list[str]:
    waited = event.data.get("waited")
    after = (
        f" after {duration(waited)}" if isinstance(waited, (int, float)) and waited >= 0.1 else ""
    )
    return [f"admitted{after}"]


def _refused(_event: Event, _verbose: bool) -> list[str]:
    # The reason is the same for all of them, and is told once, at the close.
    return ["not started"]


def _gate(event: Event, _verbose: bool) -> list[str]:
    if event.status == "Fail":
        # It is told as an error, too.
        return []
    verdict = f"{event.status}: " if event.data.get("decided", True) else ""
    return [f"{event.name}: {verdict}{event.message}"]


def _shift(event: Event, _verbose: bool) -> list[str]:
    return [f"step {event.data.get('number')}: {event.message}"] if event.message else []


def _traffic(event: Event, _verbose: bool) -> list[str]:
    waited = event.data.get("waited")
    after = f" ({duration(waited)})" if isinstance(waited, (int, float)) else ""
    words = {"drained": "out of service, drained", "in_service": "in service again"}
    return [words.get(event.name, event.name) + after]


def _lifecycle(event: Event, verbose: bool) -> list[str]:
    if event.status == "Failed":
        return _failed(event.name, event)
    if event.name == START_OLD:
        return [event.message]
    if event.status == "Skipped" and not verbose:
        return []
    started, ended = event.data.get("started"), event.data.get("ended")
    took = ""
    if isinstance(started, (int, float)) and isinstance(ended, (int, float)):
        took = f" ({duration(ended - started)})"
    return [f"{event.name} {event.status}{took}"]


def _drift(event: Event, _verbose: bool) -> list[str]:
    first, *rest = event.message.splitlines() or [""]
    return [f"{event.status}: {first}", *(f"    {line}" for line in rest)]


def _outdated(event: Event, _verbose: bool) -> list[str]:
    first, *rest = event.message.splitlines() or [""]
    return [first, *(f"    {line}" for line in rest)]


def _listed(event: Event, _verbose: bool) -> list[str]:
    rows = [
        f"    {one['target']} ({', '.join(one['groups'])}): {one['address']}, {one['connection']},"
        f" from {one['from']}"
        for one in event.data.get("targets") or ()
    ]
    return [event.message, *rows]


def _policy(event: Event, _verbose: bool) -> list[str]:
    return json.dumps(event.data.get("policy"), indent=2).splitlines()


def _settled(event: Event, _verbose: bool) -> list[str]:
    return [event.status]


def _closed(event: Event, _verbose: bool) -> list[str]:
    about = event.data.get("deployment") or {}
    reason = ": ".join(part for part in (str(about.get("error_code") or ""), event.message) if part)
    return [f"{event.status}: {reason}" if reason and event.status != "Succeeded" else event.status]


def _error(event: Event, _verbose: bool) -> list[str]:
    if event.name == "open":
        first, *rest = failure_lines(event)
        return [f"cannot begin: {first}", *(f"    {line}" for line in rest)]
    if event.status == "paused":
        return [event.message.removeprefix(f"{event.deployment_id} ")]
    if event.name == "gate" and not event.data.get("decided", True):
        return [event.message]
    return _failed(event.name, event)


def _task(event: Event, verbose: bool) -> list[str]:
    if event.status == "skipped" and not verbose:
        return []
    line = f"{event.status}: {event.name}"
    first, *rest = event.message.splitlines() or [""]
    lines = [f"{line}: {first}" if first else line, *(f"    {text}" for text in rest[:LOG_LINES])]
    if event.status in ("failed", "unreachable", "ignored"):
        output = str(event.data.get("stderr") or event.data.get("stdout") or "")
        lines += [f"    | {text}" for text in output.splitlines()[-LOG_LINES:]]
    elif verbose and not first:
        shown = {key: value for key, value in event.data.items() if _telling(key)}
        lines[0] += f" => {json.dumps(shown, default=str, sort_keys=True)}"
    return lines


def _notice(event: Event, _verbose: bool) -> list[str]:
    return [event.message]


def _warning(event: Event, _verbose: bool) -> list[str]:
    return [f"warning: {event.message}"]


def _diff(event: Event, _verbose: bool) -> list[str]:
    lines = difference_lines(event.data.get("diff"))
    return [f"{event.name}:", *lines] if lines else []


def _failed(what: str, event: Event) -> list[str]:
    first, *rest = failure_lines(event) or ["no message was given"]
    head, *more = first.splitlines() or [""]
    return [f"{what} failed: {head}", *(f"    {line}" for line in (*more, *rest))]


def _headed(deployment: DeploymentProgress, lines: list[str]) -> list[str]:
    return [f"{deployment.id or 'bascule'}  {lines[0]}", *lines[1:]]


def _short(text: str) -> str:
    return text if len(text) <= REASON_LENGTH else f"{text[: REASON_LENGTH - 1]}…"


def _few(names: list[str]) -> str:
    shown = names[:NAMES]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _targets(count: int) -> str:
    return f"{count} target{'' if count == 1 else 's'}"


def _telling(key: str) -> bool:
    """Tell whether a key of a task's result says something that another does not."""
    return (
        not key.startswith("_ansible")
        and key not in ("invocation", "diff")
        and (not key.endswith("_lines"))
    )


def _as_lines(value: t.Any) -> list[str]:
    if value is None:
        return []
    text = value if isinstance(value, str) else json.dumps(value, indent=2, sort_keys=True)
    return text.splitlines()


_Writer = t.Callable[["Event", bool], list[str]]
_WRITERS: Mapping[str, _Writer] = {
    "opened": _opened,
    "staged": _staged,
    "admitted": _admitted,
    "refused": _refused,
    "gate": _gate,
    "shift": _shift,
    "traffic": _traffic,
    "lifecycle": _lifecycle,
    "settled": _settled,
    "drift": _drift,
    "outdated": _outdated,
    "targets": _listed,
    "permissions": _policy,
    "closed": _closed,
    "error": _error,
    "task": _task,
    "warning": _warning,
    "notice": _notice,
    "diff": _diff,
}
