# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a deployment is: events folded into what a person wants to see. Pure."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from ._progress_events import Event

DONE = ("Succeeded", "Current", "Failed", "Skipped", "Refused")
# What shows that a deployment does not wait any more.
ENDS_WAITING = ("admitted", "refused", "settled", "closed")
# What a target does between two results, by the step that began.
DOING = {
    "stage": "staging",
    "admit": "waiting for its turn",
    "traffic": "traffic",
    "lifecycle": "lifecycle events",
    "settle": "settling",
}


@dataclass
class TargetProgress:
    """One target: ``state`` is Pending, InProgress, Waiting or one of ``DONE``."""

    name: str
    position: int
    stage: int | None = None
    zone: str = ""
    state: str = "Pending"
    doing: str = ""
    event: str = ""
    message: str = ""
    since: float = 0.0
    admitted: bool = False
    began: float | None = None

    @property
    def done(self) -> bool:
        """Tell whether nothing more happens to this target."""
        return self.state in DONE


@dataclass
class DeploymentProgress:
    """One deployment, from its opening to its close. Times are epoch seconds."""

    id: str | None
    application: str = ""
    group: str = ""
    strategy: str = ""
    revision: str = ""
    status: str = "InProgress"
    message: str = ""
    error_code: str = ""
    note: str = ""
    # What the deployment waits for, until something goes on.
    notice: str = ""
    opened: float = 0.0
    closed: float | None = None
    rolling: float | None = None
    rollback_of: str | None = None
    follows: str | None = None
    is_baseline: bool = False
    rolled_back_by: str | None = None
    plan: Mapping[str, t.Any] = field(default_factory=dict)
    plan_text: str = ""
    targets: dict[str, TargetProgress] = field(default_factory=dict)

    def count(self, *states: str) -> int:
        """Return how many targets are in one of the states."""
        return sum(target.state in states for target in self.targets.values())

    def named(self, *states: str) -> list[str]:
        """Return the names of the targets that are in one of the states."""
        return [target.name for target in self.targets.values() if target.state in states]

    @property
    def reason(self) -> str:
        """Return why it failed: the error code and the message."""
        return ": ".join(part for part in (self.error_code, self.message) if part)

    @property
    def decided(self) -> int:
        """Return how many targets nothing more happens to."""
        return self.count(*DONE)

    @property
    def unchanged(self) -> bool:
        """Tell whether every target had the revision already."""
        return bool(self.targets) and self.count("Current") == len(self.targets)

    def in_flight(self) -> list[str]:
        """Return the names of the targets that hold a slot."""
        return [target.name for target in self.targets.values() if target.admitted]

    def seconds(self, now: float) -> float:
        """Return how long the deployment has taken so far, or took."""
        return max(0.0, (self.closed or now) - self.opened)

    def seconds_left(self, now: float) -> float | None:
        """Return the likely rest: by the pace so far, before the first target by the plan."""
        if self.closed is not None:
            return None
        total, decided = len(self.targets), self.decided
        if decided and self.rolling is not None and decided < total:
            return (now - self.rolling) / decided * (total - decided)
        estimate = self.plan.get("estimated_seconds")
        if isinstance(estimate, (int, float)) and decided < total:
            return max(0.0, float(estimate) - self.seconds(now))
        return None


class Progress:
    """The deployments of one play, in order.

    Usually one; a failed one and its rollback; or one and that of the targets that joined.
    """

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.deployments: list[DeploymentProgress] = []
        # What ended the play before a deployment was opened, and what a task of the user did.
        self.refusal: Event | None = None

    @property
    def current(self) -> DeploymentProgress | None:
        """Return the deployment in hand."""
        return self.deployments[-1] if self.deployments else None

    def apply(self, event: Event) -> None:
        """Take note of an event."""
        if event.kind == "opened":
            self.deployments.append(_opened(event, self.deployments))
            return
        if event.kind == "error" and self.current is None:
            self.refusal = self.refusal or event
        deployment = self._of(event)
        if deployment is None:
            return
        if event.kind == "notice":
            deployment.notice = event.message
        elif event.kind in ENDS_WAITING:
            deployment.notice = ""
        if event.kind == "closed":
            _close(deployment, event)
        elif event.target is not None:
            _apply_to_target(deployment, event)
        elif event.kind == "error":
            deployment.message = deployment.message or event.message

    def _of(self, event: Event) -> DeploymentProgress | None:
        for deployment in reversed(self.deployments):
            if deployment.id == event.deployment_id:
                return deployment
        return self.current


