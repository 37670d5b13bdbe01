# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told to whom about a deployment: CodeDeploy's trigger events and their payloads.

The shapes are those of "JSON data formats for CodeDeploy triggers" and of CodeDeploy's EventBridge
events in its user guide, so that what reads them reads ours. Times are texts of epoch seconds.
"""

from __future__ import annotations

import dataclasses
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from ._errors import UsageError

DEPLOYMENT_EVENTS = (
    "DeploymentStart", "DeploymentSuccess", "DeploymentFailure", "DeploymentStop",
    "DeploymentRollback", "DeploymentReady",
)  # fmt: skip
INSTANCE_EVENTS = ("InstanceStart", "InstanceSuccess", "InstanceFailure", "InstanceReady")
EVENTS = (*DEPLOYMENT_EVENTS, *INSTANCE_EVENTS)
KINDS = ("sns", "eventbridge", "webhook", "command")
# EventBridge takes no event whose source begins with aws. from anybody but AWS.
SOURCE = "bascule.deploy"
TIMEOUT_SECONDS = 5.0
LONGEST_TIMEOUT = 60.0

_ENDED = {
    "Succeeded": "DeploymentSuccess",
    "Failed": "DeploymentFailure",
    "Stopped": "DeploymentStop",
}
_SETTLED = {"Succeeded": "InstanceSuccess", "Failed": "InstanceFailure"}
_NEEDED = {"sns": "topic", "webhook": "url", "command": "command"}
_STATE = {
    "Start": "START", "Success": "SUCCESS", "Failure": "FAILURE", "Stop": "STOP",
    "Rollback": "START", "Ready": "READY",
}  # fmt: skip
_MARKS = {
    "Start": ":arrow_forward:", "Success": ":white_check_mark:", "Failure": ":x:",
    "Stop": ":octagonal_sign:", "Rollback": ":leftwards_arrow_with_hook:",
    "Ready": ":raised_hand:",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Channel:
    """Somebody who is told: ``label`` is how the record names it, without a secret."""

    label: str
    name: str
    kind: str
    events: frozenset[str]
    address: str
    source: str = SOURCE
    format: str = "slack"
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    command: tuple[str, ...] = ()
    timeout: float = TIMEOUT_SECONDS

    @property
    def secrets(self) -> list[str]:
        """Texts that no message may show."""
        if self.kind != "webhook":
            return []
        parts = urllib.parse.urlsplit(self.address)
        behind = [parts.path.strip("/"), parts.query, parts.password or ""]
        return [text for text in (self.address, *behind, *self.headers.values()) if text]

    @property
    def account(self) -> str:
        """The account and the region in an ARN: ``region:account``; empty if it is none."""
        parts = self.address.split(":")
        return f"{parts[3]}:{parts[4]}" if len(parts) > 5 and parts[0] == "arn" else ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """What is known of a deployment when something is told about it.

    ``target`` is the target that is meant, ``lifecycle`` its events as the record has them,
    ``instances`` the names of targets at AWS (``i-…``, ``mi-…``).
    """

    trigger: str
    at: float
    deployment: Mapping[str, Any]
    target: str = ""
    status: str = ""
    message: str = ""
    lifecycle: Sequence[Mapping[str, Any]] = ()
    instances: Mapping[str, str] = dataclasses.field(default_factory=dict)


def parse_channels(value: Any) -> list[Channel]:
    """Read ``deploy_notifications``.

    :raises UsageError: an entry cannot be what it says
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UsageError(f"deploy_notifications must be a list, it is {type(value).__name__}.")
    channels = [_channel(entry, place) for place, entry in enumerate(value, 1)]
    labels = [one.label for one in channels]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(
                f"Two entries of deploy_notifications are called {label}. Give each a name."
            )
    return channels


