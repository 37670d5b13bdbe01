# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle that the host fetches itself, from an address that holds its own permission."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request

from .._errors import HostError, UsageError

# Without an answer for so long, the controller sends the bundle instead.
SECONDS = 10.0
_BROKEN = (OSError, http.client.HTTPException)
_LONGEST_ANSWER = 4096
# The XML in which S3 refuses.
_ERROR = re.compile(r"<Code>(\w{1,60})</Code>\s*<Message>([^<]{1,300})</Message>")


class PullError(HostError):
    """The bundle does not come; the controller can send it."""


class Pulled:
    """A bundle as it comes. The address is a secret and never part of a message."""

    def __init__(self, url: str) -> None:
        """Open an address.

        :raises PullError: it cannot be reached, or says no
        """
        if not url.startswith(("http://", "https://")):
            raise UsageError("A bundle is pulled over http or https.")
        try:
            self._answer = urllib.request.build_opener().open(url, timeout=SECONDS)
        except urllib.error.HTTPError as error:
            said = _said(error)
            raise PullError(f"the storage answers {error.code} {error.reason}{said}") from None
        except _BROKEN as error:
            raise PullError(f"the storage cannot be reached: {_why(error)}") from None

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes.

        :raises PullError: the transfer broke off
        """
        try:
            data: bytes = self._answer.read(size)
        except _BROKEN as error:
            raise PullError(f"the transfer broke off: {_why(error)}") from None
        return data

    def close(self) -> None:
        """Let go of the connection."""
        self._answer.close()


def _said(error: urllib.error.HTTPError) -> str:
    """Return why S3 refuses, from its answer; it may also hold a token, which is left out."""
    try:
        text = error.read(_LONGEST_ANSWER).decode("utf-8", "replace")
    except _BROKEN:
        return ""
    finally:
        error.close()
    found = _ERROR.search(text)
    return f" ({found.group(1)}: {found.group(2).rstrip('.')})" if found else ""


def _why(error: BaseException) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
