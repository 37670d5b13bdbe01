"""A refused installation leaves the old version in place and running, whatever had stopped it."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._host import _cleanup
from support.host_program import Host
from support.local_host import LocalHost

if TYPE_CHECKING:
    from pathlib import Path

SH = "#!/bin/sh\n"
EVENTS = ["ApplicationStop", "DownloadBundle", "BeforeInstall", "Install", "ApplicationStart"]
RUN = 'echo "$FAILED_EVENT" >> "$SYSROOT/starts"; basename "${ARCHIVE_DIRECTORY%/*}" > '
START = SH + RUN + '"$SYSROOT/running"; echo "$LIFECYCLE_EVENT"\n'
STOP = SH + 'rm "$SYSROOT/running"; echo stop >> "$SYSROOT/stops"\n'
IN_THE_WAY = "a specified file already exists at this location"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def revision(
    content: str, hooks: str = "", before: str = "", after: str = "", **scripts: str
) -> dict[str, Any]:
    """Make a revision of a service: whether it runs, and of which deployment, is in a file.

    :param before: entries of ``files`` before that of the service, ``after`` those after it
    """
    text = (
        f"version: 0.0\nos: linux\nfiles:\n{before}"
        f"  - {{source: app, destination: /srv/app}}\n{after}hooks:\n"
        "  ApplicationStop: [{location: stop.sh}]\n"
        "  ApplicationStart: [{location: start.sh}]\n" + hooks
    )
    named = {"stop": STOP, "start": START, **scripts}
    return {
        "appspec.yml": text,
        "app/version": content,
        "extra/file": "extra",
        **{f"{name}.sh": (script, 0o755) for name, script in named.items()},
    }


OTHER = "  - {source: extra, destination: /other}\n"


def lines(host: Host, name: str) -> list[str]:
    path = host.path(name)
    return path.read_text().splitlines() if path.exists() else []


def runs(host: Host) -> list[str]:
    """Return the deployment whose version runs; a version cannot be stopped twice."""
    return lines(host, "/running")


def again(answer: dict[str, Any]) -> dict[str, Any] | None:
    found = [one for one in answer["events"] if one["event"] == "StartOldVersion"]
    assert len(found) < 2
    return found[0] if found else None


def first(host: Host, **options: Any) -> None:
    assert not host.deploy(revision("one"), events=EVENTS, options=options)["failed"]
    assert runs(host) == ["d-000000001"]


def block(host: Host) -> None:
    """Put somebody else's file where the next revision wants to have its own."""
    host.path("/other").mkdir(exist_ok=True)
    host.path("/other/file").write_text("mine")


def cannot_be_written(host: Host) -> None:
    """Let no file be made in a destination: what is to become one is a folder already."""
    (host.path("/other") / _cleanup.TEMPORARY).mkdir(parents=True)


@pytest.mark.parametrize(
    ("prepare", "hooks", "scripts", "reason"),
    [
        (block, "", {}, IN_THE_WAY),
        (cannot_be_written, "", {}, "Cannot install extra/file"),
        (
            lambda _host: None,
            "  BeforeInstall: [{location: remove.sh}]\n",
            {"remove": SH + 'rm -r "$ARCHIVE_DIRECTORY/extra"\n'},
            "extra",
        ),
    ],
)
@pytest.mark.parametrize("layout", ["copy", "release"])
def test_after_a_refusal(
    host: Host, layout: str, prepare: Any, hooks: str, scripts: dict[str, str], reason: str
) -> None:
    options = {"layout": layout}
    if layout == "release":
        options |= {"release_directory": "/srv/app", "release_link": "/srv/app/current"}
    first(host, **options)
    installed = host.path("/srv/app") / ("current/version" if layout == "release" else "version")
    prepare(host)
    files = revision("two", hooks, OTHER, **scripts)
    answer = host.deploy(files, events=EVENTS, options=options)
    assert answer["error"].get("event") == "Install", answer["msg"]
    assert reason in answer["error"]["message"]
    told = again(answer)
    assert told is not None
    assert told["status"] == "Succeeded"
    assert "[stdout]ApplicationStart" in told["log"]
    assert answer["msg"].endswith("The old version (deployment d-000000001) was started again.")
    assert installed.read_text() == "one"
    assert (runs(host), lines(host, "/starts")) == (["d-000000001"], ["", "Install"])
    log = host.root / "group-1/d-000000002/logs/scripts.log"
    assert "LifecycleEvent - StartOldVersion\n" in log.read_text()


