# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Application and Network Load Balancers: targets are members of target groups.

Sources: the ELBv2 API reference (``TargetHealth``) and the user guide's page on deregistration. A
deregistered target is ``draining`` until its group's deregistration delay is over, also if its last
request ended before; then it is no member any more.
"""

from __future__ import annotations

import ipaddress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ...module_utils._configuration import parse_duration
from ...module_utils._errors import TrafficCallError, TrafficError
from ...module_utils._host._balancer import Target, read_options
from ._calls import pages, parts, patiently, service
from ._members import (
    ENDING,
    GONE,
    LEFT_OUT,
    SERVING,
    WAITING,
    Member,
    Members,
    Pool,
    instance_of,
    one_by_one,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from botocore.client import BaseClient

    from .._record import Record
    from ._desk import Desk
    from ._elbv2_router import ListenerRouter

# TargetHealth.State: ``unavailable`` is a group whose health checks are disabled.
KINDS = {
    "healthy": SERVING,
    "unavailable": SERVING,
    "initial": WAITING,
    "unhealthy": WAITING,
    "unused": WAITING,
    "draining": ENDING,
    "unhealthy.draining": ENDING,
}
# TargetHealth.Reason of targets that no health check can help.
HOPELESS = {
    "Target.NotInUse": "no listener forwards to its target group, or its zone is not enabled at "
    "the load balancer. Attach the group to a listener (at weight 0 is enough)",
    "Target.InvalidState": "its instance is stopped or terminated",
    "Target.IpUnusable": "the load balancer cannot use its address",
}
# Limits of one call: names in DescribeTargetGroups, targets in RegisterTargets.
GROUPS_A_CALL = 20
TARGETS_A_CALL = 100
GROUPS_SECONDS = 600.0


def connect(options: dict[str, Any], targets: Sequence[Target], desk: Desk) -> TargetGroups:
    """Return the target groups behind these options; nothing is asked yet.

    :raises UsageError: an option that is missing, unknown or malformed
    """
    read = read_options(
        "elbv2",
        options,
        required=("target_groups",),
        optional={"target_port": 0, "propagation": "10s"},
    )
    return TargetGroups(
        [str(name) for name in read["target_groups"]],
        int(read["target_port"]),
        targets,
        desk,
        parse_duration(read["propagation"], "deploy_elbv2_propagation"),
    )


def connect_router(
    options: dict[str, Any], record: Record | None, deployment: str
) -> ListenerRouter:
    """Return what shares traffic between target groups (see ``_elbv2_router.connect``)."""
    from ._desk import Desk
    from ._elbv2_router import connect as connect_listener

    began = record.deployment(deployment).created_at if record and deployment else None
    return connect_listener(options, Desk(record, deployment), began)


class TargetGroups(Members):
    """One or more target groups."""

    kind: ClassVar[str] = "elbv2"

    def __init__(
        self,
        names: list[str],
        port: int,
        targets: Sequence[Target],
        desk: Desk,
        propagation: float,
    ) -> None:
        """Keep what is asked for (see ``connect``)."""
        super().__init__(targets, desk, propagation)
        self._names = names
        self._port = port
        self._client: BaseClient | None = None
        self._pools: list[Pool] = []
        plural = "s" if len(names) > 1 else ""
        self.where = f"target group{plural} {', '.join(short_name(name) for name in names)}"

    def pools(self) -> list[Pool]:
        """Ask for the groups, once a deployment."""
        if not self._pools:
            found = describe_groups(self._made(), self._names, self._desk)
            self._pools = [Pool(one["arn"], one["name"], one) for one in found]
        return self._pools

    def member(self, pool: Pool, target: Target) -> str:
        """Return ``ID:PORT``, or the ARN of a function."""
        kind = pool.about["type"]
        if kind == "lambda":
            if target.name.startswith("arn:"):
                return target.name
            raise TrafficError(
                f"The target group {pool.name} takes functions, by their ARN; the target is called "
                f"{target.name}. Name it by the ARN of the function or of its alias in "
                "deploy_traffic_target_name."
            )
        port = self._port or pool.about["port"]
        if kind == "ip":
            return f"{address_of(target)}:{port}"
        if kind == "instance":
            return f"{instance_of(target)}:{port}"
        raise TrafficError(
            f"The target group {pool.name} is one of type {kind}, which hosts cannot be registered "
            "in: name one of type instance or ip in deploy_elbv2_target_groups."
        )

    def ask(self, pool: Pool) -> dict[str, list[str]]:
        """Describe the health of all the group's targets."""
        return describe_health(self._made(), pool.id, pool.name)

    def add(self, pool: Pool, members: list[str]) -> dict[str, str]:
        """Register targets."""
        return self._change(pool, "register_targets", members, "registered in", LEFT_OUT)

    def remove(self, pool: Pool, members: list[str]) -> dict[str, str]:
        """Deregister targets."""
        return self._change(pool, "deregister_targets", members, "deregistered from")

    def _change(
        self, pool: Pool, operation: str, members: list[str], words: str, then: str = ""
    ) -> dict[str, str]:
        call = getattr(self._made(), operation)

        def change(some: list[str]) -> None:
            targets = [described(member) for member in some]
            _of_known(
                partial(call, TargetGroupArn=pool.id, Targets=targets),
                f"{', '.join(some)} could not be {words} target group {pool.name}{then}",
            )

        return one_by_one(members, change, code="InvalidTarget", size=TARGETS_A_CALL)

    def _made(self) -> BaseClient:
        if self._client is None:
            self._client = service("elbv2")
        return self._client


