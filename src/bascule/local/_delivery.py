"""Bring a bundle into the folder of its deployment, as the agent's DownloadBundle does."""

from __future__ import annotations

import os
import re
import shutil
import stat
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.module_utils._appspec import (
    DEFAULT_NAME,
    find_appspec,
    parse_appspec,
)
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    AppSpecError,
    ArchiveError,
    UsageError,
)
from ansible_collections.bascule.deploy.plugins.module_utils._host import _archive, _room, _tree

if t.TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.module_utils._host._layout import Layout

TYPES = ("tgz", "tar", "zip", "directory")
MAX_APPSPEC = 1024 * 1024
DOCUMENTATION = "http://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file.html"


@dataclass(frozen=True)
class Bundle:
    """A bundle on this machine; ``environment`` is what hooks get besides the usual variables."""

    path: Path
    kind: str
    environment: dict[str, str] = field(default_factory=dict)


def find(location: str, kind: str | None) -> Bundle | None:
    """Return the bundle at a path, None for one that has to be fetched first.

    :param kind: ``--type``; None to see for ourselves
    :raises UsageError: if there is nothing, or something of another type
    """
    scheme = location.split("://", 1)[0].lower() if "://" in location else ""
    if scheme == "s3":
        raise UsageError(
            f"{location}: bundles are not fetched from S3 here. Copy it with 'aws s3 cp' and name"
            " the file, or deploy it with 'bascule deploy'."
        )
    if scheme == "file":
        location = location[len("file://") :]
    elif scheme or ("#" in location and not Path(location).exists()):
        return None
    path = Path(location).expanduser()
    if not os.path.lexists(path):
        raise UsageError(
            f"The location {location} is specified as a file or directory which does not exist."
        )
    if path.is_dir():
        if kind not in (None, "directory"):
            raise UsageError(
                f"The location {location} is specified as a compressed file ({kind}) but it is a"
                " directory. Leave --type out, or name the archive."
            )
        return Bundle(path, "directory")
    if kind == "directory":
        raise UsageError(
            f"The location {location} is specified with type directory but it is a file. Leave"
            " --type out, or give its type."
        )
    return Bundle(path, kind or "archive")


def fetch(location: str) -> Bundle:
    """Fetch a commit or an archive behind https into the cache of revisions.

    :raises BasculeError: when it cannot be found, fetched or verified
    """
    from ansible_collections.bascule.deploy.plugins.plugin_utils import _revisions
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record._location import (
        state_folder,
    )

    found = _revisions.resolve(_from_github(location), cache=state_folder() / "cache")
    return Bundle(Path(found.bundle_path), "archive", found.environment)


def _from_github(location: str) -> str:
    """Turn the two addresses codedeploy-local knows of GitHub into one of a commit."""
    plain = re.fullmatch(r"https://github\.com/([^/?#]+)/([^/?#]+?)(\.git)?/?", location)
    if plain:
        return f"git+https://github.com/{plain[1]}/{plain[2]}.git#HEAD"
    packed = re.fullmatch(
        r"https://api\.github\.com/repos/([^/?#]+)/([^/?#]+)/(?:tarball|zipball)/([^?#]+)", location
    )
    if packed:
        return f"git+https://github.com/{packed[1]}/{packed[2]}.git#{packed[3]}"
    return location


def deliver(bundle: Bundle, layout: Layout, *, outside_links: bool) -> list[str]:
    """Fill the deployment's ``deployment-archive``; return warnings.

    :param outside_links: whether an archive's symbolic links may lead out of it
    :raises ArchiveError: for a bundle that is damaged, hostile, or not what ``--type`` says
    """
    folder = layout.deployment
    part = Path(folder.archive + ".part")
    warnings: list[str] = []
    try:
        Path(folder.path).mkdir(parents=True)
        if bundle.kind == "directory":
            copy_folder(bundle.path, part)
        else:
            path = str(bundle.path.resolve())
            _check_type(path, bundle.kind)
            Path(folder.bundle).symlink_to(path)
            part.mkdir(mode=0o755)
            limit = max(_room.free_bytes(layout.root) - _room.RESERVE, 0)
            warnings = _archive.unpack(path, str(part), limit=limit, outside_links=outside_links)
            _tree.strip_wrapper(str(part))
        part.rename(folder.archive)
    except OSError as error:
        raise ArchiveError(
            f"The bundle {bundle.path} cannot be brought to {folder.path}: {error}."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return warnings


def _check_type(path: str, kind: str) -> None:
    found = _archive.detect(path)
    if kind != "archive" and (kind == "zip") != (found == "zip"):
        raise ArchiveError(
            f"The bundle {path} is a {found} archive, not a {kind} one. Leave --type out, or give"
            " the right one."
        )


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder as the agent does.

    Modes go under the umask, folders get the umask's own, links stay as they are, times and owners
    are new.

    :raises ArchiveError: for what is no file, folder or link
    """
    target.mkdir()
    waiting = [(source, target)]
    while waiting:
        source, target = waiting.pop()
        with os.scandir(source) as entries:
            for entry in entries:
                path = target / entry.name
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    path.mkdir()
                    waiting.append((Path(entry.path), path))
                elif stat.S_ISLNK(mode):
                    path.symlink_to(os.readlink(entry.path))  # noqa: PTH115 - the text as it is
                elif stat.S_ISREG(mode):
                    _copy_file(Path(entry.path), path, stat.S_IMODE(mode))
                else:
                    raise ArchiveError(
                        f"The bundle holds {entry.path}, a device, pipe or socket. A bundle holds"
                        " files, folders and links only."
                    )


def _copy_file(source: Path, target: Path, mode: int) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with source.open("rb") as reader, os.fdopen(descriptor, "wb") as writer:
        shutil.copyfileobj(reader, writer, 1024 * 1024)


def read_appspec(archive: Path, name: str | None, strict: str | None) -> dict[str, t.Any]:
    """Return the AppSpec of an unpacked bundle.

    The one of the name that was asked for; without a name ``appspec.yml``, then ``appspec.yaml``.

    :raises AppSpecError: if there is none, or it is refused
    """
    path = archive / name if name else find_appspec(archive)
    if path is None or not path.is_file():
        wanted = name or DEFAULT_NAME
        raise AppSpecError(
            "The CodeDeploy agent did not find an AppSpec file within the unpacked revision"
            f' directory at revision-relative path "{wanted}". The revision was unpacked to'
            f' directory "{archive}", and the AppSpec file was expected but not found at path'
            f' "{archive / wanted}". Consult the AWS CodeDeploy Appspec documentation for more'
            f" information at {DOCUMENTATION}"
        )
    with path.open("rb") as file:
        text = file.read(MAX_APPSPEC + 1)
    if len(text) > MAX_APPSPEC:
        raise AppSpecError(f"{path.name} is larger than {MAX_APPSPEC} bytes: no AppSpec file is.")
    return parse_appspec(text, strict=strict)
