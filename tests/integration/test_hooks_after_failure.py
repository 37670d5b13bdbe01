"""Scripts that are there for failures (``run_on``) run in later events than the one that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.host_program import Host

if TYPE_CHECKING:
    from pathlib import Path

APPSPEC = "version: 0.0\nos: linux\nhooks:\n"
NOTE = '#!/bin/sh\necho "$1 in $LIFECYCLE_EVENT after $FAILED_EVENT" | tee -a "$SYSROOT/ran"\n'
FAIL = "#!/bin/sh\necho broken; exit 7\n"
AFTER = """\
  AfterInstall:
    - {location: note.sh, arguments: [never]}
    - {location: note.sh, arguments: [failure], run_on: failure}
  ValidateService:
    - {location: note.sh, arguments: [always], run_on: always}
    - {location: note.sh, arguments: [never]}
"""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def revision(hooks: str, **scripts: str) -> dict[str, Any]:
    files: dict[str, Any] = {"appspec.yml": APPSPEC + hooks, "note.sh": (NOTE, 0o755)}
    files["fail.sh"] = (FAIL, 0o755)
    return files | {f"{name}.sh": (text, 0o755) for name, text in scripts.items()}


def ran(host: Host) -> list[str]:
    path = host.path("/ran")
    return path.read_text().splitlines() if path.exists() else []


def by_event(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["event"]: one for one in answer["events"]}


def test_in_later_events(host: Host) -> None:
    answer = host.deploy(revision("  BeforeInstall: [{location: fail.sh}]\n" + AFTER))
    assert ran(host) == [
        "failure in AfterInstall after BeforeInstall",
        "always in ValidateService after BeforeInstall",
    ]
    assert (answer["error"]["event"], answer["error"]["code"]) == ("BeforeInstall", "ScriptFailed")
    events = by_event(answer)
    assert events["Install"]["status"] == "Skipped"
    assert events["Install"]["message"] == ""
    assert events["AfterInstall"]["status"] == "Skipped"
    assert events["AfterInstall"]["message"] == "After the failure of BeforeInstall: note.sh."
    assert "[stdout]failure in AfterInstall" in events["AfterInstall"]["log"]
    assert events["ApplicationStart"]["message"] == ""


def test_after_a_refused_installation(host: Host) -> None:
    # BeforeInstall may still put a missing source right; here it does not.
    hooks = "  BeforeInstall: [{location: note.sh}]\n" + AFTER
    files = revision(hooks)
    files["appspec.yml"] += "files:\n  - {source: no/such, destination: /srv}\n"
    answer = host.deploy(files)
    assert answer["error"]["event"] == "Install"
    assert ran(host)[1:] == [
        "failure in AfterInstall after Install",
        "always in ValidateService after Install",
    ]


def test_not_in_a_success(host: Host) -> None:
    assert not host.deploy(revision(AFTER))["failed"]
    assert ran(host) == [
        "never in AfterInstall after ",
        "always in ValidateService after ",
        "never in ValidateService after ",
    ]


def test_their_own_failure_does_not_hide_the_first(host: Host) -> None:
    hooks = """\
  BeforeInstall: [{location: fail.sh}]
  AfterInstall: [{location: worse.sh, run_on: failure}]
  ApplicationStart: [{location: missing.sh, run_on: always}]
  ValidateService: [{location: note.sh, arguments: [last], run_on: failure}]
