"""Stop, approve and reject a deployment that another program carries out, and follow it."""

from __future__ import annotations

import time
import typing as t

from bascule import _recorded, api

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import Event
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
        Event as RecordedEvent,
    )

    from bascule.api import Inventory
    from bascule.result import Deployment

POLL_SECONDS = 0.5


def stop(
    deployment_id: str,
    *,
    rollback: bool = False,
    why: str = "",
    wait: bool = True,
    inventory: Inventory = None,
    targets: str | None = None,
    variables: Mapping[str, t.Any] | None = None,
    on_event: Callable[[Event], None] | None = None,
    record: str | None = None,
    verbosity: int = 0,
    notice: Callable[[str], None] | None = None,
) -> Deployment:
    """Stop a deployment: no further target is begun, those in flight finish, it ends as Stopped.

    The controller that carries it out ends it. Where none lives it is ended here; if it has to be
    rolled back then, by the playbook, for which the inventory and the variables are needed that
    it was started with.

    :param rollback: bring the changed targets back to the last good revision, too
    :param why: a sentence for the record
    :param wait: return when it has ended, and not as soon as the stop is written down
    :param on_event: called with the events of a playbook that is run here
    :param notice: told what is waited for
    :raises UsageError: there is none of this id
    :raises RecordError: it has ended already
    """
    from ansible_collections.bascule.deploy.plugins.plugin_utils import _stopping

    with _recorded.opened(record) as book:
        found = _recorded.find(book, deployment_id)
        left = _stopping.stop(
            book,
            found.id,
            why=why,
            rollback=rollback,
            wait=wait,
            defer=True,
            tell=notice or (lambda _text: None),
        )
    if left is not None:
        asked = {"why": why, "rollback": rollback} if left.id == found.id else None
        ended = api.resume(
            left.id,
            inventory=inventory,
            targets=targets,
            variables={**(variables or {}), **({"deployment_stop": asked} if asked else {})},
            on_event=on_event,
            record=record,
            verbosity=verbosity,
            notice=notice,
        )
        if ended.id is None:
            return ended
    return api.status(found.id, record=record)


def approve(deployment_id: str, *, why: str = "", record: str | None = None) -> Deployment:
    """Let a deployment go on that waits for the approval of a stage.

    :param why: a sentence for the record
    :raises UsageError: there is none of this id
    :raises RecordError: it waits for no approval
    """
    return _decide(deployment_id, approve=True, why=why, record=record)


def reject(deployment_id: str, *, why: str = "", record: str | None = None) -> Deployment:
    """Refuse the approval that a deployment waits for: it fails, and is rolled back by its rules.

    :param why: a sentence for the record
    :raises UsageError: there is none of this id
    :raises RecordError: it waits for no approval
    """
    return _decide(deployment_id, approve=False, why=why, record=record)


def continue_(deployment_id: str, *, why: str = "", record: str | None = None) -> Deployment:
    """Let a deployment go on that waits for a person, or that only keeps the old pool for a while.

    What is waited for is given as by ``approve``. The wait before the old pool is retired
    (``deploy_retire_after``) ends; its gates decide as if its time had passed.

    :param why: a sentence for the record
    :raises UsageError: there is none of this id
    :raises RecordError: it waits for neither
    """
    with _recorded.opened(record) as book:
        found = _recorded.find(book, deployment_id)
        book.go_on(found.id, why)
    return api.status(deployment_id, record=record)


def follow(
    deployment_id: str,
    *,
    target: str | None = None,
    after: int = 0,
    record: str | None = None,
) -> Iterator[RecordedEvent]:
    """Yield what the record holds of a deployment, and what is added, until it has ended.

    A record that is away for less than a minute is waited for.

    :param after: only events whose ``sequence`` is above this
    :raises UsageError: there is no such deployment, or no such target in it
    """
    with _recorded.opened(record, patient=True) as book:
        found = _recorded.find(book, deployment_id)
        if target is not None:
            _recorded.check_target(book, found, target)
        while True:
            # Asked before the events, so that none is missed that comes with the end.
            ended = book.deployment(found.id).is_final
            for event in book.events(found.id, target=target, after=after):
                after = event.sequence
                yield event
            if ended:
                return
            time.sleep(POLL_SECONDS)


def _decide(deployment_id: str, *, approve: bool, why: str, record: str | None) -> Deployment:
    with _recorded.opened(record) as book:
        found = _recorded.find(book, deployment_id)
        book.decide_approval(found.id, approve=approve, why=why)
    return api.status(deployment_id, record=record)
