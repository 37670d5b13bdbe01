"""Which scripts ``bascule local`` runs, with what, and what it says when one fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._host import _process
from support.local_host import LocalHost, appspec, hooks

ALL = [
    "BeforeBlockTraffic",
    "AfterBlockTraffic",
    "ApplicationStop",
    "BeforeInstall",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
    "BeforeAllowTraffic",
    "AfterAllowTraffic",
]


@pytest.fixture
def host(tmp_path: Path) -> LocalHost:
    return LocalHost(tmp_path)


def noisy(version: str, **scripts: str) -> dict[str, Any]:
    """Return a revision whose hook of every event says the event and the revision."""
    names = {event: f"s/{event}.sh" for event in ALL}
    files: dict[str, Any] = {
        f"s/{event}.sh": (f"#!/bin/sh\necho {version}\n", 0o755) for event in ALL
    }
    files["app/version"] = version
    files["appspec.yml"] = appspec("app {d}/x", hooks(**names))
    files.update({f"s/{event}.sh": (text, 0o755) for event, text in scripts.items()})
    return files


def said(lines: list[str]) -> list[str]:
    """Return ``EVENT WORDS`` of a log's output lines."""
    result, event = [], ""
    for line in lines:
        if line.startswith("LifecycleEvent - "):
            event = line.split(" - ")[1]
        elif line.startswith("[stdout]"):
            result.append(f"{event} {line.removeprefix('[stdout]')}")
    return result


def test_a_first_deployment_has_nothing_to_stop(host: LocalHost) -> None:
    done = host.deploy(noisy("1"))
    assert done.ok
    assert said(done.log) == [f"{event} 1" for event in ALL[3:]]
    assert [one["event"] for one in done.json["events"]] == [
        *ALL[:3],
        "DownloadBundle",
        "BeforeInstall",
        "Install",
        *ALL[4:],
    ]
    assert {one["status"] for one in done.json["events"]} == {"Succeeded"}


def test_the_second_stops_what_the_first_brought(host: LocalHost) -> None:
    assert host.deploy(noisy("1")).ok
    done = host.deploy(noisy("2"))
    assert said(done.log) == [f"{event} 1" for event in ALL[:3]] + [
        f"{event} 2" for event in ALL[3:]
    ]


def test_a_revision_that_failed_after_install_is_what_is_stopped_next(host: LocalHost) -> None:
    assert host.deploy(noisy("1")).ok
    failed = host.deploy(noisy("2", ApplicationStart="#!/bin/sh\nexit 7\n"))
    assert (failed.status, failed.failed_event) == (1, "ApplicationStart")
    assert failed.json["error"]["code"] == "ScriptFailed"
    assert failed.message == (
        "Script at specified location: s/ApplicationStart.sh failed with exit code 7"
    )
    assert [one["status"] for one in failed.json["events"]][-3:] == ["Skipped"] * 3
    done = host.deploy(noisy("3"))
    assert said(done.log)[:3] == [f"{event} 2" for event in ALL[:3]]


def test_a_revision_that_failed_before_install_is_not(host: LocalHost) -> None:
    assert host.deploy(noisy("1")).ok
    assert host.deploy(noisy("2", BeforeInstall="#!/bin/sh\nexit 1\n")).failed_event == (
        "BeforeInstall"
    )
    assert (host.top / "x/version").read_text() == "1"
    assert said(host.deploy(noisy("3")).log)[:3] == [f"{event} 1" for event in ALL[:3]]


def test_a_stop_script_that_fails_blocks_the_next_deployment(host: LocalHost) -> None:
    assert host.deploy(noisy("1", ApplicationStop="#!/bin/sh\nexit 3\n")).ok
    for _ in range(2):
        done = host.deploy(noisy("2"))
        assert (done.status, done.failed_event) == (1, "ApplicationStop")
        assert (host.top / "x/version").read_text() == "1"
    assert host.deploy(noisy("2"), "-e", "DownloadBundle,Install").ok


