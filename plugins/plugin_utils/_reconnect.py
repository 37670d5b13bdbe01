# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Go on with a host whose connection was lost, or that is rebooting.

The host program outlives its connection, waits for its own deployment's running call and keeps a
journal. So the same request is simply sent again until the host answers.
"""

from __future__ import annotations

import dataclasses
import re
import time
import typing as t

from ansible.errors import AnsibleConnectionFailure

from ..module_utils._errors import HostError
from ._action import tell

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from ansible.plugins.action import ActionBase

# What ssh says when it never came to a session on the host.
NEVER_MADE = (
    "ssh: connect to host",
    "ssh: could not resolve hostname",
    "host key verification failed",
    "permission denied (",
)
# ssh notices a host that went dark after the product of the two, in seconds.
KEEP_ALIVE = {"ServerAliveInterval": 5, "ServerAliveCountMax": 3}
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 5.0
# A connection that lasted longer was there: what follows is a new loss, with all its time.
HELD = 30.0
# What else ssh says in these cases, and what a person can do about it.
_CHANGED = "remote host identification has changed"
_OFFENDING = re.compile(r"^Offending \S+ key in (\S+?)\r?$", re.M)
_PREFIXES = (
    re.compile(r"^Failed to connect to the host via [\w-]+:"),
    re.compile(r"^Data could not be sent to remote host .*?reached over ssh[:.]", re.I),
)
# How often such a loss, or a killed program, is put up with: each may repeat a script.
LOSSES = 5


class KilledError(HostError):
    """The host program was ended by a signal, as a host does that goes down."""


@dataclasses.dataclass
class Patience:
    """How long a host is waited for, and how much of that is used; all times in seconds."""

    limit: float
    away: float = 0.0
    pause: float = FIRST_PAUSE
    losses: int = 0

    def lost(self, reason: str, lasted: float, *, killed: bool = False) -> float | None:
        """Take note of a failed attempt; return the pause before the next, None for no more.

        :param reason: what the connection said
        :param lasted: how long the attempt took
        """
        if lasted >= HELD and not never_made(reason):
            self.away = 0.0
            self.pause = FIRST_PAUSE
            self.losses += 1
        else:
            self.away += lasted if self.away else 0.0
            self.losses += killed
        left = self.limit - self.away
        if left <= 0 or self.losses > LOSSES:
            return None
        pause = min(self.pause, left)
        self.away += pause
        self.pause = min(LONGEST_PAUSE, self.pause * 2)
        return pause


def never_made(reason: str) -> bool:
    """Tell whether ssh never came to a session on the host."""
    text = reason.lower()
    return any(mark in text for mark in NEVER_MADE)


def persist(
    action: ActionBase,
    attempt: Callable[[], dict[str, t.Any]],
    *,
    host: str,
    limit: float,
    new: bool,
) -> dict[str, t.Any]:
    """Return what an attempt returns, made again while the host cannot be reached.

    :param host: what the host is called in messages
    :param limit: seconds without a connection after which the host counts as lost; 0 for at once
    :param new: nothing was done on the host so far, so one that does not answer at all is down
    :raises HostError: the host was not reached in time
    """
    patience = Patience(limit)
    connection = action._connection
    _watch(connection)
    while True:
        begun = time.monotonic()
        try:
            if patience.away:
                _renew(connection)
            return attempt()
        except AnsibleConnectionFailure as error:
            reason, killed = why(str(error)), False
        except KilledError as error:
            reason, killed = str(error), True
        lasted = time.monotonic() - begun
        tried = patience.away
        down = new and not tried and never_made(reason)
        pause = None if down else patience.lost(reason, lasted, killed=killed)
        if pause is None:
            raise HostError(_given_up(reason, patience, tried, killed=killed))
        if not tried:
            _tell(host, reason, limit)
        time.sleep(pause)


def _given_up(reason: str, patience: Patience, tried: float, *, killed: bool) -> str:
    text = reason if killed else f"Cannot reach the host: {reason}"
    if patience.losses > LOSSES:
        return f"{text} This was the {patience.losses}th time: given up."
    if tried:
        text = f"{text.rstrip('.')}. Given up after {tried:.0f} s (deploy_reconnect_timeout)."
    return text


def _tell(host: str, reason: str, limit: float) -> None:
    until = time.strftime("%H:%M:%S", time.localtime(time.time() + limit))
    tell(
        f"{host}: the connection was lost ({reason.rstrip('.')}). Trying again until {until}; what"
        " runs on the host goes on."
    )


def _watch(connection: t.Any) -> None:
    """Let ssh notice a host that goes dark, unless its options say how."""
    if getattr(connection, "transport", "") != "ssh":
        return
    names = ("ssh_args", "ssh_common_args", "ssh_extra_args")
    given = {name: str(connection.get_option(name) or "") for name in names}
    if "serveralive" in " ".join(given.values()).lower():
        return
    more = " ".join(f"-o {name}={value}" for name, value in KEEP_ALIVE.items())
    connection.set_option("ssh_extra_args", f"{given['ssh_extra_args']} {more}".strip())


def _renew(connection: t.Any) -> None:
    """Leave a connection that is kept open, which may lead to a host as it was before."""
    reset = getattr(connection, "reset", None)
    if reset is not None:
        reset()
    # A folder made over the lost connection may be gone with it.
    connection._shell.tmpdir = None


def why(text: str) -> str:
    """Return the last thing that ssh said, without what Ansible says before it, and what to do."""
    for prefix in _PREFIXES:
        text = prefix.sub("", text.strip())
    lines = text.strip().splitlines()
    if not lines:
        return "it was closed"
    last = lines[-1].strip()
    return f"{last.rstrip('.')}{advice}" if (advice := _advice(text)) else last


def _advice(text: str) -> str:
    """Return what a person can do about what ssh said; mostly nothing is added."""
    if _CHANGED in text.lower():
        known = _OFFENDING.search(text)
        place = f" that {known[1]} has" if known else " that is known"
        return (
            f": the host shows another key than the one{place}. If it was made anew, remove that "
            "line and let its new key be known; if not, somebody is between you and the host."
        )
    if "host key verification failed" in text.lower():
        return (
            ": no key of the host is known. Log in once by ssh and compare the key, or add it to "
            "known_hosts."
        )
    if "permission denied (" in text.lower():
        return ". See that ansible_user and the key of ssh are those of the host."
    return ""
