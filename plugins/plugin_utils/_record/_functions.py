# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the record that Lambda functions use: which version a deployment published."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...module_utils._functions import PLATFORM
from ._known import needed_digests
from ._session import Query
from ._transactions import Transactions

if TYPE_CHECKING:
    from ._change import Change
    from ._session import Session

_TABLE = "function_versions"
# How many deployments of one function are looked through for a version.
_LOOKED_AT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionVersion:
    """What a deployment moves an alias between.

    ``function`` is its ARN without a qualifier. ``old_version`` is where the alias led before, None
    if there was no alias; ``version`` holds the revision ``digest``.
    """

    deployment_id: str
    target: str
    function: str
    alias: str
    old_version: str | None
    version: str
    code_sha256: str
    digest: str
    at: float

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for JSON."""
        return asdict(self)


class FunctionRecord(Transactions):
    """Each method is a transaction of its own, as are those of ``Record``."""

    def note_function(
        self,
        deployment_id: str,
        target: str,
        *,
        function: str,
        alias: str,
        old_version: str | None,
        version: str,
        code_sha256: str,
    ) -> FunctionVersion:
        """Write down what a target's alias is moved between, before it is moved.

        What was written first stands: a resumed deployment finds the alias moved already.
        """

        def note(change: Change) -> dict[str, Any]:
            change.target(target)
            key = {"deployment_id": deployment_id, "target": target}
            known = change.session.rows(Query(table=_TABLE, equals=key))
            if known:
                return known[0]
            row = {
                **key, "function": function, "alias": alias, "old_version": old_version,
                "version": version, "code_sha256": code_sha256,
                "digest": change.deployment["digest"], "at": change.now,
            }  # fmt: skip
            change.session.insert(_TABLE, [row])
            words = f"version {version}, the alias {alias} leads to {old_version or 'nothing yet'}"
            change.note("Published", target, message=words)
            return row

        return FunctionVersion(**self._change(deployment_id, note, synced=True))

    def functions(self, deployment_id: str) -> dict[str, FunctionVersion]:
        """Return what a deployment moves, by target."""
        query = Query(table=_TABLE, equals={"deployment_id": deployment_id}, order=("target",))
        rows = self._read(lambda session: session.rows(query))
        return {row["target"]: FunctionVersion(**row) for row in rows}

    def needed_packages(self, newest: int = 5) -> set[str]:
        """Return the SHA-256 of the code, as Lambda tells it, of what may be gone back to.

        :param newest: as for ``needed_digests``
        """

        def read(session: Session) -> set[str]:
            digests = tuple(sorted(needed_digests(session, newest)))
            query = Query(
                table="deployments", columns=("digest", "revision"), among=("digest", digests)
            )
            rows = {row["digest"]: row["revision"] for row in session.rows(query)}
            appspecs = [json.loads(revision)["appspec"] for revision in rows.values()]
            return {
                function["code_sha256"]
                for appspec in appspecs
                if appspec.get("platform") == PLATFORM
                for function in appspec["functions"].values()
                if "ImageUri" not in function["place"]
            }

        return self._read(read)

    def function_history(
        self, function: str, alias: str, digest: str | None = None
    ) -> list[FunctionVersion]:
        """Return what was deployed to an alias, the newest first; of one revision or of all."""
        wanted = {"function": function, "alias": alias}
        if digest is not None:
            wanted["digest"] = digest
        query = Query(table=_TABLE, equals=wanted, order=("-at",), limit=_LOOKED_AT)
        return [FunctionVersion(**row) for row in self._read(lambda session: session.rows(query))]
