# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of the record.

Only portable types: texts, integers, floats (seconds since the epoch) and JSON as text, so that a
row means the same however it is read.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ...module_utils._errors import RecordError
from ._columns import (
    counted_key,
    flag,
    indexed,
    integer,
    key,
    maybe_integer,
    maybe_moment,
    maybe_text,
    moment,
    new_flag,
    number_key,
    text,
)
from ._triggers import append_only

if TYPE_CHECKING:
    from sqlalchemy import MetaData

SCHEMA_VERSION = 2


def check_version(shown: str, version: int | None) -> None:
    """Refuse a record of another version than ours; ``shown`` is its address.

    :raises RecordError: naming the command that helps
    """
    if version == SCHEMA_VERSION:
        return
    if is_older(version):
        raise RecordError(
            f"The record {shown} has version {version}, this Bascule works with version "
            f"{SCHEMA_VERSION}. Make a copy of it, let every deployment end, and run "
            "`bascule record upgrade`; an older Bascule cannot use it any more then."
        )
    raise RecordError(
        f"The record {shown} has version {version}, this Bascule works with version "
        f"{SCHEMA_VERSION}. Use the Bascule that wrote it (`pip install --upgrade bascule` gets a "
        "newer one), or name another record with BASCULE_RECORD."
    )


def unlike_ours(shown: str, missing: str) -> RecordError:
    """Return the error for a record of our version without our tables; ``shown`` is its address.

    :param missing: what the database says is not there
    """
    return RecordError(
        f"The record {shown} says that it has version {SCHEMA_VERSION}, but has other tables "
        f"({missing}): it was made by a Bascule from between two releases, from which no way leads "
        "here. Move it away or name another record with BASCULE_RECORD; the next deployment makes "
        "a new one. What is installed on the targets stays and is found again; the history before "
        "is lost, and with it what a rollback could go back to."
    )


def is_older(version: int | None) -> bool:
    """Tell whether a record of this version can be migrated to ours."""
    return version is not None and 0 < version < SCHEMA_VERSION


def sqlite_schema() -> list[str]:
    """Return the statements that make the tables in SQLite."""
    from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
    from sqlalchemy.schema import CreateIndex, CreateTable

    dialect = SQLiteDialect_pysqlite()
    made = metadata().sorted_tables
    statements: list[CreateTable | CreateIndex] = [CreateTable(table) for table in made]
    statements += [CreateIndex(index) for table in made for index in table.indexes]
    texts = [str(statement.compile(dialect=dialect)) for statement in statements]
    return [*texts, *append_only("sqlite")]


