"""Whenever a host program is killed, the link leads to a complete release; the next run goes on.

It ends before one of the calls by which it changes the host, and none of them is done after that:
before every few of them in turn, and in any sequence of deployments.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._host import (
    _cleanup,
    _release_install,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from support.host_program import Host

CHANGING = (
    "rename", "replace", "symlink", "link", "mkdir", "unlink", "rmdir", "open", "write",
    "ftruncate", "chmod", "fchmod", "fsync", "utime",
)  # fmt: skip
EVENTS = ["ApplicationStop", "DownloadBundle", "Install", "AfterInstall", "ValidateService"]
OPTIONS = {
    "layout": "release",
    "release_directory": "/srv/app",
    "shared_paths": ["data/"],
    "releases_to_keep": 2,
    "redeploy": True,
}
APPSPEC = """\
version: 0.0
os: linux
files:
  - {source: web, destination: /srv/app}
  - {source: unit, destination: /etc/units}
"""


def revision(number: int) -> dict[str, Any]:
    """Make a revision with files of its own, one in a shared folder and one beside the release."""
    return {
        "appspec.yml": APPSPEC,
        "web/version": str(number),
        f"web/part{number}/x": f"x{number}",
        "web/link": Path("version"),
        "web/data/first": f"first{number}",
        "unit/app.service": f"unit{number}",
        f"unit/only{number}": "",
    }


def complete(number: int) -> dict[str, str]:
    """Return a whole release as :func:`seen` tells it."""
    return {
        "version": str(number),
        f"part{number}/x": f"x{number}",
        "link": "-> version",
        "data": "-> ../../shared/data",
    }


def seen(top: Path) -> dict[str, str]:
    found = {}
    for path in sorted(top.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(top))] = f"-> {path.readlink()}"
        elif path.is_file():
            found[str(path.relative_to(top))] = path.read_text()
    return found


KILLED = 137
# Every how many changes it is killed; `CRASH_STRIDE=1` tries each, in a minute.
STRIDE = int(os.environ.get("CRASH_STRIDE", "4"))


def run(host: Host, request: dict[str, Any], bundle: bytes | None, kill_at: int | None) -> bool:
    """Run the host program in a process of its own; return whether it was killed.

    :param kill_at: before which changing call it ends; None to let it end by itself
    """
    left = sys.maxsize if kill_at is None else kill_at

    def counted(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(KILLED)
            return real(*arguments, **options)

        return call

    said = host.sysroot.parent / "said"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # What is killed loses nothing that was written: there is no need to wait for the disk.
            _release_install._sync_files = lambda _path: None
            os.fsync = lambda _descriptor: None
            for name in CHANGING:
                setattr(os, name, counted(getattr(os, name)))
            answer = host.run(request, bundle)
            left = sys.maxsize
            if answer.get("failed"):
                said.write_text(answer["msg"])
            else:
                status = 0
        except BaseException:
            left = sys.maxsize
            said.write_text(traceback.format_exc())
        finally:
            os._exit(status)
    _pid, ended = os.waitpid(child, 0)
    status = os.waitstatus_to_exitcode(ended)
    assert status in (0, KILLED), said.read_text()
    return status == KILLED


def install(host: Host, request: dict[str, Any], kill_at: int | None = None) -> bool:
    """Run the lifecycle of what is staged; return whether it was killed."""
    span = dict(request, operation="lifecycle", events=EVENTS, final=True)
    return run(host, span, None, kill_at)


def stage(host: Host, number: int, creator: str) -> dict[str, Any]:
    request, bundle = host.request(revision(number), options=OPTIONS, creator=creator)
    assert not run(host, request, bundle, None)
    return request


def live(host: Host) -> int:
    """Return the number of the revision that is live, and see that all of it is there."""
    current = host.path("/srv/app/current")
    assert current.is_symlink()
    number = int((current / "version").read_text())
    assert seen(current) == complete(number)
    assert (current / "data/first").exists()
    return number


def check_ended(host: Host, number: int, first: int) -> None:
    """See that a deployment that ended left what an undisturbed one does."""
    assert live(host) == number
    assert (host.path("/srv/app/shared/data") / "first").read_text() == f"first{first}"
    units = {path.name for path in host.path("/etc/units").iterdir()}
    assert units == {"app.service", f"only{number}"}
    assert host.path("/etc/units/app.service").read_text() == f"unit{number}"
    assert not list(host.sysroot.rglob(_cleanup.TEMPORARY))
    kept = [path for path in host.path("/srv/app/releases").iterdir() if path.is_dir()]
    assert len(kept) <= 2
    for path in kept:
        assert seen(path) == complete(int((path / "version").read_text()))


@pytest.mark.parametrize("creator", ["user", "codeDeployRollback"])
def test_before_every_few_changes(tmp_path: Path, creator: str) -> None:
    top = tmp_path / "host"
    host = Host(top)
    for number in (1, 2):
        install(host, stage(host, number, "user"))
    wanted = 3 if creator == "user" else 1
    request = stage(host, wanted, creator)
    before = tmp_path / "before"
    shutil.copytree(top, before, symlinks=True)
    points = 0
    while True:
        if not install(host, request, points):
            break
        assert live(host) in (2, wanted)
        assert not install(host, request)
        check_ended(host, wanted, 1)
        points += STRIDE
        shutil.rmtree(top)
        shutil.copytree(before, top, symlinks=True)
    check_ended(host, wanted, 1)
    assert points > 30


STEPS = st.tuples(
    st.integers(1, 3),
    st.sampled_from(["user", "codeDeployRollback"]),
    st.none() | st.integers(0, 120),
    st.booleans(),
)


@settings(max_examples=10, deadline=None)
@given(steps=st.lists(STEPS, min_size=1, max_size=5))
def test_any_sequence(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, int | None, bool]]
) -> None:
    host = Host(tmp_path_factory.mktemp("host"))
    lived = first = 0
    for number, creator, kill_at, goes_on in [*steps, (1, "user", None, False)]:
        request = stage(host, number, creator)
        killed = install(host, request, kill_at)
        shared = host.path("/srv/app/shared/data/first")
        if not first and shared.exists():
            first = int(shared.read_text()[-1])
        if host.path("/srv/app/current").is_symlink():
            lived = live(host)
        assert not lived or live(host)
        if killed and goes_on:
            assert not install(host, request)
        if not killed or goes_on:
            first = first or number
            lived = number
            check_ended(host, number, first)
