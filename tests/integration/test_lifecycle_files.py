"""Installations over several deployments: what is there afterwards, and what must never be lost."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from support.host_program import Host

APPSPEC = """\
version: 0.0
os: linux
files:
  - source: /web
    destination: /srv/app
"""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def revision(appspec: str = APPSPEC, **files: Any) -> dict[str, Any]:
    """Make a revision whose files are below ``web`` (``_`` stands for a slash in names)."""
    return {"appspec.yml": appspec, **{name.replace("__", "/"): c for name, c in files.items()}}


def listing(host: Host, folder: str = "/srv/app") -> dict[str, str]:
    """Return every path below a folder: its text, ``->target``, or ``/`` for a directory."""
    top = host.path(folder)
    result = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if path.is_symlink():
            result[name] = f"->{path.readlink()}"
        else:
            result[name] = "/" if path.is_dir() else path.read_text()
    return result


def succeed(host: Host, files: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Deploy; it must go well."""
    result = host.deploy(files, **changes)
    assert not result.get("failed"), result["msg"]
    return result


def test_the_next_revision_takes_away_what_the_last_one_made_and_nothing_else(host: Host) -> None:
    succeed(host, revision(web__a="a1", web__old__x="x1", web__kept__y="y1"))
    host.path("/srv/app/kept/user").write_text("mine")
    host.path("/srv/app/user").write_text("mine")
    succeed(host, revision(web__a="a2", web__new__z="z2"))
    assert listing(host) == {
        "a": "a2",
        "kept": "/",
        "kept/user": "mine",
        "new": "/",
        "new/z": "z2",
        "user": "mine",
    }


def test_a_refused_installation_leaves_the_old_files_where_the_agent_loses_them(host: Host) -> None:
    succeed(host, revision(web__a="a1", web__b="b1"))
    before = listing(host)
    host.path("/srv/app/c").write_text("foreign")
    result = host.deploy(revision(web__a="a2", web__c="c2"))
    assert result["failed"]
    assert "a specified file already exists at this location" in result["msg"]
    assert listing(host) == {**before, "c": "foreign"}
    host.path("/srv/app/c").unlink()
    succeed(host, revision(web__a="a2", web__c="c2"))
    assert listing(host) == {"a": "a2", "c": "c2"}


@pytest.mark.parametrize("where", ["option", "appspec"])
def test_overwritten_files_are_recorded_and_go_with_the_next_revision(
    host: Host, where: str
) -> None:
    options = {"file_exists_behavior": "overwrite"} if where == "option" else {}
    text = APPSPEC + ("file_exists_behavior: OVERWRITE\n" if where == "appspec" else "")
    host.path("/srv/app").mkdir(parents=True)
    host.path("/srv/app/a").write_text("foreign")
    succeed(host, revision(text, web__a="a1"), options=options)
    assert listing(host) == {"a": "a1"}
    succeed(host, revision(web__b="b2"))
    assert listing(host) == {"b": "b2"}


def test_retained_files_are_neither_copied_nor_recorded_nor_granted(host: Host) -> None:
    text = (
        APPSPEC + "file_exists_behavior: RETAIN\npermissions: [{object: /srv/app, mode: '0600'}]\n"
    )
    host.path("/srv/app").mkdir(parents=True)
    host.path("/srv/app/a").write_text("foreign")
    host.path("/srv/app/a").chmod(0o644)
    succeed(host, revision(text, web__a="a1", web__b="b1"))
    assert listing(host) == {"a": "foreign", "b": "b1"}
    assert stat.S_IMODE(host.path("/srv/app/a").stat().st_mode) == 0o644
    assert stat.S_IMODE(host.path("/srv/app/b").stat().st_mode) == 0o600
    succeed(host, revision(web__c="c2"))
    assert listing(host) == {"a": "foreign", "c": "c2"}


