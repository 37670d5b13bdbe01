"""The judge of canaries, for programs: measurements in, a verdict out.

>>> from bascule.judge import decide, parse_judge
>>> judge = parse_judge({"metrics": [{"name": "errors", "kind": "rate", "critical": True}]})
"""

from __future__ import annotations

import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.plugin_utils import _judge
from ansible_collections.bascule.deploy.plugins.plugin_utils._judge import (
    Judge,
    Metric,
    Needed,
    parse_judge,
)

if t.TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Judge", "Metric", "Needed", "decide", "parse_judge", "replay", "requests_needed"]

_USUAL = {"metrics": [{"name": "errors", "kind": "rate"}, {"name": "p95", "kind": "series"}]}


def decide(judge: Judge, data: Mapping[str, t.Any], *, final: bool = False) -> dict[str, t.Any]:
    """Return the verdict on what was measured so far; docs/judge.md has the shapes.

    :raises UsageError: the data do not have the shape, or SciPy is not installed
    """
    _need_scipy()
    return _judge.decide(judge, data, final=final)


def requests_needed(rate: float, effect: float, share: float, judge: Judge | None = None) -> Needed:
    """Return how many requests in all it takes until the judge has decided, in 9 cases of 10.

    :param rate: the baseline's rate of bad requests, from 0 to 1
    :param effect: the rise that is to be found, such as 0.02
    :param share: the canary's share of the requests, between 0 and 1
    :param judge: its first rate is asked; by default one of errors and latency as they are
    :returns: ``(to_fail, to_pass)``: until a canary with the effect fails, and until one without it
        passes; None where no number is enough
    :raises UsageError: a number lies outside, or SciPy is not installed
    """
    for name, value in (("rate", rate), ("effect", effect), ("share", share)):
        if not (0 <= value < 1) or (value == 0 and name != "rate"):
            raise UsageError(f"The {name} is a part of 1, such as 0.02, not {value!r}.")
    _need_scipy()
    metric, alpha = _judge.rate_of(judge or parse_judge(_USUAL))
    return _judge.requests_needed(metric, alpha, rate=rate, effect=effect, share=share)


def replay(
    deployment_id: str,
    *,
    step: str | None = None,
    judge: Judge | None = None,
    record: str | None = None,
) -> list[dict[str, t.Any]]:
    """Return every verdict that judges gave in a deployment, as it was and as it is now.

    :param step: only those of this step
    :param judge: another judge than the one that each verdict names: what would it have said?
    :param record: address of the record, that of the environment by default
    :returns: ``[{"step", "gate", "round", "at", "final", "recorded", "replayed", "same", "data"}]``
        in order; ``same``: equal to what was recorded, bit by bit
    :raises UsageError: no judge has decided in it, or SciPy is not installed
    """
    from ansible_collections.bascule.deploy.plugins.plugin_utils import _record

    _need_scipy()
    with _record.Record.open(record) as opened:
        opened.deployment(deployment_id)
        decisions = opened.gate_decisions(deployment_id, step)
    found: list[dict[str, t.Any]] = []
    judged = [one for one in decisions if "look" in one.data and "result" in one.data]
    for name, gate in dict.fromkeys((one.step, one.gate) for one in judged):
        own = [one for one in judged if (one.step, one.gate) == (name, gate)]
        again = _judge.replay([one.data for one in own], judge)
        for one, answer in zip(own, again, strict=True):
            found.append({"step": name, "gate": gate, "round": one.round, **answer})
    if not found:
        where = f"the step {step} of {deployment_id}" if step else deployment_id
        raise UsageError(f"No judge has decided in {where}; there is nothing to replay.")
    return found


def _need_scipy() -> None:
    from importlib.util import find_spec

    if find_spec("scipy") is None:
        raise UsageError("The judge computes with SciPy: pip install 'bascule[judge]'.")
