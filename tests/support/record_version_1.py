"""A record as the first version of Bascule made it, with an interrupted deployment in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

TABLES = (
    "CREATE TABLE active (application TEXT NOT NULL, deployment_group TEXT NOT NULL, "
    "deployment_id TEXT NOT NULL, since {double} NOT NULL, "
    "PRIMARY KEY (application, deployment_group))",
    "CREATE TABLE bundles (application TEXT NOT NULL, deployment_group TEXT NOT NULL, "
    "target TEXT NOT NULL, digest TEXT NOT NULL, delivered_at {double} NOT NULL, "
    "PRIMARY KEY (application, deployment_group, target, digest))",
    "CREATE TABLE deployments (number {serial} NOT NULL, id TEXT NOT NULL, "
    "application TEXT NOT NULL, deployment_group TEXT NOT NULL, strategy TEXT NOT NULL, "
    "status TEXT NOT NULL, creator TEXT NOT NULL, description TEXT NOT NULL, "
    "digest TEXT NOT NULL, revision TEXT NOT NULL, previous_digest TEXT, rollback_of TEXT, "
    "rolled_back_by TEXT, error_code TEXT, error_message TEXT NOT NULL, halted_at {double}, "
    '"plan" TEXT NOT NULL, options TEXT NOT NULL, mode TEXT NOT NULL, total INTEGER NOT NULL, '
    "minimum_healthy INTEGER NOT NULL, bake_time {double} NOT NULL, "
    "last_sequence INTEGER NOT NULL, created_at {double} NOT NULL, finished_at {double}, "
    "started_by TEXT NOT NULL, started_from TEXT NOT NULL, PRIMARY KEY (number), UNIQUE (id))",
    "CREATE TABLE events (deployment_id TEXT NOT NULL, sequence INTEGER NOT NULL, "
    "kind TEXT NOT NULL, target TEXT NOT NULL, event TEXT NOT NULL, status TEXT NOT NULL, "
    "at {double} NOT NULL, started {double}, ended {double}, error_code TEXT, script TEXT, "
    "message TEXT NOT NULL, log TEXT NOT NULL, PRIMARY KEY (deployment_id, sequence))",
    "CREATE TABLE groups (application TEXT NOT NULL, deployment_group TEXT NOT NULL, "
    "digest TEXT, deployment_id TEXT, updated_at {double} NOT NULL, "
    "PRIMARY KEY (application, deployment_group))",
    "CREATE TABLE revisions (application TEXT NOT NULL, digest TEXT NOT NULL, "
    "first_seen_at {double} NOT NULL, bad BOOLEAN NOT NULL, why TEXT NOT NULL, "
    "PRIMARY KEY (application, digest))",
    "CREATE TABLE schema_version (version INTEGER NOT NULL)",
    "CREATE TABLE target_states (application TEXT NOT NULL, deployment_group TEXT NOT NULL, "
    "target TEXT NOT NULL, health TEXT NOT NULL, digest TEXT, deployment_id TEXT, "
    "updated_at {double} NOT NULL, PRIMARY KEY (application, deployment_group, target))",
    "CREATE TABLE targets (deployment_id TEXT NOT NULL, name TEXT NOT NULL, "
    "position INTEGER NOT NULL, stage INTEGER NOT NULL, zone TEXT NOT NULL, "
    "status TEXT NOT NULL, staged BOOLEAN NOT NULL, changed BOOLEAN NOT NULL, "
    "in_service BOOLEAN NOT NULL, from_service BOOLEAN NOT NULL, error_code TEXT, "
    "message TEXT NOT NULL, started_at {double}, finished_at {double}, "
    "PRIMARY KEY (deployment_id, name))",
    "CREATE INDEX bundles_of_digest ON bundles (digest)",
    "CREATE INDEX deployments_of_group ON deployments (application, deployment_group, number)",
    "CREATE INDEX events_of_target ON events (deployment_id, target, sequence)",
    "CREATE INDEX targets_tally ON targets (deployment_id, stage, status, in_service, "
    "from_service, changed, finished_at)",
    "INSERT INTO schema_version VALUES (1)",
)
PLAN = {"mode": "forward", "total": 2, "targets": [], "stages": [["a", "b"]]}
REVISION = {"digest": "0" * 64, "source": "./bundle"}


def _deployment(name: str, status: str, at: float, number: int) -> dict[str, Any]:
    ended = status == "Succeeded"
    return {
        "id": name, "application": "shop", "deployment_group": "web", "strategy": "rolling",
        "status": status, "creator": "user", "description": "of version 1",
        "digest": "0" * 64, "revision": json.dumps(REVISION), "previous_digest": None,
        "rollback_of": None, "rolled_back_by": None, "error_code": None, "error_message": "",
        "halted_at": None, "plan": json.dumps(PLAN), "options": "{}", "mode": "forward",
        "total": 2, "minimum_healthy": 0, "bake_time": 0.0, "last_sequence": number,
        "created_at": at, "finished_at": at + 9 if ended else None, "started_by": "ada",
        "started_from": "ci-7",
    }  # fmt: skip


def _target(name: str, position: int, status: str) -> dict[str, Any]:
    return {
        "deployment_id": "d-INTERRUPT", "name": name, "position": position, "stage": 0,
        "zone": "", "status": status, "staged": True, "changed": False, "in_service": True,
        "from_service": True, "error_code": None, "message": "", "started_at": 110.0,
        "finished_at": None,
    }  # fmt: skip


GROUP = {"application": "shop", "deployment_group": "web"}
ROWS: dict[str, list[dict[str, Any]]] = {
    "active": [{**GROUP, "deployment_id": "d-INTERRUPT", "since": 100.0}],
    "deployments": [
        _deployment("d-SUCCEEDED", "Succeeded", 50.0, 0),
        _deployment("d-INTERRUPT", "InProgress", 100.0, 1),
    ],
    "targets": [_target("a", 0, "InProgress"), _target("b", 1, "Pending")],
    "events": [
        {
            "deployment_id": "d-INTERRUPT", "sequence": 1, "kind": "record", "target": "",
            "event": "Created", "status": "Created", "at": 100.0, "started": None, "ended": None,
            "error_code": None, "script": None, "message": "größer", "log": "",
        }
    ],
    "groups": [
        {**GROUP, "digest": "0" * 64, "deployment_id": "d-SUCCEEDED", "updated_at": 59.0}
    ],
    "revisions": [
        {
            "application": "shop", "digest": "0" * 64, "first_seen_at": 50.0, "bad": True,
            "why": "slow",
        }
    ],
    "target_states": [
        {
            **GROUP, "target": "a", "health": "Healthy", "digest": "0" * 64,
            "deployment_id": "d-SUCCEEDED", "updated_at": 59.0,
        }
    ],
    "bundles": [{**GROUP, "target": "a", "digest": "0" * 64, "delivered_at": 55.0}],
}  # fmt: skip


def make(execute: Callable[[str, tuple[Any, ...]], object], *, server: bool, mark: str) -> None:
    """Make the tables and fill them; ``mark`` is how the database writes a value's place."""
    kinds = {"double": "DOUBLE", "serial": "INTEGER"}
    if server:
        kinds = {"double": "DOUBLE PRECISION", "serial": "SERIAL"}
    for statement in TABLES:
        execute(statement.format(**kinds), ())
    for table, rows in ROWS.items():
        for row in rows:
            places = ", ".join([mark] * len(row))
            execute(
                f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})",  # noqa: S608
                tuple(row.values()),
            )
