"""What may happen around a blue/green deployment, in whole deployments behind Envoy, under load.

One story, told once: a person is waited for, or not for long enough; a run is paused in the middle
of its schedule; an alarm comes when all seemed done; the old pool is retired after a wait; and the
way back afterwards. Another one has two slots on the same hosts.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import proxies
from support.aws import Aws, running
from support.pools import START
from support.rollout import BIN, ROOT, Controller
from support.twopools import TwoPools, provider_variables, two_pools, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RATE = 100
ALARM = "High5xx"


@dataclass
class Story:
    """What was seen meanwhile and afterwards, by the name of the deployment."""

    site: TwoPools
    ids: dict[str, str] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)
    after: dict[str, dict[str, int]] = field(default_factory=dict)
    load: dict[str, Any] = field(default_factory=dict)

    def ended(self, name: str) -> Any:
        found = self.site.controller.deployments()
        return next(one for one in found if one.id == self.ids[name])

    def back(self, name: str) -> Any:
        wanted = self.ended(name).rolled_back_by
        return next(one for one in self.site.controller.deployments() if one.id == wanted)

    def run(
        self,
        name: str,
        *words: str,
        when: tuple[str, str] | None = None,
        then: Callable[[subprocess.Popen[str], str], Any] = lambda _process, _id: None,
        **variables: Any,
    ) -> None:
        """Run ``bascule WORDS``; ``then`` is done once the deployment is in a status and a step."""
        controller = self.site.controller
        known = {one.id for one in controller.deployments()}
        given = json.dumps(controller.variables | variables, default=str)
        process = subprocess.Popen(  # noqa: S603 - the words are the test's own
            [BIN / "bascule", *words, "-i", controller.inventory, "-e", given],
            cwd=ROOT,
            env={
                **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1",
                "BASCULE_STATE": str(controller.state), **controller.environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        try:
            if when is not None:

                def arrived() -> str:
                    assert process.poll() is None, process.communicate()[0]
                    for one in controller.deployments():
                        fresh = one.id not in known or one.id in words
                        step = (when[1], "InProgress") in self.site.steps(one.id)
                        if fresh and one.status == when[0] and step:
                            return str(one.id)
                    return ""

                found = until(arrived, 600)
                self.seen[name] = controller.command("status", found)
                then(process, found)
            self.said[name] = process.communicate(timeout=900)[0]
        finally:
            process.kill()
            process.wait()
        self.exits[name] = process.returncode
        fresh = [one.id for one in controller.deployments() if one.id not in known]
        self.ids[name] = fresh[-1] if fresh else next(one for one in words if one[:2] == "d-")
        self.after[name] = self.site.ask(20)


def alarm_is(aws: Aws, state: str) -> None:
    aws.client("cloudwatch").set_alarm_state(
        AlarmName=ALARM, StateValue=state, StateReason="a test"
    )


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("ways")
    pools = {"blue": ["b1", "b2"], "green": ["g1", "g2"]}
    with running(folder) as aws, two_pools("envoy", folder / "site", pools) as site:
        site.controller.environment.update(aws.environment)
        aws.client("cloudwatch").put_metric_alarm(
            AlarmName=ALARM, Namespace="shop", MetricName="errors", Statistic="Sum", Period=60,
            EvaluationPeriods=1, Threshold=1.0, ComparisonOperator="GreaterThanThreshold",
        )  # fmt: skip
        alarm_is(aws, "OK")
        story = Story(site)
        deploy = ("deploy", "blue_green")
        story.run("first", *deploy, deploy_revision=site.revision("1.0", logged=True))
        end = site.load(RATE)
        story.run(
            "ready", *deploy,
            when=("Ready", "wait for an approval, at most 1h, then it stops"),
            then=lambda _process, name: (
                story.seen.update(before=site.ask(20)),
                story.seen.update(continued=site.controller.command("continue", name)),
            ),
            deploy_revision=site.revision("2.0", logged=True),
            deploy_ready_timeout="1h",
            deploy_ready_on_timeout="stop",
        )  # fmt: skip
        story.run(
            "late", *deploy,
            deploy_revision=site.revision("3.0", logged=True),
            deploy_ready_timeout="2s",
            deploy_ready_on_timeout="stop",
        )  # fmt: skip
        again = {
            "deploy_revision": site.revision("4.0"),
            "deploy_schedule": [{"shift": "40%"}, {"bake": "40s"}],
        }
        story.run(
            "paused", *deploy,
            when=("InProgress", "bake for 40s"),
            then=lambda process, _name: process.send_signal(signal.SIGINT),
            **again,
        )  # fmt: skip
        story.run("resumed", "resume", story.ids["paused"], **again)
        story.run(
            "alarmed", *deploy,
            when=("Baking", "bake for 1h"),
            then=lambda _process, _name: alarm_is(aws, "ALARM"),
            deploy_revision=site.revision("5.0"),
            deploy_bake_time="1h",
            deploy_alarms=[ALARM],
            deploy_alarms_interval="1s",
            deploy_rollback_on=["DEPLOYMENT_STOP_ON_ALARM"],
        )  # fmt: skip
        alarm_is(aws, "OK")
        story.run(
            "drained", *deploy,
            when=("Baking", "bake for 1h"),
            then=lambda _process, name: (
                story.seen.update(kept=in_service(site, "green")),
                story.seen.update(ended=site.controller.command("continue", name)),
            ),
            deploy_revision=site.revision("6.0"),
            deploy_retire="drain",
            deploy_retire_after="1h",
        )  # fmt: skip
        story.seen["left"] = in_service(site, "green")
        story.run("kept", *deploy, deploy_revision=site.revision("7.0"))
        story.seen["stays"] = in_service(site, "blue")
        story.run("back", "rollback", "shop/web")
        story.load = end()
        yield story


def in_service(site: TwoPools, pool: str) -> set[bool]:
    """Return whether the targets of a pool are members of it at the load balancer."""
    path = site.proxy.options["pools"][pool]["eds_path"]
    content = json.loads(Path(path).read_text())
    found = [
        one.get("health_status", "HEALTHY")
        for resource in content["resources"]
        for part in resource["endpoints"]
        for one in part["lb_endpoints"]
    ]
    return {one in ("HEALTHY", "UNKNOWN") for one in found}


def test_a_person_lets_users_come(story: Story) -> None:
    assert story.exits["ready"] == 0, story.said["ready"]
    assert story.seen["before"] == {"1.0": 20}
    shown = story.seen["ready"]
    assert shown.status == 0, shown.said
    assert f"{story.ids['ready']}  Ready" in shown.said
    assert story.seen["continued"].status == 0, story.seen["continued"].said
    assert story.after["ready"] == {"2.0": 20}
    assert f"bascule approve {story.ids['ready']}" in story.said["ready"]
    # What both pools run around the traffic is told, whosever targets they are.
    for event, names in (
        ("BeforeAllowTraffic", ("b1", "b2")),
        ("AfterAllowTraffic", ("b1", "b2")),
        ("BeforeBlockTraffic", ("g1", "g2")),
        ("AfterBlockTraffic", ("g1", "g2")),
    ):
        for name in names:
            assert re.search(rf"^{name} +{event} Succeeded", story.said["ready"], re.M), story.said[
                "ready"
            ]


def test_nobody_in_time_stops_and_no_user_was_there(story: Story) -> None:
    late = story.ended("late")
    assert (late.status, late.error_code) == ("Stopped", "APPROVAL_TIMEOUT"), story.said["late"]
    assert story.exits["late"] != 0
    assert story.after["late"] == {"2.0": 20}
    assert story.site.weights(late.id) == [{"blue": 100.0, "green": 0.0}], "home, where it was"
    assert story.site.hooks(late.id) == [], "what was not begun has no hooks"
    assert "3.0" not in story.load["versions"]


def test_a_pause_in_the_middle_keeps_the_share_and_goes_on(story: Story) -> None:
    assert story.exits["paused"] == 4, story.said["paused"]
    assert set(story.after["paused"]) == {"2.0", "4.0"}
    assert story.exits["resumed"] == 0, story.said["resumed"]
    assert story.after["resumed"] == {"4.0": 20}
    events = [one.event for one in story.site.controller.events(story.ids["paused"])]
    assert events.count("StepStarted") == events.count("StepEnded") == 4
    assert "Paused" in events
    assert "StepResumed" in events


def test_an_alarm_when_all_users_were_there_brings_them_back(story: Story) -> None:
    alarmed = story.ended("alarmed")
    assert (alarmed.status, alarmed.error_code) == ("Stopped", "ALARM_ACTIVE")
    assert "Baking" in story.seen["alarmed"].said
    assert story.site.weights(alarmed.id) == [
        {"blue": 100.0, "green": 0.0},
        {"blue": 0.0, "green": 100.0},
    ]
    assert story.back("alarmed").status == "Succeeded"
    assert story.after["alarmed"] == {"4.0": 20}
    assert story.load["versions"]["5.0"] > 0


def test_the_old_pool_leaves_after_its_wait_or_stays(story: Story) -> None:
    assert story.exits["drained"] == story.exits["kept"] == 0, story.said["drained"]
    assert story.seen["kept"] == {True}, "it is kept warm"
    ended = story.seen["ended"]
    assert ended.status == 0, ended.said
    assert "the wait before the old pool is retired is over" in ended.said
    assert f"bascule continue {story.ids['drained']}" in story.said["drained"]
    assert story.seen["left"] == {False}
    assert story.seen["stays"] == {True}


def test_the_way_back_afterwards_is_the_traffic_alone(story: Story) -> None:
    assert story.exits["back"] == 0, story.said["back"]
    assert story.after["kept"] == {"7.0": 20}
    assert story.after["back"] == {"6.0": 20}
    assert story.site.controller.targets(story.ids["back"]) == {}


def test_no_request_failed(story: Story) -> None:
    assert story.load["failed"] == 0, story.load
    assert set(story.load["versions"]) == {"1.0", "2.0", "4.0", "5.0", "6.0", "7.0"}


@contextlib.contextmanager
def slots(folder: Path) -> Iterator[TwoPools]:
    """Two hosts, each with a slot for blue and one for green: other ports, other folders."""
    names = ("one", "two")
    ports = {pool: {name: proxies.free_port() for name in names} for pool in ("blue", "green")}
    folder.mkdir(parents=True, exist_ok=True)
    proxy = START["envoy"](
        folder / "proxy",
        {
            pool: [proxies.Endpoint(name, "127.0.0.1", port) for name, port in some.items()]
            for pool, some in ports.items()
        },
    )
    hosts = {}
    for name in names:
        for pool in ports:
            (folder / "hosts" / f"{name}-{pool}").mkdir(parents=True)
        hosts[name] = {
            "slot_ports": {pool: some[name] for pool, some in ports.items()},
            "slot_home": f"{folder}/hosts/{name}-{{{{ deploy_pool }}}}",
        }
    common = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "deploy_pools": {"blue": "web", "green": "web"},
        "deploy_pool": "blue",
        "deploy_traffic_target_address": "127.0.0.1",
        "deploy_traffic_target_port": "{{ slot_ports[deploy_pool] }}",
        "deploy_sysroot": "{{ slot_home }}",
        "deploy_hook_environment": {
            "ADDRESS": "127.0.0.1",
            "PORT": "{{ slot_ports[deploy_pool] }}",
            "PYTHON": sys.executable,
            "HOOKS_LOG": str(folder / "hooks.log"),
            "HOME_OF_WEB": "{{ slot_home }}/opt/web",
        },
    }
    inventory = folder / "inventory.json"
    groups = {"web": {"hosts": hosts, "vars": common}}
    inventory.write_text(json.dumps({"all": {"children": groups}}))
    given = {
        "deploy_application": "shop", "deploy_targets": "web", **provider_variables(proxy),
    }  # fmt: skip
    controller = Controller(inventory, folder / "state", given)
    made = TwoPools("envoy", folder, {pool: [*names] for pool in ports}, proxy, controller)
    try:
        yield made
    finally:
        made.stop()


def test_two_slots_on_the_same_hosts_take_turns(tmp_path: Path) -> None:
    with slots(tmp_path / "site") as site:

        def deploy(version: str, *, bad: bool = False, **variables: Any) -> Any:
            revision = site.revision(version, bad=bad, logged=True)
            return site.controller.playbook("blue_green", deploy_revision=revision, **variables)

        run = deploy("1.0")
        assert run.status == 0, run.said
        end = site.load(RATE)
        run = deploy("2.0", deploy_schedule=[{"shift": "30%"}])
        assert run.status == 0, run.said
        assert site.ask(20) == {"2.0": 20}
        newest = site.controller.deployments()[0]
        ran = sorted(site.hooks(newest.id))
        assert ran == sorted(
            f"{event} {name} {version} {pool}"
            for name in ("one", "two")
            for event, version, pool in (
                ("BeforeAllowTraffic", "2.0", "blue"), ("AfterAllowTraffic", "2.0", "blue"),
                ("BeforeBlockTraffic", "1.0", "green"), ("AfterBlockTraffic", "1.0", "green"),
            )
        )  # fmt: skip
        gate = {
            "name": "page", "type": "http", "url": site.proxy.url, "interval": "100ms",
            "count": 1000, "status": [200],
        }  # fmt: skip
        run = deploy("3.0", bad=True, deploy_schedule=[{"shift": "30%"}, {"gate": gate}])
        assert run.status != 0
        assert site.ask(20) == {"2.0": 20}
        back = site.controller.playbook("rollback", deploy_rollback_to=newest.previous_digest)
        assert back.status == 0, back.said
        # The slot holds the bad revision by then, so it got the good one before users came.
        assert site.ask(20) == {"1.0": 20}
        load = end()
    assert load["failed"] == load["versions"].get("3.0", 0), load
