# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a target and bring the bundle to it; nothing live is touched."""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    BasculeError,
    HostError,
    RevisionError,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    Arguments,
    Result,
    Variables,
    open_record,
    state_directory,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import bundle_address
from ansible_collections.bascule.deploy.plugins.plugin_utils._scaling import leave_if_gone
from ansible_collections.bascule.deploy.plugins.plugin_utils._target import (
    TARGET_OPTIONS,
    TargetAction,
)

if t.TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
        Record,
        RevisionRow,
    )


class ActionModule(TargetAction):
    phase = "stage"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        **TARGET_OPTIONS,
        "delivery": {"type": "str", "choices": ["auto", "push", "pull"], "default": "auto"},
    }

    def act(self, arguments: Arguments, variables: Variables) -> Result:
        begun = time.monotonic()
        if self.checking:
            answer, sent = self.ask(arguments, variables, self.cached(arguments)), 0
        else:
            with open_record(arguments) as record:
                answer, sent = self._deliver(arguments, variables, record)
        status = "Failed" if answer.get("failed") else "Staged"
        if answer.get("current"):
            status = "Current"
        answer["bascule"] = {
            "target": variables["inventory_hostname"],
            "status": status,
            "seconds": round(time.monotonic() - begun, 3),
            "bytes_sent": sent,
            "previous": answer.get("previous"),
            "release": answer.get("release"),
        }
        if answer.get("failed"):
            kind = answer.get("error", {}).get("kind", "host")
            answer["bascule"]["error"] = {"kind": kind, "message": answer.get("msg", "")}
        return answer

    def _deliver(
        self, arguments: Arguments, variables: Variables, record: Record
    ) -> tuple[Result, int]:
        """Stage the target and write the outcome down; return the answer and the bytes sent."""
        deployment = arguments["deployment"]
        target = variables["inventory_hostname"]
        if deployment.get("resumed"):
            ended = self._decided(deployment["id"], target, record)
            if ended is not None:
                return ended, 0
        try:
            answer, sent = self._send(arguments, variables, record)
        except BasculeError as error:
            if left := leave_if_gone(record, deployment["id"], target, error.kind):
                raise HostError(left) from error
            record.settle(
                deployment["id"],
                target,
                "Failed",
                error_code=error.kind,
                message=str(error),
            )
            raise
        if answer.get("failed"):
            kind = answer.get("error", {}).get("kind", "host")
            if left := leave_if_gone(record, deployment["id"], target, kind):
                return {**answer, "msg": left}, sent
            record.settle(
                deployment["id"],
                target,
                "Failed",
                error_code=kind,
                message=answer["msg"],
            )
        elif answer.get("current"):
            if events := answer.pop("events", None):
                # This deployment was done with it, but was interrupted before it was told so.
                record.add_events(deployment["id"], target, events)
            record.note_current(deployment["id"], target)
        else:
            record.note_staged(deployment["id"], target, digest_present=True)
        return answer, sent

    def _send(
        self, arguments: Arguments, variables: Variables, record: Record
    ) -> tuple[Result, int]:
        """Ask without the bundle where the target should have it, and send it where it has not."""
        deployment = arguments["deployment"]
        revision = self.recorded(arguments, record).revision
        target = variables["inventory_hostname"]
        held = record.has_bundle(
            deployment["application"], deployment["group"], target, revision.digest
        )
        address = None if held else self._address(arguments, revision)
        warnings: list[str] = []
        if held or address:
            more = {"url": address} if address else None
            answer = self.ask(arguments, variables, revision, more=more)
            warnings = answer.get("warnings") or []
            if not answer.get("needs_bundle"):
                return answer, 0
            if address and arguments["delivery"] == "pull":
                raise HostError(" ".join(warnings))
        bundle_path = revision.bundle_path
        if not bundle_path or not Path(bundle_path).is_file():
            bundle_path = self.cached(arguments).bundle_path
        answer = self.ask(arguments, variables, revision, bundle_path=bundle_path)
        answer["warnings"] = [*warnings, *(answer.get("warnings") or [])]
        return answer, revision.bundle_size

    def _address(self, arguments: Arguments, revision: RevisionRow) -> str | None:
        """Return where the target can fetch the bundle itself; None where it has to be sent."""
        if arguments["delivery"] == "push":
            return None
        folder = state_directory(arguments["state_directory"]) / "presigned"
        address = bundle_address(revision.environment, folder)
        if address is None and arguments["delivery"] == "pull":
            raise RevisionError(
                f"deploy_delivery is pull, but {revision.source} is not in S3, or its address "
                "cannot be signed on this controller. Deploy from s3://…, or set it to auto."
            )
        return address

    def _decided(self, deployment_id: str, target: str, record: Record) -> Result | None:
        """Return how a target ended before a deployment was interrupted; None if it has not."""
        for one in record.targets(deployment_id):
            if one.name == target and one.status == "Succeeded":
                return {"changed": False, "current": True, "msg": "succeeded before"}
            if one.name == target and one.status not in ("Pending", "InProgress"):
                error = {"kind": one.error_code or "host"}
                message = f"{one.status} before the interruption: {one.message}"
                return {"changed": False, "failed": True, "msg": message, "error": error}
        return None
