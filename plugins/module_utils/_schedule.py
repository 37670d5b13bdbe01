# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How traffic moves to a new pool, step by step: one language for every provider.

Pure functions over plain values. A step is one of
    {"kind": "shift", "share": percent of the traffic that the new pool has from now on}
    {"kind": "bake", "seconds": float}; that of an A/B test has "decides", metric or person
    {"kind": "gate", "gate": what the action ``gate`` is asked with}
    {"kind": "approval", "timeout": seconds, "on_timeout": "stop" or "continue"}
A deployment adds steps of its own around them (``_pools.deployment_steps``): {"kind": "pool"}, see
the targets of the new pool in service; {"kind": "test"}, open its test route; {"kind": "retire",
"how"}, retire the old pool; {"kind": "fleet", "how"}, let the new pool's Auto Scaling group keep it
filled from now on, and end that of the old pool if ``how`` is "terminate". Functions that follow
each other have {"kind": "hook", "target", "event", "hook": the function that is asked, empty where
none is, "settles": whether the target is done with it} (``_aliases.schedule_in_order``).
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ._configuration import NAMED as HOST_CONFIGURATIONS
from ._configuration import parse_duration
from ._errors import UsageError

SHIFT, BAKE, GATE, APPROVAL = "shift", "bake", "gate", "approval"
POOL, TEST, RETIRE, FLEET, HOOK = "pool", "test", "retire", "fleet", "hook"
ALL_AT_ONCE = "all_at_once"
STOP, CONTINUE = "stop", "continue"

# How long it takes until a changed share is seen, where nothing is known about the provider.
SHIFT_SECONDS = 5.0

_PREFIX = "codedeploydefault."
_SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%?\Z")
_APPROVAL_TIMEOUT = 86400.0
_MOST_STEPS = 1000

# The predefined configurations: the first share in percent, and the minutes until the rest
# follows (canary) or between steps of that share (linear). User guide, "Working with deployment
# configurations"; the bare names are those of AWS SAM's DeploymentPreference.
_CANARY = {
    "LambdaCanary10Percent5Minutes": (10, 5),
    "LambdaCanary10Percent10Minutes": (10, 10),
    "LambdaCanary10Percent15Minutes": (10, 15),
    "LambdaCanary10Percent30Minutes": (10, 30),
    "ECSCanary10Percent5Minutes": (10, 5),
    "ECSCanary10Percent15Minutes": (10, 15),
}
_LINEAR = {
    "LambdaLinear10PercentEvery1Minute": (10, 1),
    "LambdaLinear10PercentEvery2Minutes": (10, 2),
    "LambdaLinear10PercentEvery3Minutes": (10, 3),
    "LambdaLinear10PercentEvery10Minutes": (10, 10),
    "ECSLinear10PercentEvery1Minutes": (10, 1),
    "ECSLinear10PercentEvery3Minutes": (10, 3),
}
_AT_ONCE = ("LambdaAllAtOnce", "ECSAllAtOnce")
NAMES: tuple[str, ...] = (*_AT_ONCE, *_CANARY, *_LINEAR)


def parse_schedule(
    value: Any, name: str = "deploy_schedule", *, complete: bool = True
) -> list[dict[str, Any]]:
    """Read a schedule as the list of its steps.

    ``value`` is ``all_at_once``; the name of a configuration that CodeDeploy has for Lambda or
    ECS, with or without ``CodeDeployDefault.`` and the platform, in any case of letters;
    ``{canary: {first: 10%, then_after: 5m}}``; ``{linear: {step: 10%, every: 1m}}``; CodeDeploy's
    own ``{type: TimeBasedCanary, timeBasedCanary: {canaryPercentage: 10, canaryInterval: 5}}``
    (minutes); a list of ``{shift: 5%}``, ``{bake: 10m}``, ``{gate: {…}}``, ``{approval: 1h}``; or
    any of these as JSON text, as ``-e`` gives it. A parsed schedule is returned as it is.

    Shares rise from step to step. A list whose last share is below 100 % gets a last step that
    moves the rest, unless ``complete`` is false.
    Raises UsageError, which names the variable ``name``.
    """
    value = _from_text(value)
    if isinstance(value, str):
        steps = _named(value, name)
    elif isinstance(value, Mapping):
        steps = _form(value, name)
    elif isinstance(value, Sequence):
        steps = _listed(value, name)
    else:
        raise UsageError(f"{name} is {value!r}; {_wanted()}")
    if complete and _last_share(steps) < 100:
        steps.append({"kind": SHIFT, "share": 100.0})
    return steps


