# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Events and metrics to CloudWatch."""

from ._courier import Courier
from ._lines import Redactor, line_of, metrics_of

__all__ = ["Courier", "Redactor", "line_of", "metrics_of"]
