"""Deployment groups: their revision, the way back, and how each target stands."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError

from bascule import _recorded
from bascule.result import Revision

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import Event
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record, RevisionRow

    from bascule.api import Inventory


@dataclasses.dataclass(frozen=True)
class GroupTarget:
    """One target: health is Healthy, Unhealthy or Unknown; revision Current, Old or Unknown.

    ``in_inventory`` is None where no inventory was asked. ``idle``: it is in a pool that no user
    reaches, which keeps what it had for the way back.
    """

    target: str
    health: str
    revision: str
    digest: str | None
    outdated: bool
    in_inventory: bool | None = None
    idle: bool = False


@dataclasses.dataclass(frozen=True)
class Group:
    """A deployment group between two deployments.

    ``revision`` is that of the newest successful deployment, ``last_known_good`` where a rollback
    after a failure leads to (the same unless it is marked bad), ``active`` the deployment that has
    not ended.
    """

    application: str
    group: str
    revision: Revision | None
    deployment_id: str | None
    last_known_good: Revision | None
    active: str | None
    targets: tuple[GroupTarget, ...]

    def to_dict(self) -> dict[str, t.Any]:
        """Return the documented JSON form."""
        return dataclasses.asdict(self)


def group(
    name: str,
    *,
    inventory: Inventory = None,
    targets: str | None = None,
    variables: Mapping[str, t.Any] | None = None,
    record: str | None = None,
) -> Group:
    """Return how a deployment group stands.

    :param name: ``GROUP`` or ``APPLICATION/GROUP``
    :param inventory: compare with its hosts, too; without it only the record is asked
    :param targets: group or pattern of the inventory; the default is the group's name
    :raises UsageError: nothing was ever deployed to that group, or the inventory has no targets
    """
    with _recorded.opened(record) as book:
        newest = _recorded.newest_of(book, name)[0]
        application, bare = newest.application, newest.group
        state = book.group_state(application, bare)
        current = book.deployment(state.deployment_id).revision if state else None
        found = Group(
            application=application,
            group=bare,
            revision=_revision(current),
            deployment_id=state.deployment_id if state else None,
            last_known_good=_revision(book.last_known_good(application, bare)),
            active=None if newest.is_final else newest.id,
            targets=_targets(book, application, bare),
        )
    if inventory is None:
        return found
    asked = _asked(found, inventory, targets or bare, variables or {}, record)
    return dataclasses.replace(found, targets=asked)


def outdated(
    name: str,
    *,
    inventory: Inventory = None,
    targets: str | None = None,
    variables: Mapping[str, t.Any] | None = None,
    record: str | None = None,
) -> list[GroupTarget]:
    """Return the targets that have no revision of the group, an old one, or failed to get theirs.

    The arguments are those of ``group``.
    """
    found = group(name, inventory=inventory, targets=targets, variables=variables, record=record)
    return [one for one in found.targets if one.outdated]


def _targets(book: Record, application: str, name: str) -> tuple[GroupTarget, ...]:
    from ansible_collections.bascule.deploy.plugins.plugin_utils._outdated import group_targets

    return tuple(GroupTarget(**one) for one in group_targets(book, application, name))


def _revision(row: RevisionRow | None) -> Revision | None:
    return Revision(row.digest, row.source, row.description) if row else None


def _asked(
    found: Group,
    inventory: Inventory,
    targets: str,
    variables: Mapping[str, t.Any],
    record: str | None,
) -> tuple[GroupTarget, ...]:
    from bascule import api
    from bascule._run import Request, run

    seen: list[Event] = []
    given = {
        "deploy_application": found.application,
        "deploy_group": found.group,
        "deploy_targets": targets,
    }
    outcome = run(
        Request(
            strategy="outdated",
            inventory=api.inventory_of(inventory),
            variables={**given, **variables},
            record=record,
        ),
        on_event=seen.append,
    )
    told = next((event for event in seen if event.kind == "outdated"), None)
    if told is None:
        wrong = next((event.message for event in seen if event.kind == "error"), outcome.complaint)
        raise UsageError(wrong or f"The inventory could not be asked for {targets!r}.")
    rows = tuple(GroupTarget(**one) for one in told.data["targets"])
    if not any(one.in_inventory for one in rows):
        raise UsageError(
            f"No host of the inventory matches {targets!r}; name the targets with --targets."
        )
    return rows
