# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One transaction on one deployment.

The row of the deployment is locked first, so changes of a deployment happen one after the other,
whoever makes them, and its events are numbered without gaps.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from ...module_utils._audit import MAIN, Link, canonical_json
from ...module_utils._errors import LeaseLostError, RecordError
from . import _audit
from ._rows import FINAL_STATUSES
from ._session import Query, Row, Session

if TYPE_CHECKING:
    from collections.abc import Sequence

# What every change needs to know; the plan and the AppSpec are large and are left out.
SUMMARY = (
    "id", "application", "deployment_group", "status", "digest", "mode", "total",
    "minimum_healthy", "bake_time", "last_sequence", "error_code", "error_message", "halted_at",
    "rollback_of", "fence", "paused_at", "pause_reason", "approval", "plan_hash", "zonal", "gated",
)  # fmt: skip

# What each link of the audit has of the deployment.
_ABOUT = ("application", "deployment_group", "digest", "plan_hash")


class Change:
    """What is changed within the transaction; ``write`` sends events and the deployment's row."""

    def __init__(
        self, session: Session, deployment_id: str, now: float, *, fence: int | None = None
    ) -> None:
        """Lock the deployment.

        :param fence: that of the controller, None for whoever is none
        :raises RecordError: there is no deployment of this id
        :raises LeaseLostError: another controller has taken it over
        """
        self.session = session
        self.now = now
        query = Query(table="deployments", columns=SUMMARY, equals={"id": deployment_id})
        self.deployment: Row = only(session.locked(query), deployment_id)
        check_fence(self.deployment, fence)
        self._events: list[dict[str, Any]] = []
        self._values: dict[str, Any] = {}
        self._target_values: dict[str, dict[str, Any]] = {}
        self._links: list[Link] = []
        self._in_main: tuple[str, dict[str, Any]] | None = None
        self._written = 0

    @property
    def is_final(self) -> bool:
        """Whether the deployment has ended."""
        return self.deployment["status"] in FINAL_STATUSES

    def target(self, name: str) -> Row:
        """Return the row of a target; raises RecordError if there is none of this name."""
        return find_target(self.session, self.deployment["id"], name)

    def set_target(self, name: str, **values: Any) -> None:
        """Write to the row of a target."""
        key = {"deployment_id": self.deployment["id"], "name": name}
        self.session.update("targets", values, **key)
        self._target_values.setdefault(name, {}).update(values)

    def set_deployment(self, **values: Any) -> None:
        """Write to the row of the deployment when the transaction ends."""
        self._values.update(values)

    def begin_work(self) -> None:
        """Make a created deployment one in progress: something is done for a target."""
        if self.deployment["status"] == "Created":
            self.set_deployment(status="InProgress")

    def note(
        self,
        event: str,
        target: str = "",
        *,
        status: str = "",
        error_code: str | None = None,
        message: str = "",
    ) -> None:
        """Add an event of the record itself, and a link to the audit."""
        self.add(
            {
                "kind": "record", "target": target, "event": event, "status": status,
                "error_code": error_code, "message": message,
            }
        )  # fmt: skip
        detail = {"status": status, "error_code": error_code}
        self.audit(event, target, why=message, detail={k: v for k, v in detail.items() if v})

    def audit(
        self, action: str, target: str = "", *, why: str = "", detail: dict[str, Any] | None = None
    ) -> None:
        """Add a link to the deployment's chain of the audit."""
        known = {name: self.deployment[name] for name in _ABOUT}
        about = {"deployment_id": self.deployment["id"], "target": target, "why": why}
        given = {"fence": self.deployment["fence"], **(detail or {})}
        self._links.append(_audit.entry(action, self.now, detail=given, **known, **about))

    def audit_in_main(self, action: str, detail: dict[str, Any]) -> None:
        """Add a link to the chain of the whole record: the deployment begins or ends."""
        self._in_main = action, detail

    def add(self, event: dict[str, Any]) -> None:
        """Add an event; what it does not say is empty."""
        self._events.append(
            {
                "deployment_id": self.deployment["id"], "target": "", "status": "",
                "at": self.now, "started": None, "ended": None, "error_code": None,
                "script": None, "message": "", "log": "", **event,
            }
        )  # fmt: skip

    def write(self) -> None:
        """Store the events with their numbers, and update the deployment.

        Called again, it stores what has come since.
        """
        fresh = self._events[self._written :]
        self._audit_lifecycle(fresh)
        if fresh:
            last = self.deployment["last_sequence"] + self._written
            for offset, event in enumerate(fresh, 1):
                event["sequence"] = last + offset
            self.session.insert("events", fresh)
            self._written = len(self._events)
            self._values["last_sequence"] = last + len(fresh)
        self._write_audit()
        if self._values:
            self.session.update("deployments", self._values, id=self.deployment["id"])
            self._values = {}

    def _audit_lifecycle(self, events: Sequence[dict[str, Any]]) -> None:
        """Tell in the audit what hosts have reported, with a hash of all of it."""
        told: dict[str, list[dict[str, Any]]] = {}
        for event in events:
            if event["kind"] == "lifecycle":
                told.setdefault(event["target"], []).append(event)
        for target, some in told.items():
            brief = [[one["event"], one["status"], one["error_code"]] for one in some]
            whole = hashlib.sha256(canonical_json(some).encode("ascii")).hexdigest()
            self.audit("LifecycleEvents", target, detail={"events": brief, "sha256": whole})

    def _write_audit(self) -> None:
        """Add the links to their chains; the first one about a row holds what was changed in it."""
        values = {name: value for name, value in self._values.items() if name != "last_sequence"}
        if (values or self._target_values) and not self._links:
            self.audit("Changed")
        if not self._links:
            return
        links, self._links = self._links, []
        changed, self._target_values = self._target_values, {}
        for link in links:
            row = changed.pop(link["target"], None) if link["target"] else None
            _audit.more(link, {"target": row} if row else {})
        _audit.more(links[0], {"deployment": values} if values else {})
        _audit.more(links[0], {"targets": changed} if changed else {})
        name = str(self.deployment["id"])
        head = _audit.append(self.session, name, links)
        action, detail = self._in_main or ("", {})
        self._in_main = None
        if not action and head.length == len(links):
            action = "DeploymentAdopted"
        if action:
            known = {column: self.deployment[column] for column in _ABOUT}
            told = {**detail, "chain": {"length": head.length, "hash": head.hash}}
            link = _audit.entry(action, self.now, detail=told, deployment_id=name, **known)
            _audit.append(self.session, MAIN, [link])

    def was_written(self, later: Session) -> bool:
        """Tell in a later transaction, with the deployment locked, whether this one was committed.

        Its first event proves it. Without an event it counts as not committed.
        """
        for event in self._events[:1]:
            key = {name: event[name] for name in ("deployment_id", "sequence")}
            found = later.rows(Query(table="events", equals=key))
            return bool(found) and all(
                found[0][name] == event[name] for name in ("at", "event", "target", "message")
            )
        return False


