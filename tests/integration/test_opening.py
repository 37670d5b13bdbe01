"""Opening a deployment with a real record and cache: what is planned, left out, refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    PlanError,
    RecordError,
    UsageError,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._closing import close_deployment
from ansible_collections.bascule.deploy.plugins.plugin_utils._joining import open_follow_up
from ansible_collections.bascule.deploy.plugins.plugin_utils._opening import Opened, open_deployment
from ansible_collections.bascule.deploy.plugins.plugin_utils._planning import (
    Endpoint,
    plan_deployment,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._pooling import Pooled
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
    Deployment,
    NewDeployment,
    Record,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._revision_names import find_known
from ansible_collections.bascule.deploy.plugins.plugin_utils._saving import Situation, routing_of
from ansible_collections.bascule.deploy.plugins.plugin_utils._settings import public_variables
from support.bundles import files

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("web1", "web2", "web3")


class Group:
    """A deployment group with a record and a cache of its own; nothing runs on its targets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = list(NAMES)
        self.given: dict[str, Any] = {"deploy_application": "shop", "deploy_group": "web"}
        self.routing = {name: {"in_service": True, "where": "haproxy: up"} for name in NAMES}
        self.record = Record.open(f"sqlite:///{folder / 'record.db'}")

    def revision(self, name: str) -> str:
        return str(files(self.folder / name, {"VERSION": f"{name}\n"}))

    def settings(self, variables: dict[str, Any]) -> dict[str, Any]:
        checked = ArgumentSpecValidator(public_variables()).validate({**self.given, **variables})
        assert not checked.error_messages
        return dict(checked.validated_parameters)

    def endpoints(self) -> list[Endpoint]:
        return [Endpoint(name, f"lb-{name}", f"{name}.example", 80, "") for name in self.names]

    def open(
        self,
        revision: str = "",
        strategy: str = "rolling",
        *,
        check: bool = False,
        secret: str = "hunter2",  # noqa: S107
        **variables: Any,
    ) -> Opened:
        given = {**({"deploy_revision": revision} if revision else {}), **variables}
        situation = Situation(
            inventory=["hosts.yml"],
            limit=None,
            base=self.folder,
            given={**given, "password": secret},
            raw={name: {"ansible_host": f"{name}.example"} for name in self.names},
            routing=self.routing,
            vaulted=lambda _value: False,
            public=public_variables(),
        )
        return open_deployment(
            strategy,
            self.settings(given),
            self.endpoints(),
            record=self.record,
            cache=self.folder / "cache",
            base=self.folder,
            check=check,
            situation=situation,
        )

    def carry_out(self, opened: Opened, *, failing: tuple[str, ...] = ()) -> Deployment:
        """Do to the record what the actions would."""
        identifier = opened.deployment["id"]
        for stage in opened.plan["stages"]:
            for name in stage:
                if self.record.admit(identifier, name).verdict != "admitted":
                    continue
                self.record.note_staged(identifier, name, digest_present=True)
                if name in failing:
                    self.record.add_events(identifier, name, [FAILURE])
                status = "Failed" if name in failing else "Succeeded"
                self.record.settle(identifier, name, status, error_code="ScriptFailed")
        return close_deployment(self.record, identifier).deployment

    def deploy(self, name: str, *, failing: tuple[str, ...] = (), **variables: Any) -> Deployment:
        return self.carry_out(self.open(self.revision(name), **variables), failing=failing)

    def plan(self, revision: str, **variables: Any) -> Path:
        path = self.folder / "plan.json"
        self.open(revision, check=True, deploy_plan_output=str(path), **variables)
        return path


FAILURE = {
    "event": "AfterInstall",
    "status": "Failed",
    "started": 1.0,
    "ended": 2.0,
    "error_code": "ScriptFailed",
    "script": "check.sh",
    "message": "check.sh failed with exit code 3",
    "log": "",
}


@pytest.fixture
def group(tmp_path: Path) -> Group:
    return Group(tmp_path)


def ids(group: Group) -> list[str]:
    return [one.id for one in group.record.deployments("shop", "web", limit=100)]


# Saved plans


