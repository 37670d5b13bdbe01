"""A guard before a server of AWS for tests: it asks a policy for every call, as IAM would.

moto asks for actions alone, and for the resources of S3 alone; what it lacks is not asked for at
all. This WSGI application stands before moto, and before what answers in moto's stead. A caller is
known by the access key. ``POST /guard/policies`` with ``{"key", "policy"}`` limits what it may do;
one without a policy may do everything. ``GET /guard/calls`` tells what was asked for since:
``[{"action", "resource", "allowed"}]``. ``POST /guard/faults`` with ``{"faults": [{"call",
"code", "message", "after"}]}`` refuses what everybody asks for: ``call`` is SERVICE:OPERATION with
the wildcards of a shell, ``after`` the number of such calls that are let through before.
"""

from __future__ import annotations

import fnmatch
import functools
import io
import json
import re
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl, unquote
from xml.sax.saxutils import escape

import botocore.loaders
from support.authorization import ACCOUNT, EVERYTHING, Call, allows, asked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SCOPE = re.compile(r"(?:Credential=)?([^/=]+)/[0-9]+/([^/]+)/([^/]+)/aws4_request")


class Guard:
    """Lets through what the caller's policy allows, and answers AccessDenied to everything else."""

    def __init__(self, server: Callable[..., Iterable[bytes]]) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._policies: dict[str, dict[str, Any]] = {}
        self._calls: list[dict[str, Any]] = []
        self._faults: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = str(environ.get("PATH_INFO", ""))
        if path.startswith("/guard/"):
            return self._own(path, environ, start)
        if self._faults and (refused := self._fault(environ)):
            return refusal(environ, start, *refused)
        query = parse_qs(environ.get("QUERY_STRING", ""))
        signed = environ.get("HTTP_AUTHORIZATION") or query.get("X-Amz-Credential", [""])[0]
        found = SCOPE.search(signed)
        policy = self._policies.get(found.group(1)) if found else None
        if found is None or policy is None:
            return self._server(environ, start)
        call = read_call(environ, found.group(3), found.group(2))
        for action, resource in asked(call):
            allowed = allows(policy, action, resource)
            self._note(action, resource, allowed)
            if not allowed:
                return denied(environ, start, call, action, resource)
        if call.service == "s3" and call.operation in ("GetObject", "HeadObject"):
            return self._object(environ, start, call, policy)
        return self._server(environ, start)

    def _fault(self, environ: dict[str, Any]) -> tuple[str, str, str] | None:
        """Return service, code and message of what is to be refused."""
        found = SCOPE.search(environ.get("HTTP_AUTHORIZATION") or "")
        if found is None:
            return None
        call = read_call(environ, found.group(3), found.group(2))
        name = f"{call.service}:{call.operation}"
        with self._lock:
            for fault in self._faults:
                if fnmatch.fnmatchcase(name, fault["call"]):
                    fault["after"] -= 1
                    if fault["after"] < 0:
                        return call.service, fault["code"], fault["message"]
        return None

    def _object(
        self,
        environ: dict[str, Any],
        start: Callable[..., Any],
        call: Call,
        policy: dict[str, Any],
    ) -> Iterable[bytes]:
        """Tell that there is no such object only to whoever may list the bucket."""
        told: list[Any] = []
        body = list(self._server(environ, lambda *given: told.append(given)))
        if told[0][0].startswith("404"):
            bucket = f"arn:aws:s3:::{call.given['Bucket']}"
            allowed = allows(policy, "s3:ListBucket", bucket)
            self._note("s3:ListBucket", bucket, allowed)
            if not allowed:
                return denied(environ, start, call, "s3:ListBucket", bucket)
        start(*told[0])
        return body

    def _note(self, action: str, resource: str, allowed: bool) -> None:
        with self._lock:
            self._calls.append({"action": action, "resource": resource, "allowed": allowed})

    def _own(self, path: str, environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        told = json.loads(body_of(environ) or b"{}")
        answer: Any = {}
        with self._lock:
            if path == "/guard/policies":
                self._policies[told["key"]] = told["policy"]
                self._calls.clear()
            elif path == "/guard/faults":
                self._faults = [{"after": 0, **one} for one in told["faults"]]
            else:
                answer = list(self._calls)
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]


def body_of(environ: dict[str, Any]) -> bytes:
    """Read the body of a request, and put it back for whoever reads it next."""
    if environ.get("HTTP_TRANSFER_ENCODING"):
        body = environ["wsgi.input"].read()
    else:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return bytes(body)


