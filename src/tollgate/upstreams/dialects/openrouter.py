"""OpenRouter: takes everything, always says what was used, and falls back by itself."""

from tollgate.core import request_body
from tollgate.core.extras import sent
from tollgate.core.models import Route
from tollgate.core.request_body import Ask
from tollgate.upstreams.dialects import refusals
from tollgate.upstreams.dialects.openai import OpenAI, Shown, as_it_came
from tollgate.upstreams.rules import Refusal


class OpenRouter(OpenAI):
    headers = (
        "http-referer",
        "x-title",
        "x-openrouter-title",
        "x-openrouter-categories",
        "x-openrouter-metadata",
        "x-session-id",
    )
    """Not its cache: that is one for all who share our key, so one org would see what another has asked."""

    def prepare(self, body: bytes, ask: Ask, route: Route, bound: int | None) -> bytes:
        if route.model != ask.model:
            body = request_body.renamed(body, route.model)
        return sent.bounded(self._bounded(body, ask, bound), ask.extras)

    def bound_field(self, ask: Ask) -> str:
        """The newer name; the old completions know only the old one."""
        return ask.bound_field or ("max_completion_tokens" if ask.endpoint == "chat" else "max_tokens")

    def shown(self, ask: Ask) -> Shown:
        return as_it_came

    def refusal(self, status: int, content_type: str, body: bytes) -> Refusal:
        return refusals.read(status, content_type, body, trusted=True)
