"""Plans: made, kept in files, and carried out as they were made."""

from __future__ import annotations

import json
import os
import typing as t
from collections.abc import Mapping
from contextlib import suppress
from os import fspath
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_text import (
    difference_lines,
)

from bascule.result import Plan

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import Event

    from bascule.api import Inventory, PathOrName
    from bascule.result import Deployment


def plan(
    strategy: str,
    *,
    inventory: Inventory = None,
    revision: PathOrName | None = None,
    targets: str | None = None,
    limit: str | None = None,
    variables: Mapping[str, t.Any] | None = None,
    output: PathOrName | None = None,
    on_event: Callable[[Event], None] | None = None,
    record: str | None = None,
) -> Plan:
    """Return what a deployment would do, down to the files of each host; change nothing.

    :param output: file that the plan is saved to, for ``apply``
    :raises DeploymentError: no plan can be made; the error tells why
    """
    planned = make(
        strategy,
        inventory=inventory,
        revision=revision,
        targets=targets,
        limit=limit,
        variables=variables,
        output=output,
        on_event=on_event,
        record=record,
    )
    planned.raise_for_status()
    return plan_of(planned)


def make(
    strategy: str,
    *,
    inventory: Inventory = None,
    variables: Mapping[str, t.Any] | None = None,
    output: PathOrName | None = None,
    **options: t.Any,
) -> Deployment:
    """Make a plan and return the run that made it, ``Planned`` or ``Refused``.

    :param output: file that the plan is saved to; it appears only if all went well
    :param options: those of ``bascule.deploy``
    """
    from bascule import api

    given = dict(variables or {})
    if output is None:
        return api.deploy(
            strategy, inventory=inventory, variables=given, check=True, diff=True, **options
        )
    place = Path(fspath(output)).expanduser().absolute()
    kept = _draft(place)
    try:
        planned = api.deploy(
            strategy,
            inventory=inventory,
            variables={**given, "deploy_plan_output": str(kept)},
            check=True,
            diff=True,
            **options,
        )
        if not planned.exit_code:
            if isinstance(inventory, Mapping):
                _forget_inventory(kept)
            kept.replace(place)
        return planned
    finally:
        with suppress(FileNotFoundError):
            kept.unlink()


def apply(
    path: PathOrName,
    *,
    inventory: Inventory = None,
    variables: Mapping[str, t.Any] | None = None,
    check: bool = False,
    diff: bool = False,
    on_event: Callable[[Event], None] | None = None,
    cancel: Callable[[], bool] | None = None,
    record: str | None = None,
    verbosity: int = 0,
    notice: Callable[[str], None] | None = None,
) -> Deployment:
    """Carry out a saved plan, exactly as it was made, or refuse if anything has changed since.

    :param path: the file that ``plan(output=…)`` has written
    :param inventory: the default is where the plan had it from
    :param variables: those given to the plan whose values it does not keep
    :raises PlanError: the file is no plan as it was written
    :raises UsageError: its inventory is not there any more
    """
    from ansible_collections.bascule.deploy.plugins.plugin_utils._saving import load_saved

    from bascule import api

    place = Path(fspath(path)).expanduser().absolute()
    run = (saved := load_saved(place))["run"]
    if inventory is None and not run["inventory"]:
        raise UsageError(
            f"The plan {place} was made with an inventory that is no file. Give it again."
        )
    limit = run["limit"]
    return api.deploy(
        saved["strategy"],
        inventory=run["inventory"] if inventory is None else inventory,
        # A run adds localhost to a limit.
        limit=limit.removesuffix(":localhost").removesuffix(",localhost") if limit else None,
        variables={**run["variables"], **(variables or {}), "deploy_plan": str(place)},
        check=check,
        diff=diff,
        on_event=on_event,
        cancel=cancel,
        record=record,
        verbosity=verbosity,
        notice=notice,
    )


def plan_of(planned: Deployment) -> Plan:
    """Return the plan that a run with ``check`` came to."""
    details = planned.plan
    opened = next(event for event in planned.seen if event.kind == "opened")
    differences = {
        event.target: "\n".join(lines)
        for event in planned.seen
        if event.kind == "diff" and event.target is not None
        if (lines := difference_lines(event.data.get("diff")))
    }
    return Plan(
        strategy=planned.strategy,
        application=planned.application,
        group=planned.group,
        revision=planned.revision,
        plan_hash=planned.plan_hash,
        stages=tuple(tuple(stage) for stage in details.get("stages") or ()),
        slots=int(details.get("slots") or 0),
        minimum_healthy=int(details.get("minimum_healthy") or 0),
        warnings=tuple(details.get("warnings") or ()),
        text=opened.message,
        details=details,
        differences=differences,
    )


def _draft(place: Path) -> Path:
    """Return a file beside the one to be written, so that a whole plan takes its place."""
    import tempfile  # only here: slow to import

    try:
        number, name = tempfile.mkstemp(prefix=f".{place.name}-", dir=place.parent)
    except OSError as error:
        raise UsageError(
            f"The plan cannot be written to {place}: {error.strerror or error}. Name a file in a "
            "folder that you can write to."
        ) from error
    os.close(number)
    return Path(name)


def _forget_inventory(path: Path) -> None:
    """Take the inventory out of a plan: it was a mapping, and its file is gone with the run."""
    saved = json.loads(path.read_text(encoding="utf-8"))
    saved["run"]["inventory"] = []
    path.write_text(json.dumps(saved, indent=1, sort_keys=True) + "\n", encoding="utf-8")
