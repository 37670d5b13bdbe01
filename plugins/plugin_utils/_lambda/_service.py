# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The calls to Lambda: functions, versions and aliases as plain data, refusals as sentences."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ...module_utils._aliases import Alias, is_same
from ...module_utils._errors import FunctionCallError, FunctionError, TrafficError
from .._aws import client, error_code, reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient

# How long a function may be Pending or InProgress. A function in a VPC, or one with SnapStart,
# takes minutes (developer guide, "Lambda function states").
READY_SECONDS = 900.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 3.0
# How often an alias is read again because something else of it was changed meanwhile.
_ATTEMPTS = 5
LATEST = "$LATEST"

Told = dict[str, Any]


class Service:
    """Lambda in the region that boto3 finds, and in those that ARNs name."""

    def __init__(self) -> None:
        """Connect when the first call is made."""
        self._made: dict[str | None, BaseClient] = {}

    def call(self, operation: str, doing: str, **given: Any) -> Told:
        """Return what Lambda answers.

        :param doing: what could not be done then, for the message
        :raises FunctionError: Lambda refuses or is not reached; ``code`` is AWS's own
        """
        from botocore.exceptions import BotoCoreError, ClientError

        region = region_of(str(given.get("FunctionName", "")))
        if region not in self._made:
            self._made[region] = client("lambda", region=region)
        try:
            answer: Told = getattr(self._made[region], operation)(**given)
        except (ClientError, BotoCoreError) as error:
            raise FunctionCallError(f"{doing}: {reason(error)}", error_code(error)) from error
        return answer

    # Functions and their versions

    def describe(self, function: str, version: str | None = None) -> Told:
        """Return the configuration of a function, or of one of its versions.

        :raises FunctionError: there is none
        """
        given = {"FunctionName": function, **({"Qualifier": version} if version else {})}
        which = f"version {version} of {function}" if version else function
        try:
            return self.call("get_function_configuration", f"{which} cannot be read", **given)
        except FunctionCallError as error:
            if error.code != "ResourceNotFoundException":
                raise
            raise FunctionCallError(
                f"There is no {'function ' if not version else ''}{which} in this region and "
                "account. Bascule deploys to functions that exist: make it once, with its role.",
                error.code,
            ) from error

    def has_version(self, function: str, version: str, code_sha256: str) -> bool:
        """Tell whether a version is there, with this code."""
        try:
            return bool(self.describe(function, version).get("CodeSha256") == code_sha256)
        except FunctionCallError as error:
            if error.code == "ResourceNotFoundException":
                return False
            raise

    def settled(self, function: str, version: str | None = None) -> Told:
        """Return the configuration when the function, or the version, can be invoked and changed.

        :raises FunctionError: it failed, or it took too long
        """
        which = f"version {version} of {function}" if version else function

        def look() -> tuple[Told | None, str]:
            told = self.describe(function, version)
            states = (told.get("State") or "Active", told.get("LastUpdateStatus") or "Successful")
            if "Failed" in states:
                why = told.get("StateReason") or told.get("LastUpdateStatusReason") or "no reason"
                raise FunctionError(f"{which} cannot be used: Lambda says {why}")
            ready = states in (("Active", "Successful"), ("Inactive", "Successful"))
            return (told if ready else None), " and ".join(states)

        return wait_for(look, f"{which} to be ready")

    def versions(self, function: str) -> dict[str, Told]:
        """Return the published versions by their number."""
        found = self._pages("list_versions_by_function", "Versions", FunctionName=function)
        return {one["Version"]: one for one in found if one["Version"] != LATEST}

    def delete_version(self, function: str, version: str) -> None:
        """Delete a published version; one that an alias leads to is refused by Lambda itself."""
        self.call(
            "delete_function",
            f"Version {version} of {function} cannot be deleted",
            FunctionName=function,
            Qualifier=version,
        )

    # Aliases

    def aliases(self, function: str) -> dict[str, Alias]:
        """Return all aliases of a function by their names."""
        found = self._pages("list_aliases", "Aliases", FunctionName=function)
        return {one["Name"]: _alias(one) for one in found}

    def alias(self, function: str, name: str) -> Alias | None:
        """Return an alias; None if there is none of this name."""
        try:
            told = self.call(
                "get_alias",
                f"The alias {name} of {function} cannot be read",
                FunctionName=function,
                Name=name,
            )
        except FunctionCallError as error:
            if error.code == "ResourceNotFoundException":
                return None
            raise
        return _alias(told)

    def move_alias(
        self, function: str, name: str, wanted: Alias | None, seen: Alias | None
    ) -> Alias | None:
        """Make an alias as it is wanted, if it still is as it was seen; return what it is then.

        :raises TrafficError: somebody has changed where it leads meanwhile; it is left as it is
        """
        for _attempt in range(_ATTEMPTS):
            if is_same(wanted, seen):
                return seen
            try:
                return self._write_alias(function, name, wanted, seen)
            except FunctionCallError as error:
                if error.code not in (
                    "PreconditionFailedException",
                    "ResourceConflictException",
                    "ResourceNotFoundException",
                ):
                    raise
                refused = error
            now = self.alias(function, name)
            if is_same(now, wanted):
                return now
            if not is_same(now, seen):
                raise TrafficError(
                    f"The alias {name} of {function} was changed by somebody else: it led to "
                    f"{shown(seen)}, and leads to {shown(now)} now. It is left as it is. Find out "
                    "who did it, set it back by hand if need be, and deploy again."
                )
            if refused.code == "ResourceNotFoundException":
                raise refused
            seen = now
        raise TrafficError(
            f"The alias {name} of {function} was changed {_ATTEMPTS} times while it was to be "
            "moved. Find out what else writes to it, and deploy again."
        )

    def _write_alias(
        self, function: str, name: str, wanted: Alias | None, seen: Alias | None
    ) -> Alias | None:
        key = {"FunctionName": function, "Name": name}
        doing = f"The alias {name} of {function} cannot be moved"
        if wanted is None:
            self.call("delete_alias", doing, **key)
            return None
        routing = {"AdditionalVersionWeights": dict(wanted.weights)}
        given = {**key, "FunctionVersion": wanted.version, "RoutingConfig": routing}
        if seen is None:
            return _alias(self.call("create_alias", doing, **given))
        return _alias(self.call("update_alias", doing, RevisionId=seen.revision_id, **given))

    # Provisioned concurrency

    def provision(self, function: str, version: str, number: int) -> None:
        """Give a version its provisioned concurrency and wait until all of it is ready.

        :raises FunctionError: it failed, or it took too long
        """
        key = {"FunctionName": function, "Qualifier": version}
        doing = f"The provisioned concurrency of version {version} of {function} cannot be set"
        if self._provisioned(key) != number:
            self.call(
                "put_provisioned_concurrency_config",
                doing,
                ProvisionedConcurrentExecutions=number,
                **key,
            )

        def look() -> tuple[Told | None, str]:
            told = self.call("get_provisioned_concurrency_config", doing, **key)
            if told["Status"] == "FAILED":
                raise FunctionError(f"{doing}: {told.get('StatusReason') or 'no reason given'}")
            ready = told["Status"] == "READY"
            have = told.get("AllocatedProvisionedConcurrentExecutions", 0)
            return (told if ready else None), f"{have} of {number}"

        wait_for(look, f"the provisioned concurrency of version {version} of {function}")

    def release(self, function: str, version: str) -> bool:
        """Take the provisioned concurrency of a version away; tell whether it had any."""
        key = {"FunctionName": function, "Qualifier": version}
        if not self._provisioned(key):
            return False
        self.call(
            "delete_provisioned_concurrency_config",
            f"The provisioned concurrency of version {version} of {function} cannot be removed",
            **key,
        )
        return True

    def _provisioned(self, key: Told) -> int:
        try:
            told = self.call(
                "get_provisioned_concurrency_config",
                f"The provisioned concurrency of {key['FunctionName']} cannot be read",
                **key,
            )
        except FunctionCallError as error:
            if error.code == "ProvisionedConcurrencyConfigNotFoundException":
                return 0
            raise
        return int(told["RequestedProvisionedConcurrentExecutions"])

    def _pages(self, operation: str, member: str, **given: Any) -> list[Told]:
        found: list[Told] = []
        marker: Told = {}
        while True:
            doing = f"{given['FunctionName']} cannot be listed"
            told = self.call(operation, doing, **given, **marker)
            found += told.get(member) or []
            if not told.get("NextMarker"):
                return found
            marker = {"Marker": told["NextMarker"]}


