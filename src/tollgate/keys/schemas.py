"""Keys as clients write and read them."""

from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.keys import rules
from tollgate.keys.rules import Environment, NoNetwork
from tollgate.limits.schemas import OPEN_REQUESTS, Limit, WindowLimits
from tollgate.web.faults import NO_NUL, ONE_LINE
from tollgate.web.older_names import CommaList, OlderNames
from tollgate.web.schemas import (
    Amounts,
    ChangeBody,
    Credits,
    Line,
    Moment,
    Name,
    PageQuery,
    Period,
    not_both,
    on_clocks,
)

MOST_TOKENS = 1_000_000_000_000_000
MOST_CREDITS = 100_000_000
CACHE_SETTING = (
    "Whether requests that do not say so themselves use the completion cache: embeddings, and those at temperature 0. "
)

KeyStatus = Literal["active", "disabled", "revoked", "expired"]
BudgetReset = Literal["daily", "weekly", "monthly", "never"]
KeyScope = Literal["chat", "completions", "embeddings", "models", "usage", "keys", "admin"]

ROLE_SCOPES = {"member": rules.MEMBER_SCOPES, "admin": rules.ADMIN_SCOPES}

COUNTED_TERMS = ("budget_nanos", "tokens_per_month", "tokens_in_all", "limits", "max_concurrent_requests")
"""The terms that need the tokens of a key counted."""


def _network(text: str) -> str:
    try:
        return rules.network(text)
    except NoNetwork as why:
        raise PydanticCustomError("network", str(why)) from None


def _each_once(entries: list[Any]) -> list[Any]:
    return list(dict.fromkeys(entries))


KeyTokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
ListSize = Field(min_length=1, max_length=100)
Models = Annotated[list[Annotated[str, Field(pattern="^[!-~]{1,200}$")]], AfterValidator(_each_once), ListSize]
Networks = Annotated[
    list[Annotated[str, Field(max_length=43), AfterValidator(_network)]],
    CommaList,
    AfterValidator(_each_once),
    ListSize,
]
Scopes = Annotated[list[KeyScope], CommaList, AfterValidator(_each_once), ListSize]
KeyTime = Annotated[Moment, AfterValidator(on_clocks)]
Metadata = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=64, pattern=ONE_LINE)],
        Annotated[str, Field(max_length=500, pattern=NO_NUL)]
        | bool
        | int
        | Annotated[float, Field(allow_inf_nan=False)],
    ],
    Field(max_length=16, description="Your own data, at most 16 entries, not nested. A change replaces all of them."),
]


class KeyLimits(WindowLimits):
    """The key's own limits, which apply besides the org's. Null is no limit."""


ONE_OF_EACH = not_both(("role", "scopes"), ("budget_credits", "budget_nanos"))


