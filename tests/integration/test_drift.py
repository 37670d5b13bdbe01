"""``bascule drift`` on a fleet of local targets, and the same by the playbook alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.bundles import files
from support.rollout import local_inventory

import bascule
from bascule import UsageError
from bascule.cli import main

PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
HOSTS = ("one", "two")
VARIABLES = {"deploy_application": "shop", "deploy_targets": "web", "deploy_group": "web"}


class Fleet:
    """Two local targets with a revision on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sysroots = {name: folder / "hosts" / name for name in HOSTS}
        for sysroot in self.sysroots.values():
            sysroot.mkdir(parents=True)
        self.inventory = local_inventory(folder / "hosts.yml", self.sysroots)
        self.record = f"sqlite:///{folder / 'state' / 'record.db'}"

    def deploy(self, version: str) -> bascule.Deployment:
        done = bascule.deploy(
            "rolling",
            revision=files(self.folder / version, {"VERSION": f"{version}\n"}),
            variables=VARIABLES,
            inventory=self.inventory,
            record=self.record,
        )
        done.raise_for_status()
        return done

    def drift(self) -> dict[str, bascule.TargetDrift]:
        found = bascule.drift("shop/web", inventory=self.inventory, record=self.record)
        return {one.target: one for one in found}

    def version(self, host: str) -> Path:
        return self.sysroots[host] / "opt" / "files" / "VERSION"


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setenv("BASCULE_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return Fleet(tmp_path)


def test_drift_is_found_where_it_is_and_goes_with_the_next_deployment(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.deploy("v1")
    assert {one.status for one in fleet.drift().values()} == {"InSync"}
    fleet.version("two").write_text("v9\n")
    found = fleet.drift()
    assert found["one"].status == "InSync"
    assert [(one.kind, Path(one.path)) for one in found["two"].findings] == [
        ("content", fleet.version("two"))
    ]
    arguments = ["drift", "web", "-i", str(fleet.inventory), "--record", fleet.record]
    assert main(arguments) == 1
    text = capsys.readouterr().out
    assert "one: InSync" in text
    assert "two: Drifted, 1 difference:" in text
    assert main([*arguments, "--format", "json"]) == 1
    told: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [one["status"] for one in told] == ["InSync", "Drifted"]
    fleet.deploy("v2")
    assert main(arguments) == 0


def test_the_playbook_alone_fails_where_there_is_drift(fleet: Fleet) -> None:
    fleet.deploy("v1")
    fleet.version("one").unlink()
    command = [
        str(PLAYBOOK), "-i", str(fleet.inventory), "bascule.deploy.drift",
        "-e", json.dumps({**VARIABLES, "deploy_record": fleet.record}),
    ]  # fmt: skip
    from bascule._environment import environment

    settings = {**os.environ, **environment(folder=fleet.folder, given={}, record=fleet.record)}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    assert run.returncode == 2, run.stdout + run.stderr
    assert "missing" in run.stdout
    assert "is gone" in run.stdout


def test_a_host_that_cannot_be_asked_is_unknown(fleet: Fleet) -> None:
    fleet.deploy("v1")
    inventory = fleet.folder / "dead.yml"
    hosts = json.loads(fleet.inventory.read_text())
    two = hosts["all"]["children"]["web"]["hosts"]["two"]
    two["ansible_python_interpreter"] = "/nowhere/python"
    inventory.write_text(json.dumps(hosts))
    found = bascule.drift("shop/web", inventory=inventory, record=fleet.record)
    status = {one.target: one.status for one in found}
    assert status == {"one": "InSync", "two": "Unknown"}, [one.message for one in found]


def test_a_group_without_deployments_is_refused(fleet: Fleet) -> None:
    with pytest.raises(UsageError, match="no deployment group shop/web"):
        fleet.drift()
