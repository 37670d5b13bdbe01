# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the public variables and the options of actions to gates, rules, pools and alarms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...module_utils._ab_test import gate_of
from ...module_utils._configuration import parse_duration
from ...module_utils._errors import UsageError
from ...module_utils._gate_spec import describe_gate, parse_gates
from ...module_utils._schedule import GATE, parse_schedule
from ._evidence import wanted_of
from ._judging import configure
from ._model import Pools
from ._run import ON_INCONCLUSIVE, Rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...module_utils._gate_spec import Gate

# Headers and variables that are called like this hold secrets.
_SECRET = re.compile(r"(?i)auth|cookie|token|key|secret|passw|credential|signature")
# CodeDeploy's limit for a deployment group.
MOST_ALARMS = 10
# These strategies ask the gates after each of their stages; the others have steps of their own.
STAGED = ("in_place", "rolling")

# What the actions that ask gates have in common, by the names of the public variables without
# their prefix (roles/deploy/vars/main.yml).
GATE_OPTIONS: dict[str, dict[str, Any]] = {
    "gates": {"type": "list", "elements": "dict", "default": []},
    "named": {"type": "list", "elements": "dict", "default": []},
    "judge": {"type": "dict", "default": {}},
    "on_inconclusive": {"type": "str", "choices": [*ON_INCONCLUSIVE], "default": "pause"},
    "extensions": {"type": "int", "default": 3},
    "approval_timeout": {"type": "raw", "default": "24h"},
    "approval_on_timeout": {"type": "str", "choices": ["stop", "continue"], "default": "stop"},
    "pools": {
        "type": "dict",
        "default": {},
        "options": {
            "canary": {"type": "str", "default": ""},
            "baseline": {"type": "str", "default": ""},
            "share": {"type": "float"},
            "sticky": {"type": "bool", "default": False},
            "arms": {"type": "dict", "default": {}},
        },
    },
}


def gates_of(options: Mapping[str, Any], name: str = "gates") -> list[Gate]:
    """Return all gates that the options of an action name: gates, alarms, judge and A/B test.

    :raises UsageError: naming what does not fit
    """
    given = [by_name(one, options.get("named") or ()) for one in options["gates"]]
    given += [
        {"type": "cloudwatch_alarm", "name": f"alarm {alarm}", "alarm": alarm}
        for alarm in options.get("alarms") or ()
    ]
    if options.get("judge"):
        interval = options["judge"].get("interval", "10s")
        given.append({"type": "judge", "judge": options["judge"], "interval": interval})
    if options.get("ab_test") is not None:
        given.append(gate_of(options["ab_test"]))
    gates = parse_gates(given, name)
    for gate in gates:
        if gate.type == "judge":
            configure(gate.options.get("judge"))
        if gate.type == "ab_test":
            configure({"metrics": [gate.options["goal"]]})
    return gates


def by_name(given: Any, named: Sequence[Any]) -> Any:
    """Return the gate that a mapping with a name alone stands for; any other as it is.

    :raises UsageError: there is no gate of this name
    """
    if not isinstance(given, Mapping) or set(given) != {"name"}:
        return given
    for one in named:
        if isinstance(one, Mapping) and one.get("name") == given["name"]:
            return one
    raise UsageError(f"deploy_gates has no gate with the name {given['name']!r}.")


def scheduled_gates(settings: Mapping[str, Any]) -> list[Gate]:
    """Return the gates that the steps of a schedule have.

    :raises UsageError: naming what does not fit, or what would be secret: a schedule is in the plan
    """
    found: list[Gate] = []
    if not settings.get("deploy_schedule"):
        return found
    for step in parse_schedule(settings["deploy_schedule"], complete=False):
        if step["kind"] != GATE:
            continue
        given = step["gate"]
        named = [*(given.get("headers") or {}), *(given.get("environment") or {})]
        secret = [str(name) for name in named if _SECRET.search(str(name))]
        if secret:
            raise UsageError(
                f"A gate of deploy_schedule has {secret[0]}, and a schedule is kept in the record. "
                "Give the gate a name in deploy_gates, and write {gate: {name: …}} here."
            )
        found += gates_of({"gates": [given], "named": settings["deploy_gates"]}, "deploy_schedule")
    return found


