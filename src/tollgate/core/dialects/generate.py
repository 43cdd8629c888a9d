"""The simple API of LLM Server: one prompt in, one text out. No upstream has it."""

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, Final

from tollgate.core import fields, upstream_errors
from tollgate.core.dialects import chat
from tollgate.core.dialects.chat import ChatEvents, Item, Object
from tollgate.core.dialects.treatments import Table, malformed, translated
from tollgate.core.errors import BadRequest
from tollgate.core.money import with_credits
from tollgate.core.request_body import MOST_OUTPUT_TOKENS

END: Final = b"data: [DONE]\n\n"
MOST_PROMPTS: Final = 100
"""Of a batch."""
MOST_STOPS: Final = 16
LONGEST_STOP: Final = 500
"""Characters. What prompts of a batch share is sent with each of them, so it is kept small."""
MOST_TOP_K: Final = 1_000_000
SHOWN: Final = frozenset[chat.Kind](("text", "refusal"))

FIELDS: Final[Table] = {
    "prompt": translated("The only message, of role `user`."),
    "model": translated("`model`."),
    "max_new_tokens": translated("`max_tokens`."),
    "temperature": translated("`temperature`."),
    "top_p": translated("`top_p`."),
    "top_k": translated("`top_k`."),
    "stop": translated("`stop`."),
    "stream": translated("`stream`, with `stream_options.include_usage`."),
    "cache": translated("Not sent: it tells Tollgate whether a stored answer may be used."),
}
DOCUMENTED: Final[Mapping[str, Table]] = {"Body": FIELDS}


def to_chat(asked: Mapping[str, Any]) -> Object:
    refuse_unknown(asked, FIELDS)
    fields.flag(asked, "cache")
    return chat.given(
        model=asked.get("model"),
        messages=[{"role": "user", "content": chat.text_of(asked.get("prompt"), "prompt")}],
        max_tokens=fields.respelled(asked, "max_new_tokens", MOST_OUTPUT_TOKENS),
        temperature=_number(asked, "temperature"),
        top_p=_number(asked, "top_p"),
        top_k=fields.whole(asked, "top_k", MOST_TOP_K),
        stop=_stops(asked),
        **chat.streamed(fields.flag(asked, "stream")),
    )


def refuse_unknown(asked: Mapping[str, Any], known: Collection[str]) -> None:
    """null counts as absent."""
    for name, value in asked.items():
        if name not in known and value is not None:
            raise BadRequest(f"{name}: is not known here. Known: {', '.join(known)}.", param=name)


def answer(asked: Mapping[str, Any], chat_answer: Mapping[str, Any], now: int) -> Object:
    events = Events(asked)
    events.feed(chat.as_chunk(chat_answer))
    events.finish(now)
    return events.whole()


def statement(*, cached: bool, charge_nanos: int | None, request_id: str) -> Object:
    """What an answer says besides of its call, once that is settled. The charge is null while it is not known."""
    return with_credits({"cached": cached, "charge_nanos": charge_nanos}) | {"request_id": request_id}


def error(error: Mapping[str, Any], status: int, request_id: str | None = None) -> Object:
    """Our errors have this shape already."""
    return {"error": dict(error)}


class Events(ChatEvents):
    """Each event has a piece of the output. The last has none, and what else there is to say."""

    _failure: Object | None = None

    def whole(self) -> Object:
        """With the error, if the upstream failed half-way."""
        shown = self._shown("".join(item.text for item in self.items.all if item.kind in SHOWN))
        return shown if self._failure is None else {**shown, "finish_reason": "error", **self._failure}

    def began(self) -> list[Object]:
        return []

    def opened(self, item: Item) -> list[Object]:
        return []

    def added(self, item: Item, text: str) -> Object | None:
        return {"output": text} if item.kind in SHOWN else None

    def closed(self, item: Item) -> list[Object]:
        return []

    def ended(self, now: int) -> list[Object]:
        return [self._shown("")]

    def failed(self, failure: Mapping[str, Any], status: int) -> list[Object]:
        self._failure = error(upstream_errors.in_words(failure, status), status)
        return [self._failure]

    def _shown(self, output: str) -> Object:
        about = {"model": self.model, "output": output, "finish_reason": self.facts.finish_reason}
        return about | {name: _count(self.facts.usage.get(name)) for name in ("prompt_tokens", "completion_tokens")}


def _count(reported: object) -> int | None:
    return reported if isinstance(reported, int) and reported >= 0 else None


def _number(asked: Mapping[str, Any], name: str) -> Any:
    value = asked.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, Decimal))):
        malformed(name, "a number")
    return value


def _stops(asked: Mapping[str, Any]) -> Any:
    """A text, or a list of them."""
    stops = asked.get("stop")
    texts = [] if stops is None else stops if isinstance(stops, list) else [stops]
    if len(texts) > MOST_STOPS or not all(isinstance(one, str) and len(one) <= LONGEST_STOP for one in texts):
        malformed("stop", f"at most {MOST_STOPS} texts of at most {LONGEST_STOP} characters")
    return stops
