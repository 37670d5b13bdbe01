# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is simulated: a strategy with its variables, a fleet, traffic and a defect."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from ...module_utils._configuration import (
    parse_configuration,
    parse_duration,
    parse_minimum_healthy,
    parse_stages,
)
from ...module_utils._errors import UsageError
from ...module_utils._pools import named_value, read_test_route
from ...module_utils._schedule import SHIFT, is_schedule_name, parse_schedule
from ...module_utils._zonal import parse_zonal
from .._gates import ON_INCONCLUSIVE, Rules, configure, gates_of, rules_of
from .._settings import public_variables, refuse_unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...module_utils._configuration import MinimumHealthy
    from ...module_utils._gate_spec import Gate
    from ...module_utils._zonal import Zonal
    from .._judge import Judge

BY_HOSTS = ("in_place", "rolling")
# What is nothing for strategies without pools.
_OF_POOLS = {
    "deploy_schedule", "deploy_canary_targets", "deploy_traffic_pools", "deploy_test_route",
    "deploy_sticky", "deploy_ready_timeout", "deploy_ready_on_timeout", "deploy_retire",
    "deploy_retire_after",
}  # fmt: skip
BY_TRAFFIC = ("blue_green", "canary")
STRATEGIES = (*BY_HOSTS, *BY_TRAFFIC)

