"""Blue/green with a copied Auto Scaling group: its instances take over, the old ones end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.bundles import files
from support.copied_group import SIZE, Shop, shopping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with shopping(tmp_path) as made:
        yield made


def mutating(shop: Shop) -> list[dict[str, Any]]:
    return [one for one in shop.service.calls() if one["mutating"]]


def test_a_copied_group_takes_over_and_the_old_one_ends(shop: Shop, tmp_path: Path) -> None:
    revision = files(tmp_path / "one", {"text": "one\n"})
    first = shop.instances()
    assert {pool: len(found) for pool, found in first.items()} == {"blue": SIZE}
    shop.service.forget_calls()
    foreseen = shop.controller.playbook("blue_green", "--check", "--diff", deploy_revision=revision)
    assert foreseen.status == 0, foreseen.said
    assert "+a copy of shop" in foreseen.said
    # Those that are not there yet are planned for by number, with all steps to the end.
    assert "would be copied for the pool green, with 2 instances" in foreseen.said
    for told in (
        "copy-of-shop-1, copy-of-shop-2",
        "2. shift 100% of the traffic to green",
        "4. let the Auto Scaling group of green keep it filled, delete that of blue",
    ):
        assert told in foreseen.said, foreseen.said
    assert shop.controller.deployments() == []
    assert mutating(shop) == []

    # With what the group's policy allows, and no more.
    printed = shop.controller.command("iam-policy", "shop", "-i", str(shop.controller.inventory))
    assert printed.status == 0, printed.said
    shop.service.guard(json.loads(printed.said), "ci")
    shop.controller.environment = {**shop.service.environment, "AWS_ACCESS_KEY_ID": "ci"}
    run = shop.controller.playbook("blue_green", deploy_revision=revision)
    refused = [one for one in shop.service.asked_for() if not one["allowed"]]
    assert (run.status, refused) == (0, []), run.said
    second = shop.instances()
    assert {pool: len(found) for pool, found in second.items()} == {"green": SIZE}, run.said
    assert [shop.text(one) for one in second["green"]] == ["one\n"] * SIZE
    assert shop.answering() == {"green"}
    [group] = shop.scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    assert group["TargetGroupARNs"] == [shop.groups["green"]]
    assert shop.suspended() == []
    [deployment] = shop.controller.deployments()
    with shop.controller.record() as record:
        steps = {step.kind: step.status for step in record.steps(deployment.id)}
        held = [one.message for one in record.events(deployment.id) if one.event == "ScalingHeld"]
    # A deployment with a step left is resumed: the fleets are settled before it has succeeded.
    assert (steps["retire"], steps["fleet"]) == ("Succeeded", "Succeeded")
    assert len(held) == 2, "the group that serves and its copy stand still meanwhile"

    # The old group can be kept; it is what the next deployment goes on with.
    revision = files(tmp_path / "two", {"text": "two\n"})
    run = shop.controller.playbook("blue_green", deploy_revision=revision, deploy_retire="keep")
    refused = [one for one in shop.service.asked_for() if not one["allowed"]]
    assert (run.status, refused) == (0, []), run.said
    third = shop.instances()
    assert {pool: len(found) for pool, found in third.items()} == {"green": SIZE, "blue": SIZE}
    assert third["green"] == second["green"]
    assert [shop.text(one) for one in third["blue"]] == ["two\n"] * SIZE
    assert shop.answering() == {"blue"}
    attached = {
        group["TargetGroupARNs"][0]
        for group in shop.scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    }
    assert attached == set(shop.groups.values())
    assert shop.suspended() == []
