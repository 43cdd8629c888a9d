"""The limits of an org or a key."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tollgate.limits.schemas import SixLimits, WindowLimits
from tollgate.web.schemas import Line


class LimitSubject(BaseModel):
    """The org or key. Send exactly one of the three; a user_id stands for the org of that user."""

    model_config = ConfigDict(extra="forbid")

    org_id: Line | None = None
    user_id: Line | None = Field(None, description="The org of this user.")
    key_id: Line | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.subject()) != 1:
            raise ValueError("send exactly one of org_id, user_id and key_id")
        return self

    def subject(self) -> dict[str, str]:
        ids = {"org_id": self.org_id, "user_id": self.user_id, "key_id": self.key_id}
        return {name: value for name, value in ids.items() if value is not None}


class NewLimits(LimitSubject, WindowLimits):
    """All six limits. A limit that is null or left out falls back to the plan, or for a key to the org."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"org_id": "org_0193", "requests_per_minute": 600, "tokens_per_day": 5000000}]}
    )

    def limits(self) -> dict[str, Any]:
        return self.model_dump(mode="json", include=set(WindowLimits.model_fields))


class LimitReset(LimitSubject):
    counters: bool = Field(False, description="Whether to reset the windows to zero as well.")


class BindingLimit(BaseModel):
    limit: int | None = Field(description="The lowest limit that applies; null is no limit.")
    set_by: Literal["plan", "org", "key"] | None


class BindingLimits(SixLimits[BindingLimit]):
    pass


class CurrentLimits(BaseModel):
    """The limits from the next request on."""

    org_id: str
    key_id: str | None = Field(description="Null for the limits of an org.")
    plan: str
    limits: WindowLimits = Field(description="The own limits of this org or key.")
    in_effect: BindingLimits = Field(description="The lowest of the own limits and those of the plan, or of the org.")
