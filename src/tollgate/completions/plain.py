"""An answer in one piece. Its call runs to the end even if the client leaves, since all of it is paid for."""

import contextlib
from collections.abc import Mapping
from typing import Any, Final

from starlette.types import Send

from tollgate.completions.outlet import response_start
from tollgate.completions.own_counts import AnyAnswer
from tollgate.completions.paid_call import PaidCall
from tollgate.completions.settlements import Settled

NOT_WATCHED: Final = contextlib.nullcontext()


class PlainAnswer:
    client_left = False

    def __init__(self, call: PaidCall, send: Send) -> None:
        self._call = call
        self._send = send

    def watched(self) -> contextlib.nullcontext[None]:
        return NOT_WATCHED

    async def before_sending(self) -> None:
        """A plain answer is paid for even if the client has left."""

    async def relay(self, reply: AnyAnswer) -> None:
        self._call.take_answer(await reply.read())

    def stored(self) -> Mapping[str, Any] | None:
        call, reply = self._call, self._call.reply
        if call.answer is None or reply is None or reply.refused or call.failure:
            return None
        return call.stored(reply.status, content_type(reply), call.answer)

    async def finish(self, settled: Settled | None) -> None:
        if self._call.failure:
            raise self._call.failure
        await send_plain(self._call, settled, self._send)


async def send_plain(call: PaidCall, settled: Settled | None, send: Send) -> None:
    """The upstream's own answer. What it cost is in the headers."""
    assert call.reply and call.answer is not None  # noqa: S101, PT018
    length = {"content-length": str(len(call.answer))}
    headers = {**call.limit_headers, **call.reply.headers, **call.own_headers, **charge_headers(settled), **length}
    await send(response_start(call.reply.status, headers))
    await send({"type": "http.response.body", "body": call.answer})


def content_type(reply: AnyAnswer) -> str:
    return reply.headers.get("content-type", "application/json")


def charge_headers(settled: Settled | None) -> dict[str, str]:
    """Without a charge while the cost is not known yet."""
    headers: dict[str, str] = {}
    if settled and settled.get("charge_nanos") is not None:
        headers["x-tollgate-charge-nanos"] = str(settled["charge_nanos"])
    if settled and settled.get("balance_nanos") is not None:
        headers["x-tollgate-balance-nanos"] = str(settled["balance_nanos"])
    return headers
