"""OpenAI's own way, which every other server follows but for what its own file says."""

from collections.abc import Callable

from tollgate.core import request_body, strict_json
from tollgate.core.models import Route
from tollgate.core.request_body import Ask
from tollgate.core.sse import Event
from tollgate.core.strict_json import NotJson
from tollgate.upstreams.dialects import refusals
from tollgate.upstreams.rules import Refusal

Shown = Callable[[Event], bytes | None]
"""What a client sees of an event: its bytes, fewer of them, or nothing of it."""


class OpenAI:
    continuous = False
    """Can tell, in every chunk, what has been used so far. Then a stream that is cut can be charged exactly."""
    knows_only_max_tokens = False
    """Ignores the newer name of the bound, so that a bound under it would be none."""
    headers: tuple[str, ...] = ()
    """The client's, that it understands."""

    def prepare(self, body: bytes, ask: Ask, route: Route, bound: int | None) -> bytes:
        """The body for this route: its name for the model, the granted bound, and a wish to know the usage."""
        if route.model != ask.model:
            body = request_body.renamed(body, route.model)
        if ask.fallbacks:
            body = strict_json.without(body, "models")  # falling back is ours to do, and this server does not know how
        body = self._bounded(body, ask, bound)
        return request_body.asking_for_usage(body, continuous=self.continuous) if ask.stream else body

    def shown(self, ask: Ask) -> Shown:
        """As if only the client had asked: the usage that we wanted is taken out again."""
        if not ask.stream or ask.continuous_usage:
            return as_it_came
        if ask.include_usage:
            return _usage_at_the_end if self.continuous else as_it_came
        return _without_usage

    def refusal(self, status: int, content_type: str, body: bytes) -> Refusal:
        """Objects of OpenAI's shape pass as they are; the rest is put into it, without what is nobody's business."""
        return refusals.read(status, content_type, body)

    def bound_field(self, ask: Ask) -> str:
        """Under which a bound goes up. A second name for the client's own must never be added to it."""
        return "max_tokens" if self.knows_only_max_tokens else ask.bound_field or "max_tokens"

    def _bounded(self, body: bytes, ask: Ask, bound: int | None) -> bytes:
        if ask.endpoint == "embeddings":
            return body
        field = self.bound_field(ask)
        renames = ask.bound_field is not None and field != ask.bound_field
        if renames:
            body = strict_json.without(body, str(ask.bound_field))
            bound = ask.bound if bound is None else bound
        return body if bound is None else request_body.granted(body, bound, field)


def as_it_came(event: Event) -> bytes | None:
    return event.raw


def _without_usage(event: Event) -> bytes | None:
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
    return _with_data(event, strict_json.without(event.data, "usage"))


def _with_data(event: Event, data: bytes) -> bytes:
    """The event with other data, its line ends and all else as they were."""
    before, found, after = event.raw.partition(event.data)
    if found:
        return before + data + after
    return b"".join(b"data: " + line + b"\n" for line in data.split(b"\n")) + b"\n"
