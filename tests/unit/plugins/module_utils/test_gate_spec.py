"""What users write about gates."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._gate_spec import (
    describe_gate,
    parse_gate,
    parse_gates,
)

PROMETHEUS = {"type": "prometheus", "url": "http://p:9090", "query": "up", "success": ">= 1"}


def test_times_numbers_and_conditions_are_read() -> None:
    gate = parse_gate(
        {
            **PROMETHEUS, "name": "errors", "interval": "1m", "initial_delay": "90s", "count": "5",
            "failure_limit": 2, "timeout": "500ms", "dry_run": "yes", "failure": "< 0.5",
        }
    )  # fmt: skip
    assert (gate.name, gate.timeout, gate.dry_run) == ("errors", 0.5, True)
    assert (gate.rule.interval, gate.rule.initial_delay, gate.rule.count) == (60, 90, 5)
    assert gate.success is not None
    assert gate.failure is not None
    assert (gate.success.text, gate.failure.text) == (">= 1", "< 0.5")


def test_each_gate_gets_a_name_of_its_own() -> None:
    gates = parse_gates([{"type": "tcp", "port": 1}, {"type": "tcp", "port": 2}, PROMETHEUS])
    assert [gate.name for gate in gates] == ["tcp", "tcp-2", "prometheus"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("tcp", "wanted is a mapping with a type"),
        ({"type": "smtp"}, "has the type 'smtp'; there are ab_test, approval,"),
        ({"type": "tcp"}, "a gate of type tcp needs port"),
        ({"type": "tcp", "port": 1, "url": "x"}, "a gate of type tcp has no key url"),
        ({"type": "http", "url": "ftp://x"}, "no http address"),
        ({"type": "http", "url": "http://x", "body": "("}, "body is no regular expression"),
        ({"type": "http", "url": "http://x", "success": "1"}, "need json_path"),
        ({"type": "proxy", "metric": "speed", "success": "1"}, "there are error_rate"),
        ({"type": "proxy", "metric": "p95"}, "say what is wanted"),
        ({**PROMETHEUS, "success": "low"}, "wanted is a condition"),
        ({**PROMETHEUS, "interval": "soon"}, "The gate.interval is 'soon'"),
        ({**PROMETHEUS, "count": 0}, "count is 0; wanted is a whole number from 1"),
        ({**PROMETHEUS, "failure_limit": -2}, "wanted is a whole number from -1"),
        ({**PROMETHEUS, "headers": "x"}, "headers is a mapping"),
        ({**PROMETHEUS, "dry_run": "perhaps"}, "wanted is true or false"),
        ({"type": "approval", "on_timeout": "wait"}, "wanted is stop or continue"),
    ],
)
def test_what_does_not_fit_is_refused(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_gate(given)


def test_two_gates_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="is called a, as another gate is"):
        parse_gates([{"type": "tcp", "port": 1, "name": "a"}] * 2)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"type": "http", "url": "http://me:pw@h:1/x?token=t"}, "http http://h:1/x"),
        ({"type": "command", "command": "curl -u me:pw h"}, "command curl"),
        ({**PROMETHEUS, "name": "up"}, "up (prometheus) http://p:9090, wanted >= 1"),
        ({"type": "tcp", "port": 9, "dry_run": True}, "tcp 127.0.0.1:9, dry run"),
        ({"type": "cloudwatch_alarm", "alarm": "High5xx"}, "cloudwatch_alarm High5xx"),
    ],
)
def test_a_description_has_nothing_secret(given: dict[str, Any], text: str) -> None:
    assert describe_gate(parse_gate(given)) == text
