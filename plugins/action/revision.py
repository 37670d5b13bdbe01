# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mark a revision bad, or take the mark back."""

from __future__ import annotations

import typing as t

from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    Arguments,
    BasculeAction,
    Result,
    Variables,
    open_record,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._revision_names import find_known


class ActionModule(BasculeAction):
    phase = "revision"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        "revision": {"type": "str", "required": True},
        "application": {"type": "str", "default": ""},
        "state": {"type": "str", "choices": ["bad", "good"], "required": True},
        "why": {"type": "str", "default": ""},
        "record": {"type": "str", "default": "", "no_log": True},
        "state_directory": {"type": "str", "default": ""},
    }

    def act(self, arguments: Arguments, _variables: Variables) -> Result:
        bad = arguments["state"] == "bad"
        with open_record(arguments) as record:
            known = find_known(record, arguments["revision"], arguments["application"] or None)
            why = arguments["why"] if bad else ""
            changed = (known.bad, known.why) != (bad, why)
            if changed and not self.checking:
                record.mark_revision(known.application, known.digest, bad=bad, why=arguments["why"])
        return {
            "changed": changed,
            "msg": f"{known.digest[:12]} of {known.application} is {arguments['state']}",
            "bascule": {
                "application": known.application,
                "digest": known.digest,
                "bad": bad,
                "why": arguments["why"],
            },
        }
