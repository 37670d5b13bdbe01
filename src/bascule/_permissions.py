"""The IAM policy that a deployment group's configuration needs."""

from __future__ import annotations

import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import Event

    from bascule.api import Inventory


def iam_policy(
    group: str,
    *,
    inventory: Inventory = None,
    revision: str | None = None,
    push: str | None = None,
    log_group: str | None = None,
    variables: Mapping[str, t.Any] | None = None,
) -> dict[str, t.Any]:
    """Return the policy, as IAM takes it; AWS is asked only for the inventory.

    :param group: group or pattern of the inventory
    :param revision: what is deployed, such as ``s3://BUCKET/FOLDER/*``
    :param push: where ``bascule push`` puts revisions, ``s3://BUCKET/FOLDER/``
    :param log_group: the log group of the callback ``bascule.deploy.cloudwatch``, if it is used
    :raises UsageError: the inventory cannot be read, or nothing matches
    """
    from bascule import api
    from bascule._run import Request, run

    seen: list[Event] = []
    given: dict[str, t.Any] = {**(variables or {}), "deploy_targets": group}
    for name, value in (("deploy_revision", revision), ("push", push), ("log_group", log_group)):
        if value:
            given[name] = value
    outcome = run(
        Request(strategy="iam_policy", inventory=api.inventory_of(inventory), variables=given),
        on_event=seen.append,
    )
    told = next((event for event in seen if event.kind == "permissions"), None)
    if told is None:
        wrong = next((event.message for event in seen if event.kind == "error"), outcome.complaint)
        raise UsageError(wrong or f"The inventory could not be asked for {group!r}.")
    return dict(told.data["policy"])
