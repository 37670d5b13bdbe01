# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Lambda functions there are, with their tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...module_utils._errors import UsageError
from .._aws import client, reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from botocore.client import BaseClient


def list_functions(regions: Sequence[str]) -> list[dict[str, Any]]:
    """Return the functions of regions (empty: of the one that boto3 finds).

    ``[{"name", "arn", "region", "runtime", "package_type", "tags": {key: value}}]``

    :raises UsageError: AWS cannot be asked
    """
    from botocore.exceptions import BotoCoreError, ClientError

    found: list[dict[str, Any]] = []
    for region in (*regions,) or (None,):
        service = client("lambda", region=region)
        try:
            found += _functions(service)
        except (BotoCoreError, ClientError) as error:
            where = f" of {region}" if region else ""
            raise UsageError(
                f"The Lambda functions{where} cannot be listed: {reason(error)}"
            ) from error
    return found


def _functions(service: BaseClient) -> list[dict[str, Any]]:
    region = service.meta.region_name
    pages = service.get_paginator("list_functions").paginate()
    return [
        {
            "name": one["FunctionName"],
            "arn": one["FunctionArn"],
            "region": region,
            "runtime": one.get("Runtime") or "",
            "package_type": one.get("PackageType") or "Zip",
            "tags": dict(service.list_tags(Resource=one["FunctionArn"]).get("Tags") or {}),
        }
        for page in pages
        for one in page["Functions"]
    ]
