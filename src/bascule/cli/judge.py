"""Commands around the judge: judge decide, judge evidence, judge replay."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_text import duration

from bascule.cli._options import yaml_trouble
from bascule.cli._output import columns, moment, say, say_json
from bascule.result import DONE, FAILED, WAITING

if t.TYPE_CHECKING:
    import argparse

EXIT = {
    "Pass": DONE,
    "Marginal": DONE,
    "Fail": FAILED,
    "Inconclusive": WAITING,
    "Continue": WAITING,
}


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    judge = commands.add_parser("judge", help="compare a canary's measurements with a baseline's")
    asked = judge.add_subparsers(title="commands", metavar="COMMAND", required=True)

    deciding = asked.add_parser(
        "decide", parents=[common], help="good, bad, or not yet to be told (exit 0, 1, 3)"
    )
    deciding.add_argument("data", metavar="DATA", help="measurements, as JSON or YAML")
    deciding.add_argument("--config", required=True, metavar="FILE", help="the judge, as YAML")
    deciding.add_argument(
        "--final", action="store_true", help="no more can be measured: what is open is Inconclusive"
    )
    deciding.set_defaults(run=run_decide)

    evidence = asked.add_parser(
        "evidence", parents=[common], help="how long it takes to see a rise of bad requests"
    )
    evidence.add_argument("--rate", type=float, required=True, help="of bad requests, such as 0.01")
    evidence.add_argument("--effect", type=float, required=True, help="the rise, such as 0.02")
    evidence.add_argument("--share", type=float, required=True, help="of the canary, such as 0.1")
    evidence.add_argument("--config", metavar="FILE", help="the judge, as YAML")
    evidence.add_argument("--traffic", type=float, help="requests a second in all")
    evidence.set_defaults(run=run_evidence)

    replaying = asked.add_parser(
        "replay",
        parents=[common],
        help="make the verdicts of a deployment again, or those of another judge",
    )
    replaying.add_argument("id", metavar="ID", help="of the deployment")
    replaying.add_argument("--step", help="only the verdicts of this step")
    replaying.add_argument(
        "--config", metavar="FILE", help="what would this judge have said? (YAML)"
    )
    replaying.set_defaults(run=run_replay)


def run_decide(options: argparse.Namespace) -> int:
    """Show the verdict on a file of measurements."""
    from bascule import judge as judging

    judge = judging.parse_judge(_load(options.config))
    found = judging.decide(judge, _load(options.data), final=options.final)
    if options.format == "json":
        say_json(found)
    else:
        say(f"{found['verdict']}: {found['reason']}")
        rows = [
            (one["name"], one["state"], "critical" if one["critical"] else "", one["reason"])
            for one in found["metrics"]
        ]
        for line in columns(rows, ("METRIC", "STATE", "", "SEEN")):
            say(line)
    return EXIT[found["verdict"]]


def run_evidence(options: argparse.Namespace) -> int:
    """Show how many requests, and how much time, a step needs."""
    from bascule import judge as judging

    if options.traffic is not None and options.traffic <= 0:
        raise UsageError(f"--traffic {options.traffic:g}: requests a second, above 0.")
    judge = judging.parse_judge(judge_of(_load(options.config))) if options.config else None
    needed = judging.requests_needed(options.rate, options.effect, options.share, judge)
    told = {
        name: {"requests": number, "seconds": _seconds(number, options.traffic)}
        for name, number in needed._asdict().items()
    }
    if options.format == "json":
        say_json(told)
        return DONE
    say(
        f"With {options.share:.3g} of the requests on the canary, a rise from "
        f"{100 * options.rate:.3g} % by {100 * options.effect:.3g} points is found after "
        f"{_requests(needed.to_fail, options.traffic)} in 9 cases of 10; without one the canary "
        f"passes after {_requests(needed.to_pass, options.traffic)}."
    )
    return DONE


def _seconds(number: int | None, traffic: float | None) -> float | None:
    return number / traffic if number is not None and traffic else None


def _requests(number: int | None, traffic: float | None) -> str:
    if number is None:
        return "no number of requests (the judge allows as much)"
    seconds = _seconds(number, traffic)
    return f"{number} requests" + (f" ({duration(seconds)})" if seconds is not None else "")


def run_replay(options: argparse.Namespace) -> int:
    """Show each recorded verdict beside the one that is made again from its data."""
    from bascule import judge as judging

    other = judging.parse_judge(judge_of(_load(options.config))) if options.config else None
    found = judging.replay(options.id, step=options.step, judge=other, record=options.record)
    differ = [one for one in found if not one["same"]]
    if options.format == "json":
        say_json({"verdicts": found, "same": not differ})
    else:
        rows = [
            (
                one["step"],
                moment(one["at"]),
                one["recorded"]["verdict"],
                one["replayed"]["verdict"],
                "" if one["same"] else "differs",
                one["replayed"]["reason"],
            )
            for one in found
        ]
        for line in columns(rows, ("STEP", "LOOK", "RECORDED", "REPLAYED", "", "REASON")):
            say(line)
        same = "the same, bit by bit" if not differ else f"{len(differ)} differ"
        say(f"{len(found)} verdicts: {same}.")
    return FAILED if differ and other is None else DONE


def judge_of(given: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the judge in a file: the file itself, or its variable ``deploy_judge``."""
    # Only needed here, and slow to import.
    from ansible_collections.bascule.deploy.plugins.plugin_utils._gates import configure

    return configure(given.get("deploy_judge", given)).public


def _load(name: str) -> dict[str, t.Any]:
    import yaml

    try:
        text = Path(name).expanduser().read_text(encoding="utf-8")
        loaded = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{name}: the file cannot be read: {why}.") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{name}: this is neither YAML nor JSON: {yaml_trouble(error)}") from error
    if not isinstance(loaded, dict):
        raise UsageError(f"{name}: a mapping is wanted, this is a {type(loaded).__name__}.")
    return loaded