def _channel(entry: Any, place: int) -> Channel:
    where = f"Entry {place} of deploy_notifications"
    if not isinstance(entry, Mapping):
        raise UsageError(f"{where} must have keys such as type and events.")
    kind = str(entry.get("type") or "")
    if kind not in KINDS:
        raise UsageError(f"{where} has the type {kind!r}; known are {', '.join(KINDS)}.")
    events = frozenset(str(one) for one in entry.get("events") or DEPLOYMENT_EVENTS)
    unknown = sorted(events - set(EVENTS))
    if unknown:
        raise UsageError(f"{where} names {unknown[0]!r}; events are {', '.join(EVENTS)}.")
    needed = _NEEDED.get(kind)
    if needed and not entry.get(needed):
        raise UsageError(f"{where} is of the type {kind} and needs {needed}.")
    command = tuple(str(part) for part in entry.get("command") or ())
    addresses = {"sns": entry.get("topic"), "webhook": entry.get("url")}
    address = str(addresses.get(kind) or "")
    if kind == "eventbridge":
        address = str(entry.get("bus") or "default")
    if kind == "webhook" and urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        raise UsageError(f"{where} needs a url that begins with https:// or http://.")
    source = str(entry.get("source") or SOURCE)
    if source.startswith("aws."):
        raise UsageError(f"{where}: EventBridge takes no source that begins with aws.")
    name = str(entry.get("name") or "")
    return Channel(
        label=name or f"{kind} {_shown(kind, address, command)}",
        name=name or f"bascule-{place}",
        kind=kind,
        events=events,
        address=address,
        source=source,
        format=str(entry.get("format") or "slack"),
        headers={str(key): str(text) for key, text in (entry.get("headers") or {}).items()},
        command=command,
        timeout=_timeout(entry.get("timeout"), where),
    )


def _timeout(value: Any, where: str) -> float:
    if value in (None, ""):
        return TIMEOUT_SECONDS
    try:
        seconds = float(str(value).removesuffix("s"))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise UsageError(f"{where} has the timeout {value!r}; 1s to {LONGEST_TIMEOUT:.0f}s can be.")
    return seconds


def _shown(kind: str, address: str, command: Sequence[str]) -> str:
    if kind == "webhook":
        return urllib.parse.urlsplit(address).hostname or "?"
    return command[0].rpartition("/")[2] if kind == "command" else address.rpartition(":")[2]


def triggers_of(event: str, status: str, *, rolls_back: bool, shifts: bool = False) -> list[str]:
    """Return the trigger events that an event of the record stands for.

    :param event: name of an event of the kind ``record``, such as ``Settled``
    :param rolls_back: whether the deployment is the rollback of another
    :param shifts: whether it makes a pool ready to which traffic is moved afterwards
    """
    if event == "Created":
        return ["DeploymentRollback", "DeploymentStart"] if rolls_back else ["DeploymentStart"]
    if event in ("Finished", "Abandoned"):
        return [_ENDED[status]] if status in _ENDED else []
    if event == "Settled":
        ready = ["InstanceReady"] if shifts and status == "Succeeded" else []
        return [_SETTLED[status], *ready] if status in _SETTLED else []
    return {
        "ApprovalAsked": ["DeploymentReady"],
        "Admitted": ["InstanceStart"],
        "Current": ["InstanceSuccess", *(["InstanceReady"] if shifts else [])],
        "Lost": ["InstanceFailure"],
        # A function's new version: users come to it by the schedule that follows.
        "Published": ["InstanceReady"],
    }.get(event, [])


def stamp(at: float | None) -> str:
    """Return a time as CodeDeploy's messages have it; empty for none."""
    return "" if at is None else f"{at:.3f}"


def instance_arn(told: Told, region: str, account: str) -> str:
    """Return the ARN of a target: an EC2 instance's, or that of an on-premises instance."""
    name = told.instances.get(told.target) or ""
    if name.startswith("i-"):
        return f"arn:aws:ec2:{region}:{account}:instance/{name}"
    return f"arn:aws:codedeploy:{region}:{account}:instance/{name or told.target}"


