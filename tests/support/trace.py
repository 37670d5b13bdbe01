"""The logical trace of a blue/green with a test route: what every provider has to answer alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

TEST = [{"pool": "green", "header": "X-Bascule-Test", "value": "green"}]
RULE = "header X-Bascule-Test=green: green\n"
ORDERS: list[dict[str, Any]] = [
    {"weights": {"blue": 100.0, "green": 0.0}},
    {"weights": {"blue": 100.0, "green": 0.0}, "match": TEST},
    {"weights": {"blue": 95.0, "green": 5.0}, "match": TEST},
    {"weights": {"blue": 95.0, "green": 5.0}, "match": TEST},
    {"weights": {"blue": 50.0, "green": 50.0}},
    {"weights": {"blue": 0.0, "green": 100.0}},
    {"weights": {"blue": 100.0, "green": 0.0}},
]
# Changed, and the difference that a person is shown; before the first order green has it all.
TRACE = [
    (True, "blue: 0 %\ngreen: 100 %\n", "blue: 100 %\ngreen: 0 %\n"),
    (True, "blue: 100 %\ngreen: 0 %\n", "blue: 100 %\ngreen: 0 %\n" + RULE),
    (True, "blue: 100 %\ngreen: 0 %\n" + RULE, "blue: 95 %\ngreen: 5 %\n" + RULE),
    (False, "blue: 95 %\ngreen: 5 %\n" + RULE, "blue: 95 %\ngreen: 5 %\n" + RULE),
    (True, "blue: 95 %\ngreen: 5 %\n" + RULE, "blue: 50 %\ngreen: 50 %\n"),
    (True, "blue: 50 %\ngreen: 50 %\n", "blue: 0 %\ngreen: 100 %\n"),
    (True, "blue: 0 %\ngreen: 100 %\n", "blue: 100 %\ngreen: 0 %\n"),
]


def trace(route: Callable[[dict[str, Any]], dict[str, Any]]) -> list[tuple[bool, str, str]]:
    """Give all orders to a provider and return what it answered, to be compared with ``TRACE``."""
    answers = [route(order) for order in ORDERS]
    for order, answer in zip(ORDERS, answers, strict=True):
        assert answer["routing"]["after"]["weights"] == order["weights"]
        assert answer["routing"]["after"]["match"] == order.get("match", [])
    return [
        (answer["changed"], answer["diff"]["before"], answer["diff"]["after"]) for answer in answers
    ]
