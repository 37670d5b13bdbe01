# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one way to AWS: clients with retries and limits, and errors as sentences.

Credentials, region and endpoint are looked for as boto3 does: environment, shared files, role.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..module_utils._errors import UsageError

if TYPE_CHECKING:
    from botocore.client import BaseClient

# Throttling is met with botocore's standard mode: backoff with jitter, and a budget of retries.
ATTEMPTS = 6
CONNECT_SECONDS = 10
READ_SECONDS = 60


def client(
    service: str,
    *,
    region: str | None = None,
    attempts: int | None = None,
    connect: float = CONNECT_SECONDS,
    read: float = READ_SECONDS,
) -> BaseClient:
    """Return a client of an AWS service, in the region that boto3 finds or in another.

    ``AWS_REGION`` comes first, as for the AWS CLI; boto3 itself reads ``AWS_DEFAULT_REGION`` alone.
    Times are in seconds.

    :raises UsageError: boto3 is not installed, or no region is set
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise UsageError("AWS is reached with boto3: pip install 'bascule[aws]'.") from error
    config = Config(
        retries={"mode": "standard", "max_attempts": attempts or ATTEMPTS},
        connect_timeout=connect,
        read_timeout=read,
        user_agent_extra="bascule",
    )
    try:
        made: BaseClient = boto3.session.Session().client(
            service, region_name=region or os.environ.get("AWS_REGION") or None, config=config
        )
    except (BotoCoreError, ValueError) as error:
        raise UsageError(f"AWS ({service}) cannot be used: {reason(error)}") from error
    return made


def reason(error: Exception) -> str:
    """Return what AWS or botocore says, as a sentence with what can be done about it."""
    from botocore.exceptions import (
        ClientError,
        EndpointConnectionError,
        NoCredentialsError,
        NoRegionError,
        PartialCredentialsError,
    )

    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return (
            "there are no credentials. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or run where a role gives them."
        )
    if isinstance(error, NoRegionError):
        return "no region is set. Set AWS_REGION, or a region in the profile."
    if isinstance(error, EndpointConnectionError):
        return f"{error} Check the network, the region, and AWS_ENDPOINT_URL if it is set."
    if isinstance(error, ClientError):
        answer: dict[str, Any] = error.response.get("Error", {})
        code, message = str(answer.get("Code", "")), str(answer.get("Message", "")).rstrip(".")
        if _ADVICE.get(code) is _LACKING:
            if _KEYS in message:
                return f"{code}: {message}. {_KEY}"
            if "perform:" not in message:
                # Some services do not say what was wanted.
                message += f" (to {error.operation_name})"
        return f"{code}: {message}. {_ADVICE.get(code, '')}".strip()
    return f"{error}"


_LACKING = "`bascule iam-policy` prints what a group needs."
_EXPIRED = "The credentials have expired: get new ones, and run it again with them."
_UNKNOWN = "The credentials are unknown there: check AWS_PROFILE, the account and the region."
# An action of KMS in what S3 says: the object is encrypted by a key of its own.
_KEYS = "kms:"
_KEY = (
    "It is encrypted: the policy of its key, or one beside that of `bascule iam-policy`, must "
    "allow that."
)
# The codes are those of the services' lists of common errors; several have names of their own for
# the same.
_ADVICE = {
    "403": _LACKING,
    "AccessDenied": _LACKING,
    "AccessDeniedException": _LACKING,
    "AuthorizationError": _LACKING,
    "AuthorizationErrorException": _LACKING,
    "NotAuthorized": _LACKING,
    "UnauthorizedOperation": _LACKING,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "AuthFailure": _UNKNOWN,
    "InvalidAccessKeyId": _UNKNOWN,
    "InvalidClientTokenId": _UNKNOWN,
    "InvalidToken": _UNKNOWN,
    "UnrecognizedClientException": _UNKNOWN,
    "IncompleteSignature": "Check AWS_SECRET_ACCESS_KEY.",
    "InvalidSignatureException": "Check AWS_SECRET_ACCESS_KEY, and this machine's clock.",
    "SignatureDoesNotMatch": "Check AWS_SECRET_ACCESS_KEY, and this machine's clock.",
    "RequestTimeTooSkewed": "Set this machine's clock.",
    "OptInRequired": "Enable the service or the region for the account.",
}


def error_code(error: BaseException | None) -> str:
    """Return AWS's code of an error, such as NoSuchKey; empty for others."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
