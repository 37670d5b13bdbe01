# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a revision to a function as a version of its own, before any traffic reaches it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...module_utils._aliases import share_of
from ...module_utils._errors import FunctionCallError, FunctionError, UsageError
from ...module_utils._functions import (
    api_changes,
    environment_digest,
    recorded_configuration,
    seen_configuration,
)
from ._package import Code, arguments_of
from ._revision import resolved_configuration
from ._service import LATEST, Service, arn_of, shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ...module_utils._aliases import Alias
    from ...module_utils._functions import FunctionSettings
    from .._record import FunctionVersion, Record

Recorded = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """A version that holds a revision; ``made`` if it was published just now."""

    version: str
    made: bool


def refuse_drift(
    function: str, name: str, alias: Alias | None, record: Record, *, accept: bool
) -> str:
    """Refuse an alias that was moved by others since Bascule moved it.

    :param accept: only return what was found
    :returns: what was found, empty if nothing
    :raises UsageError: it leads elsewhere than the record says, or is being shifted
    """
    found = drift_of(function, name, alias, record)
    if found and not accept:
        raise UsageError(
            f"{found} Nothing was changed. Set the alias back by hand, or go on from where it is "
            "with deploy_lambda_accept_drift: true."
        )
    return found


def drift_of(function: str, name: str, alias: Alias | None, record: Record) -> str:
    """Say where an alias leads and where the record left it, if that differs; else nothing."""
    history = record.function_history(function, name)
    where = f"The alias {name} of {function}"
    if not history:
        if alias is not None and len([one for one in alias.shares.values() if one > 0]) > 1:
            return f"{where} is being shifted by somebody: it leads to {alias.text()}."
        return ""
    last = history[0]
    if alias is None:
        if last.old_version is None:
            return ""
        return f"{where} is gone; {last.deployment_id} left it."
    share = share_of(alias, last.old_version, last.version)
    if share is None or 0 < share < 100:
        return (
            f"{where} leads to {alias.text()}, and {last.deployment_id} has moved it between "
            f"version {last.old_version or 'none'} and version {last.version}: it was moved by "
            "hand or by another tool."
        )
    if record.deployment(last.deployment_id).status == "Succeeded" and share < 100:
        return (
            f"{where} leads to {alias.text()}, but {last.deployment_id} has left it at version "
            f"{last.version}: it was moved by hand or by another tool."
        )
    return ""


def refuse_latest(function: str, name: str, alias: Alias | None) -> None:
    """Refuse an alias that leads to $LATEST: what it leads to changes with every upload.

    :raises UsageError: saying how to give it a version
    """
    if alias is not None and LATEST in alias.shares:
        raise UsageError(
            f"The alias {name} of {function} leads to {LATEST}, which has no weights and nothing "
            "to go back to. Publish what is there and let the alias lead to it: `aws lambda "
            f"publish-version --function-name {function}`, then `aws lambda update-alias "
            f"--function-name {function} --name {name} --function-version NUMBER`."
        )


def publish(
    service: Service,
    one: FunctionSettings,
    wanted: Recorded,
    history: Sequence[FunctionVersion],
    *,
    cache: Path,
    description: str,
) -> Published:
    """Return the version that holds what is wanted, published before or now, ready for traffic.

    :param wanted: the function of the revision (see ``_revision``)
    :param history: where this revision was deployed to this alias before
    :raises BasculeError: it cannot be published; traffic has not been touched
    """
    function, sha256 = wanted["function"], wanted["code_sha256"]
    if wanted.get("target_version"):
        found = Published(wanted["target_version"], made=False)
        if not service.has_version(function, found.version, sha256):
            raise FunctionError(f"Version {found.version} of {function} is not there any more.")
    else:
        found = _known(service, function, sha256, history) or _publish(
            service, one, wanted, cache=cache, description=description
        )
    service.settled(function, found.version)
    if one.provisioned_concurrency:
        try:
            service.provision(function, found.version, one.provisioned_concurrency)
        except FunctionError:
            # It would be paid for, and the version gets no traffic.
            with contextlib.suppress(FunctionError):
                service.release(function, found.version)
            raise
    return found


def _known(
    service: Service, function: str, sha256: str, history: Sequence[FunctionVersion]
) -> Published | None:
    for entry in history:
        if service.has_version(function, entry.version, sha256):
            return Published(entry.version, made=False)
    return None


