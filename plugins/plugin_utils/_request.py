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

HOST_OPTIONS: dict[str, dict[str, t.Any]] = {
    "root": {"type": "str", "required": True},
    "sysroot": {"type": "str", "default": ""},
    "file_exists_behavior": {"type": "str", "default": "DISALLOW"},
    "ignore_application_stop_failures": {"type": "bool", "default": False},
    "start_again": {
        "type": "str",
        "choices": ["refused", "unchanged", "never"],
        "default": "refused",
    },
    "retained_revisions": {"type": "int", "default": 5},
    "hook_environment": {"type": "dict", "default": {}, "no_log": True},
    "layout": {"type": "str", "choices": ["copy", "release"], "default": "copy"},
    "release_directory": {"type": "str", "default": ""},
    "release_link": {"type": "str", "default": ""},
    "shared_paths": {"type": "list", "elements": "str", "default": []},
    "releases_to_keep": {"type": "int", "default": 5},
    "pool": {"type": "str", "default": ""},
    "outside_links": {"type": "bool", "default": False},
    "redeploy": {"type": "bool", "default": False},
    "gates": {"type": "list", "elements": "dict", "default": []},
    "reconnect_timeout": {"type": "raw", "default": "60s"},
}
"""Options of an action that asks a host for something; the role fills them from its variables."""


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
