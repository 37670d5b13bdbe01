# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gates in the record: who asks them, until when, and every answer with the data it was made from.

Whoever wants to pass a step claims it; one asks, the others wait for what comes out. A claim that
is not renewed in ``CLAIM_SECONDS`` is free, as is that of a controller which has lost the
deployment. The end of the bake time is written when the step is claimed first, so a run that is
resumed does not begin anew; what the gates have answered is read from their decisions.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...module_utils import _approval
from ...module_utils._admission import conclude
from ...module_utils._audit import canonical_json
from ...module_utils._errors import RecordError
from ._admit import counts_from, tally_query
from ._change import SUMMARY, check_fence, only
from ._control import approvals
from ._rows import FINAL_STATUSES, Approval
from ._session import Query, Row, Session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._change import Change

CLAIM_SECONDS = 30.0
# The stage of an approval that is asked for by a step of its own.
NO_STAGE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRun:
    """The gates of one step: since when they are asked, until when it bakes, how it ended.

    ``round`` counts from 1; each time the step is extended or asked anew is one more. ``verdict``
    is empty while they are asked, then Pass, Fail or Inconclusive. All times are epoch seconds.
    ``claimed``: it was the one that asked for this row who has the claim.
    """

    deployment_id: str
    step: str
    started_at: float
    until: float
    round: int
    verdict: str
    message: str
    holder: str | None
    claimed_until: float | None
    waits_for: str
    claimed: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateDecision:
    """One answer of a gate, or the verdict of all of a step (``gate`` is empty then).

    ``data`` is what the answer was made from.
    """

    sequence: int
    at: float
    step: str
    round: int
    target: str
    gate: str
    verdict: str
    data: dict[str, Any]
    message: str

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLook:
    """What whoever asks the gates has to know: whether the deployment is to go on at all."""

    ended: str | None
    halted: str | None
    paused: str | None
    run: GateRun | None


def look(session: Session, deployment_id: str, step: str, fence: int | None) -> GateLook:
    """Read how a deployment and a step of it stand.

    :raises LeaseLostError: the fence is not the deployment's any more
    """
    query = Query(table="deployments", columns=SUMMARY, equals={"id": deployment_id})
    deployment = only(session.rows(query), deployment_id)
    check_fence(deployment, fence)
    halted = deployment["halted_at"] is not None
    return GateLook(
        ended=deployment["status"] if deployment["status"] in FINAL_STATUSES else None,
        halted=f"{deployment['error_code']}: {deployment['error_message']}" if halted else None,
        paused=deployment["pause_reason"] if deployment["paused_at"] is not None else None,
        run=find_run(session, deployment_id, step),
    )


def find_run(session: Session, deployment_id: str, step: str) -> GateRun | None:
    """Return the gates of a step as they stand."""
    row = _row(session, deployment_id, step)
    return run_from(row) if row else None


def runs(session: Session, deployment_id: str) -> list[GateRun]:
    """Return the gates of all steps of a deployment, in the order in which they were begun."""
    query = Query(
        table="gate_runs", equals={"deployment_id": deployment_id}, order=("started_at", "step")
    )
    return [run_from(row) for row in session.rows(query)]


def decisions(session: Session, deployment_id: str, step: str | None = None) -> list[GateDecision]:
    """Return what gates have answered, in order."""
    equals = {"deployment_id": deployment_id}
    if step is not None:
        equals["step"] = step
    query = Query(table="gate_decisions", equals=equals, order=("sequence",))
    return [decision_from(row) for row in session.rows(query)]


def claim(change: Change, step: str, seconds: float, holder: str) -> GateRun:
    """Take the gates of a step, unless somebody else asks them or they have passed.

    A step that ended as Inconclusive is asked anew, for as long as it bakes.

    :param seconds: bake time, counted from the first claim
    :param holder: a name of the one who claims, its own
    """
    deployment_id, now = change.deployment["id"], change.now
    row = _row(change.session, deployment_id, step)
    mine = {
        "holder": holder, "fence": change.deployment["fence"], "claimed_until": now + CLAIM_SECONDS,
    }  # fmt: skip
    if row is None:
        fresh = {
            "deployment_id": deployment_id, "step": step, "started_at": now,
            "until": now + seconds, "round": 1, "verdict": "", "message": "", "waits_for": "",
            **mine,
        }  # fmt: skip
        change.session.insert("gate_runs", [fresh])
        change.note("GatesAsked", status="Running", message=_asked(step, seconds))
        return run_from(fresh, claimed=True)
    if row["verdict"] in ("Pass", "Fail"):
        return run_from(row)
    if not row["verdict"] and _is_held(row, change, holder):
        return run_from(row)
    values: dict[str, Any] = dict(mine)
    if row["verdict"]:
        values |= {"verdict": "", "message": "", "round": row["round"] + 1, "until": now + seconds}
        change.note("GatesAsked", status="Running", message=_asked(f"{step}, once more", seconds))
    change.session.update("gate_runs", values, deployment_id=deployment_id, step=step)
    return run_from({**row, **values}, claimed=True)


def _asked(step: str, seconds: float) -> str:
    return f"{step}: for {seconds:g} s at least" if seconds else step


def keep(change: Change, step: str, holder: str, waits_for: str) -> bool:
    """Renew a claim, and say what is waited for; False if somebody else has taken it."""
    deployment_id = change.deployment["id"]
    row = _row(change.session, deployment_id, step)
    if row is None or row["holder"] != holder or row["verdict"]:
        return False
    values = {"claimed_until": change.now + CLAIM_SECONDS, "waits_for": waits_for}
    change.session.update("gate_runs", values, deployment_id=deployment_id, step=step)
    return True


