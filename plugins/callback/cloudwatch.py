# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send what happens in a deployment to CloudWatch."""

from __future__ import annotations

DOCUMENTATION = r"""
name: cloudwatch
type: notification
short_description: Send the events of a Bascule deployment to CloudWatch
version_added: 0.1.0
author:
  - Bascule contributors (@bascule)
description:
  - Every lifecycle event with the end of its scripts' output, every admission, every change of the
    traffic and every end becomes a structured log event in CloudWatch Logs.
  - The duration, the targets by state and the rollbacks become metrics.
  - A process of its own sends them in batches. It never makes a deployment wait or fail; what could
    not be sent is counted and told at the end.
  - This plugin only looks on. A deployment is the same without it. With C(--check) nothing is sent.
requirements:
  - enabled by C(callbacks_enabled) in the configuration
  - the Python package C(boto3) on the controller
options:
  log_group:
    description:
      - The log group.
    type: str
    default: bascule
    env:
      - name: BASCULE_CLOUDWATCH_LOG_GROUP
    ini:
      - section: callback_bascule_cloudwatch
        key: log_group
  create:
    description:
      - Whether to make the log group where it is missing.
    type: bool
    default: true
    env:
      - name: BASCULE_CLOUDWATCH_CREATE
    ini:
      - section: callback_bascule_cloudwatch
        key: create
  namespace:
    description:
      - The namespace of the metrics; an empty one sends none.
    type: str
    default: Bascule
    env:
      - name: BASCULE_CLOUDWATCH_NAMESPACE
    ini:
      - section: callback_bascule_cloudwatch
        key: namespace
  patience:
    description:
      - How many seconds what is left may take when the play has ended.
    type: float
    default: 10
    env:
      - name: BASCULE_CLOUDWATCH_PATIENCE
    ini:
      - section: callback_bascule_cloudwatch
        key: patience
  redact:
    description:
      - Regular expressions of what may not be in a log, beside credentials as they are commonly
        written.
    type: list
    elements: str
    default: []
    env:
      - name: BASCULE_CLOUDWATCH_REDACT
    ini:
      - section: callback_bascule_cloudwatch
        key: redact
"""

EXAMPLES = r"""
# In ansible.cfg:
# [defaults]
# callbacks_enabled = bascule.deploy.cloudwatch
# [callback_bascule_cloudwatch]
# log_group = /bascule/prod
"""

import atexit
import contextlib
import os
import typing as t
from collections import Counter

from ansible import context
from ansible_collections.bascule.deploy.plugins.plugin_utils._cloudwatch import (
    Courier,
    Redactor,
    line_of,
    metrics_of,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._observer import Observer, only_looking

if t.TYPE_CHECKING:
    from ansible.executor.stats import AggregateStats
    from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import Event


class CallbackModule(Observer):
    """The notification callback ``bascule.deploy.cloudwatch``."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "bascule.deploy.cloudwatch"
    CALLBACK_NEEDS_ENABLED = True
    purpose = "log in CloudWatch"

    def __init__(self) -> None:
        super().__init__()
        self._courier: Courier | None = None
        self._redactor: Redactor | None = None
        self._opened: dict[str | None, float] = {}
        self._states: dict[str | None, dict[str, str]] = {}
        self._pid = os.getpid()
        # An interrupted play has no end that Ansible tells of.
        atexit.register(self._finish)

    def event(self, event: Event) -> None:
        if context.CLIARGS.get("check"):
            return
        if self._redactor is None:
            self._redactor = Redactor(self.get_option("redact"))
        line = line_of(event, self._redactor)
        if line is None:
            return
        courier = self._sender(event)
        courier.line(line.at, line.message)
        if event.kind == "opened":
            self._opened[event.deployment_id] = event.at
        elif event.kind == "settled" and event.target:
            self._states.setdefault(event.deployment_id, {})[event.target] = event.status
        elif event.kind == "closed" and self.get_option("namespace"):
            states = Counter(self._states.get(event.deployment_id, {}).values())
            for metric in metrics_of(
                event, self._opened.get(event.deployment_id, event.at), states
            ):
                courier.metric(metric)

    @only_looking
    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        del stats
        self._finish()

    def _sender(self, event: Event) -> Courier:
        """Return the way to CloudWatch, with a stream named after the first deployment."""
        if self._courier is None:
            self._courier = Courier(
                {
                    "group": self.get_option("log_group"),
                    "stream": event.deployment_id or f"refused-{round(event.at)}",
                    "namespace": self.get_option("namespace"),
                    "create": self.get_option("create"),
                    "patience": self.get_option("patience"),
                }
            )
        return self._courier

    def _finish(self) -> None:
        if self._courier is None or os.getpid() != self._pid:
            return
        courier, self._courier = self._courier, None
        sent, lost, why = courier.end()
        if lost:
            with contextlib.suppress(Exception):
                self._display.warning(
                    f"CloudWatch: {lost} of {sent + lost} events and metrics were not sent: "
                    f"{why.rstrip('.')}. The record has them all."
                )
