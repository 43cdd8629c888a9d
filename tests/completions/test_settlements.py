"""The two calls that move credits, when nobody can say whether they have: made again with the same id, paid once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from completions.paid import HOLD, Auditor, Client, Watched, an_item, app, cancelled_at, eventually, rooms
from gateway import BOTH_DOORS, ONE_DOOR, Upstream
from people import Person
from sandbox.serving import a_chat
from tollgate.completions import settlements as ours
from tollgate.completions.settlements import Settlements
from tollgate.core.errors import DatabaseUnavailable, InternalError, TollgateError
from tollgate.database import Door

pytestmark = BOTH_DOORS

Customer = Callable[..., Awaitable[Person]]


class Time:
    """Passes when somebody pauses, fifty times as fast, unless it is stopped."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.passes = asyncio.Event()
        self.passes.set()

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(seconds / 50)
        await self.passes.wait()
        self.now += seconds


def first(times: int) -> Callable[[str], bool]:
    """True for the first so many calls of each function."""
    left: dict[str, int] = {}

    def is_one(function: str) -> bool:
        left[function] = left.get(function, times) - 1
        return left[function] >= 0

    return is_one


@pytest.fixture
def auditor(shared_database: str) -> Auditor:
    return Auditor(shared_database)


@pytest.fixture
def watched(door: Door) -> Watched:
    return Watched(door)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def settlements(watched: Watched, time: Time) -> Settlements:
    return Settlements(watched, clock=time, randomness=lambda: 0.5, pause=time.pause)


def settled(item: dict[str, Any], charge: int = 700) -> dict[str, Any]:
    return {"id": item["id"], "outcome": "settled", "charge_nanos": charge, "cost_nanos": charge}


async def test_an_admission_whose_answer_is_lost_is_asked_for_again_and_holds_once(
    customer: Customer, watched: Watched, settlements: Settlements, auditor: Auditor, time: Time
) -> None:
    someone = await customer()
    item = an_item(someone)
    watched.loses = first(2)
    assert (await settlements.admit(item))["granted"]["held_nanos"] == HOLD
    assert watched.calls == ["admit"] * 3
    assert [each[0]["id"] for each in watched.items] == [item["id"]] * 3
    assert time.pauses == [0.1, 0.2]
    assert len(await auditor.requests(someone)) == 1


async def test_a_settlement_whose_answer_is_lost_is_made_again_and_charged_once(
    customer: Customer, watched: Watched, settlements: Settlements, auditor: Auditor
) -> None:
    someone = await customer()
    item = an_item(someone)
    await settlements.admit(item)
    watched.loses = first(3)
    answer = await settlements.settle(settled(item))
    assert answer is not None
    assert (answer["charge_nanos"], answer["again"]) == (700, True)
    assert watched.calls == ["admit"] + ["settle"] * 4
    await auditor.agree(someone, spent=700)


@ONE_DOOR
@pytest.mark.parametrize("state", ["40P01", "08006", "57P01", "53300", "55P03", "57014", "25006"])
async def test_what_may_pass_is_tried_again(
    shared_database: str,
    customer: Customer,
    door: Door,
    watched: Watched,
    settlements: Settlements,
    auditor: Auditor,
    state: str,
) -> None:
    """A deadlock, a lost connection, a server that shuts down or is full: as each door tells of it."""
    someone = await customer()
    failed = {"admit": False, "settle": False}

    class Failing(Watched):
        async def call(self, function: str, **arguments: Any) -> Any:
            name = function.removeprefix("tollgate_")
            if not failed[name]:
                failed[name] = True
                await door.call("tollgate_test_fail", state=state)
            return await super().call(function, **arguments)

    time = Time()
    settlements = Settlements(Failing(door), clock=time, randomness=lambda: 0.5, pause=time.pause)
    item = an_item(someone)
    assert "granted" in await settlements.admit(item)
    assert (await settlements.settle(settled(item)) or {})["charge_nanos"] == 700
    assert all(failed.values())
    await auditor.agree(someone, spent=700)


async def test_a_refusal_is_not_asked_for_twice(customer: Customer, watched: Watched, settlements: Settlements) -> None:
    someone = await customer(nanos=HOLD - 1)
    assert (await settlements.admit(an_item(someone)))["refusal"]["code"] == "insufficient_credits"
    assert watched.calls == ["admit"]


