"""Sessions as clients write and read them."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from tollgate.keys.rules import LONGEST
from tollgate.people.schemas import Email, Role
from tollgate.sessions.rules import LONGEST as LONGEST_PASSWORD
from tollgate.web.schemas import ChangeBody, Line, Moment, PageQuery

Secret = Annotated[str, Field(min_length=1, max_length=LONGEST)]
Password = Annotated[
    str,
    StringConstraints(strip_whitespace=False, min_length=1, max_length=LONGEST_PASSWORD),
    Field(json_schema_extra={"format": "password"}),
]


AccessToken = Annotated[str, Field(min_length=1, max_length=16_384, pattern=r"^[!-~]+$")]

WAYS: tuple[set[str], ...] = ({"key"}, {"link"}, {"email", "password"}, {"supabase_token"})
ONE_WAY: dict[str, Any] = {
    "oneOf": [{"required": sorted(way)} for way in WAYS],
    "dependentRequired": {"email": ["password"], "password": ["email"]},
}


class SignIn(ChangeBody):
    """One way to sign in."""

    model_config = ConfigDict(json_schema_extra={**ONE_WAY, "examples": [{"key": "tg_live_…"}]})

    key: Secret | None = Field(None, description="An API key, which is exchanged for the session.")
    link: Secret | None = Field(None, description="The token of a sign-in link: what follows #/sign-in/ in it.")

    email: Email | None = Field(None, description="The email of a user, together with `password`.")
    password: Password | None = None
    supabase_token: AccessToken | None = Field(
        None, description="An access token of Supabase Auth, where it is set up."
    )

    @model_validator(mode="after")
    def one_way(self) -> Self:
        if set(self.model_dump(exclude_none=True)) not in WAYS:
            raise PydanticCustomError("way", "Send key, or link, or email and password, or supabase_token")
        return self


class NewPassword(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"password": "four unrelated words", "current": "…"}]})

    password: Password = Field(description="12 to 1,024 characters, of any kind.")
    current: Password | None = Field(
        None,
        description="The password until now. Not needed within 15 minutes of a sign-in by link.",
    )


class SupabaseProject(BaseModel):
    url: str = Field(description="The project, at which the page signs the user in to get an access token.")
    publishable_key: str


class SignInWays(BaseModel):
    key: bool
    link: bool
    password: bool
    supabase: SupabaseProject | None = Field(description="Null where Supabase Auth is not set up.")


class SessionFilters(PageQuery):
    everyone: bool = Field(False, description="The sessions of all users. Only for operators; others get their own.")
    user_id: Line | None = Field(None, description="With `everyone`: only the sessions of this user.")

    def filters(self) -> dict[str, Any]:
        return super().filters() | {"everyone": self.everyone}


class Session(BaseModel):
    id: str
    user_id: str
    email: str
    key_id: str | None = Field(description="The key that was exchanged; null for the other ways to sign in.")
    way: Literal["key", "link", "password", "supabase"] = Field(description="How the user signed in.")
    ip: str | None
    user_agent: str | None
    signed_in_at: Moment
    last_seen_at: Moment = Field(description="Exact to a minute.")
    expires_at: Moment = Field(description="When the session ends if no further request comes.")


class SignedIn(BaseModel):
    user_id: str
    name: str
    email: str
    role: Role
    org_id: str
    org_name: str
    key_id: str | None = Field(description="The key of this request or session; null for a session without a key.")
    environment: str
    scopes: list[str] = Field(description="What this session or key may do.")
    has_password: bool = Field(description="Whether the user can sign in with a password.")
    firing_alerts: int | None = Field(description="For operators: how many alerts fire.")
    session: Session | None = Field(description="Null for a request with a key.")


class EndedSessions(BaseModel):
    ended: int = Field(description="How many sessions were ended.")
