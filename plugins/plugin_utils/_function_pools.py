# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pools and the schedule of a deployment of Lambda functions.

Every strategy moves the alias from the old version to the new one, by the engine that moves traffic
between pools of hosts; only the schedule differs.
"""

from __future__ import annotations

import typing as t

from ..module_utils._ab_test import ab_schedule, parse_ab_test
from ..module_utils._admission import IDLE
from ..module_utils._aliases import IN_ORDER, NEW, OLD, schedule_in_order
from ..module_utils._capabilities import CAPABILITIES, MEANINGS, lacking
from ..module_utils._configuration import parse_duration
from ..module_utils._errors import UsageError
from ..module_utils._functions import PLATFORM
from ..module_utils._pools import (
    AB_TEST,
    BLUE_GREEN,
    CANARY,
    KEEP,
    ROLLBACK,
    deployment_steps,
)
from ._lambda._revision import function_in
from ._pooling import AT_ONCE, Pooled, schedule_of

if t.TYPE_CHECKING:
    from ._planning import Endpoint, Settings
    from ._record import RevisionRow

IN_PLACE = "in_place"
PROVIDER = "lambda_alias"
STRATEGIES = (IN_PLACE, BLUE_GREEN, CANARY, AB_TEST, ROLLBACK)
# The others move everything at once and wait for nobody.
WATCHED = (BLUE_GREEN, CANARY, AB_TEST)
# As AWS SAM's own default for who asks for a canary.
_CANARY_DEFAULT = "LambdaCanary10Percent5Minutes"


def plan_functions(
    strategy: str,
    settings: Settings,
    endpoints: t.Sequence[Endpoint],
    revision: RevisionRow,
    current: t.Collection[str] = (),
) -> Pooled:
    """Return the two versions as pools, and the schedule by which traffic comes to the new one.

    :param revision: says which functions check the targets
    :param current: the targets that have the revision already; if all have, nothing is done
    :raises UsageError: a strategy or a setting that Lambda has no meaning for
    """
    if strategy not in STRATEGIES:
        raise UsageError(
            f"The strategy {strategy} is for hosts; for Lambda there are {', '.join(STRATEGIES)}."
        )
    for name, wish in (("deploy_test_route", "match"), ("deploy_sticky", "sticky")):
        if settings[name] and lacking(PROVIDER, [wish]):
            able = sorted(one for one, words in CAPABILITIES.items() if wish in words)
            raise UsageError(
                f"{name} is set, but an alias of Lambda is shared by weight alone: it cannot "
                f"{MEANINGS[wish]} ({wish}). Leave it empty for deploy_compute_platform: lambda. "
                f"Providers that can, for hosts: {', '.join(able)}."
            )
    targets = [one.target for one in endpoints]
    if set(targets) <= set(current) and not settings["deploy_redeploy"]:
        return Pooled(touched=frozenset(), total=len(targets), mode=IDLE)
    rules = settings if strategy in WATCHED else {**settings, **AT_ONCE}
    if strategy == CANARY and not (settings["deploy_schedule"] or _named(settings)):
        rules = {**rules, "deploy_schedule": _CANARY_DEFAULT}
    if strategy == AB_TEST:
        schedule = ab_schedule(parse_ab_test(settings["deploy_ab_test"]))
    else:
        schedule = schedule_of(BLUE_GREEN, rules)
    ladder: dict[str, dict[str, float]] = {}
    if settings["deploy_lambda_order"] == IN_ORDER and len(targets) > 1 and strategy != ROLLBACK:
        hooks = {target: function_in(revision, target)["hooks"] for target in targets}
        schedule, ladder = schedule_in_order(schedule, targets, hooks)
    pools: dict[str, t.Any] = {
        "platform": PLATFORM,
        "kind": BLUE_GREEN,
        "new": NEW,
        "old": OLD,
        "home": OLD,
        "members": {OLD: targets, NEW: targets},
        "slots": False,
        "idle": targets,
        "before": {OLD: 100.0, NEW: 0.0},
        "test_route": None,
        "sticky": None,
        "retire": KEEP,
        "ladder": ladder,
    }
    steps = deployment_steps(
        schedule,
        pools,
        bake=parse_duration(rules["deploy_bake_time"], "deploy_bake_time"),
        ready_timeout=parse_duration(rules["deploy_ready_timeout"], "deploy_ready_timeout"),
        ready_on_timeout=rules["deploy_ready_on_timeout"],
        attach=False,
    )
    return Pooled(
        pools=pools,
        schedule=steps,
        touched=frozenset(targets),
        total=len(targets),
        mode=IDLE,
    )


def _named(settings: Settings) -> bool:
    from ..module_utils._schedule import is_schedule_name

    return is_schedule_name(settings["deploy_configuration"])
