"""What ``bascule local`` installs, over one and several deployments, as the agent was seen to."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from support.local_host import LocalHost, appspec


@pytest.fixture
def host(tmp_path: Path) -> LocalHost:
    return LocalHost(tmp_path)


# name, bundle, what is installed (None: refused at Install and nothing is there)
INSTALLS: list[tuple[str, dict[str, Any], dict[str, str] | None]] = [
    (
        "a directory's content, not the directory",
        {"appspec.yml": appspec("app {d}/x"), "app/a": "1", "app/in/b": "2"},
        {"x": "/", "x/a": "1", "x/in": "/", "x/in/b": "2"},
    ),
    (
        "a file goes into a directory of that name",
        {"appspec.yml": appspec("app/a {d}/x/a"), "app/a": "1"},
        {"x": "/", "x/a": "/", "x/a/a": "1"},
    ),
    (
        "a leading slash of a source means nothing",
        {"appspec.yml": appspec("/app {d}/x"), "app/a": "1"},
        {"x": "/", "x/a": "1"},
    ),
    (
        "dotfiles, empty directories and unusual names",
        {
            "appspec.yml": appspec("app {d}/x"),
            "app/.hidden": "1",
            "app/empty": None,
            "app/a b'\"$(x)": "2",
            "app/ümlaut": "3",
        },
        {"x": "/", "x/.hidden": "1", "x/a b'\"$(x)": "2", "x/empty": "/", "x/ümlaut": "3"},
    ),
    (
        "a link to a directory becomes a directory, one to a file stays, so does a dangling one",
        {
            "appspec.yml": appspec("app {d}/x"),
            "app/real/f": "1",
            "app/folder": Path("real"),
            "app/file": Path("real/f"),
            "app/gone": Path("nowhere"),
        },
        {
            "x": "/",
            "x/file": "-> real/f",
            "x/folder": "/",
            "x/folder/f": "1",
            "x/gone": "-> nowhere",
            "x/real": "/",
            "x/real/f": "1",
        },
    ),
    (
        "two entries into one directory",
        {"appspec.yml": appspec("one {d}/x\ntwo {d}/x"), "one/a": "1", "two/b": "2"},
        {"x": "/", "x/a": "1", "x/b": "2"},
    ),
    (
        "two sources for one destination",
        {"appspec.yml": appspec("one {d}/x\ntwo {d}/x"), "one/a": "1", "two/a": "2"},
        None,
    ),
    (
        "the same entry twice",
        {"appspec.yml": appspec("one {d}/x\none {d}/x"), "one/a": "1"},
        None,
    ),
    (
        "a file where another entry makes a directory",
        {"appspec.yml": appspec("one {d}/x\ntwo {d}/x"), "one/a/b": "1", "two/a": "2"},
        None,
    ),
    (
        "a source that is missing",
        {"appspec.yml": appspec("one {d}/x\nmissing {d}/x"), "one/a": "1"},
        None,
    ),
    (
        "a file is no folder",
        {"appspec.yml": appspec("app/a/ {d}/x"), "app/a": "1"},
        None,
    ),
    (
        "a link to a file is no folder",
        {"appspec.yml": appspec("app/l/. {d}/x"), "app/a": "1", "app/l": Path("a")},
        None,
    ),
    (
        "a folder may be named as one",
        {"appspec.yml": appspec("app/. {d}/x/"), "app/a": "1"},
        {"x": "/", "x/a": "1"},
    ),
    ("~ is no folder", {"appspec.yml": appspec("app ~/x"), "app/a": "1"}, None),
    (
        "patterns in a source mean nothing",
        {"appspec.yml": appspec("app/* {d}/x"), "app/a": "1"},
        None,
    ),
    ("no files at all", {"appspec.yml": appspec()}, {}),
    ("files: null", {"appspec.yml": appspec("", "files:\nhooks:\npermissions:\n")}, {}),
    (
        "unknown keys and the last of two equal ones",
        {"appspec.yml": appspec("none {d}/x", "files: []\nmore: 1\n")},
        {},
    ),
]


@pytest.mark.parametrize(
    ("bundle", "expected"), [row[1:] for row in INSTALLS], ids=[row[0] for row in INSTALLS]
)
def test_one_installation(
    host: LocalHost, bundle: dict[str, Any], expected: dict[str, str] | None
) -> None:
    done = host.install(bundle)
    if expected is None:
        assert (done.status, done.failed_event) == (1, "Install")
        assert host.tree() == {}
    else:
        assert done.ok, done.message
        assert host.tree() == expected


def test_slash_brings_the_appspec_and_the_scripts_along(host: LocalHost) -> None:
    done = host.install({"appspec.yml": appspec("/ {d}"), "s/run.sh": "exit", ".env": "A=1"})
    assert done.ok
    assert set(host.tree()) == {"appspec.yml", "s", "s/run.sh", ".env"}


SECOND = {"appspec.yml": appspec("app {d}/x"), "app/a": "2"}
FIRST = {"appspec.yml": appspec("app {d}/x"), "app/a": "1", "app/old/b": "1"}


def test_the_second_deployment_takes_away_what_the_first_brought(host: LocalHost) -> None:
    assert host.install(FIRST).ok
    (host.top / "x/user").write_text("mine")
    assert host.install(SECOND).ok
    assert host.tree() == {"x": "/", "x/a": "2", "x/user": "mine"}


def test_a_directory_that_users_filled_stays_for_ever(host: LocalHost) -> None:
    assert host.install(FIRST).ok
    (host.top / "x/old/user").write_text("mine")
    assert host.install(SECOND).ok
    (host.top / "x/old/user").unlink()
    assert host.install({"appspec.yml": appspec()}).ok
    assert host.tree() == {"x": "/", "x/old": "/"}


def test_another_group_knows_nothing_of_the_first(host: LocalHost) -> None:
    assert host.install(FIRST).ok
    done = host.install(SECOND, "-g", "other")
    assert (done.status, done.failed_event) == (1, "Install")
    assert "already exists" in done.message
    assert host.tree()["x/a"] == "1"


# AppSpec's word, the option's, whether it goes, the file's text, its text one empty deployment on
EXISTING = [
    (None, None, False, "foreign", "foreign"),
    (None, "DISALLOW", False, "foreign", "foreign"),
    (None, "OVERWRITE", True, "1", None),
    (None, "overwrite", True, "1", None),
    (None, "RETAIN", True, "foreign", "foreign"),
    ("RETAIN", "DISALLOW", True, "foreign", "foreign"),
    ("DISALLOW", "OVERWRITE", False, "foreign", "foreign"),
    ("OVERWRITE", "RETAIN", True, "1", None),
]


@pytest.mark.parametrize(("word", "option", "goes", "text", "later"), EXISTING)
def test_a_file_that_exists(
    host: LocalHost, word: str | None, option: str | None, goes: bool, text: str, later: str | None
) -> None:
    (host.top / "x").mkdir()
    (host.top / "x/a").write_text("foreign")
    spec = appspec("app {d}/x", f"file_exists_behavior: {word}\n" if word else "")
    done = host.install(
        {"appspec.yml": spec, "app/a": "1", "app/b": "1"}, *(["-b", option] if option else [])
    )
    assert done.ok == goes
    if not goes:
        assert done.message.startswith(
            "The deployment failed because a specified file already exists at this location:"
            f" {host.top}/x/a"
        )
    assert (host.top / "x/a").read_text() == text
    assert (host.top / "x/b").exists() == goes
    assert host.install({"appspec.yml": appspec()}).ok
    left = (host.top / "x/a").read_text() if (host.top / "x/a").exists() else None
    assert left == later


# What x/a of the bundle is, what is in its place before (None: a folder), and what is there
# afterwards and one empty deployment later, as the agent was seen to; None: refused
OVER: list[tuple[str | Path, dict[str, str | Path | None], dict[str, str] | None, set[str]]] = [
    ("1", {"x/a": Path("../t"), "t": "u"}, {"x/a": "-> ../t", "t": "1"}, {"t"}),
    ("1", {"x/a": Path("../t")}, {"x/a": "-> ../t", "t": "1"}, {"t"}),
    ("1", {"x/a": Path("../t"), "t": None}, {"x/a": "-> ../t", "t": "/", "t/a": "1"}, {"t", "t/a"}),
    ("1", {"x/a": None}, {"x/a": "/", "x/a/a": "1"}, {"x/a", "x/a/a"}),
    ("1", {"x/a": None, "x/a/a": "u"}, {"x/a": "/", "x/a/a": "1"}, {"x/a", "x/a/a"}),
    ("1", {"x/a": None, "x/a/a": None}, None, set()),
    ("1", {"x/a": Path("../no/t")}, None, set()),
    ("1", {"x/a": Path("a")}, None, set()),
    (Path("b"), {"x/a": "u"}, None, set()),
    (Path("b"), {"x/a": Path("../t")}, None, set()),
]


@pytest.mark.parametrize("behavior", ["DISALLOW", "RETAIN"])
def test_a_link_that_leads_nowhere_does_not_exist(host: LocalHost, behavior: str) -> None:
    (host.top / "x").mkdir()
    (host.top / "x/a").symlink_to("../t")
    files = {"appspec.yml": appspec("app {d}/x"), "app/a": "1"}
    assert host.install(files, "-b", behavior).ok
    assert host.tree() == {"x": "/", "x/a": "-> ../t", "t": "1"}
    assert host.install({"appspec.yml": appspec()}).ok
    assert host.tree() == {"x": "/", "t": "1"}


@pytest.mark.parametrize(("source", "before", "after", "later"), OVER)
def test_what_overwrite_meets(
    host: LocalHost,
    source: str | Path,
    before: dict[str, str | Path | None],
    after: dict[str, str] | None,
    later: set[str],
) -> None:
    (host.top / "x").mkdir()
    for name, content in before.items():
        path = host.top / name
        if content is None:
            path.mkdir()
        elif isinstance(content, Path):
            path.symlink_to(content)
        else:
            path.write_text(content)
    there = host.tree()
    files = {"appspec.yml": appspec("app {d}/x"), "app/a": source}
    done = host.install(files, "-b", "OVERWRITE")
    assert done.ok == (after is not None), done.message
    assert host.tree() == ({"x": "/"} | after if after is not None else there)
    if after is not None:
        assert host.install({"appspec.yml": appspec()}).ok
        assert set(host.tree()) == {"x"} | later


def test_a_way_back_over_a_missing_folder(host: LocalHost) -> None:
    """The agent makes every folder of the way, and fails at one that exists."""
    files = {"appspec.yml": appspec("app {d}/p/../x"), "app/a": "1"}
    done = host.install(files)
    assert (done.failed_event, host.tree()) == ("Install", {})
    assert "Write it without" in done.message
    (host.top / "p").mkdir()
    assert host.install(files).ok
    assert host.tree() == {"p": "/", "x": "/", "x/a": "1"}
    files = {"appspec.yml": appspec("app {d}/n/m/../x"), "app/a": "1"}
    assert host.install(files).ok
    assert host.tree() == {"n": "/", "n/m": "/", "n/x": "/", "n/x/a": "1", "p": "/"}


def test_a_retained_file_is_not_touched_by_permissions(host: LocalHost) -> None:
    (host.top / "x").mkdir()
    (host.top / "x/a").write_text("foreign")
    (host.top / "x/a").chmod(0o640)
    rest = "permissions:\n  - object: {d}/x\n    mode: '600'\n    type: [file]\n"
    done = host.install(
        {"appspec.yml": appspec("app {d}/x", rest), "app/a": "1", "app/b": "2"}, "-b", "RETAIN"
    )
    assert done.ok
    assert (host.mode("x/a"), host.mode("x/b")) == ("0640", "0600")


def test_a_retained_file_needs_no_source(host: LocalHost) -> None:
    (host.top / "x").mkdir()
    (host.top / "x/a").write_text("foreign")
    files = {"appspec.yml": appspec("a {d}/x\nb {d}/x"), "b": "1"}
    assert host.install(files, "-b", "RETAIN").ok
    assert host.tree() == {"x": "/", "x/a": "foreign", "x/b": "1"}
    assert host.install(files, "-b", "OVERWRITE").failed_event == "Install"


def test_a_word_for_existing_files_that_does_not_exist_is_refused(host: LocalHost) -> None:
    done = host.install(FIRST, "-b", "REPLACE")
    assert done.status == 2
    assert "REPLACE" in done.stderr
    assert not host.root.exists()


@pytest.mark.parametrize("source", ["app", "app/a"])
def test_a_destination_that_is_a_file_is_refused(host: LocalHost, source: str) -> None:
    (host.top / "x").write_text("a file")
    done = host.install({"appspec.yml": appspec(f"{source} {{d}}/x"), "app/a": "1"})
    assert (done.status, done.failed_event) == (1, "Install")
    assert host.tree() == {"x": "a file"}


def test_a_folder_is_copied_under_the_umask_and_not_stripped(host: LocalHost) -> None:
    bundle = {
        "appspec.yml": appspec("app {d}/x"),
        "app/wide": ("1", 0o666),
        "app/run": ("1", 0o777),
        "app/narrow": ("1", 0o600),
    }
    top = host.bundle(bundle)
    (top / "app").chmod(0o700)
    os.utime(top / "app/wide", (1, 1))
    assert host.install(top).ok
    assert [host.mode(f"x/{name}") for name in ("wide", "run", "narrow")] == [
        "0644",
        "0755",
        "0600",
    ]
    assert host.mode("x") == "0755"
    assert (host.top / "x/wide").stat().st_mtime > 1
    # One folder with the AppSpec in it is stripped from archives only.
    done = host.install({f"only/{name}": spec for name, spec in bundle.items()})
    assert (done.status, done.failed_event) == (1, "Install")
    assert "did not find an AppSpec file" in done.message


@pytest.mark.parametrize("kind", ["tgz", "tar", "zip"])
def test_an_archive_keeps_modes_and_is_stripped(host: LocalHost, kind: str) -> None:
    files = {"only/appspec.yml": appspec("app {d}/x"), "only/app/wide": ("1", 0o666)}
    assert host.install(host.archive(files, kind), "-t", kind).ok
    assert host.mode("x/wide") == "0666"
    assert host.install(host.archive(files, kind)).ok


def test_a_tar_keeps_times_and_special_bits(host: LocalHost) -> None:
    bundle = host.archive({"appspec.yml": appspec("app {d}/x"), "app/s": ("1", 0o4755)})
    assert host.install(bundle).ok
    assert host.mode("x/s") == "4755"
    assert (host.top / "x/s").stat().st_mtime == 1_700_000_000


@pytest.mark.parametrize(
    ("content", "kind"), [(b"no archive", None), (b"", None), (b"no archive", "zip")]
)
def test_a_damaged_archive_fails_at_download(
    host: LocalHost, content: bytes, kind: str | None
) -> None:
    assert host.deploy(FIRST).ok
    bundle = host.folder / "bad"
    bundle.write_bytes(content)
    done = host.deploy(bundle, *(["-t", kind] if kind else []))
    assert (done.status, done.failed_event) == (1, "DownloadBundle")
    assert host.tree()["x/a"] == "1"


def test_a_zip_is_no_tar(host: LocalHost) -> None:
    done = host.install(host.archive(SECOND, "zip"), "-t", "tgz")
    assert (done.status, done.failed_event) == (1, "DownloadBundle")
    assert "--type" in done.message


def test_links_that_leave_an_archive(host: LocalHost) -> None:
    bundle = host.archive(
        {"appspec.yml": appspec("app {d}/x"), "app/log": Path("/var/log"), "app/a": "1"}
    )
    done = host.install(bundle, "--refuse-outside-links")
    assert (done.status, done.failed_event) == (1, "DownloadBundle")
    assert "/var/log" in done.message
    assert host.install(bundle).ok
    assert host.tree()["x/log"] == "-> /var/log"


def test_a_refused_installation_leaves_the_old_version(host: LocalHost) -> None:
    assert host.install(FIRST).ok
    before = host.tree()
    (host.top / "x/new").write_text("foreign")
    done = host.install({"appspec.yml": appspec("app {d}/x"), "app/new": "2"})
    assert (done.status, done.failed_event) == (1, "Install")
    (host.top / "x/new").unlink()
    assert host.tree() == before
    assert host.install(SECOND).ok
    assert host.tree() == {"x": "/", "x/a": "2"}


def test_five_deployments_are_kept_the_newest_included(host: LocalHost) -> None:
    ids = [host.install(SECOND).json["deployment_id"] for _ in range(7)]
    group = host.root / "default-local-deployment-group"
    assert {path.name for path in group.iterdir()} == set(ids[2:])


def test_the_agents_configuration_names_root_and_revisions(host: LocalHost, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    configuration = tmp_path / "agent.yml"
    configuration.write_text(f"---\n:root_dir: '{other}'\n:max_revisions: 2\n")
    host.root = other
    for _ in range(4):
        assert host.install(SECOND, "-c", str(configuration)).ok
    assert len(list((other / "default-local-deployment-group").iterdir())) == 2


def test_sysroot_is_before_destinations_and_the_root(host: LocalHost, tmp_path: Path) -> None:
    from bascule.local import deploy

    bundle = host.bundle({"appspec.yml": appspec("app /srv/x"), "app/a": "1"})
    result = deploy(str(bundle), sysroot=str(tmp_path / "sys"))
    assert result["status"] == "Succeeded"
    assert (tmp_path / "sys/srv/x/a").read_text() == "1"
    assert Path(result["log"]).is_relative_to(tmp_path / "sys/opt/codedeploy-agent/deployment-root")


def test_a_root_inside_the_bundle_is_refused(host: LocalHost) -> None:
    bundle = host.bundle(SECOND)
    host.root = bundle / "root"
    done = host.install(bundle)
    assert done.status == 2
    assert "--root" in done.stderr
    assert not host.root.exists()


def test_names_with_line_breaks_are_cleaned_up(host: LocalHost) -> None:
    assert host.install({"appspec.yml": appspec("app {d}/x"), "app/a\nb": "1"}).ok
    assert host.install({"appspec.yml": appspec()}).ok
    assert host.tree() == {}


def test_what_the_agent_finds_if_it_comes_back(host: LocalHost) -> None:
    done = host.install(SECOND)
    instructions = host.root / "deployment-instructions"
    group = "default-local-deployment-group"
    assert (instructions / f"{group}-cleanup").read_text() == f"{host.top}/x\n{host.top}/x/a\n"
    archive = done.folder / "deployment-archive"
    assert json.loads((instructions / f"{group}-install.json").read_text()) == {
        "instructions": [
            {"type": "mkdir", "directory": f"{host.top}/x"},
            {"type": "copy", "source": f"{archive}/app/a", "destination": f"{host.top}/x/a"},
        ]
    }
    for pointer in ("last_successful", "most_recent"):
        assert (instructions / f"{group}_{pointer}_install").read_text() == str(done.folder)
    assert re.fullmatch(r"d-[A-Z0-9]{9}-local", done.folder.name)
    assert done.folder == host.root / group / done.json["deployment_id"]


def test_what_the_agent_left_is_taken_over(host: LocalHost) -> None:
    """The clean-up list of an agent that was cut off in its last line."""
    (host.top / "old").mkdir()
    for name in ("a", "b", "mine"):
        (host.top / "old" / name).write_text("old")
    instructions = host.root / "deployment-instructions"
    instructions.mkdir(parents=True)
    (instructions / "default-local-deployment-group-cleanup").write_text(
        f"{host.top}/old\n{host.top}/old/a\n{host.top}/old/gone\n{host.top}/old/b"
    )
    assert host.install(SECOND).ok
    assert host.tree() == {"old": "/", "old/b": "old", "old/mine": "old", "x": "/", "x/a": "2"}


def test_the_last_good_deployment_is_kept_whatever_fails_after_it(host: LocalHost) -> None:
    good = host.deploy(FIRST)
    for _ in range(7):
        assert not host.deploy({"appspec.yml": "version: 1\n"}).ok
    group = host.root / "default-local-deployment-group"
    assert good.folder.is_dir()
    assert len(list(group.iterdir())) == 5
    assert host.deploy(SECOND).ok


def test_a_pipe_in_a_folder_is_refused(host: LocalHost) -> None:
    bundle = host.bundle(SECOND)
    os.mkfifo(bundle / "app" / "pipe")
    done = host.install(bundle)
    assert (done.status, done.failed_event) == (1, "DownloadBundle")
    assert "app/pipe" in done.message


def test_names_with_blanks_around_them_are_cleaned_up(host: LocalHost) -> None:
    assert host.install({"appspec.yml": appspec("app {d}/x"), "app/a ": "1", "app/ b": "2"}).ok
    assert set(host.tree()) == {"x", "x/a ", "x/ b"}
    assert host.install({"appspec.yml": appspec()}).ok
    assert host.tree() == {}


def test_the_umask_of_the_shell_does_not_matter(host: LocalHost) -> None:
    bundle = host.bundle(SECOND)
    before = os.umask(0o077)
    try:
        done = host.install(bundle)
    finally:
        os.umask(before)
    assert done.ok
    assert (host.mode("x"), host.mode("x/a")) == ("0755", "0644")
    made = [done.folder / "deployment-archive", done.folder, done.folder.parent, host.root]
    assert {f"{path.stat().st_mode & 0o777:o}" for path in made} == {"755"}
