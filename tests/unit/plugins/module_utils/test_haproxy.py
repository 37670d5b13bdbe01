from __future__ import annotations

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._host import _haproxy
from ansible_collections.bascule.deploy.plugins.module_utils._host._balancer import Target
from ansible_collections.bascule.deploy.plugins.module_utils._host._haproxy import Orders

# As HAProxy 2.6 writes them, shortened.
STAT = """\
# pxname,svname,qcur,scur,stot,status,weight,check_status,last_chk,cookie,
shop,web-1,1,2,56,UP,1,L7OK,,,
shop,web-2,0,0,7,DOWN,1,L4CON,"Connection refused, twice",,

"""
STATE = """\
1
# be_id be_name srv_id srv_name srv_admin_state srv_check_state srv_agent_state
3 shop 1 web-1 0 6 0
3 shop 2 web-2 8 14 0
3 shop 3 web-3 1 2 0

"""


def row(**more: str) -> dict[str, str]:
    return {
        "svname": "web-1",
        "status": "UP",
        "weight": "1",
        "scur": "0",
        "qcur": "0",
        "stot": "0",
        "check_status": "L7OK",
        "last_chk": "",
        **more,
    }


def test_answers_of_the_runtime_api_are_read() -> None:
    first, second = _haproxy.parse_stat(STAT)
    assert (first["pxname"], first["svname"], first["scur"]) == ("shop", "web-1", "2")
    assert second["last_chk"] == "Connection refused, twice"
    assert _haproxy.parse_servers_state(STATE) == {
        "web-1": Orders(0, checked=True),
        "web-2": Orders(8, checked=True),
        "web-3": Orders(1, checked=False),
    }
    seen = _haproxy.read_server(first, 0, "drain")
    assert (seen.active, seen.served) == (3, 56)


@pytest.mark.parametrize(
    ("status", "admin", "mode", "wanted"),
    [
        # status, flags, drained with; drained, held, blocked, in service
        ("UP", 0, "drain", (False, False, False, True)),
        ("UP 1/3", 0, "drain", (False, False, False, True)),
        ("no check", 0, "drain", (False, False, False, True)),
        ("DOWN", 0, "drain", (False, False, False, False)),
        ("DOWN 1/2", 0, "drain", (False, False, False, False)),
        ("DRAIN", 0x08, "drain", (True, True, True, False)),
        ("DOWN", 0x08, "drain", (True, True, True, False)),
        ("MAINT", 0x01, "drain", (True, True, True, False)),
        ("MAINT", 0x01, "maint", (True, True, True, False)),
        # Sticky clients still reach a server that is only drained.
        ("DRAIN", 0x08, "maint", (False, True, True, False)),
        # Held by the configuration, DNS or a tracked server: not by an order of this API.
        ("MAINT (via shop/web-2)", 0x02, "drain", (False, False, True, False)),
        ("MAINT (resolution)", 0x20, "drain", (False, False, True, False)),
    ],
)
def test_what_haproxy_says_of_a_server(
    status: str, admin: int, mode: str, wanted: tuple[bool, bool, bool, bool]
) -> None:
    seen = _haproxy.read_server(row(status=status), admin, mode)
    assert (seen.drained, seen.held, seen.blocked, seen.in_service) == wanted


def test_a_server_without_weight_is_not_in_service() -> None:
    assert not _haproxy.read_server(row(weight="0"), 0, "drain").in_service


def test_the_state_tells_what_its_check_saw_and_that_it_is_drained() -> None:
    down = row(status="DOWN", check_status="L4CON", last_chk="Connection refused")
    state = _haproxy.read_server(down, 0x08, "drain").state
    assert state == "DOWN, drained, check L4CON Connection refused"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/run/haproxy/admin.sock", "/run/haproxy/admin.sock"),
        ("unix@/run/h.sock", "/run/h.sock"),
        ("127.0.0.1:9999", ("127.0.0.1", 9999)),
        ("ipv4@127.0.0.1:9999", ("127.0.0.1", 9999)),
        ("tcp://lb:9999", ("lb", 9999)),
        ("[::1]:9999", ("::1", 9999)),
    ],
)
def test_places_of_the_runtime_api(text: str, address: str | tuple[str, int]) -> None:
    assert _haproxy.parse_socket(text) == address


@pytest.mark.parametrize("text", ["admin.sock", "lb", "lb:http", ":9999", "http://lb/"])
def test_other_places_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="deploy_haproxy_socket"):
        _haproxy.parse_socket(text)


@pytest.mark.parametrize("name", ["web-1; shutdown sessions", "a b", "a\nb", "a/b", ""])
def test_a_name_cannot_carry_a_command(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a name"):
        _haproxy.connect({"backend": "shop"}, [Target(name, "127.0.0.1", 80)])


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="deploy_haproxy_backend"):
        _haproxy.connect({}, [])
    with pytest.raises(UsageError, match=r"Unknown haproxy option soket; it has backend, socket"):
        _haproxy.connect({"backend": "shop", "soket": "/x"}, [])
    with pytest.raises(UsageError, match="drain_with is 'stop'"):
        _haproxy.connect({"backend": "shop", "drain_with": "stop"}, [])
    where = _haproxy.connect({"backend": "shop"}, []).where
    assert where == "HAProxy backend shop (/run/haproxy/admin.sock)"
