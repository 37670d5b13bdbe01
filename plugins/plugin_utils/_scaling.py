# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Auto Scaling groups during a deployment: held still, let go again, and their hooks answered."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from ..module_utils._errors import BasculeError, UsageError
from ..module_utils._green_fleet import POOL_TAG, tag_of
from ._aws import client, error_code, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ._record import Deployment, Hold, Record

# DescribeAutoScalingInstances takes so many ids at once.
IDS_A_CALL = 50
# LifecycleState of an instance that waits at a launch hook, and at a termination hook.
COMING, LEAVING = "Pending:Wait", "Terminating:Wait"
# Failures behind which the end of an instance may stand.
_SUSPECT = frozenset({"host", "traffic"})
# What EC2 calls an instance that does not come back.
GONE = frozenset({"shutting-down", "terminated"})
SUSPENDABLE = (
    "AddToLoadBalancer", "AlarmNotification", "AZRebalance", "HealthCheck", "InstanceRefresh",
    "Launch", "ReplaceUnhealthy", "ScheduledActions", "Terminate",
)  # fmt: skip


class ScalingError(BasculeError):
    """Auto Scaling or EC2 refused, or could not be reached."""

    kind = "scaling"


@contextlib.contextmanager
def told(doing: str) -> Iterator[None]:
    """Turn an error of AWS into one sentence; ``doing`` begins it."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise ScalingError(f"{doing}: {reason(error)}") from error


def hold(
    record: Record,
    deployment_id: str,
    groups: Sequence[str],
    processes: Sequence[str],
    *,
    hook: str = "",
    check: bool = False,
) -> dict[str, dict[str, list[str]]]:
    """Suspend processes of Auto Scaling groups for a deployment.

    What a person has suspended is not ours to resume; what another deployment has, is ours, too:
    the last of them resumes it.

    :param hook: the launch hook at which instances of the groups may wait meanwhile
    :param check: change nothing
    :returns: by group what was suspended ``before`` and is ``after``
    :raises ScalingError: AWS refuses
    :raises UsageError: there is no such group, or no such process
    """
    unknown = sorted(set(processes) - set(SUSPENDABLE))
    if unknown:
        raise UsageError(
            f"Auto Scaling has no process {unknown[0]}. deploy_auto_scaling_suspend can name "
            f"{', '.join(SUSPENDABLE)}."
        )
    if not groups or not (processes or hook):
        return {}
    scaling: Any = client("autoscaling")
    region = str(scaling.meta.region_name)
    seen: dict[str, dict[str, list[str]]] = {}
    suspended = suspended_now(scaling, groups)
    for group in groups:
        by_us = {name for one in record.holds(group, region) for name in one.processes}
        before = suspended[group]
        ours = [name for name in processes if name not in before or name in by_us]
        missing = [name for name in processes if name not in before]
        if not check:
            record.hold(deployment_id, group, region, ours, hook=None if processes else hook)
            if missing:
                with told(f"The Auto Scaling group {group} cannot be held still"):
                    scaling.suspend_processes(AutoScalingGroupName=group, ScalingProcesses=missing)
        seen[group] = {"before": sorted(before), "after": sorted({*before, *missing})}
    return seen


def suspended_now(scaling: Any, groups: Sequence[str]) -> dict[str, set[str]]:
    """Return which processes are suspended, by group."""
    with told("The Auto Scaling groups cannot be described"):
        answer = (
            scaling.get_paginator("describe_auto_scaling_groups")
            .paginate(AutoScalingGroupNames=list(groups))
            .build_full_result()
        )
    found = {
        one["AutoScalingGroupName"]: {
            process["ProcessName"] for process in one.get("SuspendedProcesses") or ()
        }
        for one in answer["AutoScalingGroups"]
    }
    missing = [name for name in groups if name not in found]
    if missing:
        raise UsageError(
            f"There is no Auto Scaling group {missing[0]} in {scaling.meta.region_name}. Check "
            "deploy_auto_scaling_groups and AWS_REGION."
        )
    return found


def release(record: Record, deployment_ids: Sequence[str]) -> list[str]:
    """Resume what was suspended for deployments that have ended, and what ended ones left behind.

    Processes that another deployment still needs suspended stay so.

    :returns: names of the Auto Scaling groups
    :raises ScalingError: AWS refuses; what could not be resumed stays in the record
    """
    names = []
    for held in record.holds_of(deployment_ids):
        if not held.ended:
            continue
        everybody = record.holds(held.scaling_group, held.region)
        ended = [one for one in everybody if one.ended]
        needed = {name for one in everybody if not one.ended for name in one.processes}
        ours = sorted({name for one in ended for name in one.processes} - needed)
        if ours:
            _resume(held, ours)
        for one in ended:
            record.release_hold(one)
        names.append(held.scaling_group)
    return names


def let_go(record: Record, deployment_ids: Sequence[str]) -> list[str]:
    """Do the same as ``release``, and return what went wrong as warnings."""
    try:
        release(record, deployment_ids)
    except BasculeError as error:
        return [str(error)]
    return []


def _resume(held: Hold, processes: list[str]) -> None:
    group = held.scaling_group
    doing = (
        f"The Auto Scaling group {group} could not be let go: {', '.join(processes)} stay "
        "suspended. The next deployment of it resumes them, or do it by hand: `aws autoscaling "
        f"resume-processes --auto-scaling-group-name {group} --scaling-processes "
        f"{' '.join(processes)}`"
    )
    from botocore.exceptions import ClientError

    scaling: Any = client("autoscaling", region=held.region)
    with told(doing):
        try:
            scaling.resume_processes(AutoScalingGroupName=group, ScalingProcesses=processes)
        except ClientError as error:
            # The group has been deleted meanwhile.
            if error_code(error) != "ValidationError" or group in _existing(scaling, group):
                raise


def _existing(scaling: Any, group: str) -> list[str]:
    answer = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])
    return [one["AutoScalingGroupName"] for one in answer["AutoScalingGroups"]]


def heartbeat(group: str, hook: str, region: str) -> list[str]:
    """Begin the time anew that instances of a group may wait at a launch hook; return their ids.

    :raises ScalingError: AWS refuses
    """
    # Beside other work: it must not hang for long when AWS does not answer.
    scaling: Any = client("autoscaling", region=region, attempts=2, connect=5, read=10)
    kept = []
    troubles = []
    for instance in waiting_at(scaling, [group], COMING):
        try:
            if tell_hook(scaling, "record_lifecycle_action_heartbeat", hook, group, instance):
                kept.append(instance)
        except ScalingError as error:
            # The others are kept waiting nevertheless.
            troubles.append(str(error))
    if troubles:
        raise ScalingError(summed_up(troubles))
    return kept


def summed_up(troubles: Sequence[str]) -> str:
    """Return one sentence for what has gone wrong with many instances, mostly for one reason."""
    others = len(troubles) - 1
    return troubles[0] + (f" (So it is with {others} more.)" if others else "")


def tell_hook(
    scaling: Any, operation: str, hook: str, group: str, instance: str, **more: str
) -> bool:
    """Answer the hook of an instance, or keep it waiting; False where it waits for nobody any more.

    :param operation: ``complete_lifecycle_action`` or ``record_lifecycle_action_heartbeat``
    :raises ScalingError: AWS refuses
    """
    from botocore.exceptions import ClientError

    wanted = "answered" if operation == "complete_lifecycle_action" else "kept waiting"
    with told(f"The lifecycle hook {hook} of {instance} in {group} cannot be {wanted}"):
        try:
            getattr(scaling, operation)(
                LifecycleHookName=hook, AutoScalingGroupName=group, InstanceId=instance, **more
            )
        except ClientError as error:
            # It waits at another hook, or somebody else has answered.
            if error_code(error) != "ValidationError" or "No active" not in str(error):
                raise
            return False
    return True


def waiting_at(scaling: Any, groups: Sequence[str], state: str) -> dict[str, str]:
    """Return the instances that wait at a hook, with their groups.

    :param state: ``COMING`` or ``LEAVING``
    """
    if not groups:
        return {}
    with told("The Auto Scaling groups cannot be described"):
        answer = (
            scaling.get_paginator("describe_auto_scaling_groups")
            .paginate(AutoScalingGroupNames=list(groups))
            .build_full_result()
        )
    return {
        one["InstanceId"]: found["AutoScalingGroupName"]
        for found in answer["AutoScalingGroups"]
        for one in found.get("Instances") or ()
        if one["LifecycleState"] == state
    }


def answer_hooks(
    record: Record, deployments: Sequence[Deployment], hook: str, groups: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Answer the launch hook of every instance that waits for it and has got its revision, or not.

    CONTINUE puts an instance into service, ABANDON has it replaced. That is also for an instance
    that nobody has brought a revision because the deployment failed and was not rolled back: it
    would wait for nothing, and go into service without one.

    :param deployments: what was done, oldest first; the last word on a target counts
    :param groups: where others may wait that no deployment knows
    :returns: what was answered, and who is left waiting (for the next deployment, or because AWS
        refuses), as sentences
    :raises ScalingError: AWS does not say who waits
    """
    verdicts: dict[str, str] = {}
    for one in deployments:
        known = {row["target"]: row.get("instance") for row in one.options.get("endpoints") or ()}
        for target in record.targets(one.id):
            instance = str(known.get(target.name) or "")
            if instance.startswith("i-"):
                verdicts[instance] = "CONTINUE" if target.status == "Succeeded" else "ABANDON"
    scaling: Any = client("autoscaling")
    waiting = waiting_at(scaling, groups, COMING)
    region = str(scaling.meta.region_name)
    ids = sorted(set(verdicts) - set(waiting))
    for first in range(0, len(ids), IDS_A_CALL):
        with told("The instances of the Auto Scaling groups cannot be described"):
            answer = (
                scaling.get_paginator("describe_auto_scaling_instances")
                .paginate(InstanceIds=ids[first : first + IDS_A_CALL])
                .build_full_result()
            )
        waiting |= {
            one["InstanceId"]: one["AutoScalingGroupName"]
            for one in answer["AutoScalingInstances"]
            if one["LifecycleState"] == COMING
        }
    succeeded = any(one.status == "Succeeded" for one in deployments)
    answered, left, troubles = [], [], []
    for instance, group in sorted(waiting.items()):
        others = any(not held.ended for held in record.holds(group, region))
        verdict = verdicts.get(instance) or ("" if succeeded or others else "ABANDON")
        if not verdict:
            left.append(
                f"{instance} of {group} was launched too late for this deployment and waits at the "
                f"hook {hook}. Bring it its revision with deploy_revision=current and "
                "deploy_only_outdated=true."
            )
            continue
        try:
            if tell_hook(scaling, "complete_lifecycle_action", hook, group, instance,
                         LifecycleActionResult=verdict):  # fmt: skip
                answered.append(f"{instance} of {group}: {verdict}")
        except ScalingError as error:
            # The others are answered nevertheless.
            troubles.append(str(error))
    if troubles:
        left.append(summed_up(troubles))
    return answered, left