def check_fence(deployment: Row, fence: int | None) -> None:
    """Refuse a controller whose deployment another one has taken (None: no controller).

    :raises LeaseLostError: the fence of the deployment is another
    """
    if fence is None or deployment["fence"] == fence:
        return
    name = deployment["id"]
    raise LeaseLostError(
        f"Deployment {name} was taken from this controller, which may not go on with it: it is "
        f"the {ordinal(fence)} that has taken it, and there was a {ordinal(deployment['fence'])} "
        f"since. Nothing more is written by this one. `bascule status {name}` shows who holds it."
    )


def ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd and so on."""
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}" + {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def only(found: Sequence[dict[str, Any]], deployment_id: str) -> dict[str, Any]:
    """Return the row of the deployment that was looked for."""
    if not found:
        raise RecordError(
            f"The record has no deployment {deployment_id}. `bascule history` lists those it has."
        )
    return found[0]


def find_target(session: Session, deployment_id: str, name: str) -> Row:
    """Return the row of a target of a deployment."""
    found = session.rows(
        Query(table="targets", equals={"deployment_id": deployment_id, "name": name})
    )
    if not found:
        raise RecordError(
            f"Deployment {deployment_id} has no target {name}: it is not in its plan. A target "
            "that joined the group later needs a deployment of its own."
        )
    return found[0]
