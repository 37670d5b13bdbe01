# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment group's configuration needs of AWS: action by action, and on what.

The table is that of docs/aws.md. Which actions can be limited to resources is what the Service
Authorization Reference of each service says; the others need ``*``. What a group that is made from
a launch template needs beside is told by "Amazon EC2 Auto Scaling API permissions".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

EVERYTHING = "*"


@dataclasses.dataclass(frozen=True)
class Need:
    """Actions that a part of the configuration needs; ``limited`` if resources can be named."""

    flow: str
    why: str
    actions: tuple[str, ...]
    limited: bool


NEEDS: tuple[Need, ...] = (
    Need("inventory", "targets from EC2; whether an instance was terminated",
         ("ec2:DescribeInstances",), False),
    Need("s3", "deploying a revision from S3", ("s3:GetObject", "s3:GetObjectVersion"), True),
    Need("s3_list", "telling that an object is missing", ("s3:ListBucket",), True),
    Need("push", "`bascule push`", ("s3:GetObject", "s3:PutObject"), True),
    Need("codecommit", "a revision in CodeCommit", ("codecommit:GitPull",), True),
    Need("elbv2", "the traffic provider elbv2, looking",
         ("elasticloadbalancing:DescribeTargetGroups", "elasticloadbalancing:DescribeTargetHealth"),
         False),
    Need("elbv2_targets", "the traffic provider elbv2, drain and restore",
         ("elasticloadbalancing:DeregisterTargets", "elasticloadbalancing:RegisterTargets"), True),
    Need("elbv2_routing", "shares and rules of traffic at a listener, looking",
         ("cloudwatch:GetMetricData", "elasticloadbalancing:DescribeListeners",
          "elasticloadbalancing:DescribeRules", "elasticloadbalancing:DescribeTags"), False),
    Need("elbv2_listener", "shares of traffic at a listener",
         ("elasticloadbalancing:ModifyListener",), True),
    Need("elbv2_rule", "shares of traffic at a rule of a listener",
         ("elasticloadbalancing:ModifyRule",), True),
    Need("elbv2_rules", "rules of traffic by header and cookie, at the listener",
         ("elasticloadbalancing:AddTags", "elasticloadbalancing:CreateRule",
          "elasticloadbalancing:DeleteRule"), True),
    Need("elb", "the traffic provider elb, looking",
         ("elasticloadbalancing:DescribeInstanceHealth",), False),
    Need("elb_instances", "the traffic provider elb, drain and restore",
         ("elasticloadbalancing:DeregisterInstancesFromLoadBalancer",
          "elasticloadbalancing:RegisterInstancesWithLoadBalancer"), True),
    Need("lambda", "Lambda functions: versions and aliases",
         ("lambda:CreateAlias", "lambda:DeleteAlias", "lambda:DeleteFunction",
          "lambda:DeleteProvisionedConcurrencyConfig", "lambda:GetAlias",
          "lambda:GetFunctionConfiguration", "lambda:GetProvisionedConcurrencyConfig",
          "lambda:ListAliases", "lambda:ListVersionsByFunction", "lambda:PublishVersion",
          "lambda:PutProvisionedConcurrencyConfig", "lambda:UpdateAlias",
          "lambda:UpdateFunctionCode", "lambda:UpdateFunctionConfiguration"), True),
    Need("lambda_hooks", "functions that check a deployment", ("lambda:InvokeFunction",), True),
    Need("lambda_layers", "layers of functions", ("lambda:GetLayerVersion",), True),
    Need("lambda_images", "images of functions that are named by a tag",
         ("ecr:DescribeImages",), True),
    Need("lambda_image_code", "images of functions",
         ("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"), True),
    Need("lambda_metrics", "metrics of two versions of a function as gates",
         ("cloudwatch:GetMetricData",), False),
    Need("lambda_inventory", "functions from the inventory lambda_functions",
         ("lambda:ListFunctions", "lambda:ListTags"), False),
    Need("scaling", "Auto Scaling groups, looking",
         ("autoscaling:DescribeAutoScalingGroups",), False),
    Need("scaling_instances", "instances that wait at a hook",
         ("autoscaling:DescribeAutoScalingInstances",), False),
    Need("scaling_hold", "holding Auto Scaling groups still",
         ("autoscaling:ResumeProcesses", "autoscaling:SuspendProcesses"), True),
    Need("scaling_copy", "copying Auto Scaling groups for blue/green",
         ("autoscaling:AttachLoadBalancerTargetGroups", "autoscaling:CreateAutoScalingGroup",
          "autoscaling:CreateOrUpdateTags", "autoscaling:DeleteAutoScalingGroup"), True),
    Need("scaling_launch", "what a copied group launches by its template",
         ("ec2:CreateTags", "ec2:RunInstances"), False),
    Need("scaling_role", "the role of the instances that a copied group launches",
         ("iam:PassRole",), False),
    Need("scaling_hook", "lifecycle hooks: keeping instances waiting, and answering",
         ("autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat"),
         True),
    Need("sns", "notifications to SNS", ("sns:Publish",), True),
    Need("eventbridge", "notifications to EventBridge", ("events:PutEvents",), True),
    Need("alarms", "alarms, watched or as gates", ("cloudwatch:DescribeAlarms",), False),
    Need("gate_metrics", "metrics of CloudWatch as gates and for the judge",
         ("cloudwatch:GetMetricData",), False),
    Need("logs", "events in CloudWatch Logs",
         ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"), True),
    Need("metrics", "metrics of deployments", ("cloudwatch:PutMetricData",), False),
    Need("import", "`bascule import codedeploy`",
         ("codedeploy:BatchGetOnPremisesInstances", "codedeploy:GetDeploymentConfig",
          "codedeploy:GetDeploymentGroup", "codedeploy:ListOnPremisesInstances"), False),
)  # fmt: skip
_BY_FLOW = {need.flow: need for need in NEEDS}
# Which role it is the launch template alone says; what it can be passed to is limited instead.
_CONDITIONS = {
    "scaling_role": {"Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}}
}
_OF_INSTANCES = "i-"


def policy(
    settings: Mapping[str, Any],
    *,
    instances: Collection[str] = (),
    functions: Collection[str] = (),
    sources: Sequence[str] = (),
    push: str = "",
    log_group: str = "",
) -> dict[str, Any]:
    """Return the least-privilege policy that a group's configuration needs, as IAM takes it.

    :param settings: the public variables of the group
    :param instances: ids of its targets at EC2
    :param functions: names or ARNs of its targets, where they are Lambda functions
    :param sources: revisions that are deployed, beside that of the settings
    :param push: where ``bascule push`` puts revisions, ``s3://BUCKET/FOLDER/``
    :param log_group: the log group of the callback ``cloudwatch``, empty if it is not used
    """
    wanted: dict[str, set[str]] = {}

    def need(flow: str, *resources: str) -> None:
        wanted.setdefault(flow, set()).update(resources or (EVERYTHING,))

    if any(one.startswith(_OF_INSTANCES) for one in instances):
        need("inventory")
    for source in (str(settings.get("deploy_revision") or ""), *sources):
        _source(source, need)
    if push:
        need("push", _objects(push))
        need("s3_list", _bucket(push))
    _traffic(settings, need)
    if functions:
        _functions(settings, functions, need)
    _scaling(settings, need)
    _notifications(settings, need)
    asked = _types([settings.get(name) for name in _ASKING])
    if settings.get("deploy_alarms") or "cloudwatch_alarm" in asked:
        need("alarms")
    if "cloudwatch" in asked:
        need("gate_metrics")
    if log_group:
        need("logs", f"arn:aws:logs:*:*:log-group:{log_group}:*", _log_group(log_group))
        need("metrics")
    statements = [
        {
            "Sid": "".join(part.capitalize() for part in flow.split("_")),
            "Effect": "Allow",
            "Action": list(_BY_FLOW[flow].actions),
            "Resource": sorted(resources) if _BY_FLOW[flow].limited else EVERYTHING,
            **_CONDITIONS.get(flow, {}),
        }
        for flow, resources in wanted.items()
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def _source(source: str, need: Any) -> None:
    parts = urlsplit(source)
    if parts.scheme == "s3":
        need("s3", f"arn:aws:s3:::{parts.netloc}{parts.path}")
        need("s3_list", _bucket(source))
    elif parts.scheme == "codecommit":
        name = source.partition("://")[2].rpartition("@")[0]
        region, _slash, repository = name.rpartition("/")
        need("codecommit", f"arn:aws:codecommit:{region or '*'}:*:{repository}")
    elif parts.scheme == "git+https" and (parts.hostname or "").startswith("git-codecommit"):
        region, repository = parts.netloc.split(".")[1], parts.path.rpartition("/")[2]
        need("codecommit", f"arn:aws:codecommit:{region}:*:{repository}")


def _traffic(settings: Mapping[str, Any], need: Any) -> None:
    provider = settings.get("deploy_traffic_provider")
    if provider == "elbv2":
        names = [str(one) for one in settings.get("deploy_elbv2_target_groups") or ()]
        pools = settings.get("deploy_traffic_pools") or {}
        names += [str(one["target_group"]) for one in pools.values() if one.get("target_group")]
        need("elbv2")
        need("elbv2_targets", *(_target_group(one) for one in names))
        listener = str(settings.get("deploy_elbv2_listener") or "")
        if listener:
            _listener(listener, need)
        test = str((settings.get("deploy_test_route") or {}).get("listener") or "")
        if test:
            need("elbv2_listener", test)
    elif provider == "elb":
        need("elb")
        names = [str(one) for one in settings.get("deploy_elb_names") or ()]
        need(
            "elb_instances",
            *(f"arn:aws:elasticloadbalancing:*:*:loadbalancer/{one}" for one in names),
        )


def _listener(arn: str, need: Any) -> None:
    """Allow to share at a listener or at one of its rules.

    Rules for headers and cookies are made at the listener in both cases: CreateRule is asked for
    the listener, AddTags and DeleteRule for the rule that is made.
    """
    need("elbv2_routing")
    at_rule = ":listener-rule/" in arn
    need("elbv2_rule" if at_rule else "elbv2_listener", arn)
    listener = arn
    if at_rule:
        listener = arn.replace(":listener-rule/", ":listener/").rpartition("/")[0]
    need("elbv2_rules", listener, f"{listener.replace(':listener/', ':listener-rule/')}/*")


def _functions(settings: Mapping[str, Any], functions: Collection[str], need: Any) -> None:
    arns = [_function(one) for one in functions]
    # A version or an alias of a function is a resource of its own.
    need("lambda", *arns, *(f"{one}:*" for one in arns))
    hooks = (settings.get("deploy_lambda_hooks") or {}).values()
    if hooks:
        need("lambda_hooks", *(_function(str(one)) for one in hooks))
    layers = (settings.get("deploy_lambda_configuration") or {}).get("layers")
    if layers:
        need("lambda_layers", *map(str, layers))
    for image in (settings.get("deploy_revision"), settings.get("deploy_lambda_image")):
        registry, _slash, name = str(image or "").partition("/")
        if ".dkr.ecr." in registry:
            account, region = registry.split(".")[0], registry.split(".")[3]
            repository = name.partition("@")[0].partition(":")[0]
            arn = f"arn:aws:ecr:{region}:{account}:repository/{repository}"
            need("lambda_image_code", arn)
            if "@" not in name:
                need("lambda_images", arn)
    test = settings.get("deploy_ab_test") or {}
    always = settings.get("deploy_gates"), settings.get("deploy_judge"), test.get("goal")
    if any(always) or "proxy" in _types([settings.get("deploy_schedule")]):
        need("lambda_metrics")
    if any(one.startswith("arn:") for one in functions):
        need("lambda_inventory")


def _function(name: str) -> str:
    return name if name.startswith("arn:") else f"arn:aws:lambda:*:*:function:{name}"


def _target_group(name: str) -> str:
    if name.startswith("arn:"):
        return name
    return f"arn:aws:elasticloadbalancing:*:*:targetgroup/{name}/*"


def _scaling(settings: Mapping[str, Any], need: Any) -> None:
    names = [str(one) for one in settings.get("deploy_auto_scaling_groups") or ()]
    hook = any(settings.get(f"deploy_auto_scaling_{name}") for name in ("hook", "termination_hook"))
    copied = str(settings.get("deploy_green_fleet_group") or "")
    if copied and settings.get("deploy_green_fleet") == "copy_auto_scaling_group":
        # Copies have names that begin with that of the group.
        groups = "arn:aws:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/"
        need("scaling")
        need("scaling_copy", f"{groups}{copied}", f"{groups}{copied}-*")
        if settings.get("deploy_auto_scaling_suspend"):
            need("scaling_hold", f"{groups}{copied}", f"{groups}{copied}-*")
        need("scaling_launch")
        need("scaling_role")
    if not names and not hook:
        return
    resources = [
        f"arn:aws:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/{one}"
        for one in names or ["*"]
    ]
    if names and (settings.get("deploy_auto_scaling_suspend") or hook):
        need("scaling")
    if names and settings.get("deploy_auto_scaling_suspend"):
        need("scaling_hold", *resources)
    if hook:
        need("scaling_instances")
        need("scaling_hook", *resources)


def _notifications(settings: Mapping[str, Any], need: Any) -> None:
    for channel in settings.get("deploy_notifications") or ():
        if channel.get("type") == "sns":
            need("sns", str(channel["topic"]))
        elif channel.get("type") == "eventbridge":
            bus = str(channel.get("bus") or "default")
            arn = bus if bus.startswith("arn:") else f"arn:aws:events:*:*:event-bus/{bus}"
            need("eventbridge", arn)


# The variables in which gates and metrics are.
_ASKING = ("deploy_gates", "deploy_judge", "deploy_ab_test", "deploy_schedule")


def _types(given: Any) -> set[str]:
    """Return the types of gates and sources of metrics, however deep in a setting they are."""
    if isinstance(given, Mapping):
        own = {given[key] for key in ("type", "source") if isinstance(given.get(key), str)}
        return own.union(*(_types(value) for value in given.values()))
    if isinstance(given, list):
        return set().union(*(_types(one) for one in given))
    return set()


def _objects(place: str) -> str:
    parts = urlsplit(place)
    folder = parts.path if parts.path.endswith("/") or not parts.path else f"{parts.path}"
    every = f"{folder}*" if folder.endswith("/") else folder or "/*"
    return f"arn:aws:s3:::{parts.netloc}{every}"


def _bucket(place: str) -> str:
    return f"arn:aws:s3:::{urlsplit(place).netloc}"


def _log_group(name: str) -> str:
    return f"arn:aws:logs:*:*:log-group:{name}"


def table() -> list[str]:
    """Return the table of docs/aws.md, line by line."""
    lines = ["| for | actions | on |", "|---|---|---|"]
    for need in NEEDS:
        actions = ", ".join(f"`{action}`" for action in need.actions)
        lines.append(f"| {need.why} | {actions} | {'its resources' if need.limited else '`*`'} |")
    return lines
