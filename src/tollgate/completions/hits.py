"""An answer from the cache: the stored answer, with what this call is charged in place of what the first one was."""

import base64
import contextlib
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from tollgate.cache import rules as cache
from tollgate.completions import charge_shown
from tollgate.completions.answer_forms import ANSWER_FORMS
from tollgate.completions.charge_shown import Amounts, Places
from tollgate.completions.paid_call import PaidCall
from tollgate.completions.plain import charge_headers
from tollgate.completions.stream import EVENT_STREAM, HEADERS
from tollgate.core import sse, strict_json
from tollgate.core.dialects import generate, written
from tollgate.core.sse import Event, Events, is_done
from tollgate.core.strict_json import NotJson
from tollgate.limits import rules as limits

Hit = Mapping[str, Any]
"""What the admission answers: granted, hit, settled."""


def response(call: PaidCall, found: Hit) -> Response:
    hit, settled = found["hit"], found["settled"]
    answer = hit["answer"]
    body = base64.b64decode(answer["body"])
    is_stream = answer["content_type"].startswith(EVENT_STREAM)
    amounts = Amounts(settled["charge_nanos"])
    form = ANSWER_FORMS[call.ask.endpoint]
    if form.states_charge:
        statement = generate.statement(cached=True, charge_nanos=settled["charge_nanos"], request_id=call.id)
        body = _stated_in_stream(body, statement) if is_stream else _stated(body, statement)
    elif is_stream:
        charge = call.charge_told(settled) if call.wants_charge else None
        body = _stream(body, amounts, charge, form.usage_in)
    elif b"cost" in body:
        body = charge_shown.in_answer(body, amounts)
    headers = {
        **(HEADERS if is_stream else {}),
        **limits.remaining(found["granted"].get("limits")),
        **charge_headers(settled),
        "content-type": answer["content_type"],
        "x-tollgate-request-id": call.id,
        cache.HEADER: "hit",
        "age": str(hit["age_seconds"]),
    }
    return Response(body, answer["status"], headers)


def _stated(body: bytes, statement: Mapping[str, Any]) -> bytes:
    """With what the answer says of its own call. A piece of a stream says nothing, and stays."""
    answer = strict_json.from_upstream(body)
    return written({**answer, **statement}) if statement.keys() <= answer.keys() else body


def _stated_in_stream(body: bytes, statement: Mapping[str, Any]) -> bytes:
    events = Events()
    return b"".join(
        [
            event.raw
            if is_done(event.data) or not event.data
            else sse.with_data(event.raw, event.data, _stated(event.data, statement))
            for event in (*events.feed(body), *events.finish())
        ]
    )


def _stream(body: bytes, amounts: Amounts, charge: Mapping[str, Any] | None, places: Places) -> bytes:
    """The usage of each event states the charge of this call; the last one also what X-Tollgate-Usage asks for."""
    events = Events()
    shown: list[bytes] = []
    last: int | None = None
    for event in (*events.feed(body), *events.finish()):
        if b'"usage"' in event.data and not is_done(event.data):
            last = len(shown)
            shown.append(_with_amounts(event, amounts, places))
        else:
            shown.append(event.raw)
    if charge and last is not None:
        with contextlib.suppress(NotJson):
            shown[last] = charge_shown.with_charge(shown[last], charge, places)
    return b"".join(shown)


def _with_amounts(event: Event, amounts: Amounts, places: Places) -> bytes:
    try:
        return charge_shown.in_event(event.raw, amounts, places) if b"cost" in event.data else event.raw
    except (NotJson, ValueError, IndexError):
        return event.raw
