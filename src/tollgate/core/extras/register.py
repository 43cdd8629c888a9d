"""The prices of extras: a minimum for each, whatever the model's listing says."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, NamedTuple

from tollgate.core.prices import Unpriced, nanos

UNKNOWN_TOKENS: Final = 20_000
"""What one use adds to the prompt, for an extra that an operator priced without tokens."""


class Fee(NamedTuple):
    """The minimum price of one use of an extra."""

    nanos: Decimal
    tokens: int = 0
    """Tokens that it adds to the prompt."""


def _fee(dollars: str, tokens: int = 0) -> Fee:
    return Fee(nanos(dollars), tokens)


Register = Mapping[str, Fee]

REGISTER: Final[Register] = {
    "search:native": _fee("0.035"),
    "search:exa": _fee("0.007"),
    "search:exa:deep": _fee("0.012"),
    "search:exa:deep-reasoning": _fee("0.015"),
    "search:parallel": _fee("0.005"),
    "search:perplexity": _fee("0.005"),
    "search:result": _fee("0.001"),
    "fetch:native": _fee("0"),
    "fetch:openrouter": _fee("0"),
    "fetch:exa": _fee("0.001"),
    "fetch:parallel": _fee("0.001"),
    "pdf:mistral-ocr": _fee("0.002"),
    "pdf:cloudflare-ai": _fee("0"),
    "pdf:pdf-text": _fee("0"),
    "pdf:native": _fee("0"),
    "output:image": _fee("0.30"),
    "output:audio": _fee("0.00008"),
    "rerank:unit": _fee("0.0025"),
    "sound:second": _fee("0.0003"),
    "tool:openrouter:image_generation": _fee("0.30", 5_000),
    "tool:openrouter:datetime": _fee("0", 500),
    "tool:openrouter:tool_search": _fee("0", UNKNOWN_TOKENS),
    "tool:openrouter:experimental__search_models": _fee("0", UNKNOWN_TOKENS),
    "tool:openrouter:apply_patch": _fee("0", UNKNOWN_TOKENS),
    "plugin:response-healing": _fee("0"),
    "plugin:context-compression": _fee("0"),
    "plugin:auto-router": _fee("0"),
    "plugin:auto-beta-router": _fee("0"),
    "plugin:pareto-router": _fee("0"),
}
"""US dollars for one use: a search, a result beyond ten, a fetch, a page, an image, a call, a token of audio output, a
search unit of rerank, a second of sound to transcribe."""


def extended(written: str) -> Register:
    """The register with an operator's prices: a JSON object of names and dollars for one use, or {price, tokens}."""
    try:
        given = json.loads(written, parse_float=Decimal)
    except ValueError:
        raise ValueError('must be a JSON object such as {"search:firecrawl": "0.01"}') from None
    if not isinstance(given, dict):
        raise ValueError('must be a JSON object such as {"search:firecrawl": "0.01"}')
    return {**REGISTER, **{name: _operators(name, value) for name, value in given.items()}}


def _operators(name: str, value: object) -> Fee:
    given = value if isinstance(value, dict) else {"price": value}
    tokens = given.get("tokens", REGISTER[name].tokens if name in REGISTER else UNKNOWN_TOKENS)
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 0 <= tokens <= 10**7:
        raise ValueError(f"{name}: tokens must be a whole number")
    try:
        return Fee(nanos(given.get("price")), tokens)
    except Unpriced:
        raise ValueError(f'{name}: price must be US dollars for one use, such as "0.01"') from None
