"""What a route costs, as operators write it: decimal strings, for a double has no tenth of a cent."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from tollgate.web.schemas import Written

EXAMPLE: dict[str, Any] = {
    "prompt": "0.0000002",
    "completion": "0.0000006",
    "overrides": [{"min_prompt_tokens": 128000, "prompt": "0.0000004"}],
}

Amount = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{1,6}(\.[0-9]{1,30})?$",
        description="Credits (US dollars) for each token, request or piece, as a plain decimal string.",
        examples=["0.0000006"],
    ),
]


class Prices(Written):
    """OpenRouter's names. What is left out costs nothing."""

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


class Override(Prices):
    """Prices that replace others beyond a number of prompt tokens."""

    min_prompt_tokens: int = Field(ge=0, le=999_999_999, strict=True)


class Pricing(Prices):
    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    prompt: Amount
    completion: Amount
    overrides: list[Override] = Field([], max_length=20)
