"""What tests of permissions share: an account that may do nothing, and flows with their policies.

Two ask for permission: moto, and the guard before it (``support.guard``). moto asks for the actions
of a policy, and for the resources of S3; for other services it takes every resource for ``*``, so
that for moto the resources are opened here. CloudWatch's actions it asks for by the name in the
endpoint, ``monitoring``, and InvokeFunction by that of the operation. The guard gets each policy as
it is printed, and asks for every action of every call on its resource.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any

from ansible_collections.bascule.deploy.plugins.plugin_utils._notify import _send
from ansible_collections.bascule.deploy.plugins.plugin_utils._providers import run_on_controller

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from support import aws as moto

NOTHING = {"Effect": "Allow", "Action": "none:None", "Resource": "*"}


class Account:
    """A server that lets nobody do anything, and the one user that there is."""

    def __init__(self, aws: moto.Aws, monkeypatch: pytest.MonkeyPatch) -> None:
        self.aws = aws
        self.monkeypatch = monkeypatch
        self.iam = iam = aws.client("iam")
        iam.create_user(UserName="ci")
        key = iam.create_access_key(UserName="ci")["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])

    def allow(self, made: dict[str, Any]) -> None:
        """Give the user this policy, and nothing else, from now on."""
        self.aws.guard(made, os.environ["AWS_ACCESS_KEY_ID"])
        self.aws.enforce_permissions(unasked=1000)
        statements = [opened(one) for one in made["Statement"]] or [NOTHING]
        document = json.dumps({**made, "Statement": statements})
        self.iam.put_user_policy(UserName="ci", PolicyName="bascule", PolicyDocument=document)
        _send._client.cache_clear()
        self.aws.enforce_permissions()

    def used(self) -> set[str]:
        """Return the actions that were asked for with the last policy."""
        return {one["action"] for one in self.aws.asked_for()}


@dataclasses.dataclass(frozen=True)
class Flow:
    """What is done with a policy.

    ``spare`` names statements that it does without, ``unused`` actions that it does not take: they
    are those of another course of the same flow.
    """

    allowed: dict[str, Any]
    work: Callable[[], Any]
    spare: set[str] = dataclasses.field(default_factory=set)
    unused: set[str] = dataclasses.field(default_factory=set)


def prove(account: Account, flows: list[Flow]) -> None:
    """Run each with every statement left out once, which must be told, and with its policy."""
    for flow in flows:
        for left_out in flow.allowed["Statement"]:
            if left_out["Sid"] in flow.spare:
                continue
            rest = [one for one in flow.allowed["Statement"] if one is not left_out]
            account.allow({**flow.allowed, "Statement": rest})
            refused = failure(flow)
            wanted = {action for action in left_out["Action"] if action in refused}
            assert wanted, f"without {left_out['Sid']}: {refused or 'it works'}"
            assert "Signature" not in refused, refused
        account.allow(flow.allowed)
        refused = failure(flow)
        assert not refused, f"{[one['Sid'] for one in flow.allowed['Statement']]}: {refused}"
        printed = {action for one in flow.allowed["Statement"] for action in one["Action"]}
        # No permission is printed that the flow does not use.
        assert printed - account.used() == flow.unused


def failure(flow: Flow) -> str:
    try:
        flow.work()
    except Exception as error:
        return str(error)
    return ""


def opened(statement: dict[str, Any]) -> dict[str, Any]:
    actions = [*statement["Action"]]
    actions += [
        one.replace("cloudwatch:", "monitoring:") for one in actions if one.startswith("cloudw")
    ]
    actions += ["lambda:Invoke" for one in actions if one == "lambda:InvokeFunction"]
    own = all(one.startswith("s3:") for one in actions)
    return {**statement, "Action": actions, "Resource": statement["Resource"] if own else "*"}


def moved(provider: str, instance: str, **options: Any) -> None:
    """Take an instance out of its load balancer, and put it back."""
    target = {"name": "a", "address": "10.9.0.1", "port": 80, "instance": instance}
    for action in ("drain", "restore"):
        carried_out(
            {
                "action": action, "provider": provider,
                "provider_options": {"propagation": "0s", **options},
                "targets": [target], "drain_timeout": 30, "restore_timeout": 30,
            }
        )  # fmt: skip


def carried_out(request: dict[str, Any]) -> dict[str, Any]:
    answer = run_on_controller(request)
    if answer.get("failed"):
        raise AssertionError(answer["msg"])
    return answer


def part(made: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return those statements of a policy."""
    return {**made, "Statement": [one for one in made["Statement"] if one["Sid"] in names]}


def without(made: dict[str, Any], action: str) -> dict[str, Any]:
    """Return a policy that does not have one action."""
    statements = [
        {**one, "Action": [name for name in one["Action"] if name != action]}
        for one in made["Statement"]
    ]
    return {**made, "Statement": statements}
