"""A deployment group of CodeDeploy becomes an inventory that deploys as it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support import aws as moto
from support.bundles import files
from support.ec2 import launch, scaling_group
from support.rollout import Controller

import bascule
from bascule import schemas

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[moto.Aws]:
    with moto.running(tmp_path, "support.codedeploy_server") as running:
        running.use(monkeypatch)
        yield running


def describe(aws: moto.Aws, topic: str) -> None:
    """Make a deployment group as people have it."""
    deploy = aws.client("codedeploy")
    deploy.create_application(applicationName="shop", computePlatform="Server")
    deploy.create_deployment_config(
        deploymentConfigName="careful",
        minimumHealthyHosts={"type": "FLEET_PERCENT", "value": 50},
        computePlatform="Server",
    )
    for number in range(30):
        deploy.register_on_premises_instance(instanceName=f"rack-{number}")
    role = {"Key": "Role", "Value": "web"}
    deploy.add_tags_to_on_premises_instances(instanceNames=["rack-7"], tags=[role])
    deploy.create_deployment_group(
        applicationName="shop", deploymentGroupName="prod-web", deploymentConfigName="careful",
        serviceRoleArn="arn:aws:iam::123456789012:role/deploy",
        ec2TagSet={
            "ec2TagSetList": [
                [{**role, "Type": "KEY_AND_VALUE"}], [{"Key": "Production", "Type": "KEY_ONLY"}],
            ]
        },
        onPremisesInstanceTagFilters=[{**role, "Type": "KEY_AND_VALUE"}],
        autoScalingGroups=["workers"],
        triggerConfigurations=[
            {
                "triggerName": "pager", "triggerTargetArn": topic,
                "triggerEvents": ["DeploymentStart", "DeploymentFailure"],
            }
        ],
        autoRollbackConfiguration={"enabled": True, "events": ["DEPLOYMENT_FAILURE"]},
        deploymentStyle={
            "deploymentType": "IN_PLACE", "deploymentOption": "WITHOUT_TRAFFIC_CONTROL"
        },
    )  # fmt: skip


def test_an_imported_group_deploys_as_it_is(aws: moto.Aws, tmp_path: Path) -> None:
    topic = aws.client("sns").create_topic(Name="pager")["TopicArn"]
    describe(aws, topic)
    tagged = launch(aws, 1, Role="web", Production="")
    launch(aws, 1, Role="web")
    ids = [*tagged, *scaling_group(aws, "workers", 1)]
    place = tmp_path / "imported"
    controller = Controller(place, tmp_path / "state", environment=aws.environment)
    run = controller.command("import", "codedeploy", "shop", "prod-web", "-o", str(place))
    assert run.status == 0, run.said
    assert "serviceRoleArn" in run.said
    assert f"bascule deploy in_place -i {place}" in run.said
    given: dict[str, Any] = yaml.safe_load((place / "group_vars" / "prod_web.yml").read_text())
    assert problems(given) == []
    assert given["deploy_minimum_healthy_hosts"] == "50%"

    found = bascule.targets("targets", inventory=place)
    assert sorted(one.target for one in found) == sorted([*ids, "rack-7"])

    controller.variables = {
        "ansible_connection": "local", "ansible_become": False,
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "deploy_sysroot": f"{tmp_path}/hosts/{{{{ inventory_hostname }}}}",
    }  # fmt: skip
    revision = files(tmp_path / "v1", {"VERSION": "1\n"})
    run = controller.deploy("in_place", "--revision", str(revision))
    assert run.status == 0, run.said
    [deployment] = controller.deployments()
    assert (deployment.application, deployment.group) == ("shop", "prod-web")
    assert deployment.plan["minimum_healthy"] == 2
    assert deployment.options["rollback_on"] == ["DEPLOYMENT_FAILURE"]
    for name in (*ids, "rack-7"):
        assert (tmp_path / "hosts" / name / "opt/files/VERSION").is_file()

    again = controller.command("import", "codedeploy", "shop", "prod-web", "-o", str(place))
    assert again.status == 2
    assert "is there already" in again.said


def problems(variables: dict[str, Any]) -> list[str]:
    import jsonschema

    schema = json.loads(schemas.text("group-variables"))
    return [one.message for one in jsonschema.Draft7Validator(schema).iter_errors(variables)]


@pytest.mark.usefixtures("aws")
def test_what_there_is_not_is_told(tmp_path: Path) -> None:
    with pytest.raises(bascule.UsageError, match="has no deployment group shop/web"):
        bascule.import_codedeploy("shop", "web", tmp_path / "x")
    assert not (tmp_path / "x").exists()