_JUDGE = {
    "metrics": [
        {"name": "errors", "kind": "rate", "critical": True},
        {"name": "p95", "kind": "series", "critical": True},
    ]
}
_ONE_AT_A_TIME = "CodeDeployDefault.OneAtATime"
_SCHEDULES: dict[str, Any] = {
    "blue_green": "all_at_once",
    "canary": "LambdaCanary10Percent10Minutes",
    "canary by targets": [{"bake": "5m"}],
}
# The variables of a deployment that the simulator understands.
VARIABLES = frozenset(
    {
        "deploy_minimum_healthy_hosts", "deploy_configuration", "deploy_stages",
        "deploy_bake_time", "deploy_zonal", "deploy_schedule", "deploy_judge", "deploy_gates",
        "deploy_on_inconclusive", "deploy_inconclusive_extensions", "deploy_approval_timeout",
        "deploy_approval_on_timeout", "deploy_canary_targets", "deploy_traffic_pools",
        "deploy_test_route", "deploy_sticky", "deploy_ready_timeout", "deploy_ready_on_timeout",
        "deploy_retire", "deploy_retire_after",
    }
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fleet:
    """``targets`` in ``zones``; times in seconds.

    A target takes ``drain`` and then a lognormal time with the median ``install`` and the spread
    ``install_spread`` (deviation of the logarithm), and fails by itself by the chance ``failure``.
    ``forks`` are worked on at a time at most. ``canaries`` are in a pool of their own (strategy
    ``canary``), beside ``targets``.
    """

    targets: int = 10
    canaries: int = 1
    zones: int = 1
    install: float = 30.0
    install_spread: float = 0.3
    drain: float = 5.0
    failure: float = 0.0
    forks: int = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traffic:
    """Requests a second by ``users``, all alike; bad ones by ``error_rate``.

    The latency is lognormal with the 95th percentile ``p95`` (seconds) and ``latency_spread``.
    ``weather`` moves both arms alike from interval to interval: the deviation of the logarithm of
    the latency and of the error rate. ``sticky``: a user stays with the revision he has got.
    """

    requests: float = 100.0
    users: int = 10_000
    error_rate: float = 0.01
    p95: float = 0.2
    latency_spread: float = 0.5
    weather: float = 0.1
    sticky: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Defect:
    """What is wrong with the revision: ``errors`` are added to the error rate of its requests.

    ``latency`` multiplies its latency. Both show from the share ``from_share`` of the traffic on
    (0 to 1). A target fails its hooks or health gates because of it by the chance ``hosts``.
    """

    errors: float = 0.0
    latency: float = 1.0
    from_share: float = 0.0
    hosts: float = 0.0

    @property
    def is_none(self) -> bool:
        """Whether the revision is as good as the one before."""
        return self.errors == 0 and self.latency == 1 and self.hosts == 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What the steps ``gate`` and ``approval`` of a schedule are taken to do.

    A gate takes ``gate`` seconds, fails by itself by the chance ``gate_fails``, and because of the
    defect by ``gate_finds``. A person answers after ``approval`` seconds, and rejects by the
    chance ``approval_rejects``.
    """

    gate: float = 10.0
    gate_fails: float = 0.0
    gate_finds: float = 0.0
    approval: float = 600.0
    approval_rejects: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scenario:
    """All of a simulation but its seed. ``interval`` is the time between two looks of the judge.

    ``shift`` is how long it takes until a changed share is seen, and ``back`` until nobody reaches
    the new pool any more. ``noticed`` is how long it takes until somebody notices a defect that
    has passed the deployment, and the revision meets all users meanwhile. All in seconds.

    ``gates`` are asked while a step bakes, or after each stage; the judge is one of them.
    ``named`` are ``deploy_gates`` as they are written, ``names`` those of the pools (the first one
    serves), ``pools`` what else the variables say of these, ``first`` is how many targets are
    canaries among the others. ``ignored`` are variables that mean nothing here.
    """

    strategy: str
    fleet: Fleet
    traffic: Traffic
    defect: Defect
    minimum: MinimumHealthy
    stages: Any
    bake_time: float
    zonal: Zonal | None
    schedule: tuple[dict[str, Any], ...]
    judge: Judge | None
    gates: tuple[Gate, ...] = ()
    named: tuple[dict[str, Any], ...] = ()
    rules: Rules = dataclasses.field(default_factory=Rules)
    names: tuple[str, str] = ("old", "new")
    first: int = 0
    pools: dict[str, Any] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    interval: float = 10.0
    shift: float = 5.0
    back: float = 2.0
    noticed: float = 1800.0
    asked: Asked = dataclasses.field(default_factory=Asked)


def parse_scenario(
    strategy: str,
    *,
    fleet: Mapping[str, Any] | None = None,
    traffic: Mapping[str, Any] | None = None,
    defect: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    interval: Any = 10,
    noticed: Any = "30m",
    asked: Mapping[str, Any] | None = None,
) -> Scenario:
    """Read what is to be simulated.

    ``fleet``, ``traffic``, ``defect`` and ``asked`` have the keys of the classes above,
    ``variables`` are those of a deployment; what is none of ``VARIABLES`` changes nothing here.

    :raises UsageError: a value cannot be read, or this strategy has no use for a variable
    """
    if strategy not in STRATEGIES:
        raise UsageError(
            f"{strategy!r} cannot be simulated; {', '.join(STRATEGIES)} can. An A/B test and a "
            "shadow expose users as their schedules say, or not at all."
        )
    given = dict(variables or {})
    refuse_unknown(given, public_variables())
    ignored = sorted(set(given) - VARIABLES)
    foreign = {"deploy_stages", "deploy_zonal", "deploy_canary_targets"}
    if strategy == "canary":
        # The fleet behind the canaries has stages.
        foreign = {"deploy_bake_time", "deploy_zonal", "deploy_retire", "deploy_retire_after"}
    if strategy in BY_HOSTS:
        foreign = _OF_POOLS | ({"deploy_stages"} if strategy == "in_place" else set())
    for name in sorted(foreign & set(given)):
        raise UsageError(f"{name} is nothing for {strategy}: it would change nothing there.")
    configuration = given.get("deploy_configuration", _ONE_AT_A_TIME)
    # A configuration of traffic says nothing of hosts.
    described, zonal = parse_configuration(
        _ONE_AT_A_TIME if is_schedule_name(configuration) else configuration
    )
    minimum = given.get("deploy_minimum_healthy_hosts", "")
    if minimum not in ("", None):
        described = parse_minimum_healthy(minimum)
    size = _read(Fleet, fleet, "fleet")
    interval = parse_duration(interval, "interval")
    if interval <= 0:
        raise UsageError("interval must be above 0: it is the time between two looks.")
    first = _first(strategy, given, size.targets)
    judge = _judge_of(strategy, given)
    gates = {"gates": given.get("deploy_gates") or [], "judge": _with_interval(judge, interval)}
    scenario = Scenario(
        strategy=strategy,
        fleet=size,
        traffic=_read(Traffic, traffic, "traffic"),
        defect=_read(Defect, defect, "defect"),
        minimum=described,
        stages=given.get("deploy_stages", ["100%"]),
        bake_time=parse_duration(given.get("deploy_bake_time", 0), "deploy_bake_time"),
        zonal=parse_zonal(given.get("deploy_zonal")) or parse_zonal(zonal, "zonalConfig"),
        schedule=_schedule("canary by targets" if first else strategy, given),
        judge=None if judge is None else configure(judge).judge,
        gates=tuple(gates_of(gates, "deploy_gates")),
        named=tuple(given.get("deploy_gates") or ()),
        rules=rules_of(
            {
                "on_inconclusive": given.get("deploy_on_inconclusive", "pause"),
                "extensions": _whole(given, "deploy_inconclusive_extensions", 3),
                "approval_timeout": given.get("deploy_approval_timeout", "24h"),
                "approval_on_timeout": given.get("deploy_approval_on_timeout", "stop"),
            }
        ),
        names=_pool_names(given),
        first=first,
        pools=_of_pools(given),
        ignored=tuple(ignored),
        interval=interval,
        noticed=parse_duration(noticed, "noticed"),
        asked=_read(Asked, asked, "asked"),
    )
    parse_stages(scenario.stages, scenario.fleet.targets)
    if scenario.rules.on_inconclusive not in ON_INCONCLUSIVE:
        raise UsageError(
            f"deploy_on_inconclusive is {scenario.rules.on_inconclusive!r}; wanted is one of "
            f"{', '.join(ON_INCONCLUSIVE)}."
        )
    return scenario


def _first(strategy: str, given: Mapping[str, Any], targets: int) -> int:
    """Return how many targets are canaries among the others; 0 where these are a pool."""
    wanted = given.get("deploy_canary_targets")
    if strategy != "canary" or wanted in (None, "", 0):
        return 0
    found = parse_stages([wanted, "100%"], targets)[0]
    if not 0 < found < targets:
        raise UsageError(f"deploy_canary_targets is {wanted!r}; wanted are some of {targets}.")
    return found


def _pool_names(given: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names of the pool that serves and of the other one."""
    names = [str(name) for name in given.get("deploy_traffic_pools") or ("old", "new")]
    if len(set(names)) != 2:
        raise UsageError(
            "deploy_traffic_pools names two pools here, the one that serves first, such as "
            f"{{blue: {{}}, green: {{}}}}; not {', '.join(names)}."
        )
    return names[0], names[1]


def _of_pools(given: Mapping[str, Any]) -> dict[str, Any]:
    sticky = named_value(given.get("deploy_sticky"), "deploy_sticky", ("ttl",))
    return {
        "test_route": read_test_route(given.get("deploy_test_route")),
        "sticky": sticky,
        "retire": given.get("deploy_retire") or "keep",
        "retire_after": parse_duration(given.get("deploy_retire_after", 0), "deploy_retire_after"),
        "ready_timeout": parse_duration(
            given.get("deploy_ready_timeout", 0), "deploy_ready_timeout"
        ),
        "ready_on_timeout": given.get("deploy_ready_on_timeout") or "continue",
    }


def _whole(given: Mapping[str, Any], name: str, default: int) -> int:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{name} is {value!r}; wanted is a whole number from 0.")
    return value


def _with_interval(judge: Mapping[str, Any] | None, interval: float) -> dict[str, Any]:
    """Return a judge that looks at the interval of the scenario, unless it has one of its own."""
    return {} if judge is None else {"interval": interval, **judge}


def _schedule(strategy: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    if strategy in BY_HOSTS:
        return ()
    complete = strategy == "blue_green"
    written = given.get("deploy_schedule")
    if not written and is_schedule_name(given.get("deploy_configuration")):
        written = given["deploy_configuration"]
    steps = parse_schedule(written or _SCHEDULES[strategy], complete=complete)
    # The last step of a canary deployment is the rest of the fleet, not all traffic on the canary.
    if not complete and steps and steps[-1]["kind"] == SHIFT and steps[-1]["share"] == 100:
        steps.pop()
    return tuple(steps)


def _judge_of(strategy: str, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the judge: by default errors and p95 where traffic is shifted, none else."""
    value = given.get("deploy_judge", _JUDGE if strategy in BY_TRAFFIC else None)
    if value in (None, "", False) or value == {}:
        return None
    return dict(_JUDGE if value is True else value)


def _read(kind: Any, given: Mapping[str, Any] | None, name: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in (given or {}).items():
        if key not in fields:
            raise UsageError(f"{name} has no {key!r}; it has {', '.join(fields)}.")
        values[key] = _value(name, key, fields[key].default, value)
    return kind(**values)


_PARTS = frozenset(
    {
        "failure", "error_rate", "errors", "from_share", "hosts", "gate_fails", "gate_finds",
        "approval_rejects",
    }
)  # fmt: skip
_TIMES = frozenset({"install", "drain", "p95", "gate", "approval"})
_ABOVE_NOTHING = frozenset(
    {"targets", "canaries", "zones", "forks", "requests", "users", "latency", "p95"}
)


def _value(name: str, key: str, default: Any, value: Any) -> Any:
    """Read one value: a part of 1 may be a share, a time may have a unit."""
    wanted = f"something like {default!r}"
    if key in _PARTS:
        wanted = "a share from 0% to 100%, such as 2%"
    elif key in _ABOVE_NOTHING:
        whole = "whole " if isinstance(default, int) else ""
        wanted = f"a {whole}number above 0, such as {default!r}"
    wrong = UsageError(f"{key} of {name} is {value!r}; wanted is {wanted}.")
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise wrong
        return value
    if key in _TIMES:
        number = parse_duration(value, f"{key} of {name}")
    else:
        text = str(value).strip()
        share = text.endswith("%")
        try:
            number = float(text[:-1] if share else text)
        except ValueError:
            raise wrong from None
        number = number / 100 if share else number
    if isinstance(value, bool) or not math.isfinite(number) or number < 0:
        raise wrong
    if (key in _PARTS and number > 1) or (key in _ABOVE_NOTHING and number == 0):
        raise wrong
    if isinstance(default, int):
        if number != int(number):
            raise wrong
        return int(number)
    return number
