"""OpenRouter: accepts every parameter, always reports the usage, and tries fallbacks itself."""

import json

from tollgate.core.endpoints import ENDPOINTS
from tollgate.core.extras import edits as extras
from tollgate.core.models import Route
from tollgate.core.request_body import Ask
from tollgate.core.strict_json import Edits
from tollgate.upstreams.dialects import refusals
from tollgate.upstreams.dialects.openai import OpenAI, Shown, as_it_came
from tollgate.upstreams.rules import Refusal, UpstreamCall


class OpenRouter(OpenAI):
    takes_sound_in_json = True
    is_paid = True
    headers = (
        "http-referer",
        "x-title",
        "x-openrouter-title",
        "x-openrouter-categories",
        "x-openrouter-metadata",
        "x-session-id",
    )
    """Not those of its cache: all orgs share our key, so one org would get what another asked."""

    def edits(self, call: UpstreamCall, route: Route) -> Edits:
        ask = call.ask
        return {
            **({"model": json.dumps(route.model)} if route.model != ask.model else {}),
            **({"models": json.dumps(call.openrouter_models)} if call.openrouter_models else {}),
            **self.bound_edits(ask, call.bound),
            **extras.edits(ask.extras, search_off=call.search_off),
        }

    def bound_field(self, ask: Ask) -> str:
        """The newest name that the endpoint knows."""
        known = ENDPOINTS[ask.endpoint].bounds
        return ask.bound_field if ask.bound_field in known else known[-1]

    def shown(self, ask: Ask) -> Shown:
        return as_it_came

    def refusal(self, status: int, content_type: str, body: bytes) -> Refusal:
        return refusals.read(status, content_type, body, trusted=True)
