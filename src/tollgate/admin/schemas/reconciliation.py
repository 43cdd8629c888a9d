"""Reconciled days, their models and causes."""

from datetime import date
from typing import Any, Literal

from pydantic import Field, model_validator

from tollgate.reconciliation.rules import CAUSES, Verdict
from tollgate.web.schemas import Amounts, Moment, PageQuery

VERDICT = (
    "agrees: within the tolerance. explained: beyond it, as far as the named requests may account for. "
    "differs: beyond it, and more than they account for."
)


class ReconciliationQuery(PageQuery):
    verdict: Verdict | None = Field(None, description="Only days with this verdict.")
    sort: Literal["day:desc", "day:asc"] = "day:desc"


class ReconciledDay(Amounts):
    day: date = Field(description="In UTC.", examples=["2026-11-29"])
    verdict: Verdict | None = Field(description=f"{VERDICT} null: never reconciled.")
    tolerance_ppm: int | None
    our_requests: int | None = Field(description="All that were sent, those that failed too.")
    their_requests: int | None
    our_cost_nanos: int | None
    our_cost_credits: str | None
    their_cost_nanos: int | None
    their_cost_credits: str | None
    difference_nanos: int | None = Field(description="Their cost less ours.")
    difference_credits: str | None
    difference_ppm: int | None = Field(description="Its size, in millionths of the larger cost.")
    reconciled_at: Moment | None
    failed_at: Moment | None
    failure: str | None = Field(description="Why the last attempt failed; null once one succeeded.")


class DoubtfulRequest(Amounts):
    id: str
    generation_id: str | None
    cost_nanos: int
    cost_credits: str
    hold_nanos: int
    hold_credits: str


class DifferenceCause(Amounts):
    cause: str = Field(
        description=" ".join(f"{name}: {meaning}" for name, meaning in CAUSES.items()), examples=["estimated"]
    )
    meaning: str = Field(description="The cause in a sentence.")
    requests: int
    least_nanos: int = Field(description="The least that these requests may add to the difference.")
    least_credits: str
    most_nanos: int = Field(description="The most that they may add to it.")
    most_credits: str
    examples: list[DoubtfulRequest] = Field(description="The dearest of the requests, at most 20.")

    @model_validator(mode="before")
    @classmethod
    def _with_meaning(cls, found: dict[str, Any]) -> dict[str, Any]:
        return found | {"meaning": CAUSES.get(found["cause"], "")}


class ReconciledModel(Amounts):
    model: str
    verdict: Verdict = Field(description=VERDICT)
    our_requests: int
    their_requests: int
    our_tokens: int
    their_tokens: int
    our_cost_nanos: int
    our_cost_credits: str
    their_cost_nanos: int
    their_cost_credits: str
    difference_nanos: int
    difference_credits: str
    causes: list[DifferenceCause]


class Reconciliation(ReconciledDay):
    models: list[ReconciledModel]