def about_instances(instances: Sequence[str], region: str) -> dict[str, dict[str, str]]:
    """Return ``address`` and ``pool`` (by its tag) of instances; nothing where EC2 does not say."""
    ec2: Any = client("ec2", region=region, attempts=2, connect=5, read=10)
    try:
        with told("The instances cannot be described"):
            answer = (
                ec2.get_paginator("describe_instances")
                .paginate(InstanceIds=list(instances))
                .build_full_result()
            )
    except ScalingError:
        return {}
    return {
        one["InstanceId"]: {
            "address": one.get("PrivateIpAddress") or "",
            "pool": tag_of(one, POOL_TAG),
        }
        for part in answer["Reservations"]
        for one in part["Instances"]
    }


def gone(instance: str, *, ask: Callable[[str], Any] | None = None) -> str:
    """Return how an instance came to its end, as a sentence; empty if it lives or nobody knows.

    :param instance: id at EC2; anything else is no instance
    """
    if not instance.startswith("i-"):
        return ""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = (ask or _describe)(instance)
    except ClientError as error:
        if error_code(error) == "InvalidInstanceID.NotFound":
            return f"The instance {instance} is not there any more."
        return ""
    except (BotoCoreError, BasculeError):
        return ""
    found = [one for part in answer["Reservations"] for one in part["Instances"]]
    if not found:
        return f"The instance {instance} is not there any more."
    state = found[0]["State"]["Name"]
    if state not in GONE:
        return ""
    why = (found[0].get("StateReason") or {}).get("Message") or ""
    tags = {tag["Key"]: tag["Value"] for tag in found[0].get("Tags") or ()}
    group = tags.get("aws:autoscaling:groupName")
    of_group = f" of the Auto Scaling group {group}" if group else ""
    return f"The instance {instance}{of_group} is {state}{f' ({why})' if why else ''}."


