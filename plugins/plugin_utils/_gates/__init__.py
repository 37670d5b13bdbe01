# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gates: asked on the controller while a step of a deployment bakes, and written to the record.

Import names from here only.
"""

from __future__ import annotations

from ._evidence import evidence_lines, remembered
from ._judging import configure
from ._model import Moment, Pools, SourceError, Traffic
from ._run import ON_INCONCLUSIVE, Rules, StepOutcome, run_step
from ._settings import (
    GATE_OPTIONS,
    alarms_of,
    gates_of,
    options_from,
    planned_gates,
    pools_of,
    rules_of,
)
from ._sources import measure

__all__ = [
    "GATE_OPTIONS",
    "ON_INCONCLUSIVE",
    "Moment",
    "Pools",
    "Rules",
    "SourceError",
    "StepOutcome",
    "Traffic",
    "alarms_of",
    "configure",
    "evidence_lines",
    "gates_of",
    "measure",
    "options_from",
    "planned_gates",
    "pools_of",
    "remembered",
    "rules_of",
    "run_step",
]
