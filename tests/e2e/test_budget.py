"""The failure budget belongs to the fleet: hosts that are dead, that die, batches that fail."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from support.bundles import files
from support.fleet import Fleet
from support.rollout import Controller, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 6
MARK = "opt/files-started"
HELLO = "opt/files/version.txt"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(SIZE) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def controller(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Controller:
    return Controller(
        fleet.inventory,
        tmp_path_factory.mktemp("controller") / "state",
        {
            "deploy_application": "shop",
            "deploy_targets": "web",
            # Hosts that go do not come back here.
            "deploy_reconnect_timeout": "3s",
        },
        within=fleet.command,
    )


def mended(fleet: Fleet) -> set[str]:
    """Make every host well, whatever a test before has broken; return the versions they have."""
    seen = set()
    # What ssh holds open leads to hosts that were killed since.
    for socket in (fleet.home / "cp").iterdir():
        # Its master may leave by itself just now.
        socket.unlink(missing_ok=True)
    for host in fleet.hosts:
        fleet.light(host.name)
        if not fleet.answers(host):
            fleet.restart(host.name)
        root = fleet.root(host.name)
        (root / MARK).unlink(missing_ok=True)
        seen.add((root / HELLO).read_text() if (root / HELLO).exists() else "")
    return seen


def begin(controller: Controller, folder: Path) -> None:
    run = controller.playbook(
        "in_place",
        deploy_revision=files(folder / "one", {"version.txt": "1\n"}),
        deploy_configuration="CodeDeployDefault.AllAtOnce",
    )
    assert run.status == 0, run.said


@pytest.fixture
def first(fleet: Fleet, controller: Controller, tmp_path: Path) -> None:
    """Every host is well, and version 1 is everywhere."""
    if mended(fleet) != {"1\n"}:
        begin(controller, tmp_path)


@pytest.fixture
def some(fleet: Fleet, controller: Controller, tmp_path: Path) -> None:
    """Every host is well and has a version; one of them may have an older one."""
    if "" in mended(fleet):
        begin(controller, tmp_path)


def versions(fleet: Fleet, hosts: str) -> dict[str, str]:
    return {name: (fleet.root(name) / HELLO).read_text().strip() for name in hosts.split()}


def statuses(controller: Controller, deployment: str) -> dict[str, str]:
    return {name: target.status for name, target in controller.targets(deployment).items()}


@pytest.mark.usefixtures("first")
def test_a_host_that_is_dead_from_the_start_can_be_one_too_many(
    fleet: Fleet, controller: Controller, tmp_path: Path
) -> None:
    fleet.kill("h2")
    before = {h.name: snapshot(h.folder / "upper/opt/files") for h in fleet.hosts}
    revision = files(tmp_path / "two", {"version.txt": "2\n"})
    run = controller.playbook("rolling", deploy_revision=revision, deploy_minimum_healthy_hosts=5)
    assert run.status != 0, run.said
    deployment = controller.deployments()[0]
    assert deployment.status == "Failed"
    assert deployment.error_code in ("HEALTH_CONSTRAINTS", "HEALTH_CONSTRAINTS_INVALID")
    seen = statuses(controller, deployment.id)
    assert seen.pop("h2") == "Failed"
    assert set(seen.values()) == {"Skipped"}
    assert {h.name: snapshot(h.folder / "upper/opt/files") for h in fleet.hosts} == before
    assert deployment.rolled_back_by is None, "nothing was changed, nothing is rolled back"


@pytest.mark.usefixtures("first")
def test_a_host_that_is_dead_from_the_start_is_one_failure_of_the_budget(
    fleet: Fleet, controller: Controller, tmp_path: Path
) -> None:
    fleet.dark("h2")
    revision = files(tmp_path / "two", {"version.txt": "2\n"})
    run = controller.playbook("rolling", deploy_revision=revision, deploy_minimum_healthy_hosts=4)
    assert run.status == 0, run.said
    deployment = controller.deployments()[0]
    assert deployment.status == "Succeeded"
    alive = "h1 h3 h4 h5 h6"
    assert versions(fleet, alive) == dict.fromkeys(alive.split(), "2")
    seen = statuses(controller, deployment.id)
    assert seen.pop("h2") == "Failed"
    assert set(seen.values()) == {"Succeeded"}


def killer(fleet: Fleet, name: str) -> threading.Thread:
    """Cut a host off and kill it as soon as its ApplicationStart hook has begun."""

    def work() -> None:
        mark = fleet.host(name).folder / "upper" / MARK
        deadline = time.monotonic() + 200
        while not mark.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        fleet.dark(name)
        fleet.kill(name)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def slow_on(host: str) -> dict[str, str]:
    """A start hook that says it has begun and takes its time on one host."""
    return {
        "ApplicationStart": (
            f'if [ "$(hostname)" = {host} ]; then touch /{MARK}; exec sleep 50; fi\n'
        )
    }


@pytest.mark.usefixtures("some")
def test_a_host_that_dies_midway_is_one_failure_of_the_budget(
    fleet: Fleet, controller: Controller, tmp_path: Path
) -> None:
    revision = files(tmp_path / "three", {"version.txt": "3\n"}, slow_on("h3"))
    thread = killer(fleet, "h3")
    run = controller.playbook("rolling", deploy_revision=revision, deploy_minimum_healthy_hosts=4)
    thread.join()
    assert run.status == 0, run.said
    assert run.ended - run.started < 600, "not after the quarter of an hour that TCP takes"
    deployment = controller.deployments()[0]
    assert deployment.status == "Succeeded"
    seen = statuses(controller, deployment.id)
    assert seen.pop("h3") == "Failed"
    assert set(seen.values()) == {"Succeeded"}
    alive = "h1 h2 h4 h5 h6"
    assert versions(fleet, alive) == dict.fromkeys(alive.split(), "3")


@pytest.mark.usefixtures("first")
def test_a_host_that_dies_midway_can_end_the_deployment(
    fleet: Fleet, controller: Controller, tmp_path: Path
) -> None:
    revision = files(tmp_path / "two", {"version.txt": "2\n"}, slow_on("h3"))
    thread = killer(fleet, "h3")
    run = controller.playbook("rolling", deploy_revision=revision, deploy_minimum_healthy_hosts=5)
    thread.join()
    assert run.status != 0, run.said
    rollback, deployment = controller.deployments()[:2]
    assert (deployment.status, deployment.error_code) == ("Failed", "HEALTH_CONSTRAINTS")
    seen = statuses(controller, deployment.id)
    assert seen["h3"] == "Failed"
    assert (seen["h1"], seen["h2"]) == ("Succeeded", "Succeeded"), "one at a time, in plan order"
    assert {seen[name] for name in ("h4", "h5", "h6")} == {"Skipped"}
    assert rollback.rollback_of == deployment.id
    assert set(statuses(controller, rollback.id)) == {"h1", "h2", "h3"}
    alive = "h1 h2 h4 h5 h6"
    assert versions(fleet, alive) == dict.fromkeys(alive.split(), "1")


def broken_on(*hosts: str) -> dict[str, str]:
    return {
        "ValidateService": (
            f'case "$(hostname)" in {"|".join(hosts)}) echo "no catalogue" >&2; exit 3;; esac\n'
        )
    }


@pytest.mark.usefixtures("first")
def test_a_stage_that_fails_wholly_ends_what_the_budget_does_not_allow(
    fleet: Fleet, controller: Controller, tmp_path: Path
) -> None:
    revision = files(tmp_path / "two", {"version.txt": "2\n"}, broken_on("h1", "h2"))
    untouched = {
        name: snapshot(fleet.host(name).folder / "upper/opt/files")
        for name in ("h3", "h4", "h5", "h6")
    }
    run = controller.playbook(
        "rolling",
        deploy_revision=revision,
        deploy_stages=[2, "100%"],
        deploy_minimum_healthy_hosts=4,
    )
    assert run.status != 0, run.said
    assert "no catalogue" in run.said
    rollback, deployment = controller.deployments()[:2]
    assert (deployment.status, deployment.error_code) == ("Failed", "HEALTH_CONSTRAINTS")
    expected = {f"h{n}": "Failed" if n < 3 else "Skipped" for n in range(1, SIZE + 1)}
    assert statuses(controller, deployment.id) == expected
    assert {
        name: snapshot(fleet.host(name).folder / "upper/opt/files") for name in untouched
    } == untouched
    assert (rollback.rollback_of, rollback.status) == (deployment.id, "Succeeded")
    assert sorted(statuses(controller, rollback.id)) == ["h1", "h2"]
    everyone = " ".join(f"h{n}" for n in range(1, SIZE + 1))
    assert set(versions(fleet, everyone).values()) == {"1"}


@pytest.mark.usefixtures("first")
def test_a_stage_that_fails_wholly_does_not_end_what_the_budget_allows(
    fleet: Fleet, controller: Controller, tmp_path: Path
) -> None:
    revision = files(tmp_path / "two", {"version.txt": "2\n"}, broken_on("h1", "h2"))
    run = controller.playbook(
        "rolling",
        deploy_revision=revision,
        deploy_stages=[2, "100%"],
        deploy_minimum_healthy_hosts=3,
    )
    assert run.status == 0, run.said
    deployment = controller.deployments()[0]
    assert deployment.status == "Succeeded"
    expected = {f"h{n}": "Failed" if n < 3 else "Succeeded" for n in range(1, SIZE + 1)}
    assert statuses(controller, deployment.id) == expected
    assert versions(fleet, "h3 h4 h5 h6") == dict.fromkeys(["h3", "h4", "h5", "h6"], "2")
