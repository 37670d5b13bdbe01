"""The audit of the record: verify it, write it to a file, look at the newest of it."""

from __future__ import annotations

import os
import typing as t
from datetime import datetime
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import AuditReport


def audit_verify(
    file: str | os.PathLike[str] | None = None, *, record: str | None = None
) -> AuditReport:
    """Look at every link of the audit, of a record or of a file that was exported.

    The report's ``broken`` is the first link that is not as it was written, or None.

    :raises UsageError: there is no such file, or it is no export
    :raises RecordError: the record cannot be read
    """
    from ansible_collections.bascule.deploy.plugins.plugin_utils import _record

    if file is None:
        return _record.verify_audit(record)
    path = Path(file).expanduser()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"The file {path} cannot be read: {error.strerror or error}.") from error
    return _record.verify_audit_file(content, str(path))


def audit_export(
    write: Callable[[str], object],
    *,
    deployment: str | None = None,
    since: float | None = None,
    record: str | None = None,
) -> None:
    """Give ``write`` each line of the audit: JSON in the shape of CloudTrail's events.

    :param deployment: only the chain of this deployment
    :param since: seconds since the epoch; each chain from its first link of that time on
    :raises RecordError: the record cannot be read, or has no audit of that deployment
    """
    from ansible_collections.bascule.deploy.plugins.plugin_utils import _record

    _record.export_audit(write, deployment=deployment, since=since, url=record)


def audit_events(
    deployment: str | None = None, *, limit: int = 20, record: str | None = None
) -> list[dict[str, t.Any]]:
    """Return the newest changes of the record as events in CloudTrail's shape, the newest last.

    :param deployment: only those of this deployment
    :raises RecordError: the record cannot be read, or has no audit of that deployment
    """
    from ansible_collections.bascule.deploy.plugins.plugin_utils import _record

    if limit < 1:
        raise UsageError(f"The limit is {limit}; wanted is how many events to return, 1 or more.")
    return _record.newest_audit(deployment=deployment, limit=limit, url=record)


def export_file(
    path: Path, *, deployment: str | None, since: float | None, record: str | None
) -> None:
    """Write the audit to a new file that only its owner can read; it is there whole or not at all.

    :raises UsageError: there is such a file already, or it cannot be written
    """
    if path.exists():
        raise UsageError(f"There is a file {path} already. Name another one, or move it away.")
    begun = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
            audit_export(file.write, deployment=deployment, since=since, record=record)
            file.flush()
            os.fsync(file.fileno())
        # A link and not a renaming: what another process has put there meanwhile stays.
        path.hardlink_to(begun)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(
            f"The file {path} cannot be written: {reason}. Name another one."
        ) from error
    finally:
        begun.unlink(missing_ok=True)


def moment_of(text: str) -> float:
    """Return a date or time, as 2026-11-24 or 2026-11-24T13:05, in seconds since the epoch.

    :raises UsageError: it is none
    """
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UsageError(
            f"The time {text!r} cannot be read. Wanted is for instance 2026-11-24 or "
            "2026-11-24T13:05, in your time zone, or 2026-11-24T12:05:00+00:00."
        ) from None