def _describe(instance: str) -> Any:
    # Asked when something has failed already: an answer that does not come must not cost much.
    ec2: Any = client("ec2", attempts=2, connect=5, read=10)
    return ec2.describe_instances(InstanceIds=[instance])


def leaving(instance: str) -> str:
    """Return that Auto Scaling is terminating an instance, as a sentence; empty if it is not.

    At a termination hook it still runs, so that EC2 says nothing of it.
    """
    if not instance.startswith("i-"):
        return ""
    # Asked when something has failed already, as ``_describe``.
    scaling: Any = client("autoscaling", attempts=2, connect=5, read=10)
    try:
        with told(f"The instance {instance} cannot be described"):
            answer = scaling.describe_auto_scaling_instances(InstanceIds=[instance])
    except ScalingError:
        return ""
    for one in answer["AutoScalingInstances"]:
        if one["LifecycleState"].startswith("Terminating"):
            return leaves(instance, one["AutoScalingGroupName"])
    return ""


def leaves(instance: str, group: str) -> str:
    """Return what is written down of a target whose instance Auto Scaling takes away."""
    return f"The instance {instance} of the Auto Scaling group {group} is being terminated."


def leave_if_gone(record: Record, deployment_id: str, target: str, kind: str) -> str:
    """Write a target that failed off as one that has left the fleet, if its instance is gone.

    :param kind: the kind of its failure; a script that failed has run on a host that was there
    :returns: how it came to its end, empty where the failure stands
    """
    if kind not in _SUSPECT:
        return ""
    options = record.deployment(deployment_id).options
    endpoints = options.get("endpoints") or []
    found = next((one.get("instance") for one in endpoints if one["target"] == target), "")
    instance = str(found or "")
    message = gone(instance)
    if not message and (options.get("scaling") or {}).get("termination_hook"):
        message = leaving(instance)
    if message:
        record.leave(deployment_id, target, message)
    return message
