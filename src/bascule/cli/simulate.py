"""The command simulate: what strategies would do, before anything is done."""

from __future__ import annotations

import typing as t

from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_text import duration

from bascule import _simulate
from bascule.cli._options import add_variables, read_variables
from bascule.cli._output import columns, say, say_json
from bascule.result import DONE

if t.TYPE_CHECKING:
    import argparse

_FLEET = (
    ("targets", "10", "how many targets there are"),
    ("canaries", "1", "targets of the pool of canaries, beside these (strategy canary)"),
    ("zones", "1", "in how many zones"),
    ("install", "30s", "median time that a target takes, without draining"),
    ("install-spread", "0.3", "deviation of the logarithm of that time"),
    ("drain", "5s", "time that a target takes to leave the traffic"),
    ("failure", "0%", "chance that a target fails by itself"),
    ("forks", "64", "targets that are worked on at a time"),
)
_TRAFFIC = (
    ("requests", "100", "requests a second"),
    ("users", "10000", "users who send them, all alike"),
    ("error-rate", "1%", "bad requests of the revision before"),
    ("p95", "200ms", "95th percentile of its latency"),
    ("latency-spread", "0.5", "deviation of the logarithm of the latency"),
    ("weather", "0.1", "how much both revisions move together from look to look"),
)
_DEFECT = (
    ("errors", "2%", "bad requests that it adds"),
    ("latency", "1.2", "factor of its latency"),
    ("from-share", "10%", "share of the traffic from which on it shows"),
    ("hosts", "5%", "chance that a target fails its hooks or health gates because of it"),
)

_ASKED = (
    ("gate", "10s", "time that a gate of the schedule takes"),
    ("gate-fails", "0%", "chance that it fails by itself"),
    ("gate-finds", "0%", "chance that it finds the defect"),
    ("approval", "10m", "time until a person answers"),
    ("approval-rejects", "0%", "chance that the answer is no"),
)


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    parser = commands.add_parser(
        "simulate",
        parents=[common],
        help="what a strategy would do to fleet, users and a defect, on a virtual clock",
    )
    parser.add_argument(
        "strategy", metavar="STRATEGY", help="in_place, rolling, blue_green, canary"
    )
    add_variables(parser)
    parser.add_argument(
        "--compare", action="append", default=[], metavar="'STRATEGY VAR=VALUE …'",
        help="another strategy beside it; may be repeated",
    )  # fmt: skip
    parser.add_argument("--runs", type=int, default=_simulate.RUNS, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same numbers")
    parser.add_argument("--interval", default="10s", help="between two looks of the judge (10s)")
    parser.add_argument(
        "--noticed", default="30m", metavar="TIME",
        help="until a defect that has passed the deployment is noticed (30m)",
    )  # fmt: skip
    for title, prefix, known in (
        ("fleet", "", _FLEET), ("traffic", "", _TRAFFIC), ("defect", "defect-", _DEFECT),
        ("gates and approvals of a schedule", "", _ASKED),
    ):  # fmt: skip
        group = parser.add_argument_group(title)
        for name, example, about in known:
            shown = f"{about} (such as {example})" if prefix else f"{about} ({example})"
            group.add_argument(f"--{prefix}{name}", metavar="N", help=shown.replace("%", "%%"))
    parser.add_argument(
        "--trace", action="store_true", help="the events of the first run, as a record has them"
    )
    parser.add_argument("--sticky", action="store_true", help="a user stays with his revision")
    parser.set_defaults(run=run_simulate)


def run_simulate(options: argparse.Namespace) -> int:
    """Simulate, and show the numbers side by side."""
    traffic = _given(options, _TRAFFIC)
    if options.sticky:
        traffic["sticky"] = True
    found = _simulate.simulate(
        options.strategy,
        fleet=_given(options, _FLEET),
        traffic=traffic,
        defect=_given(options, _DEFECT, "defect_"),
        variables={
            name: _simulate.read_value(name, value) if isinstance(value, str) else value
            for name, value in read_variables(options.extra_vars).items()
        },
        interval=options.interval,
        noticed=options.noticed,
        asked=_given(options, _ASKED),
        compare=options.compare,
        runs=options.runs,
        seed=options.seed,
    )
    if options.format == "json":
        say_json(found)
        return DONE
    for line in lines(found):
        say(line)
    for line in trace_lines(found) if options.trace else ():
        say(line)
    return DONE


def trace_lines(found: dict[str, t.Any]) -> list[str]:
    """Return the events of each strategy's first runs."""
    told: list[str] = []
    for one in found["strategies"]:
        for kind in ("good", "bad"):
            if not one[kind]:
                continue
            told += ["", f"{one['name']}, the first {kind} run:"]
            told += [
                f"  {event['at']:>9.1f} s  "
                + " ".join(
                    word
                    for word in (
                        "(rollback)" if event["deployment"] == "rollback" else "",
                        event["event"], event["target"], event["status"], event["message"],
                    )
                    if word
                )
                for event in one[kind]["trace"]
            ]  # fmt: skip
    return told


def _given(
    options: argparse.Namespace, known: tuple[tuple[str, str, str], ...], prefix: str = ""
) -> dict[str, t.Any]:
    values = {}
    for name, _example, _about in known:
        key = name.replace("-", "_")
        value = getattr(options, prefix + key)
        if value is not None:
            values[key] = value
    return values


def lines(found: dict[str, t.Any]) -> list[str]:
    """Return the numbers of a simulation for a person."""
    every = found["strategies"]
    names = [
        one["name"] if len(one["name"]) <= _WIDEST else f"{one['strategy']} ({number})"
        for number, one in enumerate(every, 1)
    ]
    tables = []
    if long := [
        f"{short}: {one['name']}"
        for short, one in zip(names, every, strict=True)
        if short != one["name"]
    ]:
        tables.append(long)
    if ignored := sorted({name for one in every for name in one["ignored"]}):
        tables.append([f"Not modelled: {', '.join(ignored)}."])
    for kind, title in (
        ("good", "A revision as good as the one before"), ("bad", "The revision with the defect"),
    ):  # fmt: skip
        rows = [_row(names[place], one[kind]) for place, one in enumerate(every) if one[kind]]
        if rows:
            tables.append([f"{title}, {found['runs']} runs:", *columns(rows, _HEADER)])
    return [line for number, table in enumerate(tables) for line in ([""] * (number > 0) + table)]


# A longer name stands above the table.
_WIDEST = 24
_HEADER = (
    "STRATEGY", "SUCCEEDED", "STOPPED BY", "TOOK", "STOPPED AFTER", "CLEARED IN", "ROLLED BACK IN",
    "REQUESTS", "USERS", "BAD REQUESTS", "IN SERVICE",
)  # fmt: skip


def _row(name: str, numbers: dict[str, t.Any]) -> tuple[str, ...]:
    by = ", ".join(f"{who} {100 * part:.3g}%" for who, part in numbers["stopped_by"].items())
    return (
        name,
        f"{100 * numbers['succeeded']:.3g}%",
        by or "-",
        _time(numbers["seconds"]),
        _time(numbers["stopped_after"]),
        _time(numbers["cleared_after"]),
        _time(numbers["rolled_back_after"]),
        *(
            f"{numbers[key]['mean']:.0f}"
            for key in ("requests_exposed", "users_exposed", "bad_requests")
        ),
        str(numbers["lowest_in_service"]),
    )


def _time(spread: dict[str, float] | None) -> str:
    return duration(spread["median"]) if spread else "-"
