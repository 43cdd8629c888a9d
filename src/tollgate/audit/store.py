"""Audit events, security events, the compliance report and the hash chains in the database."""

from collections.abc import Sequence
from typing import Any

from tollgate.database import Door, Json

Counted = Sequence[dict[str, Any]]


async def events(door: Door, filters: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_audit_events", filters=filters, page_size=page_size)


async def event(door: Door, event_id: str) -> Json:
    return await door.call("tollgate_audit_event", event_id=event_id)


async def security_events(door: Door, filters: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_security_events", filters=filters, page_size=page_size)


async def security_event(door: Door, event_id: str) -> Json:
    return await door.call("tollgate_security_event", event_id=event_id)


async def acknowledge_security_event(door: Door, event_id: str, note: str | None) -> Json:
    return await door.call("tollgate_acknowledge_security_event", event_id=event_id, note=note)


async def write_security_counts(
    door: Door,
    refusals: Counted,
    trespasses: Counted,
    uses: Counted,
    refused_calls: Counted = (),
    spreads: Counted = (),
) -> Json:
    return await door.call(
        "tollgate_write_security_counts",
        refusals=refusals,
        trespasses=trespasses,
        uses=uses,
        refused_calls=list(refused_calls),
        spreads=list(spreads),
    )


async def detect_patterns(door: Door) -> Json:
    return await door.call("tollgate_detect_patterns")


async def compliance_report(door: Door, since: str, until: str, books: bool | None) -> Json:
    return await door.call("tollgate_compliance_report", since=since, until=until, books=books)


async def audit(door: Door, wanted: bool | None) -> Json:
    return await door.call("tollgate_audit", wanted=wanted)


async def sight_chains(door: Door) -> Json:
    return await door.call("tollgate_sight_chains")


async def chains_at(door: Door, sighted: dict[str, Any]) -> Json:
    return await door.call("tollgate_chains_at", sighted=sighted)