def rules_of(options: Mapping[str, Any]) -> Rules:
    """Return what follows when the evidence is not enough.

    :raises UsageError: naming what does not fit
    """
    if options["extensions"] < 0:
        raise UsageError(
            f"deploy_inconclusive_extensions is {options['extensions']}; wanted is 0 or more."
        )
    return Rules(
        on_inconclusive=options["on_inconclusive"],
        extensions=options["extensions"],
        approval_timeout=parse_duration(options["approval_timeout"], "deploy_approval_timeout"),
        approval_on_timeout=options["approval_on_timeout"],
    )


def pools_of(given: Mapping[str, Any]) -> Pools:
    """Return what is compared; the share is given in percent."""
    share = given.get("share")
    return Pools(
        canary=str(given.get("canary") or ""),
        baseline=str(given.get("baseline") or ""),
        share=None if share is None else float(share) / 100,
        sticky=bool(given.get("sticky")),
        arms=dict(given.get("arms") or {}),
    )


def options_from(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an action that the public variables mean."""
    return {
        "gates": settings["deploy_gates"],
        "judge": settings["deploy_judge"],
        "on_inconclusive": settings["deploy_on_inconclusive"],
        "extensions": settings["deploy_inconclusive_extensions"],
        "approval_timeout": settings["deploy_approval_timeout"],
        "approval_on_timeout": settings["deploy_approval_on_timeout"],
    }


def alarms_of(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the alarms that are watched during a deployment, None if there are none.

    :returns: {"names": [name], "ignore_poll_failure": bool, "interval": seconds}
    :raises UsageError: there are too many, or one has no name
    """
    names = list(dict.fromkeys(str(name).strip() for name in settings["deploy_alarms"]))
    if not names:
        return None
    if len(names) > MOST_ALARMS:
        raise UsageError(
            f"deploy_alarms names {len(names)} alarms; there may be {MOST_ALARMS}. Combine some to "
            "a composite alarm in CloudWatch, and name that."
        )
    if not all(names):
        raise UsageError("deploy_alarms has an alarm without a name.")
    interval = parse_duration(settings["deploy_alarms_interval"], "deploy_alarms_interval")
    return {
        "names": names,
        "ignore_poll_failure": bool(settings["deploy_alarms_ignore_poll_failure"]),
        "interval": max(1.0, interval),
    }


def planned_gates(strategy: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a plan says of its gates and alarms; None if there are neither.

    Nothing in it is secret. ``texts`` are the gates that are asked after each stage, or where it is
    not ``staged``, in every bake of the schedule.

    :raises UsageError: naming what does not fit
    """
    options = options_from(settings)
    if strategy == "ab_test":
        options["ab_test"] = settings["deploy_ab_test"]
    gates, alarms = gates_of(options, "deploy_gates"), alarms_of(settings)
    rules_of(options)
    scheduled_gates(settings)
    wanted_of(settings["deploy_judge"])
    if strategy in STAGED:
        _refuse_lonely(strategy, settings["deploy_judge"])
    if strategy == "rollback" or not (gates or alarms):
        return None
    return {
        "texts": [describe_gate(gate) for gate in gates],
        "staged": strategy in STAGED,
        "alarms": alarms["names"] if alarms else [],
    }


def _refuse_lonely(strategy: str, judge: Mapping[str, Any]) -> None:
    """Refuse a judge for whom the load balancer would have to count what nobody can compare."""
    if not judge:
        return
    configured = configure(judge)
    if configured.pools.canary and configured.pools.baseline:
        return
    for name, source in configured.sources.items():
        if source["source"] == "proxy":
            raise UsageError(
                f"deploy_judge compares {name} of a canary and of the others at the load balancer, "
                f"and {strategy} has no canary. Deploy with the strategy canary or blue_green, "
                "give the metric another source (prometheus, cloudwatch or command), or leave the "
                "judge out of this deployment: -e '{\"deploy_judge\": {}}'."
            )