"""
    answer = host.deploy(revision(hooks, worse="#!/bin/sh\nexit 9\n"))
    assert answer["error"]["script"] == "fail.sh"
    events = by_event(answer)
    assert events["AfterInstall"]["status"] == "Failed"
    assert "exit code 9" in events["AfterInstall"]["message"]
    assert events["ApplicationStart"]["error_code"] == "ScriptMissing"
    assert ran(host) == ["last in ValidateService after BeforeInstall"]


def test_of_the_spans_that_will_not_come(host: Host) -> None:
    files = revision(
        "  ApplicationStart: [{location: fail.sh}]\n"
        "  AfterAllowTraffic: [{location: note.sh, arguments: [late], run_on: always}]\n"
    )
    request, bundle = host.request(files)
    host.run(request, bundle)
    events = ["DownloadBundle", "Install", "ApplicationStart"]
    later = ["AllowTraffic", "BeforeAllowTraffic", "AfterAllowTraffic"]
    call = dict(request, operation="lifecycle", events=events, later=later)
    answer = host.run(call)
    names = [one["event"] for one in answer["events"]]
    assert names == [*events, "AfterAllowTraffic"]
    assert ran(host) == ["late in AfterAllowTraffic after ApplicationStart"]


def test_of_the_revision_that_is_installed(host: Host) -> None:
    """Whose script an event runs is the same after a failure."""
    old = "  ApplicationStop:\n    - {location: note.sh, arguments: [old], run_on: always}\n"
    assert not host.deploy(revision(old))["failed"]
    broken = revision("  BeforeBlockTraffic: [{location: fail.sh}]\n" + old)
    assert not host.deploy(broken)["failed"]
    host.path("/ran").unlink()
    answer = host.deploy(
        revision("  AfterInstall: [{location: note.sh, arguments: [new], run_on: failure}]\n"),
        events=["BeforeBlockTraffic", "ApplicationStop", "DownloadBundle", "AfterInstall"],
    )
    assert answer["error"]["event"] == "BeforeBlockTraffic"
    assert ran(host) == [
        "old in ApplicationStop after BeforeBlockTraffic",
        "new in AfterInstall after BeforeBlockTraffic",
    ]


def test_a_failure_that_is_passed_over_is_none(host: Host) -> None:
    assert not host.deploy(revision("  ApplicationStop: [{location: fail.sh}]\n"))["failed"]
    options = {"ignore_application_stop_failures": True}
    assert not host.deploy(revision(AFTER), options=options)["failed"]
    assert "never in AfterInstall after " in ran(host)


def test_a_health_gate_is_part_of_validating(host: Host) -> None:
    hooks = """\
  ValidateService:
    - {location: note.sh, arguments: [page], run_on: failure}
    - {location: note.sh, arguments: [once], run_on: always}
"""
    gates = [{"type": "command", "command": "false", "interval": 0.01, "deadline": 0.05}]
    answer = host.deploy(revision(hooks), gates=gates)
    assert answer["error"]["event"] == "HealthGate"
    assert ran(host) == [
        "once in ValidateService after ",
        "page in ValidateService after HealthGate",
    ]
    assert "After the failure of HealthGate: note.sh" in answer["error"]["message"]


def test_a_repeated_call_goes_on(host: Host) -> None:
    """What ran for a failure has not run its event: once the cause is gone, the event runs."""
    files = revision(
        "  BeforeInstall: [{location: once.sh}]\n" + AFTER,
        once='#!/bin/sh\ntest -e "$SYSROOT/fixed"\n',
    )
    request, bundle = host.request(files)
    host.run(request, bundle)
    events = ["DownloadBundle", "BeforeInstall", "Install", "AfterInstall", "ValidateService"]
    call = dict(request, operation="lifecycle", events=events, final=True)
    assert host.run(call)["failed"]
    assert host.run(call)["failed"]
    assert ran(host).count("failure in AfterInstall after BeforeInstall") == 2
    host.path("/fixed").touch()
    assert not host.run(call)["failed"]
    assert ran(host)[-3:] == [
        "never in AfterInstall after ",
        "always in ValidateService after ",
        "never in ValidateService after ",
    ]


def test_the_answer_of_a_lost_call_is_found_again(host: Host) -> None:
    """Nobody has heard the first answer: the same call again tells it and runs nothing twice."""
    files = revision("  BeforeInstall: [{location: fail.sh}]\n" + AFTER)
    request, bundle = host.request(files)
    host.run(request, bundle)
    events = ["DownloadBundle", "BeforeInstall", "Install", "AfterInstall", "ValidateService"]
    call = dict(request, operation="lifecycle", events=events, final=True, call="c-1")
    first = host.run(call)
    again = host.run(call)
    assert by_event(again)["AfterInstall"] == by_event(first)["AfterInstall"]
    assert len(ran(host)) == 2


def test_pool_and_way_back_for_scripts(host: Host) -> None:
    hooks = "  AfterInstall: [{location: tell.sh}]\n"
    tell = '#!/bin/sh\necho "<$TARGET_POOL> $IS_ROLLBACK"\n'
    request, bundle = host.request(revision(hooks, tell=tell), options={"pool": "blue"})
    request["deployment"]["strategy"] = "rollback"
    host.run(request, bundle)
    call = dict(request, operation="lifecycle", events=["DownloadBundle", "AfterInstall"])
    assert "<blue> true" in by_event(host.run(call))["AfterInstall"]["log"]
