# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Version 2: leases, pauses and approvals, routing changes, gate decisions, steps and the audit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .._audit import begin
from .._columns import (
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
from .._statements import insert
from .._triggers import append_only

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from alembic.operations import Operations
    from sqlalchemy import Column, Connection


def upgrade(operations: Operations) -> None:
    """Add columns to the tables of version 1, and new tables."""
    add, make = operations.add_column, operations.create_table
    holder: list[Column[Any]] = [
        maybe_text("holder"), maybe_text("holder_host"), maybe_text("holder_boot"),
        maybe_integer("holder_pid"), maybe_moment("holder_started"), maybe_moment("heartbeat_at"),
        maybe_moment("expires_at"),
    ]  # fmt: skip
    for column in holder:
        add("active", column)
    control: list[Column[Any]] = [
        integer("fence", default=1), maybe_text("plan_hash"), maybe_moment("paused_at"),
        maybe_text("pause_reason"), new_flag("rollback_on_stop"), maybe_text("stop_requested_by"),
        maybe_text("approval"), new_flag("gated"),
        maybe_text("paused_step"), maybe_text("zonal"),
    ]  # fmt: skip
    for column in control:
        add("deployments", column)
    add("revisions", maybe_text("registered"))
    make("applications", key("application"), moment("created_at"))
    operations.execute(
        "INSERT INTO applications (application, created_at) "
        "SELECT application, min(created_at) FROM deployments GROUP BY application"
    )
    make(
        "routing_changes", key("deployment_id"), number_key("sequence"), moment("at"),
        text("provider"), text("target"), text("state"), text("before"), text("after"),
        moment("waited"),
    )  # fmt: skip
    make(
        "gate_decisions", key("deployment_id"), number_key("sequence"), moment("at"),
        text("target"), text("gate"), text("verdict"), text("data"), text("message"),
        text("step"), integer("round"),
    )  # fmt: skip
    make(
        "gate_runs", key("deployment_id"), key("step"), moment("started_at"), moment("until"),
        integer("round"), text("verdict"), text("message"), maybe_text("holder"),
        maybe_integer("fence"), maybe_moment("claimed_until"), text("waits_for"),
    )  # fmt: skip
    make(
        "alarm_polls", key("deployment_id"), moment("next_at"), maybe_moment("polled_at"),
        integer("failures"), text("states"),
    )  # fmt: skip
    make(
        "approvals", key("deployment_id"), number_key("number"), integer("stage"),
        moment("asked_at"), maybe_moment("until"), text("status"), maybe_moment("decided_at"),
        maybe_text("decided_by"), maybe_text("decided_from"), text("why"), maybe_text("step"),
    )  # fmt: skip
    make(
        "scaling", key("deployment_id"), key("scaling_group"), key("region"), text("processes"),
        moment("at"),
    )  # fmt: skip
    make(
        "notifications", key("deployment_id"), number_key("sequence"), key("event"),
        key("channel"), text("status"), moment("at"), text("claimant"), text("message"),
    )  # fmt: skip
    make(
        "shared_looks", key("deployment_id"), key("subject"), integer("turn"), integer("answered"),
        text("answer"), moment("asked_at"), moment("answered_at"), maybe_text("claimed_by"),
        moment("claimed_until"), integer("claimed_fence"),
    )  # fmt: skip
    make(
        "shared_orders", key("deployment_id"), key("id"), text("subject"), text("kind"),
        text("items"), text("status"), text("message"), integer("turn"), integer("fence"),
        moment("valid_until"),
    )  # fmt: skip
    make(
        "steps", key("deployment_id"), number_key("number"), text("part"), text("kind"),
        text("told"), text("status"), maybe_moment("started_at"), maybe_moment("ended_at"),
        text("message"),
    )  # fmt: skip
    make(
        "audit", key("chain"), number_key("sequence"), moment("at"), text("actor"),
        text("origin"), text("action"), text("application"), text("deployment_group"),
        text("deployment_id"), text("target"), text("digest"), text("plan_hash"), text("why"),
        text("detail"), text("previous_hash"), text("hash"),
    )  # fmt: skip
    make(
        "function_versions", key("deployment_id"), key("target"), text("function"),
        text("alias"), maybe_text("old_version"), text("version"), text("code_sha256"),
        text("digest"), moment("at"),
    )  # fmt: skip
    make("audit_heads", key("chain"), integer("length"), text("hash"))
    connection = operations.get_bind()
    for statement in append_only(connection.dialect.name):
        connection.exec_driver_sql(statement)
    _begin_audit(operations)


def _begin_audit(operations: Operations) -> None:
    """Tell of this migration, and how many deployments there were that the audit does not know."""
    from sqlalchemy import text as statement

    connection = operations.get_bind()
    newest = connection.execute(statement("SELECT coalesce(max(number), 0) FROM deployments"))
    detail = {"from": 1, "version": 2, "deployments": newest.scalar_one()}
    begin(_Inserts(connection), "RecordUpgraded", time.time(), detail)


class _Inserts:
    """Adds rows to tables."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows, all with the same columns."""
        from sqlalchemy import text as statement

        self._connection.execute(statement(insert(table, rows[0])), [dict(row) for row in rows])
