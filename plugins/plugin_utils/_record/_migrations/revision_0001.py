# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Version 1: deployments, their targets and events, and what is known between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._columns import (
    counted_key,
    flag,
    indexed,
    integer,
    key,
    maybe_moment,
    maybe_text,
    moment,
    number_key,
    text,
)

if TYPE_CHECKING:
    from alembic.operations import Operations


def upgrade(operations: Operations) -> None:
    """Make the first tables."""
    from sqlalchemy import Column, Integer, UniqueConstraint

    make = operations.create_table
    made = make("schema_version", Column("version", Integer, nullable=False))
    operations.bulk_insert(made, [{"version": 1}])
    make(
        "groups", key("application"), key("deployment_group"), maybe_text("digest"),
        maybe_text("deployment_id"), moment("updated_at"),
    )  # fmt: skip
    make(
        "active", key("application"), key("deployment_group"), text("deployment_id"),
        moment("since"),
    )  # fmt: skip
    make(
        "deployments", counted_key("number"),
        indexed("id"), indexed("application"), indexed("deployment_group"), text("strategy"),
        text("status"), text("creator"), text("description"), text("digest"), text("revision"),
        maybe_text("previous_digest"), maybe_text("rollback_of"), maybe_text("rolled_back_by"),
        maybe_text("error_code"), text("error_message"), maybe_moment("halted_at"),
        text("plan"), text("options"), text("mode"), integer("total"),
        integer("minimum_healthy"), moment("bake_time"), integer("last_sequence"),
        moment("created_at"), maybe_moment("finished_at"), text("started_by"),
        text("started_from"), UniqueConstraint("id"),
    )  # fmt: skip
    make(
        "targets", key("deployment_id"), key("name"), integer("position"),
        integer("stage"), text("zone"), indexed("status"), flag("staged"), flag("changed"),
        flag("in_service"), flag("from_service"), maybe_text("error_code"),
        text("message"), maybe_moment("started_at"), maybe_moment("finished_at"),
    )  # fmt: skip
    make(
        "events", key("deployment_id"), number_key("sequence"),
        text("kind"), indexed("target"), text("event"), text("status"), moment("at"),
        maybe_moment("started"), maybe_moment("ended"),
        maybe_text("error_code"), maybe_text("script"), text("message"), text("log"),
    )  # fmt: skip
    make(
        "revisions", key("application"), key("digest"), moment("first_seen_at"),
        flag("bad"), text("why"),
    )  # fmt: skip
    make(
        "target_states", key("application"), key("deployment_group"), key("target"),
        text("health"), maybe_text("digest"), maybe_text("deployment_id"), moment("updated_at"),
    )  # fmt: skip
    make(
        "bundles", key("application"), key("deployment_group"), key("target"),
        key("digest"), moment("delivered_at"),
    )  # fmt: skip
    for name, table, columns in (
        ("deployments_of_group", "deployments", ["application", "deployment_group", "number"]),
        ("events_of_target", "events", ["deployment_id", "target", "sequence"]),
        ("bundles_of_digest", "bundles", ["digest"]),
        ("targets_tally", "targets", ["deployment_id", "stage", "status", "in_service",
                                      "from_service", "changed", "finished_at"]),
    ):  # fmt: skip
        operations.create_index(name, table, columns)
