# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What functions add to a plan: how they are now, what changes, where a failure leads back to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ...module_utils._aliases import Alias, is_same
from ...module_utils._functions import (
    difference,
    recorded_configuration,
    seen_configuration,
)
from ._publish import refuse_drift, refuse_latest
from ._revision import before_row, function_in
from ._service import Service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...module_utils._functions import FunctionSettings
    from .._record import Record, RevisionRow


@dataclass(frozen=True)
class Look:
    """How the functions are before a deployment.

    ``lines`` tell the functions and what changes of them, ``current`` are the targets that have the
    revision already, ``warnings`` tell what was moved by others.
    ``before`` is the revision that the aliases lead to now, None if one leads to nothing.
    """

    lines: list[str] = field(default_factory=list)
    current: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    before: RevisionRow | None = None


def look_at(
    functions: Sequence[FunctionSettings],
    revision: RevisionRow,
    *,
    record: Record,
    accept_drift: bool,
) -> Look:
    """Look at each alias, and compare what it leads to with the revision.

    :raises UsageError: an alias was moved by others, or leads to no version
    """
    service = Service()
    look = Look()
    entries: dict[str, dict[str, Any]] = {}
    for one in functions:
        wanted = function_in(revision, one.target)
        function, name = wanted["function"], wanted["alias"]
        alias = service.alias(function, name)
        refuse_latest(function, name, alias)
        found = refuse_drift(function, name, alias, record, accept=accept_drift)
        if found:
            look.warnings.append(found)
        if alias is None:
            look.lines.append(f"  {one.target}: the alias {name} is made, with the new version")
            continue
        seen = service.describe(function, alias.version)
        configuration = recorded_configuration(seen_configuration(seen), function)
        entries[one.target] = {
            "function": function,
            "alias": name,
            "code_sha256": seen["CodeSha256"],
            "place": {},
            "configuration": configuration,
            "hooks": {},
            "target_version": alias.version,
        }
        if is_current(function, name, alias, revision.digest, record):
            look.current.add(one.target)
        changes = difference(configuration, wanted["configuration"])
        if seen["CodeSha256"] != wanted["code_sha256"]:
            changes.insert(0, "code")
        told = "; ".join(changes) or "nothing"
        look.lines.append(f"  {one.target}: {alias.text()} of {name} now; changes: {told}")
    before = before_row(entries) if len(entries) == len(functions) else None
    return replace(look, before=before)


def with_functions(plan: dict[str, Any], look: Look, revision: RevisionRow) -> dict[str, Any]:
    """Return a plan with what was seen of its functions."""
    lines = look.lines if plan["targets"] else []
    more: dict[str, Any] = {"functions": lines, "warnings": [*look.warnings, *plan["warnings"]]}
    way = plan["rollback"]
    before = look.before
    if plan["targets"] and way["digest"] is None and before is not None:
        why = f"what is there now stays ({before.description})"
        known = {"digest": before.digest, "description": before.description, "cached": True}
        more["rollback"] = {
            **way,
            **known,
            "possible": before.digest != revision.digest,
            "why": why,
        }
        cannot = "A failure cannot be rolled back"
        more["warnings"] = [one for one in more["warnings"] if not one.startswith(cannot)]
    return {**plan, **more}


def is_current(function: str, name: str, alias: Alias, digest: str, record: Record) -> bool:
    """Tell whether an alias leads to the version that brought this revision, and to no other."""
    history = record.function_history(function, name)
    if not history or history[0].digest != digest:
        return False
    last = history[0]
    succeeded = record.deployment(last.deployment_id).status == "Succeeded"
    return succeeded and is_same(alias, Alias(last.version))
