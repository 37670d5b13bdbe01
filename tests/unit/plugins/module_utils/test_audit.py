"""Whatever is changed in the audit, its verification finds it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils import _audit
from ansible_collections.bascule.deploy.plugins.module_utils._audit import (
    COLUMNS,
    MAIN,
    START,
    Broken,
    Head,
    Link,
    canonical_json,
    hash_of,
    seal,
    verify_chain,
)
from ansible_collections.bascule.deploy.plugins.module_utils._audit_file import (
    event_of,
    lines_of,
    link_of,
    verify_file,
)
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

FIRST, SECOND = "d-AAAAAAAAA", "d-BBBBBBBBB"
WHOLE = {"deployment": None, "since": None}


def made_chain(name: str, told: list[dict[str, Any]]) -> tuple[list[Link], Head]:
    head = Head(0, START)
    links = []
    for one in told:
        links.append(seal(one, name, head))
        head = Head(head.length + 1, links[-1]["hash"])
    return links, head


def told(action: str, deployment: str, at: float, **more: Any) -> dict[str, Any]:
    detail = canonical_json(more.pop("detail", {"status": "größer"}))
    return {
        "at": at, "actor": "ada", "origin": "ci-7", "action": action, "application": "shop",
        "deployment_group": "web", "deployment_id": deployment, "digest": "f" * 64,
        "plan_hash": "e" * 64, "why": "because 🜁", "detail": detail, **more,
    }  # fmt: skip


def audit() -> tuple[dict[str, list[Link]], dict[str, Head]]:
    """A small audit: ``main`` and the chains of two deployments, one of which has ended."""
    chains: dict[str, list[Link]] = {}
    heads: dict[str, Head] = {}
    for number, name in enumerate((FIRST, SECOND)):
        own = [told("Created", name, 10.0 + number)]
        own += [told("Admitted", name, 11.5 + step / 3, target=f"t{step}") for step in range(3)]
        chains[name], heads[name] = made_chain(name, own)
    end = {"chain": {"length": heads[FIRST].length, "hash": heads[FIRST].hash}}
    main = [
        told("RecordCreated", "", 1),
        told("DeploymentCreated", FIRST, 10.0),
        told("DeploymentCreated", SECOND, 11.0),
        told("DeploymentEnded", FIRST, 20.0, detail=end),
    ]
    chains[MAIN], heads[MAIN] = made_chain(MAIN, main)
    return {name: chains[name] for name in (MAIN, FIRST, SECOND)}, heads


CHAINS, HEADS = audit()
FILE = "".join(lines_of(CHAINS.items(), WHOLE)).encode()


def verify(chains: dict[str, list[Link]], heads: dict[str, Head]) -> Broken | None:
    """As the record does it."""
    pins: dict[str, dict[int, str]] = {}
    for name in [MAIN, *(one for one in {**chains, **heads} if one != MAIN)]:
        broken = verify_chain(name, chains.get(name, []), heads.get(name), pins=pins.get(name))
        if broken is not None:
            return broken
        if name == MAIN:
            pins = _audit.pins_of(chains[MAIN])
    return _audit.broken_set(pins, [name for name, links in chains.items() if links])


def test_what_nobody_touched_is_whole() -> None:
    assert verify(CHAINS, HEADS) is None
    broken, last = verify_file(FILE)
    assert broken is None
    assert [row[0] for row in last["heads"]] == list(CHAINS)
    assert last["lines"] == 12


def test_the_hash_is_that_of_the_documented_form() -> None:
    link = CHAINS[FIRST][0]
    written = (
        f'["{FIRST}",1,10.0,"ada","ci-7","Created","shop","web","{FIRST}","","{"f" * 64}",'
        f'"{"e" * 64}","because \\ud83d\\udf01","{{\\"status\\":\\"gr\\\\u00f6\\\\u00dfer\\"}}",""]'
    )
    import hashlib

    assert link["hash"] == hashlib.sha256(written.encode("ascii")).hexdigest()


PLACES = [(name, index) for name, links in CHAINS.items() for index in range(len(links))]


def flipped(value: Any, position: int, bit: int) -> Any:
    """Change one bit of a value as a database would hold it."""
    if isinstance(value, str):
        data = bytearray(value.encode() or b"\0")
        data[position % len(data)] ^= 1 << bit
        return data.decode("utf-8", "replace")
    return value + (position + 1) * (1 if isinstance(value, int) else 0.001)


@given(place=st.sampled_from(PLACES), column=st.sampled_from(COLUMNS), position=st.integers(0, 200),
       bit=st.integers(0, 6))  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_a_flipped_bit_in_any_column_is_found(
    place: tuple[str, int], column: str, position: int, bit: int
) -> None:
    name, index = place
    chains = copy.deepcopy(CHAINS)
    link = chains[name][index]
    link[column] = flipped(link[column], position, bit)
    broken = verify(chains, HEADS)
    assert broken is not None
    assert (broken.chain, broken.sequence) == (name, index + 1)
    assert broken.field in (column, None)


@pytest.mark.parametrize(("name", "index"), PLACES)
@pytest.mark.parametrize("column", ["hash", "previous_hash", "sequence", "chain", "deployment_id",
                                    "actor", "origin", "digest"])  # fmt: skip
def test_the_changed_field_is_named(name: str, index: int, column: str) -> None:
    chains = copy.deepcopy(CHAINS)
    value = chains[name][index][column]
    chains[name][index][column] = 77 if isinstance(value, int) else value + "x"
    broken = verify(chains, HEADS)
    assert broken is not None
    known = column != "hash" or "changed" in broken.text()
    assert (broken.sequence, known) == (index + 1, True)
    if not (column == "deployment_id" and name == MAIN):
        assert broken.field == column, broken.text()


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_lines_that_are_dropped_moved_or_doubled_are_found(data: st.DataObject) -> None:
    chains = copy.deepcopy(CHAINS)
    name = data.draw(st.sampled_from(list(chains)))
    links = chains[name]
    index = data.draw(st.integers(0, len(links) - 1))
    what = data.draw(st.sampled_from(["drop", "move", "double", "insert", "strange", "resealed"]))
    if what == "drop":
        del links[index]
    elif what == "move":
        other = data.draw(st.integers(0, len(links) - 1).filter(lambda one: one != index))
        links.insert(other, links.pop(index))
    elif what == "double":
        links.insert(index, dict(links[index]))
    elif what == "insert":
        head = Head(index, links[index]["previous_hash"])
        links.insert(index, seal(told("Forged", name, 12.0), name, head))
    elif what == "strange":
        links.append(dict(CHAINS[SECOND if name != SECOND else FIRST][index]))
    else:
        # Somebody who knows how links are sealed, but leaves what comes after.
        links[index]["why"] = "forged"
        links[index]["hash"] = hash_of(links[index])
    assert verify(chains, HEADS) is not None


@pytest.mark.parametrize("name", list(CHAINS))
@pytest.mark.parametrize("with_head", [True, False])
def test_a_chain_that_is_gone_as_a_whole_is_found(name: str, with_head: bool) -> None:
    chains, heads = copy.deepcopy(CHAINS), dict(HEADS)
    chains[name] = []
    if with_head:
        del heads[name]
    assert verify(chains, heads) is not None


def test_a_whole_chain_that_was_made_anew_is_found_by_main() -> None:
    chains, heads = copy.deepcopy(CHAINS), dict(HEADS)
    chains[FIRST], heads[FIRST] = made_chain(FIRST, [told("Created", FIRST, 10.0)] * 4)
    broken = verify(chains, heads)
    assert broken is not None
    assert "chain main says" in broken.text()
    chains[FIRST] = made_chain(FIRST, [told("Created", FIRST, 10.0)] * 2)[0]
    heads[FIRST] = Head(2, chains[FIRST][-1]["hash"])
    broken = verify(chains, heads)
    assert broken is not None
    assert (broken.chain, broken.sequence) == (FIRST, 3)


def test_a_chain_that_nobody_has_begun_is_found() -> None:
    chains, heads = copy.deepcopy(CHAINS), dict(HEADS)
    chains["d-CCCCCCCCC"], heads["d-CCCCCCCCC"] = made_chain(
        "d-CCCCCCCCC", [told("Created", "", 1)]
    )
    broken = verify(chains, heads)
    assert broken is not None
    assert broken.chain == "d-CCCCCCCCC"


@pytest.mark.parametrize("head", [Head(3, "x"), Head(5, "x"), Head(4, "0" * 64), None])
def test_an_end_that_was_changed_is_found(head: Head | None) -> None:
    assert verify_chain(FIRST, CHAINS[FIRST], head) is not None


# The file


@given(position=st.integers(0, len(FILE) - 1), bit=st.integers(0, 7))
@settings(max_examples=600, deadline=None)
def test_a_flipped_bit_anywhere_in_the_file_is_found(position: int, bit: int) -> None:
    data = bytearray(FILE)
    data[position] ^= 1 << bit
    assert verify_file(bytes(data))[0] is not None


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_lines_of_the_file_that_are_dropped_moved_or_doubled_are_found(data: st.DataObject) -> None:
    lines = FILE.splitlines(keepends=True)
    index = data.draw(st.integers(0, len(lines) - 1))
    what = data.draw(st.sampled_from(["drop", "move", "double", "cut"]))
    if what == "drop":
        del lines[index]
    elif what == "double":
        lines.insert(data.draw(st.integers(0, len(lines))), lines[index])
    elif what == "cut":
        lines[-1] = lines[-1][: -data.draw(st.integers(1, len(lines[-1])))]
    else:
        other = data.draw(st.integers(0, len(lines) - 1).filter(lambda one: one != index))
        lines.insert(other, lines.pop(index))
    assert verify_file(b"".join(lines))[0] is not None


def test_a_changed_line_is_named_by_its_link() -> None:
    broken = verify_file(FILE.replace(b'"target":"t1"', b'"target":"t9"', 1))[0]
    assert broken is not None
    assert (broken.chain, broken.sequence, broken.field) == (FIRST, 3, None)
    lines = FILE.splitlines(keepends=True)
    broken = verify_file(b"".join(lines[:5] + lines[6:]))[0]
    assert broken is not None
    assert (broken.chain, broken.sequence) == (FIRST, 2)


def test_a_part_of_the_audit_is_whole_for_itself() -> None:
    later = [(name, links[2:]) for name, links in CHAINS.items()]
    part = "".join(lines_of(later, {"deployment": None, "since": 11.5})).encode()
    assert verify_file(part)[0] is None
    one = "".join(lines_of([(SECOND, CHAINS[SECOND])], {"deployment": SECOND, "since": None}))
    assert verify_file(one.encode())[0] is None
    lines = one.encode().splitlines(keepends=True)
    assert verify_file(b"".join([*lines[:2], *lines[3:]]))[0] is not None


def test_a_line_has_the_shape_of_cloudtrail() -> None:
    event = event_of(CHAINS[FIRST][1])
    assert event["eventTime"] == "1970-01-01T00:00:11Z"
    assert event["eventName"] == "Admitted"
    assert event["userIdentity"]["userName"] == "ada"
    assert event["sourceIPAddress"] == "ci-7"
    assert event["requestParameters"]["deploymentId"] == FIRST
    assert event["responseElements"] == {"status": "größer"}
    assert event["additionalEventData"]["sequence"] == 2
    for name in ("eventVersion", "eventSource", "requestID", "eventID", "eventType"):
        assert event[name]
    assert link_of(json.loads(json.dumps(event))) == CHAINS[FIRST][1]


@pytest.mark.parametrize("detail", ["", "[1]", '{"b":1,"a":2}', "{", '"x"', '{"a":1}', "12", "ü"])
def test_a_link_comes_back_from_its_line_whatever_its_detail(detail: str) -> None:
    link = seal({**told("Created", FIRST, 5), "detail": detail}, FIRST, Head(0, START))
    assert link_of(json.loads(json.dumps(event_of(link)))) == link


@pytest.mark.parametrize("content", [b"", b"hello\n", b'{"a": 1}\n'])
def test_what_is_no_export_is_refused_in_words(content: bytes) -> None:
    with pytest.raises(UsageError, match="bascule audit export"):
        verify_file(content)
