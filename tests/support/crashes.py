"""A fleet under load whose controller is killed, and what is left of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import bascule
from bascule._environment import environment
from bascule.demo import _envoy
from bascule.demo._fleet import Fleet
from bascule.demo._processes import end, free_ports, spawn
from bascule.demo._release import write_release

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent
PLUGINS = Path(__file__).parent / "crash_points"
RATE = 60
HOOKS = (
    "BeforeBlockTraffic", "AfterBlockTraffic", "ApplicationStop", "BeforeInstall", "AfterInstall",
    "ApplicationStart", "ValidateService", "BeforeAllowTraffic", "AfterAllowTraffic",
)  # fmt: skip
# At every how many points the controller is killed; 1 tries each. Twenty-three is no divisor of the
# number of events, so each target is met in other hooks.
STRIDE = int(os.environ.get("CRASH_STRIDE", "23"))
# What the last script of every event does: it writes down that it ran and, where a crash in this
# very hook is wanted and was not yet, kills the controller and goes on itself.
MARK = """#!/bin/sh
echo "$DEPLOYMENT_ID $LIFECYCLE_EVENT" >> "$SYSROOT/marks"
test -n "$CRASH_POINTS_PASSED" || exit 0
case ",$CRASH_POINTS_SIDES," in *,during,*) ;; *) exit 0 ;; esac
kind=deployment; test "$IS_ROLLBACK" = true && kind=rollback
point="during $kind $LIFECYCLE_EVENT $TARGET_NAME"
grep -qxF "$point" "$CRASH_POINTS_PASSED" && exit 0
number=$(wc -l < "$CRASH_POINTS_PASSED")
echo "$point" >> "$CRASH_POINTS_PASSED"
test "$CRASH_POINTS_MODE" = kill || exit 0
test $((number % CRASH_POINTS_STRIDE)) = 0 || exit 0
for process in /proc/[0-9]*; do
    tr '\\0' '\\n' < $process/environ 2>/dev/null |
        grep -qxF "CRASH_POINTS_PASSED=$CRASH_POINTS_PASSED" || continue
    tr '\\0' ' ' < $process/cmdline 2>/dev/null | grep -q "bin/ansible-playbook" || continue
    kill -9 "${process#/proc/}" 2>/dev/null
done
sleep 0.3
exit 0
"""


@dataclass(frozen=True)
class Run:
    """One run of a controller: its exit status (negative: the signal that ended it) and words."""

    status: int
    said: str

    @property
    def killed(self) -> bool:
        return self.status < 0 or self.status == 137


@dataclass
class Scene:
    """The fleet, its load balancer, its load, and the record of one story."""

    folder: Path
    fleet: Fleet
    envoy: _envoy.Envoy
    load: dict[str, Any] = field(default_factory=dict)

    @property
    def record(self) -> str:
        return f"sqlite:///{self.folder / 'state/record.db'}"

    @property
    def passed(self) -> Path:
        return self.folder / "passed"

    def points(self) -> list[str]:
        """The points that were passed, in their order."""
        return self.passed.read_text().splitlines()

    def release(self, version: str, *, bad: bool = False) -> Path:
        """Write a release whose every event ends with a script that leaves a mark."""
        folder = write_release(self.folder / "releases" / version, version, bad=bad)
        mark = folder / "hooks" / "mark.sh"
        mark.write_text(MARK)
        mark.chmod(0o755)
        path = folder / "appspec.yml"
        appspec = yaml.safe_load(path.read_text())
        for event in HOOKS:
            appspec["hooks"].setdefault(event, []).append({"location": "hooks/mark.sh"})
        path.write_text(yaml.safe_dump(appspec, sort_keys=False))
        return folder

    def deploy(self, version: Path, mode: str, sides: str) -> Run:
        """Run ansible-playbook as a person does."""
        settings = {**os.environ, **environment(folder=self.folder, given={}, record=self.record)}
        variables = {"deploy_revision": str(version), "deploy_record": self.record}
        return self._run(
            [
                str(BIN / "ansible-playbook"), "-i", str(self.fleet.inventory),
                "bascule.deploy.rolling", "-e", json.dumps(variables),
            ],
            mode, sides, settings,
        )  # fmt: skip

    def resume(self, deployment_id: str, mode: str, sides: str) -> Run:
        """Go on, by the command that the messages name."""
        return self._run(
            [
                str(BIN / "bascule"), "resume", deployment_id, "-i", str(self.fleet.inventory),
                "--record", self.record,
            ],
            mode, sides, dict(os.environ),
        )  # fmt: skip

    def _run(self, command: list[str], mode: str, sides: str, settings: dict[str, str]) -> Run:
        settings |= {
            "CRASH_POINTS_PASSED": str(self.passed),
            "CRASH_POINTS_MODE": mode,
            "CRASH_POINTS_SIDES": sides,
            "CRASH_POINTS_STRIDE": str(STRIDE),
            "ANSIBLE_CALLBACK_PLUGINS": str(PLUGINS),
            "ANSIBLE_CALLBACKS_ENABLED": "crash_points",
        }
        # Into a file: a host program that outlives its controller keeps the output open.
        log = self.folder / "controller.log"
        with log.open("wb") as file:
            run = subprocess.run(
                command, env=settings, stdout=file, stderr=file, check=False, timeout=300,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        return Run(run.returncode, log.read_text(errors="replace"))

    def open_deployment(self) -> str | None:
        """Return the deployment that has not ended, if there is one."""
        for one in bascule.history(record=self.record):
            if one.status in ("Created", "InProgress", "Queued", "Ready"):
                return one.id
        return None

    def ending(self) -> dict[str, Any]:
        """Return everything that two runs of the same story must have in common."""
        found = []
        for one in reversed(bascule.history(record=self.record)):
            full = bascule.status(str(one.id), record=self.record)
            targets = {
                target.name: (target.status, target.changed, target.in_service)
                for target in full.targets
            }
            found.append(
                {
                    "status": full.status,
                    "error": full.error.kind if full.error else None,
                    "rollback": bool(full.rollback_of),
                    "rolled back": bool(full.rolled_back_by),
                    "digest": full.revision.digest,
                    "targets": targets,
                }
            )
        return {
            "deployments": found,
            "versions": self.fleet.versions(),
            "files": {host.name: _files(host.sysroot) for host in self.fleet.hosts},
            "balancer": self.balancer(),
        }

    def balancer(self) -> list[tuple[int, str]]:
        """Return the load balancer's endpoints and their health as it was told."""
        document = json.loads(self.envoy.eds_path.read_text())
        endpoints = document["resources"][0]["endpoints"][0]["lb_endpoints"]
        return sorted(
            (
                one["endpoint"]["address"]["socket_address"]["port_value"],
                one.get("health_status", "HEALTHY"),
            )
            for one in endpoints
        )

    def marks(self) -> Counter[tuple[str, str, str]]:
        """How often each event's last script ran: by target, deployment and event."""
        return Counter(
            (host.name, *line.split())
            for host in self.fleet.hosts
            if (host.sysroot / "marks").exists()
            for line in (host.sysroot / "marks").read_text().splitlines()
        )