def read_call(environ: dict[str, Any], service: str, region: str) -> Call:
    """Read which operation is asked for, with which parameters, in any of AWS's protocols."""
    path = str(environ.get("PATH_INFO", ""))
    if "/operation/" in path:
        return Call(service, path.rpartition("/")[2], region, {})
    target = str(environ.get("HTTP_X_AMZ_TARGET", ""))
    if target:
        return Call(service, target.rpartition(".")[2], region, json.loads(body_of(environ)))
    query = {
        key: value[0]
        for key, value in parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True).items()
    }
    if service == "s3":
        return object_call(environ, path, query, region)
    if service == "lambda":
        return rest_call(environ, query, region)
    form = dict(parse_qsl(body_of(environ).decode(), keep_blank_values=True))
    return Call(service, form.get("Action", ""), region, form)


def object_call(environ: dict[str, Any], path: str, query: dict[str, str], region: str) -> Call:
    bucket, _slash, key = unquote(path).lstrip("/").partition("/")
    method = environ["REQUEST_METHOD"]
    given = {**query, "Bucket": bucket, "Key": key}
    if key:
        names = {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject"}
    else:
        names = {"GET": "ListObjectsV2"}
    return Call("s3", names.get(method, method), region, given)


@functools.cache
def routes() -> list[tuple[str, re.Pattern[str], str, str]]:
    """The operations of Lambda: method, path, a word in the query, name; the longest path first."""
    model = botocore.loaders.Loader().load_service_model("lambda", "service-2")
    found = []
    for name, one in model["operations"].items():
        uri, _mark, word = one["http"]["requestUri"].partition("?")
        pattern = re.sub(r"\{(\w+)\+?\}", r"(?P<\1>[^/]+)", uri.rstrip("/"))
        found.append((one["http"]["method"], re.compile(pattern + "/?"), word, name))
    return sorted(found, key=lambda one: (-len(one[2]), -len(one[1].pattern)))


def rest_call(environ: dict[str, Any], query: dict[str, str], region: str) -> Call:
    path = str(environ.get("RAW_URI") or environ["PATH_INFO"]).split("?")[0]
    for method, pattern, word, name in routes():
        key, _equals, value = word.partition("=")
        if method != environ["REQUEST_METHOD"] or (word and query.get(key) != value):
            continue
        found = pattern.fullmatch(path)
        if found:
            parts = {part: unquote(value) for part, value in found.groupdict().items()}
            body = body_of(environ) if name != "Invoke" else b""
            given = json.loads(body) if body.strip() else {}
            return Call("lambda", name, region, {**given, **query, **parts})
    return Call("lambda", f"{environ['REQUEST_METHOD']} {path}", region, {})


def denied(
    environ: dict[str, Any], start: Callable[..., Any], call: Call, action: str, resource: str
) -> list[bytes]:
    """Refuse in the words and the protocol of the service."""
    where = "" if resource == EVERYTHING else f" on resource: {resource}"
    said = (
        f"User: arn:aws:iam::{ACCOUNT}:user/ci is not authorized to perform: {action}{where} "
        f"because no identity-based policy allows the {action} action"
    )
    code = {"ec2": "UnauthorizedOperation", "sns": "AuthorizationError"}.get(call.service)
    return refusal(environ, start, call.service, code or "AccessDenied", said)


def refusal(
    environ: dict[str, Any], start: Callable[..., Any], service: str, code: str, said: str
) -> list[bytes]:
    """Answer with an error in the words and the protocol of the service."""
    kind, headers = "text/xml", []
    path = str(environ.get("PATH_INFO", ""))
    # Services that answer in JSON end the names of their errors so.
    named = code if code.endswith("Exception") else f"{code}Exception"
    if "/operation/" in path:
        kind = "application/cbor"
        headers.append(("smithy-protocol", "rpc-v2-cbor"))
        body = b"\xa2" + b"".join(map(cbor, ("__type", named, "message", said)))
    elif environ.get("HTTP_X_AMZ_TARGET") or service == "lambda":
        kind = "application/x-amz-json-1.1"
        headers.append(("x-amzn-ErrorType", named))
        body = json.dumps({"__type": named, "message": said, "Message": said}).encode()
    elif service == "s3":
        body = f"<Error><Code>{code}</Code><Message>{escape(said)}</Message></Error>".encode()
    elif service == "ec2":
        body = (
            f"<Response><Errors><Error><Code>{code}</Code><Message>"
            f"{escape(said)}</Message></Error></Errors><RequestID>0</RequestID></Response>"
        ).encode()
    else:
        body = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{escape(said)}"
            "</Message></Error><RequestId>0</RequestId></ErrorResponse>"
        ).encode()
    if environ["REQUEST_METHOD"] == "HEAD":
        body = b""
    body_of(environ)
    # S3 says so of a token that has expired, and no more to a HEAD.
    status = "400 Bad Request" if code.startswith("Expired") else "403 Forbidden"
    start(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *headers])
    return [body]


def cbor(text: str) -> bytes:
    """Encode a text (RFC 8949, major type 3) of less than 64 KiB."""
    data = text.encode()
    return b"\x79" + len(data).to_bytes(2, "big") + data
