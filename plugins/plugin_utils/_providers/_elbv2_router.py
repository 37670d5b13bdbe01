# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Traffic shared between target groups by the listener (or a rule) of an Application Load Balancer.

The two target groups are permanent and take turns. A pool that is to get traffic is attached at
weight 0 first and must be seen healthy; a pool whose share ends stays attached at weight 0. Rules
for headers and cookies are tagged, so that nobody else's rule is touched.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from ...module_utils._alb_routing import (
    at_test_listener,
    condition,
    forward,
    match_of,
    points_of,
    same,
    shares,
    stickiness,
)
from ...module_utils._configuration import parse_duration
from ...module_utils._errors import TrafficCallError, TrafficError, UsageError
from ...module_utils._host._balancer import read_options
from ...module_utils._host._router import Counters, Router, pool_names
from ...module_utils._routing_data import Match, Routing
from ._calls import pages, parts, patiently, service
from ._elbv2 import describe_groups, describe_health, short_name
from ._members import SERVING, Member

if TYPE_CHECKING:
    from collections.abc import Mapping

    from botocore.client import BaseClient

    from ._desk import Desk

TAG = "bascule:pool"
# Limits of one call, and of a rule's priority.
TAGS_A_CALL = 20
LOWEST_PRIORITY = 50000
LOOK_SECONDS = 1.0
NAMESPACE = "AWS/ApplicationELB"
MINUTE = 60
# CloudWatch keeps values of a minute for 15 days.
LONGEST_SECONDS = 15 * 86400
COUNTED = {
    "requests": ("RequestCount",),
    "errors": ("HTTPCode_Target_5XX_Count", "TargetConnectionErrorCount"),
}
QUANTILES = ("p50", "p95", "p99")


def connect(options: dict[str, Any], desk: Desk, began: float | None) -> ListenerRouter:
    """Return what shares traffic behind these options; nothing is asked yet.

    :param began: epoch seconds from which on ``measure`` counts
    :raises UsageError: an option that is missing, unknown or malformed
    """
    read = read_options(
        "elbv2",
        options,
        required=("listener", "pools"),
        optional={"propagation": "10s", "restore_timeout": "300s", "test_listener": ""},
    )
    arn = str(read["listener"])
    if ":listener/net/" in arn or ":listener-rule/net/" in arn:
        raise UsageError(
            f"{arn} is of a Network Load Balancer, which takes targets out and puts them back, and "
            "shares nothing by weight, header or cookie: use an Application Load Balancer, or a "
            "strategy that works target by target."
        )
    if ":listener/app/" not in arn and ":listener-rule/app/" not in arn:
        raise UsageError(
            f"deploy_elbv2_listener is {arn!r}, wanted the ARN of a listener or of a rule of an "
            "Application Load Balancer."
        )
    test = str(read["test_listener"] or "")
    if test and (":listener/app/" not in test or test == arn):
        raise UsageError(
            f"The listener of deploy_test_route is {test!r}, wanted the ARN of another listener of "
            "an Application Load Balancer than that of deploy_elbv2_listener."
        )
    return ListenerRouter(
        arn,
        test,
        pool_names(read["pools"], "target_group", "elbv2"),
        desk,
        parse_duration(read["propagation"], "deploy_elbv2_propagation"),
        parse_duration(read["restore_timeout"], "deploy_traffic_restore_timeout"),
        began,
    )


