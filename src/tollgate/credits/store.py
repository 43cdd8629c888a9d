"""The ledger in the database."""

from typing import Any

from tollgate.database import Door, Json


async def grant(door: Door, org_id: str, amount_nanos: int, *, source: str, reason: str, reference: str) -> Json:
    """For the console: no cap, and the reference is its own. Operators come by grant_credits()."""
    return await door.call(
        "tollgate_grant",
        org_id=org_id,
        amount_nanos=amount_nanos,
        source=source,
        reason=reason,
        reference=reference,
    )


async def grant_credits(door: Door, operation: dict[str, Any], caps: dict[str, int]) -> Json:
    return await door.call("tollgate_grant_credits", operation=operation, caps=caps)


async def adjust_credits(door: Door, operation: dict[str, Any], caps: dict[str, int]) -> Json:
    return await door.call("tollgate_adjust_credits", operation=operation, caps=caps)


async def refund_charge(door: Door, operation: dict[str, Any]) -> Json:
    return await door.call("tollgate_refund_charge", operation=operation)


async def transfers(door: Door, filters: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_transfers", filters=filters, page_size=page_size)


async def own_transfers(door: Door, filters: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_own_transfers", filters=filters, page_size=page_size)


async def summary(door: Door) -> Json:
    return await door.call("tollgate_credit_summary")


async def audit_books(door: Door) -> Json:
    return await door.call("tollgate_audit_books")
