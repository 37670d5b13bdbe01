# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of the record.

Only portable types: texts, integers, floats (seconds since the epoch) and JSON as text, so that a
row means the same however it is read.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables, by name."""

    metadata: MetaData
    schema_version: Table
    groups: Table
    active: Table
    deployments: Table
    targets: Table
    events: Table
    revisions: Table
    target_states: Table
    bundles: Table


@functools.cache
def tables() -> Tables:
    """Build the tables (once a process; children that are forked later inherit them)."""
    from sqlalchemy import (
        Boolean,
        Column,
        Double,
        Index,
        Integer,
        MetaData,
        Table,
        Text,
        UniqueConstraint,
    )

    metadata = MetaData()

    def text(name: str) -> Column[str]:
        return Column(name, Text, nullable=False)

    def key(name: str) -> Column[str]:
        return Column(name, Text, primary_key=True)

    def maybe_text(name: str) -> Column[str]:
        return Column(name, Text)

    def integer(name: str) -> Column[int]:
        return Column(name, Integer, nullable=False)

    def flag(name: str, *, default: bool = False) -> Column[bool]:
        return Column(name, Boolean, nullable=False, default=default)

    def moment(name: str, *, nullable: bool = False) -> Column[float]:
        return Column(name, Double, nullable=nullable)

    schema_version = Table("schema_version", metadata, Column("version", Integer, nullable=False))
    groups = Table(
        "groups", metadata, key("application"), key("deployment_group"), maybe_text("digest"),
        maybe_text("deployment_id"), moment("updated_at"),
    )  # fmt: skip
    # One row a group with a deployment that has not ended. The primary key is the lock.
    active = Table(
        "active", metadata, key("application"), key("deployment_group"), text("deployment_id"),
        moment("since"),
    )  # fmt: skip
    deployments = Table(
        "deployments", metadata,
        Column("number", Integer, primary_key=True, autoincrement=True),
        text("id"), text("application"), text("deployment_group"), text("strategy"),
        text("status"), text("creator"), text("description"), text("digest"), text("revision"),
        maybe_text("previous_digest"), maybe_text("rollback_of"), maybe_text("rolled_back_by"),
        maybe_text("error_code"), text("error_message"), moment("halted_at", nullable=True),
        text("plan"), text("options"), text("mode"), integer("total"),
        integer("minimum_healthy"), moment("bake_time"), integer("last_sequence"),
        moment("created_at"), moment("finished_at", nullable=True), text("started_by"),
        text("started_from"), UniqueConstraint("id"),
    )  # fmt: skip
    Index(
        "deployments_of_group", deployments.c.application, deployments.c.deployment_group,
        deployments.c.number,
    )  # fmt: skip
    # in_service: users reach it now; from_service: they did when it was admitted.
    targets = Table(
        "targets", metadata, key("deployment_id"), key("name"), integer("position"),
        integer("stage"), text("zone"), text("status"), flag("staged"), flag("changed"),
        flag("in_service", default=True), flag("from_service"), maybe_text("error_code"),
        text("message"), moment("started_at", nullable=True),
        moment("finished_at", nullable=True),
    )  # fmt: skip
    events = Table(
        "events", metadata,
        Column("deployment_id", Text, primary_key=True),
        Column("sequence", Integer, primary_key=True, autoincrement=False),
        text("kind"), text("target"), text("event"), text("status"), moment("at"),
        moment("started", nullable=True), moment("ended", nullable=True),
        maybe_text("error_code"), maybe_text("script"), text("message"), text("log"),
    )  # fmt: skip
    Index("events_of_target", events.c.deployment_id, events.c.target, events.c.sequence)
    revisions = Table(
        "revisions", metadata, key("application"), key("digest"), moment("first_seen_at"),
        flag("bad"), text("why"),
    )  # fmt: skip
    target_states = Table(
        "target_states", metadata, key("application"), key("deployment_group"), key("target"),
        text("health"), maybe_text("digest"), maybe_text("deployment_id"), moment("updated_at"),
    )  # fmt: skip
    bundles = Table(
        "bundles", metadata, key("application"), key("deployment_group"), key("target"),
        key("digest"), moment("delivered_at"),
    )  # fmt: skip
    Index("bundles_of_digest", bundles.c.digest)
    return Tables(
        metadata, schema_version, groups, active, deployments, targets, events, revisions,
        target_states, bundles,
    )  # fmt: skip
