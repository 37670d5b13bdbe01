# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge a revision before anybody deploys it: what is refused, what is accepted and hazardous."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import (
    _appspec,
    _appspec_lambda,
    _appspec_rules,
    _appspec_yaml,
    _findings_appspec,
    _findings_files,
)
from ._errors import ArchiveError, BasculeError
from ._findings_model import Finding
from ._host import _archive, _tree

if TYPE_CHECKING:
    from ._host._tree import Tree

# A bundle that unpacks to more is not unpacked just to look at it.
MAX_UNPACKED = 16 * 1024**3
_LOOK = 65_536
_VERSION = re.compile(rb"""^["']?version["']?\s*:""", re.MULTILINE)


@dataclass(frozen=True)
class Validation:
    """The judgement on a revision; ``appspec`` is its parsed tree, None if it was refused.

    Accepted means that CodeDeploy's agent and Bascule take it. Findings of severity ``error`` are
    what it is rejected for; ``warning`` and ``info`` are hazards, in the order of their lines.
    """

    accepted: bool
    findings: list[Finding] = field(default_factory=list)
    appspec: dict[str, Any] | None = None


def validate(path: str | Path, *, strict: str | None = None) -> Validation:
    """Check a revision's folder, its archive, or an AppSpec file by itself, for hosts or Lambda.

    :param strict: ``agent-v1`` or ``agent-v2`` to refuse exactly what that agent refuses
    :raises AppSpecError: for a strictness that does not exist
    :raises OSError: for a path that cannot be read
    """
    _appspec_rules.check_strict(strict)
    path = Path(path)
    if path.is_dir():
        return _folder(path, strict)
    try:
        _archive.detect(str(path))
    except ArchiveError as error:
        if path.suffix.lower() in (".yml", ".yaml", ".json") or _looks_like_appspec(path):
            return _judge(path.read_bytes(), None, None, strict, path.name)
        return _rejected(error)
    return _packed(path, strict)


def _looks_like_appspec(path: Path) -> bool:
    """Tell whether a file that is no archive is an AppSpec file of another name."""
    if path.suffix.lower() in (".tgz", ".tar", ".gz", ".zip"):
        return False
    with path.open("rb") as file:
        return _VERSION.search(file.read(_LOOK)) is not None


def _packed(path: Path, strict: str | None) -> Validation:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="bascule-validate-") as folder:
        top = Path(folder) / "archive"
        top.mkdir()
        try:
            warnings = _archive.unpack(str(path), str(top), limit=MAX_UNPACKED, outside_links=True)
            _open_up(top)
            _tree.strip_wrapper(str(top))
        except BasculeError as error:
            return _rejected(error)
        result = _folder(top, strict)
    extra = [Finding("warning", "archive", 0, 0, text) for text in warnings]
    return Validation(result.accepted, extra + result.findings, result.appspec)


def _open_up(top: Path) -> None:
    """Let ourselves into folders that the archive closed, so that they can be read and removed."""
    for folder in [top, *(path for path in top.rglob("*") if path.is_dir())]:
        if not folder.is_symlink():
            folder.chmod(folder.stat().st_mode | 0o700)


def _folder(top: Path, strict: str | None) -> Validation:
    file = _appspec.find_appspec(top)
    if file is None:
        message = (
            "The revision has no AppSpec file at its top. Add appspec.yml there; see the AppSpec"
            " reference of CodeDeploy's user guide."
        )
        return Validation(False, [Finding("error", "appspec-missing", 0, 0, message)])
    try:
        tree = _tree.scan(str(top))
    except BasculeError as error:
        return _rejected(error)
    return _judge(file.read_bytes(), tree, top, strict, file.name)


def _rejected(error: BasculeError) -> Validation:
    return Validation(False, [Finding("error", error.kind, 0, 0, str(error))])


def _judge(
    text: bytes, tree: Tree | None, top: Path | None, strict: str | None, name: str
) -> Validation:
    try:
        told = _appspec_lambda.load(text)
        if _appspec_lambda.is_lambda(told):
            # A file beside the code of a package does not know its version yet.
            function = _appspec_lambda.build(told, published=tree is None)
            return Validation(True, _appspec_lambda.hazards(told, function), function)
        appspec = _appspec.parse_appspec(text, strict=strict)
    except _appspec_yaml.LocatedError as error:
        findings = [Finding("error", error.code, error.line, error.column, error.message)]
        return Validation(False, findings)
    root = _appspec_yaml.load(text)
    findings = _findings_appspec.hazards(text, root, appspec, name)
    if tree is not None and top is not None:
        findings += _findings_files.hazards(root, appspec, tree, top)
    findings.sort(key=lambda one: (one.line, one.column, one.code))
    return Validation(all(one.severity != "error" for one in findings), findings, appspec)
