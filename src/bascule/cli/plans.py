"""Commands of plans: plan, apply."""

from __future__ import annotations

import functools
import typing as t

from bascule import _plans
from bascule.cli._options import (
    add_check,
    add_limit,
    add_only_outdated,
    plan_arguments,
    run_arguments,
    run_options,
)
from bascule.cli._output import complain, say, say_json
from bascule.cli.deployments import carry_out, refused

if t.TYPE_CHECKING:
    import argparse

    from bascule.result import Plan


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    plan = commands.add_parser(
        "plan", parents=[common, run_options()], help="show what a deployment would do, or save it"
    )
    plan.add_argument(
        "strategy",
        metavar="STRATEGY",
        help="in_place, rolling, blue_green, canary, ab_test or rollback",
    )
    plan.add_argument("--revision", metavar="R", help="directory, archive, git ref or address")
    add_limit(plan)
    add_only_outdated(plan)
    plan.add_argument("-o", "--output", metavar="FILE", help="save the plan, for 'bascule apply'")
    plan.set_defaults(run=run_plan)

    apply = commands.add_parser(
        "apply",
        parents=[common, run_options()],
        help="carry out a saved plan, unless anything has changed since",
    )
    apply.add_argument("plan", metavar="FILE", help="what 'bascule plan -o FILE' has written")
    add_check(apply, "change nothing, only compare")
    apply.set_defaults(run=run_apply)


def run_plan(options: argparse.Namespace) -> int:
    """Show the plan of a deployment and what it would change on each host."""
    planned = _plans.make(
        options.strategy, output=options.output, notice=complain, **plan_arguments(options)
    )
    if planned.exit_code:
        return refused(planned, options)
    plan = _plans.plan_of(planned)
    if options.format == "json":
        say_json(plan.to_dict())
        return planned.exit_code
    for line in plan_lines(plan):
        say(line)
    if options.output:
        say(f"Saved in {options.output}. Carry it out with: bascule apply {options.output}")
    return planned.exit_code


def run_apply(options: argparse.Namespace) -> int:
    """Carry out a saved plan, show it, and return the exit status."""
    arguments = run_arguments(options)
    targets = arguments.pop("targets")
    if targets is not None:
        arguments["variables"]["deploy_targets"] = targets
    apply = functools.partial(_plans.apply, options.plan, check=options.check, diff=options.diff)
    return carry_out(apply, arguments, options)


def plan_lines(plan: Plan) -> list[str]:
    """Return a plan for a person: its text, then the differences host by host."""
    lines = plan.text.rstrip("\n").splitlines()
    for target, difference in sorted(plan.differences.items()):
        lines += ["", f"{target}:", *difference.splitlines()]
    return lines
