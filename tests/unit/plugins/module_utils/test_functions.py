"""What a Lambda function is deployed with, and how its alias moves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils import _aliases, _functions
from ansible_collections.bascule.deploy.plugins.module_utils._aliases import Alias
from ansible_collections.bascule.deploy.plugins.module_utils._errors import PlanError, UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._schedule import (
    NAMES,
    parse_schedule,
    step_text,
)
from hypothesis import given
from hypothesis import strategies as st

SEEN = {
    "MemorySize": 128,
    "Timeout": 3,
    "Handler": "app.handler",
    "Runtime": "python3.12",
    "EphemeralStorage": {"Size": 512},
    "Layers": [{"Arn": "arn:aws:lambda:eu-central-1:1:layer:a:1", "CodeSize": 1}],
    "Environment": {"Variables": {"TOKEN": "hush-hush"}},
}


def test_only_what_is_set_is_changed() -> None:
    seen = _functions.seen_configuration(SEEN)
    wanted = _functions.parse_configuration(
        {
            "memory": "256",
            "timeout": 3,
            "environment": {"TOKEN": "new", "DEBUG": False},
            "layers": [],
        }
    )
    assert _functions.api_changes(seen, wanted) == {
        "MemorySize": 256,
        "Environment": {"Variables": {"TOKEN": "new", "DEBUG": "false"}},
        "Layers": [],
    }
    assert _functions.api_changes(seen, {}) == {}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "must be a map"),
        ({"memmory": 1}, "unknown keys memmory; there are environment"),
        ({"memory": 64}, "memory is 64; wanted is a number from 128 to 10240"),
        ({"timeout": "1h"}, "timeout is '1h'"),
        ({"layers": ["mine"]}, "at most 5 ARNs"),
        ({"environment": {"1": "hush"}}, "environment.1 does not fit"),
        ({"environment": ["hush"]}, "must be a map of variables"),
    ],
)
def test_a_configuration_that_does_not_fit(value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        _functions.parse_configuration(value)
    assert "hush" not in str(caught.value)


def test_no_value_of_an_environment_is_written_down() -> None:
    seen = _functions.seen_configuration(SEEN)
    kept = _functions.recorded_configuration(seen, "greet")
    assert "hush-hush" not in json.dumps(kept)
    assert kept["environment"]["names"] == ["TOKEN"]
    other = {**seen, "environment": {"TOKEN": "other"}}
    changed = _functions.recorded_configuration(other, "greet")
    assert _functions.difference(kept, changed) == ["environment: values of TOKEN"]
    more = {**seen, "environment": {"KEY": "x"}, "memory": 256}
    assert _functions.difference(kept, _functions.recorded_configuration(more, "greet")) == [
        "environment: +KEY, -TOKEN",
        "memory: 128 -> 256",
    ]


def test_the_digest_names_code_and_configuration() -> None:
    def digest(**more: Any) -> str:
        function = {"function": "greet", "alias": "live", "code_sha256": "x", "hooks": {},
                    "configuration": {"memory": 128}, **more}  # fmt: skip
        return _functions.revision_digest({"greet": function})

    assert digest() == digest(published="7")
    changes: list[dict[str, Any]] = [
        {"code_sha256": "y"}, {"configuration": {"memory": 256}}, {"alias": "test"},
        {"hooks": {"BeforeAllowTraffic": "check"}}, {"target_version": "3"},
    ]  # fmt: skip
    assert len({digest(), *(digest(**change) for change in changes)}) == 6


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("111122223333.dkr.ecr.eu-central-1.amazonaws.com/shop:2",) * 2,
        (
            "docker://111122223333.dkr.ecr.eu-central-1.amazonaws.com/shop@sha256:ab",
            "111122223333.dkr.ecr.eu-central-1.amazonaws.com/shop@sha256:ab",
        ),
        ("shop:2", None),
        ("s3://bucket/shop.zip", None),
    ],
)
def test_addresses_of_images(text: str, address: str | None) -> None:
    assert _functions.image_address(text) == address


@pytest.mark.parametrize(
    ("share", "old", "wanted"),
    [
        (0, "1", Alias("1")),
        (10, "1", Alias("1", {"2": 0.1})),
        (33.333333333, "1", Alias("1", {"2": 0.333333})),
        (100, "1", Alias("2")),
        (0, None, None),
        (10, None, Alias("2")),
        (50, "2", Alias("2")),
    ],
)
def test_the_alias_of_a_share(share: float, old: str | None, wanted: Alias | None) -> None:
    assert _aliases.alias_for(share, old, "2") == wanted


def test_a_version_of_somebody_else_is_seen() -> None:
    assert _aliases.share_of(Alias("1", {"2": 0.25}), "1", "2") == 25
    assert _aliases.share_of(Alias("2"), "1", "2") == 100
    assert _aliases.share_of(Alias("1", {"3": 0.25}), "1", "2") is None
    assert _aliases.share_of(Alias("3"), "1", "2") is None
    assert _aliases.share_of(Alias("1", {"3": 0.0}), "1", "2") == 0
    assert _aliases.is_same(Alias("1", {"2": 0.0}), Alias("1"))
    assert _aliases.is_same(Alias("1", {"2": 0.1}), Alias("2", {"1": 0.9}))
    assert not _aliases.is_same(Alias("1"), None)


@given(st.integers(1, 7), st.sampled_from(NAMES))
def test_functions_in_order_each_get_the_whole_schedule(functions: int, name: str) -> None:
    steps = parse_schedule(name)
    targets = [f"function-{number}" for number in range(functions)]
    combined, ladder = _aliases.schedule_in_order(steps, targets)
    shares = [step["share"] for step in combined if step["kind"] == "shift"]
    assert shares == sorted(set(shares))
    assert shares[-1] == 100
    assert [f"{share:g}" for share in shares] == list(ladder)
    own = [step["share"] for step in steps if step["kind"] == "shift"]
    for number, target in enumerate(targets):
        seen = [ladder[f"{share:g}"][target] for share in shares]
        before, after = number * len(own), (number + 1) * len(own)
        assert seen == [0.0] * before + own + [100.0] * (len(shares) - after)


def test_each_of_several_functions_is_checked_around_its_own_traffic() -> None:
    steps = parse_schedule([{"gate": {"type": "tcp", "port": 1}}, {"shift": "20%"}, {"bake": 1}])
    hooks = {"cart": {"BeforeAllowTraffic": "b", "AfterAllowTraffic": "a"}, "order": {}}
    combined, _ladder = _aliases.schedule_in_order(steps, ["cart", "order"], hooks)
    told = [(step["kind"], step.get("target"), step.get("hook")) for step in combined]
    assert told == [
        ("gate", None, None), ("hook", "cart", "b"), ("shift", None, None), ("bake", None, None),
        ("shift", None, None), ("hook", "cart", "a"),
        ("gate", None, None), ("shift", None, None), ("bake", None, None), ("shift", None, None),
        ("hook", "order", ""),
    ]  # fmt: skip
    assert [step["settles"] for step in combined if step["kind"] == "hook"] == [False, True, True]
    texts = [step_text(step) for step in combined if step["kind"] == "hook"]
    assert texts == [
        "have b check cart (BeforeAllowTraffic)",
        "have a check cart (AfterAllowTraffic), then cart is done",
        "order is done",
    ]


def test_too_many_functions_in_order_are_refused() -> None:
    steps = parse_schedule("LambdaLinear10PercentEvery1Minute")
    with pytest.raises(PlanError, match="more than this schedule can tell apart"):
        _aliases.schedule_in_order(steps, [str(number) for number in range(2000)])


@pytest.mark.parametrize(
    ("keep", "age", "wanted"),
    [
        (2, 0, ["1", "2", "4"]),
        (2, 75, ["1", "2"]),
        (0, 0, ["1", "2", "4", "5", "10"]),
        (9, 0, []),
        (0, 1000, []),
    ],
)
def test_old_versions(keep: int, age: float, wanted: list[str]) -> None:
    published = {"1": 0.0, "2": 10.0, "3": 20.0, "4": 30.0, "5": 40.0, "10": 50.0}
    assert wanted == _aliases.versions_to_delete(
        published, keep=keep, age=age, now=100.0, protected={"3"}
    )
