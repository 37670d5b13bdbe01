"""Functions as moto knows them, with what it leaves out: states, the time they take, percentiles.

Importing this changes moto itself.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
import uuid
from typing import Any

from moto.awslambda.models import LambdaAlias, LambdaFunction, LambdaStorage
from moto.cloudwatch.models import Statistics


@dataclasses.dataclass
class Settings:
    """How long things take, in seconds."""

    create: float = 0.0
    update: float = 0.0
    publish: float = 0.0
    provision: float = 0.0
    # The version whose published state, or whose provisioned concurrency, is Failed at the end.
    failing: str = ""
    failing_provision: str = ""


SETTINGS = Settings()


def configuration(function: LambdaFunction, on_create: bool = False) -> dict[str, Any]:
    told: dict[str, Any] = _CONFIGURATION(function, on_create)
    now = time.time()
    if now < getattr(function, "ready_at", 0.0):
        told.update(State="Pending", StateReason="The function is being created.")
        told["StateReasonCode"] = "Creating"
    elif SETTINGS.failing and str(function.version) == SETTINGS.failing:
        told.update(State="Failed", StateReason="There is no such image.")
        told["StateReasonCode"] = "InvalidImage"
    if "LastUpdateStatus" in told and now < getattr(function, "updated_at", 0.0):
        told["LastUpdateStatus"] = "InProgress"
    told["RevisionId"] = revision(function)
    return told


def revision(function: LambdaFunction) -> str:
    if not hasattr(function, "revision_id"):
        function.revision_id = str(uuid.uuid4())
    return str(function.revision_id)


def same(one: LambdaFunction, other: LambdaFunction) -> bool:
    """Tell whether nothing that is published differs."""
    names = ("code_sha_256", "handler", "run_time", "memory_size", "timeout", "layers", "role")
    return all(getattr(one, name) == getattr(other, name) for name in names) and (
        one.environment_vars == other.environment_vars
        and one.ephemeral_storage == other.ephemeral_storage
        and one.architectures == other.architectures
    )


def publish(storage: LambdaStorage, name_or_arn: str, description: str = "") -> LambdaFunction:
    latest = storage.get_function_by_name_or_arn_forbid_qualifier(name_or_arn)
    known = storage._functions[latest.function_name]
    versions: list[LambdaFunction] = known["versions"]
    if versions and same(latest, versions[-1]):
        return versions[-1]
    # Numbers are never given twice, whatever was deleted.
    known["count"] = known.get("count", 0) + 1
    made = copy.copy(latest)
    made.environment_vars = dict(latest.environment_vars)
    made.revision_id = str(uuid.uuid4())
    made.set_version(known["count"])
    made.ready_at = time.time() + SETTINGS.publish
    if description:
        made.description = description
    versions.append(made)
    storage._arns[made.function_arn] = made
    return made


def update_configuration(function: LambdaFunction, updates: dict[str, Any]) -> dict[str, Any]:
    _UPDATE(function, updates)
    if "EphemeralStorage" in updates:
        function.ephemeral_storage = updates["EphemeralStorage"]["Size"]
    touch(function)
    return function.get_configuration()


def update_code(function: LambdaFunction, updates: dict[str, Any]) -> dict[str, Any]:
    _UPDATE_CODE(function, updates)
    if updates.get("Architectures"):
        function.architectures = updates["Architectures"]
    touch(function)
    return function.get_configuration()


def see_image(function: LambdaFunction) -> None:
    """Name an image that is pinned by its digest as Lambda does."""
    _, pinned, digest = function.code.get("ImageUri", "").partition("@sha256:")
    if pinned:
        function.code_sha_256 = digest


def touch(function: LambdaFunction) -> None:
    see_image(function)
    function.revision_id = str(uuid.uuid4())
    function.updated_at = time.time() + SETTINGS.update


def put_function(storage: LambdaStorage, function: LambdaFunction) -> None:
    _PUT(storage, function)
    function.ready_at = time.time() + SETTINGS.create
    see_image(function)


def update_alias(alias: LambdaAlias, *changes: Any) -> None:
    _ALIAS(alias, *changes)
    alias.revision_id = str(uuid.uuid4())


def statistic(statistics: Statistics, stat: str) -> float | None:
    """Tell percentiles, too: moto knows none, and answers 500 to who asks for one."""
    if not stat.startswith("p"):
        known: float | None = _STATISTIC(statistics, stat)
        return known
    values = sorted(float(one.value) for one in statistics.metric_data)
    place = max(0, math.ceil(float(stat[1:]) / 100 * len(values)) - 1)
    return values[place] if values else None


_STATISTIC = Statistics.get_statistics_for_type
_CONFIGURATION = LambdaFunction.get_configuration
_UPDATE = LambdaFunction.update_configuration
_UPDATE_CODE = LambdaFunction.update_function_code
_PUT = LambdaStorage.put_function
_ALIAS = LambdaAlias.update
for owner, name, replacement in (
    (LambdaFunction, "get_configuration", configuration),
    (LambdaFunction, "update_configuration", update_configuration),
    (LambdaFunction, "update_function_code", update_code),
    (LambdaStorage, "put_function", put_function),
    (LambdaStorage, "publish_version", publish),
    (LambdaAlias, "update", update_alias),
    (Statistics, "get_statistics_for_type", statistic),
):
    setattr(owner, name, replacement)
