# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that sends to CloudWatch, beside ansible-playbook.

A thread in ansible-playbook would be forked with every worker, and a slow endpoint would be felt
there. This process reads JSON lines from its standard input, sends them from a thread in batches,
and says at the end what became of them.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from typing import IO, TYPE_CHECKING, Any

from .._aws import client, error_code, reason
from ._limits import Line, batches

if TYPE_CHECKING:
    from collections.abc import Callable

# How long lines are collected before they are sent.
COLLECT_SECONDS = 1.0
# Between two attempts; botocore itself has tried several times in each.
PAUSE_SECONDS = 2.0
# More than this would be a memory leak, not a log.
MOST_LINES = 200_000
METRICS_A_CALL = 500
# A call that is under way at the end of the patience may come to its own end.
GRACE_SECONDS = 2.0


class Shipper:
    """Sends lines in their order; what cannot be sent is counted, never waited for by others."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Take ``{"group", "stream", "namespace", "create", "patience": seconds}``."""
        self._settings = settings
        self._lines: deque[Line] = deque()
        self._metrics: deque[dict[str, Any]] = deque()
        self._arrived = threading.Condition()
        self._ending: float | None = None
        self._ready = False
        self._clients: dict[str, Any] = {}
        self.sent = 0
        self.lost = 0
        self.why = ""

    def take(self, told: dict[str, Any]) -> None:
        """Take a line or a metric."""
        with self._arrived:
            if "metric" in told:
                self._metrics.append(told["metric"])
            elif len(self._lines) < MOST_LINES:
                self._lines.append(Line(int(told["at"]), str(told["message"])))
            else:
                self.lost += 1
                self.why = self.why or f"more than {MOST_LINES} lines were waiting"
            self._arrived.notify()

    def end(self) -> None:
        """Nothing more comes; what is left may take ``patience`` seconds."""
        with self._arrived:
            self._ending = time.monotonic() + self.patience
            self._arrived.notify()

    @property
    def patience(self) -> float:
        """How long what is left at the end may take, in seconds."""
        return float(self._settings["patience"])

    def report(self) -> dict[str, Any]:
        """Return how many lines were sent, how many lines and metrics were lost, and why."""
        with self._arrived:
            lost = self.lost + len(self._lines) + len(self._metrics)
            # A call may still wait for its first answer.
            why = self.why or "CloudWatch did not answer in time"
            return {"sent": self.sent, "lost": lost, "why": why if lost else ""}

    def work(self) -> None:
        """Send until the end."""
        while True:
            with self._arrived:
                while not self._lines and not self._metrics and self._ending is None:
                    self._arrived.wait()
                self._arrived.wait_for(lambda: self._ending is not None, COLLECT_SECONDS)
                lines, metrics = list(self._lines), list(self._metrics)
                ended = self._ending is not None
            if not lines and not metrics and ended:
                return
            if self._send(lines, metrics):
                continue
            if self._ending is not None and time.monotonic() > self._ending:
                return
            time.sleep(PAUSE_SECONDS if not ended else 0.2)

    def _send(self, lines: list[Line], metrics: list[dict[str, Any]]) -> bool:
        """Send what there is; tell whether all of it went. Logs and metrics are two services."""
        logged = self._tried(lambda: self._send_lines(lines)) if lines else True
        counted = self._tried(lambda: self._send_metrics(metrics)) if metrics else True
        return logged and counted

    def _tried(self, work: Callable[[], None]) -> bool:
        """Do something with AWS; where that fails, keep why."""
        from botocore.exceptions import BotoCoreError, ClientError

        from ...module_utils._errors import BasculeError

        try:
            work()
        except (BasculeError, BotoCoreError, ClientError) as error:
            self.why = reason(error)
            return False
        return True

    def _send_lines(self, lines: list[Line]) -> None:
        logs = self._client("logs")
        self._prepare(logs)
        for batch in batches(lines):
            self._put(logs, batch)

    def _send_metrics(self, metrics: list[dict[str, Any]]) -> None:
        for first in range(0, len(metrics), METRICS_A_CALL):
            part = metrics[first : first + METRICS_A_CALL]
            self._client("cloudwatch").put_metric_data(
                Namespace=self._settings["namespace"], MetricData=part
            )
            with self._arrived:
                for _one in part:
                    self._metrics.popleft()

    def _client(self, service: str) -> Any:
        """Return a client that gives up soon: this process tries again by itself."""
        if service not in self._clients:
            self._clients[service] = client(service, attempts=2, connect=5, read=10)
        return self._clients[service]

    def _prepare(self, logs: Any) -> None:
        if self._ready:
            return
        from botocore.exceptions import ClientError

        group, stream = self._settings["group"], self._settings["stream"]
        calls: list[tuple[str, dict[str, str]]] = [
            ("create_log_stream", {"logGroupName": group, "logStreamName": stream})
        ]
        if self._settings["create"]:
            calls.insert(0, ("create_log_group", {"logGroupName": group}))
        for operation, given in calls:
            try:
                getattr(logs, operation)(**given)
            except ClientError as error:
                if error_code(error) != "ResourceAlreadyExistsException":
                    raise
        self._ready = True

    def _put(self, logs: Any, batch: list[Line]) -> None:
        answer = logs.put_log_events(
            logGroupName=self._settings["group"],
            logStreamName=self._settings["stream"],
            logEvents=[{"timestamp": line.at, "message": line.message} for line in batch],
        )
        refused = _refused(answer.get("rejectedLogEventsInfo") or {}, len(batch))
        with self._arrived:
            for _line in batch:
                self._lines.popleft()
        self.sent += len(batch) - refused
        self.lost += refused
        if refused:
            self.why = "CloudWatch refused events that were too old or too new"


def _refused(told: dict[str, int], number: int) -> int:
    old = max(told.get("tooOldLogEventEndIndex", 0), told.get("expiredLogEventEndIndex", 0))
    new = told.get("tooNewLogEventStartIndex", number)
    return old + number - new


def main(source: IO[str] = sys.stdin, answer: IO[str] = sys.stdout) -> None:
    """Read the settings, then lines until the end of the input; say what became of them."""
    shipper = Shipper(json.loads(source.readline()))
    worker = threading.Thread(target=shipper.work, daemon=True)
    worker.start()
    for text in source:
        told = json.loads(text)
        if told.get("end"):
            break
        shipper.take(told)
    shipper.end()
    worker.join(shipper.patience + GRACE_SECONDS)
    answer.write(json.dumps(shipper.report()))
    answer.flush()