@pytest.mark.parametrize("behavior", ["DISALLOW", "OVERWRITE", "RETAIN"])
def test_a_foreign_link_is_written_through_to_what_may_be_written(
    host: Host, behavior: str
) -> None:
    outside = host.path("/outside")
    outside.write_text("precious")
    host.path("/srv/app").mkdir(parents=True)
    host.path("/srv/app/a").symlink_to(outside)
    host.path("/srv/app/b").symlink_to(host.path("/nowhere"))
    result = host.deploy(
        revision(web__a="a1", web__b="b1"), options={"file_exists_behavior": behavior}
    )
    assert result["failed"] == (behavior == "DISALLOW")
    assert outside.read_text() == ("a1" if behavior == "OVERWRITE" else "precious")
    # What leads nowhere is nothing that could be disallowed or retained.
    assert host.path("/nowhere").exists() == (behavior != "DISALLOW")
    links = {"a": f"->{outside}", "b": f"->{host.path('/nowhere')}"}
    assert listing(host) == links
    # The next revision takes the links away that this wrote through, and not what they lead to.
    succeed(host, revision(web__c="c2"))
    left = {"DISALLOW": links, "RETAIN": {"a": links["a"]}, "OVERWRITE": {}}[behavior]
    assert listing(host) == left | {"c": "c2"}
    assert outside.exists()


def test_files_and_directories_of_the_user_survive_where_ours_were(host: Host) -> None:
    succeed(host, revision(web__dir__x="x1", web__file="f1"))
    for name in ("dir/x", "file"):
        host.path("/srv/app/" + name).unlink()
    host.path("/srv/app/dir").rmdir()
    host.path("/srv/app/dir").write_text("user's file where a directory was made")
    host.path("/srv/app/file").mkdir()
    host.path("/srv/app/file/mine").write_text("u")
    succeed(host, revision(web__other="o2"))
    assert listing(host) == {
        "dir": "user's file where a directory was made",
        "file": "/",
        "file/mine": "u",
        "other": "o2",
    }


def test_an_empty_directory_where_a_file_was_goes_as_the_file_would(host: Host) -> None:
    succeed(host, revision(web__file="f1", web__other="o1"))
    for name in ("file", "other"):
        host.path("/srv/app/" + name).unlink()
        host.path("/srv/app/" + name).mkdir()
    succeed(host, revision(web__file="f2"))
    assert listing(host) == {"file": "f2"}


def test_kinds_may_change_between_revisions(host: Host) -> None:
    succeed(host, revision(web__a__b="1", web__c="1", web__l=Path("c")))
    succeed(host, revision(web__a="2", web__c__d="2", web__l__m="2"))
    assert listing(host) == {"a": "2", "c": "/", "c/d": "2", "l": "/", "l/m": "2"}
    succeed(host, revision(web__a__b="3", web__c=Path("a/b")))
    assert listing(host) == {"a": "/", "a/b": "3", "c": "->a/b"}


def test_a_link_where_a_directory_was_takes_nothing_with_it(host: Host) -> None:
    host.outside_links = True
    outside = host.path("/outside")
    outside.mkdir()
    (outside / "b").write_text("precious")
    succeed(host, revision(web__a__b="1"))
    succeed(host, revision(web__a=outside), options={"outside_links": True})
    assert (outside / "b").read_text() == "precious"
    assert listing(host)["a"] == f"->{outside}"


def test_source_root_installs_everything_with_appspec_and_hidden_files(host: Host) -> None:
    text = "version: 0.0\nos: linux\nfiles: [{source: /, destination: srv/app/}]\n"
    succeed(host, {"appspec.yml": text, ".hidden": "h", "s/x.sh": "x", "empty": None})
    assert listing(host) == {
        ".hidden": "h",
        "appspec.yml": text,
        "empty": "/",
        "s": "/",
        "s/x.sh": "x",
    }


def test_a_file_goes_into_its_destination_directory(host: Host) -> None:
    text = "version: 0.0\nos: linux\nfiles: [{source: /a/b.txt, destination: /srv/app/c.txt}]\n"
    succeed(host, {"appspec.yml": text, "a/b.txt": "b"})
    assert listing(host) == {"c.txt": "/", "c.txt/b.txt": "b"}


