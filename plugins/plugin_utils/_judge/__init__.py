# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge: a canary's measurements beside a baseline's, and what they prove."""

from ._metrics import Judge, Metric, parse_judge
from ._needed import Needed, rate_of, requests_needed
from ._replay import replay
from ._samples import data_from
from ._statistics import Counts, Interval, share_interval
from ._verdict import decide
from ._winner import winner

__all__ = [
    "Counts",
    "Interval",
    "Judge",
    "Metric",
    "Needed",
    "data_from",
    "decide",
    "parse_judge",
    "rate_of",
    "replay",
    "requests_needed",
    "share_interval",
    "winner",
]
