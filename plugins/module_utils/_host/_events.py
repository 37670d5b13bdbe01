# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lifecycle events of a host, their order, and whose scripts they run, as data.

Orders and revision choice: AWS user guide "AppSpec hooks section"; hook_executor.rb (agent 1.8.1).
"""

from __future__ import annotations

STOP = ("BeforeBlockTraffic", "BlockTraffic", "AfterBlockTraffic")
INSTALL = (
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
)
START = ("BeforeAllowTraffic", "AllowTraffic", "AfterAllowTraffic")

# In place without and with a load balancer. BlockTraffic and AllowTraffic are done by the
# controller: on the host they only take their place in the journal.
IN_PLACE = INSTALL
IN_PLACE_WITH_LOAD_BALANCER = STOP + INSTALL + START

RESERVED = frozenset(("Start", "DownloadBundle", "Install", "BlockTraffic", "AllowTraffic", "End"))
HOOKS = tuple(event for event in IN_PLACE_WITH_LOAD_BALANCER if event not in RESERVED)

# Run the scripts of the last successful revision, until this deployment's own was downloaded.
OF_PREVIOUS = frozenset(("ApplicationStop", "BeforeBlockTraffic", "AfterBlockTraffic"))

# A failure here is passed over with ignore_application_stop_failures.
FORGIVABLE = OF_PREVIOUS

# Not CodeDeploy's: the health gates of the request, asked after ValidateService.
GATE = "HealthGate"

# Nor is this: the old version's ApplicationStart, after an installation that changed nothing.
START_OLD = "StartOldVersion"

# LifecycleErrorCode of the API, by the agent's number; the API has no name for 6 and 7.
ERROR_CODES = {
    0: "Success",
    1: "ScriptMissing",
    2: "ScriptNotExecutable",
    3: "ScriptTimedOut",
    4: "ScriptFailed",
    5: "UnknownError",
    6: "UnknownError",
    7: "UnknownError",
}
