# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate that decides an A/B test: look at both variants, and say when one of them is better."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...module_utils._ab_test import MORE
from ...module_utils._gate_rules import FAILED, INCONCLUSIVE, PENDING, SUCCESSFUL
from .._judge import winner
from .._judge._samples import data_from, fingerprint
from ._judging import configure, look_at, pools_for
from ._model import Measurement, Moment, Pools

if TYPE_CHECKING:
    from ...module_utils._gate_spec import Gate


def measure_ab_test(gate: Gate, moment: Moment) -> Measurement:
    """Look once, and decide on all looks of the test.

    The new variant's victory passes the gate and ends the bake; the present one's fails it. What
    nobody has won when the time is over is inconclusive.
    """
    setting = configure({"metrics": [gate.options["goal"]]})
    pools = pools_for(setting, gate, moment)
    earlier = [one["look"] for one in moment.earlier if "look" in one]
    last = next((one["raw"] for one in reversed(moment.earlier) if "raw" in one), None)
    look, raw = look_at(setting, pools, gate, moment, last)
    if last is None:
        return Measurement(PENDING, "counts from now on", {"raw": raw})
    data = data_from(setting.judge, [*earlier, look], final=moment.over)
    found = winner(setting.judge, data, more_is_better=gate.options.get("better") == MORE)
    told = {
        "look": look, "raw": raw, "goal": setting.public["metrics"][0], "ab_test": found,
        "sha256": fingerprint(data),
    }  # fmt: skip
    return Measurement(*_verdict(found, pools, setting.judge.metrics[0].name, moment), told)


def _verdict(found: dict[str, Any], pools: Pools, name: str, moment: Moment) -> tuple[str, str]:
    arms = {"canary": pools.canary, "baseline": pools.baseline}
    shown = "; ".join(f"{pool} {found['arms'][arm]}" for arm, pool in arms.items())
    told = f"{name}: {shown}"
    if found["alarm"]:
        why = "the variants did not get their shares of the traffic, so they cannot be compared"
        return INCONCLUSIVE, f"{told}; {why}"
    if found["winner"] is not None:
        phase = SUCCESSFUL if found["winner"] == "canary" else FAILED
        return phase, f"{arms[found['winner']]} is better. {told}"
    return (INCONCLUSIVE if moment.over else PENDING), f"none is shown to be better yet. {told}"
