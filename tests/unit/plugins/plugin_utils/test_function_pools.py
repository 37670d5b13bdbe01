"""How traffic comes to the new version of functions, by strategy; and what an alias cannot do."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.plugin_utils._function_pools import plan_functions
from ansible_collections.bascule.deploy.plugins.plugin_utils._planning import Endpoint
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import RevisionRow

SETTINGS: dict[str, Any] = {
    "deploy_test_route": {},
    "deploy_sticky": {},
    "deploy_redeploy": False,
    "deploy_schedule": "",
    "deploy_configuration": "CodeDeployDefault.OneAtATime",
    "deploy_lambda_order": "together",
    "deploy_bake_time": 0,
    "deploy_ready_timeout": 0,
    "deploy_ready_on_timeout": "continue",
    "deploy_ab_test": {},
}
ENDPOINTS = [Endpoint(name, name, name, 0, "") for name in ("cart", "order")]
REVISION = RevisionRow(
    digest="0" * 64,
    appspec={
        "platform": "lambda",
        "functions": {
            "cart": {"hooks": {"BeforeAllowTraffic": "check"}},
            "order": {"hooks": {}},
        },
    },
)


def steps(strategy: str, **settings: Any) -> list[str]:
    found = plan_functions(strategy, {**SETTINGS, **settings}, ENDPOINTS, REVISION)
    return [step["text"] for step in found.schedule]


@pytest.mark.parametrize(
    ("strategy", "settings", "wanted"),
    [
        ("in_place", {"deploy_bake_time": "5m"}, ["shift 100% of the traffic to new"]),
        ("rollback", {"deploy_lambda_order": "in_order"}, ["shift 100% of the traffic to new"]),
        (
            "blue_green",
            {"deploy_bake_time": "5m"},
            ["shift 100% of the traffic to new", "bake for 5m"],
        ),
        (
            "canary",
            {},
            ["shift 10% of the traffic to new, 90% stays on old", "bake for 5m",
             "shift 100% of the traffic to new"],
        ),
        (
            "ab_test",
            {"deploy_ab_test": {"split": "30%", "duration": "2h"}},
            ["shift 30% of the traffic to new, 70% stays on old",
             "keep this split until a person decides for new, at most 2h",
             "shift 100% of the traffic to new"],
        ),
        (
            "blue_green",
            {"deploy_lambda_order": "in_order"},
            ["have check check cart (BeforeAllowTraffic)",
             "shift 50% of the traffic to new, 50% stays on old", "cart is done",
             "shift 100% of the traffic to new", "order is done"],
        ),
    ],
)  # fmt: skip
def test_the_steps_of_a_strategy(strategy: str, settings: Any, wanted: list[str]) -> None:
    assert steps(strategy, **settings) == wanted


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"deploy_sticky": {"cookie": "visitor"}},
            r"deploy_sticky is set.* \(sticky\).*Providers that can.*: elbv2, envoy, haproxy",
        ),
        (
            {"deploy_test_route": {"header": "X", "value": "y"}},
            r"deploy_test_route is set.* \(match\).*Providers that can.*: elbv2, envoy, haproxy",
        ),
    ],
)
def test_what_an_alias_cannot_do_is_refused_with_who_can(settings: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        steps("ab_test", **settings)


def test_a_strategy_of_hosts_is_refused() -> None:
    with pytest.raises(UsageError, match="for Lambda there are in_place, blue_green, canary, ab_"):
        steps("rolling")