class ListenerRouter(Router):
    """One listener's default action, or the action of one of its rules."""

    interval = 0.5

    def __init__(
        self,
        arn: str,
        test: str,
        names: Mapping[str, str],
        desk: Desk,
        propagation: float,
        patience: float,
        began: float | None,
    ) -> None:
        """Keep what is asked for (see ``connect``)."""
        self._arn, self._test = arn, test
        self._names = dict(names)
        self._desk = desk
        self._patience = patience
        self._began = began
        self._made: BaseClient | None = None
        self._found: dict[str, str] = {}
        self._before: list[dict[str, Any]] = []
        self._test_before: list[dict[str, Any]] = []
        self.settle_seconds = propagation
        # An order waits for the health of a pool first.
        self.take_up_seconds += patience
        self._balancer = "/".join(arn.split("/")[1:4])
        kind = "rule" if ":listener-rule/" in arn else "listener"
        self.where = f"ALB {arn.split('/')[2]} ({kind} {arn.rpartition('/')[2]})"

    def shown(self) -> Routing | None:
        """Return what the listener says; None if it forwards to what is no pool of ours."""
        actions = self._actions()
        weights = shares(actions[-1])
        pools = {arn: pool for pool, arn in self._groups().items()}
        if not weights or any(arn not in pools for arn in weights):
            return None
        points = points_of({pools[arn]: weight for arn, weight in weights.items()})
        found = [_match(rule, pools) for rule in self._own_rules()]
        match = tuple(one for one in found if one is not None)
        shown = Routing(points, match, stickiness(actions[-1]))
        tested = self._tested()
        alone = [pool for pool, share in tested.items() if share]
        if len(alone) == 1 and tested != _filled(points):
            match = (*match, Match(alone[0], "", listener=self._test))
        return shown._replace(match=match)

    def same(self, shown: Routing, wanted: Routing) -> bool:
        """Tell whether nothing has to be ordered."""
        attached = set(shown.points)
        tested = not self._test or self._tested() == _filled(at_test_listener(wanted).points)
        return same(shown, wanted) and tested and attached >= set(wanted.points)

    def order(self, routing: Routing) -> None:
        """Attach, see healthy, set rules, share."""
        groups = self._groups()
        self._before = self._actions()
        before = self._refuse_strangers(shares(self._before[-1]), groups)
        action = forward(routing, groups, [pool for pool in before if pool not in routing.points])
        matched = [rule.pool for rule in routing.match]
        fresh = [pool for pool in routing.pools() if pool not in before]
        if fresh:
            kept = Routing(points_of(before), (), stickiness(self._before[-1]))
            self._set(forward(kept, groups, fresh))
        share = points_of(before)
        growing = [p for p, points in routing.points.items() if points > share.get(p, 0)]
        self._see_healthy(list(dict.fromkeys([*growing, *matched])), groups)
        self._set_rules(routing, groups)
        self._set_test(routing, groups)
        self._set(action)

    def missing(self, routing: Routing) -> str:
        """Say what the listener does not show yet."""
        shown = self.shown()
        if shown is not None and self.same(shown, routing):
            return ""
        return "the listener still shows another routing"

    def take_back(self) -> None:
        """Put the actions back that were there before."""
        if self._before:
            self._modify(self._before)
        if self._test_before:
            self._modify_test(self._test_before)

    def measure(self) -> dict[str, Counters]:
        """Sum up CloudWatch's minutes since the deployment began."""
        now = time.time()
        # Without a deployment there is no beginning: the last hour.
        began = max(self._began or now - 3600, now - LONGEST_SECONDS)
        return self._sum_up(math.floor(began / MINUTE) * MINUTE, now)

    def measure_since(self, moment: float) -> dict[str, Counters]:
        """Sum up the minutes that began after a moment: they are told minutes later, as a whole."""
        return self._sum_up(math.ceil(moment / MINUTE) * MINUTE, time.time())

    def _sum_up(self, start: float, now: float) -> dict[str, Counters]:
        if start >= now:
            return {pool: Counters(0, 0) for pool in self._names}
        ids = {f"p{n}": pool for n, pool in enumerate(self._names)}
        queries = [
            query
            for name, pool in ids.items()
            for query in self._queries(name, self._groups()[pool])
        ]
        answers = self._ask_cloudwatch(queries, start, now + MINUTE)
        return {pool: _counters(name, answers) for name, pool in ids.items()}

    def _queries(self, name: str, arn: str) -> list[dict[str, Any]]:
        dimensions = [
            {"Name": "TargetGroup", "Value": arn.rpartition(":")[2]},
            {"Name": "LoadBalancer", "Value": self._balancer},
        ]

        def query(identity: str, metric: str, statistic: str) -> dict[str, Any]:
            seen = {"Namespace": NAMESPACE, "MetricName": metric, "Dimensions": dimensions}
            return {
                "Id": f"{name}_{identity}",
                "MetricStat": {"Metric": seen, "Period": MINUTE, "Stat": statistic},
            }

        counted = [
            query(f"{what}{n}", metric, "Sum")
            for what, metrics in COUNTED.items()
            for n, metric in enumerate(metrics)
        ]
        return counted + [query(q, "TargetResponseTime", q) for q in QUANTILES]

    def _ask_cloudwatch(
        self, queries: list[dict[str, Any]], start: float, end: float
    ) -> dict[str, list[tuple[Any, float]]]:
        made = service("cloudwatch")
        found: dict[str, list[tuple[Any, float]]] = {}
        for answer in patiently(
            partial(
                pages,
                made,
                "get_metric_data",
                "MetricDataResults",
                MetricDataQueries=queries,
                StartTime=start,
                EndTime=end,
            ),
            f"The metrics of {self.where} could not be read",
        ):
            values = zip(answer.get("Timestamps") or (), answer.get("Values") or (), strict=True)
            found.setdefault(answer["Id"], []).extend(values)
        return found

    def _groups(self) -> dict[str, str]:
        """Return the ARN of each pool's target group."""
        if not self._found:
            names = list(self._names.values())
            found = describe_groups(self._client, names, self._desk)
            self._found = {pool: one["arn"] for pool, one in zip(self._names, found, strict=True)}
        return self._found

    def _refuse_strangers(
        self,
        weights: Mapping[str, int],
        groups: Mapping[str, str],
        variable: str = "deploy_elbv2_listener",
    ) -> dict[str, int]:
        """Return the weights by pool.

        :param variable: what names who forwards
        :raises TrafficError: the action forwards to no pool of ours
        """
        pools = {arn: pool for pool, arn in groups.items()}
        strange = [short_name(arn) for arn in weights if arn not in pools]
        if strange or not weights:
            who = self.where if variable == "deploy_elbv2_listener" else self._test
            raise TrafficError(
                f"{who} forwards to {', '.join(strange) or 'no target group'}, which is no pool of "
                "deploy_traffic_pools. Let it forward to one of the pools, or name what does in "
                f"{variable}."
            )
        return {pools[arn]: weight for arn, weight in weights.items()}

    def _see_healthy(self, names: list[str], groups: Mapping[str, str]) -> None:
        """Wait until each pool has healthy targets and none that is still being registered."""
        deadline = time.monotonic() + self._patience
        for pool in names:
            while True:
                members = describe_health(self._client, groups[pool], short_name(groups[pool]))
                seen = [Member(*one) for one in members.values()]
                serving = [one for one in seen if one.kind == SERVING]
                if serving and not [one for one in seen if one.state.startswith("initial")]:
                    break
                if time.monotonic() >= deadline:
                    told = ", ".join(f"{name} {one[1]}" for name, one in members.items())
                    raise TrafficError(
                        f"{self.where}: the pool {pool} ({short_name(groups[pool])}) is not "
                        f"healthy after {self._patience:g} s, so it gets no traffic: "
                        f"{told or 'no targets'}. See that its targets answer the health check."
                    )
                time.sleep(LOOK_SECONDS)

    # Rules

    def _set_rules(self, routing: Routing, groups: Mapping[str, str]) -> None:
        """Add the rules that are missing, then remove those of ours that are not wanted."""
        pools = {arn: pool for pool, arn in groups.items()}
        own = self._own_rules()
        wanted = [rule for rule in routing.match if not rule.listener]
        if [_match(rule, pools) for rule in own] == wanted:
            return
        free = self._free_priorities(len(wanted))
        for rule, priority in zip(wanted, free, strict=True):
            self._call(
                "create_rule",
                f"A rule for {rule.header or rule.cookie} could not be added at {self.where}",
                ListenerArn=self._listener,
                Conditions=[*self._conditions(), condition(rule)],
                Priority=priority,
                Actions=[{"Type": "forward", "TargetGroupArn": groups[rule.pool]}],
                Tags=[{"Key": TAG, "Value": rule.pool}],
            )
        for old in own:
            self._call(
                "delete_rule",
                f"A rule of an earlier routing could not be removed at {self.where}",
                RuleArn=old["RuleArn"],
            )

    def _free_priorities(self, count: int) -> list[int]:
        """Return priorities just before the rule that is shared, or after all other rules."""
        rules = self._rules()
        taken = {int(one["Priority"]) for one in rules if one["Priority"] != "default"}
        end = LOWEST_PRIORITY + 1
        for one in rules:
            if one["RuleArn"] == self._arn:
                end = int(one["Priority"])
        start = 1 if end <= LOWEST_PRIORITY else max(taken, default=0) + 1
        free = [number for number in range(start, end) if number not in taken]
        if len(free) < count:
            raise TrafficError(
                f"{self.where}: there is no free priority for {count} rules of the routing before "
                "the rule that is shared. Give that rule a larger number."
            )
        return free[len(free) - count :] if start == 1 else free[:count]

    def _conditions(self) -> list[dict[str, Any]]:
        """Return the conditions of the rule that is shared; a default action has none."""
        for one in self._rules():
            if one["RuleArn"] == self._arn:
                return [
                    {k: v for k, v in given.items() if not (k == "Values" and len(given) > 2)}
                    for given in one.get("Conditions", ())
                ]
        return []

    def _own_rules(self) -> list[dict[str, Any]]:
        """Return the rules that this provider has made, in their order."""
        rules = [one for one in self._rules() if one["Priority"] != "default"]
        tagged: set[str] = set()
        for some in parts([one["RuleArn"] for one in rules], TAGS_A_CALL):
            answer = self._call(
                "describe_tags", f"The tags of the rules of {self.where} could not be read",
                ResourceArns=some,
            )  # fmt: skip
            tagged |= {
                one["ResourceArn"]
                for one in answer["TagDescriptions"]
                if any(tag["Key"] == TAG for tag in one.get("Tags", ()))
            }
        own = [one for one in rules if one["RuleArn"] in tagged]
        return sorted(own, key=lambda one: int(one["Priority"]))

    def _rules(self) -> list[dict[str, Any]]:
        return patiently(
            partial(pages, self._client, "describe_rules", "Rules", ListenerArn=self._listener),
            f"The rules of {self.where} could not be read",
        )

    # The test listener

    def _tested(self) -> dict[str, int]:
        """Return the pools with a share of what comes to the test listener; none without one."""
        if not self._test:
            return {}
        pools = {arn: pool for pool, arn in self._groups().items()}
        weights = shares(self._actions_of_test()[-1])
        return _filled(points_of({pools.get(arn, arn): one for arn, one in weights.items()}))

    def _set_test(self, routing: Routing, groups: Mapping[str, str]) -> None:
        """Give the test listener to the pool that is tested, or let it share as users are."""
        if not self._test:
            return
        actions = self._actions_of_test()
        self._refuse_strangers(shares(actions[-1]), groups, "deploy_test_route")
        wanted = at_test_listener(routing)
        if self._tested() == _filled(wanted.points):
            return
        self._test_before = actions
        kept = actions[:-1]
        order = {"Order": len(kept) + 1} if kept else {}
        self._modify_test([*kept, {**forward(wanted, groups), **order}])

    def _actions_of_test(self) -> list[dict[str, Any]]:
        doing = f"The test listener {self._test} could not be read"
        found = self._call("describe_listeners", doing, ListenerArns=[self._test])["Listeners"]
        return list(found[0]["DefaultActions"])

    def _modify_test(self, actions: list[dict[str, Any]]) -> None:
        doing = f"The test listener {self._test} could not be changed"
        self._call("modify_listener", doing, ListenerArn=self._test, DefaultActions=actions)

    # The action that is shared

    def _actions(self) -> list[dict[str, Any]]:
        """Return the actions of the listener or the rule; the last one forwards."""
        if self._is_rule:
            found = self._call(
                "describe_rules", f"{self.where} could not be read", RuleArns=[self._arn]
            )["Rules"]
            return list(found[0]["Actions"])
        found = self._call(
            "describe_listeners", f"{self.where} could not be read", ListenerArns=[self._arn]
        )["Listeners"]
        return list(found[0]["DefaultActions"])

    def _set(self, action: dict[str, Any]) -> None:
        """Change the last action; what stands before it (a login, for instance) is kept."""
        kept = self._before[:-1]
        order = {"Order": len(kept) + 1} if kept else {}
        self._modify([*kept, {**action, **order}])

    def _modify(self, actions: list[dict[str, Any]]) -> None:
        doing = f"{self.where} could not be changed"
        if self._is_rule:
            self._call("modify_rule", doing, RuleArn=self._arn, Actions=actions)
        else:
            self._call("modify_listener", doing, ListenerArn=self._arn, DefaultActions=actions)

    @property
    def _is_rule(self) -> bool:
        return ":listener-rule/" in self._arn

    @property
    def _listener(self) -> str:
        if not self._is_rule:
            return self._arn
        return self._arn.replace(":listener-rule/", ":listener/").rpartition("/")[0]

    @property
    def _client(self) -> BaseClient:
        if self._made is None:
            self._made = service("elbv2")
        return self._made

    def _call(self, operation: str, doing: str, **arguments: Any) -> dict[str, Any]:
        call = getattr(self._client, operation)
        try:
            answer: dict[str, Any] = patiently(partial(call, **arguments), doing)
        except TrafficCallError as error:
            if error.code in ("ListenerNotFound", "RuleNotFound"):
                raise TrafficError(
                    f"{error} Check deploy_elbv2_listener, the region and the account."
                ) from error
            raise
        return answer


def _filled(points: Mapping[str, int]) -> dict[str, int]:
    """Return the pools that have a share."""
    return {pool: share for pool, share in points.items() if share}


def _match(rule: Mapping[str, Any], pools: Mapping[str, str]) -> Match | None:
    """Understand a rule of ours; None if somebody has changed it."""
    groups = list(shares(rule["Actions"][-1]))
    if len(groups) != 1 or groups[0] not in pools or not rule.get("Conditions"):
        return None
    return match_of(rule["Conditions"][-1], pools[groups[0]])


def _counters(name: str, answers: Mapping[str, list[tuple[Any, float]]]) -> Counters:
    """Put the answers of one pool together; the quantiles are those of the newest minute."""

    def total(what: str) -> int:
        values = [
            value
            for n in range(len(COUNTED[what]))
            for _at, value in answers.get(f"{name}_{what}{n}", ())
        ]
        return round(sum(values))

    newest = {
        q: round(max(values)[1], 6) for q in QUANTILES if (values := answers.get(f"{name}_{q}"))
    }
    return Counters(total("requests"), total("errors"), quantiles=newest or None)
