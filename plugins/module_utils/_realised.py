# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether requests show the share that the traffic was given. Pure.

Counted is what each load balancer counted between two looks, as the action ``traffic`` returns it:
``{"pools": {pool: {"requests": n}}, "at": epoch seconds}``; with ``"since"`` (epoch seconds) the
load balancer itself has counted from there on alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._capabilities import BY_MINUTE, CAPABILITIES, LATE
from ._schedule import RETIRE, SHIFT
from ._shares import share_confirmed

CONFIRMED, THIN, REFUTED = "confirmed", "thin", "refuted"

# So many requests at least say something, and so many that the smaller pool should have had.
LEAST = 50
LEAST_OF_SMALLER = 5
# A share that is right is refuted with at most this probability.
ALPHA = 0.001
# Where a pool is to have nothing: requests that were on their way may still have been counted.
STRAGGLERS = 1.0

Counted = Mapping[str, Any]

# How long requests are waited for, and how often they are counted, both in seconds. Counts that
# come by the minute need the rest of this one, a whole one, and up to two more until they are told.
SOON = {"patience": "10s", "every": 1}
BY_THE_MINUTE = {"patience": "5m", "every": 10}


def confirmation(
    provider: str, step: Mapping[str, Any], later: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return how requests show the share of a step: ``patience`` and ``every``; empty: they do not.

    :param later: the steps after it
    """
    if step["kind"] != SHIFT or "measure" not in CAPABILITIES.get(provider, ()):
        return {}
    if provider not in LATE:
        return dict(SOON)
    ahead = [one["kind"] for one in later if one["kind"] in (SHIFT, RETIRE)]
    # The last moment before the old pool is gone, and no sooner: minutes at every step would make
    # another schedule of it.
    return dict(BY_THE_MINUTE) if provider in BY_MINUTE and ahead[:1] == [RETIRE] else {}


def requests_between(before: Counted, after: Counted) -> dict[str, int]:
    """Return the requests of each pool between two looks; none where a counter began anew."""
    earlier = {} if after.get("since") is not None else before.get("pools") or {}
    return {
        pool: max(0, int(seen["requests"]) - int((earlier.get(pool) or {}).get("requests", 0)))
        for pool, seen in (after.get("pools") or {}).items()
    }


def judge_share(counts: Mapping[str, int], weights: Mapping[str, float]) -> tuple[str, str]:
    """Return confirmed, thin (too few requests to tell) or refuted, and a sentence.

    :param weights: percent by pool
    """
    counted = {pool: int(counts.get(pool, 0)) for pool in weights}
    total = sum(counted.values())
    smaller = min((share for share in weights.values() if share > 0), default=100.0) / 100
    if total < max(LEAST, LEAST_OF_SMALLER / smaller):
        return THIN, f"{total} requests are too few to confirm the share"
    found = share_confirmed(counted, weights, ALPHA)
    told = found.describe()
    if found.confirmed or _only_stragglers(counted, weights):
        return CONFIRMED, told
    return REFUTED, told


def _only_stragglers(counted: Mapping[str, int], weights: Mapping[str, float]) -> bool:
    if max(weights.values()) < 100:
        return False
    eased = {
        pool: 100 - STRAGGLERS if share == 100 else STRAGGLERS / max(1, len(weights) - 1)
        for pool, share in weights.items()
    }
    few = sum(number for pool, number in counted.items() if weights[pool] < 100)
    seen = share_confirmed(counted, eased, ALPHA)
    return few * 100 <= STRAGGLERS * sum(counted.values()) or seen.confirmed


def has_been_seen(
    before: Sequence[Counted],
    after: Sequence[Counted],
    weights: Mapping[str, float],
    patience: float,
) -> bool:
    """Tell whether to stop counting: all load balancers confirm the share, or the time is over.

    :param patience: seconds, of each load balancer's own clock
    """
    waited = [
        float(last["at"]) - float(first["at"])
        for first, last in zip(before, after)  # noqa: B905 - 3.8
    ]
    verdict, _told = judge_all(before, after, weights)
    return verdict == CONFIRMED or min(waited) >= patience


def judge_all(
    before: Sequence[Counted], after: Sequence[Counted], weights: Mapping[str, float]
) -> tuple[str, str]:
    """Return the verdict on all load balancers: one that refutes the share decides."""
    found = [
        judge_share(requests_between(first, last), weights)
        for first, last in zip(before, after)  # noqa: B905 - 3.8
    ]
    for verdict in (REFUTED, THIN):
        told = [text for one, text in found if one == verdict]
        if told:
            return verdict, "; ".join(told)
    return CONFIRMED, "; ".join(text for _verdict, text in found)
