# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that tells: a thread for each channel, so that none waits for another.

It ends when its controller has ended and nothing is left to tell, and in any case some time after.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import IO, Any

from ...module_utils._errors import RecordError
from ...module_utils._notifications import Channel
from .._record import Record, is_gone
from ._delivery import catch_up, deliver

# A record that is away is asked again; whoever needs it says so.
_PAUSE_SECONDS = 2.0
# What is left when the controller has ended may take this long.
GRACE_SECONDS = 60.0


def main(source: IO[str] = sys.stdin) -> None:
    """Read the order (see ``_start``) and carry it out."""
    order = json.load(source)
    about = order["controller"]
    ended: list[float] = []

    def go_on() -> bool:
        gone = is_gone(about["host"], about["boot"], about["pid"], about["started"])
        if gone is not False and not ended:
            ended.append(time.monotonic())
        return not ended

    threads = [
        threading.Thread(target=work, args=(order, Channel(**one), go_on), daemon=True)
        for one in order["channels"]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(1.0)
            if ended and time.monotonic() - ended[0] > GRACE_SECONDS:
                return


def work(order: dict[str, Any], channel: Channel, go_on: Any) -> None:
    """Tell one channel."""
    while True:
        try:
            with Record.open(order["record"], patience=30.0) as record:
                catch_up(record, order["deployment"], channel)
                deliver(record, order["deployment"], channel, go_on)
        except RecordError:
            if not go_on():
                return
            time.sleep(_PAUSE_SECONDS)
        else:
            return
