"""What AWS asks permission for: actions and resources of a call, and what a policy says to them.

Source of the table: the Service Authorization Reference, service by service, and for copies of Auto
Scaling groups "Amazon EC2 Auto Scaling API permissions". It has the calls that Bascule makes; any
other is asked for by a name that no policy has.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ACCOUNT = "123456789012"
EVERYTHING = "*"
Asked = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Call:
    """A call as it arrived; ``given`` are its parameters by their names in the API."""

    service: str
    operation: str
    region: str
    given: Mapping[str, Any]

    def arn(self, resource: str) -> str:
        return f"arn:aws:{self.service}:{self.region}:{ACCOUNT}:{resource}"


def asked(call: Call) -> list[Asked]:
    """Return what the caller of a call must be allowed: actions, each with its resource."""
    rule = RULES.get((call.service, call.operation))
    if rule is None:
        return [(f"{call.service}:{call.operation}", "unknown to the table of the tests")]
    return rule(call)


def allows(policy: Mapping[str, Any], action: str, resource: str) -> bool:
    """Say whether a policy allows an action on a resource (Allow statements alone).

    A condition on the service that a role is passed to is fulfilled: only EC2 gets one here.
    """
    for one in policy["Statement"]:
        conditions = one.get("Condition") or {}
        if conditions not in ({}, {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}):
            raise ValueError(f"a condition that nobody here understands: {conditions}")
        if any(matches(pattern, action) for pattern in listed(one["Action"])) and any(
            matches(pattern, resource) for pattern in listed(one["Resource"])
        ):
            return True
    return False


def listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def matches(pattern: str, text: str) -> bool:
    """Match as IAM does: ``*`` is any text, ``?`` any character, also a colon or a slash."""
    parts = (re.escape(part).replace(r"\?", ".") for part in pattern.split("*"))
    return re.fullmatch(".*".join(parts), text) is not None


# Rules


def everywhere(action: str) -> Callable[[Call], list[Asked]]:
    return lambda _call: [(action, EVERYTHING)]


def on(action: str, *names: str) -> Callable[[Call], list[Asked]]:
    """Ask for the ARN that a parameter names; the first of ``names`` that was given."""
    return lambda call: [(action, next(str(call.given[one]) for one in names if one in call.given))]


def nothing(_call: Call) -> list[Asked]:
    return []


def of_scaling_group(action: str) -> Callable[[Call], list[Asked]]:
    def rule(call: Call) -> list[Asked]:
        name = call.given["AutoScalingGroupName"]
        return [(action, call.arn(f"autoScalingGroup:0a1b:autoScalingGroupName/{name}"))]

    return rule


def create_scaling_group(call: Call) -> list[Asked]:
    [(action, group)] = of_scaling_group("autoscaling:CreateAutoScalingGroup")(call)
    wanted = [(action, group)]
    if any(name.startswith("Tags.") for name in call.given):
        wanted.append(("autoscaling:CreateOrUpdateTags", group))
    if any(name.startswith(("LaunchTemplate.", "MixedInstancesPolicy.")) for name in call.given):
        # The template of the tests has an instance profile and tags for what it launches.
        wanted += [
            ("ec2:RunInstances", f"arn:aws:ec2:{call.region}:{ACCOUNT}:instance/*"),
            ("ec2:CreateTags", f"arn:aws:ec2:{call.region}:{ACCOUNT}:instance/*"),
            ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/workers"),
        ]
    if call.given.get("ServiceLinkedRoleARN"):
        wanted.append(("iam:PassRole", call.given["ServiceLinkedRoleARN"]))
    return wanted


def classic_balancer(action: str) -> Callable[[Call], list[Asked]]:
    return lambda call: [(action, call.arn(f"loadbalancer/{call.given['LoadBalancerName']}"))]


def create_rule(call: Call) -> list[Asked]:
    listener = str(call.given["ListenerArn"])
    wanted = [("elasticloadbalancing:CreateRule", listener)]
    if any(name.startswith("Tags.") for name in call.given):
        rule = f"{listener.replace(':listener/', ':listener-rule/')}/0a1b2c3d"
        wanted.append(("elasticloadbalancing:AddTags", rule))
    return wanted


def of_function(action: str) -> Callable[[Call], list[Asked]]:
    """Ask for a function, or for its version or alias where one is named (``Qualifier``)."""

    def rule(call: Call) -> list[Asked]:
        name = str(call.given["FunctionName"])
        arn = name if name.startswith("arn:") else call.arn(f"function:{name}")
        qualifier = call.given.get("Qualifier")
        return [(action, f"{arn}:{qualifier}" if qualifier else arn)]

    return rule


def with_layers(call: Call) -> list[Asked]:
    wanted = of_function("lambda:UpdateFunctionConfiguration")(call)
    return wanted + [("lambda:GetLayerVersion", str(one)) for one in call.given.get("Layers") or ()]


def update_code(call: Call) -> list[Asked]:
    wanted = of_function("lambda:UpdateFunctionCode")(call)
    if call.given.get("S3Bucket"):
        version = call.given.get("S3ObjectVersion")
        action = "s3:GetObjectVersion" if version else "s3:GetObject"
        wanted.append((action, f"arn:aws:s3:::{call.given['S3Bucket']}/{call.given['S3Key']}"))
    image = str(call.given.get("ImageUri") or "")
    registry, _slash, name = image.partition("/")
    if ".dkr.ecr." in registry:
        account, _dkr, _ecr, region = registry.split(".")[:4]
        repository = re.split("[:@]", name)[0]
        where = f"arn:aws:ecr:{region}:{account}:repository/{repository}"
        wanted += [("ecr:BatchGetImage", where), ("ecr:GetDownloadUrlForLayer", where)]
    return wanted


def describe_images(call: Call) -> list[Asked]:
    account = call.given.get("registryId", ACCOUNT)
    name = call.given["repositoryName"]
    return [("ecr:DescribeImages", f"arn:aws:ecr:{call.region}:{account}:repository/{name}")]


def of_log_group(action: str, stream: bool) -> Callable[[Call], list[Asked]]:
    """Ask for a log group; what concerns its streams is asked for ``GROUP:log-stream:STREAM``."""

    def rule(call: Call) -> list[Asked]:
        group = call.arn(f"log-group:{call.given['logGroupName']}")
        named = call.given.get("logStreamName", "")
        return [(action, f"{group}:log-stream:{named}" if stream else group)]

    return rule


def put_events(call: Call) -> list[Asked]:
    buses = {str(one.get("EventBusName") or "default") for one in call.given["Entries"]}
    return [
        ("events:PutEvents", bus if bus.startswith("arn:") else call.arn(f"event-bus/{bus}"))
        for bus in sorted(buses)
    ]


def read_object(call: Call) -> list[Asked]:
    # With a version id it is another action.
    action = "s3:GetObjectVersion" if call.given.get("versionId") else "s3:GetObject"
    return [(action, f"arn:aws:s3:::{call.given['Bucket']}/{call.given['Key']}")]


def write_object(call: Call) -> list[Asked]:
    return [("s3:PutObject", f"arn:aws:s3:::{call.given['Bucket']}/{call.given['Key']}")]


def list_bucket(call: Call) -> list[Asked]:
    return [("s3:ListBucket", f"arn:aws:s3:::{call.given['Bucket']}")]


_BALANCING, _SCALING = "elasticloadbalancing", "autoscaling"
RULES: dict[tuple[str, str], Callable[[Call], list[Asked]]] = {
    ("sts", "GetCallerIdentity"): nothing,
    ("ec2", "DescribeInstances"): everywhere("ec2:DescribeInstances"),
    **{
        (_SCALING, name): everywhere(f"{_SCALING}:{name}")
        for name in ("DescribeAutoScalingGroups", "DescribeAutoScalingInstances")
    },
    **{
        (_SCALING, name): of_scaling_group(f"{_SCALING}:{name}")
        for name in (
            "AttachLoadBalancerTargetGroups", "CompleteLifecycleAction", "DeleteAutoScalingGroup",
            "RecordLifecycleActionHeartbeat", "ResumeProcesses", "SuspendProcesses",
        )
    },
    (_SCALING, "CreateAutoScalingGroup"): create_scaling_group,
    **{
        (_BALANCING, name): everywhere(f"{_BALANCING}:{name}")
        for name in (
            "DescribeInstanceHealth", "DescribeListeners", "DescribeRules", "DescribeTags",
            "DescribeTargetGroups", "DescribeTargetHealth",
        )
    },
    **{
        (_BALANCING, name): classic_balancer(f"{_BALANCING}:{name}")
        for name in (
            "DeregisterInstancesFromLoadBalancer", "RegisterInstancesWithLoadBalancer",
        )
    },
    **{
        (_BALANCING, name): on(f"{_BALANCING}:{name}", "TargetGroupArn")
        for name in ("DeregisterTargets", "RegisterTargets")
    },
    (_BALANCING, "ModifyListener"): on(f"{_BALANCING}:ModifyListener", "ListenerArn"),
    (_BALANCING, "ModifyRule"): on(f"{_BALANCING}:ModifyRule", "RuleArn"),
    (_BALANCING, "DeleteRule"): on(f"{_BALANCING}:DeleteRule", "RuleArn"),
    (_BALANCING, "CreateRule"): create_rule,
    **{
        ("lambda", name): of_function(f"lambda:{name}")
        for name in (
            "CreateAlias", "DeleteAlias", "DeleteFunction", "DeleteProvisionedConcurrencyConfig",
            "GetAlias", "GetFunctionConfiguration", "GetProvisionedConcurrencyConfig",
            "ListAliases", "ListVersionsByFunction", "PublishVersion",
            "PutProvisionedConcurrencyConfig", "UpdateAlias",
        )
    },
    ("lambda", "Invoke"): of_function("lambda:InvokeFunction"),
    ("lambda", "UpdateFunctionCode"): update_code,
    ("lambda", "UpdateFunctionConfiguration"): with_layers,
    ("lambda", "GetLayerVersionByArn"): lambda call: [
        ("lambda:GetLayerVersion", unquote(str(call.given["Arn"])))
    ],
    ("lambda", "ListFunctions"): everywhere("lambda:ListFunctions"),
    ("lambda", "ListTags"): on("lambda:ListTags", "Resource"),
    ("ecr", "DescribeImages"): describe_images,
    ("sns", "Publish"): on("sns:Publish", "TopicArn"),
    ("events", "PutEvents"): put_events,
    **{
        ("monitoring", name): everywhere(f"cloudwatch:{name}")
        for name in ("DescribeAlarms", "GetMetricData", "PutMetricData")
    },
    ("logs", "CreateLogGroup"): of_log_group("logs:CreateLogGroup", False),
    ("logs", "CreateLogStream"): of_log_group("logs:CreateLogStream", True),
    ("logs", "PutLogEvents"): of_log_group("logs:PutLogEvents", True),
    **{
        ("codedeploy", name): everywhere(f"codedeploy:{name}")
        for name in (
            "BatchGetOnPremisesInstances", "GetDeploymentConfig", "GetDeploymentGroup",
            "ListOnPremisesInstances",
        )
    },
    ("s3", "GetObject"): read_object,
    ("s3", "HeadObject"): read_object,
    ("s3", "PutObject"): write_object,
    ("s3", "ListObjectsV2"): list_bucket,
}  # fmt: skip
