# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of sources: each type of gate with what asks it once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _ab_test, _cloudwatch, _http, _judging, _local, _proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...module_utils._gate_spec import Gate
    from ._model import Measurement, Moment

    Source = Callable[[Gate, Moment], Measurement]

SOURCES: dict[str, Source] = {
    "http": _http.measure_http,
    "tcp": _local.measure_tcp,
    "command": _local.measure_command,
    "webhook": _http.measure_webhook,
    "cloudwatch_alarm": _cloudwatch.measure_alarm,
    "cloudwatch": _cloudwatch.measure_metrics,
    "prometheus": _http.measure_prometheus,
    "approval": _local.measure_approval,
    "proxy": _proxy.measure_proxy,
    "load_balancer": _proxy.measure_load_balancer,
    "judge": _judging.measure_judge,
    "ab_test": _ab_test.measure_ab_test,
}


def measure(gate: Gate, moment: Moment) -> Measurement:
    """Ask a gate once.

    :raises SourceError: its source does not answer
    """
    return SOURCES[gate.type](gate, moment)
