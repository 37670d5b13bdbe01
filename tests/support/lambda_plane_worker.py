"""The runtime of one Lambda version: a process that runs its handler, one event a line."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from typing import Any


class Context:
    """What a handler knows of its invocation."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.aws_request_id = told["request"]
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.invoked_function_arn = told["arn"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]


def answer(handler: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """Return what the handler says, or how it failed, as Lambda's Python runtime does."""
    try:
        return {"payload": json.loads(json.dumps(handler(asked["event"], Context(asked))))}
    except Exception as error:
        return {
            "error": {
                "errorMessage": str(error),
                "errorType": type(error).__name__,
                "stackTrace": traceback.format_tb(error.__traceback__),
            }
        }


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    # What a handler prints goes to its log.
    os.dup2(2, 1)
    sys.path.insert(0, str(os.environ["LAMBDA_TASK_ROOT"]))
    module, _, name = sys.argv[1].rpartition(".")
    handler = getattr(importlib.import_module(module.replace("/", ".")), name)
    for line in sys.stdin:
        print(json.dumps(answer(handler, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
