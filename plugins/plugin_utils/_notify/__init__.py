# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Notifications: who is told what about a deployment, and what became of it."""

from ._delivery import catch_up, deliver, family, notification_failures, undelivered
from ._start import start

__all__ = ["catch_up", "deliver", "family", "notification_failures", "start", "undelivered"]
