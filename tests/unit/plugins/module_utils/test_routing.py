from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils import _routing
from ansible_collections.bascule.deploy.plugins.module_utils._capabilities import CAPABILITIES
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._host import _entry

REQUEST: dict[str, Any] = {
    "operation": "traffic",
    "action": "observe",
    "provider": "haproxy",
    "provider_options": {"backend": "shop"},
    "targets": [{"name": "web-1", "address": "10.0.0.1", "port": 80}],
}


def arguments(**more: Any) -> dict[str, Any]:
    options = {
        "drain_timeout": "1m30s",
        "restore_timeout": 20,
        "interval": "250ms",
        "on_drain_timeout": "fail",
        "envoy_eds_path": "/etc/envoy/eds/shop.json",
        "envoy_cluster": "shop",
        "envoy_admin_url": "",
        "envoy_service_name": None,
        "haproxy_socket": "/run/h.sock",
        "haproxy_backend": "web",
        "haproxy_drain_with": None,
    }
    return {
        "state": "drained",
        "provider": "envoy",
        "options": options,
        "targets": [{"name": "web-1", "address": "10.0.0.1", "port": 8080}],
        **more,
    }


def test_a_request_has_the_provider_s_own_options_and_seconds() -> None:
    assert _routing.traffic_request(arguments(), "web-1", check=True) == {
        "operation": "traffic",
        "action": "drain",
        "check": True,
        "provider": "envoy",
        "provider_options": {"eds_path": "/etc/envoy/eds/shop.json", "cluster": "shop"},
        "targets": [{"name": "web-1", "address": "10.0.0.1", "port": 8080, "weight": None}],
        "on_drain_timeout": "fail",
        "drain_timeout": 90.0,
        "restore_timeout": 20.0,
        "interval": 0.25,
    }
    haproxy = _routing.traffic_request(
        arguments(provider="haproxy", state="in_service"), "web-1", check=False
    )
    assert haproxy["provider_options"] == {"socket": "/run/h.sock", "backend": "web"}
    assert haproxy["action"] == "restore"


POOLS = {
    "blue": {"cluster": "shop-blue", "eds_path": "/etc/envoy/eds/shop-blue.json"},
    "green": {"cluster": "shop-green", "eds_path": "/etc/envoy/eds/shop-green.json"},
}


def test_the_targets_of_a_pool_are_found_by_what_the_pool_names() -> None:
    asked = arguments(pool="green")
    asked["options"]["pools"] = POOLS
    assert _routing.traffic_request(asked, "web-1", check=False)["provider_options"] == {
        "eds_path": "/etc/envoy/eds/shop-green.json",
        "cluster": "shop-green",
    }
    with pytest.raises(UsageError, match=r"no pool 'red'; deploy_traffic_pools has blue, green"):
        _routing.traffic_request({**asked, "pool": "red"}, "web-1", check=False)
    # A group may name pools of hosts without pools at the load balancer.
    assert "provider_options" in _routing.traffic_request(arguments(pool="x"), "web-1", check=False)


def test_a_routing_goes_with_the_pools_and_without_targets() -> None:
    asked = arguments(state="routed", targets=[], routing={"weights": {"blue": 100}})
    with pytest.raises(UsageError, match=r"set deploy_traffic_pools, for instance {blue: {cluster"):
        _routing.traffic_request(asked, "web-1", check=False)
    asked["options"] |= {"pools": POOLS, "envoy_routes_path": "/etc/envoy/rds/shop.json"}
    assert _routing.traffic_request(asked, "web-1", check=True) == {
        "operation": "traffic",
        "action": "route",
        "check": True,
        "provider": "envoy",
        "provider_options": {"routes_path": "/etc/envoy/rds/shop.json", "pools": POOLS},
        "routing": {"weights": {"blue": 100}},
    }
    measured = _routing.traffic_request({**asked, "state": "measured"}, "web-1", check=False)
    assert (measured["action"], "routing" in measured) == ("measure", False)


def test_every_provider_has_options_and_the_spec_names_them_all() -> None:
    assert set(_routing.PROVIDER_OPTIONS) <= set(CAPABILITIES)
    assert _routing.TRAFFIC_OPTIONS["provider"]["choices"] == sorted(_routing.PROVIDER_OPTIONS)
    named = _routing.TRAFFIC_OPTIONS["options"]["options"]
    assert set(named) >= {n for names in _routing.PROVIDER_OPTIONS.values() for n in names}


def test_an_event_is_codedeploy_s_and_looking_is_none() -> None:
    good = {"msg": "web-1 DRAINING"}
    assert _routing.traffic_event("drained", good, 1.0, 2.0) == {
        "event": "BlockTraffic",
        "status": "Succeeded",
        "started": 1.0,
        "ended": 2.0,
        "message": "web-1 DRAINING",
    }
    bad = _routing.traffic_event("in_service", {"msg": "no", "failed": True}, 1.0, 2.0)
    assert bad is not None
    assert (bad["event"], bad["status"]) == ("AllowTraffic", "Failed")
    assert _routing.traffic_event("observed", good, 1.0, 2.0) is None


def test_a_time_that_cannot_be_read_names_the_variable() -> None:
    wrong = arguments()
    wrong["options"]["drain_timeout"] = "soon"
    with pytest.raises(UsageError, match="deploy_traffic_drain_timeout"):
        _routing.traffic_request(wrong, "web-1", check=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": "move"}, "action is 'move', wanted one of observe, drain, restore"),
        ({"provider": "iptables"}, "'iptables', wanted one of elb, elbv2, envoy, haproxy"),
        ({"targets": []}, "No target"),
        ({"targets": REQUEST["targets"] * 2}, "named twice: web-1, web-1"),
        ({"targets": [{"name": "web-1", "address": "x"}]}, "deploy_traffic_target_port"),
        ({"targets": [{"name": "a", "address": "x", "port": "http"}]}, "a port"),
        ({"drain_timeout": "soon"}, "drain_timeout is 'soon'"),
        ({"drain_timeout": -1}, "0 or more"),
        ({"restore_timeout": float("nan")}, "restore_timeout"),
        ({"interval": float("inf")}, "interval"),
        ({"on_drain_timeout": "wait"}, "on_drain_timeout is 'wait', wanted one of proceed, fail"),
        ({"provider_options": {}}, "deploy_haproxy_backend"),
    ],
)
def test_a_request_that_cannot_be_worked_with_is_a_usage_error(
    change: dict[str, Any], message: str
) -> None:
    answer = _entry.run({**REQUEST, **change})
    assert answer["failed"]
    assert answer["error"] == {"kind": "usage"}
    assert message in answer["msg"]
