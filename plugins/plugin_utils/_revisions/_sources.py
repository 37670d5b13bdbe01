# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a source's text means: a path, a commit or a URL; and the text that may be shown."""

from __future__ import annotations

import base64
import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from ...module_utils._errors import RevisionError

GIT_SCHEMES = ("git+https", "git+http", "git+ssh", "git+file")
FORMS = (
    "a folder, an archive (tar, tar.gz, zip), git+https://HOST/REPOSITORY#REF, git+ssh://…#REF, "
    "git+file:///…#REF, /path/to/repository#REF, s3://BUCKET/KEY, "
    "github://OWNER/REPOSITORY@COMMIT, codecommit://REPOSITORY@REF, or an http(s) URL with a "
    "checksum"
)
_CHECKSUM = re.compile(r"(?:sha256[:=])?([0-9a-fA-F]{64})\Z")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?\Z")
_NOT_IN_A_REF = re.compile(r"[\s\x00-\x20\x7f:?*\[\\]|\.\.|//")


@dataclass(frozen=True)
class GitSource:
    """A commit; ``url`` has no credentials, ``authorization`` is the HTTP header with them.

    ``signed`` says that CodeCommit's is made when a command begins: it does not hold for long.
    """

    url: str
    ref: str
    shown: str
    authorization: str = ""
    signed: bool = False
    local: Path | None = None


@dataclass(frozen=True)
class UrlSource:
    """An archive behind http(s)."""

    url: str
    sha256: str
    shown: str
    authorization: str = ""


@dataclass(frozen=True)
class S3Source:
    """An object in S3, pinned to a version and an ETag where they are given."""

    bucket: str
    key: str
    version: str
    etag: str
    sha256: str
    shown: str


@dataclass(frozen=True)
class GitHubSource:
    """A commit, a branch or a tag of a repository on GitHub; ``api`` is empty for github.com."""

    repository: str
    ref: str
    shown: str
    api: str = ""
    token: str = ""


@dataclass(frozen=True)
class PathSource:
    """A folder or an archive on this machine."""

    path: Path
    shown: str


def parse(
    source: str, *, checksum: str | None, ref: str | None, base: Path
) -> GitSource | UrlSource | S3Source | GitHubSource | PathSource:
    """Tell what kind of source a text names.

    :raises RevisionError: for a text that names none
    """
    if not source or "\0" in source:
        raise RevisionError(f"The revision is empty; wanted {FORMS}.")
    scheme = source.split("://", 1)[0].lower() if "://" in source else ""
    if scheme in GIT_SCHEMES:
        return _git_url(source, ref)
    if scheme in ("http", "https"):
        return _http_url(source, checksum, ref)
    if scheme == "s3":
        return _s3_url(source, checksum)
    if scheme == "github":
        return _github_url(source, ref)
    if scheme == "codecommit":
        return _codecommit_url(source, ref)
    if scheme:
        better = f" Write git+{safe_text(source)}." if scheme in ("ssh", "file") else ""
        raise RevisionError(
            f"The revision {safe_text(source)!r} has the scheme {scheme!r}; wanted {FORMS}.{better}"
        )
    return _path(source, ref, base)


def sha256_of(checksum: str, shown: str) -> str:
    """Read a checksum: ``sha256:`` and 64 hexadecimal digits.

    :raises RevisionError: for anything else
    """
    match = _CHECKSUM.match(checksum.strip())
    if not match:
        raise RevisionError(
            f"The checksum {checksum!r} of {shown} cannot be used; wanted sha256: and 64 "
            "hexadecimal digits, as sha256sum prints them."
        )
    return match.group(1).lower()


def checked_ref(ref: str, shown: str) -> str:
    """Let only names through that git cannot take for anything but a revision.

    :raises RevisionError: for anything else
    """
    if not ref or ref.startswith("-") or _NOT_IN_A_REF.search(ref):
        raise RevisionError(
            f"The git ref {ref!r} of {shown} cannot be used; wanted a branch, a tag or a commit."
        )
    return ref


