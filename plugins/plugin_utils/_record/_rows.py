# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shapes that go into the record and come out of it.

All times are seconds since the epoch. Statuses are CodeDeploy's words (see docs/architecture.md).
"""

from __future__ import annotations

import json
import urllib.parse
import uuid
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ...module_utils._errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Mapping

FINAL_STATUSES = frozenset({"Succeeded", "Failed", "Stopped"})
DECIDED = frozenset({"Succeeded", "Failed", "Skipped"})
# Something is still to happen to these; of an Unknown target nothing is known, and may never be.
UNDECIDED = ("Pending", "InProgress")


class ClaimedError(Exception):
    """Another deployment holds the group; who it is has to be looked up."""


class ActiveDeploymentError(RecordError):
    """The group has an active deployment; ``holder`` is that deployment."""

    def __init__(self, message: str, holder: Deployment) -> None:
        """Keep the holder for callers that say more than the message."""
        super().__init__(message)
        self.holder = holder


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionRow:
    """A revision as it was deployed: its digest, where it came from, its AppSpec."""

    digest: str
    source: str = ""
    description: str = ""
    bundle_sha256: str = ""
    bundle_size: int = 0
    bundle_type: str = ""
    bundle_path: str = ""
    appspec: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDeployment:
    """What ``Record.create_deployment`` needs.

    ``plan`` is what ``make_plan`` returns. ``creator`` is ``user``, ``codeDeployRollback`` or
    ``CodeDeployAutoUpdate``. ``only_after`` is the id of the deployment that has to be the group's
    newest ("" if there must be none); None does not ask. ``previous_digest`` is the group's
    revision if left out, ``started_by`` and ``started_from`` are this user and this host.
    """

    application: str
    group: str
    strategy: str
    revision: RevisionRow
    plan: dict[str, Any]
    description: str = ""
    creator: str = "user"
    options: dict[str, Any] = field(default_factory=dict)
    previous_digest: str | None = None
    rollback_of: str | None = None
    only_after: str | None = None
    started_by: str | None = None
    started_from: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One attempt to bring one revision to one deployment group.

    ``fence`` counts the controllers that have taken it; only the last one may change it.
    ``paused_at`` and ``pause_reason`` are set while nobody is to be admitted until it is resumed
    (``paused_step``: because the gates of this step could not be decided);
    ``stop_requested_by`` is who asked for its end, ``rollback_on_stop`` whether that rolls it back.
    """

    id: str
    application: str
    group: str
    group_id: str
    strategy: str
    status: str
    creator: str
    description: str
    revision: RevisionRow
    previous_digest: str | None
    rollback_of: str | None
    rolled_back_by: str | None
    error_code: str | None
    error_message: str
    plan: dict[str, Any]
    options: dict[str, Any]
    created_at: float
    finished_at: float | None
    started_by: str
    started_from: str
    overview: dict[str, int]
    fence: int
    plan_hash: str | None = None
    paused_at: float | None = None
    pause_reason: str | None = None
    paused_step: str | None = None
    stop_requested_by: str | None = None
    rollback_on_stop: bool = False

    @property
    def is_final(self) -> bool:
        """Whether the status cannot change any more."""
        return self.status in FINAL_STATUSES

    @property
    def goes_on(self) -> bool:
        """Whether it is neither ending, ended nor paused."""
        return not self.is_final and self.error_code is None and self.paused_at is None

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One target of a deployment, with what has become of it."""

    name: str
    position: int
    stage: int
    zone: str
    status: str
    staged: bool
    changed: bool
    in_service: bool
    error_code: str | None
    message: str
    started_at: float | None
    finished_at: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, in the order of ``sequence`` within its deployment.

    ``kind`` is ``lifecycle`` (``event`` is CodeDeploy's name of it, the other fields are as the
    host reported them) or ``record`` (``event`` is Created, Staged, Current, Admitted, InService,
    OutOfService, Published, Settled, Halted, StopRequested, Paused, ApprovalAsked,
    ApprovalDecided, StepStarted, StepResumed, StepEnded, TrafficRouted, GatesAsked, GateDecided,
    GatesExtended, GatesDecided, WaitEnded, AlarmState, AlarmsUnknown, TakenOver, Lost,
    NotificationFailed, Left, ScalingHeld, ScalingReleased, HookUnanswered, Finished or Abandoned;
    ``target`` is empty where none is meant).
    """

    sequence: int
    kind: str
    target: str
    event: str
    status: str
    at: float
    started: float | None
    ended: float | None
    error_code: str | None
    script: str | None
    message: str
    log: str

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The answer of ``Record.admit`` and the numbers it was made from.

    ``verdict`` is admitted (start now; ``resumed`` if it had been admitted before), wait (ask
    again, not before ``retry_at`` if that is set), current (nothing is left to do) or refused.
    ``out_of_turn`` says that there is a slot, but that targets before this one wait for it;
    ``needs_approval`` that a person has to approve the stage before, until ``retry_at``; ``leads``
    that this target is the first of those that wait for the same moment or person. ``gates`` is the
    step whose gates have to be asked first, while it bakes for ``bakes`` seconds.
    """

    verdict: str
    reason: str
    slots: int
    in_flight: int
    failed: int
    total: int
    minimum_healthy: int
    retry_at: float | None = None
    resumed: bool = False
    out_of_turn: bool = False
    needs_approval: bool = False
    leads: bool = False
    gates: str = ""
    bakes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A person's leave to begin the stage after ``stage`` (counted from 0), or to pass ``step``.

    ``status`` is Waiting, Approved, Rejected or TimedOut. ``decided_by`` is a user on the machine
    ``decided_from``; both are None where nobody has answered.
    """

    number: int
    stage: int
    asked_at: float
    until: float | None
    status: str
    decided_at: float | None
    decided_by: str | None
    decided_from: str | None
    why: str
    step: str | None = None

    @property
    def what(self) -> str:
        """What is to be approved, as people say it."""
        return self.step if self.step is not None else f"stage {self.stage + 1}"

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetState:
    """What is known of a target between deployments of its group.

    ``health``: Healthy or Unhealthy (how the last attempt ended). ``revision_state``: Current,
    Old or Unknown, compared with the revision of the group. ``digest`` is None when unknown.
    """

    health: str
    revision_state: str
    digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleHolder:
    """A target that a bundle was delivered to."""

    application: str
    group: str
    target: str
    delivered_at: float


