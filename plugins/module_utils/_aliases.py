# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An alias of a Lambda function and its versions: weights, order, and which are kept. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._appspec_lambda import AFTER, BEFORE
from ._errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

TOGETHER, IN_ORDER = "together", "in_order"

# The two pools of a deployment: what an alias led to before, and the version that is deployed.
OLD, NEW = "old", "new"

# Shares are told in percent with this many digits; what is finer comes from dividing.
_DIGITS = 6
_NEAR = 1e-4


@dataclass(frozen=True)
class Alias:
    """Where an alias leads: ``version``, but for the ``weights`` (0 to 1) of other versions."""

    version: str
    weights: Mapping[str, float] = field(default_factory=dict)
    revision_id: str = ""

    @property
    def shares(self) -> dict[str, float]:
        """Return the percent of the traffic that each version gets; all there are."""
        others = {name: round(weight * 100, _DIGITS) for name, weight in self.weights.items()}
        rest = round(100 - sum(others.values()), _DIGITS)
        return {self.version: rest, **others}

    def text(self) -> str:
        """Say it in words."""
        return " and ".join(f"version {name} ({share:g}%)" for name, share in self.shares.items())


def alias_for(share: float, old: str | None, new: str) -> Alias | None:
    """Return the alias that gives ``share`` percent to the version ``new`` and the rest to ``old``.

    At 100 % the alias leads to the new version alone, as CodeDeploy leaves it. Where there is no
    old version, all goes to the new one, and None (no alias) is meant by no share.
    """
    if old == new:
        return Alias(new)
    if old is None:
        return Alias(new) if share > 0 else None
    if share >= 100 - _NEAR:
        return Alias(new)
    if share <= _NEAR:
        return Alias(old)
    return Alias(old, {new: round(share / 100, _DIGITS)})


def share_of(alias: Alias, old: str | None, new: str) -> float | None:
    """Return the percent that ``new`` gets; None if a version is in it that is neither."""
    shares = {name: share for name, share in alias.shares.items() if share > 0}
    if set(shares) - {old, new}:
        return None
    return shares.get(new, 0.0)


def is_same(one: Alias | None, other: Alias | None) -> bool:
    """Tell whether two aliases lead to the same versions, in the same shares."""
    if one is None or other is None:
        return one is other
    mine = {name: share for name, share in one.shares.items() if share > 0}
    theirs = {name: share for name, share in other.shares.items() if share > 0}
    return mine.keys() == theirs.keys() and all(
        abs(share - theirs[name]) < _NEAR for name, share in mine.items()
    )


def schedule_in_order(
    steps: Sequence[Mapping[str, Any]],
    targets: Sequence[str],
    hooks: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
    """Return the schedule that carries out ``steps`` for one target after the other, and a ladder.

    The shares of the schedule are of the traffic of all targets together, in percent with two
    decimals; the ladder says for each of them (``"12.5"``) the percent of every target. Each target
    is checked before its own first share and after its last one, and is done then.

    :param hooks: by target, the functions that check it by their event
    :raises PlanError: there are more targets than shares can be told apart
    """
    made: list[dict[str, Any]] = []
    ladder: dict[str, dict[str, float]] = {}
    first = next((place for place, step in enumerate(steps) if step["kind"] == "shift"), 0)
    for number, name in enumerate(targets):
        own = (hooks or {}).get(name) or {}
        for index, step in enumerate(steps):
            if index == first and own.get(BEFORE):
                made.append(_hook(name, BEFORE, own[BEFORE], settles=False))
            if step["kind"] != "shift":
                made.append(dict(step))
                continue
            share = round((number * 100 + step["share"]) / len(targets), 2)
            if f"{share:g}" in ladder:
                raise PlanError(
                    f"{len(targets)} functions in order are more than this schedule can tell "
                    "apart. Deploy them together, or in groups of their own."
                )
            made.append({**step, "share": share})
            ladder[f"{share:g}"] = {
                target: 100.0 if place < number else step["share"] if place == number else 0.0
                for place, target in enumerate(targets)
            }
        made.append(_hook(name, AFTER, own.get(AFTER) or "", settles=True))
    return made, ladder


def _hook(target: str, event: str, function: str, *, settles: bool) -> dict[str, Any]:
    return {"kind": "hook", "target": target, "event": event, "hook": function, "settles": settles}


def versions_to_delete(
    versions: Mapping[str, float],
    *,
    keep: int,
    age: float,
    now: float,
    protected: Collection[str],
) -> list[str]:
    """Return the versions that are neither among the newest ``keep`` nor younger than ``age``.

    :param versions: when each was published (epoch seconds), by its number
    :param age: seconds
    :param protected: what an alias leads to or a rollback needs; never deleted, and not counted
    """
    free = sorted((name for name in versions if name not in protected), key=int, reverse=True)
    return sorted((name for name in free[keep:] if now - versions[name] >= age), key=int)
