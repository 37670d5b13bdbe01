"""The inventories of dev, test and prod, with instances in moto; and a deployment to them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from support.bundles import files
from support.ec2 import launch, scaling_group
from support.rollout import BIN, ROOT, Controller

import bascule

if TYPE_CHECKING:
    from pathlib import Path

    from support import aws as moto

SHOP = {"Application": "shop"}


@pytest.fixture
def aws(moto_servers: moto.Servers, monkeypatch: pytest.MonkeyPatch) -> moto.Aws:
    collection = ROOT / "collections" / "ansible_collections" / "amazon" / "aws"
    assert collection.is_dir(), "run: python tools/fetch_collections.py"
    running = moto_servers.fresh()
    running.use(monkeypatch)
    return running


def inventory(folder: Path, name: str, hosts: dict[str, Any] | None = None) -> Path:
    """Copy an inventory, with these hosts of our own beside the instances."""
    shutil.copytree(ROOT / "inventories" / name, folder / name)
    if hosts is not None:
        (folder / name / "on_premises.yml").write_text(json.dumps({"web": {"hosts": hosts}}))
    return folder / name


def groups(aws: moto.Aws, place: Path) -> dict[str, list[str]]:
    """What ``ansible-inventory --list`` says, by group."""
    said = subprocess.run(
        [BIN / "ansible-inventory", "-i", place, "--list"],
        env={**os.environ, **aws.environment, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        check=True, capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip
    return {
        name: sorted(group.get("hosts", ()))
        for name, group in json.loads(said).items()
        if name != "_meta"
    }


def test_the_groups_of_each_environment(aws: moto.Aws, tmp_path: Path) -> None:
    web = launch(aws, 2, Environment="prod", Role="web", **SHOP)
    edge = launch(aws, 1, Environment="prod", Role="edge", **SHOP)
    launch(aws, 1, Environment="prod", Role="web", Application="blog")
    launch(aws, 1, Environment="prod", Role="batch", **SHOP)
    [stopped] = launch(aws, 1, Environment="prod", Role="web", **SHOP)
    aws.client("ec2").stop_instances(InstanceIds=[stopped])
    workers = scaling_group(aws, "shop-workers-prod", 2, Environment="prod", **SHOP)
    scaling_group(aws, "other", 1, Environment="prod", **SHOP)
    for_test = launch(aws, 1, Environment="test", Role="web", **SHOP)
    for_dev = launch(aws, 3, Environment="dev", Role="web", **SHOP)

    prod = groups(aws, inventory(tmp_path, "prod", {"rack-7": {}}))
    assert prod["web"] == sorted([*web, *edge, "rack-7"])
    assert prod["workers"] == sorted(workers)
    assert groups(aws, inventory(tmp_path, "test"))["web"] == sorted(for_test)
    assert groups(aws, inventory(tmp_path, "dev"))["web"] == sorted(for_dev)


def test_an_inventory_that_cannot_be_read_is_no_smaller_one(aws: moto.Aws, tmp_path: Path) -> None:
    place = inventory(tmp_path, "prod", {"rack-7": {"ansible_connection": "local"}})
    aws.kill()
    with pytest.raises(bascule.UsageError, match="aws_ec2"):
        bascule.targets(inventory=place)


def test_a_deployment_to_instances_and_a_host_of_our_own(aws: moto.Aws, tmp_path: Path) -> None:
    ids = launch(aws, 2, Environment="prod", Role="web", **SHOP)
    place = inventory(tmp_path, "prod", {"rack-7": {"deploy_zone": "cellar"}})
    local = {
        "ansible_connection": "local", "ansible_become": False,
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "deploy_sysroot": f"{tmp_path}/hosts/{{{{ inventory_hostname }}}}",
    }  # fmt: skip
    for name in (*ids, "rack-7"):
        (tmp_path / "hosts" / name).mkdir(parents=True)
    revision = files(tmp_path / "v1", {"VERSION": "1\n"}, {"AfterInstall": "true"})
    controller = Controller(
        place, tmp_path / "state",
        {
            **local, "deploy_targets": "web", "deploy_bake_time": 0,
            "deploy_minimum_healthy_hosts": 2,
        },
        environment=aws.environment,
    )  # fmt: skip
    run = controller.deploy("rolling", "--revision", str(revision))
    assert run.status == 0, run.said
    [deployment] = controller.deployments()
    assert (deployment.application, deployment.group) == ("shop", "web")
    done = controller.targets(deployment.id)
    assert sorted(done) == sorted([*ids, "rack-7"])
    assert {one.status for one in done.values()} == {"Succeeded"}
    assert done["rack-7"].zone == "cellar"
    assert {done[name].zone for name in ids} == {"eu-central-1a"}
    for name in done:
        installed = tmp_path / "hosts" / name / "opt/files/VERSION"
        assert installed.read_text() == "1\n"

    listed = controller.command("targets", "-i", str(place), "--group", "web", "--format", "json")
    found = {one["target"]: one for one in json.loads(listed.said.splitlines()[-1])}
    assert sorted(found) == sorted(done)
    assert found["rack-7"]["origin"] == "prod/on_premises.yml"
    assert found[ids[0]]["origin"] == "prod/aws_ec2.yml, EC2"
    assert found[ids[0]]["address"].startswith("10.")
    told = aws.client("ec2").describe_instances(InstanceIds=[ids[0]])["Reservations"][0]
    public = told["Instances"][0]["PublicIpAddress"]
    outside = bascule.targets("web", inventory=place, variables={"ec2_reach": "public"})
    assert {one.target: one.address for one in outside}[ids[0]] == public
    by_ssm = bascule.targets("web", inventory=place, variables={"ec2_reach": "ssm"})
    reached = {one.target: (one.address, one.connection) for one in by_ssm}
    assert reached[ids[0]] == (ids[0], "aws_ssm")
    assert reached["rack-7"] == ("rack-7", "ssh")
