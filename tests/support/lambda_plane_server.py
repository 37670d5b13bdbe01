"""A Lambda service over HTTP: moto's, with what moto leaves out.

The handler of a published package runs in a process of its own, an alias is routed by its
weights, states pass from Pending to Active, a wrong RevisionId is refused, provisioned
concurrency needs its time, and every invocation becomes metrics.

``POST /plane/settings`` sets the times (seconds) by their names in ``Settings``; ``POST
/plane/image`` gives the package that an image holds; ``GET /plane/log`` tells every change of an
alias and every invocation; ``POST /plane/reset`` ends all workers and forgets everything.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import random
import re
import signal
import sys
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from moto.awslambda import models
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.utils import utcnow
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from support.guard import Guard
from support.lambda_plane_functions import SETTINGS, Settings, revision
from support.lambda_plane_handlers import IMAGES, end_workers, run_handler
from werkzeug.serving import WSGIRequestHandler, run_simple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from moto.awslambda.models import LambdaFunction, LambdaStorage

REGION = re.compile(r"Credential=[^/]+/[0-9]+/([^/]+)/")
ARN = re.compile("arn:aws:lambda:[^:/]+:[0-9]+:function:".replace(":", "(?::|%3A)"))
FUNCTION = r"/[0-9-]+/functions/(?P<name>[^/]+)"

LOG: dict[str, list[dict[str, Any]]] = {"aliases": [], "invocations": []}
LOCK = threading.RLock()


class Refused(Exception):
    """What the service answers instead of doing what was asked."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Plane:
    """Answers what moto does not, and hands on everything else."""

    def __init__(self, moto: Any) -> None:
        self._moto = moto
        self._concurrency: dict[tuple[str, str], dict[str, Any]] = {}

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        for key in ("PATH_INFO", "RAW_URI", "REQUEST_URI"):
            # moto finds not all of its functions by an ARN.
            if key in environ and "/functions/" in environ[key]:
                environ[key] = ARN.sub("", environ[key])
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        for pattern, methods in ROUTES:
            found = re.fullmatch(pattern, environ.get("RAW_URI", path).split("?")[0])
            if found is None or method not in methods:
                continue
            size = int(environ.get("CONTENT_LENGTH") or 0)
            body = environ["wsgi.input"].read(size) if size else b""
            environ["wsgi.input"] = io.BytesIO(body)
            asked = Asked(environ, {k: unquote(v) for k, v in found.groupdict().items()}, body)
            try:
                answer = methods[method](self, asked)
            except Refused as refused:
                told = {"Type": "User", "Message": str(refused), "message": str(refused)}
                headers = {"x-amzn-ErrorType": refused.code}
                answer = (refused.status, headers, json.dumps(told).encode())
            if answer is None:
                break
            status, headers, content = answer
            start(
                f"{status} Answer",
                [("Content-Type", "application/json"), ("Content-Length", str(len(content))),
                 *headers.items()],
            )  # fmt: skip
            return [content]
        handed: Iterable[bytes] = self._moto(environ, start)
        return handed

    # Aliases and versions

    def change_alias(self, asked: Asked) -> Answer | None:
        storage = asked.backend._lambdas
        with LOCK:
            try:
                alias = storage.get_alias(asked.path["alias"], asked.name)
            except Exception:
                return None
            wanted = asked.body.get("RevisionId")
            if wanted and wanted != alias.revision_id:
                raise Refused(
                    412,
                    "PreconditionFailedException",
                    "The Revision Id provided does not match the latest Revision Id. Call the "
                    "GetFunction/GetAlias API to retrieve the latest Revision Id",
                )
            version = asked.body.get("FunctionVersion", alias.function_version)
            routing = asked.body.get("RoutingConfig", alias.routing_config) or {}
            weights = routing.get("AdditionalVersionWeights") or {}
            self._check_weights(storage, asked.name, version, weights)
            # Whoever has had an answer by now was routed by what was there before.
            changed = time.time()
            alias.update(
                asked.body.get("Description"), version, {"AdditionalVersionWeights": weights}
            )
            LOG["aliases"].append(
                {"at": changed, "function": asked.name, "alias": alias.name,
                 "version": version, "weights": weights,
                 "provisioned": {
                     number: self._concurrency_told((name, number))["Status"]
                     for name, number in self._concurrency if name == asked.name}}
            )  # fmt: skip
            return 200, {}, json.dumps(alias.to_json()).encode()

    def _check_weights(
        self, storage: LambdaStorage, name: str, version: str, weights: dict[str, float]
    ) -> None:
        for one in [version, *weights]:
            if storage._get_version(name, str(one)) is None:
                if one == "$LATEST" and not weights:
                    continue
                raise Refused(404, "ResourceNotFoundException", f"Function not found: {name}:{one}")
        if len(weights) > 1 or version in weights:
            raise Refused(400, "InvalidParameterValueException", "Invalid routing configuration.")
        if any(not 0.0 <= weight <= 1.0 for weight in weights.values()):
            raise Refused(400, "InvalidParameterValueException", "A weight is from 0.0 to 1.0.")

    def write_function(self, asked: Asked) -> Answer | None:
        """Refuse to change or publish what is being changed, or has been changed since."""
        try:
            function = asked.function()
        except Exception:
            return None
        wanted = asked.body.get("RevisionId")
        if wanted and wanted != revision(function):
            raise Refused(
                412,
                "PreconditionFailedException",
                "The RevisionId provided does not match the latest RevisionId. Call the "
                "GetFunction/GetAlias API to retrieve the latest RevisionId for your resource.",
            )
        expected = asked.body.get("CodeSha256")
        if expected and expected != function.code_sha_256:
            raise Refused(
                400, "InvalidParameterValueException",
                f"CodeSHA256 ({expected}) is different from current CodeSHA256 in $LATEST "
                f"({function.code_sha_256}). Please try again with the CodeSHA256 in $LATEST.",
            )  # fmt: skip
        now = time.time()
        for moment in ("ready_at", "updated_at"):
            if now < getattr(function, moment, 0.0):
                raise Refused(
                    409, "ResourceConflictException",
                    "The operation cannot be performed at this time. An update is in progress "
                    f"for resource: {function.function_arn}",
                )  # fmt: skip
        return None

    def delete_function(self, asked: Asked) -> Answer | None:
        qualifier = asked.qualifier
        storage = asked.backend._lambdas
        if qualifier is None:
            return None
        for alias in storage.list_aliases(asked.name):
            weights = (alias.routing_config or {}).get("AdditionalVersionWeights") or {}
            if qualifier in (alias.function_version, *weights):
                raise Refused(
                    409, "ResourceConflictException",
                    "Unable to delete version because the following aliases reference it: "
                    f"[{alias.name}]",
                )  # fmt: skip
        # moto forgets the function's own aliases together with a version.
        known = storage._functions[asked.name]
        known["versions"] = [one for one in known["versions"] if str(one.version) != qualifier]
        return 204, {}, b""

    # Provisioned concurrency

    def put_concurrency(self, asked: Asked) -> Answer:
        wanted = int(asked.body["ProvisionedConcurrentExecutions"])
        if asked.qualifier in (None, "$LATEST"):
            raise Refused(400, "InvalidParameterValueException", "A version or an alias is needed.")
        asked.function(asked.qualifier)
        key = (asked.name, str(asked.qualifier))
        self._concurrency[key] = {"wanted": wanted, "ready": time.time() + SETTINGS.provision}
        return 202, {}, json.dumps(self._concurrency_told(key)).encode()

    def get_concurrency(self, asked: Asked) -> Answer:
        key = (asked.name, str(asked.qualifier))
        if key not in self._concurrency:
            raise Refused(
                404, "ProvisionedConcurrencyConfigNotFoundException",
                "No Provisioned Concurrency Config found for this function",
            )  # fmt: skip
        return 200, {}, json.dumps(self._concurrency_told(key)).encode()

    def delete_concurrency(self, asked: Asked) -> Answer:
        self._concurrency.pop((asked.name, str(asked.qualifier)), None)
        return 204, {}, b""

    def _concurrency_told(self, key: tuple[str, str]) -> dict[str, Any]:
        known = self._concurrency[key]
        ready = time.time() >= known["ready"]
        allocated = known["wanted"] if ready else 0
        told = {
            "RequestedProvisionedConcurrentExecutions": known["wanted"],
            "AvailableProvisionedConcurrentExecutions": allocated,
            "AllocatedProvisionedConcurrentExecutions": allocated,
            "Status": "READY" if ready else "IN_PROGRESS",
            "LastModified": utcnow().strftime("%Y-%m-%dT%H:%M:%S+0000"),
        }
        if ready and key[1] == SETTINGS.failing_provision:
            told.update(Status="FAILED", StatusReason="There are no more instances.")
        return told

    # Invocations

    def invoke(self, asked: Asked) -> Answer:
        name, _, inside = asked.name.partition(":")
        qualifier = asked.qualifier or inside or None
        storage = asked.backend._lambdas
        version, alias, weighted = self._route(storage, name, qualifier)
        function = asked.function(version)
        if time.time() < getattr(function, "ready_at", 0.0):
            raise Refused(
                409, "ResourceConflictException",
                "The operation cannot be performed at this time. The function is currently in "
                "the following state: Pending",
            )  # fmt: skip
        request = str(uuid.uuid4())
        run = {
            "event": json.loads(asked.raw or b"null"),
            "request": request,
            "arn": f"{function.function_arn.partition(':function:')[0]}:function:{name}"
            + (f":{qualifier}" if qualifier else ""),
        }
        kind = asked.environ.get("HTTP_X_AMZ_INVOCATION_TYPE", "RequestResponse")
        if kind == "DryRun":
            return 204, {}, b""
        if kind == "Event":
            threading.Thread(target=self._run, args=(asked, function, alias, weighted, run)).start()
            return 202, {"x-amzn-RequestId": request}, b""
        told = self._run(asked, function, alias, weighted, run)
        headers = {"X-Amz-Executed-Version": str(function.version), "x-amzn-RequestId": request}
        if "error" in told:
            headers["X-Amz-Function-Error"] = "Unhandled"
            return 200, headers, json.dumps(told["error"]).encode()
        return 200, headers, json.dumps(told["payload"]).encode()

    def _route(
        self, storage: LambdaStorage, name: str, qualifier: str | None
    ) -> tuple[str | None, str, bool]:
        """Return the version that is to run, the alias that led to it, and whether by weight."""
        if qualifier is None or qualifier == "$LATEST" or qualifier.isdigit():
            return qualifier, "", False
        try:
            alias = storage.get_alias(qualifier, name)
        except Exception as error:
            raise Refused(
                404, "ResourceNotFoundException", f"Function not found: {name}:{qualifier}"
            ) from error
        weights = (alias.routing_config or {}).get("AdditionalVersionWeights") or {}
        drawn = random.random()  # noqa: S311
        for version, weight in weights.items():
            if drawn < weight:
                return str(version), qualifier, True
            drawn -= weight
        return str(alias.function_version), qualifier, bool(weights)

    def _run(
        self, asked: Asked, function: LambdaFunction, alias: str, weighted: bool,
        run: dict[str, Any],
    ) -> dict[str, Any]:  # fmt: skip
        begun = time.monotonic()
        told = run_handler(function, run)
        duration = (time.monotonic() - begun) * 1000
        with LOCK:
            self._measure(asked.region, function, alias, weighted, "error" in told, duration)
            LOG["invocations"].append(
                {"at": time.time(), "function": function.function_name, "alias": alias,
                 "version": str(function.version), "error": "error" in told}
            )  # fmt: skip
        return told

    def _measure(
        self, region: str, function: LambdaFunction, alias: str, weighted: bool, failed: bool,
        duration: float,
    ) -> None:  # fmt: skip
        """Tell CloudWatch, by function, by alias, and by version where an alias has weights."""
        name = function.function_name
        sets: list[list[dict[str, str]]] = [[{"Name": "FunctionName", "Value": name}]]
        if alias:
            sets.append([*sets[0], {"Name": "Resource", "Value": f"{name}:{alias}"}])
            if weighted:
                version = {"Name": "ExecutedVersion", "Value": str(function.version)}
                sets.append([*sets[1], version])
        values = (
            ("Invocations", 1.0, "Count"),
            ("Errors", float(failed), "Count"),
            ("Duration", duration, "Milliseconds"),
        )
        told = [
            {"MetricName": metric, "Dimensions": dimensions, "Value": value, "Unit": unit,
             "Timestamp": utcnow()}
            for dimensions in sets
            for metric, value, unit in values
        ]  # fmt: skip
        backend: Any = get_backend("cloudwatch")
        backend[DEFAULT_ACCOUNT_ID][region].put_metric_data("AWS/Lambda", told)

    # The test's own

    def settings(self, asked: Asked) -> Answer:
        for name, value in asked.body.items():
            setattr(SETTINGS, name, value)
        return 200, {}, b"{}"

    def image(self, asked: Asked) -> Answer:
        IMAGES[asked.body["uri"]] = base64.b64decode(asked.body["zip"])
        return 200, {}, b"{}"

    def log(self, _asked: Asked) -> Answer:
        with LOCK:
            return 200, {}, json.dumps(LOG).encode()

    def reset(self, _asked: Asked) -> Answer:
        end_workers()
        self._concurrency.clear()
        IMAGES.clear()
        for lines in LOG.values():
            lines.clear()
        for field in dataclasses.fields(Settings):
            setattr(SETTINGS, field.name, field.default)
        return 200, {}, b"{}"