def safe_text(url: str) -> str:
    """Strip what may be secret from a URL: user, password, and the values of its query."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return re.sub(r"//[^/]*@", "//", url.split("?", 1)[0])
    query = "…" if parts.query else ""
    return urlunsplit((parts.scheme, host + port, parts.path, query, parts.fragment))


def _split_credentials(url: str, shown: str) -> tuple[str, str]:
    """Take user and password out of an http(s) URL, as the header that says the same."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise RevisionError(f"The URL {shown} cannot be read: {error}. Correct it.") from error
    if not host:
        raise RevisionError(f"The URL {shown} names no host. Correct it.")
    userinfo, _at, netloc = parts.netloc.rpartition("@")
    authorization = ""
    if userinfo:
        user, _colon, password = userinfo.partition(":")
        pair = f"{unquote(user)}:{unquote(password)}".encode()
        authorization = "Basic " + base64.b64encode(pair).decode("ascii")
    return urlunsplit((parts.scheme, netloc, parts.path, parts.query, "")), authorization


def _fragment_ref(source: str, ref: str | None, shown: str) -> tuple[str, str]:
    address, mark, fragment = source.partition("#")
    if mark and ref and fragment != ref:
        raise RevisionError(
            f"{shown} names the git ref {fragment!r}, the variable for it says {ref!r}. Leave one."
        )
    return address, checked_ref(ref or fragment or "HEAD", shown)


def _git_url(source: str, ref: str | None) -> GitSource:
    shown = safe_text(source)
    address, chosen = _fragment_ref(source, ref, shown)
    shown = f"{safe_text(address)}#{chosen}"
    url = address[len("git+") :]
    scheme = url.split("://", 1)[0].lower()
    if scheme == "file":
        path = Path(unquote(urlsplit(url).path))
        return GitSource(str(path), chosen, shown, local=_repository(path, shown))
    if scheme == "ssh":
        parts = urlsplit(url)
        user, _at, host = parts.netloc.rpartition("@")
        # ssh asks nobody for a password here, so only the user's name is of use.
        user = user.split(":", 1)[0]
        if not host or host.startswith("-") or user.startswith("-"):
            raise RevisionError(f"The URL {shown} names no host. Correct it.")
        netloc = f"{user}@{host}" if user else host
        return GitSource(urlunsplit((scheme, netloc, parts.path, "", "")), chosen, shown)
    clean, authorization = _split_credentials(url, shown)
    return GitSource(clean, chosen, shown, authorization, signed=_is_signed(clean, authorization))


def _is_signed(url: str, authorization: str) -> bool:
    """Tell whether AWS credentials open a repository that brings none of its own.

    Without them git is left to its own helpers.
    """
    from ._codecommit import has_credentials, region_of

    return not authorization and bool(region_of(url)) and has_credentials()


def _http_url(source: str, checksum: str | None, ref: str | None) -> UrlSource:
    address, _mark, fragment = source.partition("#")
    shown = safe_text(address)
    if ref or urlsplit(address).path.endswith(".git"):
        raise RevisionError(
            f"{shown} is fetched as an archive, but a git repository is meant. "
            f"Write git+{shown}#{ref or fragment or 'REF'}."
        )
    given = [text for text in (checksum, fragment or None) if text]
    if not given:
        raise RevisionError(
            f"{shown} has no checksum; what comes over the network must be known before. Give the "
            "checksum sha256:…, or write the URL as …#sha256=…"
        )
    sums = {sha256_of(text, shown) for text in given}
    if len(sums) > 1:
        raise RevisionError(f"{shown} has two checksums that differ. Leave the one that is right.")
    clean, authorization = _split_credentials(address, shown)
    return UrlSource(clean, sums.pop(), shown, authorization)


def _s3_url(source: str, checksum: str | None) -> S3Source:
    """Read ``s3://BUCKET/KEY?versionId=…&eTag=…``; the names are CodeDeploy's and S3's own."""
    parts = urlsplit(source)
    key = unquote(parts.path).lstrip("/")
    pins = {name.lower(): value for name, value in parse_qsl(parts.query, keep_blank_values=True)}
    unknown = sorted(set(pins) - {"versionid", "etag"})
    if not parts.netloc or not key or unknown or parts.fragment:
        wrong = f"{unknown[0]!r} is not known" if unknown else "bucket or key is missing"
        raise RevisionError(
            f"The revision {source!r} cannot be used: {wrong}. Write "
            "s3://BUCKET/KEY or s3://BUCKET/KEY?versionId=VERSION&eTag=ETAG."
        )
    return S3Source(
        bucket=parts.netloc,
        key=key,
        version=pins.get("versionid", ""),
        etag=pins.get("etag", "").strip('"'),
        sha256=sha256_of(checksum, source) if checksum else "",
        shown=f"s3://{parts.netloc}/{key}",
    )


