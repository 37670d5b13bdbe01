# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repositories of AWS CodeCommit: git over https, with a password signed by the AWS credentials.

The signature is that of AWS's credential helper for git: Signature Version 4 of the request
``GIT PATH`` with the header ``host`` alone, prefixed by its time.
"""

from __future__ import annotations

import base64
import datetime
import re
import urllib.parse
from typing import Any

from ...module_utils._errors import RevisionError

_FORMAT = "%Y%m%dT%H%M%S"
_HOST = re.compile(r"git-codecommit(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?\Z")


def address(repository: str, region: str | None) -> str:
    """Return the URL of a repository.

    :param region: that of the repository; by default that of the AWS settings
    :raises RevisionError: there is no region, or boto3 is not installed
    """
    from .._aws import client

    _boto3()
    chosen = region or str(client("sts").meta.region_name)
    host = f"git-codecommit.{chosen}.{_suffix(chosen)}"
    return f"https://{host}/v1/repos/{urllib.parse.quote(repository, safe='')}"


def region_of(url: str) -> str:
    """Return the region of a repository's URL; empty for one that is not CodeCommit's."""
    parts = urllib.parse.urlsplit(url)
    found = _HOST.match(parts.hostname or "")
    ours = found and parts.scheme == "https" and parts.path.startswith("/v1/repos/")
    return found.group(1) if found and ours else ""


def has_credentials() -> bool:
    """Tell whether a password can be signed here."""
    try:
        import boto3
    except ImportError:
        return False
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.session.Session().get_credentials() is not None
    except BotoCoreError:
        return False


def sign(url: str) -> str:
    """Return the HTTP header that gives access to a repository, for 15 minutes.

    It is asked for when a command is about to begin: a command that had to wait would come with one
    that holds no more, and credentials of a role are renewed meanwhile.

    :raises RevisionError: there are no credentials
    """
    from botocore.exceptions import BotoCoreError

    parts = urllib.parse.urlsplit(url)
    try:
        found = _boto3().session.Session().get_credentials()
        frozen = found.get_frozen_credentials() if found else None
    except BotoCoreError as error:
        raise RevisionError(f"CodeCommit cannot be used: {error}") from error
    if frozen is None:
        raise RevisionError(
            "CodeCommit cannot be used: there are no credentials. Set AWS_PROFILE, or run where a "
            "role gives them."
        )
    now = datetime.datetime.now(datetime.UTC)
    pair = credentials_for(parts.netloc, parts.path, region_of(url), frozen, now)
    return "Basic " + base64.b64encode(":".join(pair).encode()).decode("ascii")


def _boto3() -> Any:
    try:
        import boto3
    except ImportError as error:
        raise RevisionError("CodeCommit needs boto3: pip install 'bascule[aws]'.") from error
    return boto3


def credentials_for(
    host: str, path: str, region: str, credentials: Any, now: datetime.datetime
) -> tuple[str, str]:
    """Return user and password for a repository; they hold for 15 minutes."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    request: Any = AWSRequest(method="GIT", url=f"https://{host}{path}")
    request.context["timestamp"] = now.strftime(_FORMAT)
    signer: Any = SigV4Auth(credentials, "codecommit", region)
    canonical = f"GIT\n{path}\n\nhost:{host}\n\nhost\n"
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    token = f"%{credentials.token}" if credentials.token else ""
    return f"{credentials.access_key}{token}", f"{now.strftime(_FORMAT)}Z{signature}"


def _suffix(region: str) -> str:
    return "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
