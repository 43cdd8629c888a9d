"""The limits of an org, a user, a key or a role."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tollgate.limits.schemas import SixLimits, WindowLimits
from tollgate.web.schemas import Line, exactly_one

ONE = "Send exactly one of org_id, user_id, key_id and role."


class LimitSubject(BaseModel):
    """Send exactly one of the four. Limits of a user apply to all keys of the user together. Limits of a role apply to
    each user of the role, except where the user has limits."""

    model_config = ConfigDict(extra="forbid")

    org_id: Line | None = Field(None, description=ONE)
    user_id: Line | None = Field(None, description=ONE)
    key_id: Line | None = Field(None, description=ONE)
    role: Literal["member", "admin"] | None = Field(None, description=ONE)

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.subject()) != 1:
            raise ValueError("send exactly one of org_id, user_id, key_id and role")
        return self

    def subject(self) -> dict[str, str]:
        return self.model_dump(include=set(LimitSubject.model_fields), exclude_none=True)


class NewLimits(LimitSubject, WindowLimits):
    """All six limits. A limit that is null or left out falls back: of an org to the plan, of a
    user to the role. Keys and roles have none then."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"org_id": "org_0193", "requests_per_minute": 600, "tokens_per_day": 5000000}],
            **exactly_one(*LimitSubject.model_fields),
        }
    )

    def limits(self) -> dict[str, Any]:
        return self.model_dump(mode="json", include=set(WindowLimits.model_fields))


class LimitReset(LimitSubject):
    counters: bool = Field(False, description="Whether to reset the windows to zero as well.")


class BindingLimit(BaseModel):
    limit: int | None = Field(description="The lowest limit that applies; null is no limit.")
    set_by: Literal["plan", "org", "role", "user", "key"] | None


class BindingLimits(SixLimits[BindingLimit]):
    pass


class CurrentLimits(BaseModel):
    """The limits from the next request on."""

    org_id: str | None = Field(description="Null for the limits of a role.")
    user_id: str | None = Field(description="The user, or the owner of the key.")
    key_id: str | None
    role: Literal["member", "admin"] | None = Field(description="Null unless these are the limits of a role.")
    plan: str | None
    limits: WindowLimits = Field(description="The own limits of this org, user, key or role.")
    in_effect: BindingLimits = Field(
        description="The lowest limit that applies of the key, its user (or the user's role) and the org (or its plan)."
    )
