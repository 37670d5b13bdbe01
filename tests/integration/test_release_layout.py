"""The release layout on a host: what is where, what is live, and what a rollback finds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from support.host_program import Host, manifest_of

if TYPE_CHECKING:
    from pathlib import Path

APPSPEC = """\
version: 0.0
os: linux
files:
  - {source: web, destination: /srv/app}
permissions:
  - {object: /srv/app, pattern: "*.txt", mode: "0640"}
"""
HOOKS = """\
hooks:
  ApplicationStop: [{location: hook.sh}]
  BeforeInstall: [{location: hook.sh}]
  AfterInstall: [{location: hook.sh}]
  ValidateService: [{location: hook.sh}]
"""
HOOK = """\
#!/bin/sh
echo "$LIFECYCLE_EVENT $(basename "$RELEASE_DIRECTORY") $(cat "$RELEASE_LINK/a.txt" 2>&1)"
test "$LIFECYCLE_EVENT" != "$(cat "$ARCHIVE_DIRECTORY/fails" 2>/dev/null)"
"""
DIRECTORY = {"layout": "release", "release_directory": "/srv/app"}


def revision(number: int, appspec: str = APPSPEC, **more: Any) -> dict[str, Any]:
    return {
        "appspec.yml": appspec,
        "web/a.txt": f"a{number}",
        f"web/only{number}/x": "x",
        "hook.sh": (HOOK, 0o755),
        **{name.replace("__", "/"): content for name, content in more.items()},
    }


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def deploy(host: Host, files: dict[str, Any], **changes: Any) -> dict[str, Any]:
    options = {**DIRECTORY, **changes.pop("options", {})}
    return host.deploy(files, options=options, **changes)


def good(answer: dict[str, Any]) -> dict[str, Any]:
    assert not answer["failed"], answer["msg"]
    return answer


def live(host: Host, link: str = "/srv/app/current") -> dict[str, str]:
    """Return what is seen through the link: a file's text, ``-> target`` of a link."""
    top = host.path(link)
    assert top.is_symlink()
    found = {}
    for path in sorted(top.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(top))] = f"-> {path.readlink()}"
        elif path.is_file():
            found[str(path.relative_to(top))] = path.read_text()
    return found


def releases(host: Host, directory: str = "/srv/app") -> list[str]:
    folder = host.path(directory) / "releases"
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def install(answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in answer["events"] if one["event"] == "Install")
    return found


def test_a_release_is_made_and_linked_to(host: Host) -> None:
    good(deploy(host, revision(1)))
    answer = good(deploy(host, revision(2)))
    assert live(host) == {"a.txt": "a2", "only2/x": "x"}
    assert [name[:11] for name in releases(host)] == ["d-000000001", "d-000000002"]
    assert str(host.path("/srv/app/current").readlink()) == f"releases/{releases(host)[1]}"
    assert host.path("/srv/app/current/a.txt").stat().st_mode & 0o777 == 0o640
    assert (host.path("/srv/app/releases") / releases(host)[0] / "only1/x").exists()
    assert install(answer)["message"].startswith("2 files installed, ")


def test_the_same_revision_again_changes_nothing(host: Host) -> None:
    good(deploy(host, revision(1)))
    assert deploy(host, revision(1))["current"]
    host.path("/srv/app/current").unlink()
    host.path("/srv/app/current").symlink_to("releases")
    good(deploy(host, revision(1)))
    assert live(host)["a.txt"] == "a1"


def test_hooks_know_the_release(host: Host) -> None:
    good(deploy(host, revision(1, APPSPEC + HOOKS)))
    answer = good(deploy(host, revision(2, APPSPEC + HOOKS)))
    first, second = releases(host)
    said = {one["event"]: one["log"] for one in answer["events"]}
    # The link leads to the new release once Install is over, so that AfterInstall can configure it.
    assert f"ApplicationStop {first} a1" in said["ApplicationStop"]
    assert f"BeforeInstall {second} a1" in said["BeforeInstall"]
    assert f"AfterInstall {second} a2" in said["AfterInstall"]