def test_links_inside_are_copied_as_the_agent_does(host: Host) -> None:
    host.outside_links = True
    succeed(
        host,
        revision(
            web__real__f="f",
            web__to_dir=Path("real"),
            web__to_file=Path("real/f"),
            web__dangling=Path("/no/where"),
            web__outside=Path("/etc"),
        ),
        options={"outside_links": True},
    )
    assert listing(host) == {
        "dangling": "->/no/where",
        "outside": "->/etc",
        "real": "/",
        "real/f": "f",
        "to_dir": "/",
        "to_dir/f": "f",
        "to_file": "->real/f",
    }
    succeed(host, revision(web__x="2"))
    assert listing(host) == {"x": "2"}


def test_unusual_names(host: Host) -> None:
    names = [
        "a b",
        "new\nline",
        "quote'\"",
        "-rf",
        "näme",
        "*",
        "semanage",
        "back\\slash",
        "\udcff",
    ]
    files: dict[str, Any] = {"appspec.yml": APPSPEC}
    succeed(host, {**files, **{f"web/{name}": name.encode("utf-8", "replace") for name in names}})
    assert {path.name for path in host.path("/srv/app").iterdir()} == set(names)
    succeed(host, revision(web__x="2"))
    assert listing(host) == {"x": "2"}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("[{source: /web, destination: /d}, {source: /web, destination: /d}]", "two source files"),
        ("[{source: /web/a, destination: /d}, {source: /w2/a, destination: /d/}]", "two source"),
        (
            "[{source: /web/a, destination: /d}, {source: /w2, destination: /d/a}]",
            "a directory and a file",
        ),
        (
            "[{source: /w2, destination: /d/a}, {source: /web/a, destination: /d}]",
            "It would be a directory, too",
        ),
        ("[{source: /missing, destination: /d}]", "does not hold"),
        ("[{source: ../other, destination: /d}]", "leaves the revision"),
        ("[{source: /loop, destination: /d}]", "leads back"),
    ],
)
def test_contradictions_are_refused_while_staging(host: Host, files: str, words: str) -> None:
    text = f"version: 0.0\nos: linux\nfiles: {files}\n"
    result = host.deploy(
        {"appspec.yml": text, "web/a": "1", "w2/a": "2", "loop/back": Path("../loop")}
    )
    assert result["failed"]
    assert words in result["msg"]
    assert not host.path("/d").exists()
    assert not (host.root / host.group_id / "d-000000001").exists()


def test_modes_times_and_setuid_survive(host: Host) -> None:
    text = APPSPEC + (
        "permissions:\n"
        f"  - {{object: /srv/app/tool, mode: '4755', owner: {os.getuid()}, group: {os.getgid()}}}\n"
        "  - {object: /srv/app, pattern: '*.txt', mode: '0600'}\n"
    )
    files = {
        "appspec.yml": text,
        "web/tool": ("t", 0o755),
        "web/a.txt": "a",
        "web/plain": ("p", 0o640),
        "web/private": (None, 0o700),
        "web/private/f": "f",
    }
    succeed(host, files)
    modes = {
        str(path.relative_to(host.path("/srv/app"))): oct(stat.S_IMODE(path.stat().st_mode))
        for path in host.path("/srv/app").rglob("*")
    }
    assert modes == {
        "tool": "0o4755",
        "a.txt": "0o600",
        "plain": "0o640",
        "private": "0o700",
        "private/f": "0o644",
    }
    assert host.path("/srv/app/plain").stat().st_mtime == 1_700_000_000


