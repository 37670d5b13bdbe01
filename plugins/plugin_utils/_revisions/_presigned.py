# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses by which hosts fetch a bundle from S3 themselves.

Signing needs boto3, whose import takes longer than a target's whole stage: the workers of all
targets share one address, in a file that only this user can read.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from typing import TYPE_CHECKING

from ...module_utils._errors import UsageError
from .._aws import client

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECONDS = 3600
# An address that a host may still be using when it ends would break its transfer off.
FRESH = 1200


def bundle_address(environment: Mapping[str, str], folder: Path) -> str | None:
    """Return an address that fetches a revision's object without credentials, for an hour.

    :param environment: the revision's, with ``BUNDLE_BUCKET`` and so on
    :param folder: where the workers share it
    :returns: the address, which is a secret; None for a revision that is not from S3, or where it
        cannot be signed here (the bundle is sent then)
    """
    bucket, key = environment.get("BUNDLE_BUCKET"), environment.get("BUNDLE_KEY")
    if not bucket or not key:
        return None
    version = environment.get("BUNDLE_VERSION", "")
    # An address ends with the session that has signed it: whoever comes with another signs anew.
    session = "\0".join(os.environ.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"))
    name = hashlib.sha256(f"{bucket}\0{key}\0{version}\0{session}".encode()).hexdigest()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        until, _blank, address = file.read().partition(" ")
        if address and float(until) - time.time() > FRESH:
            return address
        signed = _sign(bucket, key, version)
        file.seek(0)
        file.truncate()
        if signed is not None:
            file.write(f"{time.time() + SECONDS} {signed}")
    return signed


def _sign(bucket: str, key: str, version: str) -> str | None:
    given = {"Bucket": bucket, "Key": key, **({"VersionId": version} if version else {})}
    try:
        from botocore.exceptions import BotoCoreError

        service = client("s3")
    except (ImportError, UsageError):
        return None
    try:
        signed: str = service.generate_presigned_url("get_object", Params=given, ExpiresIn=SECONDS)
    except BotoCoreError:
        return None
    return signed
