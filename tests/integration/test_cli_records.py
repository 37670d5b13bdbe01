"""The command on a record: what it prints, as text and as JSON, and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from support.records import DIGEST, create

import bascule

if TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Deployment

BASCULE = Path(sys.executable).parent / "bascule"
SHORT = DIGEST[:12]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('record') / 'record.db'}"


@pytest.fixture(scope="module")
def deployments(url: str) -> dict[str, Deployment]:
    """A deployment that succeeded, one that failed, and an active one of another group."""
    record = Record.open(url)
    good = create(record, ["web1", "web2"])
    for name in ("web1", "web2"):
        assert record.admit(good.id, name).verdict == "admitted"
        record.settle(good.id, name, "Succeeded")
    good = record.finish(good.id)
    bad = create(record, ["web1", "web2"], 1, digest="f" * 64)
    assert record.admit(bad.id, "web1").verdict == "admitted"
    failure = {
        "event": "ValidateService",
        "status": "Failed",
        "started": 1000.0,
        "ended": 1002.0,
        "error_code": "ScriptFailed",
        "script": "scripts/health.sh",
        "message": "scripts/health.sh failed with exit code 1",
        "log": "GET /health\n500\n",
    }
    record.add_events(bad.id, "web1", [failure])
    record.settle(
        bad.id, "web1", "Failed", error_code="ScriptFailed", message=str(failure["message"])
    )
    assert record.admit(bad.id, "web2").verdict == "refused"
    bad = record.finish(bad.id)
    active = create(record, ["db1"], group="db")
    return {"good": good, "bad": bad, "active": active}


def command(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BASCULE, *arguments],
        env={**os.environ, "BASCULE_RECORD": url},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def answer(url: str, *arguments: str) -> Any:
    done = command(url, *arguments, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_help_names_every_command_and_the_exit_statuses() -> None:
    done = command("", "--help")
    assert done.returncode == 0
    for name in (
        "deploy",
        "plan",
        "rollback",
        "resume",
        "status",
        "history",
        "events",
        "abandon",
        "demo",
    ):
        assert f"    {name} " in done.stdout
    assert "4 interrupted and resumable" in done.stdout


def test_version_is_that_of_the_package() -> None:
    done = command("", "--version")
    assert done.stdout == "bascule 0.1.0\n"


@pytest.mark.parametrize("arguments", [[], ["deploy"], ["nonsense"], ["status", "--what"]])
def test_wrong_usage_is_status_2_and_no_traceback(arguments: list[str]) -> None:
    done = command("", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "usage: bascule" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_strategy_is_refused_with_the_known_ones(url: str) -> None:
    done = command(url, "deploy", "yolo")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "bascule: There is no strategy yolo. There are: ab_test, blue_green, canary, in_place, "
        "rollback, rolling.\n"
    )


def test_a_misspelt_strategy_is_told_the_one_that_is_meant(url: str) -> None:
    done = command(url, "deploy", "roling")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bascule: There is no strategy roling. Did you mean rolling?")


def test_a_refusal_is_json_where_json_is_asked_for(url: str) -> None:
    done = command(url, "status", "d-NOSUCHONE", "--format", "json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit_code"], told["error"]["kind"]) == (2, 2, "usage")
    assert done.stderr == f"bascule: {told['error']['message']}\n"


def test_an_inventory_that_is_not_there_is_refused(url: str, tmp_path: Path) -> None:
    missing = tmp_path / "hosts.yml"
    done = command(url, "deploy", "rolling", "-i", str(missing))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"bascule: There is no inventory {missing}.")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("no-equals-sign", "-e no-equals-sign: write it as VAR=VALUE, or as @FILE for a file."),
        ("@/no/such/file", "-e @/no/such/file: the file cannot be read: "),
        ("{not: [closed", "-e: this is neither YAML nor JSON: line 1, column "),
    ],
)
def test_a_wrong_variable_is_refused(url: str, option: str, message: str) -> None:
    done = command(url, "deploy", "rolling", "-e", option)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"bascule: {message}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["depoy"], "bascule: error: there is no command depoy. Did you mean deploy? "),
        (["revisions", "mark"], "there is no command mark. Did you mean mark-bad? `bascule revi"),
        (["xyz"], "bascule: error: there is no command xyz. `bascule --help` lists all.\n"),
        (["history", "-n", "0"], "bascule: The limit is 0; wanted is how many deployments, 1 or"),
    ],
)
def test_a_wrong_word_is_refused(url: str, words: list[str], message: str) -> None:
    done = command(url, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "choose from" not in done.stderr


def test_an_empty_record_has_no_history(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'record.db'}"
    for arguments in (["history"], ["status"]):
        done = command(url, *arguments)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == f"bascule: nothing has been deployed yet, says the record {url}\n"
    assert answer(url, "history") == []


def test_history_is_newest_first(url: str, deployments: dict[str, Deployment]) -> None:
    header, *rows = command(url, "history").stdout.splitlines()
    assert header.split() == [
        "ID", "CREATED", "GROUP", "STRATEGY", "STATUS", "TOOK", "TARGETS", "REVISION",
    ]  # fmt: skip
    assert [row.split()[0] for row in rows] == [
        deployments[name].id for name in ("active", "bad", "good")
    ]
    assert "shop/web  rolling   Succeeded" in rows[2]
    assert rows[2].endswith(f"./bundle ({SHORT})")
    assert [one["status"] for one in answer(url, "history", "-n", "2")] == ["Created", "Failed"]


def test_history_of_a_group(url: str, deployments: dict[str, Deployment]) -> None:
    expected = [deployments["bad"].id, deployments["good"].id]
    assert [one["id"] for one in answer(url, "history", "web")] == expected
    assert [one["id"] for one in answer(url, "history", "shop/web")] == expected
    done = command(url, "history", "wbe")
    assert done.returncode == 2
    assert "There is no deployment group wbe" in done.stderr
    assert "The nearest known: web" in done.stderr


def test_status_of_a_deployment(url: str, deployments: dict[str, Deployment]) -> None:
    bad = deployments["bad"]
    told = command(url, "status", bad.id).stdout.splitlines()
    assert told[0] == f"Deployment:     {bad.id}  Failed"
    assert "Group:          shop/web" in told
    assert f"Before:         {SHORT}" in told
    assert any(line.startswith("Error:          HEALTH_CONSTRAINTS: ") for line in told)
    rows = told[told.index("") + 1 :]
    assert rows[0].split() == ["TARGET", "STATUS", "SERVICE", "TOOK", "MESSAGE"]
    assert rows[1].startswith("web1    Failed   in")
    assert rows[1].endswith("ScriptFailed: scripts/health.sh failed with exit code 1")
    assert rows[2].startswith("web2    Skipped  in")


def test_status_as_json_is_what_the_api_gives(url: str, deployments: dict[str, Deployment]) -> None:
    told = answer(url, "status", deployments["bad"].id)
    found = bascule.status(deployments["bad"].id, record=url)
    assert told == json.loads(json.dumps(found.to_dict()))
    assert (told["status"], told["exit_code"]) == ("Failed", 1)
    assert told["revision"] == {"digest": "f" * 64, "source": "./bundle", "description": ""}
    assert told["previous_digest"] == DIGEST
    assert [target["status"] for target in told["targets"]] == ["Failed", "Skipped"]
    assert told["targets"][0]["error_code"] == "ScriptFailed"
    assert told["plan"]["total"] == 2
    assert told["error"]["kind"] == "HEALTH_CONSTRAINTS"


def test_status_without_an_id_shows_where_each_group_stands(
    url: str, deployments: dict[str, Deployment]
) -> None:
    told = answer(url, "status")
    assert [(one["group"], one["id"]) for one in told] == [
        ("db", deployments["active"].id),
        ("web", deployments["bad"].id),
    ]


def test_an_unknown_id_is_status_2_and_names_the_nearest(
    url: str, deployments: dict[str, Deployment]
) -> None:
    known = deployments["good"].id
    near = known[:-1] + ("A" if known[-1] != "A" else "B")
    for name in ("status", "events", "abandon", "rollback"):
        done = command(url, name, near)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"bascule: There is no deployment {near} in the record ")
        assert known in done.stderr


def test_events_are_in_order_and_a_failure_shows_its_output(
    url: str, deployments: dict[str, Deployment]
) -> None:
    bad = deployments["bad"]
    told = command(url, "events", bad.id, "--target", "web1").stdout.splitlines()
    failed = next(index for index, line in enumerate(told) if "ValidateService" in line)
    assert told[failed].endswith("web1  ValidateService Failed (2.0 s)")
    assert told[failed + 1 : failed + 4] == [
        "    scripts/health.sh failed with exit code 1", "    | GET /health", "    | 500",
    ]  # fmt: skip
    events = answer(url, "events", bad.id)
    assert [event["sequence"] for event in events] == sorted(event["sequence"] for event in events)
    assert set(events[0]) == {
        "sequence", "kind", "target", "event", "status", "at", "started", "ended", "error_code",
        "script", "message", "log",
    }  # fmt: skip
    assert events[0]["event"] == "Created"


def test_events_of_an_unknown_target_name_the_known(
    url: str, deployments: dict[str, Deployment]
) -> None:
    done = command(url, "events", deployments["bad"].id, "--target", "web9")
    assert done.returncode == 2
    assert "There is no target web9" in done.stderr
    assert "web1" in done.stderr


def test_abandon_frees_the_group(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'record.db'}"
    record = Record.open(url)
    held = create(record, ["web1"])
    refused = command(url, "abandon", held.id)
    assert (refused.returncode, "Its controller is alive" in refused.stderr) == (2, True)
    record.release(held.id)
    done = command(url, "abandon", held.id, "--why", "the controller was lost")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{held.id} is Stopped; shop/web is free again.\n"
    assert create(record, ["web1"]).id != held.id
    again = command(url, "abandon", held.id)
    assert again.returncode == 2
    assert "has ended already (Stopped)" in again.stderr


def test_undoing_the_first_deployment_of_a_group_is_refused(
    url: str, deployments: dict[str, Deployment]
) -> None:
    done = command(url, "rollback", deployments["good"].id)
    assert done.returncode == 2
    assert "was the first deployment of shop/web" in done.stderr


def test_a_record_that_cannot_be_opened_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "record.db").write_text("this is no database, but long enough to look at" * 50)
    done = command(f"sqlite:///{tmp_path / 'record.db'}", "history")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("bascule: ")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'record.db'}"
    done = command(url, "status", "d-NOSUCHONE", "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_reader_that_leaves_early_is_no_error(
    url: str, deployments: dict[str, Deployment]
) -> None:
    for _time in range(3):
        process = subprocess.Popen(
            [BASCULE, "events", deployments["bad"].id],
            env={**os.environ, "BASCULE_RECORD": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        with process.stderr:
            said = process.stderr.read()
        process.wait(timeout=300)
        assert b"Traceback" not in said


@pytest.mark.usefixtures("deployments")
def test_nothing_of_ansible_is_imported_to_read_the_record(url: str) -> None:
    program = (
        "import sys\n"
        "from bascule.cli import main\n"
        "main(['history'])\n"
        "found = [name for name in sys.modules"
        " if name.split('.')[0] in ('ansible', 'ansible_runner', 'sqlalchemy', 'rich')]\n"
        "sys.exit(', '.join(found) or None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "BASCULE_RECORD": url},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
