from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import boto3
import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._permissions import (
    NEEDS,
    policy,
    table,
)

ROOT = Path(__file__).resolve().parents[4]
TOPIC = "arn:aws:sns:eu-central-1:1:t"
LISTENER = "arn:aws:elasticloadbalancing:r:1:listener/app/x/1/2"
RULE = "arn:aws:elasticloadbalancing:r:1:listener-rule/app/x/1/2/3"
RULES = "arn:aws:elasticloadbalancing:r:1:listener-rule/app/x/1/2/*"


def statements(**more: Any) -> dict[str, Any]:
    """By name, what is allowed on what."""
    given = {name: more.pop(name) for name in ("instances", "push", "log_group") if name in more}
    made = policy(more, **given)
    assert made["Version"] == "2012-10-17"
    return {one["Sid"]: one["Resource"] for one in made["Statement"]}


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, {}),
        ({"deploy_revision": "./dist"}, {}),
        ({"instances": ["i-1", ""]}, {"Inventory": "*"}),
        ({"instances": ["mi-1", ""]}, {}),
        (
            {"deploy_revision": "s3://b/shop/4c1f.tgz?versionId=x"},
            {"S3": ["arn:aws:s3:::b/shop/4c1f.tgz"], "S3List": ["arn:aws:s3:::b"]},
        ),
        (
            {"push": "s3://b/shop/"},
            {"Push": ["arn:aws:s3:::b/shop/*"], "S3List": ["arn:aws:s3:::b"]},
        ),
        ({"push": "s3://b"}, {"Push": ["arn:aws:s3:::b/*"], "S3List": ["arn:aws:s3:::b"]}),
        (
            {"deploy_revision": "codecommit://us-east-1/shop@main"},
            {"Codecommit": ["arn:aws:codecommit:us-east-1:*:shop"]},
        ),
        (
            {"deploy_traffic_provider": "elbv2", "deploy_elbv2_target_groups": ["web"]},
            {
                "Elbv2": "*",
                "Elbv2Targets": ["arn:aws:elasticloadbalancing:*:*:targetgroup/web/*"],
            },
        ),
        (
            {
                "deploy_traffic_provider": "elbv2", "deploy_elbv2_listener": LISTENER,
                "deploy_traffic_pools": {"blue": {"target_group": "arn:aws:x:r:1:targetgroup/b/1"}},
            },
            {
                "Elbv2": "*", "Elbv2Targets": ["arn:aws:x:r:1:targetgroup/b/1"],
                "Elbv2Routing": "*", "Elbv2Listener": [LISTENER], "Elbv2Rules": [RULES, LISTENER],
            },
        ),
        (
            {
                "deploy_traffic_provider": "elbv2", "deploy_elbv2_listener": RULE,
                "deploy_test_route": {"listener": LISTENER},
                "deploy_traffic_pools": {"blue": {"target_group": "arn:aws:x:r:1:targetgroup/b/1"}},
            },
            {
                "Elbv2": "*", "Elbv2Targets": ["arn:aws:x:r:1:targetgroup/b/1"],
                "Elbv2Routing": "*", "Elbv2Rule": [RULE], "Elbv2Rules": [RULES, LISTENER],
                "Elbv2Listener": [LISTENER],
            },
        ),
        (
            {"deploy_traffic_provider": "elb", "deploy_elb_names": ["old"]},
            {"Elb": "*", "ElbInstances": ["arn:aws:elasticloadbalancing:*:*:loadbalancer/old"]},
        ),
        (
            {"deploy_auto_scaling_groups": ["w"], "deploy_auto_scaling_suspend": ["Launch"]},
            {
                "Scaling": "*",
                "ScalingHold": [
                    "arn:aws:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/w",
                ],
            },
        ),
        (
            {"deploy_notifications": [
                {"type": "sns", "topic": TOPIC}, {"type": "webhook", "url": "https://x"},
                {"type": "eventbridge", "bus": None},
            ]},
            {"Sns": [TOPIC], "Eventbridge": ["arn:aws:events:*:*:event-bus/default"]},
        ),
        ({"deploy_alarms": ["cpu"]}, {"Alarms": "*"}),
        ({"deploy_gates": [{"name": "a", "type": "cloudwatch_alarm"}]}, {"Alarms": "*"}),
        ({"deploy_gates": [{"name": "cloudwatch", "type": "http"}]}, {}),
        ({"deploy_gates": {"before": [{"type": "cloudwatch"}]}}, {"GateMetrics": "*"}),
        ({"deploy_judge": {"metrics": [{"source": {"type": "cloudwatch"}}]}}, {"GateMetrics": "*"}),
        (
            {"deploy_auto_scaling_hook": "bascule", "deploy_auto_scaling_groups": ["w"]},
            {
                "Scaling": "*",
                "ScalingInstances": "*",
                "ScalingHook": [
                    "arn:aws:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/w",
                ],
            },
        ),
        (
            {"deploy_auto_scaling_termination_hook": "bye", "deploy_auto_scaling_groups": ["w"]},
            {
                "Scaling": "*",
                "ScalingInstances": "*",
                "ScalingHook": [
                    "arn:aws:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/w",
                ],
            },
        ),
        (
            {"log_group": "/bascule"},
            {
                "Logs": [
                    "arn:aws:logs:*:*:log-group:/bascule", "arn:aws:logs:*:*:log-group:/bascule:*",
                ],
                "Metrics": "*",
            },
        ),
    ],
)  # fmt: skip
def test_what_a_configuration_needs(settings: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert statements(**settings) == wanted


def test_the_table_in_the_documentation_is_this_one() -> None:
    said = (ROOT / "docs" / "aws.md").read_text(encoding="utf-8")
    wanted = "\n".join(table())
    assert wanted in said, f"docs/aws.md wants this table:\n{wanted}"


@functools.cache
def operations(prefix: str) -> set[str]:
    """The operations of the services that have this prefix in policies."""
    services = {
        "elasticloadbalancing": ("elb", "elbv2"), "s3": ("s3",), "cloudwatch": ("cloudwatch",),
    }.get(prefix, (prefix,))  # fmt: skip
    found: set[str] = set()
    for service in services:
        model: Any = boto3.client(service, region_name="eu-central-1").meta.service_model
        found |= set(model.operation_names)
    return found


# Permissions that are no operations by name (Service Authorization Reference).
BY_ANOTHER_NAME = {
    "s3:GetObjectVersion",
    "s3:ListBucket",
    "codecommit:GitPull",
    "lambda:InvokeFunction",
    "iam:PassRole",
}


@pytest.mark.parametrize(
    "action", sorted({action for need in NEEDS for action in need.actions} - BY_ANOTHER_NAME)
)
def test_every_action_is_an_operation_of_its_service(action: str) -> None:
    assert re.match(r"[a-z0-9]+:[A-Z][A-Za-z]+\Z", action)
    prefix, _colon, name = action.partition(":")
    assert name in operations(prefix)


def test_functions_need_their_versions_and_aliases_and_what_is_asked() -> None:
    settings = {
        "deploy_revision": "111122223333.dkr.ecr.eu-central-1.amazonaws.com/shop/cart:2",
        "deploy_lambda_hooks": {"BeforeAllowTraffic": "check"},
        "deploy_lambda_configuration": {"layers": ["arn:aws:lambda:eu-central-1:1:layer:a:1"]},
    }
    said = policy(settings, functions=["cart"])
    found = {one["Sid"]: one["Resource"] for one in said["Statement"]}
    assert found == {
        "Lambda": [
            "arn:aws:lambda:*:*:function:cart",
            "arn:aws:lambda:*:*:function:cart:*",
        ],
        "LambdaHooks": ["arn:aws:lambda:*:*:function:check"],
        "LambdaLayers": ["arn:aws:lambda:eu-central-1:1:layer:a:1"],
        "LambdaImages": ["arn:aws:ecr:eu-central-1:111122223333:repository/shop/cart"],
        "LambdaImageCode": ["arn:aws:ecr:eu-central-1:111122223333:repository/shop/cart"],
    }
    more = policy(
        {"deploy_gates": [{"type": "proxy"}]}, functions=["arn:aws:lambda:x:1:function:a"]
    )
    assert {"LambdaMetrics", "LambdaInventory"} <= {one["Sid"] for one in more["Statement"]}


@pytest.mark.parametrize(
    ("settings", "flow"),
    [
        ({"deploy_ab_test": {"goal": {"name": "errors", "kind": "rate"}}}, "LambdaMetrics"),
        ({"deploy_schedule": [{"gate": {"type": "proxy"}}, {"shift": "5%"}]}, "LambdaMetrics"),
        ({"deploy_ab_test": {"goal": {"source": "cloudwatch"}}}, "GateMetrics"),
        ({"deploy_judge": {"metrics": [{"source": "cloudwatch"}]}}, "GateMetrics"),
        ({"deploy_schedule": [{"gate": {"type": "cloudwatch"}}]}, "GateMetrics"),
    ],
)
def test_what_is_asked_of_cloudwatch_is_allowed(settings: dict[str, Any], flow: str) -> None:
    assert flow not in {one["Sid"] for one in policy({}, functions=["cart"])["Statement"]}
    assert flow in {one["Sid"] for one in policy(settings, functions=["cart"])["Statement"]}


# Whatever the providers of load balancers call by name; what is our own function is none.
CALL = re.compile(r"\b((?:describe|register|deregister|modify|create|delete|get)_[a-z_]+)\b")
OURS = {"describe_groups", "describe_health"}


@pytest.mark.parametrize(
    ("files", "flows"),
    [
        (
            ("_elbv2.py", "_elbv2_router.py"),
            {
                "elbv2", "elbv2_targets", "elbv2_routing", "elbv2_listener", "elbv2_rule",
                "elbv2_rules",
            },
        ),
        (("_elb.py",), {"elb", "elb_instances"}),
    ],
)  # fmt: skip
def test_what_the_load_balancers_providers_call_is_what_they_may(
    files: tuple[str, ...], flows: set[str]
) -> None:
    folder = ROOT / "plugins" / "plugin_utils" / "_providers"
    text = "\n".join((folder / name).read_text(encoding="utf-8") for name in files)
    called = {
        "".join(word.title() for word in name.split("_"))
        for name in CALL.findall(text)
        if name not in OURS
    }
    allowed = {a.partition(":")[2] for need in NEEDS if need.flow in flows for a in need.actions}
    # A rule that is made with a tag needs AddTags, which is never called by itself.
    assert called == allowed - {"AddTags"}
