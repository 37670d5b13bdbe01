from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._notifications import (
    EVENTS,
    Channel,
    Told,
    eventbridge_entry,
    parse_channels,
    sns_message,
    subject,
    triggers_of,
    webhook_body,
)

TOPIC = "arn:aws:sns:eu-central-1:123456789012:releases"
DEPLOYMENT = {
    "id": "d-ABCDEFGHI", "application": "shop", "group": "web", "group_id": "0-1",
    "strategy": "rolling", "digest": "4c1f0d2e9a7b5555", "created_at": 1446744188.595,
    "finished_at": 1446744190.5954, "error_code": None, "error_message": "", "rollback_of": None,
    "overview": {"Succeeded": 3, "Failed": 1}, "description": "",
}  # fmt: skip


def channel(**more: Any) -> Channel:
    return parse_channels([{"type": "sns", "topic": TOPIC, "events": list(EVENTS), **more}])[0]


def told(trigger: str, **more: Any) -> Told:
    about = {**DEPLOYMENT, **more.pop("deployment", {})}
    return Told(trigger=trigger, at=1446744207.5644, deployment=about, **more)


@pytest.mark.parametrize(
    ("event", "status", "rolls_back", "wanted"),
    [
        ("Created", "Created", False, ["DeploymentStart"]),
        ("Created", "Created", True, ["DeploymentRollback", "DeploymentStart"]),
        ("Finished", "Succeeded", False, ["DeploymentSuccess"]),
        ("Finished", "Failed", False, ["DeploymentFailure"]),
        ("Finished", "Stopped", False, ["DeploymentStop"]),
        ("Abandoned", "Stopped", False, ["DeploymentStop"]),
        ("ApprovalAsked", "Waiting", False, ["DeploymentReady"]),
        ("Admitted", "", False, ["InstanceStart"]),
        ("Settled", "Succeeded", False, ["InstanceSuccess"]),
        ("Settled", "Failed", False, ["InstanceFailure"]),
        ("Current", "Succeeded", False, ["InstanceSuccess"]),
        ("Published", "", False, ["InstanceReady"]),
        ("Staged", "", False, []),
        ("NotificationFailed", "Failed", False, []),
    ],
)
def test_what_an_event_of_the_record_is_called(
    event: str, status: str, rolls_back: bool, wanted: list[str]
) -> None:
    assert triggers_of(event, status, rolls_back=rolls_back) == wanted


def test_a_target_of_a_pool_that_gets_traffic_later_is_ready() -> None:
    for event in ("Settled", "Current"):
        assert triggers_of(event, "Succeeded", rolls_back=False, shifts=True) == [
            "InstanceSuccess", "InstanceReady",
        ]  # fmt: skip
    assert triggers_of("Settled", "Failed", rolls_back=False, shifts=True) == ["InstanceFailure"]


