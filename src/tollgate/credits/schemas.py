"""Transfers, as everyone may see them."""

from typing import Literal

from pydantic import Field

from tollgate.web.schemas import Amounts, Credits, Moment, PageQuery

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


class TransferQuery(PageQuery):
    kind: TransferKind | None = None
    since: Moment | None = Field(None, alias="from", description="From this time on.")
    until: Moment | None = Field(None, alias="to", description="Before this time.")
    sort: Literal["created_at:desc", "created_at:asc"] = "created_at:desc"
