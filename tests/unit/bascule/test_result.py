from __future__ import annotations

import json

import pytest

from bascule import Deployment, DeploymentError, Failure, Revision, Target
from bascule.result import USAGE_KINDS


@pytest.mark.parametrize(
    ("status", "interrupted", "error", "code"),
    [
        ("Succeeded", False, None, 0),
        ("Planned", False, None, 0),
        ("Failed", False, Failure("HEALTH_CONSTRAINTS", "too many"), 1),
        ("Stopped", False, None, 3),
        ("Ready", False, None, 3),
        ("InProgress", False, None, 4),
        ("Baking", False, None, 4),
        ("Created", False, None, 4),
        ("InProgress", True, None, 4),
        ("Refused", True, None, 4),
        ("Refused", False, Failure("host", "out of reach"), 1),
        ("Refused", False, Failure("internal", "a bug"), 1),
        ("Refused", False, None, 1),
        *(("Refused", False, Failure(kind, "no"), 2) for kind in sorted(USAGE_KINDS)),
    ],
)
def test_exit_codes(status: str, interrupted: bool, error: Failure | None, code: int) -> None:
    deployment = Deployment(
        id="d-A", status=status, strategy="rolling", error=error, interrupted=interrupted
    )
    assert deployment.exit_code == code


def test_raise_for_status_says_why_and_keeps_the_deployment() -> None:
    failed = Deployment(
        id="d-A", status="Failed", strategy="rolling", error=Failure("HEALTH_CONSTRAINTS", "no")
    )
    with pytest.raises(DeploymentError, match=r"^d-A: no$") as caught:
        failed.raise_for_status()
    assert caught.value.deployment is failed
    Deployment(id="d-A", status="Succeeded", strategy="rolling").raise_for_status()


def test_json_has_the_documented_fields() -> None:
    deployment = Deployment(
        id="d-A",
        status="Failed",
        strategy="rolling",
        revision=Revision("00" * 32, "./app", "2.0"),
        targets=(Target("web1", "Failed", message="no"),),
        error=Failure("HEALTH_CONSTRAINTS", "no"),
    )
    assert json.loads(json.dumps(deployment.to_dict())) == {
        "id": "d-A",
        "status": "Failed",
        "strategy": "rolling",
        "application": "",
        "group": "",
        "revision": {"digest": "00" * 32, "source": "./app", "description": "2.0"},
        "previous_digest": None,
        "targets": [
            {
                "name": "web1",
                "status": "Failed",
                "changed": None,
                "in_service": None,
                "error_code": None,
                "message": "no",
                "started_at": None,
                "finished_at": None,
            }
        ],
        "overview": {},
        "plan": {},
        "summary": "",
        "rollback_of": None,
        "rolled_back_by": None,
        "error": {"kind": "HEALTH_CONSTRAINTS", "message": "no"},
        "created_at": None,
        "finished_at": None,
        "started_by": "",
        "started_from": "",
        "plan_hash": "",
        "creator": "user",
        "follows": None,
        "paused_at": None,
        "pause_reason": None,
        "stop_requested_by": None,
        "approvals": [],
        "lease": None,
        "gates": [],
        "steps": [],
        "routing": [],
        "alarms": None,
        "unfinished": None,
        "interrupted": False,
        "exit_code": 1,
    }