Answer = tuple[int, dict[str, str], bytes]


class Asked:
    """One request."""

    def __init__(self, environ: dict[str, Any], path: dict[str, str], raw: bytes) -> None:
        self.environ, self.path, self.raw = environ, path, raw
        found = REGION.search(environ.get("HTTP_AUTHORIZATION", ""))
        self.region = found.group(1) if found else "eu-central-1"
        self.name = path.get("name", "").rpartition(":function:")[2]
        query = parse_qs(environ.get("QUERY_STRING", ""))
        self.qualifier = query["Qualifier"][0] if "Qualifier" in query else None

    @property
    def body(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.raw or b"{}")
        return told

    @property
    def backend(self) -> Any:
        backends: Any = get_backend("lambda")
        return backends[DEFAULT_ACCOUNT_ID][self.region]

    def function(self, qualifier: str | None = None) -> LambdaFunction:
        name = self.name.partition(":")[0]
        try:
            found: LambdaFunction = self.backend.get_function(name, qualifier)
        except Exception as error:
            raise Refused(
                404, "ResourceNotFoundException", f"Function not found: {name}:{qualifier}"
            ) from error
        return found


ROUTES: tuple[tuple[str, dict[str, Callable[[Plane, Asked], Answer | None]]], ...] = (
    (rf"{FUNCTION}/invocations/?", {"POST": Plane.invoke}),
    (rf"{FUNCTION}/aliases/(?P<alias>[^/]+)", {"PUT": Plane.change_alias}),
    (rf"{FUNCTION}/(?:code|configuration)", {"PUT": Plane.write_function}),
    (rf"{FUNCTION}/versions/?", {"POST": Plane.write_function}),
    (FUNCTION, {"DELETE": Plane.delete_function}),
    (
        rf"{FUNCTION}/provisioned-concurrency",
        {
            "PUT": Plane.put_concurrency,
            "GET": Plane.get_concurrency,
            "DELETE": Plane.delete_concurrency,
        },
    ),
    ("/plane/settings", {"POST": Plane.settings}),
    ("/plane/image", {"POST": Plane.image}),
    ("/plane/log", {"GET": Plane.log}),
    ("/plane/reset", {"POST": Plane.reset}),
)


class Quiet(WSGIRequestHandler):
    """Leave the log to failures."""

    def log_request(self, *_: Any) -> None:
        return


def main() -> None:
    port = int(sys.argv[1])
    os.environ["MOTO_PORT"] = str(port)
    # A process that ends by SIGTERM would leave its workers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    models.iam_backends  # noqa: B018 - loaded before threads ask for it at once
    try:
        plane = Guard(Plane(DomainDispatcherApplication(create_backend_app)))
        run_simple("127.0.0.1", port, plane, threaded=True, request_handler=Quiet)
    finally:
        end_workers()


if __name__ == "__main__":
    main()
