"""moto with what it lacks of CodeDeploy, Auto Scaling and Lambda, for tests of permissions.

Unlike the Lambda service that stands before moto, everything here is answered by moto itself, so
that it asks for permission first. An invoked function is run. A request to Lambda without a body is
signed as one: moto takes the names in its path for the body. The aliases and the versions of a
function are found by its ARN, too.
"""

from __future__ import annotations

import json
import sys
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from moto.awslambda.models import LambdaBackend
from moto.iam.access_control import IAMRequest
from support import codedeploy_server, lambda_plane_handlers, scaling_server
from support.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable


def invoke(
    self: Any, name: str, qualifier: str | None, body: Any, _headers: Any, told: dict[str, Any]
) -> bytes:
    """Run the handler of a function, or of one of its versions."""
    function = self.get_function(name, qualifier)
    asked = {
        "event": json.loads(body or "null"),
        "request": str(uuid.uuid4()),
        "arn": function.function_arn,
    }
    answer = lambda_plane_handlers.run_handler(function, asked)
    if "error" in answer:
        told["X-Amz-Function-Error"] = "Unhandled"
    return json.dumps(answer.get("error") or answer["payload"]).encode()


def by_arn(work: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    return lambda self, name: work(self, unquote(name).rpartition(":function:")[2])


_SIGNED = IAMRequest._create_aws_request


def signed(self: Any) -> Any:
    if self._service == "lambda" and not self._body:
        self._data = {}
    return _SIGNED(self)


def main() -> None:
    import moto.server

    server: Any = moto.server
    dispatcher = server.DomainDispatcherApplication
    server.DomainDispatcherApplication = lambda create: Guard(dispatcher(create))
    codedeploy_server.patch()
    scaling_server.patch()
    backend = LambdaBackend
    backend.invoke = invoke
    backend.list_aliases = by_arn(backend.list_aliases)
    backend.list_versions_by_function = by_arn(backend.list_versions_by_function)
    IAMRequest._create_aws_request = signed
    try:
        moto.server.main(sys.argv[1:])
    finally:
        lambda_plane_handlers.end_workers()


if __name__ == "__main__":
    main()