def test_every_event_can_come() -> None:
    seen = {
        trigger
        for event in (
            "Created", "Finished", "ApprovalAsked", "Admitted", "Settled",
        )
        for status in ("Succeeded", "Failed", "Stopped")
        for trigger in triggers_of(event, status, rolls_back=True, shifts=True)
    }  # fmt: skip
    assert seen == set(EVENTS)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"type": "fax"}, "known are sns, eventbridge, webhook, command"),
        ({"type": "sns"}, "needs topic"),
        ({"type": "webhook", "url": "file:///etc/passwd"}, "https://"),
        ({"type": "command"}, "needs command"),
        ({"type": "eventbridge", "source": "aws.codedeploy"}, "begins with aws."),
        ({"type": "eventbridge", "events": ["DeploymentEnd"]}, "'DeploymentEnd'"),
        ({"type": "eventbridge", "timeout": "1h"}, "1s to 60s"),
        ("sns", "must have keys"),
    ],
)
def test_what_is_refused(entry: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_channels([entry])


def test_two_channels_of_one_name_are_refused() -> None:
    one = {"type": "command", "command": ["/usr/bin/page", "a"]}
    with pytest.raises(UsageError, match="Give each a name"):
        parse_channels([one, one])


def test_a_label_shows_no_secret() -> None:
    [hook, program] = parse_channels(
        [
            {"type": "webhook", "url": "https://u:pw@hooks.slack.com/services/T0/B0/xyz?k=v"},
            {"type": "command", "command": ["/usr/bin/page", "--token", "abc"]},
        ]
    )
    assert hook.label == "webhook hooks.slack.com"
    assert program.label == "command page"
    assert "services/T0/B0/xyz" in hook.secrets
    assert "pw" in hook.secrets


def test_a_deployment_in_the_shape_of_codedeploy() -> None:
    failed = {"error_code": "HEALTH_CONSTRAINTS", "error_message": "too few"}
    seen = told("DeploymentFailure", status="Failed", deployment=failed)
    message = sns_message(seen, channel(name="pager"), region="eu-central-1", account="123")
    assert message == {
        "region": "eu-central-1",
        "accountId": "123",
        "eventTriggerName": "pager",
        "applicationName": "shop",
        "deploymentId": "d-ABCDEFGHI",
        "deploymentGroupName": "web",
        "createTime": "1446744188.595",
        "completeTime": "1446744190.595",
        "deploymentOverview": {
            "Failed": "1", "InProgress": "0", "Pending": "0", "Skipped": "0", "Succeeded": "3",
        },
        "status": "Failed",
        "errorInformation": {"ErrorCode": "HEALTH_CONSTRAINTS", "ErrorMessage": "too few"},
    }  # fmt: skip


def test_a_rollback_names_what_it_rolls_back() -> None:
    seen = told("DeploymentRollback", deployment={"rollback_of": "d-FAILED000"})
    message = sns_message(seen, channel(), region="r", account="1")
    about = json.loads(message["rollbackInformation"])
    assert about["RollbackTriggeringDeploymentId"] == "d-FAILED000"


@pytest.mark.parametrize(
    ("instance", "arn"),
    [
        ("i-0abc", "arn:aws:ec2:eu-central-1:123:instance/i-0abc"),
        ("mi-0abc", "arn:aws:codedeploy:eu-central-1:123:instance/mi-0abc"),
        ("", "arn:aws:codedeploy:eu-central-1:123:instance/web-1"),
    ],
)
def test_a_target_in_the_shape_of_codedeploy(instance: str, arn: str) -> None:
    event = {"event": "Install", "status": "Succeeded", "started": 1.0, "ended": None}
    seen = told(
        "InstanceSuccess", target="web-1", status="Succeeded", lifecycle=[event],
        instances={"web-1": instance},
    )  # fmt: skip
    assert sns_message(seen, channel(), region="eu-central-1", account="123") == {
        "region": "eu-central-1",
        "accountId": "123",
        "eventTriggerName": "bascule-1",
        "deploymentId": "d-ABCDEFGHI",
        "instanceId": arn,
        "lastUpdatedAt": "1446744207.564",
        "instanceStatus": "Succeeded",
        "lifecycleEvents": [
            {
                "LifecycleEvent": "Install", "LifecycleEventStatus": "Succeeded",
                "StartTime": "1.000", "EndTime": "",
            }
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("trigger", "kind", "state"),
    [
        ("DeploymentStart", "Deployment", "START"),
        ("DeploymentStop", "Deployment", "STOP"),
        ("DeploymentReady", "Deployment", "READY"),
        ("InstanceFailure", "Instance", "FAILURE"),
    ],
)
def test_an_event_of_the_bus(trigger: str, kind: str, state: str) -> None:
    on_bus = channel(type="eventbridge")
    entry = eventbridge_entry(
        told(trigger, target="web-1", instances={"web-1": "i-1"}), on_bus, region="r", account="1"
    )
    assert entry["DetailType"] == f"CodeDeploy {kind} State-change Notification"
    assert entry["Source"] == "bascule.deploy"
    detail = json.loads(entry["Detail"])
    assert detail["state"] == state
    assert ("instanceId" in detail) == (kind == "Instance")
    assert entry["Resources"][-2:] == [
        "arn:aws:codedeploy:r:1:deploymentgroup:shop/web",
        "arn:aws:codedeploy:r:1:application:shop",
    ]


# What CodeDeploy's messages have, by the kind of what they are about; a rollback's has one more.
OF_DEPLOYMENT = {
    "region", "accountId", "eventTriggerName", "applicationName", "deploymentId",
    "deploymentGroupName", "createTime", "completeTime", "deploymentOverview", "status",
    "errorInformation",
}  # fmt: skip
OF_INSTANCE = {
    "region", "accountId", "eventTriggerName", "deploymentId", "instanceId", "lastUpdatedAt",
    "instanceStatus", "lifecycleEvents",
}  # fmt: skip
STATES = {
    "Start": "START", "Success": "SUCCESS", "Failure": "FAILURE", "Stop": "STOP", "Ready": "READY",
    "Rollback": "START",
}  # fmt: skip


@pytest.mark.parametrize("trigger", EVENTS)
def test_each_of_the_ten_events_has_its_shape(trigger: str) -> None:
    about_instance = trigger.startswith("Instance")
    end = trigger.removeprefix("Instance" if about_instance else "Deployment")
    ended = end in ("Success", "Failure", "Stop")
    seen = told(
        trigger, status="x", target="web-1", instances={"web-1": "i-1"},
        deployment={
            "error_code": "E" if end == "Failure" else None,
            "finished_at": 2.0 if ended else None,
            "rollback_of": "d-FAILED000" if end == "Rollback" else None,
        },
    )  # fmt: skip
    message = sns_message(seen, channel(), region="r", account="1")
    more = {"rollbackInformation"} if end == "Rollback" else set()
    # CodeDeploy leaves out what there is not: an end, an error.
    optional = {"completeTime", "errorInformation"}
    wanted = OF_INSTANCE if about_instance else OF_DEPLOYMENT | more
    assert set(message) - optional == wanted - optional
    assert message["eventTriggerName"] == "bascule-1"
    assert all(isinstance(value, (str, dict, list)) for value in message.values())
    on_bus = channel(type="eventbridge")
    detail = json.loads(eventbridge_entry(seen, on_bus, region="r", account="1")["Detail"])
    own = {"instanceId"} if about_instance else set()
    assert set(detail) == own | {
        "region", "deploymentId", "instanceGroupId", "deploymentGroup", "application", "state",
    }  # fmt: skip
    assert detail["state"] == STATES[end]


def test_a_line_for_people() -> None:
    hook = parse_channels([{"type": "webhook", "url": "https://x/y"}])[0]
    assert webhook_body(told("DeploymentSuccess"), hook) == {
        "text": ":white_check_mark: shop/web: rolling d-ABCDEFGHI succeeded, revision 4c1f0d2e9a7b"
    }
    assert len(subject(told("DeploymentStart", deployment={"application": "ü" * 200}))) == 100
