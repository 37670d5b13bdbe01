# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lifecycle hooks of Auto Scaling while a deployment goes on: who comes waits, who leaves goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..module_utils._errors import BasculeError
from ..module_utils._routing import traffic_request
from ._aws import client, error_code
from ._providers import run_on_controller
from ._scaling import LEAVING, ScalingError, heartbeat, leaves, told, waiting_at
from ._watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ._record import Deployment, Record

# The shortest heartbeat timeout of a hook is 30 s; it is 1 h unless somebody says otherwise.
HEARTBEAT_SECONDS = 20.0


class HookWatch(Watch):
    """Keep instances waiting at a launch hook until the deployment can answer for them.

    A hook gives up after its heartbeat timeout; a deployment may take longer. Every heartbeat
    begins that time anew (RecordLifecycleActionHeartbeat). Instances that wait at a termination
    hook are seen off (see ``see_off``).
    """

    def __init__(
        self,
        opened: Callable[[], Record],
        deployment_id: str,
        scaling: Mapping[str, Any],
        interval: float = HEARTBEAT_SECONDS,
    ) -> None:
        """Keep how to open the record.

        :param scaling: ``hook``, ``termination_hook``, ``groups``, ``traffic`` (see ``see_off``),
            and ``held_for``: ids of the deployments before this one for which the groups are held
        :param interval: seconds between two heartbeats
        """
        super().__init__(opened, deployment_id)
        self._scaling = scaling
        self._hook, self._groups = str(scaling["hook"]), [str(one) for one in scaling["groups"]]
        self._among = [deployment_id, *scaling.get("held_for", ())]
        self._interval = interval

    def turn(self, record: Record) -> float:
        """Send heartbeats for the groups whose turn it is, and see off who leaves them."""
        waits = []
        for group in self._groups:
            region, wait = record.hook_turn(self._deployment_id, self._among, group, self._interval)
            waits.append(wait)
            if not region:
                continue
            try:
                if self._hook:
                    heartbeat(group, self._hook, region)
                if self._scaling.get("termination_hook"):
                    self._see_off(record, group, region)
            except BasculeError as error:
                record.note_hook_failure(self._deployment_id, str(error))
        return min(waits)

    def _see_off(self, record: Record, group: str, region: str) -> None:
        deployments = [record.deployment(self._deployment_id)]
        _answered, troubles = see_off(record, deployments, self._scaling, [group], region=region)
        for trouble in troubles:
            record.note_hook_failure(self._deployment_id, trouble)


def see_off(
    record: Record,
    deployments: Sequence[Deployment],
    scaling: Mapping[str, Any],
    groups: Sequence[str],
    *,
    region: str | None = None,
    last: bool = False,
) -> tuple[list[str], list[str]]:
    """Let instances of deployments go that wait at a termination hook, once no user reaches them.

    A target that nobody has begun with ends as one that has left the fleet. One that is worked on
    is kept waiting until that has ended: nobody takes it away under its hooks, and what would put
    it back into the traffic is over. Then its instance is taken out of the traffic, and the hook is
    answered when it is seen to be out, which is at a later turn: nothing waits here.

    Auto Scaling itself deregisters an instance from the target groups that are attached to its
    group before the hook; then there is nothing left to be ordered.

    :param deployments: those whose targets they may be, oldest first
    :param scaling: ``termination_hook``, and ``traffic``: ``provider`` and ``options`` of the
        action traffic, None without a load balancer
    :param last: the deployments have ended; wait for the drain as long as the options say
    :returns: what was answered, and what went wrong, as sentences
    :raises ScalingError: the groups cannot be described
    """
    hook, traffic = str(scaling["termination_hook"]), scaling.get("traffic")
    # Beside other work: it must not hang for long when AWS does not answer.
    asked: Any = client("autoscaling", region=region, attempts=2, connect=5, read=10)
    waiting = waiting_at(asked, groups, LEAVING)
    found = {
        str(one["instance"]): (deployment, one)
        for deployment in deployments
        for one in deployment.options.get("endpoints") or ()
        if one.get("instance") in waiting
    }
    answered, troubles = [], []
    if last:
        # All of them drain at the same time.
        for deployment, one in found.values():
            try:
                _is_out(record, deployment, traffic, one, wait=False)
            except BasculeError:
                # The second time it is told.
                continue
    for instance, (deployment, one) in sorted(found.items()):
        group = waiting[instance]
        try:
            free = last or _is_free(record, deployment, one, leaves(instance, group))
            if free and _is_out(record, deployment, traffic, one, wait=last):
                _tell(asked, "complete_lifecycle_action", hook, group, instance,
                      LifecycleActionResult="CONTINUE")  # fmt: skip
                answered.append(f"{instance} of {group}: CONTINUE at {hook}")
            else:
                _tell(asked, "record_lifecycle_action_heartbeat", hook, group, instance)
        except BasculeError as error:
            troubles.append(str(error))
    return answered, troubles


def _is_free(
    record: Record, deployment: Deployment, endpoint: Mapping[str, Any], message: str
) -> bool:
    """Write down that a target leaves; False while it is worked on."""
    name = str(endpoint["target"])
    if name not in {one.name for one in record.targets(deployment.id)}:
        return True
    return record.see_off(deployment.id, name, message)


def _is_out(
    record: Record,
    deployment: Deployment,
    traffic: Mapping[str, Any] | None,
    endpoint: Mapping[str, Any],
    *,
    wait: bool,
) -> bool:
    """Take a target out of the traffic; tell whether its last requests have ended.

    :param wait: until they have, as long as the options say
    :raises ScalingError: the load balancer does not do it
    """
    if not traffic:
        return True
    # It is not put back, however long its requests take.
    options = {**traffic["options"], "on_drain_timeout": "proceed"}
    name = str(endpoint["target"])
    pool = (deployment.options.get("pool_of") or {}).get(name) or endpoint.get("pool")
    request = traffic_request(
        {
            "state": "drained", "provider": traffic["provider"], "targets": [endpoint],
            "pool": pool, "options": options if wait else {**options, "drain_timeout": 0},
        },
        name,
        check=False,
    )  # fmt: skip
    answer = run_on_controller(request, record=record, deployment=deployment.id)
    if answer.get("failed"):
        raise ScalingError(
            f"{endpoint['instance']} waits at the termination hook and could not be taken out of "
            f"the traffic: {answer['msg']}"
        )
    # What was ordered just now may not be obeyed yet: the next look tells.
    ending = any(one["ending"] for one in answer["targets"].values())
    return wait or not (answer["changed"] or ending)


def _tell(scaling: Any, operation: str, hook: str, group: str, instance: str, **more: str) -> None:
    """Answer the hook of an instance, or keep it waiting, unless it waits no more.

    :raises ScalingError: AWS refuses
    """
    from botocore.exceptions import ClientError

    with told(f"The lifecycle hook {hook} of {instance} cannot be answered"):
        try:
            getattr(scaling, operation)(
                LifecycleHookName=hook, AutoScalingGroupName=group, InstanceId=instance, **more
            )
        except ClientError as error:
            # It waits at another hook, or somebody else has answered.
            if error_code(error) != "ValidationError" or "No active" not in str(error):
                raise
