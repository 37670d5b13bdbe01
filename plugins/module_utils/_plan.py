# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment is going to do, worked out before anything is done.

Pure: the plan is made from the targets and numbers given, and is plain data, so that it can be
kept in the record, printed, and compared.
"""

from __future__ import annotations

import collections
import itertools
import statistics
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._admission import FORWARD, HEALTH_CONSTRAINTS_INVALID, IDLE, ROLLBACK
from ._approval import approval_text
from ._baseline import baseline_lines
from ._errors import PlanError
from ._pools import BLUE_GREEN, pool_lines
from ._rehearsal import rehearsal_lines, rehearse
from ._schedule import BAKE, GATE, schedule_seconds
from ._zonal import divide, zone_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ._zonal import Zonal

UNKNOWN = "Unknown"
CURRENT = "Current"
OLD = "Old"
NO_PROVIDER = ("", "none")

_WIDTH = 88


@dataclass(frozen=True)
class PlanTarget:
    """A target as it is known before the deployment.

    ``health`` is Healthy, Unhealthy or Unknown; ``digest`` the revision it has, None if not
    known; ``in_service`` whether users reach it now.
    """

    name: str
    zone: str = ""
    health: str = UNKNOWN
    digest: str | None = None
    in_service: bool = True


def make_plan(
    strategy: str,
    targets: Sequence[PlanTarget],
    *,
    digest: str,
    minimum: int,
    stages: Sequence[int] | Callable[[int], Sequence[int]],
    bake_time: float = 0.0,
    provider: str | None = None,
    current: str | None = None,
    rollback: dict[str, Any] | None = None,
    left_out: Sequence[str] = (),
    total: int | None = None,
    mode: str = FORWARD,
    approval: dict[str, Any] | None = None,
    durations: Sequence[float] = (),
    pools: dict[str, Any] | None = None,
    schedule: Sequence[dict[str, Any]] = (),
    first: Sequence[str] = (),
    zonal: Zonal | None = None,
    zones: Mapping[str, int] | None = None,
    gates: dict[str, Any] | None = None,
    alarms_roll_back: bool = True,
    baseline: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Make the plan of a deployment of the revision ``digest``.

    ``targets`` are those to be touched, in inventory order; ``total`` is the size of the whole
    group (a rollback may touch fewer); ``minimum`` of these must stay healthy. ``stages`` are
    batch sizes that add up to the targets, or give such for a number of targets. ``current`` is
    the group's revision: that of its newest successful deployment. ``rollback`` is what
    ``rehearse`` says of the way back (that of a group where nothing has succeeded, if left out).
    ``approval`` is what ``approval_rule`` returns, ``gates`` what ``planned_gates`` does;
    ``alarms_roll_back``: an alarm rolls it back. ``left_out`` are targets of the group that need
    nothing; only with these may there be no target to touch. ``durations`` are seconds that
    targets have taken before. ``pools`` and ``schedule`` are what ``_pools`` makes; the targets of
    ``first`` (canaries) come before all others. With ``zonal`` the stages are those of one zone
    after the other, and ``zones`` are the numbers of targets that the whole group has in each
    (those of the targets, if left out). ``baseline`` is that of ``_baseline``.

    The order is CodeDeploy's (user guide, "Instance health"): unhealthy targets, those whose
    revision is unknown, those with an old revision, those with the group's revision; and last
    those that have this revision already. In a rollback targets that are out of service come
    first. Within a class the order of the inventory is kept.

    Returns {"strategy", "mode", "digest", "provider", "total", "minimum_healthy", "slots",
    "bake_time", "approval", "gates": as given, "stages": [[name]], "targets": [{"name", "zone",
    "stage", "health", "revision", "in_service"}], "left_out": [name], "routing": [{"target",
    "step", "text"}], "pools", "schedule", "canaries": [name], "baseline", "rollback": as
    ``rehearse`` returns it, "warnings": [text], "estimated_seconds": float or None, "zonal": what
    ``divide`` of ``_zonal`` tells, or None}.
    Raises PlanError if the numbers do not allow a deployment.
    """
    whole = len(targets) if total is None else total
    sizes = stages if callable(stages) else list(stages)
    if targets or not left_out:
        plain = sizes(len(targets)) if callable(sizes) else sizes
        _check(targets, minimum, plain, whole, mode)

    idle = set(pools["idle"]) if pools else set()

    def rank(target: PlanTarget) -> tuple[bool, bool, int]:
        served = mode == ROLLBACK and target.in_service
        return target.name not in first, served, _rank(target, digest, current)

    ordered = sorted(targets, key=rank)
    batches, by_zone = _batches(ordered, sizes, zonal, zones, float(bake_time))
    # A rollback goes one at a time where the minimum leaves nothing.
    slots = max(1, len(targets) if mode == IDLE else whole - minimum)
    way_back = _way_back(digest, [target.name for target in ordered], rollback, mode)
    has_balancer = provider not in (None, *NO_PROVIDER)
    return {
        "strategy": strategy,
        "mode": mode,
        "digest": digest,
        "provider": provider or "",
        "total": whole,
        "minimum_healthy": minimum,
        "slots": slots,
        "bake_time": float(bake_time),
        "approval": approval,
        "gates": gates,
        "stages": [[target.name for target in batch] for batch in batches],
        "targets": [
            {
                "name": target.name,
                "zone": target.zone,
                "stage": stage,
                "health": target.health,
                "revision": _revision_state(target, digest, current),
                "in_service": target.in_service,
            }
            for stage, batch in enumerate(batches)
            for target in batch
        ],
        "left_out": list(left_out),
        "routing": _routing([one for one in ordered if one.name not in idle], str(provider))
        if has_balancer
        else [],
        "pools": pools,
        "schedule": list(schedule),
        "canaries": list(first),
        "baseline": baseline,
        "rollback": way_back,
        "warnings": _warnings(whole, minimum, way_back, mode, has_balancer and mode != IDLE)
        + _alarm_warnings(gates, alarms_roll_back)
        + _gate_warnings(gates, schedule)
        if ordered
        else [],
        "estimated_seconds": _estimate(
            [len(batch) for batch in batches],
            slots,
            bake_time,
            durations,
            by_zone,
            schedule,
            last=_bakes_last(gates),
        ),
        "zonal": by_zone,
    }