def sns_message(told: Told, channel: Channel, *, region: str, account: str) -> dict[str, Any]:
    """Return the message of a trigger, in the shape of CodeDeploy's."""
    about = told.deployment
    message: dict[str, Any] = {
        "region": region,
        "accountId": account,
        "eventTriggerName": channel.name,
        "deploymentId": about["id"],
    }
    if told.trigger in INSTANCE_EVENTS:
        message |= {
            "instanceId": instance_arn(told, region, account),
            "lastUpdatedAt": stamp(told.at),
            "instanceStatus": told.status,
            "lifecycleEvents": [
                {
                    "LifecycleEvent": one["event"],
                    "LifecycleEventStatus": one["status"],
                    "StartTime": stamp(one["started"]),
                    "EndTime": stamp(one["ended"]),
                }
                for one in told.lifecycle
            ],
        }
        return message
    counts = about.get("overview") or {}
    message |= {
        "applicationName": about["application"],
        "deploymentGroupName": about["group"],
        "createTime": stamp(about["created_at"]),
        "completeTime": stamp(about["finished_at"]),
        "deploymentOverview": {
            name: str(counts.get(name, 0))
            for name in ("Failed", "InProgress", "Pending", "Skipped", "Succeeded")
        },
        "status": told.status,
    }
    if about.get("error_code"):
        message["errorInformation"] = {
            "ErrorCode": about["error_code"],
            "ErrorMessage": about.get("error_message") or "",
        }
    if about.get("rollback_of"):
        message["rollbackInformation"] = json.dumps(
            {
                "RollbackDeploymentId": about["id"],
                "RollbackTriggeringDeploymentId": about["rollback_of"],
                "RollbackMessage": about.get("description") or "",
            }
        )
    return message


def eventbridge_entry(told: Told, channel: Channel, *, region: str, account: str) -> dict[str, Any]:
    """Return an entry of PutEvents, in the shape of CodeDeploy's events."""
    about = told.deployment
    application, group = about["application"], about["group"]
    ours = f"arn:aws:codedeploy:{region}:{account}"
    resources = [
        f"{ours}:deploymentgroup:{application}/{group}",
        f"{ours}:application:{application}",
    ]
    detail = {
        "region": region,
        "deploymentId": about["id"],
        "instanceGroupId": about["group_id"],
        "deploymentGroup": group,
        "application": application,
        "state": state_of(told.trigger),
    }
    of_instance = told.trigger in INSTANCE_EVENTS
    if of_instance:
        arn = instance_arn(told, region, account)
        resources.insert(0, arn)
        detail["instanceId"] = arn.rpartition("/")[2]
    kind = "Instance" if of_instance else "Deployment"
    return {
        "Time": told.at,
        "Source": channel.source,
        "Resources": resources,
        "DetailType": f"CodeDeploy {kind} State-change Notification",
        "Detail": json.dumps(detail),
        "EventBusName": channel.address,
    }


def state_of(trigger: str) -> str:
    """Return the state that an event on a bus tells of."""
    return _STATE[_moment(trigger)]


def sentence(told: Told) -> str:
    """Return one line for a person."""
    about = told.deployment
    what = f"{about['application']}/{about['group']}: {about['strategy']} {about['id']}"
    revision = str(about.get("digest") or "")[:12]
    where = f" on {told.target}" if told.target else ""
    words = {
        "DeploymentStart": f"began, revision {revision}",
        "DeploymentSuccess": f"succeeded, revision {revision}",
        "DeploymentFailure": "failed",
        "DeploymentStop": "was stopped",
        "DeploymentRollback": f"rolls back {about.get('rollback_of')} to revision {revision}",
        "DeploymentReady": "waits for a person",
    }
    said = words.get(told.trigger) or told.trigger.removeprefix("Instance").lower()
    reason = f": {told.message}" if told.message and told.trigger in _WITH_REASON else ""
    return f"{what} {said}{where}{reason}"


_WITH_REASON = ("DeploymentFailure", "DeploymentStop", "DeploymentReady", "InstanceFailure")


def webhook_body(told: Told, channel: Channel) -> dict[str, Any]:
    """Return what a webhook gets: a line for Slack and its like, or the same data as SNS."""
    if channel.format == "json":
        return {
            "event": told.trigger,
            "text": sentence(told),
            **sns_message(told, channel, region="", account=""),
        }
    return {"text": f"{_MARKS[_moment(told.trigger)]} {sentence(told)}"}


def _moment(trigger: str) -> str:
    return trigger.removeprefix("Deployment").removeprefix("Instance")


def subject(told: Told) -> str:
    """Return the subject of an SNS message: at most 100 printable characters of ASCII."""
    about = told.deployment
    text = f"{told.trigger}: {about['application']}/{about['group']} {about['id']}"
    return text.encode("ascii", "replace").decode()[:100]
