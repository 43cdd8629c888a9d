"""Debug lines: what was decided about each paid call, which attempts were made, and how calls of the database were
batched. A door with them stands in the place of the plain one where LOG_LEVEL is debug.

Only the fields named here are written: no prompt, no answer, no key and no digest of one.
"""

from collections.abc import Mapping
from contextvars import Context
from typing import Any, Final

from tollgate.core.errors import TollgateError
from tollgate.database import Door, Json
from tollgate.process import logs
from tollgate.process.clock import Monotonic

database = logs.source("database")
application = logs.source("application")
upstream = logs.source("upstream")

ASKED: Final = (
    *("endpoint", "model", "models", "streamed", "prompt_tokens", "output_bound", "choices", "fixed_nanos"),
    *("output_nanos", "markup_ppm", "ttl_seconds"),
)
GRANTED: Final = ("org_id", "key_id", "hold_nanos", "output_bound", "markup_ppm", "limits")
ENDED: Final = (
    *("outcome", "upstream", "served_model", "generation_id", "status", "error_code", "prompt_tokens"),
    *("completion_tokens", "cost_nanos", "charge_nanos", "estimated", "quarantined", "duration_ms", "first_token_ms"),
)


class DebugDoor:
    def __init__(self, door: Door, clock: Monotonic) -> None:
        self._door = door
        self._clock = clock

    async def call(self, function: str, **arguments: Json) -> Json:
        started = self._clock()
        items: list[dict[str, Any]] | None = arguments.get("items")
        answer: Mapping[str, Any] = {}
        error_code = None
        try:
            answer = await self._door.call(function, **arguments)
            return answer
        except TollgateError as error:
            error_code = error.code
            raise
        finally:
            facts: dict[str, Any] = {"function": function, "duration_ms": round((self._clock() - started) * 1000, 1)}
            if error_code:
                facts["error_code"] = error_code
            if items is None:
                database.debug("database_call", **facts)
            else:  # a batch runs in the context of its first item, whose request is not that of the others
                Context().run(_tell_batch, function, items, answer, facts)

    async def close(self) -> None:
        await self._door.close()


def _tell_batch(
    function: str, items: list[dict[str, Any]], answers: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    database.debug("database_call", **facts, items=len(items))
    for item in items:
        if function == "tollgate_admit":
            _tell_admission(item, answers.get(item["id"], {}))
        elif function == "tollgate_settle":
            _tell_settlement(item, answers.get(item["id"], {}))


def _tell_admission(item: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    decision = next((name for name in ("refusal", "hit", "replay", "wait", "granted") if name in answer), "unknown")
    application.debug(
        "admission_decided",
        paid_request_id=item["id"],
        decision=decision,
        error_code=answer.get("refusal", {}).get("code"),
        asked=_of(item, ASKED),
        granted=_of(answer.get("granted", {}), GRANTED),
    )


def _tell_settlement(item: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    for attempt in item.get("attempts") or ():
        upstream.debug("attempt_ended", paid_request_id=item["id"], **attempt)
    settled = answer.get("settled", {})
    application.debug(
        "settlement_decided",
        paid_request_id=item["id"],
        ended=_of(item, ENDED),
        settled=_of(settled, ("charge_nanos", "balance_nanos")),
    )


def _of(facts: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: facts[name] for name in names if facts.get(name) is not None}
