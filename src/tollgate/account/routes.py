"""What a key's owner sees: /user/*."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from tollgate.account import store
from tollgate.core.money import to_credits
from tollgate.keys.gate import IN_THE_DOCUMENT, Gate
from tollgate.keys.rules import masked
from tollgate.runtime.database import Door


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


def router(gate: Gate) -> APIRouter:
    routes = APIRouter(tags=["account"], dependencies=IN_THE_DOCUMENT)

    @routes.get("/user/balance", summary="The balance of the key's org")
    async def balance(door: Annotated[Door, Depends(gate.open)]) -> Balance:
        found = await store.balance(door)
        return Balance(
            key=masked(found["prefix"], found["last_four"]),
            credits=to_credits(found["balance_nanos"]),
            credits_nanos=found["balance_nanos"],
            held_nanos=found["held_nanos"],
            available_nanos=found["balance_nanos"] - found["held_nanos"],
            org_id=found["org_id"],
            user_id=found["user_id"],
            plan=found["plan"],
            environment=found["environment"],
            status=found["status"],
        )

    return routes
