from email import message_from_bytes
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core import multipart
from tollgate.core.errors import BadRequest
from tollgate.core.multipart import MOST_HEAD_BYTES, MOST_PARTS, MOST_PREAMBLE_BYTES, Part, Parts, boundary_of, written

FORM = (
    b"--b\r\n"
    b'Content-Disposition: form-data; name="model"\r\n\r\n'
    b"whisper\r\n"
    b"--b\r\n"
    b'content-disposition: form-data; name="file"; filename="speech.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\n"
    b"RIFF\r\n--\r\n-\x00\xff--b\r\r\n\r\n"
    b"--b--\r\nan epilogue"
)
SPEECH = Part("file", "speech.wav", "audio/wav")


def split(body: bytes, sizes: list[int] | None = None) -> list[tuple[Part, bytes]]:
    parts = Parts(b"b")
    found: list[tuple[Part, bytes]] = []
    place = 0
    for size in [*(sizes or []), len(body)]:
        for one in parts.feed(body[place : place + size]):
            if isinstance(one, Part):
                found.append((one, b""))
            else:
                found[-1] = (found[-1][0], found[-1][1] + one)
        place += size
    parts.finish()
    return found


@given(st.lists(st.integers(1, 40), max_size=len(FORM)))
def test_a_form_is_split_alike_wherever_it_is_cut(sizes: list[int]) -> None:
    assert split(FORM, sizes) == [(Part("model"), b"whisper"), (SPEECH, b"RIFF\r\n--\r\n-\x00\xff--b\r\r\n")]


@given(st.binary(max_size=200), st.binary(max_size=50), st.lists(st.integers(1, 99), max_size=20))
def test_what_is_written_is_read_again_here_and_by_another_reader(sound: bytes, value: bytes, sizes: list[int]) -> None:
    before, after = written([("prompt", value)], Part("file", 'a "b".wav', "audio/wav"), "b" * 32)
    parts, content = Parts(b"b" * 32), b""
    for one in parts.feed(before + sound + after):
        content += one if isinstance(one, bytes) else b"|"
    parts.finish()
    assert content == b"|" + value + b"|" + sound
    form = message_from_bytes(
        b'Content-Type: multipart/form-data; boundary="' + b"b" * 32 + b'"\r\n\r\n' + before + b"x" + after
    )
    prompt, file = form.get_payload()
    assert isinstance(prompt, type(form))
    assert (prompt.get_param("name", header="content-disposition"), file.get_filename()) == ("prompt", "a %22b%22.wav")


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"name=file; filename=a.mp3", Part("file", "a.mp3")),
        (b'name="file"; filename="C:\\\\x\\\\a.mp3"', Part("file", "a.mp3")),
        (b'name="file"; filename="../../a b.mp3"', Part("file", "a b.mp3")),
        (b'name="file"; filename="a\\"b.mp3"', Part("file", 'a"b.mp3')),
        ('name="file"; filename="Grüße.mp3"'.encode(), Part("file", "Grüße.mp3")),
        (b"name=\"file\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe.mp3", Part("file", "Grüße.mp3")),
        (b'name="file"; filename="' + b"x" * 400 + b'.mp3"', Part("file", "x" * 251 + ".mp3")),
        (b'name="file"; filename=""', Part("file", "")),
    ],
)
def test_a_file_is_named_as_clients_name_it(head: bytes, part: Part) -> None:
    assert split(b"--b\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n\r\n--b--") == [(part, b"")]


def one(head: bytes, content: bytes = b"x") -> bytes:
    return b"--b\r\n" + head + b"\r\n\r\n" + content + b"\r\n--b--"


NAMED = b'Content-Disposition: form-data; name="a"'


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "ends before"),
        (b'{"model": "x"}', "ends before"),
        (FORM[:-20], "ends before"),
        (b"--b\r\n", "ends before"),
        (b"--b\r\n" + NAMED, "ends before"),
        (b"--b\r\n" + b"x" * (MOST_HEAD_BYTES + 100), "longer than"),
        (b"x" * (MOST_PREAMBLE_BYTES + 100), "does not come"),
        (b"--bc\r\n" + NAMED + b"\r\n\r\n", "goes on"),
        (one(b""), "no name"),
        (one(b"Content-Type: text/plain"), "no name"),
        (one(b'Content-Disposition: attachment; name="a"'), "no name"),
        (one(b"Content-Disposition: form-data"), "no name"),
        (one(b'Content-Disposition: form-data; name="a"; name="b"'), "no name"),
        (one(b'Content-Disposition: form-data; name="a'), "no name"),
        (one(b'Content-Disposition: form-data; name=""'), "a name is"),
        (one(b'Content-Disposition: form-data; name="' + b"a" * 300 + b'"'), "a name is"),
        (one(NAMED + b"\r\n" + NAMED), "cannot be read"),
        (one(NAMED + b"\r\n folded"), "cannot be read"),
        (one(NAMED + b"\r\nx: \x01"), "cannot be read"),
        (one(NAMED + b"\xff"), "not UTF-8"),
        (one(NAMED + b"\r\nx: " + b"y" * MOST_HEAD_BYTES), "longer than"),
        (one(NAMED + b"\r\nContent-Type: multipart/mixed; boundary=c"), "a form in the form"),
        (one(NAMED + b"\r\nContent-Transfer-Encoding: base64"), "Content-Transfer-Encoding"),
        (b"".join([b"--b\r\n" + NAMED + b"\r\n\r\n\r\n"] * (MOST_PARTS + 1)), "more than 64 parts"),
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
def test_a_hostile_form_is_refused(body: bytes, told: str, size: int) -> None:
    with pytest.raises(BadRequest, match=told):
        split(body, [size] * (len(body) // size))


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=b", b"b"),
        ('Multipart/Form-Data; charset=utf-8; boundary="b c"', b"b c"),
        ("application/json", None),
        ("", None),
        ("multipart/form-data", BadRequest),
        ("multipart/form-data; boundary=", BadRequest),
        ("multipart/form-data; boundary=" + "b" * 71, BadRequest),
        ('multipart/form-data; boundary="b\\"c"', BadRequest),
        ("multipart/form-data; boundary=b; boundary=c", BadRequest),
    ],
)
def test_the_boundary_is_in_the_content_type(content_type: str, boundary: Any) -> None:
    if boundary is BadRequest:
        with pytest.raises(BadRequest, match="with its boundary"):
            boundary_of(content_type)
    else:
        assert multipart.boundary_of(content_type) == boundary