def test_a_failure_before_the_switch_leaves_the_old_release_live(host: Host) -> None:
    good(deploy(host, revision(1, APPSPEC + HOOKS)))
    before = live(host)
    answer = deploy(host, revision(2, APPSPEC + HOOKS, fails="BeforeInstall"))
    assert answer["error"]["event"] == "BeforeInstall"
    assert live(host) == before
    text = APPSPEC.replace("permissions:", "  - {source: no, destination: /srv}\npermissions:")
    assert deploy(host, revision(3, text))["error"] == {"kind": "install"}
    assert live(host) == before


def test_a_rollback_goes_back_to_the_release_that_is_there(host: Host) -> None:
    good(deploy(host, revision(1, APPSPEC + HOOKS)))
    kept = host.path("/srv/app/current/a.txt").stat()
    failed = deploy(host, revision(2, APPSPEC + HOOKS, fails="AfterInstall"))
    assert failed["error"]["event"] == "AfterInstall"
    assert live(host)["a.txt"] == "a2"
    request, bundle = host.request(
        revision(1, APPSPEC + HOOKS), options=DIRECTORY, creator="codeDeployRollback"
    )
    staged = host.run(request, bundle)
    first = releases(host)[0]
    assert staged["release"] == {"path": f"{host.path('/srv/app/releases')}/{first}", "again": True}
    events = ["ApplicationStop", "DownloadBundle", "BeforeInstall", "Install", "AfterInstall"]
    answer = good(host.run(dict(request, operation="lifecycle", events=events, final=True)))
    assert str(host.path("/srv/app/current").readlink()) == f"releases/{first}"
    now = host.path("/srv/app/current/a.txt").stat()
    assert (now.st_ino, now.st_ctime_ns) == (kept.st_ino, kept.st_ctime_ns)
    assert "nothing was copied" in install(answer)["message"]
    assert f"AfterInstall {first} a1" in answer["events"][-1]["log"]
    # The release that failed is of no use any more.
    assert releases(host) == [first]


def test_a_release_that_was_changed_is_made_anew(host: Host) -> None:
    good(deploy(host, revision(1)))
    path = host.path("/srv/app/current/a.txt")
    status = path.stat()
    path.write_text("b1")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    good(deploy(host, revision(2)))
    good(deploy(host, revision(1), creator="codeDeployRollback"))
    assert live(host)["a.txt"] == "a1"
    assert len(releases(host)) == 3


def test_only_a_rollback_takes_an_old_release(host: Host) -> None:
    good(deploy(host, revision(1)))
    good(deploy(host, revision(2)))
    good(deploy(host, revision(1)))
    assert len(releases(host)) == 3
    assert live(host)["a.txt"] == "a1"


def test_what_is_kept(host: Host) -> None:
    options = {"releases_to_keep": 2, "retained_revisions": 9}
    for number in range(1, 5):
        good(deploy(host, revision(number), options=options))
    assert [name[:11] for name in releases(host)] == ["d-000000003", "d-000000004"]
    failed = deploy(host, revision(5, APPSPEC + HOOKS, fails="AfterInstall"), options=options)
    assert failed["failed"]
    good(deploy(host, revision(4), options=options, creator="codeDeployRollback"))
    assert [name[:11] for name in releases(host)] == ["d-000000003", "d-000000004"]


