"""/admin/hf-tokens: tokens of Hugging Face, for servers that download models."""

import secrets
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.responses import JSONResponse, Response

from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys import store as keys
from tollgate.keys.authentication import Gate
from tollgate.vault import store
from tollgate.vault.rules import NONCE_BYTES, Place, Vault
from tollgate.vault.schemas import DeletedSecret, HfToken, HfTokens, NewHfToken, TokenName
from tollgate.web.aliases import asked_path
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals

OLDER_PATH = "/admin/api/hf-tokens"
"""Its clients expect a bare list, and no body where something was changed."""


def router(gate: Gate, vault: Vault) -> Routes:
    routes = Routes(prefix="/admin/hf-tokens")
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type

    @routes.get("", summary="List the tokens of Hugging Face", response_model=HfTokens, responses=refusals())
    async def hf_tokens(request: Request, door: OpenDoor) -> Any:
        """Without their values. `python -m tollgate hf-token` prints one."""
        found = HfTokens.model_validate(await store.secrets(door, "hf_token"))
        if _is_older(request):
            return JSONResponse([token.model_dump(mode="json", exclude={"last_four"}) for token in found.data])
        return found

    @routes.put(
        "",
        summary="Store a token of Hugging Face",
        response_model=HfToken,
        responses=refusals(errors.BadRequest, errors.VaultLocked),
    )
    async def put_hf_token(request: Request, door: OpenDoor, body: NewHfToken) -> Any:
        """It replaces the token of this name."""
        await keys.identify_operator(door)
        place = Place("hf_token", None, body.name, None)
        sealed = vault.seal(body.secret, place, secrets.token_bytes(NONCE_BYTES))
        kept = await store.put(door, "hf_token", None, {"name": body.name, **sealed})
        return Response(status_code=204) if _is_older(request) else kept["secret"]

    @routes.delete(
        "/{name:path}",
        summary="Delete a token of Hugging Face",
        response_model=DeletedSecret,
        responses=refusals(errors.BadRequest, errors.NotFound),
    )
    async def delete_hf_token(request: Request, door: OpenDoor, name: TokenName) -> Any:
        gone = await store.delete(door, "hf_token", None, name)
        return Response(status_code=204) if _is_older(request) else gone

    return routes


def _is_older(request: Request) -> bool:
    return asked_path(request.scope).startswith(OLDER_PATH)
