from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core import sound_requests
from tollgate.core.errors import BadRequest
from tollgate.core.multipart import Part
from tollgate.core.sound_lengths import Length
from tollgate.core.sound_requests import Given, of_form, of_json, read, sound_in

LENGTH = Length(100, 20)


def test_a_form_and_json_say_the_same() -> None:
    form = of_form(
        [
            ("model", b"a/ear"),
            ("prompt", "Åse".encode()),
            ("temperature", b"0.5"),
            ("stream", b"True"),
            ("timestamp_granularities[]", b"word"),
            ("timestamp_granularities[]", b"segment"),
        ]
    )
    document = {
        "model": "a/ear",
        "prompt": "Åse",
        "temperature": Decimal("0.5"),
        "stream": True,
        "timestamp_granularities": ["word", "segment"],
    }
    asked = of_json({**document, "input_audio": {}, "provider": {}, "language": None})
    assert form.fields == asked.fields
    assert form.fields[3] == ("stream", b"true")
    assert form.values == {**document, "temperature": "0.5"}


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        ("x", [b"x"]),
        (7, [b"7"]),
        (Decimal("1e-7"), [b"1E-7"]),
        (False, [b"false"]),
        (None, []),
        ({"type": "server_vad", "threshold": Decimal("0.5")}, [b'{"type": "server_vad", "threshold": 0.5}']),
        ([{"a": 1}], [b'[{"a": 1}]']),
    ],
)
def test_any_json_has_a_place_in_a_form(value: Any, fields: list[bytes]) -> None:
    assert [content for _, content in of_json({"x": value}).fields] == fields


@pytest.mark.parametrize(
    "name", ['a"b', "a\r\nb", "a b", "", "é", "[]", "a[", "a[b", "]a"], ids=lambda name: repr(name)
)
def test_a_name_that_a_form_cannot_carry_is_refused(name: str) -> None:
    for asked in (lambda: of_form([(name, b"x")]), lambda: of_json({name: "x"})):
        with pytest.raises(BadRequest, match="The name of a field"):
            asked()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("stream", b"maybe", "stream: send true or false"),
        ("stream_include_usage", b"yes", "send true or false"),
        ("models", b"a", "models: this endpoint"),
        ("models[]", b"a", "models: this endpoint"),
    ],
)
def test_what_would_be_read_in_two_ways_is_refused(name: str, content: bytes, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        of_form([("model", b"a"), (name, content)])
    with pytest.raises(BadRequest, match=f"{name.removesuffix('[]')}: "):
        of_form([("model", b"a"), (name, content), (name.removesuffix("[]"), content)])


@pytest.mark.parametrize(("kind", "as_text"), [(None, False), ("json", False), ("srt", True), ("text", True)])
def test_the_most_is_held_and_the_likely_length_is_known(kind: str | None, as_text: bool) -> None:
    ask = read(Given({"model": "a/ear", "response_format": kind, "stream": True}, ()), LENGTH, "transcriptions")
    assert ask.units is not None
    assert (ask.units.seconds, ask.units.likely_seconds) == (100, 20)
    assert (ask.model, ask.stream, ask.as_text, ask.bound, ask.choices) == ("a/ear", True, as_text, 0, 1)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,12}", fullmatch=True),
        st.one_of(st.booleans(), st.integers(), st.text(st.characters(codec="utf-8"))),
        max_size=5,
    )
)
def test_limits_never_count_less_than_nothing(values: dict[str, Any]) -> None:
    try:
        ask = read(of_json({**values, "model": "a/ear"}), LENGTH, "translations")
    except BadRequest:
        return
    assert 0 <= ask.prompt.not_sent <= ask.prompt.tokens


def test_the_sound_in_json_becomes_a_file() -> None:
    assert sound_in({"input_audio": {"data": "UklG", "format": "MP3"}}) == (Part("file", "sound.mp3"), b"RIF")
    assert sound_requests.FILE == "file"
