"""The Python API: the same playbooks that ``ansible-playbook bascule.deploy.STRATEGY`` runs.

Nothing here imports Ansible until something is run.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing as t
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.module_utils._advice import paused_text
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.plugin_utils._history import left_open
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_model import Progress

from bascule import _recorded
from bascule._events import collection_root
from bascule.result import UNFINISHED, Deployment, Failure, Revision, Target

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import Event
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
        Deployment as RecordedDeployment,
    )
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
        Event as RecordedEvent,
    )
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record

    from bascule._run import Outcome

PathOrName = str | PathLike[str]
Inventory = PathOrName | Sequence[PathOrName] | Mapping[str, t.Any] | None
# Playbooks that are parts of others, or that carry no deployment out.
NO_STRATEGIES = frozenset(
    {
        "abandon",
        "approve",
        "carry_out",
        "carry_out_pools",
        "continue",
        "drift",
        "function_leg",
        "iam_policy",
        "leg",
        "mark_revision",
        "outdated",
        "pool_leg",
        "reject",
        "stop",
        "targets",
    }
)


def strategies() -> list[str]:
    """Return the names of the strategies, which are the collection's playbooks."""
    found = {path.stem for path in (collection_root() / "playbooks").glob("*.yml")}
    return sorted(found - NO_STRATEGIES)


def deploy(
    strategy: str,
    *,
    inventory: Inventory = None,
    revision: PathOrName | None = None,
    targets: str | None = None,
    limit: str | None = None,
    variables: Mapping[str, t.Any] | None = None,
    check: bool = False,
    diff: bool = False,
    on_event: Callable[[Event], None] | None = None,
    cancel: Callable[[], bool] | None = None,
    record: str | None = None,
    verbosity: int = 0,
    notice: Callable[[str], None] | None = None,
) -> Deployment:
    """Run a strategy to its end and return how it ended; see docs/api.md.

    :param strategy: a playbook of the collection: in_place, rolling, blue_green, canary, ab_test,
        rollback
    :param inventory: path, host list (``"a,b,"``), several of them, or an inventory as a mapping
    :param revision: what to deploy (the variable ``deploy_revision``)
    :param targets: group or pattern of the inventory (the variable ``deploy_targets``)
    :param limit: only these of the targets (ansible-playbook's ``--limit``)
    :param variables: more variables; they never appear on a command line
    :param check: change nothing, only plan
    :param on_event: called with each ``Event``, in order, in this thread. What it raises is
        raised again when the deployment has ended: an observer cannot leave one half done
    :param cancel: asked twice a second; once true, the deployment pauses: no further target is
        begun, those in flight finish, and ``resume`` goes on with it
    :param record: address of the record; the default is what the environment names
    :raises UsageError: there is no such strategy, or no such inventory
    """
    from bascule._run import Request, run

    if strategy not in strategies():
        raise UsageError(_unknown_strategy(strategy))
    given = dict(variables or {})
    given |= {"deploy_revision": fspath(revision)} if revision is not None else {}
    given |= {"deploy_targets": targets} if targets is not None else {}
    places = inventory_of(inventory)
    collected = _Collected(on_event)
    outcome = run(
        Request(
            strategy=strategy,
            inventory=places,
            variables=given,
            limit=limit,
            check=check,
            diff=diff,
            verbosity=verbosity,
            record=record,
        ),
        on_event=collected.take,
        cancel=cancel,
        notice=notice,
    )
    return _result(strategy, collected, outcome, record=record, check=check)


def rollback(
    name: str,
    *,
    to: str | None = None,
    inventory: Inventory = None,
    targets: str | None = None,
    variables: Mapping[str, t.Any] | None = None,
    check: bool = False,
    diff: bool = False,
    on_event: Callable[[Event], None] | None = None,
    cancel: Callable[[], bool] | None = None,
    record: str | None = None,
    verbosity: int = 0,
    notice: Callable[[str], None] | None = None,
) -> Deployment:
    """Bring a deployment group back to its last good revision, or to the one named by ``to``.

    :param name: ``GROUP``, ``APPLICATION/GROUP``, or the id of a deployment, which is undone: its
        group goes back to the revision it had before
    :param to: digest of a revision, or its beginning, or the id of the deployment that brought it
    :param targets: the default is the targets of the group's newest deployment
    :raises UsageError: the record knows no such group or deployment
    """
    given = rollback_variables(name, to=to, targets=targets, record=record)
    return deploy(
        "rollback",
        inventory=inventory,
        variables={**given, **(variables or {})},
        check=check,
        diff=diff,
        on_event=on_event,
        cancel=cancel,
        record=record,
        verbosity=verbosity,
        notice=notice,
    )


