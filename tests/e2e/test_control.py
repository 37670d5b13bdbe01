"""Deployments that are stopped, paused, approved and rejected while they run, by real commands.

The hooks of the new revision wait for a file for each target, so the tests decide who is done when.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.bundles import files
from support.rollout import ROOT, local_inventory

import bascule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BIN = Path(sys.executable).parent
# One has an address of version 6 for its name: colons part neither names nor patterns.
HOSTS = ("one", "two", "fe80::3")


class Fleet:
    """Local targets with the first revision, and commands that are running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sysroots = {name: folder / "hosts" / name.replace(":", "-") for name in HOSTS}
        for sysroot in self.sysroots.values():
            sysroot.mkdir(parents=True)
        self.inventory = local_inventory(folder / "hosts.yml", self.sysroots)
        self.record = f"sqlite:///{folder / 'state' / 'record.db'}"
        self.gates = folder / "gates"
        self.gates.mkdir()
        self.running: list[subprocess.Popen[str]] = []
        wait = f'until test -e "{self.gates}/$TARGET_NAME"; do sleep 0.05; done\n'
        self.old = files(folder / "1.0", {"VERSION": "1.0\n"})
        self.new = files(folder / "2.0", {"VERSION": "2.0\n"}, {"AfterInstall": wait})
        self.given = {"deploy_application": "shop", "deploy_group": "web", "deploy_targets": "web"}
        bascule.deploy(
            "rolling", inventory=self.inventory, revision=self.old, variables=self.given,
            record=self.record,
        ).raise_for_status()  # fmt: skip

    def open(self, *names: str) -> None:
        """Let the hooks of these targets end."""
        for name in names:
            (self.gates / name).touch()

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start a program of ours."""
        process = subprocess.Popen(
            # Whoever runs the tests under nohup has this signal ignored by all they start.
            ["env", "--default-signal=HUP", BIN / words[0], *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                "BASCULE_RECORD": self.record,
                "BASCULE_STATE": str(self.folder / "state"),
            },
        )
        self.running.append(process)
        return process

    def deploy(self, **more: Any) -> tuple[subprocess.Popen[str], str]:
        """Begin to deploy the new revision; returns the command and the deployment's id."""
        before = self.newest()
        said = json.dumps({**self.given, **more})
        process = self.start(
            "bascule", "deploy", "rolling", "-i", self.inventory, "--revision", self.new, "-e", said
        )
        until(lambda: self.newest() != before, process)
        return process, self.newest()

    def newest(self) -> str:
        return str(bascule.history(record=self.record)[0].id)

    def overview(self, deployment: str) -> dict[str, int]:
        return dict(bascule.status(deployment, record=self.record).overview)

    def flying(self, deployment: str, process: subprocess.Popen[str]) -> None:
        """Wait until a target is in flight."""
        until(lambda: bool(self.overview(deployment).get("InProgress")), process)

    def versions(self) -> list[str]:
        return [(root / "opt/files/VERSION").read_text().strip() for root in self.sysroots.values()]

    def left_running(self) -> list[str]:
        """Return the processes of Ansible that still work on this fleet."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "ansible-playbook" in words and str(self.inventory) in words:
                found.append(words)
        return found


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setenv("BASCULE_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    made = Fleet(tmp_path)
    yield made
    made.open(*HOSTS)
    for process in made.running:
        process.kill()
        process.communicate(timeout=60)


def until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def said_by(process: subprocess.Popen[str], words: str) -> str:
    """Wait until a program says something; return what it has said."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"{words!r} is not in {said!r}")


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=300)
    return process.returncode, said


def test_a_stage_is_approved_and_the_rest_is_stopped_and_rolled_back(fleet: Fleet) -> None:
    rules = {"deploy_stages": [1, "100%"], "deploy_approval": "first_stage"}
    deploying, name = fleet.deploy(**rules, deploy_approval_timeout="1h")
    following = fleet.start("bascule", "events", name, "--follow", "--format", "json")
    first = bascule.status(name, record=fleet.record).targets[0].name
    fleet.open(first)
    until(lambda: bascule.status(name, record=fleet.record).waiting is not None, deploying)

    waiting = bascule.status(name, record=fleet.record)
    assert waiting.exit_code == 3
    assert fleet.overview(name) == {"Succeeded": 1, "Pending": 2}
    code, said = ended(fleet.start("bascule", "status", name))
    assert code == 0
    assert "Waits for:      the approval of stage 1, until " in said
    assert f"bascule approve {name}" in said
    assert "Its controller is alive" in said
    code, said = ended(fleet.start("bascule", "continue", name, "--why", "flat graphs"))
    assert (code, said) == (0, f"{name}: stage 1 is approved.\n")
    fleet.flying(name, deploying)

    stopping = fleet.start("bascule", "stop", name, "--rollback", "--why", "too late today")
    waits = said_by(stopping, "in flight")
    assert bascule.status(name, record=fleet.record).stop_requested_by is not None, waits
    fleet.open(*HOSTS)
    code, said = ended(stopping)
    assert code == 0, waits + said
    code, said = ended(deploying)
    assert code == 1, said
    assert "waits for the approval of stage 1 until" in said

    stopped = bascule.status(name, record=fleet.record)
    assert (stopped.status, stopped.exit_code) == ("Stopped", 1)
    assert stopped.error is not None
    assert stopped.error.kind == "MANUAL_STOP"
    assert stopped.error.message.endswith("too late today")
    assert [one["why"] for one in stopped.approvals] == ["flat graphs"]
    assert [one.status for one in stopped.targets] == ["Succeeded", "Succeeded", "Skipped"]
    back = bascule.status(str(stopped.rolled_back_by), record=fleet.record)
    assert (back.status, len(back.targets)) == ("Succeeded", 2)
    assert fleet.versions() == ["1.0"] * 3

    code, said = ended(following)
    told = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert code == 0
    assert [one["sequence"] for one in told] == list(range(1, len(told) + 1))
    names = [one["event"] for one in told]
    assert (names[0], names[-1]) == ("Created", "Finished")
    assert {"ApprovalAsked", "ApprovalDecided", "Halted"} <= set(names)


