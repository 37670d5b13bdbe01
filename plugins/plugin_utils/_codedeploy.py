# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a deployment group of AWS CodeDeploy. Nothing is changed there."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..module_utils._errors import UsageError
from ._aws import client, error_code, reason

# BatchGetOnPremisesInstances takes so many names at once.
NAMES_A_CALL = 25
_PREDEFINED = "CodeDeployDefault."
_MISSING = frozenset({"ApplicationDoesNotExistException", "DeploymentGroupDoesNotExistException"})


@dataclasses.dataclass(frozen=True)
class Read:
    """What CodeDeploy says of a group; ``configuration`` is None for a predefined one."""

    group: dict[str, Any]
    configuration: dict[str, Any] | None
    on_premises: list[dict[str, Any]]
    region: str


def read_group(application: str, name: str) -> Read:
    """Read a deployment group, its configuration, and the on-premises instances if it has such.

    :raises UsageError: there is none, or AWS refuses
    """
    from botocore.exceptions import BotoCoreError, ClientError

    deploy: Any = client("codedeploy")
    try:
        answer = deploy.get_deployment_group(applicationName=application, deploymentGroupName=name)
        group = answer["deploymentGroupInfo"]
        configuration = None
        configured = str(group.get("deploymentConfigName") or _PREDEFINED)
        if not configured.startswith(_PREDEFINED):
            found = deploy.get_deployment_config(deploymentConfigName=configured)
            configuration = found["deploymentConfigInfo"]
        hosts: list[dict[str, Any]] = []
        if group.get("onPremisesInstanceTagFilters") or group.get("onPremisesTagSet"):
            hosts = _on_premises(deploy)
    except ClientError as error:
        if error_code(error) in _MISSING:
            raise UsageError(
                f"CodeDeploy in {deploy.meta.region_name} has no deployment group "
                f"{application}/{name}: {reason(error)} `aws deploy list-deployment-groups "
                f"--application-name {application}` lists those there are."
            ) from error
        raise UsageError(f"CodeDeploy cannot be read: {reason(error)}") from error
    except BotoCoreError as error:
        raise UsageError(f"CodeDeploy cannot be read: {reason(error)}") from error
    return Read(group, configuration, hosts, str(deploy.meta.region_name))


def _on_premises(deploy: Any) -> list[dict[str, Any]]:
    """Return all registered on-premises instances with their tags."""
    names: list[str] = []
    given: dict[str, str] = {"registrationStatus": "Registered"}
    # botocore has no paginator for this call.
    while True:
        answer = deploy.list_on_premises_instances(**given)
        names += answer.get("instanceNames") or []
        if not answer.get("nextToken"):
            break
        given["nextToken"] = answer["nextToken"]
    found: list[dict[str, Any]] = []
    for first in range(0, len(names), NAMES_A_CALL):
        answer = deploy.batch_get_on_premises_instances(
            instanceNames=names[first : first + NAMES_A_CALL]
        )
        found += answer.get("instanceInfos") or []
    return found
