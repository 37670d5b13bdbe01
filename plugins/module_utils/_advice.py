# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person can type next, in words that are the same wherever they are said."""

from __future__ import annotations


def ways_on(deployment_id: str) -> str:
    """Return the ways to go on with a deployment that nobody carries out and that has not ended."""
    return (
        f"Go on with it: `bascule resume {deployment_id}` (with the inventory and the variables "
        "that it had); end it and bring the changed targets "
        f"back: `bascule stop {deployment_id} --rollback`; or give it up as it is: "
        f"`bascule abandon {deployment_id}`. `bascule status {deployment_id}` shows how far it is."
    )


def paused_text(deployment_id: str, why: str) -> str:
    """Return the message of a deployment that was paused."""
    return f"{deployment_id} is paused ({why}). {ways_on(deployment_id)}"
