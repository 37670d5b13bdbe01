# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Classic Load Balancers: instances are members of a load balancer.

Sources: the API reference of version 2012-06-01 (``InstanceState``) and the user guide's page on
connection draining: meanwhile an instance is OutOfService with a description that says so.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ...module_utils._configuration import parse_duration
from ...module_utils._errors import TrafficCallError, TrafficError
from ...module_utils._host._balancer import Target, read_options
from ._calls import patiently, service
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
    from collections.abc import Sequence

    from botocore.client import BaseClient

    from ._desk import Desk

DEREGISTERING = "deregistration currently in progress"
NOT_REGISTERED = "not currently registered"
INSTANCES_A_CALL = 100


def connect(options: dict[str, Any], targets: Sequence[Target], desk: Desk) -> LoadBalancers:
    """Return the load balancers behind these options; nothing is asked yet.

    :raises UsageError: an option that is missing, unknown or malformed
    """
    read = read_options("elb", options, required=("names",), optional={"propagation": "10s"})
    return LoadBalancers(
        [str(name) for name in read["names"]],
        targets,
        desk,
        parse_duration(read["propagation"], "deploy_elb_propagation"),
    )


class LoadBalancers(Members):
    """One or more classic load balancers."""

    kind: ClassVar[str] = "elb"

    def __init__(
        self, names: list[str], targets: Sequence[Target], desk: Desk, propagation: float
    ) -> None:
        """Keep what is asked for (see ``connect``)."""
        super().__init__(targets, desk, propagation)
        self._pools = [Pool(name, name, {}) for name in names]
        self._client: BaseClient | None = None
        plural = "s" if len(names) > 1 else ""
        self.where = f"classic load balancer{plural} {', '.join(names)}"

    def pools(self) -> list[Pool]:
        """Return the load balancers."""
        return self._pools

    def member(self, pool: Pool, target: Target) -> str:
        """Return the id of the target's instance."""
        del pool
        return instance_of(target)

    def ask(self, pool: Pool) -> dict[str, list[str]]:
        """Describe the health of all the load balancer's instances."""
        made = self._made()
        try:
            answer = patiently(
                lambda: made.describe_instance_health(LoadBalancerName=pool.id),
                f"The health of classic load balancer {pool.name} could not be read",
            )
        except TrafficCallError as error:
            if error.code == "LoadBalancerNotFound":
                raise TrafficError(
                    f"{error} Check deploy_elb_names, the region ({made.meta.region_name}) and the "
                    "account; an ALB or NLB is one of the provider elbv2."
                ) from error
            raise
        return {one["InstanceId"]: list(read_state(one)) for one in answer["InstanceStates"]}

    def add(self, pool: Pool, members: list[str]) -> dict[str, str]:
        """Register instances."""
        call = self._made().register_instances_with_load_balancer
        return self._change(pool, call, members, "registered with", LEFT_OUT)

    def remove(self, pool: Pool, members: list[str]) -> dict[str, str]:
        """Deregister instances."""
        call = self._made().deregister_instances_from_load_balancer
        return self._change(pool, call, members, "deregistered from")

    def _change(
        self, pool: Pool, call: Any, members: list[str], words: str, then: str = ""
    ) -> dict[str, str]:
        def change(some: list[str]) -> None:
            instances = [{"InstanceId": member} for member in some]
            patiently(
                partial(call, LoadBalancerName=pool.id, Instances=instances),
                f"{', '.join(some)} could not be {words} classic load balancer {pool.name}{then}",
            )

        return one_by_one(members, change, code="InvalidInstance", size=INSTANCES_A_CALL)

    def _made(self) -> BaseClient:
        if self._client is None:
            self._client = service("elb")
        return self._client


def read_state(state: dict[str, Any]) -> Member:
    """Understand an ``InstanceState``."""
    words = str(state.get("Description") or "")
    told = words if words != "N/A" else ""
    shown = f"{state['State']} ({told.rstrip('.')})" if told else str(state["State"])
    if state["State"] == "InService":
        return Member(SERVING, shown)
    if DEREGISTERING in words:
        return Member(ENDING, shown)
    if NOT_REGISTERED in words:
        return Member(GONE, "not registered")
    return Member(WAITING, shown)
