import struct
from fractions import Fraction
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core import mp3
from tollgate.core.mp3 import Frames
from tollgate.core.sound_lengths import END_BYTES, LEAST_SECONDS, MOST_SECONDS, RATES, Length, length


def of(data: bytes, size: int | None = None) -> Length:
    """`size` is that of a file which is longer than its two ends."""
    return length(data[:END_BYTES], data[-END_BYTES:], len(data) if size is None else size)


def wav(code: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16, **changed: int) -> bytes:
    block = changed.get("block", channels * bits // 8)
    head = struct.pack("<HHIIHH", code, channels, rate, changed.get("byte_rate", rate * block), block, bits)
    extra = struct.pack("<HHIH14x", 22, bits, 0, changed["inner"]) if "inner" in changed else b""
    chunk = b"fmt " + struct.pack("<I", len(head + extra)) + head + extra
    return b"RIFF\xff\xff\xff\xffWAVE" + b"LIST\x03\x00\x00\x00abc\x00" + chunk + b"data\xff\xff\xff\xff"


@pytest.mark.parametrize(
    ("head", "bytes_per_second"),
    [
        (wav(), 32_000),
        (wav(channels=2, rate=44_100), 176_400),
        (wav(3, bits=32), 64_000),
        (wav(6, rate=8_000, bits=8), 8_000),
        (wav(0xFFFE, channels=6, rate=48_000, bits=24, inner=1), 864_000),
    ],
)
def test_the_length_of_uncompressed_sound_is_exact(head: bytes, bytes_per_second: int) -> None:
    for seconds in (1, 37, 700):
        assert of(head, bytes_per_second * seconds + 44) == (max(seconds, LEAST_SECONDS), seconds)
        assert of(head, bytes_per_second * seconds + 45) == (max(seconds + 1, LEAST_SECONDS), seconds + 1)


@pytest.mark.parametrize(
    "head",
    [
        wav(byte_rate=1_000_000),
        wav(block=64),
        wav(0x11, rate=8_000, bits=4),
        wav(0xFFFE, inner=0x55),
        wav(bits=7),
        wav(channels=0),
        wav().replace(b"fmt ", b"fmt_"),
        wav()[:30],
        b"RIFF....WAVEdata\xff\xff\xff\xff" + wav()[12:],
    ],
)
def test_a_head_that_may_be_read_in_two_ways_bounds_nothing(head: bytes) -> None:
    assert of(head, 1_600_000).most >= 1_000


def xing(flags: int = 1, frames: int = 1_000) -> bytes:
    return b"\xff\xfb\x90\x00" + bytes(32) + b"Xing" + struct.pack(">II", flags, frames) + bytes(400)


def id3(after: bytes) -> bytes:
    return b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128) + after


def ogg(position: int, codec: bytes = b"OpusHead") -> bytes:
    page = b"OggS\x00\x02" + bytes(22)
    return page + codec + bytes(100) + b"OggS\x00\x04" + struct.pack("<q", position) + bytes(14)


def mp4(duration: int, version: int = 0, before: int = 0) -> bytes:
    times = struct.pack(">IIII", 0, 0, 1000, duration) if version == 0 else struct.pack(">QQIQ", 0, 0, 1000, duration)
    return b"\x00\x00\x00\x20ftypM4A " + bytes(before) + b"mvhd" + bytes([version, 0, 0, 0]) + times + bytes(80)


def vbri(frames: int) -> bytes:
    return b"\xff\xfb\x90\x00" + bytes(32) + b"VBRI" + bytes(10) + struct.pack(">I", frames) + bytes(99)


def webm(duration: bytes, scale: bytes = b"\x2a\xd7\xb1\x83\x0f\x42\x40") -> bytes:
    return b"\x1a\x45\xdf\xa3" + bytes(40) + b"\x15\x49\xa9\x66\x90" + scale + b"\x44\x89" + duration + bytes(60)


