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
    "before_allow": ("BeforeAllowTraffic",),
}
# The spans of a target behind a load balancer, in their order.
BALANCED = ("before_block", "install", "after_allow")
# Those of a target in an idle pool.
POOLED = ("idle", "before_allow", "after_allow")

Hooks = t.Mapping[str, t.Any]


def needs_host(span: str, *, hooks: Hooks, previous_hooks: Hooks) -> bool:
    """Tell whether a span has anything to do on the host.

    :param hooks: the new revision's hooks, by event
    :param previous_hooks: those of the last successful revision, which runs BeforeBlockTraffic
    """
    if span == "before_block":
        return bool(previous_hooks.get("BeforeBlockTraffic"))
    if span == "before_allow":
        return bool(hooks.get("BeforeAllowTraffic"))
    if span == "after_allow":
        return bool(hooks.get("AfterAllowTraffic"))
    return True


def later(span: str) -> list[str]:
    """Return the events of the spans that come after one."""
    if span == "all":
        return []
    way = POOLED if span in POOLED and span != "after_allow" else BALANCED
    return [event for one in way[way.index(span) + 1 :] for event in SPANS[one]]


def is_final(span: str, *, hooks: Hooks) -> bool:
    """Tell whether the host has nothing more to do in this deployment after the span."""
    if span in ("install", "before_allow"):
        return not hooks.get("AfterAllowTraffic")
    if span == "idle":
        return not (hooks.get("BeforeAllowTraffic") or hooks.get("AfterAllowTraffic"))
    return span in ("all", "after_allow")