@functools.cache
def metadata() -> MetaData:
    """Describe the tables (once a process).

    New columns stand last, as in a record that was migrated.
    """
    from sqlalchemy import Column, Index, Integer, MetaData, Table, UniqueConstraint

    metadata = MetaData()
    Table("schema_version", metadata, Column("version", Integer, nullable=False))
    Table("applications", metadata, key("application"), moment("created_at"))
    Table(
        "groups", metadata, key("application"), key("deployment_group"), maybe_text("digest"),
        maybe_text("deployment_id"), moment("updated_at"),
    )  # fmt: skip
    # One row a group with a deployment that has not ended. The primary key is the lock; the
    # holder is the controller that carries it out (none of a record from before there were leases).
    Table(
        "active", metadata, key("application"), key("deployment_group"), text("deployment_id"),
        moment("since"), maybe_text("holder"), maybe_text("holder_host"), maybe_text("holder_boot"),
        maybe_integer("holder_pid"), maybe_moment("holder_started"), maybe_moment("heartbeat_at"),
        maybe_moment("expires_at"),
    )  # fmt: skip
    # fence: how many controllers have taken the deployment; only the last one may write.
    # approval: the rule of the plan, kept apart because each admission asks for it; gated: gates
    # are asked between its stages.
    deployments = Table(
        "deployments", metadata, counted_key("number"),
        indexed("id"), indexed("application"), indexed("deployment_group"), text("strategy"),
        text("status"), text("creator"), text("description"), text("digest"), text("revision"),
        maybe_text("previous_digest"), maybe_text("rollback_of"), maybe_text("rolled_back_by"),
        maybe_text("error_code"), text("error_message"), maybe_moment("halted_at"),
        text("plan"), text("options"), text("mode"), integer("total"),
        integer("minimum_healthy"), moment("bake_time"), integer("last_sequence"),
        moment("created_at"), maybe_moment("finished_at"), text("started_by"),
        text("started_from"), integer("fence", default=1), maybe_text("plan_hash"),
        maybe_moment("paused_at"), maybe_text("pause_reason"), new_flag("rollback_on_stop"),
        maybe_text("stop_requested_by"), maybe_text("approval"), new_flag("gated"),
        maybe_text("paused_step"), maybe_text("zonal"),
        UniqueConstraint("id"),
    )  # fmt: skip
    Index(
        "deployments_of_group", deployments.c.application, deployments.c.deployment_group,
        deployments.c.number,
    )  # fmt: skip
    # in_service: users reach it now; from_service: they did when it was admitted.
    targets = Table(
        "targets", metadata, key("deployment_id"), key("name"), integer("position"),
        integer("stage"), text("zone"), indexed("status"), flag("staged"), flag("changed"),
        flag("in_service"), flag("from_service"), maybe_text("error_code"),
        text("message"), maybe_moment("started_at"), maybe_moment("finished_at"),
    )  # fmt: skip
    # All that an admission counts by, so that it reads the index alone.
    Index(
        "targets_tally", targets.c.deployment_id, targets.c.stage, targets.c.status,
        targets.c.in_service, targets.c.from_service, targets.c.changed, targets.c.finished_at,
    )  # fmt: skip
    events = Table(
        "events", metadata, key("deployment_id"), number_key("sequence"),
        text("kind"), indexed("target"), text("event"), text("status"), moment("at"),
        maybe_moment("started"), maybe_moment("ended"),
        maybe_text("error_code"), maybe_text("script"), text("message"), text("log"),
    )  # fmt: skip
    Index("events_of_target", events.c.deployment_id, events.c.target, events.c.sequence)
    Table(
        "routing_changes", metadata, key("deployment_id"), number_key("sequence"), moment("at"),
        text("provider"), text("target"), text("state"), text("before"), text("after"),
        moment("waited"),
    )  # fmt: skip
    Table(
        "gate_decisions", metadata, key("deployment_id"), number_key("sequence"), moment("at"),
        text("target"), text("gate"), text("verdict"), text("data"), text("message"),
        text("step"), integer("round"),
    )  # fmt: skip
    # One row a step whose gates are or were asked, with the one who asks them (see _gating).
    Table(
        "gate_runs", metadata, key("deployment_id"), key("step"), moment("started_at"),
        moment("until"), integer("round"), text("verdict"), text("message"),
        maybe_text("holder"), maybe_integer("fence"), maybe_moment("claimed_until"),
        text("waits_for"),
    )  # fmt: skip
    # One row a deployment with alarms: when they are to be looked at next, and what was seen.
    Table(
        "alarm_polls", metadata, key("deployment_id"), moment("next_at"), maybe_moment("polled_at"),
        integer("failures"), text("states"),
    )  # fmt: skip
    # step: of an approval that was asked for by a step and not by a stage. status: Waiting,
    # Approved, Rejected or TimedOut.
    Table(
        "approvals", metadata, key("deployment_id"), number_key("number"), integer("stage"),
        moment("asked_at"), maybe_moment("until"), text("status"), maybe_moment("decided_at"),
        maybe_text("decided_by"), maybe_text("decided_from"), text("why"), maybe_text("step"),
    )  # fmt: skip
    # What is suspended for a deployment and is to be resumed; processes is a list.
    Table(
        "scaling", metadata, key("deployment_id"), key("scaling_group"), key("region"),
        text("processes"), moment("at"),
    )  # fmt: skip
    # status: Sending (claimant is who does it), Sent or Failed.
    Table(
        "notifications", metadata, key("deployment_id"), number_key("sequence"), key("event"),
        key("channel"), text("status"), moment("at"), text("claimant"), text("message"),
    )  # fmt: skip
    # One row a step of a deployment's schedule: Pending, InProgress, Succeeded, Failed or Skipped.
    Table(
        "steps", metadata, key("deployment_id"), number_key("number"), text("part"), text("kind"),
        text("told"), text("status"), maybe_moment("started_at"), maybe_moment("ended_at"),
        text("message"),
    )  # fmt: skip
    # registered: where a revision was pushed to, and what it is called, as JSON.
    Table(
        "revisions", metadata, key("application"), key("digest"), moment("first_seen_at"),
        flag("bad"), text("why"), maybe_text("registered"),
    )  # fmt: skip
    Table(
        "target_states", metadata, key("application"), key("deployment_group"), key("target"),
        text("health"), maybe_text("digest"), maybe_text("deployment_id"), moment("updated_at"),
    )  # fmt: skip
    bundles = Table(
        "bundles", metadata, key("application"), key("deployment_group"), key("target"),
        key("digest"), moment("delivered_at"),
    )  # fmt: skip
    Index("bundles_of_digest", bundles.c.digest)
    # The versions of a Lambda function that a deployment moves its alias between.
    Table(
        "function_versions", metadata, key("deployment_id"), key("target"), text("function"),
        text("alias"), maybe_text("old_version"), text("version"), text("code_sha256"),
        text("digest"), moment("at"),
    )  # fmt: skip
    # What the workers of a deployment ask and order together; gone when it has ended.
    Table(
        "shared_looks", metadata, key("deployment_id"), key("subject"), integer("turn"),
        integer("answered"), text("answer"), moment("asked_at"), moment("answered_at"),
        maybe_text("claimed_by"), moment("claimed_until"), integer("claimed_fence"),
    )  # fmt: skip
    Table(
        "shared_orders", metadata, key("deployment_id"), key("id"), text("subject"), text("kind"),
        text("items"), text("status"), text("message"), integer("turn"), integer("fence"),
        moment("valid_until"),
    )  # fmt: skip
    # Only ever added to; each line holds the hash of the one before in its chain.
    Table(
        "audit", metadata, key("chain"), number_key("sequence"), moment("at"), text("actor"),
        text("origin"), text("action"), text("application"), text("deployment_group"),
        text("deployment_id"), text("target"), text("digest"), text("plan_hash"), text("why"),
        text("detail"), text("previous_hash"), text("hash"),
    )  # fmt: skip
    Table("audit_heads", metadata, key("chain"), integer("length"), text("hash"))
    return metadata
