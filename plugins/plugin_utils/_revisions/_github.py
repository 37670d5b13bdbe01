# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commits on GitHub as revisions, by the archive endpoint of its API; git is not needed.

CodeDeploy's ``gitHubLocation`` is a repository and a commit; a branch or a tag is resolved to its
commit first, so that what is deployed is always a commit.
"""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

from ...module_utils._errors import RevisionError
from ._http import transfer

if TYPE_CHECKING:
    from pathlib import Path

    from ._sources import GitHubSource

API = "https://api.github.com"
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
# A token may reach only what it has been given rights to; GitHub says 404 for the rest.
_HINTS = {
    401: "The token is refused: check deploy_github_token.",
    403: "The token may not read it, or GitHub's limit of requests is reached.",
    404: "Check owner, repository and commit. Of a private repository GitHub says this, too, "
    "unless deploy_github_token may read it.",
    422: "There is no such commit, branch or tag.",
}


def commit_of(source: GitHubSource, silence: float) -> str:
    """Return the full id of the commit that is meant.

    :raises RevisionError: GitHub does not have it, or does not answer
    """
    if _COMMIT.match(source.ref):
        return source.ref
    address = f"{_repository(source)}/commits/{urllib.parse.quote(source.ref, safe='')}"
    request = _request(source, address, "application/vnd.github.sha")
    try:
        with urllib.request.build_opener().open(request, timeout=silence) as answer:
            text = str(answer.read(200), "ascii", "replace").strip()
    except urllib.error.HTTPError as error:
        error.close()
        raise refused(source, error) from error
    except OSError as error:
        raise _unreachable(source, error) from error
    if not _COMMIT.match(text):
        raise RevisionError(f"{source.shown}: GitHub answered with something that is no commit.")
    return text


def download(source: GitHubSource, commit: str, target: Path, silence: float) -> str:
    """Fetch the archive of a commit and return its SHA-256.

    :raises RevisionError: GitHub does not have it, or the transfer does not come to its end
    """
    request = _request(source, f"{_repository(source)}/tarball/{commit}", "*/*")
    try:
        return transfer(request, target, source.shown, silence)
    except urllib.error.HTTPError as error:
        error.close()
        raise refused(source, error) from error
    except OSError as error:
        raise _unreachable(source, error) from error


def refused(source: GitHubSource, error: urllib.error.HTTPError) -> RevisionError:
    """Say what GitHub's answer means."""
    hint = _HINTS.get(error.code, "Try again later.")
    return RevisionError(f"{source.shown}: GitHub answers {error.code} {error.reason}. {hint}")


def _unreachable(source: GitHubSource, error: OSError) -> RevisionError:
    reason = getattr(error, "reason", error)
    return RevisionError(
        f"{source.shown} cannot be fetched: {reason}. Check the network, and deploy_github_url if "
        "it is set."
    )


def _repository(source: GitHubSource) -> str:
    return f"{(source.api or API).rstrip('/')}/repos/{source.repository}"


def _request(source: GitHubSource, address: str, accept: str) -> urllib.request.Request:
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        raise RevisionError(f"deploy_github_url is {source.api}; it must begin with https://.")
    request = urllib.request.Request(  # noqa: S310 - http and https only, see above
        address,
        headers={
            "User-Agent": "bascule", "Accept": accept, "X-GitHub-Api-Version": "2022-11-28",
        },
    )  # fmt: skip
    token = source.token or os.environ.get("GITHUB_TOKEN", "")
    if token:
        # Unredirected: the host that serves the archive gets a signed address instead.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return request
