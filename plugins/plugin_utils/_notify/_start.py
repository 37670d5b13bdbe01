# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the process that tells, beside ansible-playbook: nothing of a deployment waits for it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .._record import this_controller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...module_utils._notifications import Channel

_MODULE = "ansible_collections.bascule.deploy.plugins.plugin_utils._notify._process"


def start(url: str | None, deployment_id: str, channels: Sequence[Channel]) -> int:
    """Start it for a deployment of the record at ``url``; return its process id.

    The channels go over its standard input: their addresses are secrets, and every user of the
    machine sees the list of processes.
    """
    given = os.environ.get("PYTHONPATH")
    folders = [Path(folder) for folder in sys.modules["ansible_collections"].__path__]
    own = [str(folder.parent) for folder in folders if (folder / "bascule" / "deploy").is_dir()]
    order = {
        "record": url,
        "deployment": deployment_id,
        "controller": dataclasses.asdict(this_controller()),
        "channels": [{**dataclasses.asdict(one), "events": sorted(one.events)} for one in channels],
    }
    # In a session of its own: Ctrl-C ends the deployment, and somebody is to be told so.
    process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
        [sys.executable, "-c", f"import {_MODULE} as teller; teller.main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*own, *([given] if given else [])])},
    )
    if process.stdin is not None:
        with process.stdin as stream:
            stream.write(json.dumps(order).encode())
    # It outlives this worker; nobody waits for it.
    process.returncode = 0
    return process.pid
