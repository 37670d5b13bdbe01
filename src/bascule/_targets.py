"""Which targets an inventory has, how each is reached, and where it comes from."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import Event

    from bascule.api import Inventory


@dataclasses.dataclass(frozen=True)
class InventoryTarget:
    """One target: ``instance`` is its id at EC2, ``origin`` where the inventory has it from."""

    target: str
    groups: tuple[str, ...]
    address: str
    connection: str
    zone: str
    pool: str
    instance: str
    origin: str

    def to_dict(self) -> dict[str, t.Any]:
        """Return the documented JSON form."""
        told = dataclasses.asdict(self)
        return {**told, "groups": list(self.groups)}


def targets(
    group: str | None = None,
    *,
    inventory: Inventory = None,
    variables: Mapping[str, t.Any] | None = None,
) -> list[InventoryTarget]:
    """Return the targets of an inventory, by name.

    :param group: group or pattern of the inventory; the default is all hosts
    :raises UsageError: the inventory cannot be read, or nothing matches
    """
    from bascule import api
    from bascule._run import Request, run

    seen: list[Event] = []
    pattern = group or "all"
    outcome = run(
        Request(
            strategy="targets",
            inventory=api.inventory_of(inventory),
            variables={**(variables or {}), "deploy_targets": pattern},
        ),
        on_event=seen.append,
    )
    told = next((event for event in seen if event.kind == "targets"), None)
    if told is None:
        wrong = next((event.message for event in seen if event.kind == "error"), outcome.complaint)
        raise UsageError(wrong or f"The inventory could not be asked for {pattern!r}.")
    found = [_target(one) for one in told.data["targets"]]
    if not found:
        hint = "".join(f" {event.message}" for event in seen if event.kind == "warning")
        raise UsageError(f"No host of the inventory matches {pattern!r}.{hint}")
    return found


def _target(row: Mapping[str, t.Any]) -> InventoryTarget:
    known = {**row, "groups": tuple(row["groups"]), "origin": row["from"]}
    names = [field.name for field in dataclasses.fields(InventoryTarget)]
    return InventoryTarget(**{name: known[name] for name in names})