def test_the_first_interrupt_pauses_and_the_second_breaks_off(fleet: Fleet) -> None:
    deploying, name = fleet.deploy()
    fleet.flying(name, deploying)
    first = bascule.status(name, record=fleet.record).targets[0].name
    deploying.send_signal(signal.SIGINT)
    until(lambda: bascule.status(name, record=fleet.record).paused_at is not None, deploying)
    assert deploying.poll() is None
    fleet.open(first)
    code, said = ended(deploying)
    assert code == 4, said
    for command in (f"resume {name}", f"stop {name} --rollback", f"abandon {name}"):
        assert f"`bascule {command}`" in said
    paused = bascule.status(name, record=fleet.record)
    assert paused.overview == {"Succeeded": 1, "Pending": 2}
    assert paused.lease is not None
    assert paused.lease["state"] == "Nobody"

    resuming = fleet.start("bascule", "resume", name, "-i", fleet.inventory)
    fleet.flying(name, resuming)
    assert bascule.status(name, record=fleet.record).paused_at is None
    # A terminal that is closed is told by the kernel and by the shell; both together pause.
    for _teller in range(2):
        resuming.send_signal(signal.SIGHUP)
        until(lambda: bascule.status(name, record=fleet.record).paused_at is not None, resuming)
    reason = bascule.status(name, record=fleet.record).pause_reason
    assert "terminal was closed" in str(reason)
    resuming.send_signal(signal.SIGINT)
    code, said = ended(resuming)
    assert code == 4, said
    assert f"`bascule resume {name}`" in said
    until(lambda: fleet.left_running() == [])
    assert fleet.overview(name) == {"Succeeded": 1, "InProgress": 1, "Pending": 1}

    # Nobody carries it out any more, so the stop itself ends it, and rolls it back.
    fleet.open(*HOSTS)
    stop = ("bascule", "stop", name, "--rollback", "-i", fleet.inventory)
    code, said = ended(fleet.start(*stop, "-e", "deploy_traffic_provider=envoy"))
    assert code == 2, said
    assert f"{name} is not stopped, and is as it was" in said
    assert bascule.status(name, record=fleet.record).error is None
    code, said = ended(fleet.start(*stop, "--why", "enough"))
    assert code == 0, said
    stopped = bascule.status(name, record=fleet.record)
    assert (stopped.status, stopped.overview) == ("Stopped", {"Succeeded": 2, "Skipped": 1})
    assert fleet.versions() == ["1.0"] * 3


def test_a_playbook_rejects_what_a_playbook_deploys(fleet: Fleet) -> None:
    fleet.open(*HOSTS)
    before = fleet.newest()
    said = json.dumps(
        {
            **fleet.given, "deploy_revision": str(fleet.new), "deploy_stages": [1, "100%"],
            "deploy_approval": "every_stage",
        }
    )  # fmt: skip
    deploying = fleet.start(
        "ansible-playbook", "-i", fleet.inventory, "bascule.deploy.rolling", "-e", said
    )
    until(lambda: fleet.newest() != before, deploying)
    name = fleet.newest()
    until(lambda: bascule.status(name, record=fleet.record).waiting is not None, deploying)
    answer = ["-e", f"deployment_id={name}", "-e", "why=slow"]
    code, text = ended(fleet.start("ansible-playbook", "bascule.deploy.reject", *answer))
    assert code == 0, text
    code, text = ended(deploying)
    assert code != 0
    assert f"`bascule approve {name}`" in text
    rejected = bascule.status(name, record=fleet.record)
    assert (rejected.status, rejected.approvals[0]["status"]) == ("Failed", "Rejected")
    assert rejected.error is not None
    assert (rejected.error.kind, rejected.error.message[-6:]) == ("APPROVAL_REJECTED", ": slow")
    assert bascule.status(str(rejected.rolled_back_by), record=fleet.record).status == "Succeeded"
    assert fleet.versions() == ["1.0"] * 3
    code, text = ended(fleet.start("ansible-playbook", "bascule.deploy.stop", *answer[:2]))
    assert code != 0
    assert "has ended already (Failed)" in text
    assert not {"stop", "approve", "reject", "abandon"} & set(bascule.strategies())
