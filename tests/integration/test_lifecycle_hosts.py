"""The host program under every Python that is here, as root and as a user without rights."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.host_program import MODULE_UTILS, RUNNER, Host
from support.pythons import pythons

APPSPEC = """\
version: 0.0
os: linux
files:
  - {source: /web, destination: /srv/app}
permissions:
  - {object: /srv/app, pattern: "*.txt", mode: "0600"}
hooks:
  ApplicationStop: [{location: hook.sh}]
  ValidateService: [{location: hook.sh}]
"""


def revision(number: int, appspec: str = APPSPEC) -> dict[str, Any]:
    """Make a revision of a few files and a hook."""
    return {
        "appspec.yml": appspec,
        "web/a.txt": f"a{number}",
        "web/näme": "n",
        "web/link": Path("a.txt"),
        f"web/only{number}/x": "x",
        "hook.sh": (f'#!/bin/sh\necho "v{number} $LIFECYCLE_EVENT as $(id -u)"\n', 0o755),
    }


@pytest.mark.parametrize("interpreter", pythons().values())
@pytest.mark.parametrize("kind", ["tgz", "zip"])
def test_every_python(tmp_path: Path, interpreter: str, kind: str) -> None:
    host = Host(tmp_path, interpreter)
    first = host.deploy(revision(1), kind=kind)
    assert not first["failed"], first["msg"]
    result = host.deploy(revision(2), kind=kind)
    assert not result["failed"], result["msg"]
    assert "v1 ApplicationStop" in result["events"][0]["log"]
    assert "v2 ValidateService" in result["events"][-1]["log"]
    top = host.path("/srv/app")
    names = sorted(str(path.relative_to(top)) for path in top.rglob("*"))
    assert names == ["a.txt", "link", "näme", "only2", "only2/x"]
    assert stat.S_IMODE((top / "a.txt").stat().st_mode) == 0o600
    bad = host.deploy({"appspec.yml": APPSPEC, "web/../../x": "x"}, kind=kind)
    assert bad["error"] == {"kind": "archive"}


# Runs a command as a user without rights: such a user may not enter the home of root, where Pythons
# may be, and finds this one at another place.
AS_USER = """
place=$1 prefix=$2 uid=$3
shift 3
if [ "$prefix" != /usr ]; then mount --bind "$prefix" "$place" || exit 97; fi
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@"
"""


def as_user(
    host: Host, request: dict[str, Any], bundle: bytes | None, uid: int, interpreter: str
) -> dict[str, Any]:
    """Run the host program as another user."""
    sent = host.root.parent / "sent"
    sent.write_bytes(bundle or b"")
    sent.chmod(0o644)
    # The program is read over and over from a place that only root may enter.
    place = host.root.parent / "program"
    if not place.exists():
        shutil.copytree(MODULE_UTILS, place, ignore=shutil.ignore_patterns("__pycache__"))
    ask = "import sys; print(sys.base_prefix, 'python%d.%d' % sys.version_info[:2])"
    asked = subprocess.run([interpreter, "-c", ask], capture_output=True, text=True, check=True)
    prefix, name = asked.stdout.split()
    home = host.root.parent / "python" if prefix != "/usr" else Path(prefix)
    home.mkdir(exist_ok=True)
    libraries = {"LD_LIBRARY_PATH": str(home / "lib"), "PYTHONHOME": str(home)}
    program = [home / "bin" / name, "-B", "-c", RUNNER, place, sent if bundle else ""]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", AS_USER, "sh", home, prefix, str(uid), *program],
        input=json.dumps(request).encode(),
        capture_output=True,
        timeout=300,
        check=False,
        cwd="/",
        env={**os.environ, **(libraries if prefix != "/usr" else {})},
    )
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


class User:
    """A host on which a user without rights deploys to folders of its own."""

    def __init__(self, folder: Path, interpreter: str = "/usr/bin/python3") -> None:
        self.interpreter = interpreter
        self.uid = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid()
        self.host = Host(folder / "user", interpreter)
        for path in (self.host.root.parent, self.host.sysroot):
            os.chown(path, self.uid, self.uid if os.geteuid() == 0 else -1)

    def deploy(self, files: dict[str, Any], **changes: Any) -> dict[str, Any]:
        request, bundle = self.host.request(files, **changes)
        staged = self.run(request, bundle)
        if staged.get("failed"):
            return staged
        events = ["ApplicationStop", "DownloadBundle", "Install", "ValidateService"]
        return self.run(dict(request, operation="lifecycle", events=events, final=True), None)

    def run(self, request: dict[str, Any], bundle: bytes | None) -> dict[str, Any]:
        if os.geteuid() == 0:
            return as_user(self.host, request, bundle, self.uid, self.interpreter)
        return self.host.run(request, bundle)


@pytest.fixture
def user(open_folder: Path) -> User:
    return User(open_folder)


@pytest.mark.parametrize("interpreter", pythons().values())
def test_a_user_without_rights(open_folder: Path, interpreter: str) -> None:
    user = User(open_folder, interpreter)
    name = pwd.getpwuid(user.uid).pw_name
    text = APPSPEC + f"    # own\n  AfterInstall: [{{location: hook.sh, runas: {name}}}]\n"
    assert not user.deploy(revision(1))["failed"]
    result = user.deploy(revision(2, text))
    assert not result["failed"], result["msg"]
    assert f"as {user.uid}" in result["events"][-1]["log"]
    top = user.host.path("/srv/app")
    assert (top / "a.txt").stat().st_uid == user.uid
    assert not (top / "only1").exists()


def test_a_user_may_only_give_to_itself(user: User) -> None:
    own = f"  - {{object: /srv/app/link, owner: {user.uid}}}\nhooks:"
    assert not user.deploy(revision(1, APPSPEC.replace("hooks:", own)))["failed"]
    text = APPSPEC.replace("hooks:", "  - {object: /srv/app/link, owner: root}\nhooks:")
    if user.uid != 0:
        answer = user.deploy(revision(2, text.replace("ApplicationStop", "Other")))
        assert answer["failed"]
        assert "Cannot change the owner of" in json.dumps(answer)
        assert (user.host.path("/srv/app/a.txt")).read_text() == "a1"


def test_a_root_that_cannot_be_made(user: User) -> None:
    request, bundle = user.host.request(revision(1), root="/proc/no/such/root")
    answer = user.run(request, bundle)
    assert answer["error"] == {"kind": "host"}
    assert "/proc/no/such/root" in answer["msg"]
