from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    TrafficError,
    UsageError,
)
from ansible_collections.bascule.deploy.plugins.module_utils._host import (
    _nginx,
    _nginx_files,
    _nginx_process,
    _nginx_router,
)
from ansible_collections.bascule.deploy.plugins.module_utils._host._nginx_files import (
    LogLine,
    Server,
)
from ansible_collections.bascule.deploy.plugins.module_utils._routing_data import parse_routing

if TYPE_CHECKING:
    from pathlib import Path

UPSTREAM = """\
upstream shop {
    # server 10.0.0.9:80; was one
    server 10.0.0.1:8080 weight=3 max_fails=2;
    server 10.0.0.2 down;  server [::1]:81;
    server unix:/run/shop.sock backup;
    keepalive 32;
}
"""
UPSTREAMS = {"blue": "shop-blue", "green": "shop-green"}


def test_the_servers_of_an_upstream_are_read() -> None:
    assert _nginx_files.servers_of(UPSTREAM, "shop", "shop.conf") == [
        Server("10.0.0.1", 8080, down=False),
        Server("10.0.0.2", 80, down=True),
        Server("::1", 81, down=False),
    ]
    for text, message in [
        ("", "shop.conf has the upstreams none, wanted shop"),
        ("upstream a { server x; }\nupstream shop { server y; }", "the upstreams a, shop"),
    ]:
        with pytest.raises(TrafficError, match=message):
            _nginx_files.servers_of(text, "shop", "shop.conf")


@pytest.mark.parametrize(
    ("place", "down", "old", "new"),
    [
        (("10.0.0.1", 8080), True, "weight=3 max_fails=2;", "weight=3 max_fails=2 down;"),
        (("10.0.0.2", 80), False, "10.0.0.2 down;", "10.0.0.2;"),
        (("::1", 81), True, "[::1]:81;", "[::1]:81 down;"),
        (("10.0.0.1", 8080), False, "weight=3", "weight=3"),
        (("10.0.0.3", 80), False, "upstream shop {", "upstream shop {\n    server 10.0.0.3:80;"),
        (("::2", 80), True, "upstream shop {", "upstream shop {\n    server [::2]:80 down;"),
    ],
)
def test_a_server_is_marked_and_nothing_else_is_changed(
    place: tuple[str, int], down: bool, old: str, new: str
) -> None:
    changed = _nginx_files.set_down(UPSTREAM, [place], down=down, weight=None)
    assert changed == UPSTREAM.replace(old, new, 1)
    again = _nginx_files.set_down(changed, [place], down=down, weight=None)
    assert again == changed


