"""Canaries among the targets, without pools: by real commands, with and without a load balancer."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from ansible_collections.bascule.deploy.plugins.plugin_utils._gates import remembered
from support.bundles import files
from support.rollout import BIN, ROOT, Controller, kill_controller, local_inventory
from support.twopools import all_counted, two_pools, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def came_back(controller: Controller, canary: str) -> None:
    """See that the newest deployment but one has failed in its bake, and hurt its canary alone."""
    back, bad = controller.deployments()[:2]
    assert (bad.strategy, bad.status, bad.error_code) == ("canary", "Failed", "GATE_FAILED")
    statuses = {name: target.status for name, target in controller.targets(bad.id).items()}
    assert statuses.pop(canary) == "Succeeded"
    assert set(statuses.values()) == {"Skipped"}
    assert (back.rollback_of, back.status) == (bad.id, "Succeeded")
    assert list(controller.targets(back.id)) == [canary]


def test_a_canary_goes_first_and_a_bad_one_alone_gets_its_revision_back(tmp_path: Path) -> None:
    log, errors = tmp_path / "log", tmp_path / "errors"
    roots = {name: tmp_path / "hosts" / name for name in ("one", "two", "three")}
    for root in roots.values():
        root.mkdir(parents=True)
    inventory = local_inventory(tmp_path / "hosts.yml", roots)
    gate = {
        "type": "command", "name": "errors", "command": f"cat {errors}", "success": "< 0.01",
        "interval": "200ms",
    }  # fmt: skip
    given = {
        "deploy_application": "shop", "deploy_group": "web", "deploy_targets": "web",
        "deploy_canary_targets": "two", "deploy_schedule": [{"bake": "1s"}],
        "deploy_gates": [gate],
    }  # fmt: skip
    controller = Controller(inventory, tmp_path / "state", given)

    def revision(version: str) -> Path:
        wait = f"while [ -e {tmp_path}/hold ]; do sleep 0.1; done\n"
        hook = f"echo {version} $TARGET_NAME >>{log}\n{wait}"
        return files(tmp_path / version, {"VERSION": version}, {"ApplicationStart": hook})

    def deploy(version: str, **more: Any) -> Any:
        return controller.deploy("canary", deploy_revision=str(revision(version)), **more)

    errors.write_text("0\n")
    run = deploy("1.0")
    assert run.status == 0, run.said
    assert "step 1: bake for 1s" in run.said
    first, *rest = log.read_text().splitlines()
    assert first == "1.0 two"
    assert sorted(rest) == ["1.0 one", "1.0 three"]
    events = [(one.event, one.target) for one in controller.events(controller.deployments()[0].id)]
    decided = events.index(("GatesDecided", ""))
    assert events.index(("Settled", "two")) < decided < events.index(("Admitted", "one"))

    log.write_text("")
    errors.write_text("")
    fresh = {"deploy_canary_baseline": "fresh"}
    run = deploy("1.5", **fresh)
    # There is no number: the schedule pauses, and goes on from there.
    assert run.status == 4, run.said
    paused = controller.deployments()[0]
    assert (paused.status, paused.paused_step) == ("InProgress", "step 1")
    errors.write_text("0\n")
    more = json.dumps({**given, **fresh})
    run = controller.command("resume", paused.id, "-i", str(inventory), "-e", more)
    assert run.status == 0, run.said
    canary, baseline = controller.deployments()[:2]
    assert (canary.status, canary.options["baseline"]) == ("Succeeded", baseline.id)
    assert (baseline.status, baseline.revision.digest) == ("Succeeded", canary.previous_digest)
    [other] = baseline.plan["targets"]
    assert canary.plan["baseline"]["targets"] == [other["name"]]
    # The baseline is installed and begun anew as the canary is, and gets the new one with the rest.
    lines = log.read_text().splitlines()
    assert lines[:2] == [f"1.0 {other['name']}", "1.5 two"]
    assert sorted(lines[2:]) == ["1.5 one", "1.5 three"]
    assert f"{canary.id}  Succeeded in" in run.said

    # The controller dies while the baseline is begun anew; the canary that follows is bad.
    log.write_text("")
    errors.write_text("0.5\n")
    hold = tmp_path / "hold"
    hold.touch()
    bad = ("-e", json.dumps({**given, "deploy_revision": str(revision("2.0")),
                             "deploy_canary_baseline": "fresh"}))  # fmt: skip
    process = start(controller, "deploy", "canary", "-i", inventory, *bad)
    ended(
        process,
        lambda: log.read_text() != "",
        lambda: kill_controller(process, controller.state),
    )
    hold.unlink()
    baseline = controller.deployments()[0]
    assert (baseline.options["then"]["strategy"], baseline.status) == ("canary", "InProgress")
    run = controller.command("resume", baseline.id, "-i", str(inventory), *bad)
    assert run.status == 1, run.said
    assert set(log.read_text().splitlines()[:-2]) == {f"1.5 {baseline.plan['targets'][0]['name']}"}
    assert log.read_text().splitlines()[-2:] == ["2.0 two", "1.5 two"]
    came_back(controller, "two")
    assert controller.deployments()[1].options["baseline"] == baseline.id
    versions = {(root / "opt/files/VERSION").read_text() for root in roots.values()}
    assert versions == {"1.5"}
    for told in ("errors (command) cat, wanted < 0.01: Failed, 0.5", "rollback succeeded in"):
        assert told in run.said


def start(controller: Controller, *words: str | Path) -> subprocess.Popen[str]:
    """Start the command ``bascule``."""
    return subprocess.Popen(
        [BIN / "bascule", *words],
        cwd=ROOT,
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1",
            "BASCULE_STATE": str(controller.state),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], when: Callable[[], bool], then: Callable[[], Any]) -> str:
    """Wait for a moment of a command that runs, do something, and return what it said."""

    def arrived() -> bool:
        assert process.poll() is None, process.communicate()[0]
        return when()

    try:
        until(arrived)
        then()
        return process.communicate(timeout=300)[0]
    finally:
        process.kill()
        process.wait()


def test_behind_a_load_balancer_it_pauses_goes_on_and_comes_back(tmp_path: Path) -> None:
    with two_pools("haproxy", tmp_path, {"web": ["one", "two"]}) as site:
        controller = site.controller
        run = controller.deploy("rolling", deploy_revision=str(site.revision("1.0")))
        assert run.status == 0, run.said
        end = site.load(50)
        waits = [{"bake": "1s"}, {"approval": "1h"}]
        given = {
            **controller.variables, "deploy_canary_targets": "two", "deploy_schedule": waits,
            "deploy_revision": str(site.revision("2.0")),
        }  # fmt: skip
        options = ("-i", controller.inventory, "-e", json.dumps(given))
        before = controller.deployments()[0].id

        def waiting() -> bool:
            newest = controller.deployments()[0].id
            told = "wait for an approval, at most 1h, then it stops"
            return newest != before and (told, "InProgress") in site.steps(newest)

        process = start(controller, "deploy", "canary", *options)
        said = ended(process, waiting, lambda: process.send_signal(signal.SIGINT))
        assert process.returncode == 4, said
        name = controller.deployments()[0].id
        for command in (f"resume {name}", f"stop {name} --rollback", f"abandon {name}"):
            assert f"`bascule {command}`" in said
        # Users come in between, so that twenty of ours may all meet the same one.
        until(lambda: set(site.ask(20)) == {"1.0", "2.0"})
        shown = controller.command("status", name).said
        assert "Paused:" in shown
        assert "Waits for:" not in shown

        process = start(controller, "resume", name, *options)
        said = ended(process, lambda: controller.command("approve", name).status == 0, bool)
        assert process.returncode == 0, said
        assert f"`bascule approve {name}`" in said
        assert site.ask(20) == {"2.0": 20}
        steps = [event.event for event in controller.events(name) if "Step" in event.event]
        assert steps == ["StepStarted", "StepEnded", "StepStarted", "StepResumed", "StepEnded"]

        # The judge compares the canary with its fresh baseline, by what HAProxy counts of each.
        errors = {"name": "errors", "kind": "rate", "critical": True}
        judged: dict[str, Any] = {
            "deploy_revision": str(site.revision("3.0", bad=True)),
            "deploy_canary_targets": "two",
            "deploy_canary_baseline": "fresh",
            "deploy_schedule": [{"bake": "1h"}],
            "deploy_judge": {
                "interval": "500ms", "metrics": [errors], "evidence": {"effect": 0.02},
            },
        }  # fmt: skip
        # How long it has to bake is told by the traffic of the moment.
        run = controller.deploy("canary", "--check", **judged)
        assert "one: the revision that is there" in run.said
        assert re.search(r"from none, at \d+(\.\d+)? requests/s,", run.said), run.said
        assert "a step at 50 % has to bake" in run.said
        run = controller.deploy("canary", **judged)
        assert run.status == 1, run.said
        _back, bad, baseline = controller.deployments()[:3]
        assert bad.options["baseline"] == baseline.id
        traffic = [one.event for one in controller.events(baseline.id) if one.target == "one"]
        assert traffic.index("BlockTraffic") < traffic.index("AllowTraffic")
        with controller.record() as record:
            looks = [
                one.data["look"] for one in record.gate_decisions(bad.id) if "look" in one.data
            ]
            known = remembered(record, "shop", "web")
        counted = all_counted(looks, "errors")
        assert counted["canary"]["bad"] == counted["canary"]["total"] > 0
        assert counted["baseline"]["bad"] == 0 < counted["baseline"]["total"]
        # Their shares of the requests are checked against HAProxy's own weights.
        assert looks[-1]["assignments"]["share"] == 0.5
        assert known is not None
        assert (known.deployment, known.rate) == (bad.id, 0.0)
        assert known.traffic > 0
        assert "the same, bit by bit" in controller.command("judge", "replay", bad.id).said
        came_back(controller, "two")
        assert site.ask(20) == {"2.0": 20}
        load = end()
    assert load["failed"] == load["versions"].get("3.0", 0), load
    assert set(load["versions"]) >= {"1.0", "2.0"}, load