def describe_groups(made: BaseClient, names: list[str], desk: Desk) -> list[dict[str, Any]]:
    """Return id, name, type, port and protocol of each group, in the order of the names.

    :raises TrafficError: there is no such group
    """
    found: list[dict[str, Any]] = desk.look(
        f"elbv2 groups {' '.join(names)}", partial(_describe, made, names), interval=GROUPS_SECONDS
    )
    return found


def _describe(made: BaseClient, names: list[str]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    named = {
        "TargetGroupArns": [name for name in names if name.startswith("arn:")],
        "Names": [name for name in names if not name.startswith("arn:")],
    }
    for parameter, given in named.items():
        for some in parts(given, GROUPS_A_CALL):
            ask = partial(
                pages, made, "describe_target_groups", "TargetGroups", **{parameter: some}
            )
            try:
                groups = patiently(ask, f"The target groups {', '.join(some)} could not be read")
            except TrafficCallError as error:
                if error.code in ("TargetGroupNotFound", "ValidationError"):
                    raise TrafficError(
                        f"{error} Check the names of target groups, the region "
                        f"({made.meta.region_name}) and the account."
                    ) from error
                raise
            for group in groups:
                one = {
                    "arn": group["TargetGroupArn"],
                    "name": group["TargetGroupName"],
                    "type": group.get("TargetType", "instance"),
                    "port": group.get("Port", 0),
                    "protocol": group.get("Protocol", ""),
                }
                found[one["arn"]] = found[one["name"]] = one
    return [found[name] for name in names]


def describe_health(made: BaseClient, arn: str, name: str) -> dict[str, list[str]]:
    """Return each target of a group, which was found before, with its ``Member`` as a list."""
    answer = _of_known(
        partial(made.describe_target_health, TargetGroupArn=arn),
        f"The health of target group {name} could not be read",
    )
    return {
        member_of(one["Target"]): list(read_health(one.get("TargetHealth") or {}))
        for one in answer["TargetHealthDescriptions"]
    }


def _of_known(call: Callable[[], dict[str, Any]], doing: str) -> dict[str, Any]:
    """Do the same as ``patiently`` with a target group that was there.

    :raises TrafficError: it is not any more, or AWS refused
    """
    try:
        return patiently(call, doing)
    except TrafficCallError as error:
        if error.code != "TargetGroupNotFound":
            raise
        raise TrafficError(
            f"{error} It was there before: somebody has deleted it. Make it again, with a listener "
            "that forwards to it, and deploy again."
        ) from error


def read_health(health: dict[str, Any]) -> Member:
    """Understand a ``TargetHealth``."""
    state, why = str(health.get("State", "")), str(health.get("Reason", ""))
    words = str(health.get("Description", "")).rstrip(".")
    if why == "Target.NotRegistered":
        return Member(GONE, "not registered")
    shown = f"{state} ({why}: {words})" if why and state not in ("healthy", "draining") else state
    return Member(KINDS.get(state, WAITING), shown, HOPELESS.get(why, ""))


def member_of(target: dict[str, Any]) -> str:
    """Return how a ``TargetDescription`` is written here."""
    return f"{target['Id']}:{target['Port']}" if target.get("Port") else str(target["Id"])


def described(member: str) -> dict[str, Any]:
    """Return the ``TargetDescription`` of a member."""
    if member.startswith("arn:"):
        return {"Id": member}
    identity, _colon, port = member.rpartition(":")
    return {"Id": identity, "Port": int(port)}


def address_of(target: Target) -> str:
    """Return a target's IP address.

    :raises TrafficError: it has a name instead
    """
    try:
        return str(ipaddress.ip_address(target.address))
    except ValueError as error:
        raise TrafficError(
            f"The target {target.name} is registered by its IP address, and {target.address!r} is "
            "none: set deploy_traffic_target_address."
        ) from error


def short_name(name: str) -> str:
    """Return the name in a target group's ARN; a name stays itself."""
    return name.split(":targetgroup/")[-1].split("/")[0]
