"""Instances and Auto Scaling groups in moto."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from support.aws import Aws

ZONES = ("eu-central-1a", "eu-central-1b", "eu-central-1c")


def launch(aws: Aws, number: int = 1, zone: str = ZONES[0], **tags: str) -> list[str]:
    """Launch instances with these tags; return their ids."""
    ec2 = aws.client("ec2")
    answer = ec2.run_instances(
        ImageId=image(aws),
        MinCount=number,
        MaxCount=number,
        Placement={"AvailabilityZone": zone},
        TagSpecifications=[{"ResourceType": "instance", "Tags": pairs(tags)}],
    )
    return [one["InstanceId"] for one in answer["Instances"]]


def scaling_group(aws: Aws, name: str, size: int, **tags: str) -> list[str]:
    """Make an Auto Scaling group whose instances have these tags; return their ids."""
    ec2, scaling = aws.client("ec2"), aws.client("autoscaling")
    ec2.create_launch_template(
        LaunchTemplateName=name,
        LaunchTemplateData={"ImageId": image(aws), "InstanceType": "t3.micro"},
    )
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=name,
        MinSize=0,
        MaxSize=20,
        DesiredCapacity=size,
        AvailabilityZones=list(ZONES),
        LaunchTemplate={"LaunchTemplateName": name, "Version": "$Latest"},
        Tags=[{**pair, "PropagateAtLaunch": True} for pair in pairs(tags)],
    )
    return members(aws, name)


def members(aws: Aws, name: str) -> list[str]:
    """Return the ids of a group's instances."""
    [group] = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])[
        "AutoScalingGroups"
    ]
    return [one["InstanceId"] for one in group["Instances"]]


def image(aws: Aws) -> str:
    return str(aws.client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"])


def pairs(tags: dict[str, str]) -> list[dict[str, Any]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
