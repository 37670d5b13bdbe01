"""What staging says of targets that a deployment was done with before it was interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.bascule.deploy.plugins.action.stage import ActionModule
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from support.records import create

if TYPE_CHECKING:
    from pathlib import Path


def test_a_target_is_told_as_it_had_ended(tmp_path: Path) -> None:
    record = Record.open(f"sqlite:///{tmp_path}/record.db")
    deployment = create(record, ["done", "dead", "begun", "waiting"])
    assert record.admit(deployment.id, "done").verdict == "admitted"
    record.settle(deployment.id, "done", "Succeeded")
    record.settle(deployment.id, "dead", "Failed", error_code="host", message="no answer")
    assert record.admit(deployment.id, "begun").verdict == "admitted"
    # Without a play: only the record decides here.
    action = ActionModule.__new__(ActionModule)
    said = {
        name: action._decided(deployment.id, name, record)
        for name in ("done", "dead", "begun", "waiting")
    }
    assert said["done"] is not None
    assert said["done"]["current"]
    assert said["dead"] is not None
    assert said["dead"]["failed"]
    assert said["dead"]["msg"] == "Failed before the interruption: no answer"
    assert said["dead"]["error"] == {"kind": "host"}
    assert said["begun"] is None
    assert said["waiting"] is None
