"""moto with what it lacks of CodeDeploy: configurations and on-premises instances.

They are made with CreateDeploymentConfig, RegisterOnPremisesInstance and
AddTagsToOnPremisesInstances, and read as AWS answers them: at most 25 names in a batch. An Auto
Scaling group of a deployment group has a name and a hook; moto tells of its name alone.
"""

from __future__ import annotations

import sys
from typing import Any

from moto.codedeploy import responses
from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult, EmptyResult

CONFIGURATIONS: dict[str, dict[str, Any]] = {}
INSTANCES: dict[str, list[dict[str, str]]] = {}


def create_deployment_config(self: Any) -> ActionResult:
    names = ("deploymentConfigName", "minimumHealthyHosts", "computePlatform", "zonalConfig")
    given = {name: self._get_param(name) for name in names}
    told = {name: value for name, value in given.items() if value}
    CONFIGURATIONS[told["deploymentConfigName"]] = told
    return ActionResult({"deploymentConfigId": "1"})


def get_deployment_config(self: Any) -> ActionResult:
    name = self._get_param("deploymentConfigName")
    if name not in CONFIGURATIONS:
        raise JsonRESTError("DeploymentConfigDoesNotExistException", f"No configuration {name}")
    return ActionResult({"deploymentConfigInfo": CONFIGURATIONS[name]})


def register_on_premises_instance(self: Any) -> EmptyResult:
    INSTANCES[self._get_param("instanceName")] = []
    return EmptyResult()


def add_tags_to_on_premises_instances(self: Any) -> EmptyResult:
    for name in self._get_param("instanceNames"):
        INSTANCES[name] += self._get_param("tags")
    return EmptyResult()


def list_on_premises_instances(_self: Any) -> ActionResult:
    return ActionResult({"instanceNames": sorted(INSTANCES)})


def batch_get_on_premises_instances(self: Any) -> ActionResult:
    names = self._get_param("instanceNames")
    if len(names) > 25:
        raise JsonRESTError("BatchLimitExceededException", "At most 25 names")
    found = [{"instanceName": name, "tags": INSTANCES[name]} for name in names]
    return ActionResult({"instanceInfos": found})


def patch(_plane: object = None) -> None:
    """Add them to moto in this process."""
    for one in (
        create_deployment_config, get_deployment_config, register_on_premises_instance,
        add_tags_to_on_premises_instances, list_on_premises_instances,
        batch_get_on_premises_instances,
    ):  # fmt: skip
        setattr(responses.CodeDeployResponse, one.__name__, one)
    told = responses._deployment_group_info

    def with_hooks(group: Any) -> dict[str, Any]:
        about = told(group)
        about["autoScalingGroups"] = [
            {"name": name, "hook": f"CodeDeploy-managed-automatic-launch-deployment-hook-{name}"}
            for name in about.get("autoScalingGroups") or ()
        ]
        return about

    responses._deployment_group_info = with_hooks


if __name__ == "__main__":
    from moto.server import main as serve

    patch()
    serve(sys.argv[1:])
