# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happened in a play, as typed events: one reading of results for callback and API.

Ansible tells of a play in task results; the callback gets them as objects, ansible-runner as JSON.
Both make an ``Observation`` of each, and ``Translator`` turns observations into ``Event``. Pure.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The actions of the collection, in the order in which a deployment meets them.
STEPS = (
    "open",
    "stage",
    "admit",
    "gate",
    "shift",
    "function",
    "traffic",
    "lifecycle",
    "settle",
    "close",
    "drift",
    "outdated",
    "targets",
    "permissions",
    "scaling",
    "control",
)
COLLECTION = "bascule.deploy."
# Steps that belong to the deployment as a whole and run on the controller.
WHOLE = (
    "open",
    "gate",
    "shift",
    "close",
    "outdated",
    "targets",
    "permissions",
    "scaling",
    "control",
)
# The states of traffic that a target is brought to; others only look.
MOVES = ("drained", "in_service")

Data = Mapping[str, t.Any]


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    kind: opened, started, staged, admitted, current, refused, gate, shift (a step of a schedule,
    begun or ended), traffic, lifecycle, settled, closed, drift, error, diff, task, notice (what is
    waited for) or warning. ``at`` is in epoch seconds; ``target`` is None for what concerns the
    deployment as a whole. ``data`` holds the action's own ``bascule`` result (or, for
    ``lifecycle``, the one event of it), with the keys told in docs/architecture.md.
    """

    kind: str
    deployment_id: str | None
    target: str | None
    name: str
    status: str
    message: str
    at: float
    data: Data = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Observation:
    """A task that started or ended on a host.

    moment: start, ok, failed, unreachable or skipped. ``own`` says that the task belongs to this
    collection; ``ignored`` that its failure does not fail the host.
    """

    moment: str
    host: str
    task: str
    action: str
    at: float
    result: Data = field(default_factory=dict)
    own: bool = False
    ignored: bool = False


class Translator:
    """Turn observations into events, in order; remembers only which deployment is in hand."""

    def __init__(self, *, differences: bool = False) -> None:
        """Begin with no deployment in hand; ``differences`` asks for ``diff`` events too."""
        self.deployment_id: str | None = None
        self._wanted = differences
        self._closed: set[str | None] = set()
        self._told: set[tuple[str | None, str]] = set()

    def events(self, seen: Observation) -> list[Event]:
        """Return the events that an observation stands for; often one, sometimes none."""
        return list(self._events(seen))

    def _events(self, seen: Observation) -> Iterator[Event]:
        step = step_of(seen.action)
        if seen.moment == "start":
            yield from self._started(seen, step)
            return
        answer = answer_of(seen.result)
        if answer is not None and step is not None:
            yield from self._answered(seen, answer, step)
            # The difference that opening makes is its plan, which is in the event already.
            if step not in WHOLE:
                yield from self._differences(seen)
        elif step is not None and seen.moment in ("failed", "unreachable"):
            yield from self._error(seen, step, seen.moment, message_of(seen.result), {})
        elif step is None and not self._passed_on(seen):
            yield from self._differences(seen)
            yield self._task(seen)

    def _passed_on(self, seen: Observation) -> bool:
        """Tell whether a task of ours only does the book-keeping, or repeats what was told."""
        if not seen.own:
            return False
        failed = seen.moment in ("failed", "unreachable")
        told = {(None, message_of(seen.result)), (seen.host, message_of(seen.result))}
        return not failed or not told.isdisjoint(self._told)

    def _error(
        self, seen: Observation, name: str, status: str, message: str, data: Data
    ) -> Iterator[Event]:
        """Yield an error, unless the same was told before (a task that passes a failure on)."""
        several = len(data.get("targets") or ()) > 1
        target = None if name in WHOLE or several else str(data.get("target") or seen.host)
        if (target, message) not in self._told:
            self._told.add((target, message))
            yield self._event(
                seen,
                "error",
                name=name,
                status=status,
                message=message,
                data=data,
                target=target,
            )

    def _started(self, seen: Observation, step: str | None) -> Iterator[Event]:
        if step is None and seen.own:
            return
        # What is looked at before there is a deployment belongs to its opening.
        if step == "traffic" and self.deployment_id is None:
            return
        yield self._event(
            seen,
            "started",
            name=step or "task",
            status="InProgress",
            message=seen.task,
            target=None if step in WHOLE else seen.host,
        )

    def _answered(self, seen: Observation, answer: Data, step: str) -> Iterator[Event]:
        phase = str(answer.get("phase") or step)
        known = _identity(answer)
        if phase == "close" and known in self._closed:
            return
        self.deployment_id = known or self.deployment_id
        told = False
        for event in self._phase(seen, answer, phase):
            told = told or event.status == "Failed"
            yield event
        error = answer.get("error")
        if not told and (error or seen.moment in ("failed", "unreachable")):
            message = _text(error, "message") or message_of(seen.result)
            kind = _text(error, "kind") or seen.moment
            yield from self._error(seen, phase, kind, message, answer)

    def _phase(self, seen: Observation, answer: Data, phase: str) -> Iterator[Event]:
        reader = getattr(self, f"_phase_{phase}", None)
        if reader is not None:
            yield from reader(seen, answer)

    def _phase_open(self, seen: Observation, answer: Data) -> Iterator[Event]:
        if answer.get("deployment") or answer.get("plan"):
            deployment = _mapping(answer.get("deployment"))
            yield self._whole(
                seen, "opened", deployment, str(answer.get("plan_text") or ""), answer
            )
            # With nothing to do there is nothing to close: it has ended already.
            if deployment.get("status") == "Succeeded":
                yield self._whole(seen, "closed", deployment, "", answer)
                self._closed.add(self.deployment_id)

    def _phase_stage(self, seen: Observation, answer: Data) -> Iterator[Event]:
        if step_of(seen.action) == "function":
            yield from self._published(seen, answer)
            return
        if answer.get("status"):
            yield self._event(
                seen,
                "staged",
                name="stage",
                status=str(answer["status"]),
                message=_text(answer.get("error"), "message") or str(answer.get("message") or ""),
                data=answer,
            )

    def _published(self, seen: Observation, answer: Data) -> Iterator[Event]:
        """Yield what became of a function: its version is ready, its traffic comes later."""
        failed = bool(answer.get("error"))
        if not failed and not answer.get("version"):
            return
        yield self._event(
            seen,
            "staged",
            name="stage",
            status="Failed" if failed else "Staged",
            message=_text(answer.get("error"), "message"),
            data=answer,
        )

    def _phase_shift(self, seen: Observation, answer: Data) -> Iterator[Event]:
        """Yield the beginning and the end of a step; why one failed is told as an error."""
        begun = answer.get("state") == "started" and answer.get("verdict") == "go"
        if answer.get("foreseen") or not (begun or answer.get("state") == "ended"):
            return
        yield self._event(
            seen,
            "shift",
            target=None,
            name=str(answer.get("kind") or ""),
            status="InProgress" if begun else "Succeeded",
            message=str((answer.get("text") if begun else answer.get("message")) or ""),
            data=answer,
        )

    def _phase_admit(self, seen: Observation, answer: Data) -> Iterator[Event]:
        verdict = str(answer.get("verdict") or "")
        if verdict:
            yield self._event(
                seen,
                verdict,
                name="admit",
                status=verdict,
                message=str(answer.get("reason") or ""),
                data=answer,
            )

    def _phase_gate(self, seen: Observation, answer: Data) -> Iterator[Event]:
        if answer.get("verdict"):
            yield self._event(
                seen,
                "gate",
                target=None,
                name=str(answer.get("step") or ""),
                status=str(answer["verdict"]),
                message=str(answer.get("message") or ""),
                data=answer,
            )

    def _phase_traffic(self, seen: Observation, answer: Data) -> Iterator[Event]:
        if answer.get("state") not in MOVES or answer.get("error"):
            return
        for target in answer.get("targets") or (answer.get("target") or seen.host,):
            yield self._event(
                seen,
                "traffic",
                target=str(target),
                name=str(answer["state"]),
                status="Succeeded",
                message=str(answer.get("message") or ""),
                data=answer,
            )

    def _phase_lifecycle(self, seen: Observation, answer: Data) -> Iterator[Event]:
        for one in answer.get("events") or ():
            happened = _mapping(one)
            yield self._event(
                seen,
                "lifecycle",
                target=str(answer.get("target") or seen.host),
                name=str(happened.get("event") or ""),
                status=str(happened.get("status") or ""),
                message=str(happened.get("message") or ""),
                data=happened,
                at=_moment(happened.get("ended"), seen.at),
            )
        # The last span of a target settles it in the same run.
        yield from self._phase_settle(seen, answer)

    def _phase_settle(self, seen: Observation, answer: Data) -> Iterator[Event]:
        if answer.get("status"):
            yield self._event(
                seen,
                "settled",
                target=str(answer.get("target") or seen.host),
                name="settle",
                status=str(answer["status"]),
                message=str(answer.get("message") or ""),
                data=answer,
            )

    def _phase_drift(self, seen: Observation, answer: Data) -> Iterator[Event]:
        if answer.get("status"):
            yield self._event(
                seen,
                "drift",
                name="drift",
                status=str(answer["status"]),
                message=message_of(seen.result),
                data=answer,
            )

    def _phase_outdated(self, seen: Observation, answer: Data) -> Iterator[Event]:
        yield self._event(
            seen,
            "outdated",
            target=None,
            name="outdated",
            status="Failed" if seen.moment == "failed" else "Succeeded",
            message=message_of(seen.result),
            data=answer,
        )

    def _phase_targets(self, seen: Observation, answer: Data) -> Iterator[Event]:
        yield self._event(
            seen,
            "targets",
            target=None,
            name="targets",
            status="Succeeded",
            message=message_of(seen.result),
            data=answer,
        )

    def _phase_permissions(self, seen: Observation, answer: Data) -> Iterator[Event]:
        yield self._event(
            seen,
            "permissions",
            target=None,
            name="permissions",
            status="Succeeded",
            message=message_of(seen.result),
            data=answer,
        )

    def _phase_scaling(self, seen: Observation, answer: Data) -> Iterator[Event]:
        if answer.get("groups") or answer.get("released") or answer.get("answered"):
            text = f"Auto Scaling: {message_of(seen.result)}"
            yield self._event(
                seen, "notice", target=None, name="scaling", status="", message=text, data=answer
            )

    def _phase_close(self, seen: Observation, answer: Data) -> Iterator[Event]:
        deployment = _mapping(answer.get("deployment"))
        if not deployment:
            return
        message = str(deployment.get("error_message") or "")
        yield self._whole(seen, "closed", deployment, message, answer)
        self._closed.add(self.deployment_id)
        rollback = _mapping(answer.get("rollback"))
        following = _mapping(answer.get("following")) or rollback
        if following:
            # What follows is opened by the close of what was before, and goes on in the same play.
            self.deployment_id = str(following.get("id"))
            name = "rollback_plan" if rollback else "following_plan"
            plan = _mapping(answer.get(name) or following.get("plan"))
            opening = {"phase": "open", "deployment": following, "plan": plan}
            yield self._whole(seen, "opened", following, "", opening)

    def _whole(
        self, seen: Observation, kind: str, deployment: Data, message: str, answer: Data
    ) -> Event:
        return self._event(
            seen,
            kind,
            name=str(deployment.get("strategy") or ""),
            status=str(deployment.get("status") or ""),
            message=message,
            data=answer,
            target=None,
        )

    def _task(self, seen: Observation) -> Event:
        status = seen.moment
        if status == "ok" and seen.result.get("changed"):
            status = "changed"
        if status == "failed" and seen.ignored:
            status = "ignored"
        # ``_ansible_verbose_always`` is how debug asks for its message to be shown.
        told = seen.moment in ("failed", "unreachable") or "_ansible_verbose_always" in seen.result
        message = message_of(seen.result) if told else ""
        if "censored" in seen.result:
            message = "(output hidden by no_log)"
        return self._event(
            seen, "task", name=seen.task, status=status, message=message, data=seen.result
        )

    def _differences(self, seen: Observation) -> Iterator[Event]:
        difference = seen.result.get("diff")
        if self._wanted and difference and "censored" not in seen.result:
            yield self._event(
                seen, "diff", name=seen.task, status="", message="", data={"diff": difference}
            )

    def _event(self, seen: Observation, kind: str, **fields: t.Any) -> Event:
        fields.setdefault("target", seen.host)
        fields.setdefault("at", seen.at)
        return Event(kind=kind, deployment_id=self.deployment_id, **fields)


def step_of(action: str) -> str | None:
    """Return the Bascule step that an action's name stands for, or None for any other task."""
    name = action.removeprefix(COLLECTION)
    return name if name in STEPS else None


