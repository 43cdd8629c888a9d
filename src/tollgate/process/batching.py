"""Natural batching: what arrives while a call is under way leaves together in the next one.

One balance row serialises its org's requests at the speed of a commit. Batched, many share one commit; a lone
request never waits, since nothing is under way. A batch leaves at the end of the loop's turn: what one answer
of the database set free in that turn comes back together, where otherwise the first would leave the rest behind.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tollgate.core.errors import InternalError, TollgateError

Item = dict[str, Any]
Answers = dict[str, Any]
"""By the ids of the items."""


class Batch:
    """Sends items through one function that takes many and answers many."""

    def __init__(self, send: Callable[[list[Item]], Awaitable[Answers]], *, lanes: int, most: int) -> None:
        self._send = send
        self._lanes = lanes
        self._most = most
        self._waiting: list[tuple[Item, asyncio.Future[Any]]] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._starting = False

    async def ask(self, item: Item) -> Any:
        """The answer to this item. Cancelling the asker takes nothing back: the item may be under way already."""
        return await self.put(item)

    def put(self, item: Item) -> asyncio.Future[Any]:
        """The answer that will come, for those who care for it even when nobody waits for it any more."""
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

    async def _carry(self, batch: list[tuple[Item, asyncio.Future[Any]]]) -> None:
        refusal: TollgateError | None = None
        try:
            answers = await self._send([item for item, _ in batch])
            for item, answer in batch:
                if item["id"] in answers and not answer.done():
                    answer.set_result(answers[item["id"]])
        except InternalError as error:
            refusal = error
            if len(batch) > 1:  # an item broke the function: alone, its neighbours get through
                for one in batch:
                    await self._carry([one])
        except TollgateError as error:
            refusal = error
        finally:
            for _, answer in batch:  # nobody waits for ever, whatever happened
                if not answer.done():
                    answer.set_exception(refusal or InternalError())
                    answer.exception()  # read here: its asker may have left, and Python complains of what nobody reads
