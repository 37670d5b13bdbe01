"""A plan in a file: what is kept, and what is told when the world has changed since."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import PlanError
from ansible_collections.bascule.deploy.plugins.module_utils._plan import PlanTarget, make_plan
from ansible_collections.bascule.deploy.plugins.module_utils._plan_hash import plan_hash
from ansible_collections.bascule.deploy.plugins.module_utils._saved_plan import (
    first_difference,
    may_be_kept,
    plan_difference,
    read_saved,
    seal,
)

if TYPE_CHECKING:
    from collections.abc import Callable

OLD, NEW = "a" * 64, "b" * 64
PUBLIC = {"deploy_stages": {}, "deploy_revision": {}, "deploy_hook_environment": {}}


def made(digest: str = NEW, minimum: int = 1) -> dict[str, Any]:
    targets = [PlanTarget("web1"), PlanTarget("web2")]
    return make_plan("rolling", targets, digest=digest, minimum=minimum, stages=[2])


def saved() -> dict[str, Any]:
    target = {"name": "web1", "address": "10.0.0.1", "port": 80, "zone": "a", "variables": {}}
    return {
        "format": 1,
        "made": {"at": 0.0, "by": "me", "from": "here"},
        "salt": "salt",
        "strategy": "rolling",
        "application": "shop",
        "group": "web",
        "revision": {"digest": NEW, "source": "./dist", "description": "2.0"},
        "plan": made(),
        "plan_hash": plan_hash(made(), NEW),
        "run": {
            "inventory": ["hosts.yml"],
            "limit": None,
            "base": "/",
            "variables": {"deploy_stages": [1]},
            "withheld": {"password": seal("password", "s3cret", "salt")},
        },
        "settings": {"deploy_stages": [1], "deploy_bake_time": "0s"},
        "sealed": {"deploy_hook_environment": "5ea1"},
        "targets": {
            "web1": {**target, "variables": {"deploy_sysroot": "/srv"}},
            "web2": {**target, "name": "web2", "address": "10.0.0.2"},
        },
        "routing": {
            "web1": {"in_service": True, "where": "haproxy: up"},
            "web2": {"in_service": False, "where": "haproxy: down"},
        },
        "record": {
            "revision": OLD,
            "newest": "d-AAAAAAAAA",
            "told": "rolling, Succeeded",
            "targets": {"web1": {"health": "Healthy", "digest": OLD}},
        },
    }


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    *way, last = path.split("/")

    def apply(document: dict[str, Any]) -> None:
        place: Any = document
        for step in way:
            place = place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return apply


def web9(document: dict[str, Any]) -> None:
    document["targets"]["web9"] = dict(document["targets"]["web2"])


CHANGES: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (change("strategy", "in_place"), "a plan for the strategy rolling, and this run is for in_pl"),
    (change("group", "db"), "a plan for the group web, and this run is for db"),
    (change("run/withheld", {}), "the variable password was given to the plan, which does not"),
    (change("run/withheld/password", seal("password", "x", "salt")), "password has another value"),
    (change("run/withheld/token", "77"), "the variable token was not given to the plan"),
    (web9, "the inventory has a new target web9"),
    (change("targets/web2", None), "the inventory has no target web2 any more"),
    (change("targets/web1/address", "10.0.0.9"), "web1: its address was '10.0.0.1' and is '10.0.0"),
    (change("targets/web1/zone", "b"), "web1: its zone was 'a' and is 'b'"),
    (change("targets/web1/variables/deploy_sysroot", "/x"), "web1: the variable deploy_sysroot"),
    (change("settings/deploy_stages", [2]), "the variable deploy_stages was [1] and is [2]"),
    (change("settings/deploy_bake_time", None), 'bake_time was "0s" and is not set any more'),
    (change("settings/deploy_x", 1), "the variable deploy_x was not set and is 1"),
    (change("sealed/deploy_hook_environment", "0"), "deploy_hook_environment has another value"),
    (change("revision/digest", OLD), "the revision ./dist moved from bbbbbbbbbbbb to aaaaaaaaaaaa"),
    (change("record/newest", "d-BBBBBBBBB"), "the deployment d-BBBBBBBBB ran since (rolling, Succ"),
    (change("record/revision", NEW), "the revision of the group was aaaaaaaaaaaa and is bbb"),
    (change("record/targets/web1/health", "Unhealthy"), "the record has web1 as Unhealthy with"),
    (change("record/targets", {}), "has web1 as unknown; it was Healthy with revision a"),
    (change("routing/web1/in_service", False), "routing: web1 is not in service any more (haproxy"),
    (change("routing/web2/in_service", True), "routing: web2 is in service again"),
    (change("routing/web2", None), "routing: nothing is known of web2 any more"),
]  # fmt: skip


def test_nothing_has_changed() -> None:
    assert first_difference(saved(), copy.deepcopy(saved())) == ""


@pytest.mark.parametrize(
    ("happened", "told"), CHANGES, ids=[told[:40] for _happened, told in CHANGES]
)
def test_what_has_changed_is_told_by_name(
    happened: Callable[[dict[str, Any]], None], told: str
) -> None:
    now = saved()
    happened(now)
    assert told in first_difference(saved(), now)


def test_the_inventory_is_told_before_what_follows_from_it() -> None:
    now = saved()
    web9(now)
    now["settings"]["deploy_stages"] = [3]
    now["routing"]["web1"]["in_service"] = False
    assert first_difference(saved(), now) == "the inventory has a new target web9"


def test_another_plan_is_told_by_its_parts() -> None:
    assert plan_difference(saved(), made()) == ""
    assert plan_difference(saved(), made(minimum=0)) == (
        "the plan would be another one now (minimum_healthy, slots)"
    )


def test_a_saved_plan_is_read_as_it_was_written() -> None:
    assert read_saved(json.dumps(saved()), "plan.json") == saved()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "plan.json is no saved plan: "),
        ("[]", "plan.json is no saved plan. Make it again"),
        ('{"stages": []}', "plan.json is no saved plan. Make it again"),
        (json.dumps({**saved(), "format": 2}), "is a plan of format 2; this Bascule reads"),
        (json.dumps({**saved(), "targets": []}), "is damaged: its targets is missing or wrong"),
        (json.dumps({**saved(), "plan": made(minimum=0)}), "its hash is another one"),
        (
            json.dumps({**saved(), "revision": {"digest": OLD}}),
            "its hash is another one. Plans are not edited",
        ),
    ],
)  # fmt: skip
def test_what_is_no_plan_is_refused(text: str, message: str) -> None:
    with pytest.raises(PlanError) as refused:
        read_saved(text, "plan.json")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("deploy_stages", [1, "10%"], True),
        ("deploy_revision", "git+https://example.org/shop.git#v2", True),
        ("deploy_revision", "https://example.org/shop.tgz", True),
        ("deploy_revision", "https://me:pass@example.org/shop.tgz", False),
        ("deploy_revision", "https://example.org/shop.tgz?X-Amz-Signature=1", False),
        ("deploy_stages", {"deep": ["https://token@example.org/"]}, False),
        ("deploy_hook_environment", {"PASSWORD": "x"}, False),
        ("password", "x", False),
        ("environment", "prod", False),
    ],
)
def test_only_what_is_known_not_to_be_secret_is_kept(name: str, value: Any, kept: bool) -> None:
    assert may_be_kept(name, value, PUBLIC) == kept


def test_a_seal_tells_values_apart_and_does_not_tell_them() -> None:
    assert seal("a", {"x": 1, "y": 2}, "s") == seal("a", {"y": 2, "x": 1}, "s")
    assert (
        len({seal("a", "v", "s"), seal("b", "v", "s"), seal("a", "w", "s"), seal("a", "v", "t")})
        == 4
    )
    assert "hunter2" not in seal("a", "hunter2", "s")
