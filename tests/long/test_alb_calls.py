"""How often the API of load balancers is called, also while it throttles.

``ALB_RUNS=20:0,20:0.3`` chooses how many are in flight, and the share of calls that are refused.
Targets on this machine with nothing to install but a file, so that the calls are what takes time.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from support import alb, proxies
from support.alb.site import Site
from support.bundles import files
from support.rollout import Controller, local_inventory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TARGETS = int(os.environ.get("ALB_TARGETS", "100"))
RUNS = [
    (int(at_once), float(throttle))
    for at_once, throttle in (
        one.split(":") for one in os.environ.get("ALB_RUNS", "5:0,10:0,20:0,40:0,20:0.3").split(",")
    )
]
LOOK_SECONDS = 2.0


class Fleet:
    """Targets on this machine, each an instance of its own with the same application."""

    def __init__(self, service: alb.Alb, folder: Path) -> None:
        self.service = service
        self.site = Site(service)
        self.site.start("blue")
        self.names = [f"t{number}" for number in range(1, TARGETS + 1)]
        self.group = self.site.group("web", delay=1, Port=self.site.ports["blue"])
        self.site.listen({self.group: 1})
        ids = {name: self.site.instance(name) for name in self.names}
        targets = [{"Id": one} for one in ids.values()]
        self.site.elbv2.register_targets(TargetGroupArn=self.group, Targets=targets)
        inventory = local_inventory(
            folder / "hosts.json", {name: folder / "targets" / name for name in self.names}
        )
        content = json.loads(inventory.read_text())
        for name, variables in content["all"]["children"]["web"]["hosts"].items():
            variables["instance_id"] = ids[name]
        inventory.write_text(json.dumps(content))
        self.controller = Controller(
            inventory,
            folder / "state",
            {
                "deploy_application": "web",
                "deploy_targets": "web",
                "deploy_traffic_provider": "elbv2",
                "deploy_elbv2_target_groups": ["web"],
                "deploy_elbv2_propagation": "500ms",
            },
            environment={**service.environment, "ANSIBLE_FORKS": str(max(RUNS)[0] + 5)},
            timeout=1500,
        )

    def states(self) -> Counter[str]:
        return Counter(self.site.states(self.group))

    def deploy(self, revision: Path, at_once: int) -> list[dict[str, Any]]:
        """Deploy; returns the calls to load balancers."""
        self.service.forget_calls()
        run = self.controller.playbook(
            "rolling", deploy_revision=revision, deploy_minimum_healthy_hosts=TARGETS - at_once
        )
        calls = self.service.calls("elasticloadbalancing")
        assert run.status == 0, run.said
        self.seconds = run.ended - run.started
        return calls


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("calls")
    with alb.running(folder / "service", propagation=0.5) as service:
        made = Fleet(service, folder)
        try:
            yield made
        finally:
            proxies.stop(made.site.processes["blue"])


@pytest.mark.parametrize(("at_once", "throttle"), RUNS)
def test_calls_are_shared_and_throttling_costs_nothing_but_time(
    fleet: Fleet, tmp_path: Path, at_once: int, throttle: float
) -> None:
    revision = files(tmp_path / "revision", {"text": f"{at_once} {throttle}\n"})
    fleet.service.throttle(throttle)
    try:
        calls = fleet.deploy(revision, at_once)
    finally:
        fleet.service.throttle(0.0)
    done = Counter(one["action"] for one in calls if not one["throttled"])
    refused = sum(one["throttled"] for one in calls)
    looks = done["DescribeTargetHealth"]
    told = (
        f"{TARGETS} targets, {at_once} at once, {fleet.seconds:.0f} s: {dict(done)}, {refused=}, "
        f"{looks / fleet.seconds:.2f} looks a second"
    )
    print(told)
    assert fleet.states() == {"healthy": TARGETS}, "nothing is left out of service"
    [deployment] = [d for d in fleet.controller.deployments() if d.status != "Succeeded"] or [None]
    assert deployment is None
    assert done["RegisterTargets"] + done["DeregisterTargets"] <= 2 * TARGETS, told
    # One look every two seconds answers for all, however many they are; opening and closing look
    # for themselves.
    assert looks <= fleet.seconds / LOOK_SECONDS + 5, told
    assert done["DescribeTargetGroups"] <= 5, told
    assert bool(refused) == bool(throttle)
