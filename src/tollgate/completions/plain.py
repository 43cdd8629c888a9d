"""A call whose answer comes in one piece. It runs to its end even if its client leaves: it is paid for in whole."""

from typing import Any

from starlette.responses import Response

from tollgate.completions import rules
from tollgate.completions.paid_call import PaidCall, charge_headers
from tollgate.core import strict_json
from tollgate.core.errors import ServerRestarting, TooManyInFlight, UpstreamError, UpstreamGarbled
from tollgate.core.strict_json import NotJson
from tollgate.upstreams.client import Reply


async def answered(passage: PaidCall) -> Response:
    """The upstream's own answer; what it came to is in the headers."""
    ending: dict[str, Any] | None = None
    failure: UpstreamError | TooManyInFlight | ServerRestarting | None = None
    kept = settled = None
    try:
        async with passage.drain.bounds():
            reply = await passage.open()
            try:
                body = await reply.read()
            finally:
                await reply.close()
        ending, failure = judged(passage, reply, body)
        if not failure and not reply.refused:
            kept = passage.kept(reply.status, content_type(reply), body)
    except (UpstreamError, TooManyInFlight) as error:
        ending, failure = rules.failed(error, passage.admitted.routes), error
    except ServerRestarting as error:
        ending, failure = {**passage.abandoned(), **rules.STOPPED}, error
    finally:
        settled = await passage.close(ending or passage.abandoned(), kept)
    if failure:
        raise failure
    return Response(body, reply.status, {**passage.admitted.headers, **reply.headers, **charge_headers(settled)})


def judged(passage: PaidCall, reply: Reply, body: bytes) -> tuple[dict[str, Any], UpstreamError | None]:
    """What a whole reply came to, and why the client cannot have it if that is so."""
    if reply.refused:
        return rules.refused(reply.status), None
    try:
        document = strict_json.from_upstream(body)
    except NotJson:
        return rules.garbled(reply.route, reply.generation_id), UpstreamGarbled()
    passage.tally.take_whole(document)
    if passage.content:
        passage.content.take(document)
    return passage.outcome(reply, delivered=1), None


def content_type(reply: Reply) -> str:
    return reply.headers.get("content-type", "application/json")
