# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources that are asked by HTTP: any page, a webhook that decides, Prometheus."""

from __future__ import annotations

import base64
import http.client
import json
import math
import re
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode, urlsplit

from ...module_utils._gate_rules import (
    FAILED,
    INCONCLUSIVE,
    PENDING,
    SUCCESSFUL,
    judge_values,
)
from ...module_utils._gate_spec import shown_url
from ._model import Measurement, SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...module_utils._gate_spec import Gate
    from ._model import Moment

_MAX_BODY = 4 * 1024 * 1024
# The words with which a webhook may answer.
_ANSWERS = {
    "pass": SUCCESSFUL, "successful": SUCCESSFUL, "succeeded": SUCCESSFUL, "yes": SUCCESSFUL,
    "fail": FAILED, "failed": FAILED, "no": FAILED,
    "inconclusive": INCONCLUSIVE,
    "continue": PENDING, "pending": PENDING, "running": PENDING,
}  # fmt: skip


def ask(
    gate: Gate, url: str, *, method: str = "GET", body: bytes | None = None
) -> tuple[int, bytes]:
    """Send one request; returns the status and the body.

    :raises SourceError: there was no answer
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        if not gate.options.get("verify", True):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            host, parts.port, timeout=gate.timeout, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=gate.timeout)
    headers = {"User-Agent": "bascule-gate", "Accept": "*/*"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
    headers |= {str(key): str(value) for key, value in gate.options.get("headers", {}).items()}
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, target, body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(_MAX_BODY)
    except (OSError, http.client.HTTPException) as error:
        raise SourceError(f"{shown_url(url)}: {type(error).__name__}: {error}") from error
    finally:
        connection.close()


def measure_http(gate: Gate, _moment: Moment) -> Measurement:
    """Ask a page: its status, a text in it, or a number in its JSON decides."""
    options = gate.options
    status, body = ask(gate, str(options["url"]), method=str(options.get("method") or "GET"))
    wanted = [int(one) for one in options.get("status") or ()]
    data: dict[str, Any] = {"status": status}
    if status not in (wanted or range(200, 400)):
        told = " or ".join(map(str, wanted)) or "200 to 399"
        return Measurement(FAILED, f"HTTP {status}, wanted {told}", data)
    pattern = options.get("body")
    if pattern and not re.search(str(pattern), body.decode("utf-8", "replace")):
        return Measurement(FAILED, f"HTTP {status} without {pattern!r} in its body", data)
    if not options.get("json_path"):
        return Measurement(SUCCESSFUL, f"HTTP {status}", data)
    value = _at_path(_json(body, gate), str(options["json_path"]))
    values = [] if value is None else [value]
    data["values"] = values
    return _judged(gate, values, data)


def measure_webhook(gate: Gate, moment: Moment) -> Measurement:
    """Post what is asked about; the answer decides.

    A status from 200 to 299 is yes, unless the body is JSON with a ``verdict``: Pass, Fail,
    Inconclusive or Continue (ask again). Another status below 500 is no; 500 and above, and no
    answer at all, are errors.
    """
    about = moment.deployment
    question = {
        "deployment": about.get("id"), "application": about.get("application"),
        "group": about.get("group"), "strategy": about.get("strategy"),
        "revision": about.get("digest"), "step": moment.step, "gate": gate.name,
        "started": moment.started, "until": moment.until,
        "parameters": dict(gate.options.get("parameters", {})),
    }  # fmt: skip
    status, body = ask(
        gate, str(gate.options["url"]), method="POST", body=json.dumps(question).encode()
    )
    if status >= 500:
        raise SourceError(f"{shown_url(str(gate.options['url']))} answered HTTP {status}")
    data: dict[str, Any] = {"status": status}
    if not 200 <= status < 300:
        return Measurement(FAILED, f"HTTP {status}", data)
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    if not isinstance(said, dict) or "verdict" not in said:
        return Measurement(SUCCESSFUL, f"HTTP {status}", data)
    verdict, reason = str(said["verdict"]), str(said.get("reason") or "")[:500]
    phase = _ANSWERS.get(verdict.lower())
    if phase is None:
        raise SourceError(
            f"The webhook's verdict is {verdict[:60]!r}; wanted is Pass, Fail, Inconclusive or "
            "Continue."
        )
    data |= {"verdict": verdict, "reason": reason}
    return Measurement(phase, f"{verdict}: {reason}" if reason else verdict, data)


def measure_prometheus(gate: Gate, moment: Moment) -> Measurement:
    """Ask Prometheus' HTTP API for the present value of a query (every series of it counts)."""
    values = prometheus_values(gate, str(gate.options["url"]), str(gate.options["query"]))
    return _judged(gate, values, {"values": [_plain(one) for one in values], "at": moment.now})


def prometheus_values(gate: Gate, url: str, query: str) -> list[float]:
    """Return the values of an instant query (``/api/v1/query``), in Prometheus' order.

    :raises SourceError: no answer, an error of Prometheus, or a result that is no number
    """
    address = f"{url.rstrip('/')}/api/v1/query?{urlencode({'query': query})}"
    status, body = ask(gate, address)
    answer = _json(body, gate)
    if not isinstance(answer, dict) or answer.get("status") != "success":
        told = answer.get("error") if isinstance(answer, dict) else None
        told = told or repr(body[:80])
        raise SourceError(f"Prometheus at {shown_url(url)} answered HTTP {status}: {told}")
    result = answer.get("data", {})
    kind, found = result.get("resultType"), result.get("result", [])
    try:
        if kind == "scalar":
            return [float(found[1])]
        if kind == "vector":
            return [float(one["value"][1]) for one in found]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SourceError(f"Prometheus' answer cannot be read: {found!r}") from error
    raise SourceError(
        f"The query gives a {kind}; wanted is a number or a vector (an instant query)."
    )


def _judged(gate: Gate, values: list[float], data: Mapping[str, Any]) -> Measurement:
    phase = judge_values(values, gate.success, gate.failure)
    return Measurement(phase, seen_values(values, gate), dict(data))


def seen_values(values: list[float], gate: Gate) -> str:
    """Say what was measured and what was wanted."""
    if not values:
        return "no value yet"
    told = ", ".join(f"{value:.6g}" for value in values[:5]) + (", …" if len(values) > 5 else "")
    wanted = [f"wanted {gate.success.text}"] if gate.success else []
    wanted += [f"fails at {gate.failure.text}"] if gate.failure else []
    return f"{told}, {', '.join(wanted)}" if wanted else told


def _plain(value: float) -> float | str:
    """Return a number that JSON can hold, text for the others."""
    return value if math.isfinite(value) else str(value)


def _json(body: bytes, gate: Gate) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise SourceError(
            f"{shown_url(str(gate.options['url']))} did not answer with JSON: {body[:80]!r}"
        ) from error


def _at_path(document: Any, path: str) -> float | None:
    """Return the number at a path such as ``data.errors.0.rate``; None where there is null."""
    found = document
    for part in path.split("."):
        try:
            found = found[int(part)] if isinstance(found, list) else found[part]
        except (KeyError, IndexError, TypeError, ValueError):
            raise SourceError(f"The answer has nothing at {path}.") from None
    if found is None:
        return None
    try:
        return float(found)
    except (TypeError, ValueError):
        raise SourceError(f"The answer has no number at {path}, but {str(found)[:60]!r}.") from None
