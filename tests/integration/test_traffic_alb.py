"""Traffic between two target groups behind a load balancer that moves real requests."""

from __future__ import annotations

import collections
import contextlib
import http.client
import signal
import threading
import time
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._providers import (
    _elbv2_router,
    _members,
    run_on_controller,
)
from support import alb, proxies
from support.alb.site import Site, sites
from support.trace import TRACE, trace

if TYPE_CHECKING:
    from collections.abc import Iterator

PROPAGATION = 1.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[alb.Alb]:
    with alb.running(tmp_path_factory.mktemp("alb"), propagation=PROPAGATION) as running:
        yield running


class Pools:
    """Two target groups, one application each; only blue is behind the listener."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.blue, self.green = site.group("blue"), site.group("green")
        site.register(self.blue, "blue")
        site.register(self.green, "green")
        self.url = site.listen({self.blue: 1})
        self.listener = site.listener

    def ask(self, action: str, **more: Any) -> dict[str, Any]:
        options = {
            "listener": self.listener,
            "pools": {"blue": {"target_group": "blue"}, "green": {"target_group": self.green}},
            "propagation": f"{PROPAGATION + 1.0}s",
            "restore_timeout": "60s",
            **more.pop("options", {}),
        }
        return run_on_controller(
            {
                "operation": "traffic",
                "action": action,
                "provider": "elbv2",
                "provider_options": options,
                **more,
            }
        )

    def route(self, weights: dict[str, float], **more: Any) -> dict[str, Any]:
        routing = {"weights": weights, **more.pop("routing", {})}
        return self.ask("route", routing=routing, **more)

    def seen(self, count: int, **headers: str) -> collections.Counter[str]:
        found: collections.Counter[str] = collections.Counter()
        for _ in range(count):
            request = urllib.request.Request(self.url, headers=headers)  # noqa: S310
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                    found[str(answer.headers["X-Version"])] += 1
            except urllib.error.HTTPError as error:
                found[str(error.code)] += 1
            except (urllib.error.URLError, OSError, http.client.HTTPException):
                found["down"] += 1
        return found

    def stays(self, jar: CookieJar) -> str:
        """Ask as a user who keeps cookies; returns who answers."""
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        with opener.open(self.url, timeout=60) as answer:
            return str(answer.headers["X-Version"])

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[tuple[int | None, str]]]:
        """Look again and again which weight green has, and then how its target is.

        Green answers nothing, also no check, until it was seen without any weight.
        """
        green = self.site.processes["green"]
        samples: list[tuple[int | None, str]] = []
        ended = threading.Event()

        def look() -> None:
            while not ended.is_set():
                actions = self.site.elbv2.describe_listeners(ListenerArns=[self.listener])[
                    "Listeners"
                ][0]["DefaultActions"]
                weights = {
                    one["TargetGroupArn"]: int(one["Weight"])
                    for one in actions[-1]["ForwardConfig"]["TargetGroups"]
                }
                samples.append((weights.get(self.green), self.site.states(self.green)[0]))
                if samples[-1] in ((0, "initial"), (0, "unhealthy")):
                    green.send_signal(signal.SIGCONT)
                time.sleep(0.05)

        watcher = threading.Thread(target=look)
        green.send_signal(signal.SIGSTOP)
        watcher.start()
        try:
            yield samples
        finally:
            ended.set()
            watcher.join(60)
            green.send_signal(signal.SIGCONT)

    def settle(self) -> None:
        self.until({"blue"})

    def until(self, versions: set[str]) -> None:
        """Wait until these answer, and nobody else."""
        deadline = time.monotonic() + 60
        while (seen := set(self.seen(6))) != versions:
            assert time.monotonic() < deadline, seen
            time.sleep(0.1)


@pytest.fixture
def pools(service: alb.Alb, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pools]:
    service.use(monkeypatch)
    with sites(service) as site:
        made = Pools(site)
        made.settle()
        yield made


def test_a_pool_is_attached_and_healthy_before_it_gets_a_request(pools: Pools) -> None:
    pools.site.service.forget_calls()
    with pools.watched() as samples:
        answer = pools.route({"blue": 75, "green": 25})
    assert answer["changed"], answer
    without = {state for weight, state in samples if weight == 0}
    assert without & {"initial", "unhealthy"}, "attached without any weight"
    assert {state for weight, state in samples if weight} == {"healthy"}
    assert answer["routing"]["before"]["weights"] == {"blue": 100.0}
    seen = pools.seen(400)
    assert set(seen) == {"blue", "green"}, "no request failed"
    assert 60 < seen["green"] < 140, seen
    calls = [one for one in pools.site.service.calls("elasticloadbalancing") if one["mutating"]]
    assert [one["action"] for one in calls] == ["ModifyListener", "ModifyListener"]
    assert not pools.route({"blue": 75, "green": 25})["changed"]
    back = pools.route({"blue": 100, "green": 0})
    assert back["routing"]["after"]["weights"] == {"blue": 100.0, "green": 0.0}
    assert pools.seen(50) == {"blue": 50}
    assert pools.site.states(pools.green) == ["healthy"], "it stays attached and is checked"


def test_the_same_orders_have_the_same_answers_as_at_every_proxy(pools: Pools) -> None:
    options = {"propagation": "0s"}
    pools.route({"blue": 0, "green": 100}, options=options)
    assert trace(lambda order: pools.ask("route", routing=order, options=options)) == TRACE


def test_rules_by_header_and_cookie_are_ours_alone(pools: Pools) -> None:
    pools.site.rule({pools.blue: 1}, header=("X-Theirs", "1"))
    match = [
        {"pool": "green", "header": "X-Test", "value": "green"},
        {"pool": "green", "cookie": "pool", "value": "green"},
    ]
    answer = pools.route({"blue": 100, "green": 0}, routing={"match": match})
    assert answer["changed"], answer
    assert pools.seen(20) == {"blue": 20}
    assert pools.seen(20, **{"X-Test": "green"}) == {"green": 20}
    assert pools.seen(10, Cookie="a=b; pool=green; c=d") == {"green": 10}
    assert pools.seen(10, Cookie="pool=greenish") == {"blue": 10}
    again = pools.route({"blue": 100, "green": 0}, routing={"match": match})
    assert not again["changed"]
    assert pools.route({"blue": 0, "green": 100})["changed"]
    assert pools.seen(10) == {"green": 10}
    rules = pools.site.elbv2.describe_rules(ListenerArn=pools.listener)["Rules"]
    assert len(rules) == 2, "the default, and theirs"


def test_a_test_listener_leads_to_the_new_pool_and_else_does_as_the_other(pools: Pools) -> None:
    url, users = pools.url, pools.listener
    port = proxies.free_port()
    test = pools.site.elbv2.create_listener(
        LoadBalancerArn=pools.site.balancer, Protocol="HTTP", Port=port,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": pools.blue}],
    )["Listeners"][0]["ListenerArn"]  # fmt: skip
    options = {"test_listener": test}
    opened = {"match": [{"pool": "green", "listener": test}]}

    def seen() -> tuple[set[str], set[str]]:
        answers = []
        for address in (url, f"http://{pools.site.service.address}:{port}/"):
            pools.url = address
            answers.append(set(pools.seen(20)))
        return answers[0], answers[1]

    assert not pools.route({"blue": 100}, options=options)["changed"]
    answer = pools.route({"blue": 100, "green": 0}, routing=opened, options=options)
    assert answer["changed"], answer
    assert answer["diff"]["after"].endswith(f"test listener {test.rpartition(':')[2]}: green\n")
    assert seen() == ({"blue"}, {"green"})
    again = pools.route({"blue": 100, "green": 0}, routing=opened, options=options)
    assert not again["changed"]
    assert again["routing"]["before"]["match"] == opened["match"]
    for both, blue in (("blue", 100), ("green", 0)):
        weights = {"blue": blue, "green": 100 - blue}
        assert pools.route(weights, options=options)["changed"]
        assert seen() == ({both}, {both})
        assert not pools.route(weights, options=options)["changed"]
    refused = pools.route({"blue": 100, "green": 0}, options={"test_listener": users})
    assert "wanted the ARN of another listener" in refused["msg"]


def test_users_stay_with_the_pool_that_they_have_come_to(pools: Pools) -> None:
    sticky = {"salt": "unused", "cookie": "AWSALBTG", "ttl": 60}
    assert pools.route({"blue": 50, "green": 50}, routing={"sticky": sticky})["changed"]
    users = {pools.stays(jar := CookieJar()): jar for _ in range(20)}
    assert users.keys() == {"blue", "green"}, "new users are shared"
    pools.route({"blue": 10, "green": 90}, routing={"sticky": sticky})
    for pool, jar in users.items():
        assert [pools.stays(jar) for _ in range(10)] == [pool] * 10


def test_check_mode_shows_the_difference_and_changes_nothing(pools: Pools) -> None:
    pools.site.service.forget_calls()
    answer = pools.route({"blue": 50, "green": 50}, check=True)
    assert answer["changed"]
    assert answer["diff"]["before"] == "blue: 100 %\n"
    assert answer["diff"]["after"] == "blue: 50 %\ngreen: 50 %\n"
    assert not [one for one in pools.site.service.calls() if one["mutating"]]


def test_a_pool_without_healthy_targets_gets_nothing(pools: Pools) -> None:
    pools.site.deregister(pools.green, "green")
    answer = pools.route({"blue": 0, "green": 100}, options={"restore_timeout": "3s"})
    assert answer["failed"]
    assert "the pool green (green) is not healthy after 3 s" in answer["msg"]
    assert pools.seen(20) == {"blue": 20}


def test_what_the_pools_answered_is_measured(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pools.ask("measure")
    pools.seen(40)
    for _ in range(3):
        urllib.request.urlopen(f"{pools.url}slow/0.2", timeout=60).close()  # noqa: S310
    deadline = time.monotonic() + 60
    while True:
        after = pools.ask("measure")
        blue = after["pools"]["blue"]
        if blue["requests"] - before["pools"]["blue"]["requests"] >= 43:
            break
        assert time.monotonic() < deadline, after
        time.sleep(0.3)
    assert blue["errors"] == before["pools"]["blue"]["errors"]
    assert blue["latency"]["p50"] <= blue["latency"]["p99"] < 30
    assert after["pools"]["green"] == {"requests": 0, "errors": 0, "latency": None}
    # Of a minute in which a share was changed nobody knows which requests came after that.
    monkeypatch.setattr(_elbv2_router, "MINUTE", 2)
    since = time.time()
    told = pools.ask("measure", since=since)
    assert told["since"] == since
    assert told["pools"]["blue"]["requests"] == 0
    time.sleep(2 - since % 2)
    pools.seen(30)
    while (count := pools.ask("measure", since=since)["pools"]["blue"]["requests"]) < 30:
        assert time.monotonic() < deadline, count
        time.sleep(0.3)
    assert count == 30


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"listener": "arn:aws:elasticloadbalancing:x:1:listener/net/a/b/c"}, "takes targets out"),
        ({"listener": "shop"}, "wanted the ARN of a listener"),
        (
            {"listener": "arn:aws:elasticloadbalancing:eu-central-1:1:listener/app/a/b/c"},
            "Check deploy_elbv2_listener",
        ),
        (
            {"pools": {"green": {"target_group": "green"}, "red": {"target_group": "blue2"}}},
            "blue2",
        ),
        ({"pools": {"green": {"target_group": "green"}}}, "forwards to blue, which is no pool"),
    ],
)
def test_what_cannot_be_is_one_clear_message(
    pools: Pools, change: dict[str, Any], words: str
) -> None:
    answer = pools.route({"green": 100}, options=change)
    assert answer["failed"]
    assert words in answer["msg"]


# Targets of one target group or of a classic load balancer.


def move(action: str, pools: Pools, provider: str = "elbv2", **options: Any) -> dict[str, Any]:
    instance = options.pop("instance", pools.site.instances["blue"])
    given = {"target_groups": ["blue"], "propagation": f"{PROPAGATION + 1.0}s", **options}
    if provider == "elbv2":
        given.setdefault("target_port", pools.site.ports["blue"])
    return run_on_controller(
        {
            "operation": "traffic",
            "action": action,
            "provider": provider,
            "provider_options": {k: v for k, v in given.items() if v is not None},
            "targets": [
                {
                    "name": "web-1",
                    "address": "127.0.0.1",
                    "port": pools.site.ports["blue"],
                    "instance": instance,
                }
            ],
            "drain_timeout": 60.0,
            "restore_timeout": 60.0,
            "interval": 0.1,
        }
    )


def test_a_drained_target_gets_no_request_and_a_restored_one_does(pools: Pools) -> None:
    drained = move("drain", pools)
    assert drained["targets"]["web-1"]["state"] == "not registered", drained
    assert drained["waited"] >= 2.0, "the whole deregistration delay"
    assert pools.seen(5) == {"503": 5}
    restored = move("restore", pools)
    assert restored["targets"]["web-1"]["state"] == "healthy"
    pools.settle()


@pytest.mark.parametrize("kind", ["instance", "ip"])
def test_one_of_several_ports_of_a_target_leaves_alone(pools: Pools, kind: str) -> None:
    group = pools.site.group("ports", kind=kind)
    who = pools.site.instances["blue"] if kind == "instance" else "127.0.0.1"
    targets = [{"Id": who, "Port": port} for port in pools.site.ports.values()]
    pools.site.elbv2.register_targets(TargetGroupArn=group, Targets=targets)
    pools.url = pools.site.listen({group: 1})
    pools.until({"blue", "green"})
    options = {"target_groups": ["ports"]}
    drained = move("drain", pools, **options)
    assert drained["targets"]["web-1"]["state"] == "not registered", drained
    assert pools.seen(20) == {"green": 20}
    restored = move("restore", pools, **options)
    assert restored["targets"]["web-1"]["state"] == "healthy", restored
    pools.until({"blue", "green"})


def test_the_propagation_is_waited_for_where_there_is_no_delay(pools: Pools) -> None:
    attribute = {"Key": "deregistration_delay.timeout_seconds", "Value": "0"}
    pools.site.elbv2.modify_target_group_attributes(
        TargetGroupArn=pools.blue, Attributes=[attribute]
    )
    drained = move("drain", pools)
    assert drained["waited"] >= PROPAGATION
    assert pools.seen(5) == {"503": 5}, "no request was sent to it after it was called drained"


def test_an_unknown_instance_is_one_clear_message(pools: Pools) -> None:
    answer = move("restore", pools, instance="i-0123456789abcdef0")
    assert answer["failed"]
    assert "could not be registered in target group blue and gets no traffic" in answer["msg"]
    assert "AWS says InvalidTarget" in answer["msg"]
    assert "i-0123456789abcdef0" in answer["msg"]


def test_a_group_without_a_listener_is_given_up_soon(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_members, "HOPELESS_SECONDS", 1.0)
    pools.site.group("idle")
    answer = move("restore", pools, target_groups=["idle"])
    assert answer["failed"]
    assert "no listener forwards to its target group" in answer["msg"]


def test_a_classic_load_balancer_s_draining_is_waited_for(pools: Pools) -> None:
    url, pools.url = pools.url, pools.site.classic("old", delay=2)
    classic = {"provider": "elb", "names": ["old"], "target_groups": None}
    restored = move("restore", pools, **classic)
    assert restored["targets"]["web-1"]["in_service"], restored
    pools.settle()
    drained = move("drain", pools, **classic)
    assert drained["waited"] >= 2.0
    assert pools.seen(5) == {"503": 5}
    assert url != pools.url


def test_targets_of_a_network_load_balancer_leave_and_return(pools: Pools) -> None:
    group = pools.site.group("tcp", Protocol="TCP", HealthCheckProtocol="HTTP")
    pools.url = pools.site.listen({group: 1}, kind="network")
    options = {"target_groups": ["tcp"]}
    restored = move("restore", pools, **options)
    assert restored["targets"]["web-1"]["state"] == "healthy", restored
    pools.settle()
    drained = move("drain", pools, **options)
    assert drained["targets"]["web-1"]["state"] == "not registered"
    assert set(pools.seen(5)) == {"down"}


def test_what_is_more_than_a_call_may_have_is_asked_for_in_several(pools: Pools) -> None:
    site = pools.site
    groups = [site.group(f"many-{number}", kind="ip", delay=1) for number in range(25)]
    site.listen({groups[0]: 1})
    places = {f"t{n}": f"127.1.{n // 100}.{n % 100 + 1}" for n in range(120)}
    targets = [{"Id": address, "Port": 80} for address in places.values()]
    for some in (targets[:60], targets[60:]):
        site.elbv2.register_targets(TargetGroupArn=groups[0], Targets=some)

    def ask(action: str, count: int, names: list[str]) -> collections.Counter[str]:
        site.service.forget_calls()
        answer = run_on_controller(
            {
                "operation": "traffic",
                "action": action,
                "provider": "elbv2",
                "provider_options": {"target_groups": names, "propagation": "1s"},
                "targets": [
                    {"name": name, "address": address, "port": 80}
                    for name, address in list(places.items())[:count]
                ],
            }
        )
        assert not answer.get("failed"), answer
        seen.update({name: one["state"] for name, one in answer["targets"].items()})
        return collections.Counter(one["action"] for one in site.service.calls())

    seen: dict[str, str] = {}
    calls = ask("observe", 1, [f"many-{number}" for number in range(25)])
    assert seen["t0"].count("not registered") == 24
    assert calls["DescribeTargetGroups"] == 2
    assert ask("observe", 120, ["many-0"])["DescribeTargetHealth"] == 1
    assert len(seen) == 120
    assert "not registered" not in seen.values()
    assert ask("drain", 120, ["many-0"])["DeregisterTargets"] == 2
    assert set(seen.values()) == {"not registered"}
    # Rules come in pages of fifty, their tags for twenty at a time.
    site.listener = pools.listener
    for number in range(60):
        site.rule({pools.blue: 1}, header=("X-Theirs", str(number)), priority=number + 1)
    match = [{"pool": "green", "header": "X-Test", "value": "green"}]
    for changed in (True, False):
        answer = pools.route({"blue": 100, "green": 0}, routing={"match": match})
        assert answer["changed"] == changed, answer
    pages = site.elbv2.get_paginator("describe_rules").paginate(ListenerArn=pools.listener)
    rules = [rule for page in pages for rule in page["Rules"] if rule["Priority"] != "default"]
    assert len(rules) == 61
    assert max(rules, key=lambda one: int(one["Priority"]))["Conditions"][-1][
        "HttpHeaderConfig"
    ] == {"HttpHeaderName": "X-Test", "Values": ["green"]}


def test_throttling_costs_nothing_but_time(pools: Pools) -> None:
    pools.site.service.throttle(0.4)
    try:
        drained, restored = move("drain", pools), move("restore", pools)
    finally:
        pools.site.service.throttle(0.0)
    assert drained["targets"]["web-1"]["state"] == "not registered", drained
    assert restored["targets"]["web-1"]["state"] == "healthy", restored
