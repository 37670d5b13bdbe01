"""Hooks as they run on a host: whose script, with which variables, and how each may fail."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._host import _process
from support.host_program import Host

if TYPE_CHECKING:
    from collections.abc import Iterator

SH = "#!/bin/sh\n"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def revision(hooks: str, **scripts: Any) -> dict[str, Any]:
    """Make a revision of hooks and scripts, which get a run bit."""
    text = f"version: 0.0\nos: linux\nhooks:\n{hooks}"
    return {
        "appspec.yml": text,
        **{
            name + ".sh": spec if isinstance(spec, tuple) else (spec, 0o755)
            for name, spec in scripts.items()
        },
    }


def one(
    script: str | tuple[str, int], options: str = "", event: str = "ApplicationStart"
) -> dict[str, Any]:
    """Make a revision of one script."""
    more = f", {options}" if options else ""
    return revision(f"  {event}: [{{location: run.sh{more}}}]\n", run=script)


def event_of(result: dict[str, Any], name: str = "ApplicationStart") -> dict[str, Any]:
    """Return one event of a result."""
    found: dict[str, Any] = next(event for event in result["events"] if event["event"] == name)
    return found


@pytest.mark.parametrize(
    ("script", "options", "code", "words"),
    [
        (SH + "exit 3", "", "ScriptFailed", "failed with exit code 3"),
        (SH + "kill -9 $$", "", "ScriptFailed", "ended by signal 9"),
        (SH + "exec sleep 300", "timeout: 1", "ScriptTimedOut", "failed to complete in 1 seconds"),
        ("#!/no/such/program\n", "", "ScriptFailed", "run.sh failed with error Errno::ENOENT with"),
        (SH + "sleep 300 & exit 0", "timeout: 1", "UnknownError", "failed to close STDOUT"),
        (SH + "sleep 300 >&2 2>/dev/null & exit 4", "", "ScriptFailed", "failed with exit code 4"),
    ],
)
def test_how_a_script_fails(host: Host, script: str, options: str, code: str, words: str) -> None:
    begun = time.monotonic()
    result = host.deploy(one(script, options))
    assert time.monotonic() - begun < 200, "it was not waited for"
    event = event_of(result)
    assert (event["status"], event["error_code"], event["script"]) == ("Failed", code, "run.sh")
    assert words in event["message"]
    assert result["error"]["event"] == "ApplicationStart"
    assert event_of(result, "ValidateService")["status"] == "Skipped"
    kill_strays(host.root)


def kill_strays(root: Path) -> None:
    """End the background children that a script of a test left, found by their variables."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if words.startswith(b"sleep\0") and os.fsencode(root) in environment:
            os.kill(int(process.name), signal.SIGKILL)


def test_a_missing_script_fails_with_its_own_code(host: Host) -> None:
    files = revision(
        "  BeforeInstall: [{location: a.sh}]\n  AfterInstall: [{location: b.sh}]\n",
        a=SH + 'rm "$ARCHIVE_DIRECTORY/b.sh"',
        b=SH,
    )
    event = event_of(host.deploy(files), "AfterInstall")
    assert event["error_code"] == "ScriptMissing"
    assert event["message"].startswith("Script does not exist at specified location: /")
    # The log names a script once it is about to run.
    assert event["log"] == "LifecycleEvent - AfterInstall\n"


def test_a_script_that_cannot_be_started_tells_its_user_and_its_path(host: Host) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() else ""
    keys = f", runas: {me}" if me else ""
    files = revision(
        f"  AfterInstall: [{{location: a.sh}}]\n  ApplicationStart: [{{location: sub{keys}}}]\n",
        a=SH + 'mkdir "$ARCHIVE_DIRECTORY/sub"',
    )
    event = event_of(host.deploy(files))
    assert event["error_code"] == "ScriptFailed"
    path = f"{host.root}/group-1/d-000000001/deployment-archive/sub"
    assert event["message"] == (
        f"Script at specified location: sub{' run as user ' + me if me else ''} failed with error"
        f" Errno::EACCES with message Permission denied - {path}"
    )
    assert event["log"] == "LifecycleEvent - ApplicationStart\nScript - sub\n"


@pytest.mark.parametrize("mode", [0o644, 0o755])
@pytest.mark.parametrize("first", ["", SH])
def test_run_bits_and_first_lines_may_be_missing(host: Host, mode: int, first: str) -> None:
    assert not host.deploy(one((first + "echo it runs", mode)))["failed"]


