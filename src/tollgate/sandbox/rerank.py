"""POST /rerank: the more words of the query a document has, the more relevant it is."""

import re
from typing import Any

from tollgate.sandbox import tokens
from tollgate.sandbox.catalog import PROVIDER
from tollgate.sandbox.generation import Generation
from tollgate.sandbox.parameters import Body
from tollgate.sandbox.prices import Used
from tollgate.sandbox.refusals import Refusal
from tollgate.sandbox.unit_endpoints import Made, text, whole

DOCUMENTS_OF_UNIT = 100
TOKENS_OF_DOCUMENT = 500
"""A longer document counts as several."""
WORDS = re.compile(r"\w+")


def made(body: Body, generation: Generation) -> Made:
    query, documents = text(body, "query"), _documents(body)
    ranked = sorted(range(len(documents)), key=lambda index: (-_relevance(query, documents[index]), index))
    shown = ranked[: whole(body, "top_n", len(ranked), 10**6)]
    read = [tokens.count(query) + tokens.count(document) for document in documents]
    units = -(-sum(-(-count // TOKENS_OF_DOCUMENT) for count in read) // DOCUMENTS_OF_UNIT)
    answer = {
        "id": generation.id,
        "model": generation.shown_model,
        "provider": PROVIDER,
        "results": [
            {
                "index": index,
                "relevance_score": _relevance(query, documents[index]),
                "document": {"text": documents[index]},
            }
            for index in shown
        ],
    }
    return Made(answer, Used(prompt=sum(read), requests=units), {"search_units": units, "total_tokens": sum(read)})


def _documents(body: Body) -> list[str]:
    given: Any = body.get("documents")
    if not isinstance(given, list) or not given:
        raise Refusal(400, "Invalid input: 'documents' must be a non-empty array")
    return [str(one.get("text", "")) if isinstance(one, dict) else str(one) for one in given]


def _relevance(query: str, document: str) -> float:
    """The share of the query's words that the document has."""
    asked = set(WORDS.findall(query.casefold()))
    found = asked & set(WORDS.findall(document.casefold()))
    return round(len(found) / len(asked), 4) if asked else 0.0
