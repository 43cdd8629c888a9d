"""What a call may use, or has used, that is not a token: images made, characters spoken, seconds of sound, requests."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from tollgate.core import fields
from tollgate.core.errors import BadRequest

MOST_IMAGES: Final = 128
COUNTED_OTHERWISE: Final = (
    *("num_images", "num_images_per_prompt", "num_outputs", "num_outputs_per_prompt", "samples", "batch_size"),
    *("batch_count", "n_iter"),
)
"""Names by which some server could read another number of images."""
MOST_DOCUMENTS: Final = 10_000
CHUNKS_OF_UNIT: Final = 100
"""Documents that one search unit pays for. A long document counts as several."""
BYTES_OF_CHUNK: Final = 250
"""A chunk has 500 tokens, and the query is among them. A token has at least one byte."""
NONE: Final = Decimal(0)


class Units(NamedTuple):
    """Before a call: the most that it asks for. After it: what is charged."""

    images: int = 0
    """Made, not sent along."""
    characters: int = 0
    seconds: Decimal = NONE
    """Of sound."""
    requests: int = 1
    """How often the price of a request is due. In rerank: search units."""
    likely_seconds: Decimal = NONE
    """Those of the sound by our own estimate. `seconds` is the most that it can have."""

    @property
    def read(self) -> "Units":
        """What is charged of a call that made nothing: what went in."""
        return self._replace(images=0, seconds=self.likely_seconds)

    def kept(self) -> dict[str, Any]:
        """As the row keeps them: decimals as strings."""
        counts = zip(COUNTED, (self.images, self.characters, self.seconds), strict=True)
        return {name: str(count) if isinstance(count, Decimal) else count for name, count in counts if count}


COUNTED: Final = ("images", "characters", "seconds")
"""The names under which a row keeps them."""


def delivered(asked: Units, usage: Mapping[str, Any] | None, images: int) -> Units:
    """What is charged of an answer: as its usage states it, else as it came, and never more than was asked for."""
    stated = usage or {}
    return Units(
        images=int(_at_most(asked.images, stated.get("images"), images)),
        characters=asked.characters,
        seconds=min(asked.seconds, _stated(stated.get("seconds"), asked.likely_seconds)),
        requests=int(_at_most(asked.requests, stated.get("search_units"), 1)),
    )


def of_images(given: Mapping[str, Any]) -> Units:
    _text(given, "prompt")
    for name in COUNTED_OTHERWISE:
        if given.get(name) is not None:
            raise BadRequest(f"{name}: use n for the number of images.", param=name)
    images = fields.whole(given, "n", MOST_IMAGES) or 1
    if images > 1 and fields.flag(given, "stream"):
        raise BadRequest("n: a stream makes one image. Leave out n, or stream.", param="n")
    return Units(images=images)


def of_speech(given: Mapping[str, Any]) -> Units:
    if given.get("stream_format") not in (None, "audio"):
        raise BadRequest("stream_format: the sound comes as bytes. Leave it out, or send audio.", param="stream_format")
    more = given.get("instructions")
    return Units(characters=len(_text(given, "input")) + (len(_text(given, "instructions")) if more is not None else 0))


def of_rerank(given: Mapping[str, Any]) -> Units:
    """The most search units: a long document counts as several, and a hundred of them are one unit."""
    _text(given, "query")
    documents = fields.listed(given, "documents")
    if len(documents) > MOST_DOCUMENTS:
        raise BadRequest(f"documents: send at most {MOST_DOCUMENTS}.", param="documents")
    chunks = sum(-(-_bytes_of(one) // BYTES_OF_CHUNK) or 1 for one in documents)
    return Units(requests=-(-chunks // CHUNKS_OF_UNIT) or 1)


def of_request(_: Mapping[str, Any]) -> Units:
    return Units()


def of_sound(given: Mapping[str, Any]) -> Units:
    length = given["file"][0]
    return Units(seconds=Decimal(length.most), likely_seconds=Decimal(length.estimate))


def _at_most(most: int | Decimal, stated: object, counted: int | Decimal) -> Decimal:
    found = _stated(stated, counted)
    return found if found <= most else Decimal(min(counted, most))


def _stated(number: object, otherwise: int | Decimal) -> Decimal:
    if isinstance(number, (int, Decimal)) and not isinstance(number, bool) and number >= 0:
        return Decimal(number)
    return Decimal(otherwise)


def _bytes_of(document: object) -> int:
    text = document.get("text") if isinstance(document, dict) else document
    return len(text.encode()) if isinstance(text, str) else 0


def _text(given: Mapping[str, Any], name: str) -> str:
    text = given.get(name)
    if not isinstance(text, str) or not text:
        raise BadRequest(f"{name}: send a text.", param=name)
    return text