def _batches(
    ordered: list[PlanTarget],
    sizes: Sequence[int] | Callable[[int], Sequence[int]],
    zonal: Zonal | None,
    zones: Mapping[str, int] | None,
    bake_time: float,
) -> tuple[list[list[PlanTarget]], dict[str, Any] | None]:
    """Divide the targets into stages, and say what is so of the zones."""
    if zonal is None or not ordered:
        plain = sizes(len(ordered)) if callable(sizes) else sizes
        ends = list(itertools.accumulate(plain))
        return [ordered[end - size : end] for end, size in zip(ends, plain)], None  # noqa: B905 - 3.8
    return divide(
        zonal,
        [(target.name, target.zone, target) for target in ordered],
        zones or collections.Counter(target.zone for target in ordered),
        sizes if callable(sizes) else lambda number: [number],
        bake_time,
    )


def _check(
    targets: Sequence[PlanTarget], minimum: int, stages: Sequence[int], total: int, mode: str
) -> None:
    if not targets:
        raise PlanError("There are no targets to deploy to; at least one is needed.")
    named = collections.Counter(target.name for target in targets)
    repeated = sorted(name for name, number in named.items() if number > 1)
    if repeated:
        raise PlanError(
            "A target can be named only once; named more often: {}.".format(", ".join(repeated))
        )
    if total < len(targets):
        raise PlanError(f"The group has {total} targets, so {len(targets)} cannot be touched.")
    if sum(stages) != len(targets) or any(size < 1 for size in stages):
        raise PlanError(
            f"The stages {list(stages)} do not divide {len(targets)} targets: each must be at "
            "least 1, and together they must be as many as there are targets."
        )
    if mode == FORWARD and minimum >= total:
        raise PlanError(
            f"{HEALTH_CONSTRAINTS_INVALID}: {minimum} of {total} targets must stay healthy, so "
            f"none could be taken and the deployment would fail at once. Set the minimum to "
            f"{total - 1} or less, or add targets."
        )


def _rank(target: PlanTarget, digest: str, current: str | None) -> int:
    if target.health == "Unhealthy":
        return 0
    if target.digest is None:
        return 1
    if target.digest == digest:
        return 4
    return 3 if target.digest == current else 2


def _revision_state(target: PlanTarget, digest: str, current: str | None) -> str:
    if target.digest is None:
        return UNKNOWN
    return CURRENT if target.digest in (digest, current) else OLD