def nearest_name(value: Any) -> str:
    """Return the predefined name that a misspelt one is nearest to; empty if none is near."""
    if not isinstance(value, str):
        return ""
    known = {named.lower(): named for named in NAMES}
    near = difflib.get_close_matches(_bare(value), known, n=1, cutoff=0.8)
    return known[near[0]] if near else ""


def is_schedule_name(value: Any) -> bool:
    """Tell whether ``value`` names a predefined configuration of traffic (not one of hosts)."""
    return isinstance(value, str) and _bare(value) in _names() and _bare(value) != "allatonce"


def schedule_times(
    steps: Sequence[Mapping[str, Any]], shift_seconds: float = SHIFT_SECONDS
) -> list[dict[str, Any]]:
    """Return the steps for a plan, each with its number and its estimated time.

    Added keys: ``number`` from 1; ``seconds``, how long the step is expected to take: a bake its
    time, a shift ``shift_seconds``, a gate or an approval 0.0, because both may be answered at
    once; ``starts_after``, the sum of the seconds before.
    """
    timed: list[dict[str, Any]] = []
    passed = 0.0
    for number, step in enumerate(steps, 1):
        seconds = shift_seconds if step["kind"] in (SHIFT, TEST, POOL, RETIRE, FLEET) else 0.0
        seconds = step["seconds"] if step["kind"] == BAKE else seconds
        timed.append({**step, "number": number, "seconds": seconds, "starts_after": passed})
        passed += seconds
    return timed


def schedule_seconds(timed: Sequence[Mapping[str, Any]]) -> float:
    """Return the estimated seconds of a whole schedule, without what persons and gates take."""
    return float(sum(step["seconds"] for step in timed))


def render_schedule(timed: Sequence[Mapping[str, Any]], new: str = "", old: str = "") -> list[str]:
    """Tell the steps of ``schedule_times`` to a person, a line each.

    ``new`` and ``old`` are the names of the two pools.
    """
    width = len(str(len(timed)))
    return [
        f"  {step['number']:>{width}}. {step_text(step, new, old)}"
        f" (after about {duration_text(step['starts_after'])})"
        for step in timed
    ]


def step_label(number: int) -> str:
    """Return the name under which a step's gates are in the record."""
    return f"step {number}"


def step_text(step: Mapping[str, Any], new: str = "", old: str = "") -> str:
    """Say in words what a step does."""
    kind = step["kind"]
    new, old = new or "the new pool", old or "the old pool"
    own = {
        POOL: f"see the targets of {new} in service",
        TEST: f"open the test route to {new}",
        RETIRE: f"retire {old} ({step.get('how')})",
        FLEET: f"let the Auto Scaling group of {new} keep it filled"
        + (f", delete that of {old}" if step.get("how") == "terminate" else ""),
    }
    if kind in own:
        return own[kind]
    if kind == HOOK:
        return _hook_text(step)
    if kind == SHIFT and not step["share"]:
        return f"bring all traffic back to {old}"
    if kind == SHIFT:
        rest = 100 - step["share"]
        left = f", {rest:g}% stays on {old}" if rest else ""
        return f"shift {step['share']:g}% of the traffic to {new}{left}"
    if kind == BAKE and step.get("decides"):
        by = "a metric" if step["decides"] == "metric" else "a person"
        longest = duration_text(step["seconds"])
        return f"keep this split until {by} decides for {new}, at most {longest}"
    if kind == BAKE:
        return f"bake for {duration_text(step['seconds'])}"
    if kind == GATE:
        return f"ask the gate {gate_name(step['gate'])}"
    end = "then it goes on" if step["on_timeout"] == CONTINUE else "then it stops"
    return f"wait for an approval, at most {duration_text(step['timeout'])}, {end}"


def _hook_text(step: Mapping[str, Any]) -> str:
    asked = f"have {step['hook']} check {step['target']} ({step['event']})" if step["hook"] else ""
    done = f"{step['target']} is done" if step["settles"] else ""
    return ", then ".join(one for one in (asked, done) if one)


def gate_name(gate: Mapping[str, Any]) -> str:
    """Return what a person calls a gate: its name, its kind, or the first key that it has."""
    return str(gate.get("name") or gate.get("kind") or gate.get("type") or next(iter(gate), "gate"))


def duration_text(seconds: float) -> str:
    """Return seconds as a person would write them: ``45s``, ``1m30s``, ``2h``, ``250ms``."""
    if seconds < 1 and seconds != 0:
        return f"{seconds * 1000:g}ms"
    whole = round(seconds)
    if abs(seconds - whole) > 1e-9 and seconds < 60:
        return f"{seconds:g}s"
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, whole = divmod(whole, size)
        if amount:
            parts.append(f"{amount}{unit}")
    return "".join(parts) or "0s"


