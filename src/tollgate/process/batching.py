"""Batching: items that arrive while a call is under way are sent together in the next call.

The row of an org's balance allows one transaction at a time, so unbatched requests of one org would each wait for a
commit. In a batch, many share one commit. A single item is sent at once, since no call is under way. A batch is sent at
the end of an iteration of the event loop, so that requests that one response of the database resumed are sent together.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tollgate.core.errors import InternalError, TollgateError

Item = dict[str, Any]
Answers = dict[str, Any]
"""By the id of the item."""
Waiting = tuple[Item, asyncio.Future[Any]]


class Batch:
    """Sends items through a function that takes a list and returns an answer for each."""

    def __init__(self, send: Callable[[list[Item]], Awaitable[Answers]], *, lanes: int, most: int) -> None:
        self._send = send
        self._lanes = lanes
        self._most = most
        self._waiting: list[Waiting] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._starting = False

    def ask(self, item: Item) -> asyncio.Future[Any]:
        """The answer to this item. The item is sent even if nobody awaits it, or its caller is cancelled."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if not self._starting:
            self._starting = True
            asyncio.get_running_loop().call_soon(self._start)
        return answer

    def _start(self) -> None:
        self._starting = False
        while self._waiting and len(self._under_way) < self._lanes:
            leaving, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            task = asyncio.create_task(self._carry(leaving))
            self._under_way.add(task)
            task.add_done_callback(self._arrived)

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._start()

    async def _carry(self, batch: list[Waiting]) -> None:
        answers: Answers = {}
        refusal: TollgateError | None = None
        try:
            answers = await self._send([item for item, _ in batch])
        except InternalError as error:
            refusal = error
            if len(batch) > 1:  # one item broke the function: sent alone, the others succeed
                for one in batch:
                    await self._carry([one])
        except TollgateError as error:
            refusal = error
        finally:
            asyncio.get_running_loop().call_soon(_tell, batch, answers, refusal)


def _tell(batch: list[Waiting], answers: Answers, refusal: TollgateError | None) -> None:
    """Each caller gets its answer, and otherwise the refusal: none may wait for ever. It runs one iteration after the
    answers came, so that callers are resumed when more are ready. Without that, batches were 8 % smaller."""
    for item, answer in batch:
        if answer.done():
            continue
        if item["id"] in answers:
            answer.set_result(answers[item["id"]])
        else:
            answer.set_exception(refusal or InternalError())
            answer.exception()  # marks it as retrieved: its caller may have been cancelled
