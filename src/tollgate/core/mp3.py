"""How long an MP3 is: by what it says of itself, and by the heads of all its frames."""

import struct
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

_RATES: Final = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_LOWER_RATES: Final = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""kbit/s of layer III in MPEG 1, and in MPEG 2 and 2.5."""
_SAMPLE_RATES: Final = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""By the two bits of the version."""
_HEAD_BYTES: Final = 4
_TAG_HEAD_BYTES: Final = 10
_LAST_TAG_BYTES: Final = 128
MOST_FRAMES: Final = 300_000
"""Two hours of a usual file. Whatever is longer is bounded by its size."""


class Frame(NamedTuple):
    bytes_per_second: int
    samples: int
    sample_rate: int

    @property
    def size(self) -> int:
        """Without the byte by which some are longer."""
        return self.bytes_per_second * self.samples // self.sample_rate


def frame(data: bytes, place: int) -> Frame | None:
    """The head of a frame of layer III."""
    if len(data) < place + _HEAD_BYTES or data[place] != 0xFF or data[place + 1] & 0xE6 != 0xE2:
        return None
    version, rate, sample_rate = data[place + 1] >> 3 & 3, data[place + 2] >> 4, data[place + 2] >> 2 & 3
    if version == 1 or rate in (0, 15) or sample_rate == 3:
        return None
    kilobits = (_RATES if version == 3 else _LOWER_RATES)[rate]
    return Frame(kilobits * 125, 1152 if version == 3 else 576, _SAMPLE_RATES[version][sample_rate])


def stated(head: bytes, size: int) -> Fraction | None:
    """By the count of frames that encoders of variable rates write into the first frame, else by its rate."""
    place = _after_tag(head)
    first = frame(head, place)
    if first is None:
        return None
    start = head[place : place + 192]
    for mark, offset in ((b"Xing", 8), (b"Info", 8), (b"VBRI", 14)):
        found = start.find(mark)
        counts = mark == b"VBRI" or (found >= 0 and start[found + 7 : found + 8] and start[found + 7] & 1)
        if found >= 0 and counts and len(start) >= found + offset + 4:
            frames = struct.unpack_from(">I", start, found + offset)[0]
            return Fraction(frames * first.samples, first.sample_rate)
    return Fraction(size, first.bytes_per_second)


class Frames:
    """Adds up the frames of a file as its bytes come. One with anything else between its tags tells nothing, nor does
    one whose version or sample rate changes: in these, decoders may find other frames."""

    def __init__(self) -> None:
        self._first: Frame | None = None
        self._mark = 0
        """The second byte of each head, with the bit that tells of a checksum."""
        self._sizes: tuple[int, ...] = ()
        """Of a frame, by the third byte of its head; 0 for none that may follow."""
        self._count = 0
        self._rest = b""
        """Bytes that are no frame, or not enough to tell."""
        self._skip = 0
        """How many bytes come before the next head."""
        self._has_begun = self._is_lost = False

    @property
    def seconds(self) -> Fraction | None:
        """Of the file whose bytes have all come; None where they are not frames alone."""
        is_tag = len(self._rest) == _LAST_TAG_BYTES and self._rest.startswith(b"TAG")
        if self._is_lost or self._first is None or not (is_tag or len(self._rest) < _HEAD_BYTES):
            return None
        return Fraction(self._count * self._first.samples, self._first.sample_rate)

    def feed(self, piece: bytes) -> None:
        if self._is_lost:
            return
        data = self._rest + piece
        place = self._walked(data, self._skip if self._has_begun else self._begun(data))
        self._rest, self._skip = data[place:], max(0, place - len(data))
        if len(self._rest) > _LAST_TAG_BYTES or self._count > MOST_FRAMES:
            self._is_lost, self._rest = True, b""

    def _begun(self, data: bytes) -> int:
        """Behind the tag, if there is one that all decoders read alike."""
        self._has_begun = len(data) >= _TAG_HEAD_BYTES
        is_tag = data.startswith(b"ID3")
        self._is_lost = is_tag and self._has_begun and (data[5] & 0x10 != 0 or max(data[6:10]) > 0x7F)
        return _after_tag(data) if is_tag else 0

    def _walked(self, data: bytes, place: int) -> int:
        """Behind the last frame that has begun."""
        end = len(data) - _HEAD_BYTES
        if self._first is None and self._has_begun and place <= end:
            self._first = frame(data, place)
            self._mark, self._sizes = data[place + 1] | 1, _sizes(data[place + 1], data[place + 2] & 0x0C)
        mark, sizes, count = self._mark, self._sizes, 0
        while sizes and place <= end and data[place] == 0xFF and data[place + 1] | 1 == mark:
            size = sizes[data[place + 2]]
            if not size:
                break
            place += size
            count += 1
        self._count += count
        return place


@lru_cache(32)
def _sizes(second: int, sample_rate: int) -> tuple[int, ...]:
    """The sizes of the frames whose heads have this second byte and, in the third, these bits of a sample rate."""
    return tuple(_size(second, third) if third & 0x0C == sample_rate else 0 for third in range(256))


def _size(second: int, third: int) -> int:
    found = frame(bytes((0xFF, second, third, 0)), 0)
    return found.size + (third >> 1 & 1) if found else 0


def _after_tag(head: bytes) -> int:
    if not head.startswith(b"ID3") or len(head) < _TAG_HEAD_BYTES:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return _TAG_HEAD_BYTES + size