def test_names_may_hold_anything(host: Host) -> None:
    text = "version: 0.0\nos: linux\nhooks: {AfterInstall: [{location: /a b/$(x) 'y'.sh}]}\n"
    result = host.deploy({"appspec.yml": text, "a b/$(x) 'y'.sh": (SH + "echo $0", 0o755)})
    assert "/a b/$(x) 'y'.sh" in event_of(result, "AfterInstall")["log"]


def test_variables(host: Host) -> None:
    files = one(SH + "env; pwd; umask; cat; ls -l /proc/self/fd | grep -c pipe")
    result = host.deploy(files, options={"hook_environment": {"COLOUR": "green", "N": 5}})
    log = event_of(result)["log"]
    request_less = {"LIFECYCLE_EVENT": "ApplicationStart", "DEPLOYMENT_ID": "d-000000001"}
    request_less |= {"APPLICATION_NAME": "shop", "DEPLOYMENT_GROUP_NAME": "production"}
    request_less |= {"DEPLOYMENT_GROUP_ID": "group-1", "BUNDLE_COMMIT": "abc", "N": "5"}
    request_less |= {"TARGET_NAME": "host-1", "IS_ROLLBACK": "false", "PREVIOUS_REVISION": ""}
    request_less |= {"SYSROOT": str(host.sysroot), "COLOUR": "green"}
    request_less |= {"ARCHIVE_DIRECTORY": f"{host.root}/group-1/d-000000001/deployment-archive"}
    everything = (host.root / "group-1/d-000000001/logs/scripts.log").read_text()
    for name, value in request_less.items():
        assert f"[stdout]{name}={value}\n" in everything
    assert log.splitlines()[-3:-1] == ["[stdout]/", "[stdout]0022"]


def test_secrets_are_in_no_log_though_a_script_writes_them(host: Host) -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----\n"
    secrets = {"PASSWORD": "s3cret-value", "LONGER": "s3cret-value-2", "KEY": key, "N": 5}
    script = SH + 'echo "it is $PASSWORD, or $LONGER"; echo "$KEY"; test "$N" = 5; exit 3'
    result = host.deploy(one(script), options={"hook_environment": secrets})
    assert "it is ********, or ********\n" in event_of(result)["log"]
    for word in ("s3cret-value", "MIIEvQIBADANBg"):
        assert word not in json.dumps(result)
        found = subprocess.run(
            ["grep", "-r", word, str(host.root)], capture_output=True, check=False
        )
        assert found.returncode == 1


def test_the_script_log_is_the_agents(host: Host) -> None:
    host.deploy(
        revision(
            "  BeforeInstall: [{location: a.sh}, {location: b.sh}]\n",
            a=SH + "echo one; echo two >&2; printf 'no end'",
            b=SH + "echo three",
        )
    )
    folder = host.root / "group-1/d-000000001/logs"
    lines = (folder / "scripts.log").read_text().splitlines()
    stamp = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
    assert all(stamp.match(line) for line in lines)
    # As with the agent, what does not end its line has the next entry behind it.
    said = [stamp.sub("", line) for line in lines]
    assert said[:2] == ["LifecycleEvent - BeforeInstall", "Script - a.sh"]
    assert set(said[2:-2]) == {"[stdout]one", "[stderr]two"}
    assert said[-2:] == ["[stdout]no endScript - b.sh", "[stdout]three"]
    shared = (host.root / "deployment-logs/codedeploy-agent-deployments.log").read_text()
    assert "[d-000000001][stdout]no end\n" in shared
    assert re.search(r"^\[[\d: .-]{23}\] \[d-000000001\]\[stdout\]three$", shared, re.MULTILINE)


def test_only_the_log_of_the_host_is_stripped(host: Host) -> None:
    host.deploy(one(SH + "printf ' three \\t\\r\\n'"))
    own = (host.root / "group-1/d-000000001/logs/scripts.log").read_bytes()
    shared = (host.root / "deployment-logs/codedeploy-agent-deployments.log").read_bytes()
    assert own.endswith(b" [stdout] three \t\r\n")
    assert shared.endswith(b" [d-000000001][stdout] three\n")


def test_no_hook_no_log(host: Host) -> None:
    host.deploy({"appspec.yml": "version: 0.0\nos: linux\n"})
    assert not (host.root / "group-1/d-000000001/logs").exists()
    assert not (host.root / "deployment-logs").exists()