def _from_text(value: Any) -> Any:
    """Read what ``-e`` gives: text that may be JSON."""
    if not isinstance(value, str) or not value.strip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _bare(text: str) -> str:
    plain = text.strip().lower()
    return plain[len(_PREFIX) :] if plain.startswith(_PREFIX) else plain


def _names() -> dict[str, list[dict[str, Any]]]:
    """Return the steps of each known name, without prefix and in small letters."""
    known: dict[str, list[dict[str, Any]]] = {}
    for named, (share, minutes) in _CANARY.items():
        known[named.lower()] = _canary(float(share), minutes * 60.0)
    for named, (share, minutes) in _LINEAR.items():
        known[named.lower()] = _linear(float(share), minutes * 60.0)
    for named in _AT_ONCE:
        known[named.lower()] = _at_once()
    for named in list(known):
        for platform in ("lambda", "ecs"):
            if named.startswith(platform):
                known.setdefault(named[len(platform) :], known[named])
    known["all_at_once"] = _at_once()
    return known


def _at_once() -> list[dict[str, Any]]:
    return [{"kind": SHIFT, "share": 100.0}]


def _canary(first: float, seconds: float) -> list[dict[str, Any]]:
    return [
        {"kind": SHIFT, "share": first},
        {"kind": BAKE, "seconds": seconds},
        {"kind": SHIFT, "share": 100.0},
    ]


def _linear(step: float, seconds: float) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    for number in itertools.count(1):
        share = round(step * number, 9)
        if share >= 100:
            break
        steps += [{"kind": SHIFT, "share": share}, {"kind": BAKE, "seconds": seconds}]
    return [*steps, {"kind": SHIFT, "share": 100.0}]


def _named(text: str, name: str) -> list[dict[str, Any]]:
    bare = _bare(text)
    known = _names().get(bare)
    if known is not None:
        return [dict(step) for step in known]
    if bare in (host.lower() for host in HOST_CONFIGURATIONS):
        raise UsageError(
            f"{name} is {text!r}, which says how many hosts are taken at once and belongs into "
            f"deploy_configuration; {_wanted()}"
        )
    near = nearest_name(text)
    meant = f" (did you mean {near}?)" if near else ""
    raise UsageError(f"{name} is {text!r}{meant}; {_wanted()}")


