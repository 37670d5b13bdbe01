# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls to AWS that are patient with throttling, and whose errors are sentences."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, TypeVar

from ...module_utils._errors import TrafficCallError
from .._aws import client, error_code, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from botocore.client import BaseClient

Answer = TypeVar("Answer")

THROTTLED = frozenset(
    {
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)

# botocore tries a call this often by itself (standard mode), and we try that this often again:
# at most 24 attempts of a call, in about a minute and a half.
ATTEMPTS = 3
ROUNDS = 8
LONGEST_PAUSE = 20.0


def service(name: str) -> BaseClient:
    """Return a client of an AWS service for ``patiently``."""
    return client(name, attempts=ATTEMPTS)


def patiently(call: Callable[[], Answer], doing: str) -> Answer:
    """Return what a call answers; while AWS throttles, it is tried again with longer pauses.

    :param doing: what the call does, for messages
    :raises TrafficError: AWS refused, could not be reached, or throttled for all rounds
    """
    from botocore.exceptions import BotoCoreError, ClientError

    for turn in range(ROUNDS):
        try:
            return call()
        except ClientError as error:
            if error_code(error) not in THROTTLED:
                raise TrafficCallError(
                    f"{doing}: AWS says {reason(error)}", error_code(error)
                ) from error
        except BotoCoreError as error:
            raise TrafficCallError(f"{doing}: {reason(error)}", "") from error
        # Full jitter: those who were throttled together do not come back together.
        time.sleep(random.uniform(0.1, min(LONGEST_PAUSE, 0.5 * 2**turn)))  # noqa: S311
    raise TrafficCallError(
        f"{doing}: AWS still throttles after {ROUNDS * ATTEMPTS} calls. Take fewer targets at the "
        "same time, or ask for higher limits.",
        "Throttling",
    )


def pages(made: BaseClient, operation: str, key: str, **arguments: Any) -> list[Any]:
    """Return all entries of an answer that comes in pages; each page is asked for patiently."""
    found: list[Any] = []
    iterator: Iterable[dict[str, Any]] = made.get_paginator(operation).paginate(**arguments)
    for page in iterator:
        found += page.get(key) or []
    return found


def parts(items: list[str], size: int) -> list[list[str]]:
    """Cut a list into lists of at most this length."""
    return [items[start : start + size] for start in range(0, len(items), size)]