def test_the_tail_is_the_last_2_kb_of_its_event(host: Host) -> None:
    script = SH + "for i in $(seq 1000); do echo line $i; done; exit 1"
    log = event_of(host.deploy(one(script)))["log"]
    assert 2000 < len(log.encode()) <= 2048
    assert log.startswith("[stdout]line ")
    assert log.endswith("[stdout]line 1000\n")
    # The agent keeps less than 2048 bytes: of two entries that fill them, the last one.
    exact = SH + "printf '%01015d\\n' 1 2; exit 1"
    assert event_of(host.deploy(one(exact)))["log"] == "[stdout]" + "2".zfill(1015) + "\n"
    endless = SH + "head -c 300000 /dev/zero | tr '\\0' x; exit 1"
    assert event_of(host.deploy(one(endless)))["log"].endswith("x" * 2000)


STOP = (
    "  ApplicationStop: [{location: stop.sh}]\n"
    "  BeforeBlockTraffic: [{location: stop.sh}]\n"
    "  BeforeAllowTraffic: [{location: stop.sh}]\n"
)
ALL = ["BeforeBlockTraffic", "ApplicationStop", "DownloadBundle", "BeforeInstall", "Install"]
ALL += ["AfterInstall", "ApplicationStart", "ValidateService", "BeforeAllowTraffic"]


def version(number: int, *, fails_in: str = "") -> dict[str, Any]:
    """Make a revision that says its number, and may fail in an event."""
    hooks = STOP + (f"  {fails_in}: [{{location: fail.sh}}]\n" if fails_in else "")
    return revision(hooks, stop=f"{SH}echo v{number} $DEPLOYMENT_ID", fail=SH + "exit 1")


def said(result: dict[str, Any], event: str) -> str:
    """Return which version a hook said it was of."""
    found = re.search(r"\[stdout\](v\d)", event_of(result, event)["log"])
    return found.group(1) if found else ""


def test_the_old_revision_runs_its_stop_script_the_new_one_the_rest(host: Host) -> None:
    first = host.deploy(version(1), events=ALL)
    assert (said(first, "BeforeBlockTraffic"), said(first, "ApplicationStop")) == ("", "")
    assert said(first, "BeforeAllowTraffic") == "v1"
    second = host.deploy(version(2), events=ALL)
    assert (said(second, "BeforeBlockTraffic"), said(second, "ApplicationStop")) == ("v1", "v1")
    assert said(second, "BeforeAllowTraffic") == "v2"
    assert "d-000000002" in event_of(second, "ApplicationStop")["log"]


def test_a_revision_counts_as_installed_from_install_on(host: Host) -> None:
    host.deploy(version(1), events=ALL)
    assert host.deploy(version(2, fails_in="BeforeInstall"), events=ALL)["failed"]
    assert said(host.deploy(version(3), events=ALL), "ApplicationStop") == "v1"
    assert host.deploy(version(4, fails_in="AfterInstall"), events=ALL)["failed"]
    assert said(host.deploy(version(5), events=ALL), "ApplicationStop") == "v4"


def test_a_stop_script_that_fails_blocks_unless_forgiven(host: Host) -> None:
    files = revision("  ApplicationStop: [{location: stop.sh}]\n", stop=SH + "exit 1")
    assert not host.deploy(files)["failed"]
    result = host.deploy(version(2))
    assert result["error"]["event"] == "ApplicationStop"
    assert result["error"]["code"] == "ScriptFailed"
    result = host.deploy(version(3), options={"ignore_application_stop_failures": True})
    assert not result["failed"]
    assert event_of(result, "ApplicationStop")["status"] == "Failed"


def test_a_deployment_the_agent_made_is_gone_on_from(host: Host) -> None:
    old = host.root / "group-1/d-AGENT0001"
    (old / "deployment-archive").mkdir(parents=True)
    (old / "deployment-archive/appspec.yml").write_text(
        "version: 0.0\nos: linux\nhooks: {ApplicationStop: [{location: stop.sh}]}\n"
    )
    (old / "deployment-archive/stop.sh").write_text(SH + "echo v0")
    instructions = host.root / "deployment-instructions"
    instructions.mkdir()
    (instructions / "group-1_last_successful_install").write_text(str(old))
    assert said(host.deploy(version(1)), "ApplicationStop") == "v0"


