"""The ledger as operators see it: transfers, which of them are asked for, and what they come to."""

from typing import Literal

from pydantic import BaseModel, Field

from tollgate.admin.credit_forms import MOST_NANOS
from tollgate.core.money import to_credits
from tollgate.people.rules import Line
from tollgate.web.schemas import Listed, Moment, computed

Kind = Literal["grant", "charge", "refund", "adjustment"]
Account = Literal["wallet", "funding", "promotion", "revenue", "writeoff"]


class Transfer(BaseModel):
    id: str
    org_id: str
    kind: Kind
    debit: Account = Field(description="The account that the amount left.")
    credit: Account = Field(description="The account that it came to.")
    amount_nanos: int
    change_nanos: int = Field(description="What it did to the org's balance.")
    balance_after_nanos: int = Field(description="The org's balance after it.")
    request_id: str | None = Field(description="Of a charge or a refund: the request it is for.")
    reference: str = Field(description="What caused it; with the kind, unique in the ledger.")
    reason: str
    created_at: Moment

    @computed("The amount in credits, for people.")
    def amount_credits(self) -> float:
        return to_credits(self.amount_nanos)

    @computed("The balance after it in credits, for people.")
    def balance_after_credits(self) -> float:
        return to_credits(self.balance_after_nanos)


class Posted(Transfer):
    created: bool = Field(description="false when this repeats an operation: the first transfer's answer.")


class TransferFilters(Listed):
    org_id: Line | None = Field(None, description="Only this org's.")
    kind: Kind | None = None
    debit: Account | None = Field(None, description="Only what left this account.")
    credit: Account | None = Field(None, description="Only what came to this account.")
    since: Moment | None = Field(None, alias="from", description="Not before this time.")
    until: Moment | None = Field(None, alias="to", description="Before this time.")
    min_nanos: int | None = Field(None, ge=1, le=MOST_NANOS, description="Not less than this.")
    max_nanos: int | None = Field(None, ge=1, le=MOST_NANOS, description="Not more than this.")
    sort: Literal["created_at:desc", "created_at:asc"] = "created_at:desc"


class Sums(BaseModel):
    today_nanos: int = Field(description="Since midnight UTC.")
    last_7_days_nanos: int
    last_30_days_nanos: int
    all_nanos: int

    @computed("All of it in credits, for people.")
    def all_credits(self) -> float:
        return to_credits(self.all_nanos)


class Flow(Sums):
    kind: Kind
    debit: Account
    credit: Account


class AccountSums(Sums):
    account: Account = Field(description="What came to it less what left it. Over all accounts that is zero.")


class Outstanding(BaseModel):
    orgs: int
    balance_nanos: int = Field(description="All balances together: what orgs may still spend.")
    held_nanos: int = Field(description="What of it running requests have set aside.")
    overdrawn_orgs: int
    overdrawn_nanos: int

    @computed("All balances in credits, for people.")
    def balance_credits(self) -> float:
        return to_credits(self.balance_nanos)


class Summary(BaseModel):
    at: Moment
    flows: list[Flow] = Field(description="What moved, by kind and by the accounts it moved between.")
    accounts: list[AccountSums]
    outstanding: Outstanding
