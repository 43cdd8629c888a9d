import contextlib
import json
import math
import threading
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tollgate.core.strict_json import (
    MOST_CONTAINERS,
    MOST_DIGITS,
    MOST_ESCAPES,
    MOST_MEMBERS,
    MOST_NAMES,
    MOST_NESTED,
    MOST_VALUES,
    SLICE_BYTES,
    NotJson,
    TooComplex,
    edit,
    edit_items,
    edit_text,
    from_client,
    from_upstream,
    printable,
    unless_set,
)

BOTH = pytest.mark.parametrize("read", [from_client, from_upstream])
BLANK = st.text(" \t\r\n", max_size=3)

whole_characters = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.sampled_from(["model", "max_tokens", "n", "", 'a"b', "mo\\del", "é", "😀", "}{", ","]) | whole_characters
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | whole_characters,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(names, values, max_size=6)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """An object as some encoder may write it: escaped or not, with blanks wherever JSON allows them."""
    escaped = draw(st.booleans())
    members = [
        f"{draw(BLANK)}{json.dumps(name, ensure_ascii=escaped)}{draw(BLANK)}:{draw(BLANK)}"
        f"{json.dumps(value, ensure_ascii=escaped, indent=draw(st.sampled_from([None, 1])))}{draw(BLANK)}"
        for name, value in draw(objects).items()
    ]
    return f"{draw(BLANK)}{{{draw(BLANK)}{','.join(members)}}}{draw(BLANK)}".encode()


