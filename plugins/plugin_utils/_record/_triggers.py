# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes the database itself refuse to change the audit.

These statements are never changed, because a migration of the past is written with them.
"""

from __future__ import annotations

_REFUSAL = "the audit of Bascule is only added to"

# A chain's end may move on, but neither back nor away.
_SQLITE = tuple(
    f"CREATE TRIGGER {name} BEFORE {when} BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
    for name, when in (
        ("audit_update", "UPDATE ON audit"),
        ("audit_delete", "DELETE ON audit"),
        ("audit_heads_update", "UPDATE ON audit_heads WHEN NEW.length <= OLD.length"),
        ("audit_heads_delete", "DELETE ON audit_heads"),
    )
)
_POSTGRESQL = (
    "CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$",
    *(
        f"CREATE TRIGGER {name} BEFORE {when} EXECUTE FUNCTION audit_refuse()"
        for name, when in (
            ("audit_update", "UPDATE OR DELETE ON audit FOR EACH ROW"),
            ("audit_truncate", "TRUNCATE ON audit FOR EACH STATEMENT"),
            (
                "audit_heads_update",
                "UPDATE ON audit_heads FOR EACH ROW WHEN (NEW.length <= OLD.length)",
            ),
            ("audit_heads_delete", "DELETE ON audit_heads FOR EACH ROW"),
            ("audit_heads_truncate", "TRUNCATE ON audit_heads FOR EACH STATEMENT"),
        )
    ),
)


def append_only(dialect: str) -> tuple[str, ...]:
    """Return the statements for a dialect of SQLAlchemy; there are none for others than these."""
    return {"sqlite": _SQLITE, "postgresql": _POSTGRESQL}.get(dialect, ())
