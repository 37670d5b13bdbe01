# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives behind http(s): fetched whole, compared with their checksum, never without one."""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl
import time
import urllib.error
import urllib.request
from typing import IO, TYPE_CHECKING

from ...module_utils._errors import RevisionError
from ._tree import MAX_BYTES

if TYPE_CHECKING:
    from http.client import HTTPMessage
    from pathlib import Path

    from ._sources import UrlSource

CHUNK = 256 * 1024
PAUSES = (0.5, 2.0)
PASSING = (429, 500, 502, 503, 504)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow no redirect from https to http; other schemes the standard library refuses."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.lower().startswith("https:"):
            raise RevisionError(
                f"{req.host} redirects from https to {newurl.split(':', 1)[0]}, which is refused. "
                "Give the final URL."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(source: UrlSource, target: Path, silence: float) -> None:
    """Fetch an archive and verify it.

    :param silence: seconds without a byte after which the transfer is given up
    :raises RevisionError: http status, network, TLS, a checksum that differs
    """
    for pause in (*PAUSES, None):
        try:
            seen = _transfer(source, target, silence)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in PASSING or pause is None:
                raise _status(source, error) from error
        except (
            urllib.error.URLError,
            http.client.HTTPException,
            TimeoutError,
            ConnectionError,
        ) as e:
            if pause is None or _is_tls(e):
                raise _unreachable(source, e, silence) from e
        else:
            if seen != source.sha256:
                raise RevisionError(
                    f"{source.shown} is not what was expected: sha256 expected {source.sha256}, "
                    f"got {seen}. Nothing was deployed. Find out whether the file or the "
                    "checksum is wrong."
                )
            return
        time.sleep(pause)


def _transfer(source: UrlSource, target: Path, silence: float) -> str:
    request = urllib.request.Request(source.url, headers={"User-Agent": "bascule"})  # noqa: S310 - _sources.py lets only http and https through
    if source.authorization:
        # Unredirected: another host that we are sent to does not get it.
        request.add_unredirected_header("Authorization", source.authorization)
    return transfer(request, target, source.shown, silence)


def transfer(request: urllib.request.Request, target: Path, shown: str, silence: float) -> str:
    """Write what a request answers to a file and return its SHA-256.

    :raises RevisionError: it is too large, or a redirect leads away from https
    :raises OSError: it cannot be fetched whole; an HTTPError for a status that is no success
    """
    total = hashlib.sha256()
    size = 0
    opener = urllib.request.build_opener(_Redirects)
    with opener.open(request, timeout=silence) as response, target.open("wb") as file:
        while chunk := response.read(CHUNK):
            size += len(chunk)
            if size > MAX_BYTES:
                raise RevisionError(f"{shown} is larger than a revision may be.")
            total.update(chunk)
            file.write(chunk)
        wanted = response.headers.get("Content-Length")
    if wanted and wanted.isdigit() and int(wanted) != size:
        raise ConnectionError(f"the connection ended after {size} of {wanted} bytes")
    return total.hexdigest()


def _status(source: UrlSource, error: urllib.error.HTTPError) -> RevisionError:
    advice = {
        401: "Give user and password in the URL, or a URL that needs none.",
        403: "Check the access rights, or whether a signed URL has expired.",
        404: "Check the URL.",
    }.get(error.code, "Ask the server's operator, or try again later.")
    return RevisionError(f"{source.shown} answers {error.code} {error.reason}. {advice}")


def _is_tls(error: BaseException) -> bool:
    reason = getattr(error, "reason", error)
    return isinstance(reason, ssl.SSLError) and not isinstance(reason, TimeoutError)


def _unreachable(source: UrlSource, error: Exception, silence: float) -> RevisionError:
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return RevisionError(
            f"The TLS certificate of {source.shown} is refused: {reason.verify_message}. Install "
            "the authority's certificate on this machine (or name it in SSL_CERT_FILE)."
        )
    if _is_tls(error):
        return RevisionError(f"{source.shown} cannot be reached over TLS: {reason}. Check the URL.")
    if isinstance(reason, TimeoutError):
        return RevisionError(
            f"{source.shown} sent nothing for {silence:g} s, {len(PAUSES) + 1} times. Check the "
            "server and the network, then deploy again."
        )
    if isinstance(reason, socket.gaierror):
        return RevisionError(f"{source.shown} names a host that is not known here. Check the URL.")
    return RevisionError(
        f"{source.shown} cannot be fetched: {reason}. Check the server and the network, then "
        "deploy again."
    )