def _at_ref(source: str, ref: str | None, form: str) -> tuple[str, str]:
    """Divide ``scheme://NAME@REF`` into name and ref."""
    rest = source.partition("://")[2]
    name, mark, chosen = rest.rpartition("@")
    name, chosen = (name, chosen) if mark else (rest, ref or "")
    if ref and chosen != ref:
        raise RevisionError(
            f"{source} names the git ref {chosen!r}, the variable for it says {ref!r}. Leave one."
        )
    if not name or not chosen or not _REPOSITORY.match(name):
        raise RevisionError(f"The revision {source!r} cannot be used. Write {form}.")
    return name, checked_ref(chosen, source)


def _github_url(source: str, ref: str | None) -> GitHubSource:
    form = "github://OWNER/REPOSITORY@COMMIT"
    name, chosen = _at_ref(source, ref, form)
    if name.count("/") != 1:
        raise RevisionError(f"The revision {source!r} cannot be used. Write {form}.")
    return GitHubSource(name, chosen, f"github://{name}@{chosen}")


def _codecommit_url(source: str, ref: str | None) -> GitSource:
    """Read ``codecommit://[REGION/]REPOSITORY@REF``."""
    from ._codecommit import address

    name, chosen = _at_ref(source, ref, "codecommit://[REGION/]REPOSITORY@REF")
    region, _slash, repository = name.rpartition("/")
    url = address(repository, region or None)
    return GitSource(url, chosen, f"codecommit://{name}@{chosen}", signed=True)


def _path(source: str, ref: str | None, base: Path) -> GitSource | PathSource:
    path = base / Path(source).expanduser()
    if not os.path.lexists(path) and "#" in source:
        address, _mark, fragment = source.rpartition("#")
        path = base / Path(address).expanduser()
        shown = f"{path}#{fragment}"
        if path.exists():
            _address, chosen = _fragment_ref(source, ref, shown)
            return GitSource(str(path), chosen, shown, local=_repository(path, shown))
    if ref and path.exists():
        shown = f"{path}#{ref}"
        return GitSource(str(path), checked_ref(ref, shown), shown, local=_repository(path, shown))
    if not path.exists():
        if re.match(r"[\w.-]+@[\w.-]+:", source):
            host, _colon, rest = source.partition(":")
            raise RevisionError(f"{source!r} is a git address. Write git+ssh://{host}/{rest}.")
        raise missing(path)
    return PathSource(path, str(path))


def _repository(path: Path, shown: str) -> Path:
    """Find the repository's own folder: of a bare repository, a checkout, or a linked worktree.

    :raises RevisionError: when there is none
    """
    if not path.exists():
        raise missing(path)
    if (path / ".git").exists() or ((path / "HEAD").is_file() and (path / "objects").is_dir()):
        return path
    raise RevisionError(
        f"{shown} names a git ref, but {path} is no git repository. Name the repository's own "
        "folder, or leave the ref away to deploy the folder as it is."
    )


def missing(path: Path) -> RevisionError:
    """Say what is near a path that does not exist."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    try:
        names = sorted(item.name for item in parent.iterdir() if not item.name.startswith("."))
    except OSError:
        names = []
    step = path.relative_to(parent).parts[0]
    close = difflib.get_close_matches(step, names, n=3, cutoff=0.5)
    if close:
        hint = f"did you mean {' or '.join(str(parent / name) for name in close)}?"
    elif names:
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        hint = f"{parent} has {', '.join(names[:6])}{more}."
    else:
        hint = f"{parent} is empty or cannot be listed."
    return RevisionError(f"There is no revision at {path}: {hint} Wanted {FORMS}.")
