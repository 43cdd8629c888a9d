"""What answers of images and rerank report of themselves."""

import json
from typing import Any

import pytest

from tollgate.core.unit_tallies import ImagesTally, UnitsTally, with_token_names

USAGE = {"input_tokens": 5, "output_tokens": 272, "cost": 0.011}
PREVIEW = {"type": "image_generation.partial_image", "b64_json": "AA==", "partial_image_index": 0}
MADE = {"type": "image_generation.completed", "b64_json": "AA==", "usage": USAGE}
FAILED = {"type": "error", "error": {"message": "Generation failed", "code": "server_error"}}


def seen(*events: dict[str, Any] | bytes) -> ImagesTally:
    tally = ImagesTally()
    for event in events:
        tally.see(event if isinstance(event, bytes) else json.dumps(event).encode())
    return tally


def test_a_stream_is_complete_with_its_image_and_not_before() -> None:
    assert (seen(PREVIEW, PREVIEW).ending, seen(PREVIEW, PREVIEW).images) == ("cut", 0)
    made = seen(PREVIEW, MADE, b"[DONE]")
    assert (made.ending, made.images, made.events) == ("complete", 1, 2)
    assert made.usage is not None
    assert (made.usage["prompt_tokens"], made.usage["completion_tokens"]) == (5, 272)


def test_a_stream_that_fails_made_nothing() -> None:
    failed = seen(PREVIEW, FAILED, b"[DONE]")
    assert (failed.ending, failed.images, failed.usage) == ("failed", 0, None)
    assert failed.failure is not None
    assert (failed.failure.code, failed.failure.message) == ("server_error", "Generation failed")


def test_an_image_whose_event_is_no_json_ends_its_stream_all_the_same() -> None:
    odd = seen(PREVIEW, b'{"type":"image_generation.completed","usage":{"cost":NaN}}')
    assert (odd.ending, odd.unreadable) == ("complete", 1)


@pytest.mark.parametrize("kind", [ImagesTally, UnitsTally])
def test_the_images_of_a_plain_answer_are_counted(kind: type[UnitsTally]) -> None:
    tally = kind()
    tally.take_plain({"created": 1, "data": [{"b64_json": "AA=="}, {"url": "https://example.com/a.png"}, None]})
    assert (tally.images, tally.ending, tally.usage) == (2, "complete", None)


@pytest.mark.parametrize(
    ("stated", "tokens"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4)),
        ({"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}, (3, 4)),
        ({"search_units": 1, "total_tokens": 7}, (7, None)),
        ({"type": "duration", "seconds": 3}, (None, None)),
    ],
)
def test_tokens_have_one_name(stated: dict[str, Any], tokens: tuple[int | None, int | None]) -> None:
    named = with_token_names(stated)
    assert named is not None
    assert stated.items() <= named.items()
    assert (named.get("prompt_tokens"), named.get("completion_tokens")) == tokens
