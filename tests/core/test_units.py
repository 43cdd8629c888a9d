"""What a call asks for, and what is charged of it, beside tokens."""

from decimal import Decimal
from typing import Any

import pytest

from tollgate.core.errors import BadRequest
from tollgate.core.units import COUNTED, MOST_DOCUMENTS, Units, delivered, of_images, of_rerank, of_speech


def test_the_units_that_a_body_asks_for() -> None:
    assert of_images({"prompt": "a cat"}) == of_images({"prompt": "a cat", "n": None}) == Units(images=1)
    assert of_images({"prompt": "a cat", "n": 4}) == Units(images=4)
    assert of_speech({"input": "小さな鳥 🐦"}) == Units(characters=6)
    assert of_speech({"input": "four", "instructions": "kindly"}) == Units(characters=10)
    assert of_rerank({"query": "x", "documents": ["a"] * 100}) == Units(requests=1)
    assert of_rerank({"query": "x", "documents": ["a"] * 101}) == Units(requests=2)
    assert of_rerank({"query": "x", "documents": [{"text": "long" * 6300}, {"image": "…"}]}) == Units(requests=2)


@pytest.mark.parametrize(
    ("read", "given", "param"),
    [
        (of_images, {}, "prompt"),
        (of_images, {"prompt": ["a", "b"]}, "prompt"),
        (of_images, {"prompt": "x", "n": 0}, "n"),
        (of_images, {"prompt": "x", "n": 129}, "n"),
        (of_images, {"prompt": "x", "n": 1.0}, "n"),
        (of_images, {"prompt": "x", "num_images": 2}, "num_images"),
        (of_images, {"prompt": "x", "batch_size": 2}, "batch_size"),
        (of_speech, {"input": ""}, "input"),
        (of_speech, {"input": ["x"]}, "input"),
        (of_speech, {"input": "x", "instructions": 5}, "instructions"),
        (of_speech, {"input": "x", "stream_format": "sse"}, "stream_format"),
        (of_rerank, {"documents": ["x"]}, "query"),
        (of_rerank, {"query": "x", "documents": "x"}, "documents"),
        (of_rerank, {"query": "x", "documents": ["x"] * (MOST_DOCUMENTS + 1)}, "documents"),
    ],
)
def test_what_cannot_be_counted_is_refused(read: Any, given: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(given)
    assert caught.value.param == param
    assert caught.value.message.endswith(".")


ASKED = Units(images=4, characters=10, seconds=Decimal(30), requests=3, likely_seconds=Decimal(20))


@pytest.mark.parametrize(
    ("usage", "images", "charged"),
    [
        (None, 3, Units(3, 10, Decimal(20), 1)),
        ({"type": "duration", "seconds": 12}, 0, Units(0, 10, Decimal(12), 1)),
        ({"seconds": Decimal("2.5"), "search_units": 2}, 9, Units(4, 10, Decimal("2.5"), 2)),
        ({"images": 2}, 3, Units(2, 10, Decimal(20), 1)),
        ({"images": 99, "seconds": 31, "search_units": -1}, 4, Units(4, 10, Decimal(30), 1)),
        ({"images": True, "seconds": "12", "search_units": None}, 1, Units(1, 10, Decimal(20), 1)),
    ],
)
def test_what_is_charged_is_what_came_and_never_more_than_was_asked(usage: Any, images: int, charged: Units) -> None:
    assert delivered(ASKED, usage, images) == charged


def test_a_row_keeps_what_was_counted() -> None:
    assert Units().kept() == {}
    kept = Units(images=2, seconds=Decimal("2.5")).kept()
    assert kept == {"images": 2, "seconds": "2.5"}
    assert set(ASKED.kept()) == set(COUNTED)
