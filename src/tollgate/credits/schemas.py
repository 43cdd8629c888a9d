"""Transfers, as everyone may see them."""

from typing import Literal

from pydantic import Field

from tollgate.web.schemas import Amounts, Credits, Moment, PageQuery, Period

TransferKind = Literal["grant", "charge", "refund", "adjustment"]


class TransferFields(Amounts):
    id: str
    kind: TransferKind
    change_nanos: int = Field(description="The change of the org's balance; below zero when credits left it.")
    change_credits: Credits
    balance_after_nanos: int = Field(description="The org's balance after the transfer.")
    balance_after_credits: Credits
    request_id: str | None = Field(description="The request that was charged or refunded.")
    reason: str = Field(description="Why an operator moved the credits; empty for a charge.")
    created_at: Moment


class TransferQuery(PageQuery, Period):
    kind: TransferKind | None = None
    sort: Literal["created_at:desc", "created_at:asc"] = "created_at:desc"