def test_a_routing_is_rendered_and_read_again() -> None:
    routing = parse_routing(
        {
            "weights": {"blue": 95.0, "green": 5.0},
            "match": [
                {"pool": "green", "header": "X-Test", "value": "a.b"},
                {"pool": "blue", "cookie": "pool-name", "value": "blue"},
            ],
            "sticky": {"salt": "d-1", "cookie": "who", "ttl": 60},
        }
    )
    text = _nginx_files.write_routing(routing, UPSTREAMS, "shop")
    assert _nginx_files.read_routing(text, UPSTREAMS) == routing
    for line in (
        "map $http_x_test $shop_rule_1 {",
        r'    "~^a\x2eb$" shop-green;',
        r'    "~(?:^|;)\s*pool-name=blue\s*(?:;|$)" shop-blue;',
        'split_clients "d-1:$shop_given" $shop_stuck {',
        "    95.00% shop-blue;",
        "    * shop-green;",
        'map "" $shop_upstream {',
        "    default $shop_rule_1_or;",
    ):
        assert line in text.splitlines()
    first = 'map "" $bascule_upstream { default shop-blue; }'
    assert _nginx_files.read_routing(first, UPSTREAMS) == parse_routing({"weights": {"blue": 100}})
    for strange in ("# routing: {]", first.replace("blue", "red"), ""):
        assert _nginx_files.read_routing(strange, UPSTREAMS) is None
    whole = _nginx_files.write_routing(
        parse_routing({"weights": {"blue": 100, "green": 0}}), UPSTREAMS, "shop"
    )
    assert "shop-green" not in whole
    dotted = parse_routing(
        {"weights": {"blue": 100}, "match": [{"pool": "blue", "header": "X.Y", "value": "1"}]}
    )
    with pytest.raises(UsageError, match=r"cannot name the header 'X\.Y'"):
        _nginx_files.write_routing(dotted, UPSTREAMS, "shop")


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("1767225600.1 shop-blue 200 0.012", LogLine("shop-blue", 200, 0.012)),
        ("1767225600.1 shop-blue 502 0.001, 0.002", LogLine("shop-blue", 502, 0.003)),
        ("1767225600.1 shop-blue 200 0.001 : 0.004", LogLine("shop-blue", 200, 0.005)),
        ("1767225600.1 shop-blue 502 -", LogLine("shop-blue", 502, 0.0)),
        ("1767225600.1 shop-blue 502 -, 0.5", LogLine("shop-blue", 502, 0.5)),
        ("1767225600.1 shop-blue", None),
        ('127.0.0.1 - - [25/Nov/2026:13:00:00] "GET / HTTP/1.1" 200 4', None),
        ("", None),
    ],
)
def test_a_line_of_the_log_is_read(line: str, read: LogLine | None) -> None:
    assert _nginx_files.read_line(line) == read


@pytest.mark.parametrize("seconds", [0.0, 0.0009, 0.001, 0.0011, 0.25, 59.9])
def test_a_time_lies_in_its_bucket(seconds: float) -> None:
    number = _nginx_files.bucket_of(seconds)
    found = _nginx_files.histogram({number: 2})
    assert found[-1][1] == 2
    assert seconds <= found[-1][0] + 1e-9
    assert number == 0 or found[0] == (pytest.approx(found[-1][0] / 1.1, abs=1e-6), 0)


def line(upstream: str, status: int = 200) -> str:
    return f"1767225600.1 {upstream} {status} 0.010\n"


def counts(path: Path) -> dict[str, tuple[int, int]]:
    return {
        upstream: (seen["requests"], seen["errors"])
        for upstream, seen in _nginx_router.read_log(str(path)).items()
    }


def test_a_log_is_counted_on_from_where_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "bascule.log"
    log.write_text(line("a") * 3 + line("b", 502) + "1767225600.1 a 2")
    assert counts(log) == {"a": (3, 0), "b": (1, 1)}
    with log.open("a") as file:
        # The rest of the line that was not whole yet.
        file.write("00 0.010\n" + line("a", 404))
    assert counts(log) == {"a": (5, 0), "b": (1, 1)}
    assert counts(log) == {"a": (5, 0), "b": (1, 1)}
    # Rotated: what was written after our last look is still read.
    with log.open("a") as file:
        file.write(line("a", 500))
    former = log.rename(tmp_path / "bascule.log-20260101")
    assert counts(log) == {"a": (6, 1), "b": (1, 1)}, "nginx has not begun a new one"
    log.write_text(line("b"))
    assert counts(log) == {"a": (6, 1), "b": (2, 1)}
    # A worker that has not changed to the new log yet.
    with former.open("a") as file:
        file.write(line("a"))
    assert counts(log) == {"a": (7, 1), "b": (2, 1)}
    assert counts(log) == {"a": (7, 1), "b": (2, 1)}
    monkeypatch.setattr(_nginx_router, "FORMER_SECONDS", -1.0)
    with former.open("a") as file:
        file.write(line("a"))
    assert counts(log) == {"a": (7, 1), "b": (2, 1)}, "it is nobody's any more"
    # Truncated in place, and counts that cannot be read: both begin the log anew.
    log.write_text("")
    log.write_text(line("b"))
    (tmp_path / "bascule.log.counts").write_text("{]")
    assert counts(log) == {"b": (1, 0)}


