"""The servers of vendors: who may see our key, by which names they bound the output, and what their errors mean.

What they have in common: they may bill what they began, they refuse fields that only OpenRouter knows, and their errors
can name our account.
"""

import re
from collections.abc import Mapping
from typing import Final

from tollgate.core import strict_json
from tollgate.core.endpoints import ENDPOINTS, Endpoint
from tollgate.core.models import Route
from tollgate.core.request_body import Ask
from tollgate.core.strict_json import Edits, NotJson
from tollgate.upstreams.dialects.openai import OpenAI
from tollgate.upstreams.rules import Refusal, UpstreamCall

OF_OPENROUTER: Final = ("models", "provider", "route", "transforms", "usage", "session_id")
"""Fields by which a client steers OpenRouter. They mean nothing elsewhere, and some servers refuse what they do not
know."""

BETA: Final = "anthropic-beta"
BETAS: Final = frozenset(
    (
        "context-management-2025-06-27",
        "extended-cache-ttl-2025-04-11",
        "fine-grained-tool-streaming-2025-05-14",
        "interleaved-thinking-2025-05-14",
        "model-context-window-exceeded-2025-08-26",
        "output-128k-2025-02-19",
        "pdfs-2024-09-25",
        "prompt-caching-2024-07-31",
        "structured-outputs-2025-11-13",
        "token-efficient-tools-2025-02-19",
    )
)
"""Betas of Anthropic's that are forwarded: those without a price of their own, and without anything that is kept."""

_ACCOUNT = re.compile(rb"\b(?:org|organization|proj|project|workspace)[-_][A-Za-z0-9_-]{6,}")


class Vendor(OpenAI):
    is_paid = True
    statuses: Mapping[int, int] = {}
    """Statuses that mean something else here, and what."""
    our_errors: tuple[str, ...] = ()
    """Types and codes of errors that say that our account may not go on, whatever the status."""
    our_words: re.Pattern[str] | None = None
    """The same, where only the message says it."""

    def edits(self, call: UpstreamCall, route: Route) -> Edits:
        return {**super().edits(call, route), **dict.fromkeys(OF_OPENROUTER)}

    def refusal(self, status: int, content_type: str, body: bytes) -> Refusal:
        """404 is ours as well: the operator's route names a model that the vendor does not serve to us."""
        refusal = super().refusal(self.statuses.get(status, status), content_type, _ACCOUNT.sub(b"[account]", body))
        return refusal._replace(is_ours=status == 404 or self._blames_us(refusal.body))

    def _blames_us(self, body: bytes) -> bool:
        try:
            error = strict_json.from_upstream(body).get("error")
        except NotJson:
            return False
        if not isinstance(error, dict):
            return False
        if not {str(error.get("type")), str(error.get("code"))}.isdisjoint(self.our_errors):
            return True
        return self.our_words is not None and self.our_words.search(str(error.get("message"))) is not None


class OpenAIPlatform(Vendor):
    """OpenAI itself: its newer models refuse max_tokens, and a used-up balance looks like a rate limit."""

    our_errors = (
        "insufficient_quota",
        "billing_not_active",
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
    )

    def bound_field(self, ask: Ask) -> str:
        return ENDPOINTS[ask.endpoint].bounds[-1]


class AzureOpenAI(OpenAIPlatform):
    """OpenAI's models at Azure, by its v1 API: `model` names a deployment, and the key has a header of its own."""

    def auth(self, secret: str, endpoint: Endpoint) -> Mapping[str, str]:
        return {"api-key": secret}


class Anthropic(Vendor):
    """Messages with the key in x-api-key; chat completions by its layer for OpenAI's SDK, which takes a bearer."""

    headers = (BETA,)
    our_errors = ("billing_error",)
    our_words = re.compile(r"credit balance is too low|usage limits", re.IGNORECASE)

    def auth(self, secret: str, endpoint: Endpoint) -> Mapping[str, str]:
        if endpoint == "chat":
            return super().auth(secret, endpoint)
        return {"x-api-key": secret, "anthropic-version": "2023-06-01"}

    def forwarded(self, headers: dict[str, str]) -> dict[str, str]:
        asked = [beta.strip() for beta in headers.get(BETA, "").split(",")]
        known = [beta for beta in asked if beta in BETAS]
        others = {name: value for name, value in headers.items() if name != BETA}
        return others | ({BETA: ",".join(known)} if known else {})


class Groq(Vendor):
    statuses: Mapping[int, int] = {498: 503}
    """498: its flex tier has no capacity left."""


class Mistral(Vendor):
    """Refuses fields that it does not know, and always reports the usage."""

    knows_only_max_tokens = True

    def edits(self, call: UpstreamCall, route: Route) -> Edits:
        return {**super().edits(call, route), "stream_options": None}


class Together(Vendor):
    knows_only_max_tokens = True
    statuses: Mapping[int, int] = {403: 400}
    """403: the prompt and the bound are longer than the context."""