async def test_what_was_admitted_unheard_is_given_back_when_the_database_returns(
    customer: Customer, watched: Watched, settlements: Settlements, auditor: Auditor, time: Time
) -> None:
    someone = await customer()
    is_gone = False

    def loses(function: str) -> bool:
        nonlocal is_gone
        is_gone = True
        return True

    watched.loses = loses
    watched.fails = lambda function: DatabaseUnavailable() if is_gone else None
    with pytest.raises(DatabaseUnavailable):
        await settlements.admit(an_item(someone))
    assert time.now <= ours.ADMIT_PATIENCE_SECONDS
    time.passes.clear()  # else it may be given up before we have looked
    assert (await auditor.request(someone))["state"] == "held"
    is_gone, watched.loses = False, lambda function: False
    time.passes.set()
    await auditor.ended(someone, "released")
    await auditor.agree(someone, spent=0)


async def test_an_admission_that_arrives_after_it_was_given_up_is_given_back(
    customer: Customer, door: Door, settlements: Settlements, watched: Watched, auditor: Auditor, time: Time
) -> None:
    """The server works on, or a proxy hands it over late: giving back what is not there yet is no end."""
    someone = await customer()
    item = an_item(someone)
    watched.fails = lambda function: DatabaseUnavailable() if function == "admit" else None
    with pytest.raises(DatabaseUnavailable):
        await settlements.admit(item)
    time.passes.clear()  # else all looks may be over before it arrives
    await eventually(lambda: "settle" in watched.calls and not watched.under_way)  # refused: there is no such request
    await door.call("tollgate_admit", items=[item])
    time.passes.set()
    await auditor.ended(someone, "released")
    await auditor.agree(someone, spent=0)


async def test_what_is_given_back_is_not_looked_for_for_ever(
    customer: Customer, settlements: Settlements, watched: Watched, time: Time
) -> None:
    watched.fails = lambda function: DatabaseUnavailable() if function == "admit" else None
    with pytest.raises(DatabaseUnavailable):
        await settlements.admit(an_item(await customer()))
    await eventually(lambda: settlements.is_quiet)
    assert 2 <= watched.calls.count("settle") < 15
    assert time.now < 60


@pytest.mark.parametrize("step", range(1, 6))
async def test_an_asker_who_is_cancelled_at_any_of_its_awaits_leaves_no_hold_behind(
    customer: Customer, settlements: Settlements, watched: Watched, auditor: Auditor, step: int
) -> None:
    """Two answers are lost, so it asks, pauses, asks, pauses and asks."""
    someone = await customer()
    watched.loses = first(2)
    taken = [0]

    async def asking() -> None:
        await cancelled_at([step], settlements.admit(an_item(someone)), taken)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(asking())
    assert taken == [step]
    await eventually(lambda: settlements.is_quiet)
    assert {row["state"] for row in await auditor.requests(someone)} <= {"released"}
    await auditor.agree(someone, spent=0)


async def test_an_asker_who_is_cancelled_while_the_answer_is_on_its_way_leaves_no_hold_behind(
    customer: Customer, door: Door, time: Time, auditor: Auditor
) -> None:
    someone = await customer()
    answered, heard = asyncio.Event(), asyncio.Event()

    class Late(Watched):
        async def call(self, function: str, **arguments: Any) -> Any:
            answer = await super().call(function, **arguments)
            answered.set()
            await heard.wait()
            return answer

    settlements = Settlements(Late(door), clock=time, randomness=lambda: 0.5, pause=time.pause)
    admitting = asyncio.create_task(settlements.admit(an_item(someone)))
    await answered.wait()
    assert (await auditor.request(someone))["state"] == "held"
    admitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await admitting
    heard.set()
    await eventually(lambda: settlements.is_quiet)
    await auditor.ended(someone, "released")
    await auditor.agree(someone, spent=0)