def test_a_repeated_call_goes_on_where_the_last_one_ended(host: Host) -> None:
    files = revision(
        "  BeforeInstall: [{location: count.sh}]\n  ValidateService: [{location: check.sh}]\n",
        count=SH + 'echo x >> "$SYSROOT/count"',
        check=SH + 'test -e "$SYSROOT/ready"',
    )
    request, bundle = host.request(files)
    host.run(request, bundle)
    events = ["ApplicationStop", "DownloadBundle", "BeforeInstall", "Install", "ValidateService"]
    call = dict(request, operation="lifecycle", events=events, final=True)
    first = host.run(call)
    assert first["failed"]
    assert first["error"]["event"] == "ValidateService"
    host.path("/ready").write_text("")
    second = host.run(call)
    assert not second["failed"]
    assert second["changed"]
    assert second["events"][:4] == first["events"][:4]
    third = host.run(call)
    assert (third["changed"], third["failed"]) == (False, False)
    assert third["events"] == second["events"]
    assert host.path("/count").read_text() == "x\n"


def test_an_interrupted_event_runs_again_and_a_line_cut_short_never_happened(host: Host) -> None:
    request, bundle = host.request(
        revision(
            "  BeforeInstall: [{location: count.sh}]\n", count=SH + 'echo x >> "$SYSROOT/count"'
        )
    )
    host.run(request, bundle)
    call = dict(request, operation="lifecycle", events=["DownloadBundle", "BeforeInstall"])
    host.run(call)
    journal = host.root / "group-1/d-000000001/journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]) + lines[-1][:20])
    assert [event["status"] for event in host.run(call)["events"]] == ["Succeeded"] * 2
    assert host.path("/count").read_text() == "x\nx\n"
    assert host.run(call)["changed"] is False


def test_arguments_environment_retries_and_run_on(host: Host) -> None:
    files = revision(
        "  ApplicationStart:\n"
        "    - {location: args.sh, arguments: ['a b', \"c'd\"], environment: {COLOR: red}}\n"
        "    - {location: flaky.sh, retries: 3}\n"
        "    - {location: fail.sh}\n"
        "    - {location: never.sh}\n"
        "    - {location: undo.sh, run_on: failure}\n"
        "    - {location: tidy.sh, run_on: always}\n",
        args=SH + 'echo "$COLOR <$1> <$2>"',
        flaky=SH + 'echo x >> "$SYSROOT/tries"; test $(wc -l < "$SYSROOT/tries") -ge 3',
        fail=SH + "exit 7",
        never=SH + "echo never",
        undo=SH + "echo undone",
        tidy=SH + "echo tidied",
    )
    event = event_of(host.deploy(files))
    assert (event["status"], event["script"]) == ("Failed", "fail.sh")
    assert "[stdout]red <a b> <c'd>" in event["log"]
    assert host.path("/tries").read_text() == "x\n" * 3
    assert "[stdout]undone" in event["log"]
    assert "[stdout]tidied" in event["log"]
    assert "never" not in event["log"]


def test_a_timeout_ends_the_whole_group_even_if_it_will_not(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_process, "GRACE", 0.5)
    script = SH + (
        "trap '' TERM\n(trap '' TERM; while :; do sleep 0.2; done) &\n"
        'echo $! $$ > "$SYSROOT/pids"\nwhile :; do sleep 0.2; done\n'
    )
    result = host.deploy(one(script, "timeout: 4"))
    assert event_of(result)["error_code"] == "ScriptTimedOut"
    for pid in host.path("/pids").read_text().split():
        assert not alive(int(pid))


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


@pytest.fixture
def service(host: Host) -> Iterator[Path]:
    """A file that a service started by a hook writes its number to; ended after the test."""
    path = host.path("/service.pid")
    yield path
    os.kill(int(path.read_text()), signal.SIGKILL)


def test_a_service_that_lets_go_of_its_output_stays(host: Host, service: Path) -> None:
    script = SH + 'sleep 300 >/dev/null 2>&1 &\necho $! > "$SYSROOT/service.pid"\n'
    assert not host.deploy(one(script))["failed"]
    assert alive(int(service.read_text()))


