"""The composition: settings → doors → rooms → FastAPI. Nothing here is global."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware

from tollgate import __version__
from tollgate.account import routes as account
from tollgate.admin import routes as admin
from tollgate.health import routes as health
from tollgate.keys.gate import Gate
from tollgate.runtime import logs, settings
from tollgate.runtime.clock import Monotonic, monotonic
from tollgate.runtime.database import Door, open_door
from tollgate.runtime.edge import Edge
from tollgate.runtime.http import Http
from tollgate.runtime.rendering import HANDLERS
from tollgate.runtime.settings import Settings


def create_app(given: Settings | None = None, *, door: Door | None = None, clock: Monotonic = monotonic) -> FastAPI:
    """The whole server. Opens nothing until the first request needs it, so a cold start is short."""
    chosen = given or settings.read(os.environ)
    logs.configure(chosen.log_level, chosen.secrets())
    http = Http()
    database = door or open_door(chosen, http)
    gate = Gate(database, peppers=chosen.peppers, trusted_proxy=chosen.trusted_proxy, clock=clock)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await database.close()
        await http.close()

    app = FastAPI(
        title="Tollgate",
        version=__version__,
        summary="A credit-billing proxy in front of OpenRouter and your own model servers.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=HANDLERS,
        middleware=[
            Middleware(
                Edge,
                production=chosen.production,
                max_body_bytes=chosen.max_body_bytes,
                clock=clock,
            )
        ],
    )
    app.include_router(health.router(chosen, database, http, clock))
    app.include_router(account.router(gate))
    app.include_router(admin.router(gate))
    return app
