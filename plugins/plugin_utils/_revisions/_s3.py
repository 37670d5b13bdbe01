# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives in S3: pinned to version and ETag, fetched whole, compared with what was promised."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

from ...module_utils._errors import RevisionError
from .._aws import client, error_code, reason
from ._tree import MAX_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from ._model import Revision
    from ._sources import S3Source

CHUNK = 1024 * 1024
DIGEST = "bascule-digest"
SHA256 = "bascule-sha256"
# What boto3 makes of a HEAD that is refused, for instance because the credentials have expired.
SILENT = "400"
_CONTENT_TYPES = {"zip": "application/zip", "tar": "application/x-tar", "tgz": "application/gzip"}


def pinned(source: S3Source) -> S3Source:
    """Return a source with the version and the ETag that the object has now.

    :raises RevisionError: there is no such object, or it is another one than was asked for
    """
    try:
        found = _call("head_object", source)
    except RevisionError as error:
        if error_code(error.__cause__) != SILENT:
            raise
        # It answers a HEAD without a word; a GET is told why it is refused.
        found = _call("get_object", source, Range="bytes=0-0")
    etag = str(found.get("ETag", "")).strip('"')
    if source.etag and source.etag != etag:
        raise RevisionError(
            f"{source.shown} is not what was expected: ETag expected {source.etag}, got {etag}. "
            "Nothing was deployed. Find out who has replaced it, or leave the ETag away."
        )
    # An unversioned bucket says "null", or nothing.
    version = source.version or str(found.get("VersionId") or "")
    return dataclasses.replace(source, etag=etag, version="" if version == "null" else version)


def download(source: S3Source, target: Path) -> str:
    """Fetch a pinned object and return its SHA-256.

    :raises RevisionError: it cannot be fetched, has changed meanwhile, or has another checksum
    """
    from botocore.exceptions import BotoCoreError, ClientError

    answer = _call("get_object", source, IfMatch=f'"{source.etag}"')
    if answer["ContentLength"] > MAX_BYTES:
        raise RevisionError(f"{source.shown} is larger than a revision may be.")
    total = hashlib.sha256()
    size = 0
    try:
        with target.open("wb") as file:
            for chunk in answer["Body"].iter_chunks(CHUNK):
                size += len(chunk)
                total.update(chunk)
                file.write(chunk)
    except (BotoCoreError, ClientError) as error:
        raise RevisionError(f"{source.shown} cannot be fetched: {reason(error)}") from error
    if size != answer["ContentLength"]:
        raise RevisionError(
            f"{source.shown} cannot be fetched: {size} of {answer['ContentLength']} bytes came. "
            "Deploy again."
        )
    sha256 = total.hexdigest()
    promised = source.sha256 or answer.get("Metadata", {}).get(SHA256, "")
    if promised and promised != sha256:
        raise RevisionError(
            f"{source.shown} is not what was expected: sha256 expected {promised}, got {sha256}. "
            "Nothing was deployed. Find out whether the object or the checksum is wrong."
        )
    return sha256


def upload(revision: Revision, bucket: str, key: str) -> tuple[str, bool]:
    """Put a revision's bundle into S3, unless the same is there already.

    :returns: the source to deploy it by, ``s3://BUCKET/KEY?versionId=…``, and whether it was sent
    :raises RevisionError: the bucket cannot be written
    """
    from pathlib import Path

    from botocore.exceptions import BotoCoreError, ClientError

    service = client("s3")
    shown = f"s3://{bucket}/{key}"
    try:
        try:
            found = service.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error_code(error) not in ("404", "NoSuchKey", "NotFound", SILENT):
                raise
            # What is wrong with a request is said to the next one.
            found = {}
        if found.get("Metadata", {}).get(SHA256) == revision.bundle_sha256:
            return _versioned(shown, found), False
        with Path(revision.bundle_path).open("rb") as body:
            answer = service.put_object(
                Bucket=bucket,
                Key=key,
                Body=body,
                ContentType=_CONTENT_TYPES.get(revision.bundle_type, "application/octet-stream"),
                # S3 refuses what arrives differently.
                ChecksumAlgorithm="SHA256",
                Metadata={DIGEST: revision.digest, SHA256: revision.bundle_sha256},
            )
    except (BotoCoreError, ClientError) as error:
        raise RevisionError(f"{shown} cannot be written: {_refused(error, bucket, key)}") from error
    return _versioned(shown, answer), True


def _versioned(shown: str, answer: dict[str, Any]) -> str:
    version = str(answer.get("VersionId") or "")
    return f"{shown}?versionId={version}" if version not in ("", "null") else shown


def _call(operation: str, source: S3Source, **more: Any) -> dict[str, Any]:
    from botocore.exceptions import BotoCoreError, ClientError

    given = {"Bucket": source.bucket, "Key": source.key, **more}
    if source.version:
        given["VersionId"] = source.version
    try:
        answer: dict[str, Any] = getattr(client("s3"), operation)(**given)
    except (BotoCoreError, ClientError) as error:
        raise RevisionError(
            f"{source.shown} cannot be fetched: "
            f"{_refused(error, source.bucket, source.key, source.version)}"
        ) from error
    return answer


def _refused(error: Exception, bucket: str, key: str, version: str | None = "") -> str:
    code = error_code(error)
    if code == "403":
        # S3 says no more than this to a HEAD.
        action = "s3:GetObjectVersion" if version else "s3:GetObject"
        return (
            f"S3 allows no look at it: wanted {action} on arn:aws:s3:::{bucket}/{key} and, to tell "
            f"one that is not there from a forbidden one, s3:ListBucket on arn:aws:s3:::{bucket}. "
            "`bascule iam-policy` prints what a group needs."
        )
    if code == "NoSuchBucket":
        return f"There is no bucket {bucket}. Check its name, and the account and region."
    if code in ("404", "NoSuchKey", "NotFound", "NoSuchVersion"):
        return "There is no such object (or version) in the bucket. Check key and version."
    if code in ("412", "PreconditionFailed"):
        return "It was replaced while it was being fetched. Deploy again."
    return reason(error)