def answer_of(result: Data) -> Data | None:
    """Return the ``bascule`` key of a result; of a loop (over load balancers) the worst item's."""
    if isinstance(result.get("bascule"), Mapping):
        return t.cast("Data", result["bascule"])
    items = result.get("results")
    if not isinstance(items, list):
        return None
    answers = [
        {"error": {"kind": "traffic", "message": message_of(item)}, **item["bascule"]}
        if item.get("failed")
        else item["bascule"]
        for item in items
        if isinstance(item, Mapping) and isinstance(item.get("bascule"), Mapping)
    ]
    wrong = [answer for answer in answers if answer.get("error")]
    slowest = sorted(answers, key=lambda answer: float(answer.get("waited") or 0), reverse=True)
    return (wrong or slowest or [None])[0]


def message_of(result: Data) -> str:
    """Return the one sentence that tells why a task failed."""
    for key in ("msg", "reason", "stderr", "module_stderr", "stdout", "censored"):
        text = str(result.get(key) or "").strip()
        if text:
            return text
    return "no message was given"


def _identity(answer: Data) -> str | None:
    deployment = answer.get("deployment")
    found = deployment.get("id") if isinstance(deployment, Mapping) else answer.get("deployment_id")
    return str(found) if found else None


def _mapping(value: t.Any) -> Data:
    return value if isinstance(value, Mapping) else {}


def _text(value: t.Any, key: str) -> str:
    if isinstance(value, Mapping):
        return str(value.get(key) or "")
    return str(value) if value and key == "message" else ""


def _moment(value: t.Any, otherwise: float) -> float:
    return float(value) if isinstance(value, (int, float)) else otherwise


def is_own(path: str | None, root: Path) -> bool:
    """Tell whether a task's ``file:line`` lies in the roles and playbooks under ``root``."""
    if not path:
        return False
    file = Path(path.rpartition(":")[0]).resolve()
    return any(file.is_relative_to(root / part) for part in ("roles", "playbooks"))
