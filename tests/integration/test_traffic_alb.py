"""Traffic between two target groups behind a load balancer that moves real requests."""

from __future__ import annotations

import collections
import http.client
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._providers import (
    _members,
    run_on_controller,
)
from support import alb
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
            "propagation": f"{PROPAGATION + 0.5}s",
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
                with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                    found[str(answer.headers["X-Version"])] += 1
            except urllib.error.HTTPError as error:
                found[str(error.code)] += 1
            except (urllib.error.URLError, OSError, http.client.HTTPException):
                found["down"] += 1
        return found

    def settle(self) -> None:
        deadline = time.monotonic() + 60
        while self.seen(5) != {"blue": 5}:
            assert time.monotonic() < deadline, "blue answers"
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
    answer = pools.route({"blue": 75, "green": 25})
    assert answer["changed"], answer
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


def test_what_the_pools_answered_is_measured(pools: Pools) -> None:
    before = pools.ask("measure")
    pools.seen(40)
    for _ in range(3):
        urllib.request.urlopen(f"{pools.url}slow/0.2", timeout=10).close()  # noqa: S310
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
    given = {"target_groups": ["blue"], "propagation": f"{PROPAGATION + 0.5}s", **options}
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
    assert "could not be registered in target group blue: AWS says InvalidTarget" in answer["msg"]
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


def test_throttling_costs_nothing_but_time(pools: Pools) -> None:
    pools.site.service.throttle(0.4)
    try:
        drained, restored = move("drain", pools), move("restore", pools)
    finally:
        pools.site.service.throttle(0.0)
    assert drained["targets"]["web-1"]["state"] == "not registered", drained
    assert restored["targets"]["web-1"]["state"] == "healthy", restored