class KeyTerms(OlderNames, ChangeBody):
    """What a key may do and use. A field that is left out stays as it is; null removes the bound."""

    older_names = {"label": "name", "token_limit": "tokens_in_all"}  # noqa: RUF012  # not a field

    allowed_models: Models | None = Field(
        None, description="The models that the key may use; * matches any characters. Null is all."
    )
    ip_allowlist: Networks | None = Field(
        None, description="The IPv4 and IPv6 addresses and networks that may use the key. Null is all."
    )
    expires_at: KeyTime | None = Field(None, description="When the key expires. Null is never.")
    budget_credits: Annotated[Decimal, Field(ge=0, le=MOST_CREDITS, decimal_places=9)] | None = Field(
        None, description="The credits that the key may spend in each period. Send it or budget_nanos."
    )
    budget_nanos: Annotated[int, Field(ge=0, le=MOST_CREDITS * NANOS_PER_CREDIT)] | None = Field(
        None, description="The budget in nanos (1e-9 credit). Send it or budget_credits."
    )
    budget_reset: BudgetReset | None = Field(None, description="When the budget resets, in UTC. Null is never.")
    tokens_per_month: KeyTokens | None = Field(None, description="The most tokens, in and out, in a month.")
    tokens_in_all: KeyTokens | None = Field(
        None, description="The most tokens, in and out, over the lifetime of the key."
    )
    quota_reset_day: Annotated[int, Field(ge=1, le=28)] | None = Field(
        None, description="The day of the month, in UTC, on which tokens_per_month starts anew. Null is the first."
    )
    limits: KeyLimits | None = None
    max_concurrent_requests: Limit | None = Field(
        None, description=OPEN_REQUESTS + "Null: only the org's bound applies."
    )
    cache: bool | None = Field(None, description=CACHE_SETTING + "Null follows the org.")
    metadata: Metadata | None = None
    role: Literal["member", "admin"] | None = Field(
        None, description="Send it in place of scopes: `member` stands for all but admin, `admin` for all."
    )

    @model_validator(mode="after")
    def role_or_scopes(self) -> Self:
        if {"role", "scopes"} <= self.model_fields_set:
            raise PydanticCustomError("role", "Send role or scopes, not both")
        return self

    @model_validator(mode="after")
    def one_budget(self) -> Self:
        if {"budget_credits", "budget_nanos"} <= self.model_fields_set:
            raise PydanticCustomError("budget", "Send budget_credits or budget_nanos, not both")
        return self

    def changes(self) -> dict[str, Any]:
        fields = super().changes()
        fields.pop("active", None)
        if role := fields.pop("role", None):
            fields["scopes"] = list(ROLE_SCOPES[role])
        if "budget_credits" in fields:
            del fields["budget_credits"]
            budget = self.budget_credits
            fields["budget_nanos"] = None if budget is None else int(budget * NANOS_PER_CREDIT)
        return fields


class NewKey(KeyTerms):
    model_config = ConfigDict(
        json_schema_extra={**ONE_OF_EACH, "examples": [{"name": "Laptop", "scopes": ["chat", "models"]}]}
    )

    name: Annotated[Name, Field(description="A name for people.")]
    scopes: Scopes = Field(
        default=["chat", "completions", "embeddings", "models", "usage"],
        description="What the key may do. It manages keys only with the scope `keys`, which is not among the default.",
    )
    environment: Environment = Field(
        "live", description="A `test` key reaches only the sandbox, and its requests are free."
    )

    def terms(self) -> dict[str, Any]:
        return {"scopes": self.scopes} | {
            field: value for field, value in self.changes().items() if field not in ("environment", "user_id")
        }


class NewKeyForUser(NewKey):
    model_config = ConfigDict(
        json_schema_extra={
            **ONE_OF_EACH,
            "examples": [{"user_id": "usr_1", "name": "Server", "budget_credits": 25, "budget_reset": "monthly"}],
        }
    )

    user_id: Line | None = Field(None, description="The owner of the key. Without it, yourself.")


class KeyChanges(KeyTerms):
    model_config = ConfigDict(
        json_schema_extra={
            **ONE_OF_EACH,
            "examples": [{"name": "Old laptop", "ip_allowlist": None, "limits": {"tokens_per_day": 9}}],
        }
    )

    older_names = KeyTerms.older_names | {"is_active": "active"}

    name: Name = Field(default_factory=str, description="A name for people.")
    scopes: Scopes = Field(default_factory=list, description="What the key may do.")
    active: bool | None = Field(None, description="Whether the key is enabled.")


class Rotation(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"grace_hours": 24}]})

    grace_hours: int = Field(0, ge=0, le=168, description="How many hours the old secret stays valid; 0 ends it now.")


class OwnKeyFilters(PageQuery):
    q: Line | None = Field(None, description="Part of the name or of the prefix.")
    status: KeyStatus | None = None
    environment: Environment | None = None
    include: Literal["usage"] | None = Field(None, description="Includes what each key has used in all.")
    sort: Literal[
        "created_at:desc", "created_at:asc", "last_used_at:desc", "last_used_at:asc", "name:asc", "name:desc"
    ] = "created_at:desc"