def test_a_log_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrafficError, match=r"bascule.log cannot be read: No such file.*log_format"):
        _nginx_router.read_log(str(tmp_path / "bascule.log"))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("0100007F:1F90", ("127.0.0.1", 8080)),
        ("00000000000000000000000001000000:0050", ("::1", 80)),
        ("0000000000000000FFFF00000100007F:0050", ("127.0.0.1", 80)),
    ],
)
def test_a_place_of_the_kernel_s_table_is_read(text: str, place: tuple[str, int]) -> None:
    assert _nginx_process._place(text) == place


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "deploy_nginx_upstream"),
        ({"upstream": "../shop"}, r"'\.\./shop' cannot be the name"),
        ({"upstream": "shop", "health_path": "health"}, "deploy_nginx_health_path is 'health'"),
        ({"upstream": "shop", "command": "nginx '"}, 'deploy_nginx_command is "nginx \'"'),
    ],
)
def test_options_that_cannot_be_worked_with_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        _nginx.connect(options, [])


def test_a_command_that_cannot_be_run_and_one_that_says_no_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrafficError, match=r"/nonexistent/nginx cannot be run: .*_nginx_command"):
        _nginx.connect({"upstream": "shop", "command": "/nonexistent/nginx"}, [])
    refusing = tmp_path / "nginx"
    words = "echo 'nginx: [notice] hm' >&2\necho 'nginx: [emerg] no' >&2\n"
    refusing.write_text(f"#!/bin/sh\n{words}exit 1\n")
    refusing.chmod(0o755)
    with pytest.raises(TrafficError, match=r"as it is now: nginx: \[emerg\] no\. Mend that first"):
        _nginx.connect({"upstream": "shop", "command": str(refusing)}, [])


@pytest.mark.parametrize(
    ("files", "seconds"),
    [
        (["http { server { listen 80; } }"], 75),
        (["http { keepalive_timeout 5s; server { listen 80; } }"], 5),
        (["http { keepalive_timeout 65; server { keepalive_timeout 5s; } }"], 65),
        (["http { server { keepalive_timeout 4s 10s; location @a {keepalive_timeout 0;} } }"], 4),
        # The other server has the default.
        (["http { server { keepalive_timeout 4s; } server { listen 81; } }"], 75),
        (["http { server { location / { keepalive_timeout 1m 30s; } } }"], 60),
        (["http { server { keepalive_timeout 2s; location / { keepalive_timeout 1h; } } }"], 3600),
        # That of an upstream is of the other side, and text in quotes is no block.
        (["http { upstream a { keepalive_timeout 60s; } log_format b '{ \" }'; "
          "server { keepalive_timeout 500ms; } }"], 0.5),
        (["http { include a; server { keepalive_timeout 3s; } }", "keepalive_timeout 7;"], 7),
    ],
)  # fmt: skip
def test_how_long_a_connection_may_rest(files: list[str], seconds: float) -> None:
    assert _nginx_files.keepalive_seconds(files) == seconds


def test_a_file_comes_before_the_routing_where_the_configuration_asks_for_it() -> None:
    routing = parse_routing(
        {"weights": {"blue": 90, "green": 10}, "mirror": {"pool": "green", "share": 5}}
    )
    plain = _nginx_files.write_routing(routing, UPSTREAMS, "shop")
    assert "$shop_only" not in plain
    assert _nginx_files.at_once_to(plain) == []
    text = _nginx_files.write_routing(routing, UPSTREAMS, "shop", at_once=True)
    assert "map $shop_only $shop_upstream {\n    default $shop_only;\n" in text
    assert 'map $shop_only $shop_mirror {\n    default "";\n    "" $shop_copied;\n' in text
    assert _nginx_files.at_once_to(text) == sorted(UPSTREAMS.values())
    assert _nginx_files.read_routing(text, UPSTREAMS) == routing
