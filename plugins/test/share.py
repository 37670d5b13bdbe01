# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the requests that a load balancer has counted show a share of the traffic."""

from __future__ import annotations

import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._configuration import parse_duration
from ansible_collections.bascule.deploy.plugins.module_utils._realised import has_been_seen

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def share_seen(seen: Mapping[str, t.Any], wanted: Mapping[str, t.Any]) -> bool:
    """Tell whether there is nothing more to wait for.

    :param seen: what ``bascule.deploy.traffic`` returned with ``state: measured``
    :param wanted: ``since``, the same from before, ``weights`` and ``patience``, a duration
    """
    patience = parse_duration(wanted["patience"], "deploy_share_timeout")
    return has_been_seen(_counted(wanted["since"]), _counted(seen), wanted["weights"], patience)


def _counted(answer: Mapping[str, t.Any]) -> list[Mapping[str, t.Any]]:
    """Return what each load balancer has counted."""
    return list(answer.get("counted") or [answer])


class TestModule:
    """The tests of this file."""

    def tests(self) -> dict[str, Callable[..., bool]]:
        """Return the tests by name."""
        return {"share_seen": share_seen}