def nested(levels: int) -> bytes:
    """An object at the top, and lists in it."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def refusal(read: Any, body: bytes) -> str:
    with pytest.raises(NotJson) as refused:
        read(body)
    sentence = str(refused.value)
    assert sentence.endswith(".")
    assert sentence.isprintable()
    return sentence


@given(objects, st.booleans())
def test_what_python_writes_is_read_as_it_was(given: dict[str, Any], escaped: bool) -> None:
    body = json.dumps(given, ensure_ascii=escaped).encode()
    assert from_client(body) == from_upstream(body) == given


@BOTH
@given(body=st.binary(max_size=60) | st.text('{}[]":,\\u d8e01-.NaInfity', max_size=60).map(str.encode))
def test_whatever_comes_it_is_read_or_refused(read: Any, body: bytes) -> None:
    with contextlib.suppress(NotJson):
        assert isinstance(read(body), dict)


@BOTH
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"[]", "not an object"),
        (b'"model"', "not an object"),
        (b"7", "not an object"),
        (b"null", "not an object"),
        (b"{", "not valid JSON"),
        (b'{"a":1,}', "not valid JSON"),
        (b"{'a':1}", "not valid JSON"),
        (b'{"a":1}x', "line 1, column 8"),
        (b'{"a":01}', "not valid JSON"),
        (b'{"a":"\n"}', "not valid JSON"),
        (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
        (b'{"a":"\xff"}', "not valid UTF-8 at byte 6"),
        (b'{"a":"\xed\xa0\x80"}', "not valid UTF-8"),
        (b'{"a":"\xc0\xaf"}', "not valid UTF-8"),
        ('{"a":1}'.encode("utf-16"), "not valid UTF-8"),
        ('{"a":1}'.encode("utf-16-le"), "not valid JSON"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":[Infinity]}', "Infinity"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b'{"a":1e400}', "number"),
        (b'{"a":-1E+400}', "number"),
        (b'{"a":1e-999999}', "number"),
        (b'{"a":1e99999999999999999999999}', "number"),
        (b'{"a":%s}' % (b"9" * 301), "number"),
        (b'{"a":%s}' % (b"9" * 100_000), "number"),
        (b'{"a":0.%s}' % (b"1" * 301), "number"),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused_with_a_reason(read: Any, body: bytes, why: str) -> None:
    assert why in refusal(read, body)


@BOTH
def test_a_document_nests_a_hundred_levels_and_no_more(read: Any) -> None:
    assert set(read(nested(MOST_NESTED))) == {"a"}
    assert "nested" in refusal(read, nested(MOST_NESTED + 1))
    objects_in_lists = b'{"a":[' * 50 + b"0" + b"]}" * 50
    assert set(read(objects_in_lists)) == {"a"}
    assert "nested" in refusal(read, b'{"a":[' * 50 + b"[]" + b"]}" * 50)


DEEP = [
    nested(500_000),
    b"[" * 1_000_000,
    b'{"a":' * 1_000_000,
    b'{"\\\\":"\\"","b":' + b"[" * 1_000_000,
    b"{" * 101,
    b'[{"":' * 51,
]


@BOTH
@pytest.mark.parametrize("body", DEEP, ids=range(len(DEEP)))
def test_what_is_deep_is_never_given_to_the_parser(read: Any, body: bytes) -> None:
    """On so small a stack the parser would end the process, with whatever it is holding."""
    refused = []
    usual = threading.stack_size(256 * 1024)
    thread = threading.Thread(target=lambda: refused.append(refusal(read, body)))
    thread.start()
    thread.join()
    threading.stack_size(usual)
    assert "nested" in refused[0]


@BOTH
def test_much_that_is_broken_is_refused(read: Any) -> None:
    """Each of these is two megabytes; work that grew with its square would not end."""
    for body in (b"[]" * 1_000_000, (b"[" * 100 + b"]" * 100) * 10_000, b"]" * 2_000_000, b'\\"' * 1_000_000):
        assert refusal(read, body)


@BOTH
@given(
    st.lists(st.sampled_from(['"', "\\", "[", "]", "{", "}", ":", ","]), max_size=30).map("".join), st.integers(0, 3)
)
def test_no_string_hides_a_depth(read: Any, text: str, backslashes: int) -> None:
    hidden = json.dumps({text: [text + "\\" * backslashes]})[:-2]
    assert read(f"{hidden},{'[' * 98}{']' * 98}]}}".encode())
    assert "nested" in refusal(read, f"{hidden},{'[' * 99}{']' * 99}]}}".encode())


@BOTH
def test_many_brackets_side_by_side_or_in_a_string_are_not_deep(read: Any) -> None:
    assert len(read(b'{"a":[' + b",".join([b'{"b":[]}'] * 5000) + b"]}")["a"]) == 5000
    assert read(b'{"a":"%s"}' % (b"[{" * 5000)) == {"a": "[{" * 5000}


def listed(value: bytes, times: int) -> bytes:
    return b'{"a":[' + b",".join([value] * times) + b"]}"


MOST = {
    "values": (lambda times: listed(b"1", times), MOST_VALUES - 1),
    "lists and objects": (lambda times: listed(b"[]", times), MOST_CONTAINERS - 2),
    "names": (lambda times: b'{"a":{' + b",".join(b'"%d":1' % n for n in range(times)) + b"}}", MOST_NAMES - 1),
    "escapes": (lambda times: b'{"a":"%s"}' % (rb"\n" * times), MOST_ESCAPES),
    "members": (lambda times: b"{" + b",".join(b'"%d":1' % n for n in range(times)) + b"}", MOST_MEMBERS),
}


@pytest.mark.parametrize("kind", MOST)
def test_a_client_may_send_so_many_of_a_kind_and_no_more(kind: str) -> None:
    """Few bytes can be much work: two megabytes of [] once took seconds."""
    made, most = MOST[kind]
    assert from_client(made(most))
    with pytest.raises(TooComplex) as refused:
        from_client(made(most + 1))
    assert refused.value.kind == kind
    assert f" {refused.value.most} {kind}" in str(refused.value)


def test_what_an_upstream_answers_may_have_more_values_than_what_a_client_asks() -> None:
    """2,048 embeddings have three million numbers."""
    assert len(from_upstream(listed(b"1", MOST_VALUES + 1))["a"]) == MOST_VALUES + 1


def test_a_large_text_is_one_value_whatever_stands_in_it() -> None:
    text = "[{,:" * MOST_VALUES
    assert from_client(json.dumps({"a": text}).encode()) == {"a": text}


@pytest.mark.parametrize("tricky", [b'"', b'\\"', b"\\\\", b'\\\\",["', b'",{"b":"', b'"],["\\\\'])
def test_where_a_slice_ends_makes_no_difference(tricky: bytes) -> None:
    """A border falls before, into and behind it, between text that looks like structure and structure."""
    for place in range(-len(tricky) - 2, 3):
        start = b'{"a":[[["'
        text = b"[" * (SLICE_BYTES + place - len(start))
        body = start + text + tricky
        for end in (b'"', b'x"', b""):
            deep = body + end + b"," + b"[" * MOST_NESTED
            try:
                json.loads(body + end + b"]]]}")
            except ValueError:
                continue
            assert from_client(body + end + b"]]]}")
            assert "nested" in refusal(from_client, deep)


@BOTH
def test_numbers_are_read_exactly_as_they_were_written(read: Any) -> None:
    read_numbers = read(b'{"cost":0.000012345678901234567890,"sum":0.1,"e":1.5e-7,"many":12345678901234567890123}')
    assert read_numbers == {
        "cost": Decimal("0.000012345678901234567890"),
        "sum": Decimal("0.1"),
        "e": Decimal("1.5e-7"),
        "many": 12345678901234567890123,
    }
    assert read(b'{"n":%s}' % (b"9" * MOST_DIGITS))["n"] == 10**MOST_DIGITS - 1
    assert all(math.isfinite(number) for number in read(b'{"a":-0,"b":-0.0,"c":0e0,"d":1e300}').values())


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","x":1,"m\\u006fdel":"a"}',
        b'{"x":[{"y":{"model":"a","model":"a"}}]}',
    ],
)
def test_a_client_that_names_a_member_twice_is_told_which(body: bytes) -> None:
    assert '"model"' in refusal(from_client, body)
    assert from_upstream(body)


def test_a_name_that_stands_twice_is_shown_without_harm() -> None:
    sentence = refusal(from_client, b'{"%(a)s":1,"%(a)s":2}' % {b"a": b"\\u001b[31m\\u202e" + b"x" * 1000})
    assert len(sentence) < 200


def test_many_names_do_not_take_a_time_that_grows_with_their_square() -> None:
    members = ",".join(f'"{number}":0' for number in range(MOST_NAMES - 1))
    assert '"7"' in refusal(from_client, f'{{{members},"7":1}}'.encode())


HALVES = [
    rb"\ud83d",
    rb"\uDE00",
    rb"\ud83d\ud83d\ude00",
    rb"\ude00\ud83d",
    rb"\\\ud800",
    rb"\ud83dx\ude00",
    rb"\uD83D\n",
]
WHOLES = [
    rb"\ud83d\ude00",
    rb"\uD83D\uDE00",
    rb"\\ud83d",
    rb"\\\\ud800",
    rb"\ud7ff\ue000",
    rb"\u0000",
    rb"\\\ud83d\ude00",
]


@pytest.mark.parametrize("half", HALVES)
def test_half_of_a_surrogate_pair_is_refused_from_a_client_and_replaced_from_an_upstream(half: bytes) -> None:
    for body in (b'{"a":["%s"]}' % half, b'{"%s":1}' % half):
        assert "surrogate" in refusal(from_client, body)
        assert "\ufffd" in json.dumps(from_upstream(body), ensure_ascii=False).encode().decode()


@pytest.mark.parametrize("whole", WHOLES)
def test_what_only_looks_like_half_of_a_pair_is_read(whole: bytes) -> None:
    body = b'{"a":"%s"}' % whole
    assert from_client(body) == from_upstream(body) == json.loads(body)


@BOTH
@given(
    parts=st.lists(st.sampled_from(["\\", "u", "d8", "00", "de", '\\"', "\\u", "\\ud83d", "\\ude00", "x"]), max_size=12)
)
def test_whatever_is_read_can_be_encoded_again(read: Any, parts: list[str]) -> None:
    with contextlib.suppress(NotJson):
        assert json.dumps(read(f'{{"a":"{"".join(parts)}"}}'.encode()), ensure_ascii=False).encode()


@given(body=written(), name=names, value=values)
@example(body=b"{}", name="n", value=1)
@example(body=b" { \n } ", name="n", value=None)
@example(body=b'{"a":{"n":2},"n" : [1] ,"b":"n"}', name="n", value={"n": 3})
@example(body=b'{"m\\u006fdel":"a"}', name="model", value="b")
def test_an_edit_sets_one_member_and_changes_no_other_byte(body: bytes, name: str, value: Any) -> None:
    new = json.dumps(value)
    result = edit(body, {name: new})
    assert from_client(result) == {**from_client(body), name: value}
    old: list[str | None] = []
    edit(body, {name: lambda written: old.append(written) or "0"})
    if old != [None]:
        assert edit(result, {name: old[0]}) == body
    else:
        added = json.dumps(name).encode() + b":" + new.encode() + b"," * (from_client(body) != {})
        assert result.count(added) >= 1
        assert result.replace(added, b"", 1) == body


@given(body=written(), edits=st.dictionaries(names, st.none() | values.map(json.dumps) | st.just(len), max_size=4))
def test_many_edits_at_once_are_the_same_as_one_after_the_other(body: bytes, edits: dict[str, Any]) -> None:
    """`len` stands for a change of what is there already."""
    changes = {name: (lambda written: written and f"[{written}]") if new is len else new for name, new in edits.items()}
    one_by_one = body
    for name in reversed(changes):  # each new member comes first
        one_by_one = edit(one_by_one, {name: changes[name]})
    assert from_client(edit(body, changes)) == from_client(one_by_one)
    assert edit(body, {}) == body


@given(body=written(), name=names)
def test_a_change_gets_the_member_as_it_was_written(body: bytes, name: str) -> None:
    read = from_client(body)
    seen: list[str | None] = []
    edit(body, {name: lambda written: seen.append(written)})  # type: ignore[func-returns-value]
    (found,) = seen
    assert (found is None) == (name not in read)
    assert found is None or (json.loads(found) == read[name] and found in body.decode())


@pytest.mark.parametrize(
    ("listed", "changed"),
    [
        ("[]", "[]"),
        ('[{"x":[1]}]', '[<{"x":[1]}>]'),
        (' [ 1.50 , "]" ,\n[2] ] ', ' [ <1.50> , <"]"> ,\n<[2]> ] '),
    ],
)
def test_each_item_of_a_list_is_changed_and_no_other_character(listed: str, changed: str) -> None:
    assert edit_items(listed, lambda item: f"<{item}>") == changed


@pytest.mark.parametrize(
    ("written", "expected"), [("{}", '{"a":1}'), ('{"a": null}', '{"a": 1}'), ('{"a": 2}', '{"a": 2}')]
)
def test_a_member_is_set_unless_it_is_set_already(written: str, expected: str) -> None:
    assert edit_text(written, {"a": unless_set("1")}) == expected


@given(st.text(), st.integers(0, 20))
def test_printable_is_printable(text: str, most: int) -> None:
    shown = printable(text, most)
    assert shown.isprintable()
    assert len(shown) == min(most, len(text))
    assert shown.encode().decode() == shown
    assert shown == text[:most] or not text[:most].isprintable()


@given(written(), names)
def test_what_is_taken_out_is_gone_and_nothing_else_is(body: bytes, name: str) -> None:
    left = edit(body, {name: None})
    expected = from_client(body)
    expected.pop(name, None)
    assert from_client(left) == expected
    assert list(from_client(left)) == list(expected)
    assert name in from_client(body) or left == body


@given(st.lists(st.tuples(st.sampled_from(["a", "usage", "b"]), st.integers(0, 9)), max_size=6))
def test_it_is_gone_however_often_it_stands_there(members: list[tuple[str, int]]) -> None:
    body = ", ".join(f'"{name}": {value}' for name, value in members)
    left = ", ".join(f'"{name}": {value}' for name, value in members if name != "usage")
    assert edit(b"{%s}" % body.encode(), {"usage": None}) == b"{%s}" % left.encode()


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b'{"usage":{"a":[1,2]}}', b"{}"),
        (b' { "usage" : null } ', b" {  } "),
        (b'{"a":1,"usage":2}', b'{"a":1}'),
        (b'{"usage":2 , "a":1.50e0}', b'{"a":1.50e0}'),
        (b'{"a":{"usage":1},"usage":{},"b":"\\"usage\\":"}', b'{"a":{"usage":1},"b":"\\"usage\\":"}'),
        (b'{"\\u0075sage":1,"a":2}', b'{"a":2}'),
        (b"{}", b"{}"),
    ],
)
def test_only_a_member_at_the_top_is_taken_out(body: bytes, left: bytes) -> None:
    assert edit(body, {"usage": None}) == left


def test_what_stands_there_a_hundred_thousand_times_is_taken_out() -> None:
    """Work that grew with its square would not end."""
    assert edit(b"{%s}" % b",".join([b'"usage":1'] * 100_000), {"usage": None}) == b"{}"
    assert edit(b'{"a":1,%s}' % b",".join([b'"usage":1'] * 100_000), {"usage": None}) == b'{"a":1}'