def test_scripts_run_in_order_until_one_fails(host: LocalHost) -> None:
    done = host.deploy(
        {
            "appspec.yml": appspec("", hooks(AfterInstall="a b c")),
            "a": ("#!/bin/sh\necho one; echo two >&2\n", 0o755),
            "b": ("#!/bin/sh\nexit 5\n", 0o755),
            "c": ("#!/bin/sh\necho never\n", 0o755),
        }
    )
    assert (done.status, done.failed_event) == (1, "AfterInstall")
    assert done.json["error"]["script"] == "b"
    assert done.log[:2] == ["LifecycleEvent - AfterInstall", "Script - a"]
    assert sorted(done.log[2:4]) == ["[stderr]two", "[stdout]one"]
    assert done.log[4:] == ["Script - b"]
    assert "Script - b\n" in done.json["error"]["log"]


# name, script and mode (None: it is missing), hook's other keys, failed event's code, message
ENDINGS: list[tuple[str, tuple[str, int] | None, str, str | None, str]] = [
    ("without a shebang", ("echo hello\n", 0o755), "", None, ""),
    ("without run bit", ("#!/bin/sh\nexit 0\n", 0o644), "", None, ""),
    ("missing", None, "", "ScriptMissing", "Script does not exist at specified location: {p}"),
    (
        "late",
        ("#!/bin/sh\nsleep 30\n", 0o755),
        "timeout: 1",
        "ScriptTimedOut",
        "Script at specified location: s.sh failed to complete in 1 seconds",
    ),
    (
        "exit 9 as a user",
        ("#!/bin/sh\nexit 9\n", 0o755),
        "runas: root",
        "ScriptFailed",
        "Script at specified location: s.sh run as user root failed with exit code 9",
    ),
    (
        "an output left open",
        ("#!/bin/sh\nsleep 9 &\nexit 0\n", 0o755),
        "timeout: 1",
        "UnknownError",
        "Script at specified location: s.sh failed to close STDOUT: a program that it left running"
        " still has it after 1 seconds. Start that program with >/dev/null 2>&1 </dev/null &",
    ),
    ("timeout as text", ("#!/bin/sh\nexit 0\n", 0o755), "timeout: 30s", None, ""),
]


@pytest.mark.parametrize(
    ("script", "keys", "code", "message"), [row[1:] for row in ENDINGS], ids=[r[0] for r in ENDINGS]
)
def test_how_a_script_ends(
    host: LocalHost, script: tuple[str, int] | None, keys: str, code: str | None, message: str
) -> None:
    if "runas" in keys and os.geteuid():
        keys, message = "", message.replace(" run as user root", "")
    section = f"hooks:\n  ApplicationStart:\n    - location: s.sh\n      {keys}\n"
    files: dict[str, Any] = {"appspec.yml": appspec("", section)}
    if script:
        files["s.sh"] = script
    done = host.deploy(files)
    assert done.ok == (code is None), done.message
    if code:
        assert done.failed_event == "ApplicationStart"
        assert done.json["error"]["code"] == code
        path = done.folder / "deployment-archive" / "s.sh"
        assert done.message == message.replace("{p}", str(path))


def test_a_script_that_is_missing_is_found_after_the_installation(host: LocalHost) -> None:
    """As with the agent: a script before it might have made it."""
    files = {"appspec.yml": appspec("app {d}/x", hooks(ApplicationStart="no")), "app/a": "1"}
    done = host.deploy(files)
    assert done.failed_event == "ApplicationStart"
    assert host.tree() == {"x": "/", "x/a": "1"}


def test_a_hook_may_make_what_is_installed(host: LocalHost) -> None:
    make = '#!/bin/sh\nmkdir "$(dirname "$0")/made" && echo made >"$(dirname "$0")/made/f"\n'
    done = host.deploy(
        {
            "appspec.yml": appspec("made {d}/x", hooks(BeforeInstall="make.sh")),
            "make.sh": (make, 0o755),
        }
    )
    assert done.ok, done.message
    assert host.tree() == {"x": "/", "x/f": "made\n"}


@pytest.mark.parametrize("location", ["/in/s.sh", "in/../in/s.sh", " in/s.sh "])
def test_a_location_is_below_the_bundle(host: LocalHost, location: str) -> None:
    section = f"hooks:\n  AfterInstall:\n    - location: '{location}'\n"
    done = host.deploy(
        {"appspec.yml": appspec("", section), "in/s.sh": ('#!/bin/sh\necho "$0"\n', 0o755)}
    )
    assert done.ok, done.message
    assert f"[stdout]{done.folder}/deployment-archive/" in done.log[2]


