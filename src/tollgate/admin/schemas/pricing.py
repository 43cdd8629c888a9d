"""Prices of routes. They are decimal strings, because a float cannot hold them exactly."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from tollgate.web.schemas import ChangeBody

EXAMPLE: dict[str, Any] = {
    "prompt": "0.0000002",
    "completion": "0.0000006",
    "overrides": [{"min_prompt_tokens": 128000, "prompt": "0.0000004"}],
}

Amount = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{1,6}(\.[0-9]{1,30})?$",
        description="Credits (US dollars) per token, request or other unit, as a decimal string.",
        examples=["0.0000006"],
    ),
]


class RoutePrices(ChangeBody):
    """Prices by OpenRouter's names, and three for what OpenRouter's list has no name for. One that is left out is 0."""

    prompt: Amount | None = None
    completion: Amount | None = None
    request: Amount | None = None
    image: Amount | None = None
    image_token: Amount | None = None
    image_output: Amount | None = None
    audio: Amount | None = None
    audio_output: Amount | None = None
    input_audio_cache: Amount | None = None
    web_search: Amount | None = None
    internal_reasoning: Amount | None = None
    input_cache_read: Amount | None = None
    input_cache_write: Amount | None = None
    input_cache_write_1h: Amount | None = None
    character: Amount | None = Field(None, description="For a character of a text that is spoken.")
    second: Amount | None = Field(None, description="For a second of sound.")
    output_image: Amount | None = Field(None, description="For an image that is made, of the dearest size and quality.")


class PriceOverride(RoutePrices):
    """Prices for prompts with more tokens than this."""

    min_prompt_tokens: int = Field(ge=0, le=999_999_999, strict=True)


class RoutePricing(RoutePrices):
    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    prompt: Amount
    completion: Amount
    overrides: list[PriceOverride] = Field([], max_length=20)
