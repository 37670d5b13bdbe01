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
import urllib.parse
from typing import Any

from ...module_utils._errors import RevisionError

_FORMAT = "%Y%m%dT%H%M%S"


def address(repository: str, region: str | None) -> tuple[str, str]:
    """Return the URL of a repository and the HTTP header that gives access to it.

    :param region: that of the repository; by default that of the AWS settings
    :raises RevisionError: there are no credentials, or there is no region
    """
    from .._aws import client

    try:
        import boto3
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise RevisionError("CodeCommit needs boto3: pip install 'bascule[aws]'.") from error
    chosen = region or str(client("sts").meta.region_name)
    try:
        found = boto3.session.Session().get_credentials()
    except BotoCoreError as error:
        raise RevisionError(f"CodeCommit cannot be used: {error}") from error
    if found is None:
        raise RevisionError(
            "CodeCommit cannot be used: there are no credentials. Set AWS_PROFILE, or run where a "
            "role gives them."
        )
    host = f"git-codecommit.{chosen}.{_suffix(chosen)}"
    path = f"/v1/repos/{urllib.parse.quote(repository, safe='')}"
    now = datetime.datetime.now(datetime.UTC)
    pair = credentials_for(host, path, chosen, found.get_frozen_credentials(), now)
    header = "Basic " + base64.b64encode(":".join(pair).encode()).decode("ascii")
    return f"https://{host}{path}", header


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