VORBIS = b"\x01vorbis\x00\x00\x00\x00\x02\x44\xac\x00\x00"
STATED = {
    "mp3 with a count of frames": ("mp3", xing(), Fraction(1_000 * 1_152, 44_100)),
    "mp3 behind a tag": ("mp3", id3(xing()), Fraction(1_000 * 1_152, 44_100)),
    "mp3 with VBRI": ("mp3", vbri(1_000), Fraction(1_000 * 1_152, 44_100)),
    "mp3 of a constant rate": ("mp3", b"\xff\xfb\x90\x00" + bytes(400), Fraction(100_000, 16_000)),
    "mp3 at 8 kHz": ("mp3", b"\xff\xe3\x18\xc4" + bytes(400), Fraction(100_000, 1_000)),
    "mp3 without a count": ("mp3", xing(flags=0), Fraction(100_000, 16_000)),
    "flac": ("flac", b"fLaC\x00\x00\x00\x22" + bytes(10) + (16_000 << 44 | 160_001).to_bytes(8) + bytes(20),
             Fraction(160_001, 16_000)),
    "opus": ("ogg", ogg(48_000 * 20), Fraction(20)),
    "vorbis": ("ogg", ogg(44_100 * 20, VORBIS), Fraction(20)),
    "mp4": ("mp4", mp4(20_000), Fraction(20)),
    "mp4 of version 1": ("mp4", mp4(20_000, 1), Fraction(20)),
    "mp4 with its head at its end": ("mp4", mp4(20_000, before=2 * END_BYTES), Fraction(20)),
    "webm": ("webm", webm(b"\x88" + struct.pack(">d", 20_000.0)), Fraction(20)),
    "webm, shorter": ("webm", webm(b"\x84" + struct.pack(">f", 20_000.0), b""), Fraction(20)),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "data", "seconds"), STATED.values(), ids=STATED)
def test_what_a_file_says_is_an_estimate_and_no_bound(kind: str, data: bytes, seconds: Fraction) -> None:
    assert of(data, 100_000) == (max(ceil(Fraction(100_000, RATES[kind].lowest)), ceil(seconds)), ceil(seconds))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("flac", b"fLaC\x00\x00\x00\x22" + bytes(10) + (16_000 << 44).to_bytes(8) + bytes(20)),
        ("flac", b"fLaC"),
        ("ogg", ogg(-1)),
        ("ogg", b"OggS"),
        ("mp3", b"ID3"),
        ("mp3", id3(b"")),
        ("mp4", b"\x00\x00\x00\x20ftypM4A mvhd"),
        ("webm", webm(b"\x88" + struct.pack(">d", float("nan")))),
        ("webm", webm(b"\x88" + struct.pack(">d", float("inf")))),
        ("webm", webm(b"\x83abc")),
        ("webm", b"\x1a\x45\xdf\xa3"),
        ("unknown", b""),
        ("unknown", b"\xff\xfb\xf0\x00"),
        ("unknown", b"not sound at all"),
    ],
)
def test_a_file_that_says_nothing_is_estimated_at_its_bound(kind: str, data: bytes) -> None:
    most = ceil(Fraction(1_000_000, RATES[kind].lowest))
    assert of(data, 1_000_000) == (most, most)


def test_a_lie_is_bounded_from_both_sides() -> None:
    assert of(xing(frames=1), 25_000_000) == (25_000, 625)
    assert of(mp4(2**32 - 1), 1_000) == (MOST_SECONDS, MOST_SECONDS)
    assert of(xing(), 500) == (27, 27)


@given(st.sampled_from([one for _, one, _ in STATED.values()]), st.integers(0, 200), st.binary(min_size=1, max_size=4))
def test_no_head_breaks_the_reader(data: bytes, place: int, other: bytes) -> None:
    for broken in (data[:place], data[:place] + other + data[place + len(other) :]):
        found = of(broken, 1_000_000)
        assert 1 <= found.estimate <= MOST_SECONDS
        assert max(LEAST_SECONDS, found.estimate) <= found.most <= MOST_SECONDS


