# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a strategy would do, on a virtual clock.

Plan, admission, schedule and judge are the real ones; fleet, traffic and defect are modelled.
Pure; the same seed gives the same numbers.
"""

from ._compare import simulate
from ._model import STRATEGIES, Defect, Fleet, Scenario, Traffic, parse_scenario

__all__ = [
    "STRATEGIES",
    "Defect",
    "Fleet",
    "Scenario",
    "Traffic",
    "parse_scenario",
    "simulate",
]