def region_of(function: str) -> str | None:
    """Return the region in an ARN; None for a name."""
    parts = function.split(":")
    return parts[3] if parts[0] == "arn" and len(parts) > 3 else None


def arn_of(told: Told) -> str:
    """Return a function's ARN without a qualifier."""
    begin, _mark, name = str(told["FunctionArn"]).partition(":function:")
    return f"{begin}:function:{name.partition(':')[0]}"


def shown(alias: Alias | None) -> str:
    """Say in words where an alias leads."""
    return alias.text() if alias else "nothing"


def wait_for(look: Callable[[], tuple[Told | None, str]], what: str) -> Told:
    """Look again and again until there is an answer.

    :param look: returns the answer or None, and what is seen meanwhile
    :raises FunctionError: there was none in time
    """
    deadline = time.monotonic() + READY_SECONDS
    pause = _SHORTEST_PAUSE
    while True:
        answer, seen = look()
        if answer is not None:
            return answer
        if time.monotonic() >= deadline:
            raise FunctionError(
                f"Waited {READY_SECONDS:g} s for {what}; seen was {seen}. Look at the function in "
                "Lambda, and deploy again."
            )
        time.sleep(pause)
        pause = min(_LONGEST_PAUSE, pause * 1.5)


def _alias(told: Told) -> Alias:
    weights = (told.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
    return Alias(
        str(told["FunctionVersion"]),
        {str(version): float(weight) for version, weight in weights.items()},
        str(told.get("RevisionId") or ""),
    )
