# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pool gets the revision, and the steps that bring users to it.

Pure. Two pools take turns: nothing is renamed, the one that has no traffic is the next to be
changed. A plan keeps what is decided here as ``plan["pools"]`` (see ``pools_of``) and
``plan["schedule"]`` (see ``deployment_steps``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._capabilities import sticky_wishes
from ._errors import PlanError, UsageError
from ._schedule import (
    APPROVAL,
    BAKE,
    FLEET,
    HOOK,
    POOL,
    RETIRE,
    SHIFT,
    TEST,
    schedule_times,
    step_text,
)

BLUE_GREEN, CANARY, ROLLBACK, AB_TEST = "blue_green", "canary", "rollback", "ab_test"
STRATEGIES = (BLUE_GREEN, CANARY)

# The parts of a schedule, in their order. Between them hooks of targets run: those of
# AfterAllowTestTraffic after ``test``, of BeforeAllowTraffic before ``shift``, of AfterAllowTraffic
# after it, those of the old pool around ``retire``; and in a canary deployment the rest of the
# fleet before ``home``. A way back has ``back`` alone, before all else.
BACK_PART, TEST_PART, READY_PART, SHIFT_PART, HOME_PART, KEPT_PART, RETIRE_PART = (
    "back",
    "test",
    "ready",
    "shift",
    "home",
    "kept",
    "retire",
)
PARTS = (BACK_PART, TEST_PART, READY_PART, SHIFT_PART, HOME_PART, KEPT_PART, RETIRE_PART)

TEST_EVENT = "AfterAllowTestTraffic"
BLOCK_EVENTS = ("BeforeBlockTraffic", "AfterBlockTraffic")
ALLOW_EVENTS = ("BeforeAllowTraffic", "AfterAllowTraffic")

KEEP, DRAIN, TERMINATE = "keep", "drain", "terminate"

Pools = dict[str, Any]
Step = dict[str, Any]


def live_pool(
    names: Sequence[str],
    routings: Sequence[Mapping[str, Any] | None],
    last: str | None,
) -> str:
    """Return the pool that has the traffic.

    What the load balancers show counts; where they show nothing, the pool that the newest
    successful deployment brought the traffic to; in a group without one, the first of ``names``.

    :param routings: what each load balancer has at present, ``{"weights": {pool: percent}}``
    :raises PlanError: the load balancers do not agree, or have the traffic halved
    """
    found: dict[str, str] = {}
    for index, routing in enumerate(routings):
        weights = dict((routing or {}).get("weights") or {})
        shares = sorted(((weights.get(name, 0.0), name) for name in names), reverse=True)
        if not shares or shares[0][0] <= 0:
            continue
        if len(shares) > 1 and shares[0][0] == shares[1][0]:
            raise PlanError(
                f"The traffic is halved: {shares[0][1]} and {shares[1][1]} have "
                f"{shares[0][0]:g}% each, so none of the pools is the live one. Bring all of it to "
                "the pool that is to be kept: `bascule rollback`, or at the load balancer."
            )
        found.setdefault(shares[0][1], f"load balancer {index + 1}")
    if len(found) > 1:
        told = ", ".join(
            f"{where} has most of the traffic on {pool}" for pool, where in found.items()
        )
        raise PlanError(
            f"The load balancers do not agree: {told}. Bring all of it to the same pool first."
        )
    if found:
        return next(iter(found))
    return last if last is not None and last in names else names[0]


def pools_of(
    kind: str,
    names: Sequence[str],
    members: Mapping[str, Sequence[str]],
    live: str,
    *,
    before: Mapping[str, float] | None = None,
    test_route: Mapping[str, str] | None = None,
    sticky: Mapping[str, Any] | None = None,
    retire: str = KEEP,
    leaving: Sequence[str] = (),
) -> Pools:
    """Return the pools of a deployment as its plan keeps them.

    {"kind", "new": the pool that gets the revision, "old": the other one, "home": the pool that
    gets all traffic back when something fails, "members": {pool: [target]}, "slots": whether both
    pools are on the same hosts, "idle": [targets that are changed while no user reaches them],
    "before": {pool: percent} or None, "test_route": {"header" or "cookie", "value"}, {"listener"}
    or None, "sticky": as the routing has it, without its salt, or None, "retire",
    "leaving_hooks": which of ``BLOCK_EVENTS`` run on the pool that users leave}.

    :param names: as ``deploy_traffic_pools`` has them; two
    :param leaving: which of ``BLOCK_EVENTS`` the revision in service has hooks for
    :raises PlanError: there are not two pools with targets
    """
    if len(names) != 2:
        raise UsageError(
            f"The strategy {kind} moves traffic between two pools, and deploy_traffic_pools has "
            f"{', '.join(names) or 'none'}. Name both, such as {{blue: {{…}}, green: {{…}}}}."
        )
    new = next(name for name in names if name != live)
    without = [name for name in names if not members.get(name)]
    if without and (kind == CANARY or new in without):
        raise PlanError(
            f"The pool {without[0]} has no targets. Set deploy_pool of its hosts to {without[0]}, "
            f"or name them in deploy_pools: {{{without[0]}: PATTERN}}."
        )
    both = set(members.get(names[0], ())) & set(members.get(names[1], ()))
    if both and set(members[names[0]]) != set(members[names[1]]):
        alone = sorted(set(members[names[0]]) ^ set(members[names[1]]))
        raise PlanError(
            f"Some targets are in both pools and {alone[0]} is in one. Either no target is in "
            "both, or all are (two slots on the same hosts)."
        )
    if both and kind == CANARY:
        raise PlanError(
            "A canary deployment needs targets of its own for each pool; two slots on the same "
            "hosts are for blue_green."
        )
    return {
        "kind": kind,
        "new": new,
        "old": live,
        "home": live,
        "members": {name: list(members.get(name, ())) for name in names},
        "slots": bool(both),
        "idle": list(members[new]),
        "before": dict(before) if before else None,
        "test_route": dict(test_route) if test_route else None,
        "sticky": dict(sticky) if sticky else None,
        "retire": retire if kind == BLUE_GREEN else KEEP,
        "leaving_hooks": list(leaving) if kind == BLUE_GREEN else [],
    }


def deployment_steps(
    schedule: Sequence[Mapping[str, Any]],
    pools: Mapping[str, Any] | None,
    *,
    bake: float = 0.0,
    ready_timeout: float = 0.0,
    ready_on_timeout: str = "continue",
    retire_after: float = 0.0,
    attach: bool = True,
    fleet: bool = False,
) -> list[Step]:
    """Return all steps of a deployment, timed, numbered, each with its ``part`` and ``text``.

    :param schedule: parsed; what stands before its first shift is asked before users come
    :param pools: None where traffic is not moved: then the schedule may hold no shift
    :param bake: seconds to watch at the end, with the old pool kept as it is
    :param ready_timeout: seconds to wait for a person before the first shift; 0 waits for none
    :param retire_after: seconds until the old pool is retired
    :param attach: whether the new pool's targets must be brought into service at a load balancer
    :param fleet: whether the pools' targets are those of Auto Scaling groups that take turns
    :raises PlanError: a share is to be shifted and there are no pools
    """
    steps: list[Step] = []
    moves = [index for index, step in enumerate(schedule) if step["kind"] == SHIFT]
    if pools is None:
        if moves:
            raise PlanError(
                "deploy_schedule shifts traffic, and there are no pools to shift it between: name "
                "them in deploy_traffic_pools, or leave only bake, gate and approval in it."
            )
        steps = [{**step, "part": SHIFT_PART} for step in schedule]
    else:
        # What checks the first of several functions is asked last before its users come.
        begun = [index for index, step in enumerate(schedule) if step["kind"] in (SHIFT, HOOK)]
        first = begun[0] if begun else len(schedule)
        if attach:
            steps.append({"kind": POOL, "part": TEST_PART})
        if pools["test_route"]:
            steps.append({"kind": TEST, "share": 0.0, "part": TEST_PART})
        steps += [{**step, "part": READY_PART} for step in schedule[:first]]
        if ready_timeout:
            waits = {"timeout": ready_timeout, "on_timeout": ready_on_timeout}
            steps.append({"kind": APPROVAL, **waits, "part": READY_PART})
        steps += [{**step, "part": SHIFT_PART} for step in schedule[first:]]
    if bake:
        steps.append({"kind": BAKE, "seconds": bake, "part": SHIFT_PART})
    if pools is not None and pools["kind"] == CANARY:
        steps.append({"kind": SHIFT, "share": 0.0, "part": HOME_PART})
    if pools is not None and pools["retire"] != KEEP:
        if retire_after:
            steps.append({"kind": BAKE, "seconds": retire_after, "part": KEPT_PART})
        steps.append({"kind": RETIRE, "how": pools["retire"], "part": RETIRE_PART})
    if pools is not None and fleet:
        steps.append({"kind": FLEET, "how": pools["retire"], "part": RETIRE_PART})
    return _told(steps, pools)


def way_back(
    pools: Mapping[str, Any], leaving: Sequence[str] = (), *, retired: bool = False
) -> tuple[Pools, list[Step]]:
    """Return pools and steps of the deployment that rolls back one with these pools.

    All traffic comes home before anything else is done; but to a pool that may have left the load
    balancer already only when its targets are seen in service there again.

    :param leaving: which of ``BLOCK_EVENTS`` the revision that failed has hooks for
    :param retired: whether the pool that users go back to was being retired
    """
    home = pools["home"]
    other = pools["new"] if home == pools["old"] else pools["old"]
    back: Pools = {
        **pools, "new": home, "old": other, "test_route": None, "sticky": None, "retire": KEEP,
        "before": None, "leaving_hooks": list(leaving) if pools["kind"] == BLUE_GREEN else [],
    }  # fmt: skip
    returning: list[Step] = [{"kind": POOL, "part": BACK_PART}] if retired else []
    returning.append({"kind": SHIFT, "share": 100.0, "part": BACK_PART})
    return back, _told(returning, back)


def unsafe_parts(schedule: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the parts of a schedule in which a failure must not bring users home at once.

    The pool that is home may be on its way out of the load balancer there, or not be back yet.
    """
    kinds = {RETIRE_PART: RETIRE, BACK_PART: POOL}
    return [part for part, kind in kinds.items() if _has(schedule, part, kind)]


def _has(schedule: Sequence[Mapping[str, Any]], part: str, kind: str) -> bool:
    return any((step["part"], step["kind"]) == (part, kind) for step in schedule)


def _told(steps: Sequence[Step], pools: Mapping[str, Any] | None) -> list[Step]:
    names = (pools["new"], pools["old"]) if pools else ("", "")
    return [{**step, "text": step_text(step, *names)} for step in schedule_times(steps)]


def routing_for(pools: Mapping[str, Any], share: float, salt: str) -> dict[str, Any]:
    """Return the routing in which the new pool has ``share`` percent of the traffic.

    The test route is there until all users are on the new pool; users stay with their arm while
    both pools have some.

    :param salt: of the hash by which users are given an arm
    """
    rule, sticky = pools["test_route"], pools["sticky"]
    between = 0 < share < 100
    return {
        "weights": {pools["old"]: round(100 - share, 4), pools["new"]: share},
        "match": [{"pool": pools["new"], **rule}] if rule and share < 100 else [],
        "sticky": {**sticky, "salt": salt} if sticky and between else None,
        "mirror": None,
    }


def routing_unmoved(pools: Mapping[str, Any]) -> dict[str, Any]:
    """Return the routing in which no user reaches the new pool, also by no test route."""
    return routing_for({**pools, "test_route": None}, 0.0, "")


def routing_home(pools: Mapping[str, Any]) -> dict[str, Any]:
    """Return the routing in which the home pool has everything."""
    other = pools["new"] if pools["home"] == pools["old"] else pools["old"]
    return {
        "weights": {pools["home"]: 100.0, other: 0.0},
        "match": [],
        "sticky": None,
        "mirror": None,
    }


def wishes_of(pools: Mapping[str, Any] | None) -> list[str]:
    """Return what a provider must be able to do for a deployment with these pools."""
    if pools is None:
        return []
    return [
        "weights",
        *(
            ["listener" if "listener" in pools["test_route"] else "match"]
            if pools["test_route"]
            else []
        ),
        *sticky_wishes(pools["sticky"]),
    ]


def hooks_of_pools(
    pools: Mapping[str, Any] | None,
    hooks: Mapping[str, Any],
    *,
    back: bool,
    touched: Sequence[str],
) -> dict[str, Any]:
    """Return on which targets hooks run that belong to pools as a whole, and which span of them.

    The targets of the pool that users leave are none of the deployment's own. What they run is
    what is installed there: CodeDeploy's events of the original instances, and in a way back those
    of the instances that users go back to, too. In a way back the traffic has been moved by then.

    :param hooks: those of the deployment's revision, by event
    :param back: whether the deployment is a way back
    :param touched: the targets of the new pool that the deployment changes
    :returns: {"after_test", "leaving", "left", "returned": [target], "leaving_span": span}
    """
    found: dict[str, Any] = {
        "after_test": [], "leaving": [], "left": [], "returned": [], "leaving_span": "leave",
    }  # fmt: skip
    if pools is None or pools.get("platform"):
        return found
    if hooks.get(TEST_EVENT) and pools["test_route"]:
        found["after_test"] = list(touched)
    if pools["kind"] != BLUE_GREEN:
        return found
    old, new = (list(pools["members"][pools[name]]) for name in ("old", "new"))
    leaving = pools.get("leaving_hooks") or []
    if back:
        coming = any(hooks.get(event) for event in ALLOW_EVENTS)
        found["leaving"] = old if leaving else []
        found["returned"] = new if coming and not touched else []
        return found
    if pools["retire"] == KEEP:
        # Nothing is done at a load balancer between the two: one run has both.
        found["leaving"] = old if leaving else []
        return found
    before, after = BLOCK_EVENTS
    found["leaving_span"] = "leaving"
    found["leaving"] = old if before in leaving else []
    found["left"] = old if after in leaving else []
    return found


def named_value(given: Any, name: str, more: Sequence[str] = ()) -> dict[str, Any] | None:
    """Read ``{header: NAME, …}`` or ``{cookie: NAME, …}``; None for an empty one.

    :param more: the keys that it has beside
    :raises UsageError: it is something else
    """
    if not given:
        return None
    keys = set(given) if isinstance(given, Mapping) else set()
    by = keys & {"header", "cookie"}
    if len(by) != 1 or not keys <= {"header", "cookie", *more} or not all(map(given.get, keys)):
        beside = "".join(f", {key}: …" for key in more)
        raise UsageError(
            f"{name} is {given!r}; wanted is {{header: NAME{beside}}} or {{cookie: NAME{beside}}}."
        )
    return dict(given)


def read_test_route(given: Any) -> dict[str, Any] | None:
    """Read ``deploy_test_route``; None for an empty one.

    :raises UsageError: it is none
    """
    if isinstance(given, Mapping) and set(given) == {"listener"} and given["listener"]:
        return {"listener": str(given["listener"])}
    try:
        return named_value(given, "deploy_test_route", ("value",))
    except UsageError as error:
        raise UsageError(f"{str(error)[:-1]}, or {{listener: ARN of a test listener}}.") from None


def pool_lines(pools: Mapping[str, Any] | None, steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tell pools and schedule of a plan to a person."""
    from ._schedule import duration_text

    lines: list[str] = []
    if pools is not None:
        new, old = pools["new"], pools["old"]
        before = pools["before"] or {}
        shown = ", ".join(f"{name} {share:g}%" for name, share in sorted(before.items()))
        places = " (two slots on the same hosts)" if pools["slots"] else ""
        lines.append(f"Pools: {new} gets the revision, {old} serves now{places}.")
        lines.append(f"  Traffic before: {shown or f'taken to be on {old}'}.")
        after = routing_home(
            {**pools, "home": new if pools["kind"] == BLUE_GREEN else pools["home"]}
        )
        shown = ", ".join(f"{name} {share:g}%" for name, share in sorted(after["weights"].items()))
        lines.append(f"  Traffic after: {shown}.")
        if pools["test_route"]:
            rule = pools["test_route"]
            by = next(one for one in ("header", "cookie", "listener") if one in rule)
            asked = rule[by] if by == "listener" else f"{rule[by]}: {rule.get('value', new)}"
            lines.append(f"  Test route: {by} {asked} leads to {new}.")
        if pools.get("leaving_hooks"):
            lines.append(f"  {' and '.join(pools['leaving_hooks'])} run on {old} once users left.")
        if pools["sticky"]:
            by = "header" if "header" in pools["sticky"] else "cookie"
            lines.append(f"  Users stay with their pool, known by the {by} {pools['sticky'][by]}.")
    if steps:
        width = len(str(len(steps)))
        lines.append("Schedule:")
        lines += [
            f"  {step['number']:>{width}}. {step['text']}"
            f" (after about {duration_text(step['starts_after'])})"
            for step in steps
        ]
    return lines


def dividing(
    endpoints: Sequence[Mapping[str, Any]], status: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Divide the endpoints of a pool into those that may get users, and those that must not.

    :param status: of the deployment's targets by name; what is not in it was not touched
    """
    may: list[dict[str, Any]] = []
    must_not: list[dict[str, Any]] = []
    for one in endpoints:
        known = status.get(str(one["target"]), "Succeeded")
        (may if known == "Succeeded" else must_not).append(dict(one))
    return may, must_not
