from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._tags import is_tagged, origin

TAGS = {"Role": "web", "Env": "prod", "Empty": "", "Count": 3}
WEB = {"Key": "Role", "Value": "web", "Type": "KEY_AND_VALUE"}
EDGE = {"Key": "Role", "Value": "edge", "Type": "KEY_AND_VALUE"}
PROD = {"Key": "Env", "Value": "prod", "Type": "KEY_AND_VALUE"}
TEST = {"Key": "Env", "Value": "test", "Type": "KEY_AND_VALUE"}


@pytest.mark.parametrize(
    ("wanted", "meets"),
    [
        ([], False),
        ([[]], False),
        ([WEB], True),
        (WEB, True),
        ([EDGE], False),
        ([{**WEB, "Value": "we"}], False),
        ([{**WEB, "Value": "web2"}], False),
        ([EDGE, WEB], True),
        ([[EDGE, WEB], [PROD]], True),
        ([[EDGE, WEB], [TEST]], False),
        ([[EDGE], [PROD]], False),
        ([[WEB], [PROD, TEST]], True),
        ([{"Key": "Role", "Type": "KEY_ONLY"}], True),
        ([{"Key": "role", "Type": "KEY_ONLY"}], False),
        ([{"Key": "Role", "Value": "ignored", "Type": "KEY_ONLY"}], True),
        ([{"Key": "Empty"}], True),
        ([{"Key": "Empty", "Value": ""}], True),
        ([{"Key": "Missing", "Value": ""}], False),
        ([{"Value": "prod", "Type": "VALUE_ONLY"}], True),
        ([{"Value": "Env", "Type": "VALUE_ONLY"}], False),
        ([{"Value": "web"}], True),
        ([{"key": "Count", "value": 3}], True),
    ],
)
def test_who_meets_the_filters(wanted: Any, meets: bool) -> None:
    assert is_tagged(TAGS, wanted) is meets


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("Role=web", "a list of filters"),
        (["Role=web"], "has Key, Value or both"),
        ([WEB, [PROD]], "beside each other"),
        ([{"Key": "Role", "Values": ["web"]}], "not values"),
        ([{"Key": "Role", "Type": "EQUALS"}], "not EQUALS"),
        ([{"Key": "Role", "Type": "KEY_AND_VALUE"}], "needs Value"),
        ([{"Key": "Role", "Type": "VALUE_ONLY"}], "needs Value"),
        ([{}], "needs Value"),
    ],
)
def test_what_is_no_filter(wanted: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        is_tagged(TAGS, wanted)


def test_where_a_target_comes_from() -> None:
    folder = "/srv/inventories/prod"
    assert origin(f"{folder}/aws_ec2.yml", folder, "i-1", {}) == "prod/aws_ec2.yml, EC2"
    tags = {"aws:autoscaling:groupName": "workers"}
    assert origin(f"{folder}/aws_ec2.yml", folder, "i-1", tags) == (
        "prod/aws_ec2.yml, Auto Scaling group workers"
    )
    assert origin(f"{folder}/hosts.yml", folder, "", None) == "prod/hosts.yml"
    assert origin(None, None, "", None) == ""