def test_a_directory_that_stays_is_as_new(host: Host) -> None:
    text = APPSPEC + "permissions: [{object: /srv, type: [directory], mode: '0700'}]\n"
    succeed(host, revision(text, web__d__a="1"))
    assert stat.S_IMODE(host.path("/srv/app/d").stat().st_mode) == 0o700
    inode = host.path("/srv/app/d").stat().st_ino
    succeed(host, revision(web__d__a="2"))
    assert stat.S_IMODE(host.path("/srv/app/d").stat().st_mode) == 0o755
    assert host.path("/srv/app/d").stat().st_ino == inode


def test_the_agents_own_files_are_written(host: Host) -> None:
    succeed(host, revision(web__a="a1"))
    instructions = host.root / "deployment-instructions"
    deployment = host.root / host.group_id / "d-000000001"
    top = host.path("/srv/app")
    assert (instructions / "group-1-cleanup").read_text().splitlines() == [
        str(top.parent),
        str(top),
        str(top / "a"),
    ]
    record = json.loads((instructions / "group-1-install.json").read_text())
    assert record["instructions"] == [
        {"type": "mkdir", "directory": str(top.parent)},
        {"type": "mkdir", "directory": str(top)},
        {
            "type": "copy",
            "source": str(deployment / "deployment-archive/web/a"),
            "destination": str(top / "a"),
        },
    ]
    for name in ("last_successful", "most_recent"):
        assert (instructions / f"group-1_{name}_install").read_text() == str(deployment)
    assert (deployment / "bundle.tar").is_file()


def test_an_installation_that_broke_off_is_taken_up_by_the_next_one(host: Host) -> None:
    succeed(host, revision(web__a="a1", web__b="b1"))
    # What an interrupted run leaves: a longer list, a line cut short, and a file half written.
    cleanup = host.root / "deployment-instructions/group-1-cleanup"
    top = host.path("/srv/app")
    (top / "c").write_text("half")
    (top / ".bascule-install.tmp").write_text("half")
    cleanup.write_text(cleanup.read_text() + f"{top}/c\n{top}/dd")
    (top / "dd").write_text("foreign")
    succeed(host, revision(web__a="a2", web__c="c2"))
    assert listing(host) == {"a": "a2", "c": "c2", "dd": "foreign"}


def test_a_destination_behind_a_link_is_the_same_place(host: Host) -> None:
    succeed(host, revision(web__a="a1"))
    host.path("/var").symlink_to(host.path("/srv"))
    text = APPSPEC.replace("/srv/app", "/var/app")
    succeed(host, revision(text, web__a="a2", web__b="b2"))
    assert listing(host) == {"a": "a2", "b": "b2"}
    succeed(host, revision(web__c="c3"))
    assert listing(host) == {"c": "c3"}


def test_two_groups_on_one_host_do_not_meet(host: Host) -> None:
    succeed(host, revision(web__a="a1"))
    host.group_id = "group-2"
    result = host.deploy(revision(web__a="a2"))
    assert result["failed"]
    assert "already exists" in result["msg"]
    succeed(host, revision(APPSPEC.replace("/srv/app", "/srv/other"), web__a="a2"))
    assert listing(host, "/srv") == {"app": "/", "app/a": "a1", "other": "/", "other/a": "a2"}


def test_old_deployments_go_but_never_the_ones_still_needed(host: Host) -> None:
    succeed(host, revision(web__a="a0"), options={"retained_revisions": 3})
    bad = "version: 0.0\nos: linux\nhooks: {BeforeInstall: [{location: bad.sh}]}\n"
    for number in range(4):
        files = {"appspec.yml": bad, "bad.sh": "exit 1", "n": str(number)}
        assert host.deploy(files, options={"retained_revisions": 3})["failed"]
    kept = sorted(path.name for path in (host.root / host.group_id).iterdir())
    assert kept == ["d-000000001", "d-000000004", "d-000000005"]
    assert len(list((host.root / "bundle-cache").iterdir())) == 3


def test_zip_and_tar_install_alike(host: Host) -> None:
    for kind in ("zip", "tar", "tgz"):
        succeed(host, revision(web__a=kind, web__l=Path("a")), kind=kind)
        assert listing(host) == {"a": kind, "l": "->a"}
