"""Bundle a directory and put it where every controller can deploy it from."""

from __future__ import annotations

import dataclasses
import typing as t
from os import fspath
from pathlib import Path
from urllib.parse import urlsplit

from ansible_collections.bascule.deploy.plugins.module_utils._errors import RecordError, UsageError

from bascule._recorded import opened

if t.TYPE_CHECKING:
    from os import PathLike

SUFFIXES = {"tgz": (".tgz", ".tar.gz"), "tar": (".tar",), "zip": (".zip",)}


@dataclasses.dataclass(frozen=True)
class Pushed:
    """A revision and where it is: ``source`` is what to deploy; ``sent`` is false if it was there.

    ``digest`` is the revision's name, ``sha256`` and ``size`` (bytes) are the archive's.
    ``application`` is the one that the record knows it as a revision of; None if it does not.
    """

    source: str
    digest: str
    sha256: str
    size: int
    sent: bool
    application: str | None = None

    def to_dict(self) -> dict[str, t.Any]:
        """Return the same as plain data, for JSON."""
        return dataclasses.asdict(self)


def push(
    path: str | PathLike[str],
    to: str,
    *,
    checksum: str | None = None,
    subdirectory: str | None = None,
    application: str | None = None,
    record: str | None = None,
) -> Pushed:
    """Bundle a directory (or take an archive, a commit …) and upload it with its digest.

    :param path: any revision that ``deploy`` takes
    :param to: ``s3://BUCKET``, ``s3://BUCKET/FOLDER/`` (the name is then the digest) or
        ``s3://BUCKET/NAME.tgz``
    :param application: have the record know the revision as one of this application
    :param record: address of the record; the default is what the environment names
    :raises UsageError: the place cannot be read
    :raises BasculeError: the revision is refused, cannot be registered, or cannot be uploaded
    """
    from ansible_collections.bascule.deploy.plugins.plugin_utils._action import state_directory
    from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import _s3, resolve

    parts = urlsplit(to)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise UsageError(f"--to {to}: write s3://BUCKET/FOLDER/ or s3://BUCKET/NAME.tgz.")
    revision = resolve(
        fspath(path),
        cache=state_directory(None) / "cache",
        checksum=checksum,
        subdirectory=subdirectory,
        base=Path.cwd(),
    )
    key = parts.path.lstrip("/")
    suffixes = SUFFIXES[revision.bundle_type]
    if not key or key.endswith("/"):
        key += f"{revision.digest}{suffixes[0]}"
    elif not key.endswith(suffixes):
        raise UsageError(
            f"--to {to}: this revision is packed as {revision.bundle_type}; end the name with "
            f"{suffixes[0]}, or end it with / to have it named by its digest."
        )

    def register(source: str, *, check: bool = False) -> None:
        if application:
            about = revision.description
            with opened(record) as book:
                book.register_revision(
                    application, revision.digest, source=source, description=about, check=check
                )

    # What the record refuses is found before anything is sent.
    register(to, check=True)
    source, sent = _s3.upload(revision, parts.netloc, key)
    try:
        register(source)
    except RecordError as error:
        raise RecordError(
            f"{source} is uploaded, but not registered as a revision of {application}: {error} "
            "Push again: what is there is not sent twice."
        ) from error
    return Pushed(
        source,
        revision.digest,
        revision.bundle_sha256,
        revision.bundle_size,
        sent,
        application or None,
    )
