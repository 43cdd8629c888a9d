"""One request with all that is stored of it, as its org sees it."""

from pydantic import Field

from tollgate.account.schemas.transactions import Transaction
from tollgate.usage import request


class OwnRequestLife(request.RequestLife):
    hold: request.Hold
    attempts: list[request.Attempt] = Field(description="What was sent upstream, in order; at most 20.")
    settlement: request.Settlement
    transfers: list[Transaction] = Field(description="Its rows of the ledger: charge, late correction, refunds.")