def waits_for(deployment: DeploymentProgress, target: TargetProgress) -> str:
    """Return what a target that asked for a slot waits for."""
    busy = deployment.in_flight()
    if not busy:
        return deployment.notice or "waiting for its turn"
    slots = deployment.plan.get("slots")
    of = f" of {slots}" if isinstance(slots, int) else ""
    names = ", ".join(busy[:3]) + (", …" if len(busy) > 3 else "")
    earlier = target.stage is not None and any(
        deployment.targets[name].stage != target.stage for name in busy
    )
    what = "the stage before it" if earlier else "a free slot"
    return f"waits for {what} ({len(busy)}{of} in use: {names})"


def revision_name(about: Mapping[str, t.Any]) -> str:
    """Return how people call a deployment's revision: by description or source, and digest."""
    digest = str(about.get("digest") or "").removeprefix("sha256:")[:12]
    label = str(about.get("description") or about.get("revision") or "")
    if label and digest:
        return f"{label} ({digest})"
    return label or digest


def _opened(event: Event, earlier: list[DeploymentProgress]) -> DeploymentProgress:
    about = event.data.get("deployment") or {}
    plan = event.data.get("plan") or {}
    deployment = DeploymentProgress(
        id=event.deployment_id,
        application=str(about.get("application") or ""),
        group=str(about.get("group") or ""),
        strategy=str(about.get("strategy") or plan.get("strategy") or ""),
        revision=revision_name(about),
        status=str(about.get("status") or "InProgress"),
        opened=event.at,
        rollback_of=about.get("rollback_of"),
        follows=about.get("follows"),
        is_baseline=bool(about.get("is_baseline")),
        plan=plan,
        plan_text=event.message,
    )
    for position, target in enumerate(plan.get("targets") or ()):
        name = str(target.get("name"))
        deployment.targets[name] = TargetProgress(
            name=name,
            position=position,
            stage=target.get("stage"),
            zone=str(target.get("zone") or ""),
            since=event.at,
        )
    for other in earlier:
        if other.id is not None and other.id == deployment.rollback_of:
            other.rolled_back_by = deployment.id
    return deployment


def _close(deployment: DeploymentProgress, event: Event) -> None:
    about = event.data.get("deployment") or {}
    deployment.closed = event.at
    deployment.status = event.status or deployment.status
    deployment.message = event.message or deployment.message
    deployment.error_code = str(about.get("error_code") or "")
    deployment.note = str(event.data.get("note") or deployment.note)
    rollback = event.data.get("rollback") or {}
    deployment.rolled_back_by = (
        about.get("rolled_back_by") or rollback.get("id") or deployment.rolled_back_by
    )
    for target in deployment.targets.values():
        if not target.done:
            _move(target, "Skipped", event.at)


def _apply_to_target(deployment: DeploymentProgress, event: Event) -> None:
    if deployment.closed is not None:
        return
    target = deployment.targets.get(event.target or "")
    if target is None:
        # Where a rollback's plan is not told beforehand, its targets are met as they are staged.
        if event.name != "stage" or deployment.plan.get("targets"):
            return
        position = len(deployment.targets)
        target = TargetProgress(name=str(event.target), position=position, since=event.at)
        deployment.targets[target.name] = target
    if target.done and event.kind != "settled":
        target.message = target.message or (event.message if event.kind == "error" else "")
        return
    if event.kind == "started":
        waiting = event.name == "admit"
        doing = DOING.get(event.name) if event.name in ("stage", "admit", "settle") else None
        _move(target, "Waiting" if waiting else "InProgress", event.at, doing or event.message)
    elif event.kind == "staged":
        _staged(target, event)
    elif event.kind == "admitted":
        target.admitted, target.began = True, event.at
        deployment.rolling = deployment.rolling or event.at
        _move(target, "InProgress", event.at, "admitted")
    elif event.kind in ("current", "refused"):
        target.message = event.message
        _move(target, "Current" if event.kind == "current" else "Refused", event.at)
    elif event.kind == "traffic":
        target.event = event.name.replace("_", " ")
    elif event.kind == "lifecycle" and event.status != "Skipped":
        target.event = f"{event.name} {event.status}"
        if event.status == "Failed":
            target.message = event.message
    elif event.kind == "error":
        target.message = event.message
        if event.name == "stage":
            # Nothing else follows that would tell of it.
            _move(target, "Failed", event.at)
    elif event.kind == "settled":
        target.admitted = False
        target.message = target.message or (event.message if event.status == "Failed" else "")
        _move(target, event.status, event.at)


def _staged(target: TargetProgress, event: Event) -> None:
    if event.status == "Failed":
        target.message = event.message
        _move(target, "Failed", event.at)
    elif event.status == "Current":
        _move(target, "Current", event.at)
    else:
        _move(target, "Pending", event.at, "staged")


def _move(target: TargetProgress, state: str, at: float, doing: str = "") -> None:
    target.state, target.since, target.doing = state, at, doing
    if state in DONE:
        target.admitted = False
