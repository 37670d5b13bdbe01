"""Commands that run a strategy: deploy, rollback, resume."""

from __future__ import annotations

import argparse
import sys
import typing as t
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.module_utils._advice import ways_on
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    BasculeError,
    UsageError,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress import (
    LiveRenderer,
    PlainRenderer,
    Renderer,
    live_console,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_text import outcome

from bascule import api
from bascule.cli._output import complain, say, say_json

if t.TYPE_CHECKING:
    from bascule.result import Deployment


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    deploy = commands.add_parser(
        "deploy", parents=[common, run_options()], help="bring a revision to a deployment group"
    )
    deploy.add_argument(
        "strategy", metavar="STRATEGY", help="in_place, rolling, blue_green, canary or ab_test"
    )
    deploy.add_argument("--revision", metavar="R", help="directory, archive, git ref or address")
    _add_limit(deploy)
    add_only_outdated(deploy)
    _add_check(deploy)
    deploy.set_defaults(run=run_deploy)

    rollback = commands.add_parser(
        "rollback",
        parents=[common, run_options()],
        help="bring a group back to its last good revision, or undo a deployment",
    )
    rollback.add_argument("name", metavar="GROUP|ID", help="group, APPLICATION/GROUP, or d-…")
    rollback.add_argument("--to", metavar="REVISION", help="digest (or its beginning) or d-…")
    _add_check(rollback)
    rollback.set_defaults(run=run_rollback)

    resume = commands.add_parser(
        "resume", parents=[common, run_options()], help="go on with an interrupted deployment"
    )
    resume.add_argument("id", metavar="ID", help="a deployment, as d-ABCDEFGHI")
    resume.set_defaults(run=run_resume, check=False)


def run_options() -> argparse.ArgumentParser:
    """Return the options of every command that runs a strategy."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "-i",
        "--inventory",
        action="append",
        default=[],
        metavar="INVENTORY",
        help="inventory file, folder or host list (a,b,); may be repeated",
    )
    options.add_argument("--targets", metavar="PATTERN", help="group or pattern of the targets")
    options.add_argument(
        "-e",
        "--extra-vars",
        action="append",
        default=[],
        metavar="VAR=VALUE|@FILE",
        help="set a variable, or read variables from a YAML or JSON file; may be repeated",
    )
    options.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="show more; from -vv on, show ansible-playbook's own output",
    )
    options.add_argument("-q", "--quiet", action="store_true", help="show only how it ended")
    return options


def add_only_outdated(parser: argparse.ArgumentParser) -> None:
    """Add the option that leaves out what is up to date."""
    parser.add_argument(
        "--only-outdated",
        action="store_true",
        help="leave out targets that are healthy with this revision in the record",
    )


def with_only_outdated(variables: dict[str, t.Any], *, wanted: bool) -> dict[str, t.Any]:
    """Return the variables of a run with what ``--only-outdated`` says."""
    return {**variables, "deploy_only_outdated": True} if wanted else variables


def run_deploy(options: argparse.Namespace) -> int:
    """Deploy, show it, and return the exit status."""
    show = choose_renderer(options)
    deployment = api.deploy(
        options.strategy,
        inventory=options.inventory or None,
        revision=options.revision,
        targets=options.targets,
        limit=options.limit,
        variables=with_only_outdated(
            read_variables(options.extra_vars), wanted=options.only_outdated
        ),
        check=options.check,
        diff=options.diff,
        on_event=show.event,
        record=options.record,
        verbosity=verbosity(options),
        notice=complain,
    )
    return conclude(deployment, show, options)


def run_rollback(options: argparse.Namespace) -> int:
    """Roll back, show it, and return the exit status."""
    show = choose_renderer(options)
    deployment = api.rollback(
        options.name,
        to=options.to,
        inventory=options.inventory or None,
        targets=options.targets,
        variables=read_variables(options.extra_vars),
        check=options.check,
        diff=options.diff,
        on_event=show.event,
        record=options.record,
        verbosity=verbosity(options),
        notice=complain,
    )
    return conclude(deployment, show, options)


def run_resume(options: argparse.Namespace) -> int:
    """Go on with a deployment, show it, and return the exit status."""
    show = choose_renderer(options)
    deployment = api.resume(
        options.id,
        inventory=options.inventory or None,
        targets=options.targets,
        variables=read_variables(options.extra_vars),
        on_event=show.event,
        record=options.record,
        verbosity=verbosity(options),
        notice=complain,
    )
    return conclude(deployment, show, options)


def read_variables(given: list[str]) -> dict[str, t.Any]:
    """Return the variables of ``-e`` options, the later ones winning.

    :raises UsageError: an option is neither VAR=VALUE nor @FILE nor a JSON object, or its file
        cannot be read
    """
    variables: dict[str, t.Any] = {}
    for option in given:
        if option.startswith("@"):
            variables |= _load(option[1:], _read(option[1:]))
        elif option.lstrip().startswith("{"):
            variables |= _load("-e", option)
        else:
            name, equals, value = option.partition("=")
            if not equals or not name.isidentifier():
                raise UsageError(f"-e {option}: write it as VAR=VALUE, or as @FILE for a file.")
            variables[name] = value
    return variables


def verbosity(options: argparse.Namespace) -> int:
    """Return how much ansible-playbook is to say; its own words would spoil JSON."""
    return min(options.verbose, 1) if options.format == "json" else int(options.verbose)


def choose_renderer(options: argparse.Namespace) -> Renderer:
    """Return who shows the deployment: a live table on a terminal, lines beside a pipe.

    In a pipe the lines go to standard error, so that standard output holds only the outcome.
    """
    check = bool(options.check)
    quiet = options.quiet or options.verbose > 1
    if options.format == "json":
        return PlainRenderer(_aside, quiet=options.verbose == 0, refusals=False)
    if sys.stdout.isatty() and not (check or quiet):
        console = live_console(sys.stdout)
        if console is not None:
            return LiveRenderer(console, verbose=options.verbose > 0, refusals=False)
    write = say if check or sys.stdout.isatty() else _aside
    return PlainRenderer(
        write, plan=check, verbose=options.verbose > 0, quiet=quiet, refusals=False
    )


def conclude(deployment: Deployment, show: Renderer, options: argparse.Namespace) -> int:
    """Say how a deployment ended and return the exit status."""
    if options.format == "json":
        say_json(deployment.to_dict())
    elif deployment.id is None and deployment.exit_code:
        return refused(deployment, options)
    elif isinstance(show, LiveRenderer):
        show.close()
    elif not options.check:
        for line in outcome(show.progress, deployment.seen[-1].at):
            say(line)
    if deployment.unfinished:
        _say_how_to_go_on(deployment, options)
    return deployment.exit_code


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


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="change nothing, show the plan")
    parser.add_argument("--diff", action="store_true", help="show what changes in files")


def _add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-l", "--limit", metavar="PATTERN", help="only these of the targets")


def _aside(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _read(name: str) -> str:
    try:
        return Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"-e @{name}: the file cannot be read: {error}") from error


def _load(name: str, text: str) -> dict[str, t.Any]:
    import yaml

    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{name}: this is neither YAML nor JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise UsageError(f"{name}: a mapping of variables is wanted, as in 'name: value'.")
    return loaded
