"""moto with what it lacks of Auto Scaling: hooks that hold instances, and their answers.

``python -m support.scaling_server -H HOST -p PORT`` is moto's server with these differences, which
are AWS's behaviour:

- an instance that a group with a launch hook launches is ``Pending:Wait`` until it is answered
- TerminateInstanceInAutoScalingGroup leaves an instance of a group with a termination hook
  ``Terminating:Wait`` until it is answered; either answer ends it
- CompleteLifecycleAction at a launch hook: CONTINUE makes it ``InService``, ABANDON terminates and
  replaces it; it refuses an instance that does not wait, and a hook that there is not
- RecordLifecycleActionHeartbeat is counted in the instance's tag ``heartbeats``; it refuses as the
  other does
- while ``Launch`` is suspended a group launches nothing, whatever its desired capacity is; when it
  is resumed the group launches what it lacks
- DescribeAutoScalingInstances refuses more than 50 ids
"""

from __future__ import annotations

import sys
from typing import Any

from moto.autoscaling import models, responses
from moto.autoscaling.exceptions import ValidationError
from moto.core.responses import ActionResult, EmptyResult

LAUNCHING = "autoscaling:EC2_INSTANCE_LAUNCHING"
TERMINATING = "autoscaling:EC2_INSTANCE_TERMINATING"


def patch(_plane: object = None) -> None:
    """Change moto in this process."""
    group, backend = models.FakeAutoScalingGroup, models.AutoScalingBackend
    launch = group.replace_autoscaling_group_instances
    describe, resume = backend.describe_auto_scaling_instances, backend.resume_processes
    terminate = backend.terminate_instance

    def launch_unless_suspended(self: Any, count_needed: int, propagated_tags: Any) -> None:
        if "Launch" in [one["ProcessName"] for one in self.suspended_processes]:
            return
        before = set(self.instance_states)
        launch(self, count_needed, propagated_tags)
        if hooks_of(self.autoscaling_backend, self.name):
            for state in set(self.instance_states) - before:
                state.lifecycle_state = "Pending:Wait"

    def active_instances(self: Any) -> list[Any]:
        # Those that wait count for the capacity; otherwise moto would launch them again.
        states = ("InService", "Pending:Wait")
        return [one for one in self.instance_states if one.lifecycle_state in states]

    def terminate_or_wait(self: Any, instance_id: str, should_decrement: bool) -> Any:
        group, state = state_of(self, instance_id)
        if not hooks_of(self, group.name, TERMINATING):
            return terminate(self, instance_id, should_decrement)
        before = group.desired_capacity
        state.lifecycle_state = "Terminating:Wait"
        group.set_desired_capacity(before - should_decrement)
        return models.TerminateInstanceActivity(state.instance, before)

    def describe_few(self: Any, instance_ids: list[str]) -> Any:
        if len(instance_ids) > 50:
            raise ValidationError("At most 50 instance ids can be described at once")
        return describe(self, instance_ids)

    def resume_and_launch(self: Any, group_name: str, scaling_processes: list[str]) -> None:
        if group_name not in self.autoscaling_groups:
            raise ValidationError(f"AutoScalingGroup name not found - no such group: {group_name}")
        resume(self, group_name, scaling_processes)
        one = self.autoscaling_groups[group_name]
        one.set_desired_capacity(one.desired_capacity)

    group.replace_autoscaling_group_instances = launch_unless_suspended
    group.active_instances = active_instances
    backend.describe_auto_scaling_instances = describe_few
    backend.resume_processes = resume_and_launch
    backend.terminate_instance = terminate_or_wait
    responses.AutoScalingResponse.complete_lifecycle_action = complete_lifecycle_action
    responses.AutoScalingResponse.record_lifecycle_action_heartbeat = heartbeat


def state_of(backend: Any, instance: str) -> tuple[Any, Any]:
    """Return the group that an instance is of, and what the group knows of it."""
    for group in backend.autoscaling_groups.values():
        for one in group.instance_states:
            if one.instance.id == instance:
                return group, one
    raise ValidationError(f"Instance Id not found - No managed instance found: {instance}")


def hooks_of(backend: Any, name: str, transition: str = LAUNCHING) -> list[str]:
    """The hooks of a group, those at the launch or those at the termination."""
    hooks = backend.lifecycle_hooks.values()
    return [
        one.name
        for one in hooks
        if one.auto_scaling_group_name == name and one.lifecycle_transition == transition
    ]


def waiting_one(asked: Any) -> tuple[Any, Any]:
    """Return the group and the instance, which waits at the hook, that a request names."""
    name, hook = asked._get_param("AutoScalingGroupName"), asked._get_param("LifecycleHookName")
    instance = asked._get_param("InstanceId")
    backend = asked.autoscaling_backend
    states = [
        state
        for transition, state in ((LAUNCHING, "Pending:Wait"), (TERMINATING, "Terminating:Wait"))
        if hook in hooks_of(backend, name, transition)
    ]
    if not states:
        raise ValidationError(f"No lifecycle hook {hook} of the group {name}")
    group = backend.autoscaling_groups[name]
    for one in group.instance_states:
        if one.instance.id == instance and one.lifecycle_state in states:
            return group, one
    raise ValidationError(f"No active Lifecycle Action found with instance ID {instance}")


def heartbeat(self: Any) -> EmptyResult:
    """Count a heartbeat, as RecordLifecycleActionHeartbeat takes it."""
    _group, waiting = waiting_one(self)
    ec2 = self.autoscaling_backend.ec2_backend
    known = {tag["key"]: tag["value"] for tag in ec2.describe_tags(
        filters={"resource-id": [waiting.instance.id]})}  # fmt: skip
    ec2.create_tags([waiting.instance.id], {"heartbeats": str(int(known.get("heartbeats", 0)) + 1)})
    return EmptyResult()


def complete_lifecycle_action(self: Any) -> ActionResult:
    """Answer a hook, as CompleteLifecycleAction does."""
    verdict = self._get_param("LifecycleActionResult")
    group, waiting = waiting_one(self)
    backend, instance = self.autoscaling_backend, waiting.instance.id
    if verdict in ("CONTINUE", "ABANDON") and waiting.lifecycle_state == "Terminating:Wait":
        group.instance_states.remove(waiting)
        backend.ec2_backend.terminate_instances([instance])
    elif verdict == "CONTINUE":
        waiting.lifecycle_state = "InService"
    elif verdict == "ABANDON":
        group.instance_states.remove(waiting)
        backend.ec2_backend.terminate_instances([instance])
        group.set_desired_capacity(group.desired_capacity)
    else:
        raise ValidationError(
            f"The LifecycleActionResult {verdict} is neither CONTINUE nor ABANDON"
        )
    return EmptyResult()


def main() -> None:
    from moto.server import main as serve

    patch()
    serve(sys.argv[1:])


if __name__ == "__main__":
    main()
