# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of an action that asks a host for something; the role fills them from its variables."""

from __future__ import annotations

from typing import Any

HOST_OPTIONS: dict[str, dict[str, Any]] = {
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
