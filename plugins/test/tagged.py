# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A test for inventories: does an instance meet CodeDeploy's tag filters."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._tags import is_tagged


def tagged(tags: dict[str, t.Any], wanted: t.Any) -> bool:
    """Tell whether tags meet filters."""
    try:
        return is_tagged(tags, wanted)
    except UsageError as error:
        raise AnsibleFilterError(str(error)) from error


class TestModule:
    """The tests of this file."""

    def tests(self) -> dict[str, t.Callable[..., bool]]:
        """Return them by name."""
        return {"tagged": tagged}
