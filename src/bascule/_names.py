"""What the package offers, each from where it is; see ``bascule/__init__.py``."""

from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    BasculeError,
    RecordError,
    UsageError,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import Event

from bascule._audit import audit_events, audit_export, audit_verify
from bascule._control import approve, continue_, follow, reject, stop
from bascule._drift import Finding, TargetDrift, drift
from bascule._groups import Group, GroupTarget, group, outdated
from bascule._import import Imported, import_codedeploy
from bascule._permissions import iam_policy
from bascule._plans import apply, plan
from bascule._push import Pushed, push
from bascule._revisions import mark_revision, revision, revisions
from bascule._simulate import simulate
from bascule._targets import InventoryTarget, targets
from bascule._upgrade import record_version, upgrade_record
from bascule.api import abandon, deploy, events, history, resume, rollback, status, strategies
from bascule.result import Deployment, DeploymentError, Failure, Plan, Revision, Target

__all__ = [
    "BasculeError",
    "Deployment",
    "DeploymentError",
    "Event",
    "Failure",
    "Finding",
    "Group",
    "GroupTarget",
    "Imported",
    "InventoryTarget",
    "Plan",
    "Pushed",
    "RecordError",
    "Revision",
    "Target",
    "TargetDrift",
    "UsageError",
    "abandon",
    "apply",
    "approve",
    "audit_events",
    "audit_export",
    "audit_verify",
    "continue_",
    "deploy",
    "drift",
    "events",
    "follow",
    "group",
    "history",
    "iam_policy",
    "import_codedeploy",
    "mark_revision",
    "outdated",
    "plan",
    "push",
    "record_version",
    "reject",
    "resume",
    "revision",
    "revisions",
    "rollback",
    "simulate",
    "status",
    "stop",
    "strategies",
    "targets",
    "upgrade_record",
]
