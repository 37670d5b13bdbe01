# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller asks of a host, as plain data."""

from __future__ import annotations

import typing as t

from ..module_utils._configuration import parse_duration

if t.TYPE_CHECKING:
    from ._record import RevisionRow
    from ._revisions import Revision

GATE_SECONDS = ("interval", "timeout", "hold", "deadline")


def host_request(
    operation: str,
    deployment: dict[str, t.Any],
    revision: RevisionRow | Revision,
    settings: dict[str, t.Any],
    *,
    target: str,
    check: bool = False,
    diff: bool = False,
    manifest: list[dict[str, t.Any]] | None = None,
) -> dict[str, t.Any]:
    """Return the request for ``module_utils/_host/_entry.run``.

    :param deployment: the fact ``bascule_deployment``
    :param settings: values of ``HOST_OPTIONS``
    :param manifest: the revision's files; needed in check mode, where no bundle is sent
    """
    return {
        "operation": operation,
        "check": check,
        "diff": diff,
        "target": target,
        "root": settings["root"],
        "sysroot": settings["sysroot"],
        "deployment": {
            key: deployment[key]
            for key in ("id", "group_id", "application", "group", "creator", "strategy")
        },
        "revision": {
            "digest": revision.digest,
            "bundle": {
                "sha256": revision.bundle_sha256,
                "size": revision.bundle_size,
                "type": revision.bundle_type,
            },
            "appspec": revision.appspec,
            "environment": revision.environment,
            "manifest": manifest or [],
        },
        "options": {
            key: settings[key]
            for key in (
                "file_exists_behavior",
                "ignore_application_stop_failures",
                "start_again",
                "retained_revisions",
                "hook_environment",
                "layout",
                "release_directory",
                "release_link",
                "shared_paths",
                "releases_to_keep",
                "pool",
                "outside_links",
                "redeploy",
            )
        },
        "gates": [gate_request(gate) for gate in settings["gates"]],
    }


def gate_request(gate: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return a gate without its unset options and with its durations in seconds."""
    asked = {key: value for key, value in gate.items() if value is not None}
    for key in GATE_SECONDS:
        if key in asked:
            asked[key] = parse_duration(asked[key], f"deploy_health_gates: {key}")
    return asked
