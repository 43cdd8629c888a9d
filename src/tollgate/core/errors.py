"""Every refusal and failure that a client can meet, as one tree.

TollgateError
├── BadRequest                 400 invalid_request
│   ├── IdempotencyKeyReused   422 idempotency_key_reused
│   ├── RequestInProgress      409 request_in_progress
│   ├── AnswerNotKept          409 answer_not_kept
│   ├── KeyIsFinal             409 key_is_final
│   ├── Conflict               409 conflict
│   ├── BodyTooLarge           413 body_too_large
│   ├── BodyTooComplex         400 body_too_complex
│   ├── HeadTooLarge           431 head_too_large
│   ├── RequestTimeout         408 request_timeout
│   ├── NotFound               404 not_found
│   │   └── ModelNotFound      404 model_not_found
│   ├── ModelUnpriced          400 model_unpriced
│   ├── ExtraUnpriced          400 extra_unpriced
│   └── MethodNotAllowed       405 method_not_allowed
├── Unauthenticated            401
│   ├── MissingApiKey              missing_api_key
│   ├── InvalidApiKey              invalid_api_key
│   ├── KeyDisabled                key_disabled
│   ├── KeyExpired                 key_expired
│   └── KeyRevoked                 key_revoked
├── PaymentRequired            402
│   ├── InsufficientCredits        insufficient_credits
│   ├── KeyBudgetExhausted         key_budget_exhausted
│   └── QuotaExhausted             quota_exhausted
├── Forbidden                  403
│   ├── PermissionDenied           permission_denied
│   ├── ModelNotAllowed            model_not_allowed
│   ├── IpNotAllowed               ip_not_allowed
│   ├── CapExceeded                cap_exceeded
│   └── PaidCallsSuspended         paid_calls_suspended
├── RateLimitExceeded          429 rate_limit_exceeded
├── TooManyInFlight            429 too_many_in_flight
├── UpstreamError
│   ├── UpstreamUnavailable    502 upstream_unavailable
│   ├── UpstreamGarbled        502 upstream_garbled
│   ├── UpstreamCut            502 upstream_cut
│   ├── UpstreamTimeout        504 upstream_timeout
│   ├── UpstreamBusy           503 upstream_busy
│   ├── ServerBusy             503 server_busy
│   └── CatalogUnavailable     503 catalog_unavailable
├── ServerRestarting           503 server_restarting
├── DatabaseUnavailable        503 database_unavailable
└── InternalError              500 internal_error

The shape is OpenAI's, so that every SDK understands it: type, code and message, then the facts as fields. Under
OpenRouter's paths it is OpenRouter's: the status is the code, and our code is among the facts, which are the metadata.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class TollgateError(Exception):
    """A refusal or failure as the client sees it."""

    status: ClassVar[int]
    type: ClassVar[str]
    code: ClassVar[str]
    sentence: ClassVar[str]
    headers: Mapping[str, str] = {}

    def __init__(self, message: str | None = None, /, **facts: Any) -> None:
        self.message = message or self.sentence
        self.param = facts.pop("param", None)
        self.facts = facts
        super().__init__(self.message)

    def body(self, *, openrouter: bool = False) -> dict[str, Any]:
        if openrouter:
            param = {} if self.param is None else {"param": self.param}
            metadata = self.facts | {"error_type": self.code}
            return {"error": {"code": self.status, "message": self.message, "metadata": metadata} | param}
        named = {"message": self.message, "type": self.type, "code": self.code, "param": self.param}
        return {"error": self.facts | named}


class BadRequest(TollgateError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_request"
    sentence = "The request is not valid."


class IdempotencyKeyReused(BadRequest):
    status = 422
    code = "idempotency_key_reused"
    sentence = "This idempotency key was used for a different request. Use a new key for a new request."


class RequestInProgress(BadRequest):
    status = 409
    code = "request_in_progress"
    sentence = "A request with this idempotency key is still running. Ask again in a moment for its answer."
    headers: Mapping[str, str] = {"retry-after": "1", "x-should-retry": "true"}


class AnswerNotKept(BadRequest):
    status = 409
    code = "answer_not_kept"
    sentence = (
        "This request ran and was charged, but its answer was too large to keep or its client left. "
        "Send it with a new idempotency key to run it again."
    )
    headers: Mapping[str, str] = {"x-should-retry": "false"}


class KeyIsFinal(BadRequest):
    status = 409
    code = "key_is_final"
    sentence = "The key is revoked, which is final. Create a new key instead."


class Conflict(BadRequest):
    status = 409
    code = "conflict"
    sentence = "This is at odds with what there is already. The fields say with what."


class BodyTooLarge(BadRequest):
    status = 413
    code = "body_too_large"
    sentence = "The request body is too large."


class BodyTooComplex(BadRequest):
    code = "body_too_complex"
    sentence = "The request body has too many values. Send fewer in one request."


class HeadTooLarge(BadRequest):
    status = 431
    code = "head_too_large"
    sentence = "The request's address and headers are too large together. Send fewer or shorter headers."


class RequestTimeout(BadRequest):
    status = 408
    code = "request_timeout"
    sentence = "The request was not sent in time, so nothing was done or charged. Send it again without a pause."


class NotFound(BadRequest):
    status = 404
    code = "not_found"
    sentence = "There is nothing here. Check the path and the id."


class ModelNotFound(NotFound):
    code = "model_not_found"
    sentence = "There is no such model here. GET /v1/models lists those there are."


class ModelUnpriced(BadRequest):
    code = "model_unpriced"
    sentence = (
        "This model has no fixed price, so nothing bounds what it may cost. "
        "Send provider.max_price with prompt and completion, or name another model."
    )


class ExtraUnpriced(BadRequest):
    code = "extra_unpriced"
    advice = "Leave it out, or ask your operator to price it in EXTRA_PRICES."
    sentence = f"The request asks for something that the upstream bills apart and that has no price here. {advice}"


class MethodNotAllowed(BadRequest):
    status = 405
    code = "method_not_allowed"
    sentence = "This path does not answer to that method."


class Unauthenticated(TollgateError):
    status = 401
    type = "authentication_error"
    headers: Mapping[str, str] = {"www-authenticate": "Bearer"}


class MissingApiKey(Unauthenticated):
    code = "missing_api_key"
    sentence = "No API key was sent. Send it as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'."


class InvalidApiKey(Unauthenticated):
    code = "invalid_api_key"
    sentence = "This API key is not known here. Check that it was copied whole."


class KeyDisabled(Unauthenticated):
    code = "key_disabled"
    sentence = "This API key is disabled. Ask an administrator to enable it, or use another key."


class KeyExpired(Unauthenticated):
    code = "key_expired"
    sentence = "This API key has expired. Use or create another key."


class KeyRevoked(Unauthenticated):
    code = "key_revoked"
    sentence = "This API key was revoked for good. Use or create another key."


class PaymentRequired(TollgateError):
    status = 402
    type = "insufficient_quota"


class InsufficientCredits(PaymentRequired):
    code = "insufficient_credits"
    sentence = "The balance does not cover this request. Add credits, or ask for fewer output tokens."


class KeyBudgetExhausted(PaymentRequired):
    code = "key_budget_exhausted"
    sentence = "This API key has used up its budget for the period. Raise its budget or wait for the next period."


class QuotaExhausted(PaymentRequired):
    code = "quota_exhausted"
    sentence = "This API key has used up its token quota. Raise its quota or use another key."


class Forbidden(TollgateError):
    status = 403
    type = "permission_error"


class PermissionDenied(Forbidden):
    code = "permission_denied"
    sentence = "This API key may not do that. Use a key that has the scope named here."


class ModelNotAllowed(Forbidden):
    code = "model_not_allowed"
    sentence = "This API key may not use that model. Choose an allowed one or ask for the key to be changed."


class IpNotAllowed(Forbidden):
    code = "ip_not_allowed"
    sentence = "This API key may not be used from this address. Add the address to the key's allowlist."


class CapExceeded(Forbidden):
    code = "cap_exceeded"
    sentence = "This is more than one operator may move. Ask for less, wait until tomorrow, or have the cap raised."


class PaidCallsSuspended(Forbidden):
    code = "paid_calls_suspended"
    sentence = "Paid calls of this org are suspended until an operator has looked at its usage. Contact your operator."


class RateLimitExceeded(TollgateError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    sentence = "Too many requests or tokens for the limits of this key. Send it again after the time in Retry-After."
    never: ClassVar[str] = (
        "This request alone is more than a limit of this key allows, so no wait will help. "
        "Ask for fewer tokens (max_tokens, n, a shorter prompt), or ask your operator for a higher limit."
    )

    def __init__(self, message: str | None = None, /, **facts: Any) -> None:
        fits_later = facts.get("retry_after_ms", 0) is not None
        super().__init__(message or (self.sentence if fits_later else self.never), **facts)


class TooManyInFlight(TollgateError):
    status = 429
    type = "rate_limit_error"
    code = "too_many_in_flight"
    sentence = (
        "Too many requests are running at once. Send it again when one of them has ended, "
        "or ask your operator for a higher bound."
    )
    headers: Mapping[str, str] = {"retry-after": "1"}


class UpstreamError(TollgateError):
    type = "server_error"


class UpstreamUnavailable(UpstreamError):
    status = 502
    code = "upstream_unavailable"
    sentence = "The model's server could not be reached or refused us; nothing was charged. Try again later."


class UpstreamGarbled(UpstreamError):
    status = 502
    code = "upstream_garbled"
    sentence = "The model's server answered what is no answer. Try again or use another model."
    headers: Mapping[str, str] = {"x-should-retry": "false"}


class UpstreamCut(UpstreamError):
    status = 502
    code = "upstream_cut"
    sentence = "The model's server broke off before its answer was complete. What came before is charged at its cost."
    headers: Mapping[str, str] = {"x-should-retry": "false"}


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"
    sentence = "The model's server took too long. It may have done the work, which is then charged at its cost."
    headers: Mapping[str, str] = {"x-should-retry": "false"}


class UpstreamBusy(UpstreamError):
    status = 503
    code = "upstream_busy"
    sentence = "All servers of this model are at their limit; nothing was charged. Try again shortly."
    headers: Mapping[str, str] = {"retry-after": "2"}


class ServerBusy(UpstreamError):
    status = 503
    code = "server_busy"
    sentence = "This server has too much to do at once, so nothing was sent or charged. Send it again shortly."
    headers: Mapping[str, str] = {"retry-after": "1"}


class CatalogUnavailable(UpstreamError):
    status = 503
    code = "catalog_unavailable"
    sentence = "The list of models and prices cannot be read, so nothing was done or charged. Try again shortly."
    headers: Mapping[str, str] = {"retry-after": "5"}


class ServerRestarting(TollgateError):
    status = 503
    type = "server_error"
    code = "server_restarting"
    sentence = (
        "This server is being restarted and could not wait for the end of the answer. "
        "What the model had done by then is charged at its cost. Another server takes the next request."
    )
    headers: Mapping[str, str] = {"retry-after": "1", "x-should-retry": "false"}


class DatabaseUnavailable(TollgateError):
    status = 503
    type = "server_error"
    code = "database_unavailable"
    sentence = "The database cannot be reached, so nothing was done or charged. Try again shortly."
    headers: Mapping[str, str] = {"retry-after": "2"}


class InternalError(TollgateError):
    status = 500
    type = "server_error"
    code = "internal_error"
    sentence = "Something went wrong on our side. If it persists, report the x-request-id of this answer."


def tree(root: type[TollgateError] = TollgateError) -> Iterator[type[TollgateError]]:
    """The errors that have a code, in the order drawn above."""
    for branch in root.__subclasses__():
        if hasattr(branch, "code"):
            yield branch
        yield from tree(branch)


_BY_CODE = {error.code: error for error in tree()}


def from_code(code: str, facts: Mapping[str, Any]) -> TollgateError:
    """The error behind a code that a database function refused with."""
    return _BY_CODE.get(code, InternalError)(**facts)
