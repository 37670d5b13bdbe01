# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of deployments: a database that all controllers and faces share.

Import names from here only.
"""

from __future__ import annotations

from ._again import PATIENCE_SECONDS
from ._alarms import AlarmPoll
from ._auditing import (
    AuditReport,
    export_audit,
    newest_audit,
    verify_audit,
    verify_audit_file,
)
from ._functions import FunctionVersion
from ._gating import GateDecision, GateLook, GateRun
from ._holder import is_gone, this_controller
from ._known import GoodDeployment, GroupState, KnownRevision
from ._lease import BEAT_SECONDS, LEASE_SECONDS, Lease
from ._location import state_folder, warm
from ._notice import listen, tell
from ._notifying import NotificationKey
from ._rows import (
    ActiveDeploymentError,
    Admission,
    Approval,
    BundleHolder,
    Deployment,
    Event,
    NewDeployment,
    RevisionRow,
    Target,
    TargetState,
    group_id,
)
from ._scaling import Hold
from ._served import ServedRecord, employ_clerk
from ._shifting import MOVING, RoutingChange, Step, is_retiring
from ._store import Record
from ._upgrade import RecordVersion, record_version, upgrade_record

__all__ = [
    "BEAT_SECONDS",
    "LEASE_SECONDS",
    "MOVING",
    "PATIENCE_SECONDS",
    "ActiveDeploymentError",
    "Admission",
    "AlarmPoll",
    "Approval",
    "AuditReport",
    "BundleHolder",
    "Deployment",
    "Event",
    "FunctionVersion",
    "GateDecision",
    "GateLook",
    "GateRun",
    "GoodDeployment",
    "GroupState",
    "Hold",
    "KnownRevision",
    "Lease",
    "NewDeployment",
    "NotificationKey",
    "Record",
    "RecordVersion",
    "RevisionRow",
    "RoutingChange",
    "ServedRecord",
    "Step",
    "Target",
    "TargetState",
    "employ_clerk",
    "export_audit",
    "group_id",
    "is_gone",
    "is_retiring",
    "listen",
    "newest_audit",
    "record_version",
    "state_folder",
    "tell",
    "this_controller",
    "upgrade_record",
    "verify_audit",
    "verify_audit_file",
    "warm",
]
