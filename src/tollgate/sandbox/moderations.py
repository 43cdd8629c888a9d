"""POST /moderations, as OpenAI has it: flags texts by words. OpenRouter has no such endpoint."""

import re
from typing import Any

from tollgate.sandbox import tokens
from tollgate.sandbox.generation import Generation
from tollgate.sandbox.parameters import Body
from tollgate.sandbox.prices import Used
from tollgate.sandbox.refusals import Refusal
from tollgate.sandbox.unit_endpoints import Made

CATEGORIES = {
    "harassment": frozenset({"idiot", "stupid"}),
    "hate": frozenset({"hate"}),
    "self-harm": frozenset({"suicide"}),
    "sexual": frozenset({"naked"}),
    "violence": frozenset({"attack", "bomb", "kill"}),
}
SCORE, NO_SCORE = 0.98, 0.01
WORDS = re.compile(r"\w+")


def made(body: Body, generation: Generation) -> Made:
    texts = _texts(body.get("input"))
    answer = {
        "id": generation.id.replace("gen-", "modr-", 1),
        "model": generation.shown_model,
        "results": [_result(one) for one in texts],
    }
    return Made(answer, Used(prompt=sum(map(tokens.count, texts))), None)


def _texts(given: Any) -> list[str]:
    """A text, texts, or parts of one text with images, which are not looked at."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given and all(isinstance(one, dict) for one in given):
        return ["\n".join(str(one.get("text", "")) for one in given)]
    if isinstance(given, list) and given and all(isinstance(one, str) for one in given):
        return given
    raise Refusal(400, "Invalid input: 'input' must be a text, texts or parts")


def _result(text: str) -> dict[str, Any]:
    said = set(WORDS.findall(text.casefold()))
    categories = {name: not said.isdisjoint(words) for name, words in CATEGORIES.items()}
    return {
        "flagged": any(categories.values()),
        "categories": categories,
        "category_scores": {name: SCORE if flagged else NO_SCORE for name, flagged in categories.items()},
        "category_applied_input_types": {name: ["text"] if flagged else [] for name, flagged in categories.items()},
    }
