"""The caller's own balance, profile, plan and limits."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tollgate.keys.rules import masked
from tollgate.limits.schemas import OPEN_REQUESTS, OpenRequests, SixLimits
from tollgate.people.schemas import Email, Role
from tollgate.web.schemas import Amounts, ChangeBody, Credits, Line, Moment


class OwnKey(BaseModel):
    masked_key: str | None = Field(description="The key of this request, masked; null in a session without a key.")

    @model_validator(mode="before")
    @classmethod
    def _masked(cls, found: dict[str, Any]) -> dict[str, Any]:
        has_key = found["prefix"] is not None
        return found | {"masked_key": masked(found["prefix"], found["last_four"]) if has_key else None}


class OwnBalance(OwnKey, Amounts):
    credits: Credits = Field(description="The balance in credits; 1 credit is 1 US dollar.")
    credits_nanos: int = Field(description="The balance in nanos (1e-9 credit).")
    held_nanos: int = Field(description="What open requests hold.")
    held_credits: Credits
    available_nanos: int = Field(description="What a new request may use: the balance less what is held.")
    available_credits: Credits
    org_id: str
    user_id: str
    plan: str

    @model_validator(mode="before")
    @classmethod
    def _with_available(cls, found: dict[str, Any]) -> dict[str, Any]:
        balance, held = found["balance_nanos"], found["held_nanos"]
        return found | {"credits_nanos": balance, "available_nanos": balance - held}


class Balance(OwnBalance):
    environment: str = Field(description="`live`, or `test` for a key whose requests are free.")
    status: str


class Profile(OwnKey):
    user_id: str
    name: str
    email: str
    role: Role
    status: str
    org_id: str
    org_name: str
    plan: str
    environment: str
    scopes: list[str] = Field(description="What the key may do.")
    created_at: Moment
    updated_at: Moment


class ProfileChange(ChangeBody):
    """The fields that users may change themselves. Only operators change role, org and status."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Ada Lovelace", "email": "ada@example.com"}]})

    name: Line | None = None
    email: Email | None = None


class PlanLimits(SixLimits[int | None]):
    """Null is no limit."""


class OwnPlan(BaseModel):
    id: str
    name: str
    description: str
    org_id: str
    limits: PlanLimits = Field(description="The limits that apply to the org.")
    max_concurrent_requests: int | None = Field(description=OPEN_REQUESTS + "Null is no bound.")
    own_limits: bool = Field(description="Whether the org has its own limits instead of the plan's.")


class Window(BaseModel):
    limit: int | None = Field(description="Null is no limit.")
    used: int = Field(description="Used in the last minute, hour or day: windows slide.")
    remaining: int | None
    resets_at: Moment | None = Field(description="When the window is empty if nothing is added; null if it is empty.")


class Windows(BaseModel):
    minute: Window
    hour: Window
    day: Window


class SixWindows(BaseModel):
    requests: Windows
    tokens: Windows


class OwnOrgLimits(SixWindows):
    concurrent: OpenRequests


class OwnKeyLimits(SixWindows):
    concurrent: OpenRequests | None = Field(description="Null when the key has no bound of its own.")


class AllLimits(BaseModel):
    org: OwnOrgLimits = Field(description="Shared by all keys of the org.")
    user: SixWindows | None = Field(
        description="The user's own limits, shared by all keys of the user; null when the user has none."
    )
    key: OwnKeyLimits | None = Field(
        description="The key's own limits, which apply besides the org's; null when it has none."
    )


class OwnModels(BaseModel):
    default_model: str | None = Field(description="The model or alias of calls that name none; null: name one.")
    allowed_of_org: list[str] | None = Field(
        description="Patterns of the models that the org may use; * matches any characters. Null is all."
    )
    allowed_of_key: list[str] | None = Field(description="The same for the key, which may use what both allow.")


class OwnLimits(AllLimits):
    at: Moment
    models: OwnModels
