# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Import our own modules from their bytecode, as Python does with those of every other package.

Ansible's loader of collections compiles each module anew in each process (``get_code`` of its
``_AnsibleCollectionPkgLoaderBase``); of all that a deployment imports, this is a third of the time
until it begins. The modules are the same ones from the same files, and where no bytecode can be
written they are compiled as before.
"""

from __future__ import annotations

import importlib.machinery
import sys
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

_HOME = __name__.rpartition(".plugin_utils.")[0]
_OURS = (f"{_HOME}.module_utils.", f"{_HOME}.plugin_utils.")
_SOURCE = (importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES)


class Finder:
    """Finds what lies below ``module_utils`` and ``plugin_utils``; all else is for others."""

    def __init__(self) -> None:
        """Know no folder yet."""
        self._folders: dict[str, importlib.machinery.FileFinder] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where a module of ours is, by the path of its package (PEP 451)."""
        if not path or not name.startswith(_OURS):
            return None
        folder = str(next(iter(path)))
        if folder not in self._folders:
            self._folders[folder] = importlib.machinery.FileFinder(folder, _SOURCE)
        spec = self._folders[folder].find_spec(name, target)
        # A folder without code is Ansible's to make a package of.
        return spec if spec is not None and spec.loader is not None else None


def install() -> None:
    """Have the modules found by it that one of Ansible's programs imports from now on.

    Elsewhere Python itself finds them, and looks for their bytecode.
    """
    if "ansible.cli" in sys.modules:
        sys.meta_path.insert(0, Finder())