def frames(count: int, *heads: bytes) -> bytes:
    """So many frames, with these heads in turn: 128 kbit/s at 44.1 kHz, if none is given."""
    turns = heads or (b"\xff\xfb\x90\x00",)
    return b"".join(_padded(turns[place % len(turns)]) for place in range(count))


def _padded(head: bytes) -> bytes:
    found = mp3.frame(head, 0)
    assert found
    return head + bytes(found.size + (head[2] >> 1 & 1) - len(head))


def walked(data: bytes, *cuts: int) -> Fraction | None:
    reader = Frames()
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(places):
        reader.feed(data[start:end])
    return reader.seconds


LAST_TAG = b"TAG" + bytes(125)
LARGE_TAG = b"ID3\x04\x00\x00" + bytes([0, 16, 0, 0]) + bytes(16 << 14)
"""With a picture: it ends beyond the part of the file that is looked at."""


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (frames(1_000), Fraction(1_000 * 1_152, 44_100)),
        (frames(1_000, b"\xff\xfb\x90\x00", b"\xff\xfb\x92\x00", b"\xff\xfb\xe0\x00"), Fraction(1_000 * 1_152, 44_100)),
        (frames(500, b"\xff\xf3\x18\xc4"), Fraction(500 * 576, 16_000)),
        (frames(500, b"\xff\xe3\x18\xc4", b"\xff\xe2\x18\xc4"), Fraction(500 * 576, 8_000)),
        (LARGE_TAG + frames(1_000) + LAST_TAG, Fraction(1_000 * 1_152, 44_100)),
        (frames(1_000)[:-100], Fraction(1_000 * 1_152, 44_100)),
        (frames(1_000) + b"\xff\xfb", Fraction(1_000 * 1_152, 44_100)),
    ],
    ids=["a constant rate", "several rates", "16 kHz", "8 kHz", "tags", "cut in a frame", "cut in a head"],
)
def test_an_mp3_of_frames_alone_has_the_length_of_its_frames(data: bytes, seconds: Fraction) -> None:
    for cuts in ((), (1, 2, 3, 9, 500), range(0, len(data), 1_000)):
        assert walked(data, *cuts) == seconds
    found = length(data[:END_BYTES], data[-END_BYTES:], len(data), seconds)
    assert found == (max(ceil(seconds), LEAST_SECONDS), ceil(seconds))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ID3",
        frames(9) + bytes(200) + frames(9),
        frames(9) + bytes(50),
        frames(9) + bytes(128),
        frames(9) + LAST_TAG + frames(1),
        frames(9) + frames(9, b"\xff\xfb\x94\x00"),
        frames(9) + frames(9, b"\xff\xf3\x90\x00"),
        b"ID3\x04\x00\x10" + bytes(4) + frames(9),
        b"ID3\x04\x00\x00" + b"\x00\x00\x00\x80" + frames(9),
        wav() + frames(9),
        b"\xff\xfb\x00\x00" + bytes(2_000),
        frames(mp3.MOST_FRAMES + 1, b"\xff\xf3\x14\xc4"),
    ],
    ids=[
        *("nothing", "a tag alone", "something between", "something after", "nothing like a tag", "a tag between"),
        *("another sample rate", "another version", "a tag with a foot", "a tag without a size", "WAV", "a free rate"),
        "too many",
    ],
)
def test_an_mp3_of_anything_else_tells_nothing(data: bytes) -> None:
    assert walked(data) is walked(data, *range(0, len(data), max(1, len(data) // 50))) is None


@given(st.integers(1, 60), st.lists(st.integers(0, 30_000)), st.integers(0, 30_000), st.binary(max_size=3))
def test_the_pieces_of_an_mp3_do_not_matter(count: int, cuts: list[int], place: int, other: bytes) -> None:
    data = frames(count, b"\xff\xfb\x90\x00", b"\xff\xfb\x50\x00")
    broken = data[: place % len(data)] + other + data[place % len(data) :]
    assert walked(broken, *cuts) == walked(broken)
