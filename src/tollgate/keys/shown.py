"""Keys, and what was done to them, as they are shown."""

from typing import Any, Self

from pydantic import BaseModel, Field

from tollgate.core.money import to_credits
from tollgate.keys import rules
from tollgate.keys.rules import Environment
from tollgate.keys.schemas import KeyLimits, Reset, Status


class ApiKey(BaseModel):
    """A key without its secret, which nobody can show again."""

    id: str
    masked: str = Field(description="The ends of the secret, to know it by.")
    name: str
    org_id: str
    user_id: str
    email: str = Field(description="Of the user whose key it is.")
    role: str = Field(description="Of that user: `member` or `admin`.")
    environment: Environment
    status: Status
    scopes: list[str]
    allowed_models: list[str] | None
    ip_allowlist: list[str] | None
    expires_at: str | None
    budget_nanos: int | None
    budget_credits: float | None
    budget_reset: Reset | None
    budget_spent_nanos: int | None = Field(description="Since the period began, running requests included.")
    budget_spent_credits: float | None
    budget_resets_at: str | None
    tokens_per_month: int | None
    tokens_in_all: int | None
    tokens_used_in_month: int | None = Field(
        description="Null where no quota, budget, limit or bound has them counted."
    )
    tokens_used_in_all: int | None = Field(description="Since the key first had one of these.")
    limits: KeyLimits | None
    max_concurrent_requests: int | None
    open_requests: int | None = Field(description="How many are open now; null where the key has no bound of its own.")
    metadata: dict[str, str | bool | int | float]
    rotated_from: str | None = Field(description="The key whose place it took.")
    rotated_to: str | None = Field(description="The key that took its place; this one ends at expires_at.")
    created_at: str
    updated_at: str
    last_used_at: str | None
    revoked_at: str | None

    @classmethod
    def of(cls, found: dict[str, Any], **more: Any) -> Self:
        budget, spent = found["budget_nanos"], found["budget_spent_nanos"]
        counted = any(
            found[term] is not None
            for term in ("budget_nanos", "tokens_per_month", "tokens_in_all", "limits", "max_concurrent_requests")
        )
        used = {term: found[term] if counted else None for term in ("tokens_used_in_month", "tokens_used_in_all")}
        return cls.model_validate(
            found
            | used
            | {
                "masked": rules.masked(found["prefix"], found["last_four"]),
                "budget_credits": None if budget is None else to_credits(budget),
                "budget_spent_nanos": None if budget is None else spent,
                "budget_spent_credits": None if budget is None else to_credits(spent),
            }
            | more
        )


class NewSecret(ApiKey):
    key: str = Field(description="The secret. It is shown this once and kept nowhere.")


class Rotated(NewSecret):
    old_valid_until: str = Field(description="Until then the old secret opens as well, and spends of the same purse.")


class KeyEvent(BaseModel):
    id: str
    occurred_at: str
    actor: dict[str, str] = Field(description="Who: kind `key` with key_id and user_id, or `console` with its name.")
    action: str
    key_id: str
    outcome: str
    ip: str | None = Field(description="Null where an operator acted.")
    user_agent: str | None
    request_id: str | None
    details: dict[str, Any]
