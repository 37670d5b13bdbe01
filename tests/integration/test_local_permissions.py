"""Permissions and links that ``bascule local`` sets, as the agent was seen to or better."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from pathlib import Path

import pytest
from support.local_host import LocalHost, appspec

FILES = {"app/a.sh": "1", "app/b.txt": "1", "app/in/c.sh": "1", "app/in/deep/d.sh": "1"}
PATHS = ("a.sh", "b.txt", "in", "in/c.sh", "in/deep", "in/deep/d.sh")


@pytest.fixture
def host(tmp_path: Path) -> LocalHost:
    return LocalHost(tmp_path)


def permissions(*entries: str) -> str:
    """Return the section; each entry is the inside of a YAML flow map."""
    return "permissions:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries)


# entries, the paths that have mode 0700 afterwards; None: refused at Install
REACHED: list[tuple[tuple[str, ...], str | None]] = [
    (("object: {d}/x",), "a.sh b.txt in in/c.sh in/deep in/deep/d.sh"),
    (("object: {d}/x/",), "a.sh b.txt in in/c.sh in/deep in/deep/d.sh"),
    (("object: {d}/x, type: [file]",), "a.sh b.txt in/c.sh in/deep/d.sh"),
    (("object: {d}/x, type: [directory]",), "in in/deep"),
    (("object: {d}/x, type: []",), ""),
    (("object: {d}/x, pattern: '*.sh'",), "a.sh"),
    (("object: {d}/x, pattern: '*'",), "a.sh b.txt in"),
    (("object: {d}/x, pattern: '**/*.sh'",), ""),
    (("object: {d}/x, pattern: '***'",), "a.sh b.txt in"),
    (("object: {d}/x, pattern: '?.sh'",), ""),
    (("object: {d}/x, pattern: '[ab].sh'",), ""),
    (("object: {d}/x, pattern: 'in/*'",), ""),
    (("object: {d}/x, pattern: 'A.SH'",), ""),
    (("object: {d}/x/in",), "in/c.sh in/deep in/deep/d.sh"),
    (("object: {d}/x, except: ['*.sh']",), "b.txt in in/c.sh in/deep in/deep/d.sh"),
    (("object: {d}/x, except: [in/c.sh]",), "a.sh b.txt in in/c.sh in/deep in/deep/d.sh"),
    (("object: {d}/x, except: ['{d}/x/a.sh']",), "a.sh b.txt in in/c.sh in/deep in/deep/d.sh"),
    (("object: {d}/x, pattern: '*', except: ['**']",), ""),
    (("object: {d}/x/a.sh",), "a.sh"),
    (("object: {d}/x/a.sh, type: [directory]",), ""),
    (("object: {d}/x/a.sh, pattern: '*'",), None),
    (("object: {d}/x/a.sh, except: [b]",), None),
    (("object: {d}/y",), ""),
    (("object: {d}/x/a.sh", "object: {d}/x/b.txt"), "a.sh b.txt"),
    (("object: {d}/x", "object: {d}/x/a.sh"), None),
    (("object: {d}/x, pattern: '*.sh'", "object: {d}/x, pattern: '*.txt'"), "a.sh b.txt"),
    (("object: {d}/x, pattern: '*.sh'", "object: {d}/x, pattern: 'a*'"), None),
]


@pytest.mark.parametrize(("entries", "expected"), REACHED, ids=[str(row[0]) for row in REACHED])
def test_what_a_permission_reaches(
    host: LocalHost, entries: tuple[str, ...], expected: str | None
) -> None:
    section = permissions(*(f"{entry}, mode: '700'" for entry in entries))
    done = host.install({"appspec.yml": appspec("app {d}/x", section), **FILES})
    if expected is None:
        assert (done.status, done.failed_event) == (1, "Install")
        assert host.tree() == {}
    else:
        assert done.ok, done.message
        assert [path for path in PATHS if host.mode(f"x/{path}") == "0700"] == expected.split()
        assert host.mode("x") == "0755"


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("'640'", "0640"),
        ("'0640'", "0640"),
        ("'4750'", "4750"),
        ("7", "0007"),
        ("''", "0000"),
        # Agent 1 sets 0420 here, agent 2 and the author mean this.
        ("0644", "0644"),
        ("0755", "0755"),
        ("644", "0644"),
    ],
)
def test_modes(host: LocalHost, mode: str, expected: str) -> None:
    section = permissions(f"object: {{d}}/x/a, mode: {mode}")
    done = host.install({"appspec.yml": appspec("app {d}/x", section), "app/a": "1"})
    assert done.ok, done.message
    assert host.mode("x/a") == expected


@pytest.mark.parametrize("mode", ["u+x", "'888'", "'12345'", "08", "0o644"])
def test_modes_that_are_refused(host: LocalHost, mode: str) -> None:
    section = permissions(f"object: {{d}}/x/a, mode: {mode}")
    done = host.deploy({"appspec.yml": appspec("app {d}/x", section), "app/a": "1"})
    assert (done.status, done.failed_event) == (1, "BeforeInstall")
    assert "permissions mode (" in done.message


def owners() -> tuple[str, str]:
    """Return a user and a group that may be set: others' for root, one's own otherwise."""
    if os.geteuid() == 0:
        return "daemon", grp.getgrgid(pwd.getpwnam("daemon").pw_gid).gr_name
    return pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name


@pytest.mark.parametrize("numeric", [False, True])
def test_owners_and_the_special_bits_survive(host: LocalHost, numeric: bool) -> None:
    user, group = owners()
    uid, gid = pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid
    owner = f"owner: {uid}, group: {gid}" if numeric else f"owner: {user}, group: {group}"
    section = permissions(f"object: {{d}}/x, mode: '4755', type: [file], {owner}")
    done = host.install({"appspec.yml": appspec("app {d}/x", section), "app/a": "1"})
    assert done.ok, done.message
    status = (host.top / "x/a").stat()
    assert (status.st_uid, status.st_gid, host.mode("x/a")) == (uid, gid, "4755")


def test_an_owner_nobody_knows_is_found_before_anything_changes(host: LocalHost) -> None:
    assert host.install({"appspec.yml": appspec("app {d}/x"), "app/a": "1"}).ok
    section = permissions("object: {d}/x, owner: no-such-user")
    done = host.install({"appspec.yml": appspec("app {d}/x", section), "app/a": "2"})
    assert (done.status, done.failed_event) == (1, "Install")
    assert "can't find user for no-such-user" in done.message
    assert host.tree() == {"x": "/", "x/a": "1"}


def test_only_what_is_made_now_is_touched(host: LocalHost) -> None:
    (host.top / "x/old").mkdir(parents=True)
    (host.top / "x/mine").write_text("1")
    section = permissions("object: {d}/x, mode: '700'")
    assert host.install({"appspec.yml": appspec("app {d}/x", section), "app/new/a": "1"}).ok
    assert [host.mode(f"x/{path}") for path in ("old", "mine", "new", "new/a")] == [
        "0755",
        "0644",
        "0700",
        "0700",
    ]


def acl(path: Path) -> set[str]:
    """Return the entries of a path's access control list."""
    run = subprocess.run(
        ["getfacl", "--omit-header", "--absolute-names", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.split("\t")[0] for line in run.stdout.splitlines() if line}


def test_access_control_lists_do_not_leak_from_file_to_file(host: LocalHost) -> None:
    section = permissions("object: {d}/x, type: [file], acls: ['u:daemon:rw', 'g:daemon:4']")
    files = {"app/a": ("1", 0o640), "app/b": ("1", 0o604)}
    done = host.install({"appspec.yml": appspec("app {d}/x", section), **files})
    assert done.ok, done.message
    assert acl(host.top / "x/a") >= {"user::rw-", "user:daemon:rw-", "group::r--", "other::---"}
    assert acl(host.top / "x/b") >= {"user::rw-", "group::---", "other::r--", "group:daemon:r--"}


def test_a_default_list_is_for_directories_only(host: LocalHost) -> None:
    section = permissions("object: {d}/x/a, acls: ['d:u:daemon:rw']")
    done = host.install({"appspec.yml": appspec("app {d}/x", section), "app/a": "1"})
    assert (done.status, done.failed_event) == (1, "Install")
    section = permissions("object: {d}, pattern: x, type: [directory], acls: ['d:u:daemon:rwx']")
    done = host.install({"appspec.yml": appspec("app {d}/x", section), "app/a": "1"})
    assert done.ok, done.message
    assert "default:user:daemon:rwx" in acl(host.top / "x")


def test_a_links_target_keeps_its_mode(host: LocalHost) -> None:
    other = host.folder / "other"
    other.write_text("1")
    other.chmod(0o600)
    section = permissions("object: {d}/x, mode: '777'")
    files = {"app/link": other, "app/a": "1"}
    assert host.install({"appspec.yml": appspec("app {d}/x", section), **files}).ok
    assert f"{other.stat().st_mode & 0o777:o}" == "600"
    assert host.mode("x/a") == "0777"


def test_an_installed_link_is_replaced_by_the_next_deployment(host: LocalHost) -> None:
    spec = appspec("app {d}/x", "file_exists_behavior: OVERWRITE\n")
    for number in "12":
        files = {"app/link": Path("a"), "app/a": number}
        assert host.install({"appspec.yml": spec, **files}).ok
    assert host.tree() == {"x": "/", "x/a": "2", "x/link": "-> a"}


def test_what_was_written_through_is_what_is_given_its_mode(host: LocalHost) -> None:
    (host.top / "x/dir").mkdir(parents=True)
    (host.top / "x/link").symlink_to("../t")
    section = permissions("object: {d}/x, mode: '600', type: [file]")
    files = {"app/link": "1", "app/dir": "2"}
    done = host.install({"appspec.yml": appspec("app {d}/x", section), **files}, "-b", "OVERWRITE")
    assert done.ok, done.message
    assert host.tree() == {"t": "1", "x": "/", "x/dir": "/", "x/dir/dir": "2", "x/link": "-> ../t"}
    assert (host.mode("t"), host.mode("x/dir"), host.mode("x/dir/dir")) == ("0600", "0755", "0600")


def test_what_is_set_on_a_link_reaches_the_file_of_the_bundle(host: LocalHost) -> None:
    """As with the agent; the link itself stays as it was made."""
    section = permissions("object: {d}/x/link, mode: '600'", "object: {d}/x/two, mode: '640'")
    files = {"app/link": Path("in/f"), "app/in/f": "1", "app/two": Path("three")}
    files |= {"app/three": Path("g"), "app/g": "2"}
    assert host.install({"appspec.yml": appspec("app {d}/x", section), **files}).ok
    assert (host.mode("x/in/f"), host.mode("x/g")) == ("0600", "0640")
    section = permissions("object: {d}/x, owner: root, type: [file]")
    done = host.install({"appspec.yml": appspec("app {d}/x", section), "app/l": Path("nowhere")})
    assert done.failed_event == "Install"
    assert "which leads to nothing" in done.message
    assert host.tree()["x/g"] == "2"
    section = permissions("object: {d}/x, type: [file]")
    assert host.install({"appspec.yml": appspec("app {d}/x", section), "app/l": Path("no")}).ok
