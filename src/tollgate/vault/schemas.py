"""Secrets as clients write and see them: what is stored is never shown again."""

from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from tollgate.vault.rules import LONGEST, SHORTEST
from tollgate.web.faults import PRINTABLE
from tollgate.web.schemas import ChangeBody, Moment

UpstreamName = Annotated[
    str,
    Field(max_length=100, pattern=PRINTABLE),
    Path(
        description="openrouter, or the id of an upstream that the list names under `available`.",
        examples=["openrouter"],
    ),
]
TokenName = Annotated[str, Field(min_length=1, max_length=100, pattern=PRINTABLE, description="The name of the token.")]
Value = Annotated[
    str,
    Field(min_length=SHORTEST, max_length=LONGEST, pattern=PRINTABLE, json_schema_extra={"format": "password"}),
]
"""A secret for the vault. Validation errors do not repeat it."""


class UpstreamKey(BaseModel):
    upstream: str
    upstream_name: str = Field(description="The id, if the upstream is not there any more.")
    last_four: str
    state: Literal["active", "outdated", "locked"] = Field(
        description="outdated: it was stored for another address of the upstream, or the upstream takes no keys any "
        "more. locked: this server lacks the VAULT_KEY that it was stored with. Calls that need such a key are "
        "refused until it is stored again or deleted."
    )
    created_at: Moment
    updated_at: Moment = Field(description="When the key was stored last.")


class AvailableUpstream(BaseModel):
    upstream: str
    name: str


class UpstreamKeys(BaseModel):
    data: list[UpstreamKey]
    available: list[AvailableUpstream] = Field(description="The upstreams for which a key can be stored.")


class NewUpstreamKey(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"key": "sk-or-v1-0123456789abcdef"}]})

    key: Value = Field(description="The key of your own account at the upstream. It is never shown again.")

    @property
    def secret(self) -> SecretStr:
        return SecretStr(self.key)


class DeletedSecret(BaseModel):
    id: str
    deleted: Literal[True]


class HfToken(BaseModel):
    name: str
    last_four: str
    created_at: Moment
    updated_at: Moment = Field(description="When the token was stored last.")


class HfTokens(BaseModel):
    data: list[HfToken]


class NewHfToken(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "default", "token": "hf_0123456789abcdef"}]})

    name: TokenName = "default"
    token: Value = Field(description="An access token of Hugging Face. It is never shown again.")

    @property
    def secret(self) -> SecretStr:
        return SecretStr(self.token)