def _routing(targets: Iterable[PlanTarget], provider: str) -> list[dict[str, str]]:
    steps = []
    for target in targets:
        if target.in_service:
            text = f"taken out of {provider}, then waits until its requests have ended"
            steps.append({"target": target.name, "step": "block", "text": text})
        text = f"put back into {provider}, then waits until it is seen in service"
        steps.append({"target": target.name, "step": "allow", "text": text})
    return steps


def _way_back(
    digest: str, names: Sequence[str], rehearsed: dict[str, Any] | None, mode: str
) -> dict[str, Any]:
    way = rehearse(digest, None, names) if rehearsed is None else rehearsed
    if mode == ROLLBACK:
        way = {**way, "possible": False, "digest": None, "why": "this is a rollback already"}
    return way


def _warnings(
    total: int, minimum: int, rollback: dict[str, Any], mode: str, has_balancer: bool
) -> list[str]:
    warnings = []
    if mode == FORWARD and not rollback["possible"]:
        warnings.append("A failure cannot be rolled back: {}.".format(rollback["why"]))
    if minimum == 0 and has_balancer:
        warnings.append(
            "No target has to stay healthy: "
            + ("the only target is" if total == 1 else f"all {total} targets may be")
            + " out of service at once."
        )
    return warnings


def _alarm_warnings(gates: dict[str, Any] | None, roll_back: bool) -> list[str]:
    if not gates or not gates["alarms"] or roll_back:
        return []
    return [
        "An alarm stops the deployment and leaves it as it is: deploy_rollback_on does not have "
        "DEPLOYMENT_STOP_ON_ALARM."
    ]


def _gate_warnings(gates: dict[str, Any] | None, schedule: Sequence[dict[str, Any]]) -> list[str]:
    if not schedule or not gates or not gates["texts"] or gates["staged"]:
        return []
    # A step that is a gate may name one of them.
    if any(step["kind"] in (BAKE, GATE) for step in schedule):
        return []
    return [
        "No step asks deploy_gates: they are asked in every bake, and the schedule has none. Add "
        "{bake: 10m} to deploy_schedule, or a schedule that bakes."
    ]


def _bakes_last(gates: dict[str, Any] | None) -> bool:
    """Whether the bake time passes after the last stage, too: there is something to watch."""
    return gates is not None and bool(gates["staged"])