def rollback_variables(
    name: str, *, to: str | None, targets: str | None, record: str | None = None
) -> dict[str, str]:
    """Return the variables that make the strategy ``rollback`` do what ``rollback`` promises.

    :raises UsageError: the record knows no such group or deployment
    """
    with _recorded.opened(record) as book:
        if name.startswith("d-"):
            found = _recorded.find(book, name)
            to = to or found.previous_digest
            if to is None:
                raise UsageError(
                    f"{name} was the first deployment of {found.application}/{found.group}: there "
                    "is nothing to go back to. Name a revision with --to."
                )
        else:
            found = _recorded.newest_of(book, name)[0]
        given = group_variables(book, found, targets)
    return {**given, "deploy_rollback_to": to} if to else given


def resume(
    deployment_id: str,
    *,
    inventory: Inventory = None,
    targets: str | None = None,
    variables: Mapping[str, t.Any] | None = None,
    on_event: Callable[[Event], None] | None = None,
    cancel: Callable[[], bool] | None = None,
    record: str | None = None,
    verbosity: int = 0,
    notice: Callable[[str], None] | None = None,
) -> Deployment:
    """Go on with a deployment that was interrupted; targets that have succeeded are left alone.

    Of one that has failed, its interrupted rollback is meant.

    :param variables: those that the deployment was started with and the inventory does not have
    :raises UsageError: there is none of this id
    """
    with _recorded.opened(record) as book:
        found = left_open(_recorded.find(book, deployment_id), book)
        given = {"deployment_id": found.id, **group_variables(book, found, targets)}
    if found.id != deployment_id and notice is not None:
        notice(f"{deployment_id} has failed; going on with its rollback {found.id}.")
    return deploy(
        found.strategy,
        inventory=inventory,
        variables={**given, **(variables or {})},
        on_event=on_event,
        cancel=cancel,
        record=record,
        verbosity=verbosity,
        notice=notice,
    )


def status(deployment_id: str, *, record: str | None = None) -> Deployment:
    """Return a deployment and its targets as the record has them.

    :raises UsageError: there is none of this id
    """
    with _recorded.opened(record) as book:
        return _recorded.standing_of(book, _recorded.find(book, deployment_id))


def history(
    group: str | None = None, *, limit: int = 20, record: str | None = None
) -> list[Deployment]:
    """Return deployments, newest first, without their targets.

    :param group: ``GROUP`` or ``APPLICATION/GROUP``; the default is all
    :raises UsageError: nothing was ever deployed to that group, or the limit is no number of them
    """
    if limit < 1:
        raise UsageError(f"The limit is {limit}; wanted is how many deployments, 1 or more.")
    with _recorded.opened(record) as book:
        found = (
            book.deployments(limit=limit)
            if group is None
            else (_recorded.newest_of(book, group)[:limit])
        )
        return [_recorded.deployment_of(one) for one in found]


def events(
    deployment_id: str,
    *,
    target: str | None = None,
    after: int = 0,
    record: str | None = None,
) -> list[RecordedEvent]:
    """Return what the record holds of a deployment, in order.

    :param after: only events whose ``sequence`` is above this
    :raises UsageError: there is no such deployment, or no such target in it
    """
    with _recorded.opened(record) as book:
        found = _recorded.find(book, deployment_id)
        if target is not None:
            _recorded.check_target(book, found, target)
        return book.events(found.id, target=target, after=after)


def abandon(deployment_id: str, *, why: str = "", record: str | None = None) -> Deployment:
    """End an interrupted deployment that nobody will go on with; its group is free again.

    Auto Scaling groups that it held still are let go, and instances that wait for it at a lifecycle
    hook are answered; a RuntimeWarning tells if AWS refuses. Of a deployment that has ended, and
    whose controller was killed before it could do so, this is all that is done.

    :raises UsageError: there is none of this id
    :raises RecordError: it has ended already
    """
    from ansible_collections.bascule.deploy.plugins.plugin_utils._parting import give_up

    with _recorded.opened(record) as book:
        found = _recorded.find(book, deployment_id)
        ended, problems = give_up(book, found.id, why)
        for problem in problems:
            warnings.warn(problem, RuntimeWarning, stacklevel=2)
        return _recorded.deployment_of(ended, book.targets(ended.id))


def group_variables(book: Record, found: RecordedDeployment, targets: str | None) -> dict[str, str]:
    """Return the variables that name a deployment's group and, unless given, its targets.

    These are all that the record knows: the newest deployment may have been to some of them only.
    """
    known = list(
        dict.fromkeys(
            [
                *(target.name for target in book.targets(found.id)),
                *book.target_states(found.application, found.group),
            ]
        )
    )
    return {
        "deploy_application": found.application,
        "deploy_group": found.group,
        # Not by colons, which addresses of version 6 are full of.
        "deploy_targets": targets or ",".join(known),
    }


class _Collected:
    """The events of a run, and how far it came."""

    def __init__(self, on_event: Callable[[Event], None] | None) -> None:
        self.events: list[Event] = []
        self.progress = Progress()
        self._on_event = on_event

    def take(self, event: Event) -> None:
        self.events.append(event)
        self.progress.apply(event)
        if self._on_event is not None:
            self._on_event(event)


