import asyncio
import gc
from typing import Any

import pytest

from gateway import BOTH_DOORS
from people import Person
from tollgate.core.errors import DatabaseUnavailable, InternalError
from tollgate.database import Door
from tollgate.process.batching import Answers, Batch, Item

pytestmark = BOTH_DOORS


class Sender:
    """Keeps each call waiting until it is let through, and remembers what left together."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.through = asyncio.Event()

    async def __call__(self, items: list[Item]) -> Answers:
        self.calls.append([item["id"] for item in items])
        await self.through.wait()
        if any(item.get("broken") for item in items):
            raise InternalError
        if any(item.get("outage") for item in items):
            raise DatabaseUnavailable
        return {item["id"]: f"answer to {item['id']}" for item in items if not item.get("forgotten")}


async def settle_down() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def first_alone(batch: Batch, *items: Item) -> list[asyncio.Future[Any]]:
    """The first is under way when the others come."""
    first = asyncio.ensure_future(batch.ask(items[0]))
    await settle_down()
    rest = [asyncio.ensure_future(batch.ask(item)) for item in items[1:]]
    await settle_down()
    return [first, *rest]


async def test_a_lone_item_leaves_at_once() -> None:
    sender = Sender()
    asking = asyncio.ensure_future(Batch(sender, lanes=1, most=10).ask({"id": "a"}))
    await settle_down()
    assert sender.calls == [["a"]]
    sender.through.set()
    assert await asking == "answer to a"


async def test_what_arrives_meanwhile_leaves_together() -> None:
    sender = Sender()
    batch = Batch(sender, lanes=1, most=10)
    asking = await first_alone(batch, *({"id": name} for name in "abcd"))
    assert sender.calls == [["a"]]
    sender.through.set()
    assert await asyncio.gather(*asking) == [f"answer to {name}" for name in "abcd"]
    assert sender.calls == [["a"], ["b", "c", "d"]]


async def test_what_is_asked_in_one_turn_of_the_loop_leaves_together() -> None:
    sender = Sender()
    sender.through.set()
    batch = Batch(sender, lanes=1, most=10)
    await asyncio.gather(*(batch.ask({"id": name}) for name in "abc"))
    assert sender.calls == [["a", "b", "c"]]


async def test_a_batch_has_a_largest_size_and_lanes_run_side_by_side() -> None:
    sender = Sender()
    batch = Batch(sender, lanes=2, most=3)
    asking = [asyncio.ensure_future(batch.ask({"id": str(number)})) for number in range(9)]
    await settle_down()
    assert sender.calls == [["0", "1", "2"], ["3", "4", "5"]]
    sender.through.set()
    await asyncio.gather(*asking)
    assert [len(call) for call in sender.calls] == [3, 3, 3]


async def test_a_broken_item_fails_alone() -> None:
    sender = Sender()
    batch = Batch(sender, lanes=1, most=10)
    items: list[Item] = [{"id": "first"}, {"id": "a"}, {"id": "b", "broken": True}, {"id": "c"}]
    asking = await first_alone(batch, *items)
    sender.through.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [answers[place] for place in (0, 1, 3)] == ["answer to first", "answer to a", "answer to c"]
    assert isinstance(answers[2], InternalError)


async def test_an_outage_is_everybody_s_and_is_not_tried_again_here() -> None:
    sender = Sender()
    batch = Batch(sender, lanes=1, most=10)
    items: list[Item] = [{"id": "first"}, {"id": "a"}, {"id": "b", "outage": True}]
    asking = await first_alone(batch, *items)
    sender.through.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(answer).__name__ for answer in answers] == ["str", "DatabaseUnavailable", "DatabaseUnavailable"]
    assert len(sender.calls) == 2


async def test_an_item_that_gets_no_answer_does_not_wait_for_ever() -> None:
    sender = Sender()
    sender.through.set()
    with pytest.raises(InternalError):
        await Batch(sender, lanes=1, most=10).ask({"id": "a", "forgotten": True})


async def test_an_asker_who_leaves_takes_nobody_along() -> None:
    sender = Sender()
    batch = Batch(sender, lanes=1, most=10)
    asking = await first_alone(batch, *({"id": name} for name in "abc"))
    asking[0].cancel()
    asking[1].cancel()
    sender.through.set()
    assert await asking[2] == "answer to c"
    assert sender.calls == [["a"], ["b", "c"]]


async def test_what_fails_after_its_asker_left_is_no_unheard_exception() -> None:
    gc.collect()  # what earlier tests left is not heard here
    heard: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    sender = Sender()
    batch = Batch(sender, lanes=1, most=10)
    (asking,) = await first_alone(batch, {"id": "a", "outage": True})
    asking.cancel()
    sender.through.set()
    await settle_down()
    gc.collect()
    assert heard == []


async def test_a_malformed_item_fails_alone_in_the_database_too(door: Door, person: Any) -> None:
    someone: Person = await person()

    async def send(items: list[Item]) -> Answers:
        answers: Answers = await door.call("tollgate_admit", items=items)
        return answers

    caller = {"digests": [someone.key["digest"]], "pepper": someone.key["pepper"], "ip": "192.0.2.1"}
    good = {"caller": caller, "scope": "usage", "idempotency_key": None}
    broken = {"id": "req_broken", "caller": caller, "scope": "usage", "fixed_nanos": "many"}
    batch = Batch(send, lanes=1, most=10)
    stranger = {"id": "req_stranger", **good, "caller": caller | {"digests": ["00" * 32]}}
    first = {**stranger, "id": "req_first"}
    answers = await asyncio.gather(*(batch.ask(item) for item in (first, broken, stranger)), return_exceptions=True)
    assert isinstance(answers[1], InternalError)
    assert [answers[place]["refusal"]["code"] for place in (0, 2)] == ["invalid_api_key"] * 2
