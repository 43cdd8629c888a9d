"""The sandbox as one ASGI app; to have it listen: `uvicorn --factory tollgate.sandbox.app:create_sandbox`.

Everything under /api/v1 is OpenRouter's; /sandbox/ledger and /sandbox/reset are for whoever tests with it.
"""

import secrets
import time

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from tollgate.sandbox import API, messages, moderations, rerank, responses
from tollgate.sandbox.catalog import Catalog
from tollgate.sandbox.client_connection import ClientGone, Cut
from tollgate.sandbox.dialects import CHAT, TEXT
from tollgate.sandbox.embeddings import Embeddings
from tollgate.sandbox.faults import DEFAULTS
from tollgate.sandbox.images import Images
from tollgate.sandbox.ledger import Clock, Ledger
from tollgate.sandbox.models import MODELS
from tollgate.sandbox.pages import Pages
from tollgate.sandbox.paid import Choices, Completions
from tollgate.sandbox.refusals import Refusal
from tollgate.sandbox.request_reading import Instead
from tollgate.sandbox.spoken import Speech
from tollgate.sandbox.state import BOUNDED, Habits, Randomness, State
from tollgate.sandbox.transcripts import Transcripts
from tollgate.sandbox.unit_endpoints import UnitEndpoint


def create_sandbox(
    habits: Habits | None = None, *, clock: Clock = time.time, randomness: Randomness = secrets.randbits
) -> "Sandbox":
    """Each has a state of its own. The clock gives seconds since the epoch, randomness makes the ids."""
    chosen = habits or Habits()
    catalog = Catalog(MODELS).with_faulty(DEFAULTS if chosen.list_faults else chosen.listed_faults)
    return Sandbox(State(chosen, catalog, clock, randomness))


def create_bounded_sandbox() -> "Sandbox":
    """For strangers: the one beside a server, or one that the test keys of several servers share."""
    return create_sandbox(BOUNDED)


class Sandbox:
    def __init__(self, state: State) -> None:
        self._state = state
        self._router = Router(_routes(state), redirect_slashes=False, default=_nowhere)

    @property
    def ledger(self) -> Ledger:
        """What it was owed, for those in the same process."""
        return self._state.ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._router(scope, receive, send)
        except Refusal as refusal:
            await refusal.response(anthropic=scope["path"].startswith(f"{API}/messages"))(scope, receive, send)
        except Instead as instead:
            await instead.response(scope, receive, send)
        except (ClientGone, Cut):  # a server closes the connection of a response without an end
            return


def _routes(state: State) -> list[Route]:
    """The paid ones first: routes are tried in order."""
    pages = Pages(state)
    return [
        Route(f"{API}/chat/completions", Completions(state, Choices(CHAT)), methods=["POST"]),
        Route(f"{API}/completions", Completions(state, Choices(TEXT)), methods=["POST"]),
        Route(f"{API}/responses", Completions(state, responses), methods=["POST"]),
        Route(f"{API}/messages", Completions(state, messages), methods=["POST"]),
        Route(f"{API}/embeddings", Embeddings(state), methods=["POST"]),
        Route(f"{API}/images", Images(state), methods=["POST"]),
        Route(f"{API}/images/generations", Images(state), methods=["POST"]),
        Route(f"{API}/audio/speech", Speech(state), methods=["POST"]),
        Route(f"{API}/rerank", UnitEndpoint(state, "rank", "rerank", rerank.made), methods=["POST"]),
        Route(f"{API}/moderations", UnitEndpoint(state, "moderate", "moderation", moderations.made), methods=["POST"]),
        Route(f"{API}/audio/transcriptions", Transcripts(state), methods=["POST"]),
        Route(f"{API}/audio/translations", Transcripts(state), methods=["POST"]),
        Route(f"{API}/embeddings/models", pages.embedding_models),
        Route(f"{API}/models", pages.models),
        Route(f"{API}/models/{{author}}/{{slug}}/endpoints", pages.endpoints),
        Route(f"{API}/model/{{author}}/{{slug}}", pages.model),
        Route(f"{API}/generation", pages.generation),
        Route(f"{API}/key", pages.key),
        Route(f"{API}/credits", pages.credits),
        Route(f"{API}/activity", pages.activity),
        Route("/sandbox/ledger", pages.ledger),
        Route("/sandbox/reset", pages.reset, methods=["POST"]),
    ]


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    raise Refusal(404)
