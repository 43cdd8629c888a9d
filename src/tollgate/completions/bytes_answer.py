"""An answer that is neither JSON nor events, such as sound: passed on as it comes, and settled before its last byte."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.types import Receive, Send

from tollgate.completions.outlet import NOT_BUFFERED, Outlet, PassedOn
from tollgate.completions.own_counts import AnyAnswer
from tollgate.completions.paid_call import PaidCall
from tollgate.completions.plain import content_type, send_plain
from tollgate.completions.settlements import Settled, Settlements
from tollgate.upstreams.attempts.reply import Reply

BLOCK_BYTES: Final = 64 * 1024
"""The most that is written at once. A client that reads slowly holds a few such blocks, and not all that has come."""


class BytesAnswer(PassedOn):
    def __init__(self, call: PaidCall, settlements: Settlements, receive: Receive, send: Send) -> None:
        self._call = call
        self._settlements = settlements
        self._send = send
        outlet = Outlet(
            send,
            {**NOT_BUFFERED, **call.limit_headers, **call.own_headers},
            keeps=call.idempotency_key is not None,
            reads_to_end=call.idempotency_key is not None,
            clock=call.clock,
            heartbeat=b"",
        )
        super().__init__(outlet, receive)
        self._last = b""
        """The last byte so far. It waits for the settlement."""

    async def relay(self, reply: AnyAnswer) -> None:
        call = self._call
        if not isinstance(reply, Reply):
            call.take_answer(await reply.read())
            return
        call.streams = True
        self._outlet.head(reply.headers)
        call.note_generation(self._settlements.note_generation)
        async with reply.in_time():
            while piece := await reply.piece():
                call.tally.events = 1
                await self._pass_on(piece)
                if call.first_token_ms is None:
                    call.first_token_ms = call.elapsed_ms
        call.tally.done = True

    async def _pass_on(self, piece: bytes) -> None:
        for start in range(0, len(piece), BLOCK_BYTES):
            block = piece[start : start + BLOCK_BYTES]
            await self._outlet.pass_on(self._last + block[:-1])
            self._last = block[-1:]

    def stored(self) -> Mapping[str, Any] | None:
        call, kept = self._call, self._outlet.kept
        if call.reply is None or call.reply.refused or call.failure or not call.tally.done or kept is None:
            return None
        return call.stored(call.reply.status, content_type(call.reply), kept + self._last)

    async def finish(self, settled: Settled | None) -> None:
        """An answer that broke off gets no end, so that nobody takes it for a complete one."""
        call, outlet = self._call, self._outlet
        if outlet.gone:
            return
        if call.failure and not outlet.started:
            raise call.failure
        if call.answer is not None:
            await send_plain(call, settled, self._send)
        elif call.failure:
            await outlet.pass_on(self._last)
        else:
            await outlet.finish(self._last)
