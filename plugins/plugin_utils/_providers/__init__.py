# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The traffic providers that are reached from the controller, and the one door to them.

They answer the same requests with the same answers as the providers on a proxy's host
(``module_utils/_host/_traffic``), and the waiting is done by the same code.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ...module_utils._errors import BasculeError
from ...module_utils._host import _routed
from ...module_utils._host._traffic import carry_out
from ._desk import Desk

if TYPE_CHECKING:
    from ...module_utils._host._balancer import Balancer, Target
    from ...module_utils._host._router import Router
    from .._record import Record

# Provider and the file beside this one; it is imported when it is asked for, and has
# ``connect(options, targets, desk) -> Balancer`` if it has targets, and
# ``connect_router(options, record, deployment) -> Router`` if it shares traffic between pools.
PROVIDERS: dict[str, str] = {
    "elb": "_elb",
    "elbv2": "_elbv2",
    "lambda_alias": "_lambda_alias",
}


def on_controller(provider: str) -> bool:
    """Tell whether a provider is reached from the controller and not from a proxy's host."""
    return provider in PROVIDERS


def run_on_controller(
    request: dict[str, Any], *, record: Record | None = None, deployment: str = ""
) -> dict[str, Any]:
    """Carry a request out (see ``_host/_traffic.run``); an expected failure is a result, too.

    :param record: where all who work for ``deployment`` share calls; without it each calls alone
    """
    desk = Desk(record, deployment)

    def opener(provider: str, options: dict[str, Any], targets: list[Target]) -> Balancer:
        module = importlib.import_module("." + PROVIDERS[provider], __package__)
        balancer: Balancer = module.connect(options, targets, desk)
        return balancer

    def router_opener(provider: str, options: dict[str, Any]) -> Router:
        module = importlib.import_module("." + PROVIDERS[provider], __package__)
        router: Router = module.connect_router(options, record, deployment)
        return router

    try:
        if request["action"] in _routed.ACTIONS:
            return _routed.carry_out(request, router_opener)
        return carry_out(request, opener)
    except BasculeError as error:
        return {"failed": True, "changed": False, "msg": str(error), "error": {"kind": error.kind}}
