# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commits as revisions, by the git command: fetched into a bare mirror, taken out as an archive."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

from ...module_utils._errors import RevisionError
from ._codecommit import region_of, sign

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ._cache import Cache
    from ._sources import GitSource

_COMMIT = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
# A transfer that brings nothing for this long is given up; a whole command may take longer.
SILENCE = 30
PATIENCE = 20


class Git:
    """The git command in one repository.

    It asks no questions and shows no credentials in arguments, files or messages.
    """

    def __init__(self, directory: Path, source: GitSource, silence: float) -> None:
        self.directory = directory
        self.source = source
        self.silence = silence

    def _environment(self, *, fetches: bool) -> dict[str, str]:
        keep = {name: value for name, value in os.environ.items() if not name.startswith("GIT_DIR")}
        settings = [
            ("http.lowSpeedLimit", "1"),
            ("http.lowSpeedTime", str(max(1, int(self.silence)))),
            # What git itself would take (0o664, 0o775) differs from a checkout of the same commit.
            ("tar.umask", "0022"),
            ("gc.auto", "0"),
        ]
        authorization = self.source.authorization
        if self.source.signed and fetches:
            authorization = sign(self.source.url)
        if authorization:
            header = f"Authorization: {authorization}"
            settings.append((f"http.{self.source.url}.extraHeader", header))
        first = int(keep.get("GIT_CONFIG_COUNT", "0") or 0)
        for number, (name, value) in enumerate(settings, start=first):
            keep[f"GIT_CONFIG_KEY_{number}"] = name
            keep[f"GIT_CONFIG_VALUE_{number}"] = value
        return {
            **keep,
            "GIT_CONFIG_COUNT": str(first + len(settings)),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "SSH_ASKPASS_REQUIRE": "never",
            "LC_ALL": "C",
        }

    def run(self, *arguments: str, output: Path | None = None) -> tuple[int, str, str]:
        """Run git and return its status, output and messages.

        :raises RevisionError: when git is missing or does not come to an end
        """
        command = ["git", "-C", str(self.directory), *arguments]
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(output.open("wb")) if output else subprocess.PIPE
            try:
                process = subprocess.Popen(  # noqa: S603 - arguments are checked by _sources.py
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=target,
                    stderr=subprocess.PIPE,
                    env=self._environment(fetches=arguments[0] == "fetch"),
                    # Without a terminal neither ssh nor git can ask anybody.
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                raise RevisionError(
                    f"{self.source.shown} needs the git command, which is not installed here. "
                    "Install git, or deploy a folder or an archive."
                ) from error
            try:
                out, err = process.communicate(timeout=self.silence * PATIENCE)
            except subprocess.TimeoutExpired as error:
                raise RevisionError(
                    f"git did not fetch {self.source.shown} within {self.silence * PATIENCE:.0f} "
                    "s. Check the network and the server, then deploy again."
                ) from error
            finally:
                if process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.communicate()
        text = (out or b"").decode("utf-8", "replace").strip()
        return process.returncode, text, err.decode("utf-8", "replace").strip()

    def must(self, *arguments: str, output: Path | None = None) -> str:
        """Run git and return its output.

        :raises RevisionError: when git fails
        """
        status, out, err = self.run(*arguments, output=output)
        if status:
            raise self.failed(err)
        return out

    def failed(self, err: str) -> RevisionError:
        """Say with git's own words why a commit cannot be had."""
        lines = [line.strip() for line in err.splitlines() if line.strip()]
        told = [line for line in lines if line.startswith(("fatal:", "error:", "remote:"))]
        said = "; ".join(dict.fromkeys(told or lines[-2:])) or "no message"
        if self.source.signed and said.endswith("error: 403"):
            return RevisionError(
                f"CodeCommit refuses {self.source.shown} (403). Either the AWS credentials are "
                "wrong or have expired, or codecommit:GitPull is not allowed on this repository; "
                "`bascule iam-policy` prints what a group needs."
            )
        if region_of(self.source.url) and not (self.source.signed or self.source.authorization):
            return RevisionError(
                f"git cannot get {self.source.shown}: {said}. CodeCommit wants a password that AWS "
                "credentials sign, and there are none: set AWS_PROFILE, or run where a role gives "
                "them (pip install 'bascule[aws]')."
            )
        return RevisionError(
            f"git cannot get {self.source.shown}: {said}. Check the address, the access of this "
            "user and the network."
        )

    def commit_of(self, name: str) -> str | None:
        """Give the commit that a name means here, or None."""
        status, out, _err = self.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return out if status == 0 and _COMMIT.match(out) else None

    def names(self) -> list[str]:
        """List branches and tags, newest first."""
        status, out, _err = self.run(
            "for-each-ref",
            "--sort=-creatordate",
            "--format=%(refname:strip=2)",
            "refs/tags",
            "refs/heads",
            "refs/remotes/origin",
        )
        return list(dict.fromkeys(out.split())) if status == 0 else []

    def unknown(self, names: list[str]) -> RevisionError:
        """Say which refs there are instead of an unknown one."""
        import difflib

        ref = self.source.ref
        close = difflib.get_close_matches(ref, names, n=3, cutoff=0.5)
        shown = ", ".join(close or names[:6]) or "none at all"
        what = "did you mean" if close else "it has"
        return RevisionError(
            f"{self.source.shown}: the repository has no branch, tag or commit {ref!r}; "
            f"{what} {shown}{'?' if close else ''}. Correct the ref, or push it first."
        )


@contextlib.contextmanager
def repository(cache: Cache, source: GitSource, silence: float) -> Iterator[tuple[Git, str]]:
    """Give the repository that holds the wanted commit, and the commit's full id.

    A repository on this machine is read where it is. Of one elsewhere a bare mirror is kept in the
    cache, under a lock, with only those commits that were asked for.

    :raises RevisionError: when the commit cannot be had
    """
    if source.local:
        git = Git(source.local, source, silence)
        commit = git.commit_of(source.ref) or git.commit_of(f"origin/{source.ref}")
        if not commit:
            status, _out, err = git.run("rev-parse", "--git-dir")
            raise git.failed(err) if status else git.unknown(git.names())
        yield git, commit
        return
    name = hashlib.sha256(source.url.encode()).hexdigest()[:16]
    mirror = cache.root / "git" / f"{name}.git"
    with (cache.root / "git" / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        git = Git(mirror, source, silence)
        if not (mirror / "HEAD").is_file():
            mirror.mkdir(mode=0o700, exist_ok=True)
            git.must("init", "--quiet", "--bare")
        yield git, _fetch(git, source)


def _fetch(git: Git, source: GitSource) -> str:
    if _COMMIT.match(source.ref) and git.commit_of(source.ref):
        return source.ref
    kept = "refs/bascule/" + hashlib.sha256(source.ref.encode()).hexdigest()[:16]
    status, _out, err = git.run(
        "fetch", "--quiet", "--no-tags", "--depth=1", "--force", source.url, f"{source.ref}:{kept}"
    )
    commit = git.commit_of(kept) if status == 0 else None
    if commit:
        return commit
    if not _needs_everything(err):
        raise git.failed(err)
    # A short id, a commit that the server does not give by its id, an expression, or a server
    # without shallow fetches: with all branches and tags here, git can tell.
    whole = ["--unshallow"] if (git.directory / "shallow").exists() else []
    git.must(
        "fetch", "--quiet", "--force", "--prune", *whole, source.url,
        "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*",
    )  # fmt: skip
    commit = git.commit_of(source.ref)
    if not commit:
        raise git.unknown(git.names())
    return commit


def _needs_everything(err: str) -> bool:
    known = (
        "couldn't find remote ref",
        "not our ref",
        "unadvertised object",
        "does not support shallow",
        "invalid refspec",
        "Invalid refspec",
    )
    return any(text in err for text in known)


def describe(git: Git, commit: str) -> str:
    """Give a commit's subject and short id."""
    return git.must("log", "-1", "--no-show-signature", "--format=%s (%h)", commit)
