"""The Python API and ``bascule deploy`` on real playbooks and local targets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.bundles import files
from support.rollout import local_inventory

import bascule

if TYPE_CHECKING:
    from collections.abc import Callable

    from bascule import Event

BASCULE = Path(sys.executable).parent / "bascule"
HOSTS = ("one", "two", "three")
SECRET = "s3cr3t-of-the-hook"  # noqa: S105  # what the test looks for where it must not be


class Fleet:
    """Three local targets, a record of their own and variables for every run."""

    def __init__(self, folder: Path) -> None:
        self.sysroots = {name: folder / "hosts" / name for name in HOSTS}
        for sysroot in self.sysroots.values():
            sysroot.mkdir(parents=True)
        self.folder = folder
        self.inventory = local_inventory(folder / "hosts.yml", self.sysroots)
        self.record = f"sqlite:///{folder / 'state' / 'record.db'}"
        self.variables = {"deploy_application": "shop", "deploy_targets": "web"}
        self.events: list[Event] = []

    def bundle(self, name: str, hook: str | None = None) -> Path:
        """Make a revision, with a hook after the installation where one is given."""
        hooks = {"AfterInstall": hook} if hook is not None else None
        return files(self.folder / name, {"VERSION": f"{name}\n"}, hooks)

    def deploy(
        self, revision: Path, variables: dict[str, Any] | None = None, **more: Any
    ) -> bascule.Deployment:
        """Deploy to the whole fleet."""
        return bascule.deploy(
            "rolling",
            revision=revision,
            variables={**self.variables, **(variables or {})},
            record=self.record,
            **{"inventory": self.inventory, "on_event": self.events.append, **more},
        )

    def versions(self) -> list[str]:
        """Return what each target has."""
        found = [root / "opt" / "files" / "VERSION" for root in self.sysroots.values()]
        return [path.read_text().strip() if path.exists() else "" for path in found]

    def arguments(self, revision: Path, *more: str) -> list[str]:
        """Return the command line of ``bascule deploy`` for the fleet."""
        given = [f"{name}={value}" for name, value in self.variables.items()]
        return [
            str(BASCULE), "deploy", "rolling", "-i", str(self.inventory), "--record", self.record,
            "--revision", str(revision), *(part for one in given for part in ("-e", one)), *more,
        ]  # fmt: skip


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setenv("BASCULE_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return Fleet(tmp_path)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_deployment_its_events_its_place_in_the_record_and_the_next_plan(fleet: Fleet) -> None:
    deployment = fleet.deploy(fleet.bundle("one.0"))
    deployment.raise_for_status()
    assert (deployment.status, deployment.exit_code) == ("Succeeded", 0)
    assert {target.status for target in deployment.targets} == {"Succeeded"}
    assert fleet.versions() == ["one.0"] * 3
    assert list(deployment.events()) == fleet.events

    kinds = [event.kind for event in fleet.events if event.kind != "started"]
    assert kinds[0] == "opened"
    assert kinds[1:4] == ["staged"] * 3
    assert kinds[-1] == "closed"
    of_one = [
        event.name for event in fleet.events if event.target == "one" and event.kind != "started"
    ]
    assert of_one[:2] == ["stage", "admit"]
    assert of_one[-2:] == ["ValidateService", "settle"]
    assert {event.deployment_id for event in fleet.events if event.target} == {deployment.id}

    (recorded,) = bascule.history("shop/web", record=fleet.record)
    assert (recorded.id, recorded.status) == (deployment.id, "Succeeded")

    plan = bascule.plan(
        "rolling",
        inventory=fleet.inventory,
        revision=fleet.bundle("two.0"),
        variables=fleet.variables,
        record=fleet.record,
    )
    assert (plan.slots, plan.minimum_healthy) == (1, 2)
    assert sorted(name for stage in plan.stages for name in stage) == sorted(HOSTS)
    assert "3 targets" in plan.text
    assert sorted(plan.differences) == sorted(HOSTS)
    for name, difference in plan.differences.items():
        changed = [line for line in difference.splitlines() if "/opt/files/VERSION" in line]
        assert [line[0] for line in changed] == ["-", "+"]
        assert f"/hosts/{name}/" in changed[0]
    assert fleet.versions() == ["one.0"] * 3
    assert len(bascule.history(record=fleet.record)) == 1, "a plan changes nothing"

    again = fleet.deploy(fleet.folder / "one.0")
    assert again.exit_code == 0
    assert [target.changed for target in again.targets] == [False] * 3


def test_what_cannot_begin_is_refused_with_the_reason(fleet: Fleet) -> None:
    missing = fleet.deploy(fleet.folder / "nowhere")
    assert (missing.id, missing.status, missing.exit_code) == (None, "Refused", 2)
    assert missing.error is not None
    assert (missing.error.kind, "nowhere" in missing.error.message) == ("revision", True)
    unknown = fleet.deploy(fleet.bundle("one.0"), {"deploy_aplication": "shop"})
    assert unknown.exit_code == 2
    assert unknown.error is not None
    assert "deploy_application" in unknown.error.message
    with pytest.raises(bascule.UsageError, match="There is no strategy yolo"):
        bascule.deploy("yolo")
    assert fleet.versions() == [""] * 3
    assert bascule.history(record=fleet.record) == []


def test_an_inventory_that_ansible_cannot_read_is_refused_with_its_words(fleet: Fleet) -> None:
    fleet.inventory.write_text("all: [not, an, inventory\n")
    done = fleet.deploy(fleet.bundle("one.0"))
    assert done.exit_code == 2
    assert done.error is not None
    assert done.error.message


def test_an_observer_that_fails_does_not_leave_the_fleet_half_deployed(fleet: Fleet) -> None:
    def fail(event: Event) -> None:
        raise ValueError(event.kind)

    with pytest.raises(ValueError, match="started"):
        fleet.deploy(fleet.bundle("one.0"), on_event=fail)
    assert fleet.versions() == ["one.0"] * 3
    assert bascule.history(record=fleet.record)[0].status == "Succeeded"


def test_a_failure_is_rolled_back_and_so_is_what_a_person_asks_for(fleet: Fleet) -> None:
    good = fleet.deploy(fleet.bundle("one.0"))
    bad = fleet.deploy(fleet.bundle("bad", "echo 'no such table'; exit 3\n"))
    assert (bad.status, bad.exit_code) == ("Failed", 1)
    assert bad.error is not None
    assert bad.error.kind == "HEALTH_CONSTRAINTS"
    with pytest.raises(bascule.DeploymentError):
        bad.raise_for_status()
    failed = next(
        event for event in bad.events() if event.kind == "lifecycle" and event.status == "Failed"
    )
    assert "no such table" in str(failed.data["log"])
    assert bad.rolled_back_by is not None
    came_back = bascule.status(bad.rolled_back_by, record=fleet.record)
    assert (came_back.status, came_back.rollback_of) == ("Succeeded", bad.id)
    assert came_back.revision.digest == good.revision.digest
    assert fleet.versions() == ["one.0"] * 3

    fleet.deploy(fleet.bundle("two.0")).raise_for_status()
    back = bascule.rollback("web", inventory=fleet.inventory, record=fleet.record)
    assert (back.status, back.strategy) == ("Succeeded", "rollback")
    assert fleet.versions() == ["one.0"] * 3
    undone = bascule.rollback(str(back.id), inventory=fleet.inventory, record=fleet.record)
    undone.raise_for_status()
    assert fleet.versions() == ["two.0"] * 3


def test_cancel_leaves_a_deployment_that_can_be_given_up(fleet: Fleet) -> None:
    cancelled = threading.Event()

    def watch(event: Event) -> None:
        if event.kind == "admitted":
            cancelled.set()

    deployment = fleet.deploy(
        fleet.bundle("slow", "sleep 2\n"), on_event=watch, cancel=cancelled.is_set
    )
    assert deployment.interrupted
    assert deployment.exit_code == 4
    assert deployment.status == "InProgress"
    ended = bascule.abandon(str(deployment.id), why="a test", record=fleet.record)
    assert ended.status == "Stopped"


def test_an_interrupt_from_the_keyboard_is_status_4_and_can_be_gone_on_with(fleet: Fleet) -> None:
    go = fleet.folder / "go"
    process = subprocess.Popen(
        fleet.arguments(fleet.bundle("slow", f"test -e {go} || sleep 2\n")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(
            lambda: bool(
                (found := bascule.history(record=fleet.record))
                and bascule.status(str(found[0].id), record=fleet.record).overview.get("InProgress")
            )
        )
        process.send_signal(signal.SIGINT)
        _out, said = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait(timeout=300)
    identifier = str(bascule.history(record=fleet.record)[0].id)
    assert process.returncode == 4
    assert f"`bascule resume {identifier}`" in said
    assert f"`bascule abandon {identifier}`" in said
    assert "Traceback" not in said

    go.touch()
    done = subprocess.run(
        [BASCULE, "resume", identifier, "-i", fleet.inventory, "--record", fleet.record],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{identifier}  Succeeded")
    assert fleet.versions() == ["slow"] * 3
    again = bascule.resume(identifier, inventory=fleet.inventory, record=fleet.record)
    assert again.exit_code == 2
    assert again.error is not None
    assert "has ended as Succeeded" in again.error.message


def test_variables_never_appear_in_the_list_of_processes(fleet: Fleet) -> None:
    seen: set[str] = set()
    modes: set[int] = set()

    def look(event: Event) -> None:
        if event.kind != "started" or event.name != "lifecycle":
            return
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "ansible-playbook" in command and str(fleet.inventory) in command:
                seen.add(command)
                given = next(part for part in command.split("\0") if part.startswith("@"))
                modes.add(Path(given[1:]).stat().st_mode & 0o777)

    secret = {"deploy_hook_environment": {"PASSWORD": SECRET}}
    hook = f'test "$PASSWORD" = {SECRET}\n'
    fleet.deploy(fleet.bundle("one.0", hook), secret, on_event=look).raise_for_status()
    assert seen
    assert not any(SECRET in command for command in seen)
    assert modes == {0o600}


def test_the_command_keeps_its_outcome_apart_from_its_steps(fleet: Fleet) -> None:
    done = subprocess.run(
        fleet.arguments(fleet.bundle("one.0")),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    (outcome,) = done.stdout.splitlines()
    identifier = bascule.history(record=fleet.record)[0].id
    assert done.returncode == 0
    assert outcome.startswith(f"{identifier}  Succeeded in ")
    assert outcome.endswith("3 of 3 targets")
    assert "one    ValidateService Succeeded" in done.stderr
    again = subprocess.run(
        fleet.arguments(fleet.folder / "one.0", "--format", "json"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "BASCULE_DEBUG": "1"},
    )
    assert (again.returncode, again.stderr) == (0, "")
    told = json.loads(again.stdout)
    assert (told["status"], told["exit_code"]) == ("Succeeded", 0)
    assert [target["changed"] for target in told["targets"]] == [False] * 3


def test_one_zone_after_the_other_in_an_inventory_that_is_a_mapping(fleet: Fleet) -> None:
    inventory = json.loads(fleet.inventory.read_text())
    hosts = inventory["all"]["children"]["web"]["hosts"]
    for name, zone in zip(HOSTS, ("eu-1b", "eu-1a", "eu-1b"), strict=True):
        hosts[name]["deploy_zone"] = zone
    fleet.inventory.unlink()
    own = {
        "minimumHealthyHosts": {"type": "HOST_COUNT", "value": 0},
        "zonalConfig": {"firstZoneMonitorDurationInSeconds": 1},
    }
    done = fleet.deploy(fleet.bundle("1.0"), {"deploy_configuration": own}, inventory=inventory)
    assert done.status == "Succeeded"
    zones = done.plan["zonal"]
    assert [zone["name"] for zone in zones["zones"]] == ["eu-1b", "eu-1a"]
    assert zones["waits"] == [1.0, 0.0]
    took = {one.name: (one.started_at or 0.0, one.finished_at or 0.0) for one in done.targets}
    assert took["two"][0] >= max(took["one"][1], took["three"][1]) + 1.0
