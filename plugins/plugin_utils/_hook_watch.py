# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lifecycle hooks of Auto Scaling while a deployment goes on: who comes waits, who leaves goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..module_utils._errors import BasculeError
from ..module_utils._routing import traffic_request
from ._aws import client
from ._providers import run_on_controller
from ._scaling import (
    LEAVING,
    ScalingError,
    about_instances,
    heartbeat,
    leaves,
    summed_up,
    tell_hook,
    waiting_at,
)
from ._watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ._record import Deployment, Record

# The shortest heartbeat timeout of a hook is 30 s; it is 1 h unless somebody says otherwise.
HEARTBEAT_SECONDS = 20.0
HTTP_PORT = 80


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
            turn = record.hook_turn(self._deployment_id, self._among, group, self._interval)
            waits.append(turn.wait)
            if not turn.region:
                continue
            try:
                if self._hook:
                    heartbeat(group, self._hook, turn.region)
                if self._scaling.get("termination_hook"):
                    self._see_off(record, group, turn.region)
            except BasculeError as error:
                record.note_hook_failure(self._deployment_id, str(error))
            finally:
                record.end_hook_turn(self._deployment_id, self._among, group, turn)
        return min(waits)

    def _see_off(self, record: Record, group: str, region: str) -> None:
        deployments = [record.deployment(self._deployment_id)]
        _answered, troubles = see_off(record, deployments, self._scaling, [group], region=region)
        if troubles:
            record.note_hook_failure(self._deployment_id, summed_up(troubles))


def see_off(
    record: Record,
    deployments: Sequence[Deployment],
    scaling: Mapping[str, Any],
    groups: Sequence[str],
    *,
    region: str | None = None,
    last: bool = False,
) -> tuple[list[str], list[str]]:
    """Let instances go that wait at a termination hook, once no user reaches them.

    A target that nobody has begun with ends as one that has left the fleet. One that is worked on
    is kept waiting until that has ended: nobody takes it away under its hooks, and what would put
    it back into the traffic is over. Then its instance is taken out of the traffic, and the hook is
    answered when it is seen to be out, which is at a later turn: nothing waits here.

    Auto Scaling itself deregisters an instance from the target groups that are attached to its
    group before the hook; then there is nothing left to be ordered.

    :param deployments: those whose targets they may be, oldest first
    :param scaling: ``termination_hook``, and ``traffic``: ``provider`` and ``options`` of the
        action traffic, None without a load balancer
    :param last: the deployments have ended; wait for the drain as long as the options say, and see
        those off, too, that no deployment has made a target
    :returns: what was answered, and what went wrong, as sentences
    :raises ScalingError: the groups cannot be described
    """
    hook, traffic = str(scaling["termination_hook"]), scaling.get("traffic")
    # Beside other work: it must not hang for long when AWS does not answer.
    asked: Any = client("autoscaling", region=region, attempts=2, connect=5, read=10)
    waiting = waiting_at(asked, groups, LEAVING)
    found = {
        str(one["instance"]): Leaver(deployment, one)
        for deployment in deployments
        for one in deployment.options.get("endpoints") or ()
        if one.get("instance") in waiting
    }
    if last:
        found |= _strangers(record, deployments[-1], waiting, found, str(asked.meta.region_name))
    answered: list[str] = []
    troubles: list[str] = []
    free = []
    for instance, leaver in sorted(found.items()):
        try:
            if last or _is_free(record, leaver, leaves(instance, waiting[instance])):
                free.append(leaver)
        except BasculeError as error:
            troubles.append(str(error))
    gone, refused = _out(record, traffic, free, wait=last)
    troubles += refused
    for instance in sorted(found):
        group = waiting[instance]
        try:
            if instance in gone:
                tell_hook(
                    asked, "complete_lifecycle_action", hook, group, instance,
                    LifecycleActionResult="CONTINUE",
                )  # fmt: skip
                answered.append(f"{instance} of {group}: CONTINUE at {hook}")
            else:
                tell_hook(asked, "record_lifecycle_action_heartbeat", hook, group, instance)
        except BasculeError as error:
            troubles.append(str(error))
    return answered, troubles


