"""How long a recording may be: for the hold, and for the charge where no server says it.

A file says its own length, but a client can write anything there. So the hold is at least for the bytes at the lowest
rate in use for the format. Uncompressed sound is exact, since a decoder divides by the same numbers, and so is an MP3
of nothing but frames, since the head of each is read. An estimate for the charge takes what the file says, and at least
the length at the highest rate.
"""

import struct
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import ceil
from typing import Final, NamedTuple

from tollgate.core import mp3

END_BYTES: Final = 64 * 1024
"""How much of the beginning and of the end of a file is looked at."""
LEAST_SECONDS: Final = 10
"""Some vendors bill this much for any file, so no hold is for less."""
MOST_SECONDS: Final = 1_000_000


class Rates(NamedTuple):
    """Bytes a second of what a format holds: the lowest in use, and the highest."""

    lowest: int
    highest: int


RATES: Final[Mapping[str, Rates]] = {
    "wav": Rates(1_600, 3_072_000),  # GSM 6.10; 8 channels of 32 bits at 96 kHz
    "mp3": Rates(1_000, 40_000),  # 8 and 320 kbit/s
    "flac": Rates(500, 1_536_000),  # near silence
    "ogg": Rates(750, 64_000),  # Opus from 6 to 510 kbit/s
    "mp4": Rates(590, 2_500_000),  # AMR at 4.75 kbit/s; film at 20 Mbit/s
    "webm": Rates(750, 2_500_000),
    "unknown": Rates(590, 3_072_000),
}


class Length(NamedTuple):
    """Of a recording, in whole seconds."""

    most: int
    """It cannot be longer."""
    estimate: int
    """Charged where no server states the length."""


def length(head: bytes, tail: bytes, size: int, of_frames: Fraction | None = None) -> Length:
    """Of a file, by its first and last bytes (up to END_BYTES each), its size, and the sum of its frames, if it is an
    MP3 of nothing else."""
    kind = _kind(head)
    exact = _uncompressed(head, size) if kind == "wav" else of_frames if kind == "mp3" else None
    if exact is not None:
        return Length(_most(exact), _whole(exact))
    lowest, highest = RATES[kind]
    stated = _READERS[kind](head, tail, size) if kind in _READERS else None
    if stated is None:
        most = Fraction(size, lowest)
        return Length(_most(most), _whole(most))
    return Length(_most(max(stated, Fraction(size, lowest))), _whole(max(stated, Fraction(size, highest))))


def _most(seconds: Fraction) -> int:
    return max(_whole(seconds), LEAST_SECONDS)


def _whole(seconds: Fraction) -> int:
    return min(max(ceil(seconds), 1), MOST_SECONDS)


def _kind(head: bytes) -> str:
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head[4:8] == b"ftyp":
        return "mp4"
    for kind, mark in (("flac", b"fLaC"), ("ogg", b"OggS"), ("webm", b"\x1a\x45\xdf\xa3"), ("mp3", b"ID3")):
        if head.startswith(mark):
            return kind
    return "mp3" if mp3.frame(head, 0) else "unknown"


_PLAIN_CODES: Final = {1: (8, 16, 24, 32), 3: (32, 64), 6: (8,), 7: (8,)}
"""Codes of uncompressed sound in WAV, and their bits a sample: integers, floats, A-law and µ-law."""
_EXTENSIBLE: Final = 0xFFFE
WAV_HEAD_BYTES: Final = 44
"""The shortest head."""


def _uncompressed(head: bytes, size: int) -> Fraction | None:
    """The length if all of the file is samples. None if they are compressed, or if decoders could disagree about the
    head."""
    if size > 0 and (found := _format_of_wav(head)):
        code, channels, rate, byte_rate, block, bits = struct.unpack_from("<HHIIHH", found)
        if code == _EXTENSIBLE and len(found) >= 26:
            code = struct.unpack_from("<H", found, 24)[0]
        per_second = rate * channels * bits // 8
        if bits in _PLAIN_CODES.get(code, ()) and 0 < per_second == byte_rate and block == channels * bits // 8:
            return Fraction(max(size - WAV_HEAD_BYTES, 0), per_second)
    return None