@pytest.mark.parametrize("layout", ["copy", "release"])
def test_not_once_something_was_changed(host: Host, layout: str) -> None:
    """The files are of two versions: neither can be expected to run."""
    options = {"layout": layout}
    if layout == "release":
        # Beside the release; what is in it is not seen until it is whole.
        options |= {"release_directory": "/rel", "release_link": "/rel/current"}
    release = "  - {source: extra, destination: /rel}\n" if layout == "release" else ""
    one = revision("one", before=release)
    assert not host.deploy(one, events=EVENTS, options=options)["failed"]
    cannot_be_written(host)
    two = revision("two", before=release, after=OTHER)
    answer = host.deploy(two, events=EVENTS, options=options)
    assert answer["error"].get("event") == "Install", answer["msg"]
    assert host.path("/srv/app/version").read_text() == "two"
    assert (again(answer), runs(host)) == (None, [])


BEFORE = "  BeforeInstall: [{location: fail.sh}]\n"


@pytest.mark.parametrize(
    ("policy", "hooks", "wanted"),
    [
        ("refused", BEFORE, []),
        ("unchanged", BEFORE, ["d-000000001"]),
        ("never", BEFORE, []),
        ("never", "", []),
        ("unchanged", "", ["d-000000001"]),
        ("unchanged", "  AfterInstall: [{location: fail.sh}]\n", []),
    ],
)
def test_as_it_is_set(host: Host, policy: str, hooks: str, wanted: list[str]) -> None:
    first(host)
    if not hooks:
        block(host)
    answer = host.deploy(
        revision("two", hooks, OTHER, fail=SH + "exit 1\n"),
        events=[*EVENTS[:4], "AfterInstall", "ApplicationStart"],
        options={"start_again": policy},
    )
    assert answer["failed"]
    assert runs(host) == wanted


def test_a_policy_that_is_none_is_refused(host: Host) -> None:
    answer = host.deploy(revision("one"), options={"start_again": "always"})
    assert answer["msg"] == "start_again is one of refused, unchanged, never, not 'always'."


@pytest.mark.parametrize(
    ("start", "words", "status"),
    [
        (SH + 'test ! -e "$SYSROOT/other"\n', "could not be started again: Script at", "Failed"),
        (None, "has no script for ApplicationStart: if its ApplicationStop has", "Skipped"),
    ],
)
def test_a_start_that_fails_is_told(host: Host, start: str | None, words: str, status: str) -> None:
    old = revision("one", start=start or "")
    if start is None:
        old["appspec.yml"] = old["appspec.yml"].replace(
            "  ApplicationStart: [{location: start.sh}]\n", ""
        )
    old["stop.sh"] = (SH + "echo stopped\n", 0o755)
    assert not host.deploy(old, events=EVENTS)["failed"]
    block(host)
    answer = host.deploy(revision("two", before=OTHER), events=EVENTS)
    assert answer["error"].get("event") == "Install", answer["msg"]
    assert f"The old version (deployment d-000000001) {words}" in answer["error"]["message"]
    told = again(answer)
    assert told is not None
    assert told["status"] == status


def test_nothing_to_start_without_a_stop(host: Host) -> None:
    block(host)
    answer = host.deploy(
        revision("one", "  BeforeInstall: [{location: ok.sh}]\n", OTHER, ok=SH), events=EVENTS
    )
    assert answer["error"].get("event") == "Install", answer["msg"]
    assert again(answer) is None