class Leaver(NamedTuple):
    """An instance that is taken away, as a target of a deployment: an entry of ``endpoints``."""

    deployment: Deployment
    endpoint: Mapping[str, Any]

    @property
    def pool(self) -> str:
        """The pool whose traffic it gets; empty for none."""
        known = self.deployment.options.get("pool_of") or {}
        return str(known.get(self.endpoint["target"]) or self.endpoint.get("pool") or "")


def _strangers(
    record: Record,
    deployment: Deployment,
    waiting: Mapping[str, str],
    found: Mapping[str, Leaver],
    region: str,
) -> dict[str, Leaver]:
    """Return those that nobody has made a target of: launched and taken away between two looks.

    Where another deployment holds their group they are left to it.
    """
    left = {
        instance
        for instance, group in waiting.items()
        if instance not in found and all(held.ended for held in record.holds(group, region))
    }
    known = about_instances(sorted(left), region) if left else {}
    # Their port is that of the targets there are; a target group has one of its own.
    ports = [one.get("port") for one in deployment.options.get("endpoints") or ()]
    about = {"port": next((port for port in ports if port), HTTP_PORT)}
    return {
        one: Leaver(
            deployment, {**about, "target": one, "name": one, "instance": one, **known.get(one, {})}
        )
        for one in sorted(left)
    }


def _is_free(record: Record, leaver: Leaver, message: str) -> bool:
    """Write down that a target leaves; False while it is worked on."""
    deployment, name = leaver.deployment, str(leaver.endpoint["target"])
    if name not in {one.name for one in record.targets(deployment.id)}:
        return True
    return record.see_off(deployment.id, name, message)


def _out(
    record: Record,
    traffic: Mapping[str, Any] | None,
    leavers: Sequence[Leaver],
    *,
    wait: bool,
) -> tuple[set[str], list[str]]:
    """Take targets out of the traffic, in one call where they are of one pool.

    :param wait: until their last requests have ended, as long as the options say
    :returns: the instances whose last requests have ended, and what went wrong
    """
    if not traffic:
        return {str(one.endpoint["instance"]) for one in leavers}, []
    together: dict[tuple[str, str], list[Leaver]] = {}
    for one in leavers:
        together.setdefault((one.deployment.id, one.pool), []).append(one)
    out: set[str] = set()
    troubles: list[str] = []
    for some in together.values():
        try:
            out |= _drained(record, traffic, some, wait=wait)
        except BasculeError as error:
            if len(some) == 1:
                troubles.append(str(error))
                continue
            # One that the load balancer refuses does not keep the others.
            for one in some:
                try:
                    out |= _drained(record, traffic, [one], wait=wait)
                except BasculeError as alone:
                    troubles.append(str(alone))
    return out, troubles


def _drained(
    record: Record, traffic: Mapping[str, Any], leavers: Sequence[Leaver], *, wait: bool
) -> set[str]:
    """Order that targets of one pool leave the traffic; return the instances that are out.

    :raises ScalingError: the load balancer does not do it
    """
    # They are not put back, however long their requests take.
    options = {**traffic["options"], "on_drain_timeout": "proceed"}
    request = traffic_request(
        {
            "state": "drained", "provider": traffic["provider"],
            "targets": [one.endpoint for one in leavers], "pool": leavers[0].pool,
            "options": options if wait else {**options, "drain_timeout": 0},
        },
        "",
        check=False,
    )  # fmt: skip
    answer = run_on_controller(request, record=record, deployment=leavers[0].deployment.id)
    if answer.get("failed"):
        names = ", ".join(str(one.endpoint["instance"]) for one in leavers)
        raise ScalingError(
            f"{names} waits at the termination hook and could not be taken out of "
            f"the traffic: {answer['msg']}"
        )
    # What was ordered just now may not be obeyed yet: the next look tells.
    told = answer["targets"]
    return {
        str(one.endpoint["instance"])
        for one in leavers
        for now in [told[one.endpoint.get("name") or one.endpoint["target"]]]
        if wait or not (now["ordered"] or now["ending"])
    }
