"""What the judge tells and how soon, beside a canary with fixed thresholds: 2,000 simulated runs.

``python benchmarks/judge.py [--runs N] [--requests N] [--share P] [--looks N] [--weather W]``: each
run is a canary step with a look at every interval of 10 s. First both arms are the same revision:
how often does the judge ever say Fail? Then with a defect: how often, and after how long?

The fixed thresholds are those of an alarm on the canary's own numbers (bad requests, p95) in any
one interval. They are set twice: so that as many of the runs without a defect raise it as the judge
is allowed to fail (``--false-alarms``, its ``alpha``), and so that as many do as the judge failed.
A second judge of equal revisions allows nothing at all (``ratio`` 1, ``tolerance`` 0), so that only
its statistics keep it from false alarms. Last come two comparisons that Kayenta is known to decide
wrong. Deterministic by ``--seed``.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import random
import statistics
from typing import Any

from ansible_collections.bascule.deploy.plugins.plugin_utils._judge import decide, parse_judge
from ansible_collections.bascule.deploy.plugins.plugin_utils._judge._statistics import (
    location_shift,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._simulator import Defect, Traffic
from ansible_collections.bascule.deploy.plugins.plugin_utils._simulator._arms import Arms

INTERVAL = 10.0
JUDGE: dict[str, Any] = {
    "metrics": [
        {"name": "errors", "kind": "rate", "critical": True},
        {"name": "p95", "kind": "series", "critical": True},
    ]
}
# Any rise is bad: what keeps it from false alarms is its statistics alone.
STRICT = {
    "metrics": [
        {**metric, "ratio": 1.0, **({"tolerance": 0.0} if metric["kind"] == "rate" else {})}
        for metric in JUDGE["metrics"]
    ]
}
DEFECTS = {
    "+2 % errors": Defect(errors=0.02),
    "+20 % p95": Defect(latency=1.2),
    "both": Defect(errors=0.02, latency=1.2),
}
# The look at which the judge fails (0: never), and what an alarm sees at each look.
Run = tuple[int, list[tuple[float, float]]]


def main() -> None:
    """Read the options, measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--requests", type=float, default=200.0)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--looks", type=int, default=60)
    parser.add_argument("--weather", type=float, default=0.1)
    parser.add_argument("--false-alarms", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        equal = measured(pool, options, Defect(), "equal")
        false = sum(look > 0 for look, _seen in equal) / options.runs
        strict = measured(pool, options, Defect(), "strict", STRICT)
        print(
            f"{options.runs} runs, {options.requests:g} requests/s, {100 * options.share:g} % on "
            f"the canary, {options.looks} looks of {INTERVAL:g} s, weather {options.weather:g}"
        )
        print(f"equal revisions: the judge fails {100 * false:.2f} % (aim: at most 5 %)")
        strictly = sum(look > 0 for look, _seen in strict) / options.runs
        print(f"the same where no rise is allowed: the judge fails {100 * strictly:.2f} %")
        fixed = {
            "fixed as allowed": thresholds(equal, options.false_alarms),
            "fixed as the judge": thresholds(equal, false),
        }
        for kind, limits in fixed.items():
            alarms = sum(first_alarm(seen, limits) > 0 for _look, seen in equal) / options.runs
            print(
                f"{kind}: {100 * limits[0]:.2f} % bad requests, p95 {1000 * limits[1]:.0f} ms "
                f"(of 200 ms): alarm {100 * alarms:.2f} %"
            )
        for name, defect in DEFECTS.items():
            runs = measured(pool, options, defect, name)
            tell(f"{name}: judge", [look for look, _seen in runs])
            for kind, limits in fixed.items():
                tell(f"{name}: {kind}", [first_alarm(seen, limits) for _look, seen in runs])
    known_failures()


def measured(
    pool: concurrent.futures.Executor,
    options: argparse.Namespace,
    defect: Defect,
    name: str,
    judge: dict[str, Any] = JUDGE,
) -> list[Run]:
    """Return the runs with a defect."""
    traffic = Traffic(requests=options.requests, weather=options.weather)
    one = functools.partial(run, judge, traffic, defect, options.share, options.looks)
    seeds = [f"{options.seed} {name} {number}" for number in range(options.runs)]
    return list(pool.map(one, seeds, chunksize=20))


def run(
    given: dict[str, Any], traffic: Traffic, defect: Defect, share: float, looks: int, seed: str
) -> Run:
    """Measure one canary step to its end, looking at every interval until the judge fails."""
    judge = parse_judge(given)
    arms = Arms(random.Random(seed), traffic, defect)  # noqa: S311 - a simulation
    failed = 0
    seen = []
    for look in range(1, looks + 1):
        arms.measure(INTERVAL, share)
        arms.look()
        seen.append((arms.last["canary"]["rate"], arms.last["canary"]["p95"]))
        if not failed and arms.verdict(judge) == "Fail":
            failed = look
    return failed, seen


def thresholds(equal: list[Run], wanted: float) -> tuple[float, float]:
    """Return the lowest limits that raise no more than the wanted part of false alarms."""
    rates = sorted(max(rate for rate, _p95 in seen) for _look, seen in equal)
    slow = sorted(max(p95 for _rate, p95 in seen) for _look, seen in equal)
    for place in range(len(equal)):
        limits = (rates[place], slow[place])
        if sum(first_alarm(seen, limits) > 0 for _look, seen in equal) <= wanted * len(equal):
            return limits
    return rates[-1], slow[-1]


def first_alarm(seen: list[tuple[float, float]], limits: tuple[float, float]) -> int:
    """Return the first look at which a limit is exceeded, 0 for none."""
    for look, (rate, p95) in enumerate(seen, 1):
        if rate > limits[0] or p95 > limits[1]:
            return look
    return 0


def known_failures() -> None:
    """Print what Kayenta's test and the judge say of two comparisons that it decides wrong."""
    dice = random.Random(0)  # noqa: S311 - a simulation
    few, none = [0.0, 1.0] * 5, [0.0] * 10
    above, level = ([mean + 0.2 * dice.gauss(0, 1) for _one in range(60)] for mean in (100.5, 100))
    halves = {"canary": {"bad": 5, "total": 100}, "baseline": {"bad": 0, "total": 100}}
    tenth = {"canary": {"bad": 5, "total": 100}, "baseline": {"bad": 0, "total": 900}}
    series = {"canary": above, "baseline": level}
    for name, kind, data, pair in (
        ("5 errors against none, half of the traffic", "rate", {"steps": [halves]}, (few, none)),
        ("5 errors against none, a tenth of it", "rate", {"steps": [tenth]}, (few, none)),
        ("a p95 of +0.5 %, seen surely", "series", series, (above, level)),
    ):
        shift = location_shift(*pair)
        kayenta = "High" if shift.low > 0.25 * shift.estimate + 1e-3 else "Pass"
        judge = parse_judge({"metrics": [{"name": "it", "kind": kind, "critical": True}]})
        found = decide(judge, {"metrics": {"it": data}})
        print(f"{name}: Kayenta {kayenta}, judge {found['verdict']} ({found['reason']})")


def tell(what: str, looks: list[int]) -> None:
    """Print how often and how soon something was found."""
    found = sorted(look for look in looks if look)
    when = "never"
    if found:
        late = found[min(len(found) - 1, int(0.95 * len(found)))]
        when = f"median {INTERVAL * statistics.median(found):.0f} s, 95 % {INTERVAL * late:.0f} s"
    print(f"  {what} found {100 * len(found) / len(looks):.1f} %, {when}")


if __name__ == "__main__":
    main()
