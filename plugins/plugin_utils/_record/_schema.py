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

if TYPE_CHECKING:
    from sqlalchemy import Column, MetaData

SCHEMA_VERSION = 1


def check_version(shown: str, version: int | None) -> None:
    """Refuse a record that another version of Bascule has written; ``shown`` is its address."""
    if version != SCHEMA_VERSION:
        raise RecordError(
            f"The record {shown} has version {version}, this Bascule works with version "
            f"{SCHEMA_VERSION}. Use the Bascule that wrote it, or name another record with "
            "BASCULE_RECORD."
        )


def sqlite_schema() -> list[str]:
    """Return the statements that make the tables in SQLite."""
    from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
    from sqlalchemy.schema import CreateIndex, CreateTable

    dialect = SQLiteDialect_pysqlite()
    made = metadata().sorted_tables
    statements: list[CreateTable | CreateIndex] = [CreateTable(table) for table in made]
    statements += [CreateIndex(index) for table in made for index in table.indexes]
    return [str(statement.compile(dialect=dialect)) for statement in statements]


@functools.cache
def metadata() -> MetaData:
    """Describe the tables (once a process)."""
    from sqlalchemy import (
        Boolean,
        Column,
        Double,
        Index,
        Integer,
        MetaData,
        String,
        Table,
        Text,
        UniqueConstraint,
    )  # fmt: skip

    metadata = MetaData()

    # MySQL has no keys of unlimited length.
    key_text = Text().with_variant(String(190), "mysql", "mariadb")

    def text(name: str) -> Column[str]:
        return Column(name, Text, nullable=False)

    def key(name: str) -> Column[str]:
        return Column(name, key_text, primary_key=True)

    def indexed(name: str) -> Column[str]:
        return Column(name, key_text, nullable=False)

    def maybe_text(name: str) -> Column[str]:
        return Column(name, Text)

    def integer(name: str) -> Column[int]:
        return Column(name, Integer, nullable=False)

    def flag(name: str) -> Column[bool]:
        return Column(name, Boolean, nullable=False)

    def moment(name: str, *, nullable: bool = False) -> Column[float]:
        return Column(name, Double, nullable=nullable)

    Table("schema_version", metadata, Column("version", Integer, nullable=False))
    Table(
        "groups", metadata, key("application"), key("deployment_group"), maybe_text("digest"),
        maybe_text("deployment_id"), moment("updated_at"),
    )  # fmt: skip
    # One row a group with a deployment that has not ended. The primary key is the lock.
    Table(
        "active", metadata, key("application"), key("deployment_group"), text("deployment_id"),
        moment("since"),
    )  # fmt: skip
    deployments = Table(
        "deployments", metadata,
        Column("number", Integer, primary_key=True, autoincrement=True),
        indexed("id"), indexed("application"), indexed("deployment_group"), text("strategy"),
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
        integer("stage"), text("zone"), indexed("status"), flag("staged"), flag("changed"),
        flag("in_service"), flag("from_service"), maybe_text("error_code"),
        text("message"), moment("started_at", nullable=True),
        moment("finished_at", nullable=True),
    )  # fmt: skip
    # All that an admission counts by, so that it reads the index alone.
    Index(
        "targets_tally", targets.c.deployment_id, targets.c.stage, targets.c.status,
        targets.c.in_service, targets.c.from_service, targets.c.changed, targets.c.finished_at,
    )  # fmt: skip
    events = Table(
        "events", metadata,
        key("deployment_id"),
        Column("sequence", Integer, primary_key=True, autoincrement=False),
        text("kind"), indexed("target"), text("event"), text("status"), moment("at"),
        moment("started", nullable=True), moment("ended", nullable=True),
        maybe_text("error_code"), maybe_text("script"), text("message"), text("log"),
    )  # fmt: skip
    Index("events_of_target", events.c.deployment_id, events.c.target, events.c.sequence)
    Table(
        "revisions", metadata, key("application"), key("digest"), moment("first_seen_at"),
        flag("bad"), text("why"),
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
    return metadata
