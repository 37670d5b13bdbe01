# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send one message to one channel, within its time."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

from ...module_utils._errors import BasculeError
from ...module_utils._notifications import (
    Channel,
    Told,
    eventbridge_entry,
    sentence,
    sns_message,
    subject,
    webhook_body,
)
from .._aws import client, reason

ATTEMPTS = 3
MASK = "********"
# A receiver that is overloaded or being restarted may take the next attempt.
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_PAUSE_SECONDS = 0.5


def send(channel: Channel, told: Told) -> str:
    """Send; return an empty text, or why it could not be done, without secrets."""
    try:
        {
            "sns": _sns,
            "eventbridge": _eventbridge,
            "webhook": _webhook,
            "command": _command,
        }[channel.kind](channel, told)
    except Exception as error:
        # Whatever it is, it is told, and nothing fails.
        return brief(redacted(channel, said(error)))
    return ""


def said(error: Exception) -> str:
    """Return an error as a sentence."""
    if isinstance(error, BasculeError):
        return str(error)
    if type(error).__module__.partition(".")[0] in ("botocore", "boto3"):
        return reason(error)
    return f"{type(error).__name__}: {error}"


def brief(text: str, most: int = 300) -> str:
    """Return a text as one line that is not too long: a gateway may answer with a whole page."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def redacted(channel: Channel, text: str) -> str:
    """Return a text without the channel's secrets."""
    for secret in sorted(channel.secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


@functools.cache
def _client(service: str, timeout: float) -> Any:
    return client(service, attempts=ATTEMPTS, connect=timeout, read=timeout)


@functools.cache
def _place(account: str, service: str, timeout: float) -> tuple[str, str]:
    """Return region and account of an ARN; without one those of the credentials."""
    if account:
        region, _colon, number = account.partition(":")
        return region, number
    from botocore.exceptions import BotoCoreError, ClientError

    region = str(_client(service, timeout).meta.region_name)
    try:
        return region, str(_client("sts", timeout).get_caller_identity()["Account"])
    except (BotoCoreError, ClientError):
        # Nobody needs the permission for this: the event is told without the account.
        return region, ""


def _sns(channel: Channel, told: Told) -> None:
    region, account = _place(channel.account, "sns", channel.timeout)
    _client("sns", channel.timeout).publish(
        TopicArn=channel.address,
        Subject=subject(told),
        Message=json.dumps(sns_message(told, channel, region=region, account=account)),
    )


def _eventbridge(channel: Channel, told: Told) -> None:
    region, account = _place(channel.account, "events", channel.timeout)
    entry = eventbridge_entry(told, channel, region=region, account=account)
    answer = _client("events", channel.timeout).put_events(Entries=[entry])
    for refused in answer.get("Entries") or ():
        if refused.get("ErrorCode"):
            raise OSError(f"{refused['ErrorCode']}: {refused.get('ErrorMessage', '')}")


def _webhook(channel: Channel, told: Told) -> None:
    body = json.dumps(webhook_body(told, channel)).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "bascule", **channel.headers}
    deadline = time.monotonic() + channel.timeout
    for attempt in range(1, ATTEMPTS + 1):
        left = max(0.1, deadline - time.monotonic())
        request = urllib.request.Request(  # noqa: S310 - http and https only, see parse_channels
            channel.address, data=body, headers=headers, method="POST"
        )
        try:
            with urllib.request.build_opener().open(request, timeout=left) as answer:
                answer.read(1024)
                return
        except urllib.error.HTTPError as error:
            with error:
                if error.code not in _AGAIN or _is_last(attempt, deadline):
                    raise OSError(f"the receiver answered {error.code} {error.reason}") from None
        except OSError as error:
            if _is_last(attempt, deadline):
                raise OSError(f"no answer: {getattr(error, 'reason', error)}") from None
        time.sleep(_PAUSE_SECONDS)


def _is_last(attempt: int, deadline: float) -> bool:
    return attempt == ATTEMPTS or time.monotonic() + _PAUSE_SECONDS >= deadline


def _command(channel: Channel, told: Told) -> None:
    """Run the command with the message on its standard input; it may take the channel's time."""
    message = {
        "event": told.trigger,
        "text": sentence(told),
        **sns_message(told, channel, region="", account=""),
    }
    about = {
        "BASCULE_EVENT": told.trigger,
        "BASCULE_TEXT": sentence(told),
        "BASCULE_DEPLOYMENT_ID": str(told.deployment["id"]),
        "BASCULE_TARGET": told.target,
    }
    try:
        done = subprocess.run(  # noqa: S603 - the command is the user's own setting
            channel.command,
            input=json.dumps(message).encode(),
            env={**os.environ, **about},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=channel.timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"the command did not end within {channel.timeout:g} s") from None
    if done.returncode:
        lines = done.stdout.decode("utf-8", "replace").strip().splitlines() or [""]
        raise OSError(f"the command ended with {done.returncode}: {lines[-1][:200]}".rstrip(": "))
