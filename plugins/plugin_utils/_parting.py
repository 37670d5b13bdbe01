# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment owes Auto Scaling when it has ended: hooks answered, processes resumed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ..module_utils._errors import BasculeError
from ._hook_watch import see_off
from ._notify import family
from ._scaling import answer_hooks, release, summed_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._record import Deployment, Record


@dataclasses.dataclass(frozen=True)
class Parting:
    """Groups that are let go, hooks that are answered, and what went wrong, as sentences."""

    released: list[str]
    answered: list[str]
    warnings: list[str]


def part(
    record: Record, done: Sequence[Deployment], *, hook: str = "", groups: Sequence[str] = ()
) -> Parting:
    """Answer the hooks at which instances wait for deployments, and resume what they suspended.

    Nothing is raised: what AWS refuses is a warning, and the next deployment tries it again.

    :param done: a deployment and those that followed it (see ``family``)
    :param hook: the launch hook; by default that of the deployment
    :param groups: where others may wait at it; by default those of the deployment
    """
    first = done[0]
    scaling = first.options.get("scaling") or {}
    hook = hook or str(scaling.get("hook") or "")
    groups = groups or scaling.get("groups") or ()
    released: list[str] = []
    answered: list[str] = []
    warnings: list[str] = []
    ended = all(one.is_final for one in done)
    if hook and ended:
        try:
            told, left = answer_hooks(record, done, hook, groups)
            answered += told
            warnings += left
        except BasculeError as error:
            warnings.append(str(error))
    if scaling.get("termination_hook") and ended:
        try:
            told, left = see_off(record, done, scaling, scaling["groups"], last=True)
            answered += told
            warnings += [summed_up(left)] if left else []
        except BasculeError as error:
            warnings.append(str(error))
    try:
        released += release(record, [one for one in (first.id, first.rollback_of) if one])
    except BasculeError as error:
        warnings.append(str(error))
    return Parting(released, answered, warnings)


def give_up(record: Record, deployment_id: str, why: str = "") -> tuple[Deployment, list[str]]:
    """Abandon a deployment, and do for Auto Scaling what its end would have done.

    One that has ended already is left as it is; only what it still holds is given up.

    :returns: the deployment, and what went wrong with Auto Scaling, as sentences
    :raises RecordError: it has ended and holds nothing, or a controller works on it
    """
    found = record.deployment(deployment_id)
    root = found.rollback_of or str(found.options.get("follows") or found.id)
    held = record.holds_of([one.id for one in family(record, root)])
    if not (found.is_final and held and all(one.ended for one in held)):
        found = record.abandon(found.id, why)
    warnings: list[str] = []
    done = family(record, root)
    if held or found.options.get("scaling"):
        warnings = part(record, done).warnings
    return found, warnings
