"""A user's own balance, profile, plan and limits."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tollgate.limits.schemas import AT_ONCE, Concurrent, OfEachLimit
from tollgate.people.rules import Email, Line
from tollgate.web.schemas import Moment, Written


class Balance(BaseModel):
    key: str = Field(description="The key of this request, masked.")
    credits: float = Field(description="The balance in credits, for people; 1 credit is 1 US dollar.")
    credits_nanos: int = Field(description="The balance in nanos (1e-9 credit), exact.")
    held_nanos: int = Field(description="What running requests have set aside.")
    available_nanos: int = Field(description="What a new request may use: balance less held.")
    org_id: str
    user_id: str
    plan: str
    environment: str = Field(description="`live`, or `test` for a key that costs nothing.")
    status: str


class Profile(BaseModel):
    user_id: str
    name: str
    email: str
    role: Literal["member", "admin"]
    status: str
    org_id: str
    org_name: str
    plan: str
    key: str = Field(description="The key of this request, masked.")
    environment: str
    scopes: list[str] = Field(description="What this key may do.")
    created_at: Moment
    updated_at: Moment


class ProfileChange(Written):
    """What people may change of themselves. Role, org and status are an operator's to change."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Ada Lovelace", "email": "ada@example.com"}]})

    name: Line | None = None
    email: Email | None = None


class SixLimits(OfEachLimit[int | None]):
    """null is no limit."""


class OwnPlan(BaseModel):
    id: str
    name: str
    description: str
    org_id: str
    limits: SixLimits = Field(description="The limits that the org's requests meet.")
    max_concurrent_requests: int | None = Field(description=AT_ONCE + "null is no bound.")
    own_limits: bool = Field(description="Whether these are the org's own, in place of the plan's.")
    markup: float = Field(description="What is charged above the cost: 0.05 is 5 %.")
    markup_ppm: int = Field(description="The same in parts per million, exact.")


class Window(BaseModel):
    limit: int | None = Field(description="null is no limit.")
    used: int = Field(description="What counts now. Windows slide: what is older than the window weighs nothing.")
    remaining: int | None
    resets_at: Moment | None = Field(description="When all of it is free again if nothing more comes; null if it is.")


class Windows(BaseModel):
    minute: Window
    hour: Window
    day: Window


class SixWindows(BaseModel):
    requests: Windows
    tokens: Windows


class LimitsOfOrg(SixWindows):
    concurrent: Concurrent


class LimitsOfKey(SixWindows):
    concurrent: Concurrent | None = Field(description="null where the key has no bound of its own.")


class LimitsOfBoth(BaseModel):
    at: Moment
    org: LimitsOfOrg = Field(description="Shared by all keys of the org.")
    key: LimitsOfKey | None = Field(description="The key's own, within the org's; null for a key without any.")
