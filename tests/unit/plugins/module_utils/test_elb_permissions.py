"""The table of permissions says exactly what the providers call."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._capabilities import CAPABILITIES
from ansible_collections.bascule.deploy.plugins.module_utils._elb_permissions import (
    PERMISSIONS,
    permissions,
)

PROVIDERS = Path(__file__).resolve().parents[4] / "plugins/plugin_utils/_providers"
FILES = {"elbv2": ("_elbv2.py", "_elbv2_router.py"), "elb": ("_elb.py",)}
OPERATION = re.compile(
    r"\b((?:describe|register|deregister|modify|create|delete|get)_[a-z_]+)\b(?=[\",(]|\s*,|$)",
    re.M,
)
OURS = {"describe_groups", "describe_health"}


@pytest.mark.parametrize("provider", sorted(FILES))
def test_every_call_has_its_permission_and_every_permission_its_call(provider: str) -> None:
    text = "\n".join((PROVIDERS / name).read_text() for name in FILES[provider])
    called = {
        "".join(word.title() for word in name.split("_"))
        for name in OPERATION.findall(text)
        if name not in OURS
    }
    allowed = {one.action.partition(":")[2] for one in PERMISSIONS[provider]}
    # A rule that is created with tags needs AddTags, which is never called by itself.
    assert called == allowed - {"AddTags"}


@pytest.mark.parametrize("provider", sorted(PERMISSIONS))
def test_each_is_needed_for_something_that_the_provider_can(provider: str) -> None:
    assert {one.need for one in PERMISSIONS[provider]} <= CAPABILITIES[provider]


def test_only_what_is_needed_is_asked_for() -> None:
    looking = [one.action for one in permissions("elb", frozenset())]
    assert looking == ["elasticloadbalancing:DescribeInstanceHealth"]
    assert permissions("envoy", frozenset({"drain"})) == []
