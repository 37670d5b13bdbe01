"""Staging: delivery, refusals, check mode with its difference, and what counts as current."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._host import _events, _room
from support.host_program import Host, manifest_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = "files: [{source: /web, destination: /srv/app}]\n"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def revision(body: str = FILES, **files: Any) -> dict[str, Any]:
    """Make a revision of an AppSpec's body and files below ``web``."""
    head = "version: 0.0\nos: linux\n"
    return {"appspec.yml": head + body, **{f"web/{name}": text for name, text in files.items()}}


def everything(folder: Path) -> list[Path]:
    """Return every path below a folder."""
    return sorted(folder.rglob("*"))


def test_a_bundle_is_asked_for_once_and_kept(host: Host) -> None:
    request, bundle = host.request(revision(a="1"))
    asked = host.run(request)
    assert (asked["needs_bundle"], asked["staged"], asked["changed"]) == (True, False, False)
    assert everything(host.root) == []
    first = host.run(request, bundle)
    assert (first["staged"], first["changed"], first["previous"]) == (True, True, None)
    assert host.run(request)["changed"] is False
    # Another deployment of the same revision finds it on the host.
    again, _bundle = host.request(revision(a="1"))
    second = host.run(again)
    assert (second["staged"], second["needs_bundle"]) == (True, False)
    assert not host.path("/srv").exists()
    cache = host.root / "bundle-cache"
    assert cache.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in cache.iterdir()] == [hashlib.sha256(bundle).hexdigest()]


def test_a_damaged_copy_is_removed_and_sent_anew(host: Host) -> None:
    host.deploy(revision(a="1"))
    request, bundle = host.request(revision(a="1"))
    copy = next((host.root / "bundle-cache").iterdir())
    copy.write_bytes(b"x" + bundle[1:])
    answer = host.run(dict(request, options={"redeploy": True}))
    assert "was damaged and is removed" in answer["msg"]
    assert host.run(dict(request, options={"redeploy": True}))["needs_bundle"]
    assert host.run(dict(request, options={"redeploy": True}), bundle)["staged"]


def test_current_needs_an_end_the_same_revision_and_no_later_attempt(host: Host) -> None:
    files = revision(a="1")
    assert not host.deploy(files)["failed"]
    request, bundle = host.request(files)
    before = [(path, path.lstat().st_mtime_ns) for path in everything(host.root)]
    assert host.run(request)["current"]
    assert before == [(path, path.lstat().st_mtime_ns) for path in everything(host.root)]
    assert not host.run(dict(request, options={"redeploy": True}))["current"]
    assert not host.run(host.request(revision(a="2"))[0])["current"]
    # An attempt that stopped the application and went no further: the host is not as it was.
    other, other_bundle = host.request(revision(a="2"))
    host.run(other, other_bundle)
    host.run(dict(other, operation="lifecycle", events=["ApplicationStop"]))
    assert not host.run(request, bundle)["current"]


def test_what_came_of_the_events_is_told_again_to_the_deployment_that_was_interrupted(
    host: Host,
) -> None:
    files = revision(a="1")
    request, bundle = host.request(files)
    host.run(request, bundle)
    done = host.run(dict(request, operation="lifecycle", events=list(_events.IN_PLACE), final=True))
    again = host.run(request)
    assert again["current"]
    assert again["events"] == done["events"] != []
    other = host.run(host.request(files)[0])
    assert (other["current"], other["events"]) == (True, [])


def test_current_asks_the_gates(host: Host) -> None:
    gate = {"type": "command", "command": f"test -e {host.sysroot}/healthy"}
    files = revision(a="1")
    host.path("/healthy").write_text("")
    assert not host.deploy(files, gates=[gate])["failed"]
    request, bundle = host.request(files, gates=[gate])
    assert host.run(request, bundle)["current"]
    host.path("/healthy").unlink()
    assert not host.run(request, bundle)["current"]


