"""OpenAI's API. The other dialects override what differs."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from tollgate.core import sse, strict_json
from tollgate.core.endpoints import ENDPOINTS, Endpoint
from tollgate.core.models import Route
from tollgate.core.request_body import Ask
from tollgate.core.sse import Event
from tollgate.core.strict_json import Edits, NotJson
from tollgate.upstreams.dialects import refusals
from tollgate.upstreams.rules import Body, Refusal, UpstreamCall

Shown = Callable[[Event], bytes | None]
"""What the client gets of an event: its bytes, fewer of them, or None for nothing. `AT_THE_END` asks for what waits for
the next event."""
AT_THE_END: Final = Event(b"", b"")

_WITHOUT_USAGE: Final[Edits] = {"usage": None}


class OpenAI:
    continuous = False
    """Can report the usage so far in every chunk. Then a stream that breaks off is charged exactly."""
    knows_only_max_tokens = False
    """Ignores max_completion_tokens, so a bound under that name would not hold."""
    headers: tuple[str, ...] = ()
    """The client's headers that are forwarded."""
    is_paid = False
    """May charge us for what it has begun, even if we get no answer."""

    def auth(self, secret: str, endpoint: Endpoint) -> Mapping[str, str]:
        """The headers that carry our key."""
        return {"authorization": f"Bearer {secret}"}

    def forwarded(self, headers: dict[str, str]) -> dict[str, str]:
        """Of `headers`, what may be in them."""
        return headers

    takes_sound_in_json = False
    """Knows OpenRouter's JSON form of a transcription. Other servers get a form."""

    def prepare(self, call: UpstreamCall, route: Route) -> Body:
        """The body for this route."""
        if call.upload is None or (call.body and self.takes_sound_in_json):
            return strict_json.edit(call.body, self.edits(call, route))
        return call.upload.form(model=route.model.encode(), **self.form_fields(call))

    def form_fields(self, call: UpstreamCall) -> Mapping[str, bytes | None]:
        """Fields to set in a form, or to leave out."""
        return {}

    def edits(self, call: UpstreamCall, route: Route) -> Edits:
        """The route's name for the model, the granted bound, and the request for usage in a stream. Fallbacks are tried
        by us, since these servers do not know `models`."""
        edits: Edits = {"model": json.dumps(route.model)} if route.model != call.ask.model else {}
        if call.ask.fallbacks:
            edits = {"model": json.dumps(route.model), "models": None}
        if call.ask.stream and ENDPOINTS[call.ask.endpoint].asks_for_usage:
            edits = {**edits, "stream_options": partial(_asking_for_usage, self.continuous)}
        return {**edits, **self.bound_edits(call.ask, call.bound)}

    def shown(self, ask: Ask) -> Shown:
        """Takes the usage out again where only we asked for it."""
        if not ask.stream or ask.continuous_usage or not ENDPOINTS[ask.endpoint].asks_for_usage:
            return as_it_came
        if ask.include_usage:
            return _usage_at_the_end if self.continuous else as_it_came
        return without_usage

    def refusal(self, status: int, content_type: str, body: bytes) -> Refusal:
        """An error in OpenAI's shape passes unchanged. Any other is put into that shape, without internal details."""
        return refusals.read(status, content_type, body)

    def bound_field(self, ask: Ask) -> str:
        """The name of the output bound. A body must never have two of them."""
        known = ENDPOINTS[ask.endpoint].bounds
        return known[0] if self.knows_only_max_tokens or ask.bound_field not in known else ask.bound_field

    def bound_edits(self, ask: Ask, bound: int | None) -> Edits:
        if not ENDPOINTS[ask.endpoint].generates:
            return {}
        field = self.bound_field(ask)
        others = {ask.bound_field: None} if ask.bound_field not in (None, field) else {}
        sent = ask.bound if bound is None and (others or ask.respells_bound) else bound
        return {**others, field: str(sent)} if sent is not None else {**others}


def as_it_came(event: Event) -> bytes | None:
    return event.raw


def _asking_for_usage(continuous: bool, written: str | None) -> str:
    asked = {"include_usage": "true"} | ({"continuous_usage_stats": "true"} if continuous else {})
    return strict_json.edit_text("{}" if written in (None, "null") else written, asked)


def without_usage(event: Event) -> bytes | None:
    return _stripped(event, keeps_last=False)


def _usage_at_the_end(event: Event) -> bytes | None:
    """As these servers do when only include_usage was asked for: in a chunk of its own, and in no other."""
    return _stripped(event, keeps_last=True)


def _stripped(event: Event, *, keeps_last: bool) -> bytes | None:
    if b'"usage"' not in event.data:
        return event.raw
    try:
        chunk = strict_json.from_upstream(event.data)
    except NotJson:
        return event.raw
    if "usage" not in chunk:
        return event.raw
    if chunk["usage"] and chunk.get("choices") == [] and not chunk.get("error"):
        return event.raw if keeps_last else None
    return sse.with_data(event.raw, event.data, strict_json.edit(event.data, _WITHOUT_USAGE))