def test_the_environment_of_a_script(host: LocalHost) -> None:
    names = [
        "LIFECYCLE_EVENT",
        "DEPLOYMENT_ID",
        "APPLICATION_NAME",
        "DEPLOYMENT_GROUP_NAME",
        "DEPLOYMENT_GROUP_ID",
    ]
    text = "#!/bin/sh\n" + "".join(f'echo "{name}=${name}"\n' for name in names)
    files = {"appspec.yml": appspec("", hooks(AfterInstall="s.sh")), "s.sh": (text, 0o755)}
    done = host.deploy(files, "-g", "group-7", "-d", "shop", "-a", "web")
    assert done.log[2:] == [
        "[stdout]LIFECYCLE_EVENT=AfterInstall",
        f"[stdout]DEPLOYMENT_ID={done.json['deployment_id']}",
        "[stdout]APPLICATION_NAME=web",
        "[stdout]DEPLOYMENT_GROUP_NAME=shop",
        "[stdout]DEPLOYMENT_GROUP_ID=group-7",
    ]
    bundle = host.bundle(files)
    done = host.deploy(bundle)
    assert f"[stdout]APPLICATION_NAME={bundle}" in done.log
    assert "[stdout]DEPLOYMENT_GROUP_NAME=LocalFleet" in done.log
    assert "[stdout]DEPLOYMENT_GROUP_ID=default-local-deployment-group" in done.log


def test_the_stop_script_gets_the_new_deployments_id(host: LocalHost) -> None:
    script = '#!/bin/sh\necho "$DEPLOYMENT_ID"\n'
    assert host.deploy(noisy("1", ApplicationStop=script)).ok
    done = host.deploy(noisy("2"))
    assert f"ApplicationStop {done.json['deployment_id']}" in said(done.log)


# -- events ----------------------------------------------------------------------------------------


def test_custom_events_run_where_they_are_named(host: LocalHost) -> None:
    files = noisy("1")
    files["s/extra.sh"] = ("#!/bin/sh\necho extra\n", 0o755)
    files["appspec.yml"] = appspec(
        "", hooks(ApplicationStart="s/ApplicationStart.sh", Extra="s/extra.sh")
    )
    done = host.deploy(files, "-e", "Extra,ApplicationStart")
    assert done.ok, done.message
    assert [one["event"] for one in done.json["events"]] == [
        "DownloadBundle",
        "Install",
        "Extra",
        "ApplicationStart",
    ]
    assert said(done.log) == ["Extra extra", "ApplicationStart 1"]
    refused = host.deploy(files)
    assert (refused.status, refused.failed_event) == (1, "Install")
    assert "unknown lifecycle events: Extra" in refused.message


def test_a_custom_event_needs_scripts(host: LocalHost) -> None:
    done = host.deploy(noisy("1"), "-e", "Extra")
    assert (done.status, done.failed_event) == (1, "Install")
    assert "doesn't exist in your AppSpec file: Extra" in done.message
    assert host.tree() == {}


@pytest.mark.parametrize(
    "events",
    [
        "Install,DownloadBundle",
        "ApplicationStart,DownloadBundle,Install",
        "DownloadBundle,AfterInstall,Install",
        "BeforeInstall,DownloadBundle,Install",
        "DownloadBundle,,Install",
        "DownloadBundle,Install,End",
        "Install,Install",
    ],
)
def test_an_order_that_cannot_work_is_refused(host: LocalHost, events: str) -> None:
    done = host.deploy(noisy("1"), "-e", events)
    assert (done.status, done.json["error"]["kind"]) == (2, "usage")
    assert "--events" in done.json["error"]["message"]
    assert not host.root.exists()


@pytest.mark.parametrize(
    ("events", "order"),
    [
        ("ApplicationStart", "DownloadBundle Install ApplicationStart"),
        ("BeforeInstall,Install", "DownloadBundle BeforeInstall Install"),
        ("ApplicationStop,DownloadBundle", "ApplicationStop DownloadBundle Install"),
    ],
)
def test_download_and_install_come_first(host: LocalHost, events: str, order: str) -> None:
    done = host.deploy(noisy("1"), "-e", events)
    assert [one["event"] for one in done.json["events"]] == order.split()


