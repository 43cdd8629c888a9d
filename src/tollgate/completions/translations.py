"""Responses, Messages and Generate by a server that lacks them: the request is translated to a chat completion, and its
answer back.

The call is priced as the client sent it. The answer is metered as the chat completion that it is.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from tollgate.completions import charge_shown
from tollgate.completions.answer_forms import AnswerForm
from tollgate.completions.charge_shown import UNKNOWN, Amounts
from tollgate.core import dialects, request_body, strict_json
from tollgate.core.dialects import BY_ENDPOINT, Translation, in_event, written
from tollgate.core.endpoints import Endpoint
from tollgate.core.errors import TollgateError
from tollgate.core.request_body import Ask
from tollgate.core.sse import Event, Events, Tally
from tollgate.core.strict_json import NotJson

LAST = ("message_delta", "response.completed", "response.incomplete")
"""The events that state the usage of a complete answer."""


class Translated(NamedTuple):
    """A call as one for chat completions."""

    by: Translation
    asked: Mapping[str, Any]
    ask: Ask
    body: bytes

    def answer(self, document: Mapping[str, Any], now: int) -> bytes:
        return written(self.by.answer(self.asked, document, now))


def translated(endpoint: Endpoint, body: bytes) -> Translated:
    """Raises BadRequest for what cannot be translated."""
    by = BY_ENDPOINT[cast("dialects.Translated", endpoint)]
    asked = request_body.parse(body)
    chat = by.to_chat(asked)
    sent = written(chat)
    return Translated(by, asked, request_body.read(sent, "chat"), sent)


class TranslatingRelay:
    """Takes the pieces of a chat stream, and gives the events of the client's endpoint. The last events wait for the
    settlement."""

    def __init__(
        self,
        call: Translated,
        form: AnswerForm,
        tally: Tally,
        shown: Callable[[Event], bytes | None],
        *,
        hides_cost: bool,
        statement: Callable[[], Mapping[str, Any]],
        now: int,
    ) -> None:
        """`statement` is what the last event of a complete answer says of the settled call, where its form has that."""
        self.tally = tally
        self._by = call.by
        self._form = form
        self._shown = shown
        self._hides_cost = hides_cost
        self._statement = statement
        self._now = now
        self._events = Events()
        self._translator = call.by.Events(call.asked)
        self._last: list[dict[str, Any]] | None = None

    def take(self, piece: bytes) -> bytes:
        return b"".join([self._pass(event) for event in self._events.feed(piece)])

    def rest(self) -> bytes:
        return b"".join([self._pass(event) for event in self._events.finish()])

    def tail(self, amounts: Amounts, charge: Mapping[str, Any] | None = None) -> bytes:
        """The last events of a complete answer. What failed has ended with its failure already."""
        if self.tally.ending == "cut":
            return b""
        if self._last is None:
            self._last = self._translator.finish(self._now)
        last = [self._stated(event) for event in self._last] if self._form.states_charge else self._last
        return b"".join([self._priced(event, amounts, charge) for event in last]) + self._by.END

    def failed(self, error: TollgateError, request_id: str) -> bytes:
        """The last events of an answer that broke off; none if it has failed already."""
        events = self._translator.fail(error.body()["error"], error.status)
        named = [event | {"request_id": request_id} if "request_id" in event else event for event in events]
        return b"".join(map(in_event, named)) + self._by.END if events else b""

    def _stated(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        return event if "error" in event else {**event, **self._statement()}

    def _pass(self, event: Event) -> bytes:
        if not event.data:
            return event.raw
        self.tally.see(event.data)
        shown = self._shown(event)
        try:
            chunk = strict_json.from_upstream(event.data) if shown else {}
        except NotJson:  # [DONE], or what the tally could not read either
            return b""
        return b"".join([self._priced(told, UNKNOWN, None) for told in self._translator.feed(chunk)])

    def _priced(self, event: Mapping[str, Any], amounts: Amounts, charge: Mapping[str, Any] | None) -> bytes:
        told = in_event(event)
        if self._hides_cost and b"cost" in told:
            told = charge_shown.in_event(told, amounts, self._form.usage_in)
        if charge and event.get("type") in LAST:
            told = charge_shown.with_charge(told, charge, self._form.usage_in[:1])
        return told