def _result(
    strategy: str, collected: _Collected, outcome: Outcome, *, record: str | None, check: bool
) -> Deployment:
    """Return how a run ended: by the record where it has the deployment, else by what was seen."""
    seen = tuple(collected.events)
    if not collected.progress.deployments:
        return Deployment(
            id=None,
            status="Refused",
            strategy=strategy,
            error=_refusal(collected.progress.refusal, outcome),
            interrupted=outcome.interrupted or outcome.killed,
            seen=seen,
        )
    known = collected.progress.deployments
    opened = [event.data.get("deployment") or {} for event in seen if event.kind == "opened"]
    # A fresh baseline comes before the deployment that was asked for.
    number = next((place for place, one in enumerate(opened) if one.get("baseline")), 0)
    asked, about = known[number], opened[number]
    found = None if check else _in_record(str(asked.id), record)
    if found is None:
        found = Deployment(
            id=None if check else asked.id,
            status="Planned" if check else asked.status,
            strategy=asked.strategy or strategy,
            application=asked.application,
            group=asked.group,
            revision=Revision(
                digest=str(about.get("digest") or ""),
                source=str(about.get("revision") or ""),
                description=str(about.get("description") or ""),
            ),
            targets=tuple(
                Target(name=target.name, status=target.state, message=target.message)
                for target in asked.targets.values()
            ),
            plan=asked.plan,
            plan_hash=str(about.get("plan_hash") or ""),
            rolled_back_by=asked.rolled_back_by,
            error=Failure(asked.error_code or "failed", asked.message) if asked.message else None,
        )
    closes = [event.data for event in seen if event.kind == "closed"]
    summary = "\n".join(str(data["summary"]) for data in closes if data.get("summary"))
    failed_plan = check and outcome.status != 0
    left = None if check else _unfinished(found, collected, record)
    error = found.error
    if failed_plan:
        error = _refusal(_first_error(seen), outcome)
    elif left is not None and left.paused_at is not None:
        error = Failure("paused", paused_text(str(left.id), left.pause_reason or ""))
    elif left is not None and not outcome.interrupted:
        error = _broken_off(outcome)
    return dataclasses.replace(
        found,
        status="Refused" if failed_plan else found.status,
        error=error,
        summary=summary,
        unfinished=left.id if left else None,
        interrupted=left is not None or (check and outcome.interrupted),
        seen=seen,
    )


def _unfinished(found: Deployment, collected: _Collected, record: str | None) -> Deployment | None:
    """Return the first of a run's deployments that has not ended."""
    names = [one.id for one in collected.progress.deployments[1:]] + [found.rolled_back_by]
    others = (_in_record(name, record) for name in dict.fromkeys(names) if name)
    every = (found, *(other for other in others if other is not None))
    return next((one for one in every if one.status in UNFINISHED), None)


def _in_record(deployment_id: str, record: str | None) -> Deployment | None:
    """Return the deployment as recorded, or None: an inventory may name another record."""
    try:
        return status(deployment_id, record=record)
    except UsageError:
        return None


def _first_error(seen: Sequence[Event]) -> Event | None:
    return next((event for event in seen if event.kind == "error"), None)


def _refusal(event: Event | None, outcome: Outcome) -> Failure | None:
    if event is not None:
        return Failure(kind=event.status, message=event.message)
    if outcome.interrupted:
        return Failure(kind="interrupted", message="Interrupted before anything was begun.")
    if outcome.killed:
        return Failure(
            kind="interrupted",
            message="ansible-playbook was killed before it told anything. 'bascule status' shows "
            "whether a deployment is left to go on with.",
        )
    if outcome.complaint:
        return Failure(kind="usage", message=outcome.complaint)
    return Failure(
        kind="usage",
        message="ansible-playbook ran no play: no host of the inventory matches the targets.",
    )


def _broken_off(outcome: Outcome) -> Failure:
    reason = f": {outcome.complaint}" if outcome.complaint else "."
    return Failure(
        kind="internal",
        message=f"ansible-playbook ended with status {outcome.status} midway{reason}",
    )


def inventory_of(given: Inventory) -> tuple[str, ...] | Mapping[str, t.Any]:
    """Return an inventory as a run takes it.

    :raises UsageError: there is no such file
    """
    if given is None:
        return ()
    if isinstance(given, Mapping):
        return given
    if isinstance(given, (str, PathLike)):
        given = (given,)
    places = tuple(fspath(place) for place in given)
    for place in places:
        if "," not in place and not Path(place).expanduser().exists():
            raise UsageError(
                f"There is no inventory {place}. Name a file or a folder; a list of hosts has a "
                f"comma, as in '{place},'."
            )
    return places


def _unknown_strategy(name: str) -> str:
    known = strategies()
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"There is no strategy {name}.{hint} There are: {', '.join(known)}."