# -- the AppSpec file ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "was empty"),
        ("version: '0.0'\nos: linux\n", "invalid version value"),
        ("version: 0.0\nos: Linux\n", "unsupported operating system (Linux)"),
        ("version: 0.0\nos: linux\nfile_exists_behavior: retain\n", "retain"),
        ("version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - timeout: 5\n", "location"),
        ("version: 0.0\nos: linux\nfiles: [", "not valid YAML"),
    ],
)
def test_a_refused_appspec_changes_nothing(host: LocalHost, text: str, part: str) -> None:
    assert host.deploy(noisy("1")).ok
    done = host.deploy({"appspec.yml": text})
    assert (done.status, done.failed_event) == (1, "BeforeInstall")
    assert part in done.message
    assert done.log == []
    assert (host.top / "x/version").read_text() == "1"
    assert host.deploy({"appspec.yml": text}, "-e", "Install").failed_event == "Install"


def test_the_name_of_the_appspec_file(host: LocalHost) -> None:
    files = noisy("1")
    files["appspec.yaml"] = files.pop("appspec.yml")
    assert said(host.deploy(files).log) == [f"{event} 1" for event in ALL[3:]]
    files["other.yml"] = files.pop("appspec.yaml")
    assert "appspec.yml" in host.deploy(files).message
    done = host.deploy(files, "-A", "other.yml")
    assert said(done.log)[:3] == [f"{event} 1" for event in ALL[:3]]
    missing = host.deploy(noisy("2"), "-A", "other.yml")
    assert missing.failed_event == "BeforeInstall"
    assert 'revision-relative path "other.yml"' in missing.message
    # The agent looks the new name up in the old revision, too.
    assert host.deploy(noisy("2")).ok


# -- the command itself ----------------------------------------------------------------------------


def test_the_command_as_people_run_it(host: LocalHost) -> None:
    script = "#!/bin/sh\necho 'bad port' >&2\nexit 4\n"
    bundle = host.bundle(noisy("1"))
    broken = host.bundle(noisy("2", ValidateService=script))

    def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bascule", "local", "--root", str(host.root), *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    done = run(bundle)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Starting to execute deployment from within folder")
    assert lines[-1] == "AppSpec file valid. Local deployment successful"
    failed = run(broken)
    assert failed.returncode == 1
    assert "successful" not in failed.stdout
    assert "failed at ValidateService: Script at specified location" in failed.stderr
    assert "[stderr]bad port" in failed.stderr
    assert run(bundle, "-t", "zip").returncode == 2
    assert run(bundle, "-l", "missing").returncode == 2
    assert run(bundle, "-l", "s3://bucket/key").returncode == 2
    assert run(bundle, "--no-such-option").returncode == 2


def test_a_commit_is_deployed_with_its_name(host: LocalHost) -> None:
    files = noisy("1")
    files["s/AfterInstall.sh"] = ('#!/bin/sh\necho "$BUNDLE_COMMIT"\n', 0o755)
    repository = host.bundle(files)

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        command = ["git", *identity, *arguments]
        return subprocess.run(
            command, cwd=repository, capture_output=True, text=True, check=True
        ).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    done = host.deploy(Path(f"{repository}#HEAD"))
    assert done.ok, done.message
    assert f"AfterInstall {git('rev-parse', 'HEAD')}" in said(done.log)


def test_a_timeout_ends_the_whole_group(host: LocalHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_process, "GRACE", 0.5)
    pid = host.folder / "pid"
    script = f"#!/bin/sh\n(trap '' TERM; sleep 300; sleep 300) &\necho $! >{pid}\nsleep 300\n"
    section = "hooks:\n  AfterInstall:\n    - location: s.sh\n      timeout: 4\n"
    done = host.deploy({"appspec.yml": appspec("", section), "s.sh": (script, 0o755)})
    assert done.json["error"]["code"] == "ScriptTimedOut"
    try:
        stat = Path(f"/proc/{pid.read_text().strip()}/stat").read_text()
    except OSError:
        return
    # Killed, and not collected yet, proc(5).
    assert stat.rpartition(")")[2].split()[0] in "ZX"


