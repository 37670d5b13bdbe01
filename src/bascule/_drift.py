"""How a deployment group differs from what was deployed to it."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._errors import HostError, UsageError

from bascule import _recorded

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import Event

    from bascule.api import Inventory


@dataclasses.dataclass(frozen=True)
class Finding:
    """One difference; ``kind`` as the module ``bascule.deploy.drift`` documents it."""

    kind: str
    path: str
    pid: int | None
    message: str


@dataclasses.dataclass(frozen=True)
class TargetDrift:
    """One target: ``status`` is InSync, Drifted, or Unknown where it could not be looked at."""

    target: str
    status: str
    message: str
    deployment_id: str | None = None
    digest: str | None = None
    checked: int = 0
    unseen: int = 0
    findings: tuple[Finding, ...] = ()

    def to_dict(self) -> dict[str, t.Any]:
        """Return the same as plain data, for JSON."""
        return dataclasses.asdict(self)


def drift(
    group: str,
    *,
    inventory: Inventory = None,
    targets: str | None = None,
    variables: Mapping[str, t.Any] | None = None,
    cancel: Callable[[], bool] | None = None,
    record: str | None = None,
) -> list[TargetDrift]:
    """Compare the targets of a deployment group with what their newest deployment left.

    :param group: ``GROUP`` or ``APPLICATION/GROUP``
    :param targets: the default is the targets of the group's newest deployment
    :raises UsageError: nothing was ever deployed to that group, or it is being deployed to
    :raises HostError: no target could be asked
    """
    from bascule import api
    from bascule._run import Request, run

    with _recorded.opened(record) as book:
        found = _recorded.newest_of(book, group)[0]
        given = api.group_variables(book, found, targets)
    seen: dict[str, TargetDrift] = {}

    def take(event: Event) -> None:
        if event.target is None:
            return
        if event.kind == "drift":
            seen[event.target] = _from(event)
        elif event.kind == "error" and event.target not in seen:
            if event.status == "usage":
                raise UsageError(event.message)
            seen[event.target] = TargetDrift(event.target, "Unknown", event.message)

    outcome = run(
        Request(
            strategy="drift",
            inventory=api.inventory_of(inventory),
            variables={**given, **(variables or {})},
            record=record,
            pausable=False,
        ),
        on_event=take,
        cancel=cancel,
    )
    if not seen:
        raise HostError(
            outcome.complaint
            or f"No host of the inventory matches {given['deploy_targets']!r}; check -i and "
            "--targets."
        )
    return [seen[name] for name in sorted(seen)]


def _from(event: Event) -> TargetDrift:
    data = event.data
    return TargetDrift(
        target=str(data["target"]),
        status=str(data["status"]),
        message=event.message,
        deployment_id=data["deployment_id"],
        digest=data["digest"],
        checked=data["checked"],
        unseen=data["unseen"],
        findings=tuple(Finding(**one) for one in data["findings"]),
    )