def _publish(
    service: Service, one: FunctionSettings, wanted: Recorded, *, cache: Path, description: str
) -> Published:
    function, sha256 = wanted["function"], wanted["code_sha256"]
    doing = f"{function} cannot be updated"
    seen = service.settled(function)
    configuration = _with_secrets(one, wanted, seen)
    try:
        if seen["CodeSha256"] != sha256:
            service.call(
                "update_function_code",
                doing,
                FunctionName=function,
                RevisionId=seen["RevisionId"],
                **arguments_of(Code(sha256, place=wanted["place"]), cache),
            )
            seen = service.settled(function)
        changes = api_changes(seen_configuration(seen), _for_kind(configuration, seen))
        if changes:
            service.call(
                "update_function_configuration",
                doing,
                FunctionName=function,
                RevisionId=seen["RevisionId"],
                **changes,
            )
            seen = service.settled(function)
        _refuse_other(function, wanted, seen)
        made = service.call(
            "publish_version",
            f"{function} cannot be published",
            FunctionName=function,
            CodeSha256=sha256,
            RevisionId=seen["RevisionId"],
            Description=description,
        )
    except FunctionCallError as error:
        if error.code != "PreconditionFailedException":
            raise
        raise FunctionError(
            f"{function} was changed by somebody else while it was being updated. No traffic was "
            "moved. Find out who did it, and deploy again."
        ) from error
    return Published(str(made["Version"]), made=True)


def _with_secrets(one: FunctionSettings, wanted: Recorded, seen: dict[str, Any]) -> dict[str, Any]:
    """Return the wanted configuration with the values of its environment variables.

    The record has only a digest of these. They are the group's own, or those that the function has.
    """
    configuration = dict(wanted["configuration"])
    told = configuration.pop("environment")
    candidates: tuple[dict[str, str] | None, ...] = (
        {} if not told["names"] else None,
        resolved_configuration(one, seen)["environment"],
        seen_configuration(seen)["environment"],
    )
    for environment in candidates:
        if environment is None or sorted(environment) != told["names"]:
            continue
        if not environment or environment_digest(environment, wanted["function"]) == told["digest"]:
            return {**configuration, "environment": environment}
    raise FunctionError(
        f"The environment variables {', '.join(told['names'])} of {wanted['function']} have other "
        "values than the revision had when it was resolved, and no version has those any more. Set "
        "them as they were in deploy_lambda_configuration, or deploy the revision anew."
    )


def _for_kind(configuration: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    """Leave out what an image brings itself."""
    if seen.get("PackageType") != "Image":
        return configuration
    own = ("handler", "runtime", "layers")
    return {key: value for key, value in configuration.items() if key not in own}


def _refuse_other(function: str, wanted: Recorded, seen: dict[str, Any]) -> None:
    """Refuse to publish what is not what the revision says."""
    found = seen_configuration(seen)
    if seen.get("PackageType") == "Image":
        found.update(handler=None, runtime=None, layers=[])
    kept = recorded_configuration(found, function)
    if seen["CodeSha256"] == wanted["code_sha256"] and kept == wanted["configuration"]:
        return
    differing = [key for key in kept if kept[key] != wanted["configuration"].get(key)]
    what = ", ".join(differing) or "the code"
    raise FunctionError(
        f"{function} was updated, but {what} is not what the revision says. Find out who else "
        "writes to it, and deploy again."
    )


def refuse_other_role(service: Service, function: str, old: str | None, new: str) -> None:
    """Refuse versions that Lambda cannot share an alias between.

    Both must have the same role and dead-letter queue (developer guide, "Configuring an alias").

    :raises FunctionError: naming what differs
    """
    if old is None or old == new:
        return
    before, after = service.describe(function, old), service.describe(function, new)
    for key in ("Role", "DeadLetterConfig"):
        if before.get(key) != after.get(key):
            raise FunctionError(
                f"Version {old} and version {new} of {function} have another {key}, so Lambda "
                "cannot share traffic between them. Deploy this one change with the strategy "
                "in_place."
            )


def function_arn(service: Service, one: FunctionSettings) -> str:
    """Return the ARN of a function as the inventory names it."""
    return arn_of(service.describe(one.function))


__all__ = [
    "Published",
    "drift_of",
    "function_arn",
    "publish",
    "refuse_drift",
    "refuse_latest",
    "refuse_other_role",
    "shown",
]