def test_shared_paths(host: Host) -> None:
    options = {"shared_paths": [".env", "log/", "data/uploads", "web.ini"]}
    first = revision(1, web__log__old="first", **{"web__web.ini": "own"})
    good(deploy(host, first, options=options))
    shared = host.path("/srv/app/shared")
    assert {path.name for path in shared.iterdir()} == {".env", "log", "data", "web.ini"}
    assert (shared / "log/old").read_text() == "first"
    assert (shared / "web.ini").read_text() == "own"
    assert (shared / ".env").read_text() == ""
    (shared / ".env").write_text("SECRET=1")
    (shared / "data/uploads").unlink()
    (shared / "data/uploads").mkdir()
    (shared / "data/uploads/cat.jpg").write_text("cat")
    second = revision(2, web__log__new="second", **{"web__web.ini": "new"})
    good(deploy(host, second, options=options))
    assert live(host) == {
        ".env": "-> ../../shared/.env",
        "a.txt": "a2",
        "data/uploads": "-> ../../../shared/data/uploads",
        "log": "-> ../../shared/log",
        "only2/x": "x",
        "web.ini": "-> ../../shared/web.ini",
    }
    current = host.path("/srv/app/current")
    assert (current / "log/old").read_text() == "first"
    assert not (current / "log/new").exists()
    assert (current / "web.ini").read_text() == "own"
    # What users put there is no drift, and no reason not to go back.
    (shared / "log/more").write_text("more")
    good(deploy(host, revision(3), options=options))
    answer = deploy(host, second, options=options, creator="codeDeployRollback")
    assert "nothing was copied" in install(good(answer))["message"]


@pytest.mark.parametrize(
    ("paths", "more", "said"),
    [
        (["../x"], {}, "paths in the release"),
        (["/etc"], {}, "paths in the release"),
        (["a", "a/b"], {}, "lie in each other"),
        (["a.txt/"], {}, "is a directory, but the revision installs a file"),
        (["a.txt/b"], {}, "installs as a file"),
    ],
)
def test_shared_paths_that_cannot_be(
    host: Host, paths: list[str], more: dict[str, Any], said: str
) -> None:
    answer = deploy(host, revision(1, **more), options={"shared_paths": paths})
    assert answer["failed"]
    assert said in answer["msg"]
    assert not host.path("/srv/app").exists()


def test_files_beside_the_release_are_copied(host: Host) -> None:
    text = APPSPEC.replace(
        "permissions:", "  - {source: unit, destination: /etc/systemd}\npermissions:"
    )
    good(deploy(host, revision(1, text, **{"unit/app.service": "one", "unit/old": "x"})))
    assert host.path("/etc/systemd/old").exists()
    good(deploy(host, revision(2, text, **{"unit/app.service": "two"})))
    assert host.path("/etc/systemd/app.service").read_text() == "two"
    assert not host.path("/etc/systemd/old").exists()
    assert "app.service" not in live(host)
    host.path("/etc/systemd/mine").write_text("mine")
    answer = deploy(host, revision(3, text, **{"unit/mine": "theirs"}))
    assert "already exists" in answer["msg"]
    assert live(host)["a.txt"] == "a2"


def test_a_link_in_place_of_the_destination(host: Host) -> None:
    """A bundle whose hooks know its destination runs unchanged."""
    options = {"release_directory": "/srv/.app", "release_link": "/srv/app"}
    good(deploy(host, revision(1), options=options))
    assert live(host, "/srv/app") == {"a.txt": "a1", "only1/x": "x"}
    assert len(releases(host, "/srv/.app")) == 1
    answer = deploy(host, revision(2), options={**options, "release_link": "/srv/.app/shared/x"})
    assert "lie in each other" in answer["msg"]


def test_from_copies_to_releases_and_back(host: Host) -> None:
    options = {"release_directory": "/srv/.app", "release_link": "/srv/app"}
    good(host.deploy(revision(1)))
    assert not host.path("/srv/app").is_symlink()
    good(deploy(host, revision(1), options=options))
    assert live(host, "/srv/app") == {"a.txt": "a1", "only1/x": "x"}
    assert sorted(path.name for path in host.path("/srv").iterdir()) == [".app", "app"]
    good(host.deploy(revision(1)))
    assert not host.path("/srv/app").is_symlink()
    assert host.path("/srv/app/a.txt").read_text() == "a1"
    assert (host.path("/srv/.app/releases") / releases(host, "/srv/.app")[0] / "a.txt").exists()
    good(host.deploy(revision(2)))
    assert not host.path("/srv/app/only1").exists()
    host.path("/srv/app/upload").write_text("user's")
    answer = deploy(host, revision(2), options=options)
    assert f"no deployment has put there, {host.path('/srv/app/upload')}" in answer["msg"]
    assert host.path("/srv/app/a.txt").read_text() == "a2"
    host.path("/srv/app/upload").unlink()
    good(deploy(host, revision(2), options=options))
    assert live(host, "/srv/app") == {"a.txt": "a2", "only2/x": "x"}


