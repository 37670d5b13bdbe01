"""Commands that run a strategy: deploy, rollback, resume."""

from __future__ import annotations

import argparse
import functools
import sys
import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._advice import ways_on
from ansible_collections.bascule.deploy.plugins.module_utils._errors import BasculeError
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress import (
    LiveRenderer,
    PlainRenderer,
    Renderer,
    live_console,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_text import outcome

from bascule import _interrupts, api
from bascule.cli._options import (
    add_check,
    add_limit,
    add_only_outdated,
    plan_arguments,
    run_arguments,
    run_options,
)
from bascule.cli._output import aside, complain, heard_or_not, say, say_json

if t.TYPE_CHECKING:
    from bascule.result import Deployment

STRATEGIES = """\
strategies:
  in_place     on the targets there are, as many at once as the configuration allows
  rolling      stage after stage, with time to watch between them
  blue_green   on the pool without users, then the traffic to it by schedule
  canary       on some targets, or a pool with a share of the traffic, first
  ab_test      two variants with a fixed split until one is better (Lambda)
"""


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    deploy = commands.add_parser(
        "deploy",
        parents=[common, run_options()],
        help="bring a revision to a deployment group",
        epilog=STRATEGIES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    deploy.add_argument(
        "strategy", metavar="STRATEGY", help="in_place, rolling, blue_green, canary or ab_test"
    )
    deploy.add_argument("--revision", metavar="R", help="directory, archive, git ref or address")
    add_limit(deploy)
    add_only_outdated(deploy)
    add_check(deploy)
    deploy.set_defaults(run=run_deploy)

    rollback = commands.add_parser(
        "rollback",
        parents=[common, run_options()],
        help="bring a group back to its last good revision, or undo a deployment",
    )
    rollback.add_argument("name", metavar="GROUP|ID", help="group, APPLICATION/GROUP, or d-…")
    rollback.add_argument("--to", metavar="REVISION", help="digest (or its beginning) or d-…")
    add_check(rollback)
    rollback.set_defaults(run=run_rollback)

    resume = commands.add_parser(
        "resume", parents=[common, run_options()], help="go on with an interrupted deployment"
    )
    resume.add_argument("id", metavar="ID", help="a deployment, as d-ABCDEFGHI")
    resume.set_defaults(run=run_resume, check=False)


def run_deploy(options: argparse.Namespace) -> int:
    """Deploy, show it, and return the exit status."""
    deploy = functools.partial(api.deploy, options.strategy, check=options.check, diff=options.diff)
    return carry_out(deploy, plan_arguments(options), options)


def run_rollback(options: argparse.Namespace) -> int:
    """Roll back, show it, and return the exit status."""
    rollback = functools.partial(
        api.rollback, options.name, to=options.to, check=options.check, diff=options.diff
    )
    return carry_out(rollback, run_arguments(options), options)


def run_resume(options: argparse.Namespace) -> int:
    """Go on with a deployment, show it, and return the exit status."""
    resume = functools.partial(api.resume, options.id)
    return carry_out(resume, run_arguments(options), options)


def carry_out(
    begin: t.Callable[..., Deployment], arguments: dict[str, t.Any], options: argparse.Namespace
) -> int:
    """Run a deployment with these arguments, show it, and return the exit status."""
    _interrupts.hold()
    show = choose_renderer(options)
    deployment = begin(**arguments, on_event=show.event, notice=complain)
    with heard_or_not():
        conclude(deployment, show, options)
    return deployment.exit_code


def choose_renderer(options: argparse.Namespace) -> Renderer:
    """Return who shows the deployment: a live table on a terminal, lines beside a pipe.

    In a pipe the lines go to standard error, so that standard output holds only the outcome.
    """
    check = bool(options.check)
    quiet = options.quiet or options.verbose > 1
    if options.format == "json":
        return PlainRenderer(aside, quiet=options.verbose == 0, refusals=False)
    if sys.stdout.isatty() and not (check or quiet):
        console = live_console(sys.stdout)
        if console is not None:
            return LiveRenderer(console, verbose=options.verbose > 0, refusals=False)
    write = say if check or sys.stdout.isatty() else aside
    return PlainRenderer(
        write, plan=check, verbose=options.verbose > 0, quiet=quiet, refusals=False
    )


def conclude(deployment: Deployment, show: Renderer, options: argparse.Namespace) -> None:
    """Say how a deployment ended."""
    if options.format == "json":
        say_json(deployment.to_dict())
    elif deployment.id is None and deployment.exit_code:
        refused(deployment, options)
        return
    elif isinstance(show, LiveRenderer):
        show.close()
    elif options.check:
        say("Nothing was changed.")
    else:
        for line in outcome(show.progress, deployment.seen[-1].at):
            say(line)
    if deployment.unfinished:
        _say_how_to_go_on(deployment, options)


def _say_how_to_go_on(deployment: Deployment, options: argparse.Namespace) -> None:
    """Say what to type about a deployment that has not ended; another controller may have it."""
    identifier = str(deployment.unfinished)
    if deployment.error is not None and deployment.error.kind in ("internal", "paused"):
        complain(deployment.error.message)
    if deployment.error is None or deployment.error.kind != "paused":
        try:
            lease = api.status(identifier, record=options.record).lease
        except BasculeError:
            lease = None
        if lease is not None and lease["state"] == "Alive" and not lease["own"]:
            complain(f"{identifier} is not finished. {lease['text']}")
        else:
            complain(f"{identifier} is not finished. {ways_on(identifier)}")


def refused(deployment: Deployment, options: argparse.Namespace) -> int:
    """Say why nothing was begun and return the exit status."""
    if options.format == "json":
        say_json(deployment.to_dict())
    elif deployment.error is not None:
        complain(deployment.error.message)
    return deployment.exit_code
