# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lifecycle of an in-place deployment, cut where the controller moves the traffic.

Order: CodeDeploy user guide, "List of lifecycle event hooks"; BlockTraffic and AllowTraffic belong
to the load balancer and are therefore in no span.
"""

from __future__ import annotations

import typing as t

INSTALLATION = (
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
)
SPANS: dict[str, tuple[str, ...]] = {
    "all": INSTALLATION,
    "before_block": ("BeforeBlockTraffic",),
    "install": ("AfterBlockTraffic", *INSTALLATION, "BeforeAllowTraffic"),
    "after_allow": ("AfterAllowTraffic",),
    # A target of a pool that no user reaches; the traffic comes to the whole pool at once.
    "idle": INSTALLATION,
    "after_test": ("AfterAllowTestTraffic",),
    "before_allow": ("BeforeAllowTraffic",),
    # A target of the pool that users leave or go back to: what is installed there runs.
    "leaving": ("BeforeBlockTraffic",),
    "left": ("AfterBlockTraffic",),
    "leave": ("BeforeBlockTraffic", "AfterBlockTraffic"),
    "returned": ("BeforeAllowTraffic", "AfterAllowTraffic"),
}
# The spans of a target behind a load balancer, in their order.
BALANCED = ("before_block", "install", "after_allow")
# Those of a target in an idle pool.
POOLED = ("idle", "after_test", "before_allow", "after_allow")
# Those of targets that the deployment does not change.
ASIDE = ("leaving", "left", "leave", "returned")

Hooks = t.Mapping[str, t.Any]


def needs_host(span: str, *, hooks: Hooks, previous_hooks: Hooks) -> bool:
    """Tell whether a span has anything to do on the host.

    :param hooks: the new revision's hooks, by event
    :param previous_hooks: those of the last successful revision, which runs BeforeBlockTraffic
    """
    if span == "before_block":
        return bool(previous_hooks.get("BeforeBlockTraffic"))
    if span in ("after_test", "before_allow", "after_allow"):
        return any(hooks.get(event) for event in SPANS[span])
    return True


def later(span: str) -> list[str]:
    """Return the events of the spans that come after one."""
    if span == "all" or span in ASIDE:
        return []
    way = POOLED if span in POOLED and span != "after_allow" else BALANCED
    return [event for one in way[way.index(span) + 1 :] for event in SPANS[one]]


def is_final(span: str, *, hooks: Hooks) -> bool:
    """Tell whether the host has nothing more to do in this deployment after the span.

    :param hooks: those that this deployment runs, by event
    """
    if span == "install":
        return not hooks.get("AfterAllowTraffic")
    if span in POOLED:
        return not any(hooks.get(event) for event in later(span))
    return span == "all"
