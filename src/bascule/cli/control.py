"""Commands that tell a deployment what to do: stop, continue, approve, reject, abandon."""

from __future__ import annotations

import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._advice import ways_on

from bascule import _control, api
from bascule.cli._options import run_arguments, run_options
from bascule.cli._output import complain, heard_or_not, say, say_json
from bascule.cli.deployments import choose_renderer, refused
from bascule.result import DONE, FAILED

if t.TYPE_CHECKING:
    import argparse

    from bascule.result import Deployment


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    stop = commands.add_parser(
        "stop",
        parents=[common, run_options()],
        help="let a running deployment end: begin no further target",
        description="No further target is begun, those in flight finish, and the deployment ends "
        "as Stopped. The options of a run are needed only for --rollback where its controller has "
        "died.",
    )
    stop.add_argument("id", metavar="ID", help="a deployment, as d-ABCDEFGHI")
    stop.add_argument("--rollback", action="store_true", help="bring the changed targets back, too")
    stop.add_argument("--no-wait", action="store_true", help="do not wait until it has ended")
    _add_why(stop)
    stop.set_defaults(run=run_stop, check=False)

    for name, run, told in (
        (
            "continue",
            run_continue,
            "let a deployment go on that waits for a person, or keeps the old pool for a while",
        ),
        ("approve", run_approve, "let a deployment go on that waits for an approval"),
        ("reject", run_reject, "let a deployment fail that waits for an approval"),
        ("abandon", run_abandon, "end an interrupted deployment and free its group"),
    ):
        decide = commands.add_parser(name, parents=[common], help=told)
        decide.add_argument("id", metavar="ID")
        _add_why(decide)
        decide.set_defaults(run=run)


def run_stop(options: argparse.Namespace) -> int:
    """Stop a deployment, show what that waits for, and say how it ended."""
    show = choose_renderer(options)
    stopped = _control.stop(
        options.id,
        rollback=options.rollback,
        why=options.why,
        wait=not options.no_wait,
        on_event=show.event,
        notice=complain,
        **run_arguments(options),
    )
    if stopped.id is None:
        if api.status(options.id, record=options.record).error is None:
            complain(f"{options.id} is not stopped, and is as it was: its end could not be begun.")
        else:
            complain(f"{options.id} is stopped, but what is left to do could not be done.")
        return refused(stopped, options)
    if show.progress.deployments:
        show.close()
    with heard_or_not():
        if options.format == "json":
            say_json(stopped.to_dict())
        else:
            say(_how_it_stopped(stopped))
    if stopped.finished_at is None:
        if not options.no_wait:
            complain(f"{stopped.id} is not finished. {ways_on(str(stopped.id))}")
            return FAILED
        return DONE
    return _status_of_rollback(stopped, options)


def run_continue(options: argparse.Namespace) -> int:
    """Give the approval that a deployment waits for, or end its wait before the old pool goes."""
    waited = api.status(options.id, record=options.record).waiting is not None
    found = _control.continue_(options.id, why=options.why, record=options.record)
    if waited or options.format == "json":
        return _decided(found, options)
    say(f"{found.id}: the wait before the old pool is retired is over.")
    return _carried_out(found)


def run_approve(options: argparse.Namespace) -> int:
    """Give the approval that a deployment waits for."""
    return _decided(_control.approve(options.id, why=options.why, record=options.record), options)


def run_reject(options: argparse.Namespace) -> int:
    """Refuse the approval that a deployment waits for."""
    return _decided(_control.reject(options.id, why=options.why, record=options.record), options)


def run_abandon(options: argparse.Namespace) -> int:
    """End a deployment that nobody will go on with."""
    ended = api.abandon(options.id, why=options.why, record=options.record)
    if options.format == "json":
        say_json(ended.to_dict())
    else:
        say(f"{ended.id} is {ended.status}; {ended.application}/{ended.group} is free again.")
    return DONE


def _decided(deployment: Deployment, options: argparse.Namespace) -> int:
    if options.format == "json":
        say_json(deployment.to_dict())
    else:
        last = deployment.approvals[-1]
        say(f"{deployment.id}: {last['what']} is {last['status'].lower()}.")
    return _carried_out(deployment)


def _carried_out(deployment: Deployment) -> int:
    """Say so where nobody carries the deployment out, who could go on with it."""
    lease = deployment.lease
    if lease is not None and lease["state"] != "Alive":
        complain(f"{lease['text']} {ways_on(str(deployment.id))}")
    return DONE


def _how_it_stopped(stopped: Deployment) -> str:
    if stopped.finished_at is None:
        return f"{stopped.id} is stopping: no further target is begun."
    text = f"{stopped.id}  {stopped.status}"
    if stopped.error is not None:
        text += f": {stopped.error.message}"
    return text + (f" (rolled back by {stopped.rolled_back_by})" if stopped.rolled_back_by else "")


def _status_of_rollback(stopped: Deployment, options: argparse.Namespace) -> int:
    if stopped.rolled_back_by is None:
        if options.rollback and any(target.changed for target in stopped.targets):
            complain(f"{stopped.id} could not be rolled back: no revision is known to be good.")
            return FAILED
        return DONE
    back = api.status(stopped.rolled_back_by, record=options.record)
    if back.status == "Succeeded":
        return DONE
    complain(f"The rollback {back.id} is {back.status}; `bascule status {back.id}` tells more.")
    return FAILED


def _add_why(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--why", default="", metavar="TEXT", help="a sentence for the record")