def _form(value: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    if "type" in value:
        return _form_of_api(value, name)
    if set(value) == {"canary"}:
        given = _keys(value["canary"], {"first", "then_after"}, f"{name}.canary")
        first = _share(given["first"], f"{name}.canary.first", below_all=True)
        return _canary(first, parse_duration(given["then_after"], f"{name}.canary.then_after"))
    if set(value) == {"linear"}:
        given = _keys(value["linear"], {"step", "every"}, f"{name}.linear")
        step = _step_share(given["step"], f"{name}.linear.step")
        return _linear(step, parse_duration(given["every"], f"{name}.linear.every"))
    if set(value) == {ALL_AT_ONCE}:
        return _at_once()
    raise UsageError(f"{name} has the keys {', '.join(map(str, value)) or 'none'}; {_wanted()}")


def _form_of_api(value: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Read a ``trafficRoutingConfig`` of CodeDeploy; its intervals are minutes."""
    kind = str(value["type"]).lower()
    if kind == "allatonce":
        return _at_once()
    forms = {
        "timebasedcanary": ("timeBasedCanary", "canaryPercentage", "canaryInterval"),
        "timebasedlinear": ("timeBasedLinear", "linearPercentage", "linearInterval"),
    }
    if kind not in forms:
        raise UsageError(
            f"{name}.type is {value['type']!r}; wanted is AllAtOnce, TimeBasedCanary or "
            "TimeBasedLinear."
        )
    form, percentage, interval = forms[kind]
    given = _keys(value.get(form), {percentage, interval}, f"{name}.{form}")
    seconds = 60 * parse_duration(given[interval], f"{name}.{form}.{interval}")
    if kind == "timebasedcanary":
        return _canary(_share(given[percentage], f"{name}.{form}.{percentage}", True), seconds)
    return _linear(_step_share(given[percentage], f"{name}.{form}.{percentage}"), seconds)


def _listed(value: Sequence[Any], name: str) -> list[dict[str, Any]]:
    if not value:
        raise UsageError(f"{name} is an empty list; {_wanted()}")
    if len(value) > _MOST_STEPS:
        raise UsageError(f"{name} has {len(value)} steps; at most {_MOST_STEPS} are read.")
    steps = [_step(entry, f"{name}[{index}]") for index, entry in enumerate(value)]
    share = 0.0
    for index, step in enumerate(steps):
        if step["kind"] != SHIFT:
            continue
        if step["share"] <= share:
            raise UsageError(
                f"{name}[{index}] shifts to {step['share']:g}% after {share:g}%; wanted are shares "
                "that rise. The way back is the rollback, which needs no step."
            )
        share = step["share"]
    return steps


def _step(entry: Any, name: str) -> dict[str, Any]:
    if entry == APPROVAL:
        entry = {APPROVAL: {}}
    if isinstance(entry, Mapping) and "kind" in entry:
        entry = _unparsed(entry, name)
    if not isinstance(entry, Mapping) or len(entry) != 1 or next(iter(entry)) not in _READERS:
        raise UsageError(
            f"{name} is {entry!r}; wanted is one of {{shift: 5%}}, {{bake: 10m}}, {{gate: {{…}}}} "
            "and {approval: 1h}."
        )
    kind, content = next(iter(entry.items()))
    return dict(_READERS[kind](content, f"{name}.{kind}"))


def _unparsed(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a parsed step as a person writes it, so that a plan's schedule can be read again."""
    kind = entry["kind"]
    if kind == APPROVAL:
        return {kind: {key: entry[key] for key in ("timeout", "on_timeout") if key in entry}}
    content = {SHIFT: "share", BAKE: "seconds", GATE: "gate"}.get(str(kind))
    if content is None or content not in entry:
        raise UsageError(
            f"{name} is {dict(entry)!r}; wanted is a kind of shift, bake, gate or approval and its "
            "share, seconds, gate or timeout."
        )
    return {kind: entry[content]}


def _shift_step(content: Any, name: str) -> dict[str, Any]:
    return {"kind": SHIFT, "share": _share(content, name)}


def _bake_step(content: Any, name: str) -> dict[str, Any]:
    return {"kind": BAKE, "seconds": parse_duration(content, name)}


def _gate_step(content: Any, name: str) -> dict[str, Any]:
    if not isinstance(content, Mapping) or not content:
        raise UsageError(f"{name} is {content!r}; wanted is a gate as in deploy_gates.")
    return {"kind": GATE, "gate": dict(content)}


def _approval_step(content: Any, name: str) -> dict[str, Any]:
    given = {"timeout": content} if not isinstance(content, Mapping) else dict(content)
    unknown = sorted(set(given) - {"timeout", "on_timeout"})
    on_timeout = given.get("on_timeout", STOP)
    if unknown or on_timeout not in (STOP, CONTINUE):
        raise UsageError(
            f"{name} is {content!r}; wanted is how long to wait (1h) or {{timeout: 1h, on_timeout: "
            "stop or continue}."
        )
    timeout = given.get("timeout", _APPROVAL_TIMEOUT)
    return {
        "kind": APPROVAL,
        "timeout": parse_duration(timeout, name),
        "on_timeout": on_timeout,
    }


_READERS = {SHIFT: _shift_step, BAKE: _bake_step, GATE: _gate_step, APPROVAL: _approval_step}


def _share(value: Any, name: str, below_all: bool = False) -> float:
    plain = isinstance(value, (int, float, str)) and not isinstance(value, bool)
    found = _SHARE.match(str(value).strip()) if plain else None
    share = float(found.group(1)) if found else 0.0
    if not 0 < share <= 100 or (below_all and share == 100):
        raise UsageError(
            f"{name} is {value!r}; wanted is a share of the traffic above 0% and "
            + ("below 100%." if below_all else "at most 100%.")
        )
    return share


def _step_share(value: Any, name: str) -> float:
    share = _share(value, name)
    if share < 100 / _MOST_STEPS:
        raise UsageError(f"{name} is {value!r}; wanted is at least {100 / _MOST_STEPS:g}%.")
    return share


def _keys(value: Any, wanted: set[str], name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or set(value) != wanted:
        raise UsageError(f"{name} is {value!r}; wanted are {' and '.join(sorted(wanted))}.")
    return value


def _last_share(steps: Sequence[Mapping[str, Any]]) -> float:
    return max((step["share"] for step in steps if step["kind"] == SHIFT), default=0.0)


def _wanted() -> str:
    return (
        "wanted is all_at_once, {canary: {first: 10%, then_after: 5m}}, {linear: {step: 10%, "
        "every: 1m}}, a list of {shift: 5%}, {bake: 10m}, {gate: {…}} and {approval: 1h}, or one "
        f"of {', '.join(NAMES)}."
    )
