# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the providers elbv2 and elb may do at AWS, action by action, and on which resources.

Source: the Service Authorization Reference of Elastic Load Balancing (V1 and V2) and CloudWatch:
describing actions, and ``GetMetricData``, know no resources.
"""

from __future__ import annotations

from typing import NamedTuple


class Permission(NamedTuple):
    """An IAM action, what it is needed for, and what it can be narrowed to.

    :ivar need: a capability of ``_capabilities``; ``observe`` is needed by all others
    :ivar on: ``*`` (it knows no resources), ``target group``, ``load balancer`` (classic),
        ``listener`` or ``rule``
    """

    action: str
    need: str
    on: str


PERMISSIONS: dict[str, tuple[Permission, ...]] = {
    "elbv2": (
        Permission("elasticloadbalancing:DescribeTargetGroups", "observe", "*"),
        Permission("elasticloadbalancing:DescribeTargetHealth", "observe", "*"),
        Permission("elasticloadbalancing:DeregisterTargets", "drain", "target group"),
        Permission("elasticloadbalancing:RegisterTargets", "restore", "target group"),
        Permission("elasticloadbalancing:DescribeListeners", "weights", "*"),
        Permission("elasticloadbalancing:DescribeRules", "weights", "*"),
        Permission("elasticloadbalancing:DescribeTags", "weights", "*"),
        Permission("elasticloadbalancing:ModifyListener", "weights", "listener"),
        Permission("elasticloadbalancing:ModifyRule", "weights", "rule"),
        Permission("elasticloadbalancing:CreateRule", "match", "listener"),
        Permission("elasticloadbalancing:DeleteRule", "match", "rule"),
        Permission("elasticloadbalancing:AddTags", "match", "rule"),
        Permission("cloudwatch:GetMetricData", "measure", "*"),
    ),
    "elb": (
        Permission("elasticloadbalancing:DescribeInstanceHealth", "observe", "*"),
        Permission(
            "elasticloadbalancing:DeregisterInstancesFromLoadBalancer", "drain", "load balancer"
        ),
        Permission(
            "elasticloadbalancing:RegisterInstancesWithLoadBalancer", "restore", "load balancer"
        ),
    ),
}


def permissions(provider: str, needs: frozenset[str]) -> list[Permission]:
    """Return what a provider may do for these capabilities; others need nothing of AWS."""
    wanted = needs | {"observe"}
    return [one for one in PERMISSIONS.get(provider, ()) if one.need in wanted]
