"""What only root can do: owners, users of hooks, access control lists, SELinux contexts.

Run as root: giving files away is the very thing that is tested.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.host_program import Host

HEAD = "version: 0.0\nos: linux\nfiles: [{source: /web, destination: /srv/app}]\n"


@pytest.fixture
def host(open_folder: Path) -> Host:
    return Host(open_folder)


def succeed(host: Host, body: str, **files: Any) -> dict[str, Any]:
    """Deploy a revision of an AppSpec body and files below ``web``."""
    spec = {"appspec.yml": HEAD + body, **{f"web/{name}": text for name, text in files.items()}}
    result = host.deploy(spec, options={"outside_links": True})
    assert not result.get("failed"), result["msg"]
    return result


def test_owners_by_name_and_number_and_setuid_that_survives(host: Host) -> None:
    host.outside_links = True
    succeed(
        host,
        "permissions:\n"
        "  - {object: /srv/app, pattern: 'tool', owner: nobody, group: daemon, mode: '4755'}\n"
        "  - {object: /srv/app, pattern: 'numbers', owner: 12345, group: '54321'}\n"
        "  - {object: /srv/app, pattern: 'kept', owner: nobody}\n"
        "  - {object: /srv/app, pattern: 'link', owner: nobody}\n",
        tool="t",
        numbers="n",
        kept=("k", 0o2755),
        link=Path("/etc/hostname"),
    )
    top = host.path("/srv/app")
    tool, numbers = (top / "tool").stat(), (top / "numbers").stat()
    assert ((top / "tool").owner(), (top / "tool").group()) == ("nobody", "daemon")
    assert tool.st_mode & 0o7777 == 0o4755
    assert (numbers.st_uid, numbers.st_gid) == (12345, 54321)
    assert (top / "kept").stat().st_mode & 0o7777 == 0o2755
    # What a link out of the revision leads to is left alone, and a link has no owner to speak of.
    assert (top / "link").lstat().st_uid == 0
    assert Path("/etc/hostname").stat().st_uid == 0


def test_the_archives_owners_are_kept_as_tar_keeps_them(host: Host) -> None:
    succeed(host, "", a="a")
    assert host.path("/srv/app/a").stat().st_uid == 0


def acl(path: Path) -> list[str]:
    """Return the access control list of a path."""
    command = ["getfacl", "--omit-header", "--absolute-names", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split("\t")[0] for line in text.split("\n") if line]


def test_access_control_lists_do_not_leak_from_file_to_file(host: Host) -> None:
    succeed(
        host,
        "permissions:\n  - {object: /srv/app, type: [file], acls: ['u:nobody:rw']}\n"
        "  - {object: /srv, type: [directory], acls: ['d:u:nobody:rx']}\n",
        a=("a", 0o604),
        b=("b", 0o664),
    )
    top = host.path("/srv/app")
    assert acl(top / "a") == [
        "user::rw-",
        "user:nobody:rw-",
        "group::---",
        "mask::---",
        "other::r--",
    ]
    assert acl(top / "b") == [
        "user::rw-",
        "user:nobody:rw-",
        "group::rw-",
        "mask::rw-",
        "other::r--",
    ]
    assert "default:user:nobody:r-x" in acl(top)
    # The directory stays for the next revision, without what was set on it.
    succeed(host, "", a="a2")
    assert acl(top) == ["user::rwx", "group::r-x", "other::r-x"]


def test_hooks_of_another_user(host: Host) -> None:
    hook = ('#!/bin/sh\necho "$(id -un) $DEPLOYMENT_ID"; exit 5', 0o755)
    result = host.deploy(
        {
            "appspec.yml": HEAD.replace("nologin", "")
            + "hooks: {AfterInstall: [{location: web/h.sh, runas: daemon, sudo: true}]}\n",
            "web/h.sh": hook,
        }
    )
    event = next(one for one in result["events"] if one["event"] == "AfterInstall")
    assert event["status"] == "Failed"
    # The account has no shell: su says so, as it does for the agent.
    assert "run as user daemon failed with exit code 1" in event["message"]
    assert "not available" in event["log"]


def test_selinux_contexts(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    body = (
        "permissions:\n"
        "  - {object: /srv/app/a, context: {name: system_u, type: httpd_t, range: s0}}\n"
        "  - {object: /srv/app/b, context: {type: etc_t}}\n"
    )
    tools, calls = tmp_path / "tools", tmp_path / "calls"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    for name in ("semanage", "restorecon"):
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {calls}\n')
        (tools / name).chmod(0o755)
    succeed(host, body, a="a", b="b")
    a, b = host.path("/srv/app/a"), host.path("/srv/app/b")
    assert calls.read_text().splitlines() == [
        f"semanage fcontext -a -s system_u -t httpd_t -r s0 {a}",
        f"restorecon -v {a}",
        f"semanage fcontext -a -t etc_t {b}",
        f"restorecon -v {b}",
    ]
    calls.unlink()
    succeed(host, "", c="c")
    assert calls.read_text().splitlines() == [
        f"semanage fcontext -d {b}",
        f"semanage fcontext -d {a}",
    ]
    (tools / "semanage").unlink()
    result = host.deploy({"appspec.yml": HEAD + body, "web/a": "1", "web/b": "2"})
    assert "needs the program semanage" in result["msg"]
