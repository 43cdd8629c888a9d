"""The ledger, as operators see it: transfers, and their sums."""

from typing import Literal

from pydantic import BaseModel, Field

from tollgate.admin.schemas.credits import MOST_NANOS
from tollgate.credits.schemas import TransferFields, TransferKind, TransferQuery
from tollgate.web.schemas import Amounts, Credits, Line, Moment

Account = Literal["wallet", "funding", "promotion", "revenue", "writeoff"]


class Transfer(TransferFields):
    org_id: str
    org_name: str
    debit: Account = Field(description="The account that the amount left.")
    credit: Account = Field(description="The account that received the amount.")
    amount_nanos: int
    amount_credits: Credits
    refundable_nanos: int | None = Field(description="What is left to refund of a charge; null for other kinds.")
    refundable_credits: Credits | None
    reference: str = Field(description="What caused the transfer; unique together with the kind.")


class PostedTransfer(Transfer):
    created: bool = Field(description="False when the Idempotency-Key was used before: then this is the first answer.")


class TransferFilters(TransferQuery):
    org_id: Line | None = Field(None, description="Only transfers of this org.")
    debit: Account | None = Field(None, description="Only transfers from this account.")
    credit: Account | None = Field(None, description="Only transfers to this account.")
    min_nanos: int | None = Field(None, ge=1, le=MOST_NANOS, description="Only amounts of at least this.")
    max_nanos: int | None = Field(None, ge=1, le=MOST_NANOS, description="Only amounts of at most this.")


class Sums(Amounts):
    today_nanos: int = Field(description="Since midnight UTC.")
    today_credits: Credits
    last_7_days_nanos: int
    last_7_days_credits: Credits
    last_30_days_nanos: int
    last_30_days_credits: Credits
    all_nanos: int
    all_credits: Credits


class Flow(Sums):
    kind: TransferKind
    debit: Account
    credit: Account


class AccountSums(Sums):
    account: Account = Field(description="The sums are what it received less what left it; over all accounts, zero.")


class Outstanding(Amounts):
    orgs: int
    credits: Credits = Field(description="The sum of all balances: what orgs may still spend.")
    credits_nanos: int
    held_nanos: int = Field(description="The part of it that open requests hold.")
    held_credits: Credits
    overdrawn_orgs: int
    overdrawn_nanos: int
    overdrawn_credits: Credits


class CreditSummary(BaseModel):
    at: Moment
    flows: list[Flow] = Field(description="Sums by kind, debit account and credit account.")
    accounts: list[AccountSums]
    outstanding: Outstanding
