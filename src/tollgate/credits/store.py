"""The ledger in the database."""

from tollgate.runtime.database import Door, Json


async def grant(door: Door, org_id: str, amount_nanos: int, *, source: str, reason: str, reference: str) -> Json:
    return await door.call(
        "tollgate_grant",
        org_id=org_id,
        amount_nanos=amount_nanos,
        source=source,
        reason=reason,
        reference=reference,
    )


async def audit_books(door: Door) -> Json:
    return await door.call("tollgate_audit_books")
