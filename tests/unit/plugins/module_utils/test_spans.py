from __future__ import annotations

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._spans import (
    ASIDE,
    SPANS,
    is_final,
    later,
    needs_host,
)

WITH_LOAD_BALANCER = [
    "BeforeBlockTraffic",
    "AfterBlockTraffic",
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
    "BeforeAllowTraffic",
    "AfterAllowTraffic",
]


def test_the_spans_are_codedeploys_order() -> None:
    joined = [*SPANS["before_block"], *SPANS["install"], *SPANS["after_allow"]]
    assert joined == WITH_LOAD_BALANCER
    assert list(SPANS["all"]) == WITH_LOAD_BALANCER[2:9]


@pytest.mark.parametrize(
    ("span", "hooks", "previous", "host", "final"),
    [
        ("all", {}, {}, True, True),
        ("install", {}, {}, True, True),
        ("install", {"AfterAllowTraffic": [{}]}, {}, True, False),
        ("after_allow", {}, {}, False, True),
        ("after_allow", {"AfterAllowTraffic": [{}]}, {}, True, True),
        ("before_block", {"BeforeBlockTraffic": [{}]}, {}, False, False),
        ("before_block", {}, {"BeforeBlockTraffic": 1}, True, False),
        ("idle", {}, {}, True, True),
        ("idle", {"AfterAllowTestTraffic": [{}]}, {}, True, False),
        ("after_test", {"AfterAllowTestTraffic": [{}]}, {}, True, True),
        ("after_test", {"AfterAllowTraffic": [{}]}, {}, False, False),
        ("before_allow", {"BeforeAllowTraffic": [{}]}, {}, True, True),
        # What runs beside a deployment never ends it on the host.
        *((span, {}, {}, True, False) for span in ASIDE),
    ],
)
def test_a_host_is_asked_only_for_what_it_has_to_do(
    span: str, hooks: dict[str, object], previous: dict[str, object], host: bool, final: bool
) -> None:
    assert needs_host(span, hooks=hooks, previous_hooks=previous) is host
    assert is_final(span, hooks=hooks) is final


def test_what_comes_after_a_span() -> None:
    assert later("before_block") == WITH_LOAD_BALANCER[1:]
    assert later("install") == ["AfterAllowTraffic"]
    assert later("after_test") == ["BeforeAllowTraffic", "AfterAllowTraffic"]
    assert later("leaving") == later("returned") == []
    assert later("after_allow") == later("all") == []
