"""Whole deployments with Ansible to a target for every Python that is here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from support.pythons import pythons
from support.rollout import Controller, local_inventory

if TYPE_CHECKING:
    from pathlib import Path

APPSPEC = """\
version: 0.0
os: linux
files:
  - {source: web, destination: /srv/app}
permissions:
  - {object: /srv/app, pattern: "*.txt", mode: "0640"}
hooks:
  ApplicationStop: [{location: hook.sh}]
  ValidateService: [{location: hook.sh}]
"""


def revision(folder: Path, version: str) -> Path:
    (folder / "web").mkdir(parents=True)
    (folder / "appspec.yml").write_text(APPSPEC)
    (folder / "web/a.txt").write_text(version)
    (folder / f"web/only-{version}").write_text(version)
    (folder / "hook.sh").write_text(f"#!/bin/sh\necho {version} $LIFECYCLE_EVENT\n")
    (folder / "hook.sh").chmod(0o755)
    return folder


def test_a_target_for_every_python(tmp_path: Path) -> None:
    found = pythons()
    sysroots = {f"python-{version}": tmp_path / f"python-{version}" for version in found}
    inventory = local_inventory(tmp_path / "inventory.json", sysroots)
    data = json.loads(inventory.read_text())
    for version, interpreter in found.items():
        host = data["all"]["children"]["web"]["hosts"][f"python-{version}"]
        host["ansible_python_interpreter"] = interpreter
    inventory.write_text(json.dumps(data))
    controller = Controller(
        inventory,
        tmp_path / "state",
        {
            "deploy_application": "app",
            "deploy_targets": "web",
            "deploy_configuration": "CodeDeployDefault.AllAtOnce",
        },
    )
    for version in ("v1", "v2"):
        done = controller.playbook(
            "in_place", deploy_revision=revision(tmp_path / version, version)
        )
        assert done.status == 0, done.said
        assert done.changed
    for sysroot in sysroots.values():
        names = sorted(path.name for path in (sysroot / "srv/app").iterdir())
        assert (sysroot.name, names) == (sysroot.name, ["a.txt", "only-v2"])
        assert (sysroot / "srv/app/a.txt").stat().st_mode & 0o777 == 0o640
        root = sysroot / "opt/codedeploy-agent/deployment-root"
        logs = "".join(path.read_text() for path in root.glob("*/*/logs/scripts.log"))
        assert "v1 ApplicationStop" in logs
        assert "v2 ValidateService" in logs