@pytest.mark.parametrize("after", range(5))
async def test_a_settlement_goes_on_when_its_asker_is_cancelled(
    customer: Customer, settlements: Settlements, watched: Watched, auditor: Auditor, after: int
) -> None:
    someone = await customer()
    item = an_item(someone)
    await settlements.admit(item)
    watched.fails = lambda function: DatabaseUnavailable() if watched.calls.count("settle") < 4 else None
    settling = asyncio.create_task(settlements.settle(settled(item)))
    await asyncio.sleep(0)
    await eventually(lambda: watched.calls.count("settle") >= after - 1)
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    await auditor.ended(someone, "settled")
    await auditor.agree(someone, spent=700)


@pytest.mark.parametrize("error", [DatabaseUnavailable(), InternalError()])
async def test_a_settlement_that_cannot_be_made_is_left_to_the_sweeper(
    customer: Customer, settlements: Settlements, watched: Watched, auditor: Auditor, time: Time, error: TollgateError
) -> None:
    someone = await customer()
    item = an_item(someone)
    await settlements.admit(item)
    watched.fails = lambda function: error
    assert await settlements.settle(settled(item)) is None
    assert time.now <= ours.SETTLE_PATIENCE_SECONDS
    assert (await auditor.request(someone))["state"] == "held"


@pytest.mark.parametrize("error", [DatabaseUnavailable(), InternalError()])
async def test_a_generation_that_cannot_be_noted_stops_nothing(
    settlements: Settlements, watched: Watched, error: TollgateError
) -> None:
    watched.fails = lambda function: error
    await settlements.note_generation("req_1", "gen-1", "openrouter")


@pytest.mark.parametrize("stream", [False, True])
async def test_the_answer_is_delivered_though_it_cannot_be_settled_and_is_swept_later(
    customer: Customer, door: Door, watched: Watched, auditor: Auditor, sandbox: Upstream, stream: bool
) -> None:
    someone = await customer()
    loop = asyncio.get_running_loop()
    async with app(watched, sandbox, clock=lambda: loop.time() * 50) as made:  # so that patience ends soon
        watched.fails = lambda function: DatabaseUnavailable() if function == "settle" else None
        client = Client(someone, a_chat(stream=stream))
        await client.call(made)
    assert client.messages[0]["status"] == 200
    assert b"hello there, sandbox" in client.body if not stream else client.body.endswith(b"data: [DONE]\n\n")
    assert b"x-tollgate-charge-nanos" not in dict(client.messages[0]["headers"])
    row = await auditor.request(someone)
    assert row["state"] == "held"
    await auditor.hasten(someone)
    async with rooms(door, sandbox.url) as ours:
        swept = await ours.sweeper.sweep()
    if stream:  # its generation was noted
        assert swept["settled"] == 1
        await auditor.agree(someone, spent=sandbox.owed_nanos)
    else:
        assert swept["estimated"] == 1
        row = await auditor.request(someone)
        assert row["charge_nanos"] <= row["hold_nanos"]
        await auditor.agree(someone)


async def test_an_item_that_breaks_the_settlement_does_not_stop_a_sweep(
    customer: Customer, door: Door, watched: Watched, auditor: Auditor
) -> None:
    someone = await customer()
    items = [an_item(someone) for _ in range(3)]
    await door.call("tollgate_admit", items=items)
    await auditor.hasten(someone)
    poisoned = items[1]["id"]

    def broken(function: str) -> TollgateError | None:
        broken_one = function == "settle" and poisoned in [item["id"] for item in watched.items[-1]]
        return InternalError() if broken_one else None

    watched.fails = broken
    async with rooms(watched, "http://127.0.0.1:1/api/v1") as made:
        swept = await made.sweeper.sweep()
    assert (swept["estimated"], swept["waiting"]) == (2, 1)
    states = {row["id"]: row["state"] for row in await auditor.requests(someone)}
    assert states.pop(poisoned) == "held"
    assert set(states.values()) == {"settled"}


async def test_who_ends_the_books_waits_for_what_is_under_way_but_not_for_ever(
    customer: Customer, settlements: Settlements, time: Time
) -> None:
    someone = await customer()
    item = an_item(someone)
    await settlements.admit(item)
    assert not settlements.is_quiet
    await settlements.finish()  # nobody settles it
    assert ours.FINISH_SECONDS <= time.now < 2 * ours.FINISH_SECONDS
    settling = asyncio.create_task(settlements.settle(settled(item)))
    await eventually(lambda: settlements.is_quiet)
    assert (await settling or {})["charge_nanos"] == 700