class KeyFilters(OwnKeyFilters):
    org_id: Line | None = Field(None, description="Only keys of this org.")
    user_id: Line | None = Field(None, description="Only keys of this user.")
    role: Literal["member", "admin"] | None = Field(None, description="Only keys of users with this role.")


class KeyEventFilters(PageQuery, Period):
    key_id: Line | None = Field(None, description="Only events about this key.")
    action: Line | None = Field(None, description="Only this action, such as key.rotated.")
    outcome: Literal["success", "refused"] | None = None


class KeyTotals(Amounts):
    """What a key has used since it was made."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    charge_nanos: int
    charge_credits: Credits
    last_request_at: Moment | None


class ApiKey(Amounts):
    """A key without its secret, which is never shown again."""

    id: str
    masked_key: str = Field(description="The beginning and the end of the secret.")
    name: str
    org_id: str
    org_name: str
    user_id: str
    email: str = Field(description="The email of the owner.")
    role: str = Field(description="The role of the owner: `member` or `admin`.")
    environment: Environment
    status: KeyStatus
    scopes: list[str]
    allowed_models: list[str] | None
    ip_allowlist: list[str] | None
    expires_at: Moment | None
    budget_nanos: int | None
    budget_credits: Credits | None
    budget_reset: BudgetReset | None
    budget_spent_nanos: int | None = Field(description="Since the period began, open requests included.")
    budget_spent_credits: Credits | None
    budget_resets_at: Moment | None
    tokens_per_month: int | None
    tokens_in_all: int | None
    quota_reset_day: int
    quota_resets_at: Moment | None = Field(description="When the monthly quota starts anew; null without one.")
    tokens_used_in_month: int | None = Field(description="Null when no quota, budget, limit or bound needs the count.")
    tokens_used_in_all: int | None = Field(description="Since the key first had one of these.")
    limits: KeyLimits | None
    max_concurrent_requests: int | None
    open_requests: int | None = Field(
        description="How many requests are open now; null when the key has no bound of its own."
    )
    cache: bool | None = Field(description=CACHE_SETTING + "Null follows the org.")
    metadata: dict[str, str | bool | int | float]
    rotated_from: str | None = Field(description="The key that this one replaces.")
    rotated_to: str | None = Field(description="The key that replaces this one, which ends at expires_at.")
    created_at: Moment
    updated_at: Moment
    last_used_at: Moment | None
    revoked_at: Moment | None
    usage: KeyTotals | None = Field(None, description="Null unless the query has `include=usage`.")

    @classmethod
    def of(cls, found: dict[str, Any], **more: Any) -> Self:
        counted = any(found[term] is not None for term in COUNTED_TERMS)
        used = {term: found[term] if counted else None for term in ("tokens_used_in_month", "tokens_used_in_all")}
        spent = None if found["budget_nanos"] is None else found["budget_spent_nanos"]
        masked_key = rules.masked(found["prefix"], found["last_four"])
        return cls.model_validate(found | used | {"masked_key": masked_key, "budget_spent_nanos": spent} | more)


class CreatedKey(ApiKey):
    key: str = Field(description="The secret. It is shown only here and never stored.")


class RotatedKey(CreatedKey):
    old_valid_until: Moment = Field(
        description="Until then the old secret is valid too, and shares the budget and quotas."
    )


class KeyEvent(BaseModel):
    id: str
    occurred_at: Moment
    actor: dict[str, str] = Field(
        description="Who acted: kind `key` with key_id and user_id, or kind `console` with a name."
    )
    action: str
    key_id: str
    outcome: str
    ip: str | None = Field(description="Null when an operator acted.")
    user_agent: str | None
    request_id: str | None
    details: dict[str, Any]