def test_the_next_deployment_and_a_way_back_find_it_running(host: Host) -> None:
    """Its stop script fails if nothing runs: as many do, and block every deployment after."""
    first(host)
    block(host)
    assert host.deploy(revision("two", before=OTHER), events=EVENTS)["failed"]
    back = host.deploy(revision("one"), events=EVENTS, creator="codeDeployRollback")
    assert not back["failed"]
    assert (runs(host), len(lines(host, "/stops"))) == (["d-000000003"], 2)


def test_the_same_deployment_goes_on_from_its_beginning(host: Host) -> None:
    """What runs again must be stopped again before files are replaced."""
    first(host)
    block(host)
    request, bundle = host.request(revision("two", before=OTHER))
    host.run(request, bundle)
    call = dict(request, operation="lifecycle", events=EVENTS, final=True, call="one")
    answer = host.run(call)
    assert host.run(call) == answer, "nobody has heard the answer: nothing runs for it"
    assert len(lines(host, "/stops")) == 1
    assert host.run(dict(call, call="two"))["events"][-1]["status"] == "Succeeded"
    assert (len(lines(host, "/stops")), lines(host, "/starts")) == (2, ["", "Install", "Install"])
    host.path("/other/file").unlink()
    last = host.run(dict(call, call="three"))
    assert not last["failed"]
    assert (runs(host), len(lines(host, "/stops"))) == (["d-000000002"], 3)
    assert again(last) is None


def noted(journal: Path) -> bool:
    """Whether the start of the old version is known to have begun."""
    told = [line for line in journal.read_text().splitlines() if '"StartOldVersion"' in line]
    return any('"process":' in line for line in told)


@pytest.mark.parametrize("same", [True, False])
def test_a_start_that_was_interrupted(host: Host, same: bool) -> None:
    slow = (
        SH
        + RUN
        + (
            '"$SYSROOT/running"\n'
            'echo $$ >> "$SYSROOT/pids"\n'
            'test -n "$FAILED_EVENT" && test "$HOOK_ATTEMPT" = 1 && exec sleep 60\nexit 0\n'
        )
    )
    assert not host.deploy(revision("one", start=slow), events=EVENTS)["failed"]
    block(host)
    request, bundle = host.request(revision("two", before=OTHER))
    host.run(request, bundle)
    call = dict(request, operation="lifecycle", events=EVENTS, final=True, call="one")
    pid = os.fork()
    if pid == 0:
        try:
            host.run(call)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 60
    journal = host.root / "group-1/d-000000002/journal.jsonl"
    while len(lines(host, "/pids")) < 2 or not noted(journal):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    script = int(lines(host, "/pids")[1])
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    answer = host.run(call if same else dict(call, call="two"))
    with pytest.raises(ProcessLookupError):
        os.kill(script, 0)
    assert runs(host) == ["d-000000001"]
    assert lines(host, "/starts") == ["", "Install", "Install"]
    # The same call goes on where it was; another one begins anew.
    assert len(lines(host, "/stops")) == (1 if same else 2)
    assert answer["msg"].endswith("was started again.")


@pytest.mark.parametrize("strict", [False, True])
def test_on_one_host(tmp_path: Path, strict: bool) -> None:
    host = LocalHost(tmp_path)
    text = (
        "version: 0.0\nos: linux\nfiles: [{{source: app, destination: {{d}}/{0}}}]\n"
        "hooks:\n  ApplicationStop: [{{location: stop.sh}}]\n"
        "  ApplicationStart: [{{location: s.sh}}]\n"
    )
    scripts = {"stop.sh": "#!/bin/sh\nrm {d}/up\n", "s.sh": "#!/bin/sh\ntouch {d}/up\n"}
    assert host.deploy({"appspec.yml": text.format("x"), "app/a": "1", **scripts}).ok
    (host.top / "y").mkdir()
    (host.top / "y/a").write_text("mine")
    two = {"appspec.yml": text.format("y"), "app/a": "2", **scripts}
    done = host.deploy(two, *(["--strict", "agent-v1"] if strict else []))
    assert done.failed_event == "Install"
    assert (host.top / "up").exists() != strict
    assert ("was started again." in done.message) != strict
    assert host.tree()["x/a"] == "1"