def test_the_previous_deployment_is_told(host: Host) -> None:
    hooks = "hooks: {ApplicationStop: [{location: web/a}], X: [{location: b}, {location: c}]}\n"
    host.deploy(revision(FILES + hooks, a=("#!/bin/sh\n", 0o755)))
    request, bundle = host.request(revision(a="2"))
    previous = host.run(request, bundle)["previous"]
    assert previous["deployment_id"] == "d-000000001"
    assert previous["hooks"] == {"ApplicationStop": 1, "X": 2}
    assert len(previous["digest"]) == 64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda bundle: bundle + b"x", "actually"),
        (lambda bundle: bundle[:-1] + b"x", "actually"),
        (lambda bundle: bundle[:-1], "ended after"),
        (lambda _bundle: b"", "ended after"),
    ],
)
def test_a_bundle_that_is_not_the_one(
    host: Host, change: Callable[[bytes], bytes], words: str
) -> None:
    request, bundle = host.request(revision(a="1"))
    if words == "actually":
        request["revision"]["bundle"]["size"] = len(change(bundle))
    answer = host.run(request, change(bundle))
    assert answer["failed"]
    assert answer["error"] == {"kind": "archive"}
    assert words in answer["msg"]
    assert not (host.root / host.group_id / "d-000000001").exists()
    assert list((host.root / "bundle-cache").iterdir()) == []
    assert host.run(request | host.request(revision(a="1"))[0], bundle)["staged"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("hooks: {AfterInstall: [{location: no.sh}]}\n", "no.sh, which the revision does not hold"),
        ("hooks: {BeforeInstall: [{location: ../x.sh}]}\n", "does not hold"),
        ("files: [{source: no, destination: /srv}]\n", "does not hold"),
        (
            "files: [{source: ../no, destination: /srv}]\n"
            "hooks: {BeforeInstall: [{location: web/a}]}\n",
            "leaves the revision",
        ),
        (
            FILES + "permissions: [{object: /srv, acls: ['d:u:root:rw']}]\n",
            "the -d parameter has been specified to apply an acl setting to a file",
        ),
        (FILES + "permissions: [{object: /srv/app/a, owner: no-such-user}]\n", "can't find user"),
        (FILES + "permissions: [{object: /srv/app/a, group: no-such-group}]\n", "can't find group"),
        (
            FILES + "permissions: [{object: /srv/app/a, acls: ['no-such-user:r']}]\n",
            "can't find user for no-such-user",
        ),
        (
            FILES + "permissions: [{object: /srv/app/a, acls: ['g:no-such-group:r']}]\n",
            "can't find group for no-such-group",
        ),
        (
            FILES + "permissions: [{object: /srv, mode: 0644}, {object: /srv/app, mode: '600'}]\n",
            "more than once",
        ),
    ],
)
def test_what_cannot_be_installed_is_refused_before_anything_is_touched(
    host: Host, body: str, words: str
) -> None:
    answer = host.deploy(revision(body, a="1"))
    assert answer["failed"]
    assert words in answer["msg"]
    assert not (host.root / host.group_id / "d-000000001").exists()
    assert everything(host.sysroot) == []


def test_a_script_before_install_may_still_put_it_right(host: Host) -> None:
    host.path("/srv/app").mkdir(parents=True)
    host.path("/srv/app/a").write_text("foreign")
    assert "already exists" in host.deploy(revision(a="1"))["msg"]
    hook = "hooks: {BeforeInstall: [{location: web/clean}]}\n"
    files = revision(FILES + hook, a="1", clean=('#!/bin/sh\nrm "$SYSROOT/srv/app/a"', 0o755))
    request, bundle = host.request(files)
    staged = host.run(request, bundle)
    assert "already exists" in staged["warnings"][0]
    result = host.run(
        dict(request, operation="lifecycle", events=["DownloadBundle", "BeforeInstall", "Install"])
    )
    assert not result["failed"]
    assert host.path("/srv/app/a").read_text() == "1"


BUILDS = """\
files:
  - {source: /built, destination: /srv/app}
  - {source: /web/a, destination: /srv/app}
  - {source: /other, destination: /srv/app}
hooks:
  BeforeInstall: [{location: web/build}, {location: check.sh}]
  AfterInstall: [{location: after.sh}]
  ApplicationStart: [{location: start.sh}]
"""
BUILD = r"""#!/bin/sh
set -e
cd "$(dirname "$0")/.."
mkdir built
echo b > built/b
rm other/a
printf '#!/bin/sh\necho it is there' > check.sh
cp check.sh after.sh
cp check.sh start.sh
"""


def test_a_script_may_make_what_is_installed_and_run_after_it(host: Host) -> None:
    files = {**revision(BUILDS, a="1", build=(BUILD, 0o755)), "other/a": "2"}
    request, bundle = host.request(files)
    staged = host.run(request, bundle)
    assert staged["staged"]
    for script in ("check.sh", "after.sh", "start.sh"):
        assert any(f"names the script {script}" in text for text in staged["warnings"])
    result = host.run(
        dict(request, operation="lifecycle", events=list(_events.IN_PLACE), final=True)
    )
    assert not result["failed"]
    assert host.path("/srv/app/a").read_text() == "1"
    assert host.path("/srv/app/b").read_text() == "b\n"
    started = next(one for one in result["events"] if one["event"] == "ApplicationStart")
    assert "[stdout]it is there" in started["log"]


@pytest.mark.parametrize(
    ("body", "warning", "event", "words"),
    [
        (
            "files: [{source: no, destination: /srv/app}]\n"
            "hooks: {BeforeInstall: [{location: web/a}]}\n",
            "names the source 'no', which the revision does not hold. A script that runs before",
            "Install",
            "names the source 'no', which the revision does not hold. Correct it",
        ),
        (
            FILES.replace("]", ", {source: web/a, destination: /srv/app}]")
            + "hooks: {BeforeInstall: [{location: web/a}]}\n",
            "two source files",
            "Install",
            "two source files",
        ),
        (
            "hooks: {AfterInstall: [{location: web/a}], ApplicationStart: [{location: no.sh}]}\n",
            "ApplicationStart names the script no.sh, which the revision does not hold. If no",
            "ApplicationStart",
            "Script does not exist at specified location: /",
        ),
    ],
)
def test_what_no_script_made_fails_where_it_is_missed(
    host: Host, body: str, warning: str, event: str, words: str
) -> None:
    request, bundle = host.request(revision(body, a=("#!/bin/sh\n", 0o755)))
    staged = host.run(request, bundle)
    assert [warning in text for text in staged["warnings"]] == [True]
    result = host.run(dict(request, operation="lifecycle", events=list(_events.IN_PLACE)))
    assert result["error"]["event"] == event
    assert words in result["msg"]
    assert not host.path("/srv").exists()