def test_another_run_holds_the_group(host: Host, tmp_path: Path) -> None:
    request, bundle = host.request(one(SH + 'echo > "$SYSROOT/begun"; sleep 100', "timeout: 120"))
    host.run(request, bundle)
    other = Host(tmp_path / "other")
    other.root, other.sysroot = host.root, host.sysroot
    asked, _bundle = other.request(one(SH + "true"), deployment_id="d-000000002")
    pid = os.fork()
    if pid == 0:
        try:
            host.run(
                dict(request, operation="lifecycle", events=["DownloadBundle", "ApplicationStart"])
            )
        finally:
            os._exit(0)
    try:
        deadline = time.monotonic() + 60
        while not host.path("/begun").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        answer = other.run(dict(asked, options={"lock_timeout": 0.3}), _bundle)
        assert answer["failed"]
        assert f"deployment d-000000001, process {pid}" in answer["msg"]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kill_strays(host.root)


def in_the_background(host: Host, call: dict[str, Any], mark: str = "/begun") -> int:
    """Run a call in a process of its own; return its number once a script has made the mark."""
    pid = os.fork()
    if pid == 0:
        try:
            host.run(call)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 60
    journal = host.root / "group-1/d-000000001/journal.jsonl"
    while not (host.path(mark).exists() and '"process":' in journal.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return pid


@pytest.mark.parametrize("again", ["the call itself", "another call"])
@pytest.mark.parametrize("status", [0, 3])
def test_the_result_of_a_call_whose_connection_was_lost_is_found(
    host: Host, status: int, again: str
) -> None:
    wait = 'until test -e "$SYSROOT/go"; do sleep 0.1; done'
    script = SH + f'echo run >> "$SYSROOT/begun"; {wait}; echo done; exit {status}'
    request, bundle = host.request(one(script))
    host.run(request, bundle)
    events = ["DownloadBundle", "ApplicationStart", "ValidateService"]
    call = dict(request, operation="lifecycle", events=events, call="first", final=True)
    pid = in_the_background(host, call)
    os.kill(pid, signal.SIGHUP)
    # However short the patience with others is.
    patient = {**request["options"], "lock_timeout": 0.1}
    # The script runs on until long after we have begun to wait for it.
    going = threading.Timer(3.0, host.path("/go").touch)
    going.start()
    found = host.run(dict(call, options=patient, call="first" if again[:3] == "the" else "second"))
    going.join()
    assert os.waitpid(pid, 0)[1] == 0, "a terminal that hangs up ends nothing"
    assert event_of(found)["status"] == ("Failed" if status else "Succeeded")
    assert event_of(found)["log"].endswith("[stdout]done\n")
    assert found["changed"]
    assert host.path("/begun").read_text() == "run\n", "the script ran once"
    later = host.run(dict(call, call="third"))
    assert host.path("/begun").read_text() == ("run\nrun\n" if status else "run\n")
    assert later["changed"] == bool(status)


def test_a_script_knows_that_it_was_interrupted(host: Host) -> None:
    script = SH + (
        'echo "$HOOK_ATTEMPT" >> "$SYSROOT/begun"\n'
        'test "$HOOK_ATTEMPT" = 1 && exec sleep 300\nexit 0\n'
    )
    request, bundle = host.request(one(script))
    host.run(request, bundle)
    call = dict(request, operation="lifecycle", events=["DownloadBundle", "ApplicationStart"])
    pid = in_the_background(host, call)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not host.run(call)["failed"]
    assert host.path("/begun").read_text() == "1\n2\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_no_script_to_meet_its_successor(host: Host, number: int) -> None:
    script = SH + (
        'echo $$ >> "$SYSROOT/pids"\n'
        'test "$(wc -l < "$SYSROOT/pids")" = 2 && exit 0\nwhile :; do sleep 0.1; done\n'
    )
    request, bundle = host.request(one(script))
    host.run(request, bundle)
    call = dict(request, operation="lifecycle", events=["DownloadBundle", "ApplicationStart"])
    pid = os.fork()
    if pid == 0:
        try:
            host.run(call)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 60
    journal = host.root / "group-1/d-000000001/journal.jsonl"
    # Begun, and known to have begun.
    while not (
        host.path("/pids").exists()
        and host.path("/pids").read_text().endswith("\n")
        and '"process":' in journal.read_text()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first = int(host.path("/pids").read_text())
    os.kill(pid, number)
    os.waitpid(pid, 0)
    if number == signal.SIGKILL:
        assert alive(first)
    else:
        while alive(first):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert not host.run(call)["failed"]
    assert not alive(first)
    assert len(host.path("/pids").read_text().split()) == 2
