# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans in files: what is written down, and how a file is written and read."""

from __future__ import annotations

import dataclasses
import getpass
import json
import os
import secrets
import socket
import tempfile
import time
import typing as t
from pathlib import Path

from ..module_utils._errors import PlanError, UsageError
from ..module_utils._plan_hash import plan_hash
from ..module_utils._saved_plan import FORMAT, OWN, Saved, may_be_kept, read_saved, seal

if t.TYPE_CHECKING:
    from ._planning import Endpoint, Plan, Settings
    from ._record import Record, RevisionRow

# Of a target's variables, those that decide how it is reached; the public ones come to them.
REACHED_BY = frozenset(
    {"ansible_host", "ansible_port", "ansible_user", "ansible_connection", "ansible_become"}
)


@dataclasses.dataclass(frozen=True)
class Situation:
    """What a run was given, and what was seen, beyond the settings and the record.

    ``given`` are the variables of ``-e``; ``raw`` each target's variables, not templated;
    ``vaulted`` tells whether a value comes out of a vault; ``routing`` is ``routing_of``.
    """

    inventory: list[str]
    limit: str | None
    base: Path
    given: dict[str, t.Any]
    raw: dict[str, dict[str, t.Any]]
    routing: dict[str, dict[str, t.Any]]
    vaulted: t.Callable[[t.Any], bool]
    public: t.Mapping[str, t.Any]


def save(
    strategy: str,
    settings: Settings,
    endpoints: t.Sequence[Endpoint],
    revision: RevisionRow,
    plan: Plan,
    situation: Situation,
    *,
    record: Record,
    salt: str | None = None,
) -> Saved:
    """Return the saved plan; ``salt`` is that of the one it is to be compared with."""
    salt = salt or secrets.token_hex(16)
    application, group = settings["deploy_application"], settings["deploy_group"]

    def divided(values: t.Mapping[str, t.Any]) -> tuple[dict[str, t.Any], dict[str, str]]:
        """Divide into what may be kept, and the seals of the rest."""
        kept: dict[str, t.Any] = {}
        sealed: dict[str, str] = {}
        for name, value in values.items():
            if name in OWN:
                continue
            if may_be_kept(name, value, situation.public) and not situation.vaulted(value):
                kept[name] = _plain(value)
            elif value not in (None, "", [], {}):
                sealed[name] = seal(name, _plain(value), salt)
        return kept, sealed

    variables, withheld = divided(situation.given)
    kept, sealed = divided(settings)
    saved: Saved = {
        "format": FORMAT,
        "made": {"at": time.time(), "by": getpass.getuser(), "from": socket.gethostname()},
        "salt": salt,
        "strategy": strategy,
        "application": application,
        "group": group,
        "revision": {
            "digest": revision.digest,
            "source": revision.source,
            "description": revision.description,
        },
        "plan": plan,
        "plan_hash": plan_hash(plan, revision.digest),
        "run": {
            "inventory": situation.inventory,
            "limit": situation.limit,
            "base": str(situation.base),
            "variables": variables,
            "withheld": withheld,
        },
        "settings": kept,
        "sealed": sealed,
        "targets": {
            one.target: {
                "name": one.name,
                "address": one.address,
                "port": one.port,
                "zone": one.zone,
                "variables": _own_variables(situation, one.target),
            }
            for one in endpoints
        },
        "routing": situation.routing,
        "record": _recorded(record, application, group),
    }
    return t.cast("Saved", _plain(saved))


def routing_of(
    answers: t.Sequence[t.Mapping[str, t.Any]], endpoints: t.Sequence[Endpoint]
) -> dict[str, dict[str, t.Any]]:
    """Return which targets are in service, from what every load balancer answered.

    A target is in service only where all load balancers have it so; ``where`` tells of the first
    one that has not.
    """
    seen: dict[str, dict[str, t.Any]] = {}
    for answer in answers:
        for one in endpoints:
            found = answer.get("targets", {}).get(one.name)
            if found is None or not seen.get(one.target, {"in_service": True})["in_service"]:
                continue
            seen[one.target] = {
                "in_service": bool(found["in_service"]),
                "where": f"{answer.get('where', 'the load balancer')}: {found['state']}",
            }
    return seen


def write_saved(path: Path, saved: Saved) -> None:
    """Write a saved plan, whole or not at all, for its owner's eyes.

    :raises UsageError: the file cannot be written
    """
    try:
        number, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(number, "w", encoding="utf-8") as file:
                json.dump(saved, file, indent=1, sort_keys=True)
                file.write("\n")
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(
            f"The plan cannot be written to {path}: {error.strerror or error}. Name a file in a "
            "folder that you can write to."
        ) from error


def load_saved(path: Path) -> Saved:
    """Read a saved plan.

    :raises PlanError: the file cannot be read, or holds no plan as it was written
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(
            f"The saved plan {path} cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from error
    return read_saved(text, str(path))


def _own_variables(situation: Situation, target: str) -> dict[str, t.Any]:
    return {
        name: _plain(value)
        for name, value in sorted(situation.raw.get(target, {}).items())
        if name not in OWN
        and name not in situation.given
        and (name in REACHED_BY or may_be_kept(name, value, situation.public))
        and not situation.vaulted(value)
    }


def _recorded(record: Record, application: str, group: str) -> dict[str, t.Any]:
    state = record.group_state(application, group)
    newest = record.deployments(application, group, limit=1)
    return {
        "revision": state.digest if state else None,
        "newest": newest[0].id if newest else None,
        "told": f"{newest[0].strategy}, {newest[0].status}" if newest else "",
        "targets": {
            name: {"health": one.health, "digest": one.digest}
            for name, one in record.target_states(application, group).items()
        },
    }


def _plain(value: t.Any) -> t.Any:
    """Return a value of Ansible's as JSON has it."""
    return json.loads(json.dumps(value, default=str))