def _format_of_wav(head: bytes) -> bytes | None:
    """The first chunk of the kind `fmt `, which must come before the samples."""
    place = 12
    while place + 8 <= len(head):
        name, size = struct.unpack_from("<4sI", head, place)
        if name == b"fmt ":
            found = head[place + 8 : place + 8 + size]
            return found if len(found) >= 16 else None
        if name == b"data":
            return None
        place += 8 + size + size % 2
    return None


def _wav(head: bytes, tail: bytes, size: int) -> Fraction | None:
    """By the rate that its head states for compressed samples."""
    found = _format_of_wav(head)
    rate = struct.unpack_from("<I", found, 8)[0] if found else 0
    return Fraction(size, rate) if rate else None


def _flac(head: bytes, tail: bytes, size: int) -> Fraction | None:
    """By the sample rate and the number of samples in its first block; 0 samples are an unknown number."""
    if len(head) < 26:
        return None
    packed = int.from_bytes(head[18:26])
    rate, samples = packed >> 44, packed & (1 << 36) - 1
    return Fraction(samples, rate) if rate and samples else None


def _ogg(head: bytes, tail: bytes, size: int) -> Fraction | None:
    """By the position of its last page. That of Opus counts at 48 kHz."""
    last = tail.rfind(b"OggS")
    if last < 0 or len(tail) < last + 14:
        return None
    position = struct.unpack_from("<q", tail, last + 6)[0]
    vorbis = head.find(b"\x01vorbis", 0, 256)
    rate = 48_000 if vorbis < 0 else int.from_bytes(head[vorbis + 12 : vorbis + 16], "little")
    return Fraction(position, rate) if position > 0 and rate else None


def _mp4(head: bytes, tail: bytes, size: int) -> Fraction | None:
    """By its header of the movie, which is near the beginning or near the end."""
    for part in (head, tail):
        place = part.find(b"mvhd")
        version = part[place + 4 : place + 5]
        layout, offset = (">IQ", 24) if version == b"\x01" else (">II", 16)
        if place >= 0 and len(part) >= place + offset + struct.calcsize(layout):
            scale, duration = struct.unpack_from(layout, part, place + offset)
            if scale and duration:
                return Fraction(duration, scale)
    return None


_INFO: Final = b"\x15\x49\xa9\x66"
_SCALE: Final = b"\x2a\xd7\xb1"
_DURATION: Final = b"\x44\x89"


def _webm(head: bytes, tail: bytes, size: int) -> Fraction | None:
    """By the duration in its information about the segment. A recording from a browser states none."""
    start = head.find(_INFO)
    if start < 0:
        return None
    info = head[start : start + 1024]
    duration = _element(info, _DURATION)
    if duration is None or len(duration) not in (4, 8):
        return None
    ticks = struct.unpack(">f" if len(duration) == 4 else ">d", duration)[0]
    scale = int.from_bytes(_element(info, _SCALE) or b"\x0f\x42\x40")
    return Fraction(ticks) * scale / 10**9 if 0 < ticks < 1e18 else None  # neither infinite nor no number


def _element(info: bytes, name: bytes) -> bytes | None:
    """The content of a short element."""
    place = info.find(name)
    if place < 0 or len(info) < place + len(name) + 1:
        return None
    size = info[place + len(name)] & 0x7F
    start = place + len(name) + 1
    return info[start : start + size] if size <= 8 and len(info) >= start + size else None


_READERS: Final[Mapping[str, Callable[[bytes, bytes, int], Fraction | None]]] = {
    "wav": _wav,
    "mp3": lambda head, tail, size: mp3.stated(head, size),
    "flac": _flac,
    "ogg": _ogg,
    "mp4": _mp4,
    "webm": _webm,
}
