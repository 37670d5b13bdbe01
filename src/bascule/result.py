"""What the API gives back: frozen, typed, and the same as ``--format json`` of the command."""

from __future__ import annotations

import dataclasses
import typing as t
from dataclasses import dataclass, field

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import Event

DONE, FAILED, USAGE, WAITING, INTERRUPTED = 0, 1, 2, 3, 4

# Refusals that a person cures by asking differently, or later; nothing was changed anywhere.
USAGE_KINDS = frozenset({"usage", "revision", "archive", "appspec", "plan", "record", "lease"})
_BY_STATUS = {
    "Succeeded": DONE,
    "Planned": DONE,
    "Failed": FAILED,
    "Stopped": WAITING,
    "Ready": WAITING,
    "Created": INTERRUPTED,
    "Queued": INTERRUPTED,
    "InProgress": INTERRUPTED,
    "Baking": INTERRUPTED,
}
# Statuses of deployments that have not ended.
UNFINISHED = frozenset({"Created", "InProgress", "Ready", "Baking"})


class DeploymentError(Exception):
    """A deployment that did not succeed; ``deployment`` is its result."""

    def __init__(self, deployment: Deployment) -> None:
        """Say what the deployment said."""
        error = deployment.error
        reason = error.message if error else f"the deployment ended as {deployment.status}"
        super().__init__(f"{deployment.id}: {reason}" if deployment.id else reason)
        self.deployment = deployment


@dataclass(frozen=True)
class Failure:
    """Why something failed.

    kind: usage, revision, archive, appspec, plan, record, traffic, host, hook, gate or internal
    for what could not begin; CodeDeploy's error code (HEALTH_CONSTRAINTS, …) for a deployment.
    """

    kind: str
    message: str


@dataclass(frozen=True)
class Revision:
    """A revision: the SHA-256 of its content, where it came from, and what its author said."""

    digest: str = ""
    source: str = ""
    description: str = ""


@dataclass(frozen=True)
class Target:
    """One target: Pending, InProgress, Succeeded, Failed, Skipped or Unknown. Times are epoch."""

    name: str
    status: str
    changed: bool | None = None
    in_service: bool | None = None
    error_code: str | None = None
    message: str = ""
    started_at: float | None = None
    finished_at: float | None = None


@dataclass(frozen=True)
class Deployment:
    """One deployment, as it ended or as far as it came.

    status: CodeDeploy's (Created, InProgress, Ready, Baking, Succeeded, Failed, Stopped), or
    Refused when it could not begin. ``plan`` is as docs/api.md tells; times are seconds since the
    epoch.
    ``unfinished`` is the id of the deployment that somebody has to go on with: this one, or the
    one that rolls it back. ``lease`` (who carries it out) and ``approvals``, ``steps`` and
    ``routing`` are told by ``status``.
    """

    id: str | None
    status: str
    strategy: str
    application: str = ""
    group: str = ""
    revision: Revision = field(default_factory=Revision)
    previous_digest: str | None = None
    targets: tuple[Target, ...] = ()
    overview: Mapping[str, int] = field(default_factory=dict)
    plan: Mapping[str, t.Any] = field(default_factory=dict, repr=False)
    plan_hash: str = ""
    summary: str = ""
    creator: str = "user"
    rollback_of: str | None = None
    follows: str | None = None
    rolled_back_by: str | None = None
    error: Failure | None = None
    created_at: float | None = None
    finished_at: float | None = None
    started_by: str = ""
    started_from: str = ""
    paused_at: float | None = None
    pause_reason: str | None = None
    stop_requested_by: str | None = None
    approvals: tuple[Mapping[str, t.Any], ...] = ()
    gates: tuple[Mapping[str, t.Any], ...] = ()
    steps: tuple[Mapping[str, t.Any], ...] = ()
    routing: tuple[Mapping[str, t.Any], ...] = ()
    alarms: Mapping[str, t.Any] | None = None
    lease: Mapping[str, t.Any] | None = None
    unfinished: str | None = None
    interrupted: bool = False
    seen: tuple[Event, ...] = field(default=(), repr=False)

    @property
    def waiting(self) -> Mapping[str, t.Any] | None:
        """Return the approval that the deployment waits for."""
        return next((one for one in self.approvals if one["status"] == "Waiting"), None)

    @property
    def exit_code(self) -> int:
        """Return 0 done, 1 failed or rolled back, 2 usage, 3 stopped or waiting, 4 interrupted."""
        if self.interrupted:
            return INTERRUPTED
        if self.status == "Refused":
            known = self.error is not None and self.error.kind in USAGE_KINDS
            return USAGE if known else FAILED
        if self.status == "Stopped" and self.rolled_back_by:
            return FAILED
        if self.status == "InProgress" and self.waiting:
            return WAITING
        return _BY_STATUS.get(self.status, FAILED)

    def events(self) -> tuple[Event, ...]:
        """Return everything that was seen while it ran, in order (of a run in this process)."""
        return self.seen

    def raise_for_status(self) -> None:
        """Raise ``DeploymentError`` unless all went well."""
        if self.exit_code != DONE:
            raise DeploymentError(self)

    def to_dict(self) -> dict[str, t.Any]:
        """Return the documented JSON form."""
        fields = {
            one.name: getattr(self, one.name)
            for one in dataclasses.fields(self)
            if one.name not in ("seen", "targets", "revision", "error")
        }
        return {
            **fields,
            "revision": dataclasses.asdict(self.revision),
            "targets": [dataclasses.asdict(target) for target in self.targets],
            "error": dataclasses.asdict(self.error) if self.error else None,
            "exit_code": self.exit_code,
        }


@dataclass(frozen=True)
class Plan:
    """What a deployment would do. ``details`` is the whole plan (docs/api.md), ``text`` for people.

    ``differences`` holds, by target, the files that would change as unified text.
    """

    strategy: str
    application: str
    group: str
    revision: Revision
    stages: tuple[tuple[str, ...], ...]
    slots: int
    minimum_healthy: int
    warnings: tuple[str, ...]
    text: str
    plan_hash: str
    details: Mapping[str, t.Any] = field(repr=False)
    differences: Mapping[str, str] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, t.Any]:
        """Return the documented JSON form."""
        return {
            "strategy": self.strategy,
            "application": self.application,
            "group": self.group,
            "revision": dataclasses.asdict(self.revision),
            "plan": dict(self.details),
            "plan_hash": self.plan_hash,
            "text": self.text,
            "differences": dict(self.differences),
        }