def test_from_copies_in_the_directory_itself(host: Host) -> None:
    good(host.deploy(revision(1)))
    host.path("/srv/app/upload").write_text("user's")
    good(deploy(host, revision(2)))
    assert live(host) == {"a.txt": "a2", "only2/x": "x"}
    names = sorted(path.name for path in host.path("/srv/app").iterdir())
    assert names == ["current", "releases", "shared", "upload"]
    good(host.deploy(revision(3)))
    assert host.path("/srv/app/a.txt").read_text() == "a3"
    assert not host.path("/srv/app/current").is_symlink()


def test_a_link_of_somebody_else(host: Host) -> None:
    host.path("/srv/app").mkdir(parents=True)
    host.path("/srv/app/current").symlink_to("elsewhere")
    for existing in ("DISALLOW", "RETAIN"):
        answer = deploy(host, revision(1), options={"file_exists_behavior": existing})
        assert "there is a link that no deployment has put there" in answer["msg"]
    good(deploy(host, revision(1), options={"file_exists_behavior": "OVERWRITE"}))
    assert live(host)["a.txt"] == "a1"
    good(deploy(host, revision(2)))
    assert live(host)["a.txt"] == "a2"


def test_releases_of_another_group(host: Host) -> None:
    good(deploy(host, revision(1)))
    host.group_id = "group-2"
    answer = deploy(host, revision(2), options={"file_exists_behavior": "OVERWRITE"})
    assert "the releases of another deployment group (group-1)" in answer["msg"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"release_directory": ""}, "release_directory must be an absolute path"),
        ({"release_directory": "/"}, "a folder of its own"),
        ({"layout": "other"}, "none of copy, release"),
        ({"releases_to_keep": 1}, "a whole number from 2"),
        ({"release_directory": "/srv/other"}, "Nothing of the AppSpec's files goes to"),
    ],
)
def test_settings_that_cannot_be(host: Host, options: dict[str, Any], said: str) -> None:
    answer = deploy(host, revision(1), options=options)
    assert answer["failed"]
    assert said in answer["msg"]


def test_a_destination_among_the_releases(host: Host) -> None:
    text = APPSPEC.replace("destination: /srv/app}", "destination: /srv/app/shared/x}")
    assert "keeps its shared" in deploy(host, revision(1, text))["msg"]


def test_a_check_shows_the_change_and_makes_nothing(host: Host) -> None:
    good(deploy(host, revision(1)))
    files = revision(2)
    request, _bundle = host.request(files, options=DIRECTORY, check=True, diff=True)
    request["revision"]["manifest"] = manifest_of(files)
    answer = host.run(request)
    top = host.path("/srv/app/current")
    new = answer["release"]["path"].rpartition("/")[2]
    before, after = answer["diff"]["before"].splitlines(), answer["diff"]["after"].splitlines()
    assert before[0] == f"{top} -> releases/{releases(host)[0]}"
    assert after[0] == f"{top} -> releases/{new}"
    assert [line.split()[0] for line in before[1:]] == [
        f"{top}/a.txt",
        f"{top}/only1/",
        f"{top}/only1/x",
    ]
    assert [line.split()[0] for line in after[1:]] == [
        f"{top}/a.txt",
        f"{top}/only2/",
        f"{top}/only2/x",
    ]
    assert len(releases(host)) == 1


def test_drift_knows_the_link_and_the_release(host: Host) -> None:
    good(deploy(host, revision(1), options={"shared_paths": ["log/"]}))
    request = {"operation": "drift", "root": str(host.root), "group_id": host.group_id}
    assert host.run(request)["findings"] == []
    link = host.path("/srv/app/current")
    (link / "a.txt").write_text("by hand")
    link.unlink()
    link.symlink_to("/elsewhere")
    kinds = {one["kind"] for one in host.run(request)["findings"]}
    assert kinds == {"content", "link"}
