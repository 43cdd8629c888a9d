"""Keys as clients write them and ask for them."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.keys import rules
from tollgate.keys.rules import Environment, NoNetwork
from tollgate.limits.schemas import AT_ONCE, Limit, Limits
from tollgate.web.schemas import Listed, Moment, Written

MOST_TOKENS = 1_000_000_000_000_000
MOST_CREDITS = 100_000_000
CLOCKS = datetime(1900, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)

Status = Literal["active", "disabled", "revoked", "expired"]
Reset = Literal["daily", "weekly", "monthly", "never"]
KeyScope = Literal["chat", "completions", "embeddings", "models", "usage", "keys", "admin"]


def _network(text: str) -> str:
    try:
        return rules.network(text)
    except NoNetwork as why:
        raise PydanticCustomError("network", str(why)) from None


def _on_clocks(moment: datetime) -> datetime:
    """Beyond, a time of one zone may have no name in another."""
    if not CLOCKS[0] <= moment < CLOCKS[1]:
        raise PydanticCustomError("moment", "must lie between the years 1900 and 9000")
    return moment


def _each_once(entries: list[Any]) -> list[Any]:
    return list(dict.fromkeys(entries))


PLAIN = r"^[^\x00-\x1f\x7f-\x9f]*$"
Plain = Annotated[str, Field(max_length=200, pattern=PLAIN)]
"""Text without control characters, some of which Postgres cannot hold."""
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=PLAIN, description="What people call the key.")]
Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
Listing = Field(min_length=1, max_length=100)
Models = Annotated[list[Annotated[str, Field(pattern="^[!-~]{1,200}$")]], AfterValidator(_each_once), Listing]
Networks = Annotated[
    list[Annotated[str, Field(max_length=43), AfterValidator(_network)]], AfterValidator(_each_once), Listing
]
Scopes = Annotated[list[KeyScope], AfterValidator(_each_once), Listing]
Time = Annotated[Moment, AfterValidator(_on_clocks)]
Metadata = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=64, pattern=PLAIN)],
        Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")]
        | bool
        | int
        | Annotated[float, Field(allow_inf_nan=False)],
    ],
    Field(max_length=16, description="Notes of your own: flat, at most 16 names. Written as a whole."),
]


class KeyLimits(Limits):
    """Limits of the key, within those of its org. Null is none."""


class Terms(Written):
    """What a key may do and use. What is left out is as it was; null takes a bound away."""

    allowed_models: Models | None = Field(
        None, description="The models that it may use; * stands for anything. Null is all."
    )
    ip_allowlist: Networks | None = Field(
        None, description="Addresses and networks, v4 and v6, that it may be used from. Null is anywhere."
    )
    expires_at: Time | None = Field(None, description="When it ends. Null is never.")
    budget_credits: Annotated[Decimal, Field(ge=0, le=MOST_CREDITS, decimal_places=9)] | None = Field(
        None, description="Credits that it may spend in each period; or say budget_nanos."
    )
    budget_nanos: Annotated[int, Field(ge=0, le=MOST_CREDITS * NANOS_PER_CREDIT)] | None = Field(
        None, description="The same in nanos (1e-9 credit)."
    )
    budget_reset: Reset | None = Field(None, description="When the budget begins anew, in UTC. Null is never.")
    tokens_per_month: Tokens | None = Field(None, description="Tokens in and out that it may use in a calendar month.")
    tokens_in_all: Tokens | None = Field(None, description="Tokens in and out that it may ever use.")
    limits: KeyLimits | None = None
    max_concurrent_requests: Limit | None = Field(None, description=AT_ONCE + "Null is no bound but the org's.")
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def one_budget(self) -> Self:
        if {"budget_credits", "budget_nanos"} <= self.model_fields_set:
            raise PydanticCustomError("budget", "Say the budget in credits or in nanos, not in both")
        return self

    def changes(self) -> dict[str, Any]:
        told = super().changes()
        if "budget_credits" in told:
            del told["budget_credits"]
            budget = self.budget_credits
            told["budget_nanos"] = None if budget is None else int(budget * NANOS_PER_CREDIT)
        return told


class NewKey(Terms):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Laptop", "scopes": ["chat", "models"]}]})

    name: Name
    scopes: Scopes = Field(default=["chat", "completions", "embeddings", "models", "usage"])
    environment: Environment = Field("live", description="`test` keys reach only the sandbox and cost nothing.")

    def terms(self) -> dict[str, Any]:
        return {"scopes": self.scopes} | {
            field: told for field, told in self.changes().items() if field not in ("environment", "user_id")
        }


class NewKeyForUser(NewKey):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "usr_1", "name": "Server", "budget_credits": 25, "budget_reset": "monthly"}]
        }
    )

    user_id: Plain = Field(description="Whose key it will be.")


class KeyChanges(Terms):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "Old laptop", "ip_allowlist": None, "limits": {"tokens_per_day": 9}}]}
    )

    name: Name = ""
    scopes: Scopes = Field(default=[])


class Rotation(Written):
    model_config = ConfigDict(json_schema_extra={"examples": [{"grace_hours": 24}]})

    grace_hours: int = Field(0, ge=0, le=168, description="Hours in which the old secret still opens; 0 ends it now.")


class OwnKeysAsked(Listed):
    cursor: Plain | None = Field(None, description="The next_cursor of the page before.")
    q: Plain | None = Field(None, description="A part of the name or of the prefix.")
    status: Status | None = None
    environment: Environment | None = None
    sort: Literal[
        "created_at:desc", "created_at:asc", "last_used_at:desc", "last_used_at:asc", "name:asc", "name:desc"
    ] = "created_at:desc"


class KeysAsked(OwnKeysAsked):
    org_id: Plain | None = Field(None, description="Only keys of this org.")
    user_id: Plain | None = Field(None, description="Only keys of this user.")
    role: Literal["member", "admin"] | None = Field(None, description="Only keys of users with this role.")


class KeyEventsAsked(Listed):
    cursor: Plain | None = Field(None, description="The next_cursor of the page before.")
    key_id: Plain | None = Field(None, description="Only events about this key.")
    action: Plain | None = Field(None, description="Only this action, such as key.rotated.")
    outcome: Literal["success", "refused"] | None = None
    since: Time | None = Field(None, alias="from", description="Not before this time.")
    until: Time | None = Field(None, alias="to", description="Before this time.")
