"""The version of the record's tables, and the way to a newer one."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import RecordVersion


def record_version(*, record: str | None = None) -> RecordVersion:
    """Return which version a record has, and which is needed; nothing is made or changed.

    :param record: address of the record; the default is what the environment names
    :raises RecordError: it cannot be read
    """
    from ansible_collections.bascule.deploy.plugins.plugin_utils import _record

    return _record.record_version(record)


def upgrade_record(*, record: str | None = None) -> RecordVersion:
    """Migrate a record to the version of this Bascule; one that has it is left alone.

    :raises RecordError: there is no record, or it is newer than this Bascule
    """
    from ansible_collections.bascule.deploy.plugins.plugin_utils import _record

    return _record.upgrade_record(record)
