"""One request with all that is stored of it, as operators see it."""

from pydantic import Field

from tollgate.admin.schemas.audit import AuditEvent
from tollgate.admin.schemas.transfers import Transfer
from tollgate.usage import request
from tollgate.usage.schemas import PaidRequestRow


class PaidRequestLife(request.RequestLife, PaidRequestRow):
    hold: request.PaidHold
    attempts: list[request.PaidAttempt] = Field(description="What was sent upstream, in order; at most 20.")
    settlement: request.PaidSettlement
    transfers: list[Transfer] = Field(description="Its rows of the ledger: charge, late correction, refunds.")
    events: list[AuditEvent] = Field(description="Such as credits.overdrawn and settlement.late, oldest first.")
    content: request.Content | None = Field(description="Null unless `include` asks for it, and where none was kept.")
