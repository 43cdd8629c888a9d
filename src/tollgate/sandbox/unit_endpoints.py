"""What the endpoints share that are priced by units: images, rerank and moderations answer in one piece of JSON."""

from collections.abc import Callable
from typing import Any, NamedTuple

from starlette.types import Receive, Scope, Send

from tollgate.sandbox import billing, delivery
from tollgate.sandbox.catalog import Behaviour, Model
from tollgate.sandbox.client_connection import ClientConnection
from tollgate.sandbox.encoding import encode_with, utf8
from tollgate.sandbox.generation import ApiType, Generation
from tollgate.sandbox.parameters import Body
from tollgate.sandbox.prices import Used
from tollgate.sandbox.refusals import Refusal
from tollgate.sandbox.request_reading import take
from tollgate.sandbox.state import State


class Made(NamedTuple):
    answer: dict[str, Any]
    used: Used
    counts: dict[str, int] | None
    """What the usage states beside the cost; None for an answer that has no usage."""


Make = Callable[[Body, Generation], Made]


class UnitEndpoint:
    def __init__(self, state: State, behaviour: Behaviour, api_type: ApiType, make: Make) -> None:
        self._state = state
        self._behaviour = behaviour
        self._api_type: ApiType = api_type
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with ClientConnection(receive, send) as client:
            job, body = await take(self._state, client, scope, self._serves)
            generation = Generation(self._state.new_id(), job, self._api_type, False, self._state.clock())
            made = self._make(body, generation)
            self._state.ledger.open(generation)
            self._state.end(generation, made.used, "stop")
            usage = {} if made.counts is None else self._usage(generation, made.counts)
            answer = {name: value for name, value in made.answer.items() if name != "id" or "no-id" not in job.faults}
            await delivery.whole(client, generation, utf8(encode_with(answer, usage)))

    def _serves(self, model: Model) -> bool:
        return model.behaviour == self._behaviour

    def _usage(self, generation: Generation, counts: dict[str, int]) -> dict[str, Any]:
        return billing.reported(counts | billing.stated_cost(generation.bill), generation.faults)


def text(body: Body, name: str) -> str:
    given = body.get(name)
    if not isinstance(given, str) or not given:
        raise Refusal(400, f"Invalid input: '{name}' must be a non-empty string")
    return given


def whole(body: Body, name: str, usual: int, most: int) -> int:
    given = usual if body.get(name) is None else body[name]
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= most:
        raise Refusal(400, f"Invalid input: '{name}' must be between 1 and {most}")
    return given