def test_a_saved_plan_is_carried_out_as_it_was_made(group: Group) -> None:
    group.deploy("one")
    path = group.plan(group.revision("two"), deploy_stages=[1, 2])
    saved = json.loads(path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    assert "hunter2" not in path.read_text()
    opened = group.open(group.revision("two"), deploy_stages=[1, 2], deploy_plan="plan.json")
    assert opened.plan == saved["plan"]
    recorded = group.record.deployment(opened.deployment["id"])
    assert recorded.plan_hash == saved["plan_hash"] == opened.deployment["plan_hash"]


def joined(group: Group) -> dict[str, Any]:
    group.names.append("web9")
    return {}


def left(group: Group) -> dict[str, Any]:
    group.names.remove("web2")
    return {}


def moved(group: Group) -> dict[str, Any]:
    files(group.folder / "two", {"VERSION": "two, but different\n"})
    return {}


def drained(group: Group) -> dict[str, Any]:
    group.routing["web3"] = {"in_service": False, "where": "haproxy: drain"}
    return {}


def deployed(group: Group) -> dict[str, Any]:
    group.deploy("three")
    return {}


def marked(group: Group) -> dict[str, Any]:
    group.open(group.revision("two"), check=True)
    one = find_known(group.record, ids(group)[0])
    group.record.mark_revision("shop", one.digest, bad=True, why="slow")
    return {}


@pytest.mark.parametrize(
    ("happened", "told"),
    [
        (joined, "the inventory has a new target web9"),
        (left, "the inventory has no target web2 any more"),
        (moved, "moved from"),
        (drained, "routing: web3 is not in service any more (haproxy: drain)"),
        (deployed, "ran since (rolling, Succeeded)"),
        (marked, "the plan would be another one now (rollback, warnings)"),
        (lambda _group: {"deploy_bake_time": "5s"}, 'deploy_bake_time was "0s" and is "5s"'),
        (lambda _group: {"secret": "other"}, "the variable password has another value"),
    ],
)
def test_a_saved_plan_is_refused_by_what_has_changed(
    group: Group, happened: Any, told: str
) -> None:
    group.deploy("one")
    group.plan(group.revision("two"))
    more = happened(group)
    before = ids(group)
    with pytest.raises(PlanError) as refused:
        group.open(str(group.folder / "two"), deploy_plan="plan.json", **more)
    assert told in str(refused.value)
    assert ids(group) == before


def test_the_revision_is_found_in_the_cache_where_its_source_is_gone(group: Group) -> None:
    source = group.revision("two")
    group.plan(source)
    shutil.rmtree(source)
    assert group.open(source, deploy_plan="plan.json").deployment["status"] == "Created"


def test_nothing_comes_between_the_comparison_and_the_deployment(group: Group) -> None:
    group.deploy("one")
    found = group.record.deployments("shop", "web")[0]
    new = NewDeployment(
        application="shop",
        group="web",
        strategy="rolling",
        revision=found.revision,
        plan=found.plan,
        only_after="d-SOMETHING",
    )
    with pytest.raises(RecordError, match=f"The deployment {found.id} ran while"):
        group.record.create_deployment(new)
    assert ids(group) == [found.id]


def test_a_plan_is_saved_only_by_a_check(group: Group) -> None:
    with pytest.raises(UsageError, match="add --check"):
        group.open(group.revision("one"), deploy_plan_output="plan.json")
    assert ids(group) == []
    assert not (group.folder / "plan.json").exists()


def test_a_target_is_in_service_only_where_all_load_balancers_have_it_so() -> None:
    endpoints = [Endpoint(name, f"lb-{name}", "", 80, "") for name in ("a", "b")]
    up, out = {"in_service": True, "state": "up"}, {"in_service": False, "state": "drain"}
    answers = [
        {"where": "lb1", "targets": {"lb-a": up, "lb-b": up}},
        {"where": "lb2", "targets": {"lb-a": out, "lb-b": up}},
        {"where": "lb3", "targets": {"lb-a": up, "lb-b": up}},
    ]
    seen = routing_of(answers, endpoints)
    assert seen["a"] == {"in_service": False, "where": "lb2: drain"}
    assert seen["b"]["in_service"]


# The way back, rehearsed


def test_the_plan_tells_the_way_back(group: Group) -> None:
    assert "no revision has succeeded" in group.open(
        group.revision("one"), check=True
    ).plan["rollback"]["why"]  # fmt: skip
    first = group.deploy("one")
    told = group.open(group.revision("two"), check=True).plan["rollback"]
    assert (told["possible"], told["digest"]) == (True, first.revision.digest)
    assert (told["deployment_id"], told["description"]) == (first.id, "one")
    assert (told["cached"], told["holders"], told["targets"]) == (True, 3, 3)

    (group.folder / "cache" / first.revision.digest / "revision.json").unlink()
    told = group.open(group.revision("two"), check=True).plan["rollback"]
    assert (told["possible"], told["cached"]) == (True, False)
    group.names.append("web9")
    opened = group.open(group.revision("two"), check=True)
    assert opened.plan_text.splitlines()[1].startswith(
        "Warning: A failure cannot be rolled back: the bundle of the last good revision"
    )
    assert opened.plan_text.splitlines()[1].endswith("web9.")


# Bad revisions


def test_a_bad_revision_is_not_deployed_and_not_gone_back_to(group: Group) -> None:
    one, two = group.deploy("one"), group.deploy("two")
    group.record.mark_revision("shop", two.revision.digest, bad=True, why="it loses orders")
    with pytest.raises(UsageError, match=r"is marked bad \(it loses orders\)"):
        group.open(group.revision("two"))
    assert group.open(
        group.revision("two"), check=True, deploy_allow_bad_revision=True
    ).plan["targets"]  # fmt: skip
    rehearsed = group.open(group.revision("three"), check=True).plan["rollback"]
    assert rehearsed["digest"] == one.revision.digest
    failed = group.deploy("three", failing=("web1", "web2"))
    assert failed.rolled_back_by is not None
    back = group.record.deployment(failed.rolled_back_by)
    assert back.revision.digest == one.revision.digest


def test_all_good_revisions_are_bad(group: Group) -> None:
    one = group.deploy("one")
    group.record.mark_revision("shop", one.revision.digest, bad=True)
    told = group.open(group.revision("two"), check=True).plan["rollback"]
    assert (told["possible"], "is marked bad" in told["why"]) == (False, True)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_revision_at_fault_is_marked_if_that_is_wanted(group: Group, wanted: bool) -> None:
    group.deploy("one")
    failed = group.deploy("two", failing=("web1",), deploy_mark_bad_on_failure=wanted)
    assert failed.status == "Failed"
    known = find_known(group.record, failed.id)
    assert known.bad == wanted
    if wanted:
        assert known.why.startswith(f"AfterInstall failed on web1 in {failed.id}: check.sh failed")
    others = [one for one in group.record.revisions("shop") if one.digest != known.digest]
    assert [one.bad for one in others] == [False]


# Only what is outdated


def test_only_outdated_targets_are_touched_and_the_others_count(group: Group) -> None:
    group.deploy("one")
    group.names.append("web4")
    opened = group.open("current", deploy_only_outdated=True, deploy_minimum_healthy_hosts=3)
    assert opened.plan["stages"] == [["web4"]]
    assert opened.plan["left_out"] == list(NAMES)
    assert (opened.plan["total"], opened.plan["slots"]) == (4, 1)
    assert group.carry_out(opened).status == "Succeeded"
    nothing = group.open("current", deploy_only_outdated=True)
    assert nothing.deployment["status"] == "Succeeded"
    assert "nothing is outdated" in nothing.plan_text
    # It has ended: the group is free.
    assert group.deploy("two").status == "Succeeded"


def test_a_target_that_failed_is_outdated_whatever_it_has(group: Group) -> None:
    group.deploy("one")
    group.deploy("two", failing=("web3",), deploy_minimum_healthy_hosts=1, deploy_rollback_on=[])
    opened = group.open("current", check=True, deploy_only_outdated=True)
    assert opened.plan["stages"] == [["web3"]]


def test_a_group_without_a_revision_has_no_current_one(group: Group) -> None:
    with pytest.raises(UsageError, match="shop/web has no current revision"):
        group.open("current")


# Late joiners


def follow(group: Group, after: Deployment, **variables: Any) -> Opened | None:
    return open_follow_up(
        after.id,
        group.settings(variables),
        group.endpoints(),
        record=group.record,
        cache=group.folder / "cache",
    )


def test_who_joined_gets_a_deployment_of_its_own(group: Group) -> None:
    main = group.deploy("one", failing=("web3",), deploy_minimum_healthy_hosts=1)
    assert main.status == "Succeeded"
    assert follow(group, main) is None
    group.names += ["web4", "web5"]
    opened = follow(group, main, deploy_stages=[1], deploy_bake_time="1h")
    assert opened is not None
    # web3 has failed: the plan knew it, and it is not counted as healthy.
    assert opened.plan["stages"] == [["web4", "web5"]]
    assert (opened.plan["total"], opened.plan["bake_time"]) == (4, 0)
    ended = group.carry_out(opened, failing=("web5",))
    assert (ended.creator, ended.options["follows"]) == ("CodeDeployAutoUpdate", main.id)
    assert ended.revision.digest == main.revision.digest
    assert ended.rolled_back_by is None


def test_nobody_joins_a_deployment_that_failed(group: Group) -> None:
    group.deploy("one")
    failed = group.deploy("two", failing=("web1", "web2"))
    group.names.append("web4")
    assert follow(group, failed) is None


def test_a_plan_says_where_zones_change_nothing(group: Group) -> None:
    settings = group.settings({"deploy_zonal": True, "deploy_minimum_healthy_hosts": 0})
    endpoints = [dataclasses.replace(one, zone=f"zone-{one.target}") for one in group.endpoints()]

    def planned(strategy: str, pooled: Pooled) -> dict[str, Any]:
        return plan_deployment(
            strategy, settings, endpoints, "d" * 64, record=group.record,
            cache=group.folder / "cache", pooled=pooled,
        )  # fmt: skip

    rolling = planned("rolling", Pooled())
    assert len(rolling["zonal"]["zones"]) == len(rolling["stages"]) == len(endpoints)
    assert not [text for text in rolling["warnings"] if "Zones" in text]
    canary = planned("canary", Pooled(first=[endpoints[0].target]))
    assert canary["zonal"] is None
    assert [
        text for text in canary["warnings"] if text.startswith("Zones do not follow each other")
    ]
    assert planned("rollback", Pooled())["zonal"] is None