def _files(sysroot: Path) -> dict[str, str]:
    """Return what is installed, without what differs by time or by the deployment's id."""
    top = sysroot / "opt/hello"
    return {
        str(path.relative_to(top)): f"{path.stat().st_mode:o} {path.read_text(errors='replace')}"
        for path in sorted(top.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


@contextmanager
def scene(folder: Path, targets: int = 2) -> Iterator[Scene]:
    """Bring up a fleet with 1.0 on it, behind Envoy and under load; stop it all in the end.

    ``load`` of the scene is filled when the block has ended.
    """
    port, admin, *ports = free_ports(targets + 2)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        fleet = Fleet(folder, ports)
        stack.callback(fleet.stop)
        envoy = _envoy.start(folder / "envoy", port, admin, ports)
        stack.callback(envoy.stop)
        made = Scene(folder, fleet, envoy)
        made.passed.touch()
        fleet.write(
            {
                "deploy_application": "hello",
                "deploy_group": "demo",
                "deploy_state_directory": str(folder / "state"),
                # One after the other, so that the points have one order.
                "deploy_minimum_healthy_hosts": targets - 1,
                "deploy_health_gates": [
                    {
                        "type": "http",
                        "port": "{{ deploy_traffic_target_port }}",
                        "path": "/health",
                        "interval": "100ms",
                        "deadline": "5s",
                    }
                ],
                "deploy_traffic_provider": "envoy",
                "deploy_traffic_hosts": ["localhost"],
                "deploy_envoy_eds_path": str(envoy.eds_path),
                "deploy_envoy_cluster": _envoy.CLUSTER,
                "deploy_envoy_admin_url": envoy.admin_url,
            }
        )
        first = bascule.deploy(
            "in_place",
            inventory=fleet.inventory,
            revision=made.release("1.0"),
            variables={"deploy_minimum_healthy_hosts": 0},
            record=made.record,
        )
        first.raise_for_status()
        for host in fleet.hosts:
            (host.sysroot / "marks").unlink()
        report = folder / "load.json"
        load = spawn(
            [sys.executable, "-m", "bascule.demo.loadgen", envoy.url, "--rate", str(RATE),
             "--json", str(report)],
            folder / "load.log",
        )  # fmt: skip
        time.sleep(0.5)
        try:
            yield made
        finally:
            # It waits for the answers to all its requests.
            end(load, patience=60.0)
            if report.exists():
                made.load = json.loads(report.read_text())
