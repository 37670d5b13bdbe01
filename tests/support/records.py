"""Deployments for tests of the record, and programs that use it from many processes at once.

As a program: ``python -m support.records roll URL ID PROCESSES FAILING`` (comma-separated names)
carries a deployment out. It forks, as Ansible does, which must not be done from a test process that
has threads.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any

from ansible_collections.bascule.deploy.plugins.module_utils._plan import PlanTarget, make_plan
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
    PATIENCE_SECONDS,
    Deployment,
    NewDeployment,
    Record,
    RevisionRow,
    warm,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ansible_collections.bascule.deploy.plugins.module_utils._zonal import Zonal

DIGEST = "0123456789abcdef" * 4


def new_deployment(
    names: Iterable[str],
    minimum: int = 0,
    *,
    stages: list[int] | None = None,
    bake_time: float = 0.0,
    mode: str = "forward",
    total: int | None = None,
    digest: str = DIGEST,
    group: str = "web",
    zonal: Zonal | None = None,
    zone_of: Callable[[str], str] = lambda _name: "",
    **more: Any,
) -> NewDeployment:
    """Describe a deployment of these targets."""
    targets = [PlanTarget(name, zone_of(name)) for name in names]
    plan = make_plan(
        "rolling",
        targets,
        digest=digest,
        minimum=minimum,
        stages=stages or (lambda number: [number]),
        zonal=zonal,
        bake_time=bake_time,
        mode=mode,
        total=total,
    )
    revision = RevisionRow(
        digest=digest, source="./bundle", appspec={"version": 0.0, "os": "linux"}
    )
    return NewDeployment(
        application="shop", group=group, strategy="rolling", revision=revision, plan=plan, **more
    )


def create(record: Record, names: Iterable[str], minimum: int = 0, **more: Any) -> Deployment:
    """Create a deployment of these targets."""
    return record.create_deployment(new_deployment(names, minimum, **more))


def in_processes(work: Callable[[int], None], number: int) -> list[int]:
    """Fork children that do ``work(index)``; returns their exit statuses."""
    children = []
    for index in range(number):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(index)
                status = 0
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def roll(url: str, deployment_id: str, processes: int, failing: set[str]) -> None:
    """Carry a deployment out: the targets are dealt out to processes, which start in any order."""
    warm(url)
    record = Record.open(url, fence=1, patience=PATIENCE_SECONDS)
    names = [target.name for target in record.targets(deployment_id)]

    def work(index: int) -> None:
        own = names[index::processes]
        secrets.SystemRandom().shuffle(own)
        for name in own:
            roll_target(record, deployment_id, name, fails=name in failing)

    if any(in_processes(work, processes)):
        sys.exit(1)


def roll_target(record: Record, deployment_id: str, name: str, *, fails: bool) -> None:
    """Do what the actions do for one target."""
    while (answer := record.admit(deployment_id, name)).verdict == "wait":
        time.sleep(0.02 + secrets.randbelow(80) / 1000)
    if answer.verdict != "admitted":
        return
    time.sleep(secrets.randbelow(10) / 1000)
    if fails:
        record.settle(deployment_id, name, "Failed", error_code="ScriptFailed", message="exit 1")
    else:
        record.settle(deployment_id, name, "Succeeded")


if __name__ == "__main__":
    command, record_url, *rest = sys.argv[1:]
    if command != "roll":
        sys.exit(f"Unknown command {command}.")
    roll(record_url, rest[0], int(rest[1]), set(rest[2].split(",")))
