# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A verdict made again from what the record has of it, by the same judge or by another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ._metrics import Judge, parse_judge
from ._samples import data_from, fingerprint
from ._verdict import decide

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def replay(
    decisions: Sequence[Mapping[str, Any]], other: Judge | None = None
) -> list[dict[str, Any]]:
    """Return each verdict of a judge as it was and as it is now.

    :param decisions: the data of the judge's decisions of a step, in order: ``{"look", "judge",
        "final", "result", "sha256"}``
    :param other: another judge than the one that each decision names
    :returns: ``[{"at", "final", "recorded", "replayed", "same", "data"}]``; ``same``: the result is
        equal, bit by bit, and so are the data that it was made from
    """
    looks: list[Mapping[str, Any]] = []
    found = []
    for decision in decisions:
        if "look" not in decision or "result" not in decision:
            continue
        looks.append(decision["look"])
        judge = other or parse_judge(decision["judge"])
        final = bool(decision["final"])
        data = data_from(judge, looks, final=final)
        result = decide(judge, data, final=final)
        same = _text(result) == _text(decision["result"])
        if other is None:
            same = same and fingerprint(data) == decision["sha256"]
        found.append(
            {
                "at": decision["look"]["at"], "final": final, "recorded": decision["result"],
                "replayed": result, "same": same, "data": data,
            }
        )  # fmt: skip
    return found


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
