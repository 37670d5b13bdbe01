from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._host import (
    _envoy_routes,
    _haproxy_router,
)
from ansible_collections.bascule.deploy.plugins.module_utils._routing_data import parse_routing

BACKENDS = {"blue": "shop-blue", "green": "shop-green", "baseline": "shop-base"}
ROUTING: dict[str, Any] = {
    "weights": {"blue": 90.0, "green": 5.0, "baseline": 5.0},
    "match": [
        {"pool": "green", "header": "X-Test", "value": "a=b:c"},
        {"pool": "blue", "cookie": "pool", "value": "blue"},
    ],
    "sticky": {"salt": "d-1", "cookie": "who", "ttl": 60.0, "rest": "blue"},
}


def test_a_routing_is_one_entry_and_is_read_again() -> None:
    routing = parse_routing(ROUTING)
    entry = _haproxy_router.write_entry(routing, BACKENDS)
    assert entry == (
        "a,shop-base,500>a,shop-blue,9000>a,shop-green,500>h,X-Test,a=b:c,shop-green>"
        "c,pool,blue,shop-blue>s,c,who,d-1,60,shop-blue"
    )
    assert _haproxy_router.read_entry(entry, BACKENDS) == routing
    plain = parse_routing({"weights": {"blue": 100, "green": 0}})
    assert _haproxy_router.read_entry("a,shop-blue,10000>a,shop-green,0", BACKENDS) == plain


@pytest.mark.parametrize(
    "entry", ["", "a", "a,shop-red,10000", "a,shop-blue,x", "z,1,2,3", "a,shop-blue,5", "s,h,a,b"]
)
def test_an_entry_of_somebody_else_is_no_routing(entry: str) -> None:
    assert _haproxy_router.read_entry(entry, BACKENDS) is None


def test_haproxy_s_program_hashes_users_as_envoy_s_does() -> None:
    """HAProxy's is a file that people copy, Envoy's is sent: a user has one pool at both."""
    program = Path(__file__).parents[4] / "roles" / "deploy" / "files" / "bascule.lua"
    assert f"\n{_envoy_routes.LUA_HASH}\n" in program.read_text()


def test_answer_times_are_read_from_the_table() -> None:
    text = (
        "# table: bascule_latency, type: string, size:20480, used:2\n"
        "0x5: key=shop-blue:97 use=0 exp=0 shard=0 gpc0=4\n"
        "0x6: key=shop-blue:98 use=0 exp=0 shard=0 gpc0=1\n"
        "0x7: key=shop-blue:120 use=0 exp=0 shard=0 gpc0=2\n"
    )
    buckets = _haproxy_router.parse_table(text)
    assert buckets == {"shop-blue": {97: 4, 98: 1, 120: 2}}
    histogram = _haproxy_router.histogram(buckets["shop-blue"])
    assert [count for _bound, count in histogram] == [0, 4, 5, 5, 7]
    assert histogram[-1][0] == pytest.approx(0.0927, abs=1e-4)
    assert _haproxy_router.parse_table("No such table\n") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pools": {"a": {"backend": "x;y"}}}, "'x;y' cannot be a name in HAProxy"),
        ({"map_path": "/etc/my map"}, "'/etc/my map' cannot be"),
        ({"map_key": "a,b"}, "'a,b' cannot be"),
        ({"pools": {}}, "deploy_traffic_pools"),
        ({"map": "/x"}, "Unknown haproxy option map"),
    ],
)
def test_options_that_cannot_be_worked_with_are_refused(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        _haproxy_router.connect({"pools": {"a": {"backend": "x"}}, **change})