def extend(change: Change, step: str, seconds: float, why: str) -> GateRun:
    """Bake once more for ``seconds``: a new round, with all that was measured before."""
    deployment_id = change.deployment["id"]
    row = _row(change.session, deployment_id, step)
    if row is None:
        raise RecordError(f"No gate of {step} was asked; there is nothing to extend.")
    values = {"round": row["round"] + 1, "until": change.now + seconds}
    change.session.update("gate_runs", values, deployment_id=deployment_id, step=step)
    change.note("GatesExtended", status="Running", message=f"{step}: {seconds:g} s more. {why}")
    return run_from({**row, **values}, claimed=True)


def decide(
    change: Change,
    step: str,
    round_: int,
    gate: str,
    verdict: str,
    data: Mapping[str, Any],
    message: str,
    *,
    told: bool,
) -> None:
    """Write down an answer with its data; ``told``: as an event, too, because it tells something.

    Written again, it changes nothing.
    """
    session, deployment_id = change.session, change.deployment["id"]
    known = {"deployment_id": deployment_id, "step": step, "gate": gate, "at": change.now}
    if session.rows(Query(table="gate_decisions", columns=("sequence",), equals=known)):
        return
    newest = Query(
        table="gate_decisions",
        columns=("sequence",),
        equals={"deployment_id": deployment_id},
        order=("-sequence",),
        limit=1,
    )
    last = next((row["sequence"] for row in session.rows(newest)), 0)
    text = json.dumps(data, sort_keys=True)
    session.insert(
        "gate_decisions",
        [
            {
                "deployment_id": deployment_id, "sequence": last + 1, "at": change.now,
                "target": "", "gate": gate, "verdict": verdict, "data": text,
                "message": message, "step": step, "round": round_,
            }
        ],
    )  # fmt: skip
    digest = hashlib.sha256(canonical_json(json.loads(text)).encode("ascii")).hexdigest()
    name = f"{step}: {gate}" if gate else step
    if told:
        change.note("GateDecided", status=verdict, message=f"{name}: {message}")
    change.audit("GateDecision", why=message, detail={"gate": name, "verdict": verdict,
                                                      "sha256": digest})  # fmt: skip


def end(change: Change, step: str, verdict: str, message: str) -> None:
    """Write down the verdict of a step; whoever waits for it goes on."""
    values = {"verdict": verdict, "message": message, "claimed_until": None, "waits_for": ""}
    change.session.update("gate_runs", values, deployment_id=change.deployment["id"], step=step)
    change.note("GatesDecided", status=verdict, message=f"{step}: {message}")


def ask_person(change: Change, step: str, timeout: float) -> Approval:
    """Ask a person about a step, unless somebody has asked; returns the newest approval of it."""
    known = [one for one in approvals(change.session, change.deployment["id"]) if one.step == step]
    if known and known[-1].status in (_approval.WAITING, _approval.APPROVED):
        return known[-1]
    number = 1 + len(approvals(change.session, change.deployment["id"]))
    change.session.insert(
        "approvals",
        [
            {
                "deployment_id": change.deployment["id"], "number": number, "stage": NO_STAGE,
                "asked_at": change.now, "until": change.now + timeout,
                "status": _approval.WAITING, "decided_at": None, "decided_by": None,
                "decided_from": None, "why": "", "step": step,
            }
        ],
    )  # fmt: skip
    change.note("ApprovalAsked", status=_approval.WAITING, message=f"{step}: a person is asked.")
    return approvals(change.session, change.deployment["id"])[-1]


def worth_watching(session: Session, deployment_id: str) -> bool:
    """Whether there is something to watch: changed targets of a deployment that would succeed."""
    query = Query(table="deployments", columns=SUMMARY, equals={"id": deployment_id})
    deployment = only(session.rows(query), deployment_id)
    if deployment["status"] in FINAL_STATUSES or deployment["halted_at"] is not None:
        return False
    groups = session.rows(tally_query(deployment_id))
    counts = counts_from(groups, deployment["total"])
    outcome = conclude(counts, deployment["minimum_healthy"])
    return outcome.status == "Succeeded" and any(group["changed"] for group in groups)


def run_from(row: Row, *, claimed: bool = False) -> GateRun:
    """Make a GateRun from a row of the table ``gate_runs``."""
    names = set(GateRun.__slots__) - {"claimed"}
    return GateRun(**{name: row[name] for name in names}, claimed=claimed)


def decision_from(row: Row) -> GateDecision:
    """Make a GateDecision from a row of the table ``gate_decisions``."""
    values = {name: row[name] for name in GateDecision.__slots__}
    return GateDecision(**{**values, "data": json.loads(row["data"])})


def _row(session: Session, deployment_id: str, step: str) -> dict[str, Any] | None:
    equals = {"deployment_id": deployment_id, "step": step}
    found = session.rows(Query(table="gate_runs", equals=equals))
    return found[0] if found else None


def _is_held(row: Row, change: Change, holder: str) -> bool:
    """Whether another one, that lives, asks the gates."""
    until = row["claimed_until"]
    return (
        row["holder"] != holder
        and row["fence"] == change.deployment["fence"]
        and until is not None
        and until > change.now
    )