def test_the_log_of_all_deployments(host: LocalHost) -> None:
    first, second = host.deploy(noisy("1")), host.deploy(noisy("2"))
    lines = (
        (host.root / "deployment-logs/codedeploy-agent-deployments.log").read_text().splitlines()
    )
    found = [
        re.fullmatch(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\] \[(.+?)\](.*)", line)
        for line in lines
    ]
    assert [(one[1], one[2]) for one in found if one] == [
        (done.json["deployment_id"], line) for done in (first, second) for line in done.log
    ]
    stamps = (first.folder / "logs/scripts.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S", line) for line in stamps)


def test_the_tail_of_a_failed_events_log(host: LocalHost) -> None:
    script = "#!/bin/sh\nfor i in $(seq 200); do echo line $i of many; done\nexit 1\n"
    done = host.deploy(noisy("1", AfterInstall=script))
    tail = done.json["error"]["log"]
    assert tail.endswith("[stdout]line 200 of many\n")
    assert 1900 < len(tail) <= 2048
    assert tail.startswith("[stdout]line ")
    assert len(done.log) > 200


def test_what_the_agent_deployed_is_stopped_by_its_own_script(host: LocalHost) -> None:
    """A deployment folder as the agent leaves it: no journal, no stored AppSpec."""
    group = host.root / "default-local-deployment-group"
    old = group / "d-ABCDEFGHI"
    files = noisy("0")
    host.bundle(files).rename(_made(old) / "deployment-archive")
    instructions = _made(host.root / "deployment-instructions")
    (instructions / f"{group.name}_last_successful_install").write_text(str(old))
    done = host.deploy(noisy("1"))
    assert done.ok, done.message
    assert said(done.log)[:4] == [*[f"{event} 0" for event in ALL[:3]], "BeforeInstall 1"]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_a_story_with_a_bad_chapter(host: LocalHost) -> None:
    """Version 1, 2, a broken 3, 1 again: what is installed, and whose scripts ran."""
    for version, broken in (("1", False), ("2", False), ("3", True), ("1", False)):
        scripts = {"ValidateService": "#!/bin/sh\necho unwell >&2\nexit 1\n"} if broken else {}
        files = noisy(version, **scripts)
        files[f"app/only-{version}"] = version
        done = host.deploy(files)
        assert done.ok != broken
        assert host.tree() == {"x": "/", "x/version": version, f"x/only-{version}": version}
    assert said(done.log)[:3] == [f"{event} 3" for event in ALL[:3]]


REWRITE = """#!/bin/sh
cat > "$ARCHIVE_DIRECTORY/appspec.yml" <<'END'
%s
END
"""


def test_a_script_may_write_the_appspec_file_anew(host: LocalHost) -> None:
    after = appspec("app {d}/other", hooks(AfterInstall="s/said.sh", ApplicationStop="s/said.sh"))
    files = {
        "appspec.yml": appspec("app {d}/x", hooks(BeforeInstall="s/write.sh")),
        "app/a": "1",
        "s/write.sh": (REWRITE % after, 0o755),
        "s/said.sh": ("#!/bin/sh\necho $LIFECYCLE_EVENT\n", 0o755),
    }
    done = host.deploy(files)
    assert done.ok, done.message
    assert host.tree() == {"other": "/", "other/a": "1"}
    assert said(done.log) == ["AfterInstall AfterInstall"]
    # The next deployment stops what that file says; and so it does after somebody has changed it.
    assert said(host.deploy(files).log)[0] == "ApplicationStop ApplicationStop"
    (done.folder / "deployment-archive/appspec.yml").write_text("version: 1.0\n")
    last = host.deploy(files)
    assert last.ok, "that was the folder of the one before"
    (last.folder / "deployment-archive/appspec.yml").write_text(appspec())
    assert "ApplicationStop ApplicationStop" not in said(host.deploy(files).log)


def test_an_appspec_file_that_a_script_has_broken(host: LocalHost) -> None:
    files = {
        "appspec.yml": appspec("app {d}/x", hooks(BeforeInstall="s/write.sh")),
        "app/a": "1",
        "s/write.sh": (REWRITE % "version: 1.0", 0o755),
    }
    done = host.deploy(files)
    assert (done.failed_event, host.tree()) == ("Install", {})
    assert "invalid version value (1.0)" in done.message