def group_id(application: str, group: str) -> str:
    """Return the identity of a deployment group on its hosts.

    It follows from the names alone, so a lost record gives the same paths on the hosts again.
    """
    name = "/".join(urllib.parse.quote(part, safe="") for part in (application, group))
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "bascule:" + name))


def deployment_from(row: Mapping[str, Any], overview: dict[str, int]) -> Deployment:
    """Make a Deployment from a row of the table ``deployments``."""
    return Deployment(
        id=row["id"],
        application=row["application"],
        group=row["deployment_group"],
        group_id=group_id(row["application"], row["deployment_group"]),
        strategy=row["strategy"],
        status=row["status"],
        creator=row["creator"],
        description=row["description"],
        revision=RevisionRow(**json.loads(row["revision"])),
        previous_digest=row["previous_digest"],
        rollback_of=row["rollback_of"],
        rolled_back_by=row["rolled_back_by"],
        error_code=row["error_code"],
        error_message=row["error_message"],
        plan=json.loads(row["plan"]),
        options=json.loads(row["options"]),
        created_at=row["created_at"],
        finished_at=row["finished_at"],
        started_by=row["started_by"],
        started_from=row["started_from"],
        overview=overview,
        plan_hash=row["plan_hash"],
        fence=row["fence"],
        paused_at=row["paused_at"],
        pause_reason=row["pause_reason"],
        paused_step=row["paused_step"],
        stop_requested_by=row["stop_requested_by"],
        rollback_on_stop=bool(row["rollback_on_stop"]),
    )


def target_from(row: Mapping[str, Any]) -> Target:
    """Make a Target from a row of the table ``targets``."""
    return Target(
        name=row["name"],
        position=row["position"],
        stage=row["stage"],
        zone=row["zone"],
        status=row["status"],
        staged=bool(row["staged"]),
        changed=bool(row["changed"]),
        in_service=bool(row["in_service"]),
        error_code=row["error_code"],
        message=row["message"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def approval_from(row: Mapping[str, Any]) -> Approval:
    """Make an Approval from a row of the table ``approvals``."""
    return Approval(**{name: row[name] for name in Approval.__slots__})


def event_from(row: Mapping[str, Any]) -> Event:
    """Make an Event from a row of the table ``events``."""
    return Event(**{name: row[name] for name in Event.__slots__})