def _estimate(
    stages: Sequence[int],
    slots: int,
    bake_time: float,
    durations: Sequence[float],
    zonal: dict[str, Any] | None,
    schedule: Sequence[dict[str, Any]],
    *,
    last: bool = False,
) -> float | None:
    """Estimate from the median of past durations: waves of ``slots`` targets, and the baking.

    Where nothing is known of the durations, a schedule alone gives the time that it takes.
    """
    moving = schedule_seconds(schedule)
    if not durations:
        return moving or None
    at_once = [slots] * len(stages)
    waits = bake_time * (len(stages) - 1)
    if zonal is not None:
        own = [zone["total"] - zone["minimum_healthy"] for zone in zonal["zones"]]
        at_once = [min(slots, own[number]) for number in zonal["stages"]]
        waits = sum(zonal["waits"])
    waits += bake_time if last else 0.0
    waves = sum(-(-size // most) for size, most in zip(stages, at_once))  # noqa: B905 - 3.8
    return waves * statistics.median(durations) + waits + moving


def render_plan(plan: dict[str, Any]) -> str:
    """Tell a plan to a person: warnings, order, stages, slots, traffic changes, rollback."""
    lines = [_headline(plan)]
    lines += ["Warning: " + warning for warning in plan["warnings"]]
    lines += ["Functions:", *plan["functions"]] if plan.get("functions") else []
    lines += _left_out_lines(plan)
    moved = pool_lines(plan.get("pools"), plan.get("schedule", ()))
    if not plan["targets"]:
        return "\n".join(lines + moved) + "\n"
    lines += baseline_lines(plan.get("baseline"))
    known = {target["name"]: target for target in plan["targets"]}
    for number, names in enumerate(plan["stages"], 1):
        lines += _stage_lines(plan, number, [known[name] for name in names])
    lines += moved
    lines += _routing_lines(plan)
    lines += _gate_lines(plan)
    lines += rehearsal_lines(plan["rollback"])
    if plan["estimated_seconds"] is not None:
        lines.append("Estimated time: about {}.".format(_time(plan["estimated_seconds"])))
    return "\n".join(lines) + "\n"


def _headline(plan: dict[str, Any]) -> str:
    touched, total = len(plan["targets"]), plan["total"]
    pools = plan.get("pools")
    if pools and not touched:
        return (
            f"{plan['strategy']} of revision {plan['digest'][:12]}: {pools['new']} has it, so only "
            "traffic is moved."
        )
    if pools and plan["mode"] == IDLE:
        return (
            f"{plan['strategy']} of revision {plan['digest'][:12]} to {_targets(touched)} of "
            f"{pools['new']}, all at once: {plan['minimum_healthy']} of them must succeed."
        )
    if not touched:
        return (
            f"{plan['strategy']} of revision {plan['digest'][:12]} to {_targets(total)}: nothing "
            "is outdated, so nothing is to be done."
        )
    amount = _targets(touched) if touched == total else f"{touched} of {_targets(total)}"
    return (
        f"{plan['strategy']} of revision {plan['digest'][:12]} to {amount}: "
        f"{plan['minimum_healthy']} must stay healthy, at most {min(plan['slots'], touched)} "
        "at a time."
    )


def _stage_lines(plan: dict[str, Any], number: int, targets: list[dict[str, Any]]) -> list[str]:
    stages = len(plan["stages"])
    head = f"Stage {number} of {stages}: {_targets(len(targets))}"
    if number == 1 and plan.get("canaries"):
        head += " (the canaries)"
    zonal, gates = plan.get("zonal"), plan.get("gates")
    # What passes between two zones stands with the zone.
    within = (
        not zonal
        or zonal["stages"][number - 1 : number + 1].count(zonal["stages"][number - 1]) == 2
    )
    last = number == stages and _bakes_last(gates)
    if plan["bake_time"] and ((number < stages and within) or last):
        head += f", then {_time(plan['bake_time'])} of bake time"
    if gates and gates["staged"] and gates["texts"]:
        head += ", then its gates" if not plan["bake_time"] else " with its gates"
    rule = plan.get("approval")
    if rule and (wait := approval_text(rule, number, stages, _time(rule["timeout"]))):
        head += f", then {wait}"
    lines = [*(zone_lines(zonal, number - 1, _time) if zonal else []), head]
    groups: dict[str, list[str]] = {}
    for target in targets:
        kind = f"{target['health']}, revision {target['revision']}"
        if not target["in_service"]:
            kind += ", no user reaches it" if _is_idle(plan, target) else ", out of service"
        name = target["name"] + (f" ({target['zone']})" if target["zone"] else "")
        groups.setdefault(kind, []).append(name)
    for kind, names in groups.items():
        lines += [f"  {kind}:", *_names(names, "    ")]
    return lines


def _is_idle(plan: dict[str, Any], target: dict[str, Any]) -> bool:
    return target["name"] in ((plan.get("pools") or {}).get("idle") or ())


def _left_out_lines(plan: dict[str, Any]) -> list[str]:
    if not plan.get("left_out"):
        return []
    if plan.get("pools"):
        number = _targets(len(plan["left_out"]))
        return [f"Left as they are: {number}:", *_names(plan["left_out"], "  ")]
    number = _targets(len(plan["left_out"]))
    return [
        f"Left out: {number}, healthy with this revision in the record:",
        *_names(plan["left_out"], "  "),
    ]


def _names(names: Sequence[str], indent: str) -> list[str]:
    return textwrap.wrap(
        ", ".join(names),
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _routing_lines(plan: dict[str, Any]) -> list[str]:
    pools = plan.get("pools")
    if pools and pools["kind"] == BLUE_GREEN:
        return []
    if not plan["routing"]:
        return ["Traffic: no load balancer, users reach targets while they are changed."]
    counted: dict[tuple[str, str], int] = {}
    for step in plan["routing"]:
        key = (step["step"], step["text"])
        counted[key] = counted.get(key, 0) + 1
    return ["Traffic, for each target in its turn:"] + [
        f"  {step}: {text} ({_targets(number)})" for (step, text), number in counted.items()
    ]


def _gate_lines(plan: dict[str, Any]) -> list[str]:
    gates = plan.get("gates")
    if not gates:
        return []
    lines = []
    if gates["texts"]:
        when = "after each stage" if gates["staged"] else "in every bake"
        lines += [f"Gates {when}:", *("  " + text for text in gates["texts"])]
    if gates["alarms"]:
        lines.append("Alarms watched all the time: {}.".format(", ".join(gates["alarms"])))
    return lines


def _targets(number: int) -> str:
    return "1 target" if number == 1 else f"{number} targets"


def _time(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{round(whole / 60)} min"
