"""Simulate strategies: for programs, and for the command."""

from __future__ import annotations

import shlex
import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RUNS = 100


def simulate(
    strategy: str,
    *,
    fleet: Mapping[str, t.Any] | None = None,
    traffic: Mapping[str, t.Any] | None = None,
    defect: Mapping[str, t.Any] | None = None,
    variables: Mapping[str, t.Any] | None = None,
    interval: t.Any = 10,
    noticed: t.Any = "30m",
    asked: Mapping[str, t.Any] | None = None,
    compare: Iterable[str] = (),
    runs: int = RUNS,
    seed: int = 0,
) -> dict[str, t.Any]:
    """Carry deployments out on a virtual clock, and return what became of them.

    :param fleet: targets, zones, install, install_spread, drain, failure, forks
    :param traffic: requests (a second), users, error_rate, p95, latency_spread, weather, sticky
    :param defect: errors, latency, from_share, hosts; without one only the good revision
    :param variables: those of a deployment that matter here (docs/simulator.md)
    :param interval: time between two looks of the judge
    :param noticed: how long a defect that has passed the deployment meets all users
    :param asked: gate, gate_fails, gate_finds, approval, approval_rejects: how long gates and
        approvals of a schedule take, and by which chance they stop it
    :param compare: further strategies, each as ``"canary deploy_schedule=…"``; what a word after
        the strategy sets goes for it alone, ``variables`` go for the first one
    :returns: docs/simulator.md has the fields; the same seed gives the same numbers
    :raises BasculeError: a value cannot be read, the plan is impossible, or SciPy is missing
    """
    from importlib.util import find_spec

    if find_spec("scipy") is None:
        raise UsageError(
            "The simulator runs the judge, which needs SciPy: pip install 'bascule[judge]'."
        )
    from ansible_collections.bascule.deploy.plugins.plugin_utils import _simulator

    if runs < 1:
        raise UsageError(f"{runs} runs are nothing; at least one is needed.")
    wanted = [(strategy, strategy, dict(variables or {}))]
    wanted += [_other(text) for text in compare]
    return _simulator.simulate(
        [
            (
                name,
                _simulator.parse_scenario(
                    kind, fleet=fleet, traffic=traffic, defect=defect, variables=own,
                    interval=interval, noticed=noticed, asked=asked,
                ),
            )
            for name, kind, own in wanted
        ],
        runs=runs,
        seed=seed,
    )  # fmt: skip


def read_value(name: str, text: str) -> t.Any:
    """Read what ``VAR=VALUE`` sets a variable to: YAML, as a list or true.

    :raises UsageError: it is none
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"The value of {name}, {text!r}, is no YAML.") from error


def _other(text: str) -> tuple[str, str, dict[str, t.Any]]:
    """Read ``STRATEGY VAR=VALUE …``; a value may be YAML."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text!r} cannot be read: {error}.") from error
    if not words:
        raise UsageError("Nothing to compare with: wanted is STRATEGY VAR=VALUE …")
    variables = {}
    for word in words[1:]:
        name, found, value = word.partition("=")
        if not found:
            raise UsageError(f"{word!r} of {text!r} sets nothing; wanted is VAR=VALUE.")
        variables[name] = read_value(name, value)
    return text, words[0], variables
