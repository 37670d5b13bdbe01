"""Plans that are saved and applied, and targets that join, on local targets and a real proxy."""

from __future__ import annotations

import json
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.bundles import files
from support.proxies import Endpoint, free_port, start_backend, start_haproxy, stop
from support.rollout import Controller, Run
from support.site import QUICK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTS = ("one", "two", "three")
INVENTORY = """\
#!{python}
import json, pathlib
here = pathlib.Path(__file__).parent
names = [*{names!r}, *(path.name for path in sorted((here / "joined").iterdir()))]
print(json.dumps({{
    "web": {{"hosts": names}},
    "_meta": {{"hostvars": {{
        name: {{
            "ansible_connection": "local",
            "ansible_python_interpreter": {python!r},
            "deploy_sysroot": str(here / "hosts" / name),
        }}
        for name in names
    }}}},
}}))
"""


class Growing(Controller):
    """Local targets whose inventory is a program: it lists what is in the folder ``joined``."""

    def join(self, name: str) -> str:
        """Return the shell command by which a host comes into the inventory."""
        return f"touch {self.inventory.parent / 'joined' / name}\n"

    def version(self, name: str) -> str:
        path = self.inventory.parent / "hosts" / name / "opt" / "files" / "VERSION"
        return path.read_text().strip() if path.exists() else ""

    def bundle(self, name: str, **hooks: str) -> str:
        return str(files(self.inventory.parent / name, {"VERSION": f"{name}\n"}, hooks))


@pytest.fixture
def controller(tmp_path: Path) -> Growing:
    for name in (*HOSTS, "four", "five"):
        (tmp_path / "hosts" / name).mkdir(parents=True)
    (tmp_path / "joined").mkdir()
    inventory = tmp_path / "inventory.py"
    inventory.write_text(INVENTORY.format(python=sys.executable, names=list(HOSTS)))
    inventory.chmod(0o755)
    variables = {"deploy_application": "shop", "deploy_targets": "web"}
    return Growing(inventory, tmp_path / "state", variables)


def test_a_host_that_joins_during_a_deployment_gets_the_revision(controller: Growing) -> None:
    """The inventory grows in a hook of the first target; a deployment that fails lets nobody in."""
    bad = controller.bundle("bad", AfterInstall=controller.join("four") + "exit 3\n")
    failed = controller.playbook("rolling", deploy_revision=bad)
    assert failed.status != 0
    assert [one.status for one in controller.deployments()] == ["Failed"]
    assert controller.version("four") == ""

    one = controller.bundle("v1", AfterInstall=controller.join("five"))
    run = controller.playbook("rolling", deploy_revision=one)
    assert run.status == 0, run.said
    follow_up, main, _failed = controller.deployments()
    assert (main.status, main.overview) == ("Succeeded", {"Succeeded": 4})
    assert (follow_up.status, follow_up.overview) == ("Succeeded", {"Succeeded": 1})
    assert (follow_up.creator, follow_up.options["follows"]) == ("CodeDeployAutoUpdate", main.id)
    assert [controller.version(name) for name in (*HOSTS, "four", "five")] == ["v1"] * 5
    # Who has the revision is no late joiner: nothing follows a second time.
    again = controller.playbook("rolling", deploy_revision=one)
    assert (again.status, again.changed) == (0, 0)
    assert len(controller.deployments()) == 4


def test_a_host_that_joins_is_reported_or_found_afterwards(controller: Growing) -> None:
    revision = controller.bundle("v1", AfterInstall=controller.join("four"))
    run = controller.deploy(
        "rolling", "--revision", revision, deploy_late_joiners="report", deploy_stages=[1, 2]
    )
    assert run.status == 0, run.said
    assert "without its revision: four." in run.said
    assert controller.version("four") == ""

    assert controller.command("outdated", "web").status == 0
    seen = controller.command(
        "outdated", "web", "-i", str(controller.inventory), "--format", "json"
    )
    assert seen.status == 1
    assert [(one["target"], one["revision"]) for one in json.loads(seen.said)] == [
        ("four", "Unknown")
    ]
    run = controller.deploy("in_place", "--revision", "current", "--only-outdated")
    assert run.status == 0, run.said
    assert controller.version("four") == "v1"
    assert controller.deployments()[0].plan["left_out"] == list(HOSTS)
    for run in (
        controller.command("outdated", "web", "-i", str(controller.inventory)),
        controller.deploy("in_place", "--revision", "current", "--only-outdated"),
    ):
        assert run.status == 0, run.said
    assert "nothing to do: 4 targets already at" in run.said
    assert controller.deployments()[0].status == "Succeeded"


@pytest.fixture
def balanced(controller: Growing, tmp_path: Path) -> Iterator[tuple[Growing, Any]]:
    """The targets as servers of a real HAProxy, each with an application behind it."""
    endpoints = [Endpoint(name, "127.0.0.1", free_port()) for name in HOSTS]
    backends = [start_backend(endpoint.port, "1") for endpoint in endpoints]
    proxy = start_haproxy(tmp_path / "haproxy", endpoints, changes=QUICK["haproxy"])
    controller.variables |= {
        "deploy_traffic_provider": "haproxy",
        "deploy_haproxy_socket": proxy.options["socket"],
        "deploy_haproxy_backend": proxy.options["backend"],
        "deploy_traffic_drain_timeout": 5,
    }
    try:
        yield controller, proxy
    finally:
        for backend in backends:
            stop(backend)
        proxy.stop()


def test_apply_refuses_what_has_changed_and_carries_out_what_has_not(
    balanced: tuple[Growing, Any], tmp_path: Path
) -> None:
    controller, proxy = balanced
    revision, plan = controller.bundle("v1"), tmp_path / "plan.json"
    controller.variables["db_password"] = "s3cret"  # noqa: S105

    def planned() -> Run:
        variables = [
            f"-e{json.dumps({name: value})}" for name, value in controller.variables.items()
        ]
        return controller.command(
            "plan", "rolling", "-i", str(controller.inventory), *variables,
            "--revision", revision, "-o", str(plan),
        )  # fmt: skip

    def applied(*given: str) -> Run:
        return controller.command("apply", str(plan), *given)

    made = planned()
    assert made.status == 0, made.said
    assert "s3cret" not in plan.read_text()
    saved = json.loads(plan.read_text())
    assert {name: one["in_service"] for name, one in saved["routing"].items()} == dict.fromkeys(
        HOSTS, True
    )
    password = "-edb_password=s3cret"  # noqa: S105
    order(proxy, f"set server {proxy.options['backend']}/two state drain")
    for refused, told in (
        (applied(), "the variable db_password was given to the plan"),
        (applied(password), "routing: two is not in service any more"),
    ):
        assert refused.status == 2, refused.said
        assert told in refused.said
    order(proxy, f"set server {proxy.options['backend']}/two state ready")
    assert controller.deployments() == []

    done = applied(password)
    assert done.status == 0, done.said
    (deployment,) = controller.deployments()
    assert deployment.plan == saved["plan"]
    assert deployment.plan_hash == saved["plan_hash"]
    assert [controller.version(name) for name in HOSTS] == ["v1"] * 3
    again = applied(password)
    assert again.status == 2
    assert f"the deployment {deployment.id} ran since (rolling, Succeeded)" in again.said


def order(proxy: Any, text: str) -> None:
    """Say something to HAProxy by hand, as somebody else would."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(proxy.options["socket"])
        connection.sendall(f"{text}\n".encode())
        assert connection.recv(4096).strip() == b""
