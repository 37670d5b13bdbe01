"""YAML as Psych reads it, with places; hostile input ends in an AppSpecError."""

from __future__ import annotations

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._appspec_yaml import (
    MAX_BYTES,
    load,
    ruby_text,
    scalar,
)
from ansible_collections.bascule.deploy.plugins.module_utils._errors import AppSpecError
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("NULL", None),
        ("yes", True),
        ("On", True),
        ("no", False),
        ("y", "y"),
        ("n", "n"),
        ("0644", 420),
        ("089", "089"),
        ("0o17", "0o17"),
        ("0b101", 5),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1,000", 1000),
        ("1:30", 5400),
        ("1:01:01", 3661),
        ("1:01:01.5", 3661.5),
        ("1:3.5", 3810.0),
        ("0X1F", "0X1F"),
        ("0B1", "0B1"),
        ("1__0", "1__0"),
        ("1,0,", "1,0,"),
        (".0", 0.0),
        ("1.", 1.0),
        ("1.5", 1.5),
        ("1.5e+3", 1500.0),
        ("0e0", "0e0"),
        ("0.0e0", "0.0e0"),
        (".", "."),
        ("-", "-"),
        ("+", "+"),
        ("-5", -5),
        (".inf", float("inf")),
        ("2024-01-31", "2024-01-31"),
        ("2024-01-31 10:00:00", "2024-01-31 10:00:00"),
        (":", ":"),
        ("=", "="),
        ("0.0.0", "0.0.0"),
        ("a b", "a b"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_scalars(text: str, value: object) -> None:
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<<: [{a: 1}, {a: 2, b: 2}]", {"a": 1, "b": 2}),
        ("a: 0\n<<: {a: 1}", {"a": 1}),
        ("<<: {a: 1}\na: 0", {"a": 0}),
        ("'<<': {a: 1}", {"a": 1}),
        ("!!str <<: {a: 1}", {"<<": {"a": 1}}),
        ("<<: 5", {"<<": 5}),
        ("<<: [{a: 1}, 5]", {"<<": [{"a": 1}, 5]}),
        ("<<: []", {}),
        ("x: &x [{a: 1}]\n<<: *x", {"x": [{"a": 1}], "<<": [{"a": 1}]}),
        ("a: ! 0.0", {"a": 0.0}),
        ("a: ! '5'", {"a": 5}),
        ("a: !!int '5'", {"a": 5}),
        ("a: !str 5", {"a": "5"}),
        ("a: !binary bGludXg=", {"a": "linux"}),
        ("a: !!binary x", {"a": ""}),
        (":a: 1\na: 2", {":a": 1, "a": 2}),
    ],
)
def test_merge_keys_and_tags(text: str, value: object) -> None:
    assert load(text).data() == value


@pytest.mark.parametrize(
    ("text", "shown"), [(":sym", "sym"), (":'a b'", "a b"), ("::x", ":x"), (":1", "1")]
)
def test_a_symbol_has_a_text_but_equals_none(text: str, shown: str) -> None:
    node = load(f"a: {text}").value["a"]
    assert node.text() == shown
    assert node.value != shown
    quoted = shown if shown == "sym" else f'"{shown}"'
    assert load(f"a:\n- {text}").value["a"].text() == f"[:{quoted}]"


def test_the_last_of_two_keys_wins_and_both_are_remembered() -> None:
    node = load("a: 1\nb: 2\na: 3")
    assert node.data() == {"a": 3, "b": 2}
    assert node.duplicates == [("a", 3, 1)]


def test_aliases_and_merge_keys_are_read() -> None:
    node = load("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\nz: [*x]")
    assert node.data()["y"] == {"a": 1, "b": 3}
    assert node.data()["z"] == [{"a": 1, "b": 2}]


def test_only_the_first_document_is_read() -> None:
    assert load("a: 1\n---\nb: [").data() == {"a": 1}


def test_quotes_and_tags_make_text() -> None:
    node = load("a: '0644'\nb: !!str 0644\nc: 0644\nd: |\n  yes\n")
    assert node.data() == {"a": "0644", "b": "0644", "c": 420, "d": "yes\n"}
    assert [node.value[key].plain for key in "abc"] == [False, False, True]


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "\ta: 1",
        "a: *nowhere",
        "a: &x [*x]",
        "a: 'x",
        "[" * 2000,
        "a: {" * 500,
        "\x00",
        b"\xff\xfe\x00",
        b"\xc3\x28",
        "- " * 500 + "x",
        "a: b: c",
        "x" * (MAX_BYTES + 1),
    ],
)
def test_bad_input_ends_in_one_kind_of_error(text: str | bytes) -> None:
    with pytest.raises(AppSpecError):
        load(text)


def test_aliases_cannot_blow_up() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(AppSpecError, match="more than"):
        load("\n".join(lines))


def test_a_long_text_that_aliases_repeat_counts_by_its_length() -> None:
    text = f"a: &a {'x' * 500_000}\nb: [{', '.join(['*a'] * 50)}]"
    with pytest.raises(AppSpecError, match="more than"):
        load(text)


def test_names_within_names_do_not_double() -> None:
    assert list(load("? {{a: 1}: 2}\n: 3").value) == ['{{"a"=>1}=>2}']
    (name,) = load("{" * 40 + "a" + "}" * 40 + ": x").value
    assert len(name) < 500


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "true"), (1.0, "1.0"), (["a", None, 1], '["a", nil, 1]'), ("x", "x")],
)
def test_texts_are_rubys(value: object, text: str) -> None:
    assert ruby_text(value) == text


@given(
    st.text(alphabet=st.sampled_from(list("ab:-[]{}&*!|>'\"%@#,?<= \n\t0.~\\é\u2028")), max_size=60)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        load(text).data()
    except AppSpecError:
        return


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        load(data).data()
    except AppSpecError:
        return