def test_a_stop_script_of_the_previous_revision_makes_nothing_in_this_one(host: Host) -> None:
    hook = "hooks: {ApplicationStop: [{location: web/a}]}\n"
    assert not host.deploy(revision(hook, a=("#!/bin/sh\n", 0o755)))["failed"]
    files = revision("files: [{source: no, destination: /srv}]\n", a="1")
    assert "does not hold" in host.deploy(files)["msg"]


def test_check_writes_nothing_and_shows_the_difference(host: Host) -> None:
    old = revision(same="s", changed="1", gone="g", mode="m")
    assert not host.deploy(old)["failed"]
    host.path("/srv/app/foreign").write_text("f")
    new = revision(same="s", changed="2", added="a", mode=("m", 0o600))
    request, _bundle = host.request(new, check=True, diff=True)
    request["revision"]["manifest"] = manifest_of(new)
    before = [(path, path.lstat().st_mtime_ns) for path in everything(host.root)]
    answer = host.run(request)
    assert (answer["changed"], answer["staged"]) == (True, False)
    assert before == [(path, path.lstat().st_mtime_ns) for path in everything(host.root)]
    top = host.path("/srv/app")

    def line(name: str, text: str, mode: str = "0644") -> str:
        return f"{top}/{name} {mode} sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}\n"

    assert answer["diff"]["before"] == (
        line("changed", "1") + line("gone", "g") + line("mode", "m")
    )
    assert answer["diff"]["after"] == (
        line("added", "a") + line("changed", "2") + line("mode", "m", "0600")
    )
    # The same difference is shown where the bundle is unpacked.
    staged, bundle = host.request(new, diff=True)
    assert host.run(staged, bundle)["diff"] == answer["diff"]


def test_check_refuses_what_stage_refuses(host: Host) -> None:
    files = revision("files: [{source: no, destination: /srv}]\n", a="1")
    request, _bundle = host.request(files, check=True)
    request["revision"]["manifest"] = manifest_of(files)
    answer = host.run(request)
    assert answer["failed"]
    assert "does not hold" in answer["msg"]
    request["revision"]["manifest"] = []
    assert "manifest" in host.run(request)["msg"]
    assert not host.root.exists()


def test_check_of_a_lifecycle_runs_nothing(host: Host) -> None:
    request, bundle = host.request(revision(a="1"))
    host.run(request, bundle)
    call = dict(request, operation="lifecycle", events=["DownloadBundle", "Install"], check=True)
    answer = host.run(call)
    assert [event["status"] for event in answer["events"]] == ["Pending", "Pending"]
    assert not host.path("/srv").exists()


def test_room_is_looked_for_first(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_room, "RESERVE", 2**60)
    request, bundle = host.request(revision(a="1"))
    answer = host.run(request, bundle)
    assert "Not enough space" in answer["msg"]
    assert answer["error"] == {"kind": "host"}


def test_a_lifecycle_may_bring_its_own_bundle(host: Host) -> None:
    request, bundle = host.request(revision(a="1"))
    call = dict(request, operation="lifecycle", events=["DownloadBundle", "Install"], final=True)
    missing = host.run(call)
    assert missing["error"]["event"] == "DownloadBundle"
    assert "Send it along" in missing["msg"]
    assert not host.run(call, bundle)["failed"]
    assert host.path("/srv/app/a").read_text() == "1"


def test_one_deployment_is_one_revision(host: Host) -> None:
    request, bundle = host.request(revision(a="1"))
    host.run(request, bundle)
    other, other_bundle = host.request(revision(a="2"), deployment_id="d-000000001")
    assert "Start a new deployment" in host.run(other, other_bundle)["msg"]


@pytest.mark.parametrize(
    "change",
    [
        {"root": "relative"},
        {"sysroot": "relative"},
        {"deployment": {"id": "../x", "group_id": "g"}},
        {"deployment": {"id": "d-1", "group_id": "deployment-instructions"}},
        {"deployment": {"id": "d-1", "group_id": ""}},
        {"deployment": None},
        {"revision": {"digest": "x"}},
        {"options": {"file_exists_behavior": "PERHAPS"}},
        {"options": {"retained_revisions": 0}},
        {"operation": "no"},
    ],
)
def test_requests_that_make_no_sense(host: Host, change: dict[str, Any]) -> None:
    request, bundle = host.request(revision(a="1"))
    answer = host.run({**request, **change}, bundle)
    assert answer["failed"]
    assert answer["error"] == {"kind": "usage"}
    assert everything(host.root) == []
