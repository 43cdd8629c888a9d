"""All errors that a client can get, as one tree.

TollgateError
├── BadRequest                 400 invalid_request
│   ├── IdempotencyKeyReused   422 idempotency_key_reused
│   ├── SecretShownOnce        409 secret_shown_once
│   ├── RequestInProgress      409 request_in_progress
│   ├── AnswerNotKept          409 answer_not_kept
│   ├── KeyIsFinal             409 key_is_final
│   ├── Conflict               409 conflict
│   ├── BodyTooLarge           413 body_too_large
│   ├── BodyTooComplex         400 body_too_complex
│   ├── HeadTooLarge           431 head_too_large
│   ├── RequestTimeout         408 request_timeout
│   ├── NotFound               404 not_found
│   │   ├── ModelNotFound      404 model_not_found
│   │   └── EndpointNotServed  404 endpoint_not_served
│   ├── ModelUnpriced          400 model_unpriced
│   ├── ExtraUnpriced          400 extra_unpriced
│   ├── WeakPassword           400 weak_password
│   └── MethodNotAllowed       405 method_not_allowed
├── Unauthenticated            401
│   ├── MissingApiKey              missing_api_key
│   ├── InvalidApiKey              invalid_api_key
│   ├── KeyDisabled                key_disabled
│   ├── KeyExpired                 key_expired
│   ├── KeyRevoked                 key_revoked
│   └── SessionEnded               session_ended
├── SignInFailed               401 sign_in_failed
│   └── InvalidLink            401 invalid_link
├── PaymentRequired            402
│   ├── InsufficientCredits        insufficient_credits
│   ├── KeyBudgetExhausted         key_budget_exhausted
│   └── QuotaExhausted             quota_exhausted
├── Forbidden                  403
│   ├── PermissionDenied           permission_denied
│   ├── ModelNotAllowed            model_not_allowed
│   ├── IpNotAllowed               ip_not_allowed
│   ├── CapExceeded                cap_exceeded
│   ├── PaidCallsSuspended         paid_calls_suspended
│   ├── CrossSiteRequest           cross_site_request
│   └── SignInAgain                sign_in_again
├── OriginNotAllowed           403 origin_not_allowed
├── RateLimitExceeded          429 rate_limit_exceeded
├── TooManyInFlight            429 too_many_in_flight
├── TooManySignIns             429 too_many_sign_ins
├── TooManyTests               429 too_many_tests
├── UpstreamError
│   ├── UpstreamUnavailable    502 upstream_unavailable
│   ├── UpstreamGarbled        502 upstream_garbled
│   ├── UpstreamCut            502 upstream_cut
│   ├── UpstreamTimeout        504 upstream_timeout
│   ├── UpstreamBusy           503 upstream_busy
│   ├── UpstreamKeyRefused     403 upstream_key_refused
│   ├── UpstreamKeyOutdated    403 upstream_key_outdated
│   ├── ServerBusy             503 server_busy
│   └── CatalogUnavailable     503 catalog_unavailable
├── ServerRestarting           503 server_restarting
├── PromptNotSent              503 prompt_not_sent
├── DatabaseUnavailable        503 database_unavailable
├── SupabaseUnavailable        503 supabase_unavailable
├── VaultLocked                503 vault_locked
├── AgentRefused
│   ├── EnrolmentInvalid       401 enrolment_invalid
│   ├── HostKeyInvalid         401 host_key_invalid
│   ├── HostRetired            403 host_retired
│   └── HostBusy               409 host_busy
├── FleetNotConfigured         503 fleet_not_configured
├── ReconciliationNotConfigured 503 reconciliation_not_configured
├── ActivityUnavailable        502 activity_unavailable
├── HostSilent                 504 host_silent
├── HostTaskFailed             409 host_task_failed
└── InternalError              500 internal_error

The body has OpenAI's shape, which every SDK understands: type, code and message, then the facts as fields. Under
OpenRouter's paths it has OpenRouter's shape: `code` is the status, and `metadata` holds our code and the facts. Under
the paths of Anthropic's Messages it has Anthropic's shape, with our code and the facts beside its type.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Literal

from tollgate.core import conflicts
from tollgate.core.money import credits_number

Shape = Literal["openai", "openrouter", "anthropic"]

ANTHROPIC_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""By status. Any other is invalid_request_error below 500, and api_error from there."""


UNBOUNDED_TOKENS: Final = 1_000_000_000
"""The output that is affordable where output has no price."""


def anthropic_type(status: int) -> str:
    return ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")


class TollgateError(Exception):
    """An error as the client gets it."""

    status: ClassVar[int]
    type: ClassVar[str]
    code: ClassVar[str]
    sentence: ClassVar[str]
    headers: Mapping[str, str] = {}

    def __init__(self, message: str | None = None, /, **facts: Any) -> None:
        self.param = facts.pop("param", None)
        self.facts = facts
        if (wait := facts.get("retry_after_seconds")) is not None:
            self.headers = {"retry-after": str(wait)}
        self.message = message or self.words()
        super().__init__(self.message)

    def words(self) -> str:
        """The sentence, with the facts where they make it clearer."""
        return self.sentence

    def body(self, shape: Shape = "openai", request_id: str | None = None) -> dict[str, Any]:
        """`request_id` is for Anthropic's shape alone."""
        param = {} if self.param is None else {"param": self.param}
        if shape == "openrouter":
            metadata = self.facts | {"error_type": self.code}
            return {"error": {"code": self.status, "message": self.message, "metadata": metadata} | param}
        if shape == "anthropic":
            named = {"type": anthropic_type(self.status), "message": self.message, "code": self.code, **param}
            return {"type": "error", "error": self.facts | named, "request_id": request_id}
        named = {"message": self.message, "type": self.type, "code": self.code, "param": self.param}
        return {"error": self.facts | named}


class BadRequest(TollgateError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_request"
    sentence = "The request is invalid. Correct it and send it again."

    def words(self) -> str:
        if self.code != BadRequest.code or self.param is None:
            return self.sentence
        return f"{self.param}: {self.facts.get('fault', 'is not valid')}."


class IdempotencyKeyReused(BadRequest):
    status = 422
    code = "idempotency_key_reused"
    sentence = "This idempotency key was used for a different request. Use a new key for a new request."


class SecretShownOnce(BadRequest):
    status = 409
    code = "secret_shown_once"
    sentence = (
        "This idempotency key has created an API key before, and its secret is not shown again. Rotate that API key, "
        "or create another with a new idempotency key."
    )


class RequestInProgress(BadRequest):
    status = 409
    code = "request_in_progress"
    sentence = "A request with this idempotency key is still in progress. Send it again in a moment to get its answer."
    headers: Mapping[str, str] = {"retry-after": "1", "x-should-retry": "true"}


class AnswerNotKept(BadRequest):
    status = 409
    code = "answer_not_kept"
    sentence = (
        "This request ran, and was charged if it cost something, but its answer was not stored: it was too large, its "
        "client disconnected, or the upstream broke off. Send it with a new idempotency key to run it again."
    )
    headers: Mapping[str, str] = {"x-should-retry": "false"}


class KeyIsFinal(BadRequest):
    status = 409
    code = "key_is_final"
    sentence = "The key is revoked, and revocation is permanent. Create a new key."

    def words(self) -> str:
        key_id = self.facts.get("key_id")
        return (
            f"The key {key_id} is revoked, and revocation is permanent. Create a new key." if key_id else self.sentence
        )


class Conflict(BadRequest):
    status = 409
    code = "conflict"
    sentence = "The request conflicts with an existing record. See the fields of this error."

    def words(self) -> str:
        return conflicts.sentence(self.facts) or self.sentence


class BodyTooLarge(BadRequest):
    status = 413
    code = "body_too_large"
    sentence = "The request body is too large. Send a smaller one, or ask your operator to raise the limit."

    def words(self) -> str:
        limit = self.facts.get("limit_bytes")
        is_known = isinstance(limit, int)
        return self.sentence.replace("too large", f"larger than {limit:,} bytes") if is_known else self.sentence


class BodyTooComplex(BadRequest):
    code = "body_too_complex"
    sentence = "The request body has too many values. Send fewer in one request."


class HeadTooLarge(BadRequest):
    status = 431
    code = "head_too_large"
    sentence = "The URL and headers of the request are too large together. Send fewer or shorter headers."


class RequestTimeout(BadRequest):
    status = 408
    code = "request_timeout"
    sentence = "The request did not arrive in time. Nothing was done or charged. Send it again without pauses."


class NotFound(BadRequest):
    status = 404
    code = "not_found"
    sentence = "The resource does not exist. Check the path and the id."

    def words(self) -> str:
        kind, sought = self.facts.get("kind"), self.facts.get("id")
        return f"No {str(kind).replace('_', ' ')} has the id {sought}." if kind and sought else self.sentence


class ModelNotFound(NotFound):
    code = "model_not_found"
    sentence = "The model does not exist. GET /v1/models lists the models."

    def words(self) -> str:
        name, expired_on = self.facts.get("model"), self.facts.get("expired_on")
        if not name:
            return self.sentence
        fate = f"expired on {expired_on}" if expired_on else "does not exist"
        replacement = self.facts.get("replacement")
        advice = f"Use {replacement} instead" if replacement else "GET /v1/models lists the models"
        return f"The model {name} {fate}. {advice}."


class EndpointNotServed(NotFound):
    code = "endpoint_not_served"
    sentence = "No upstream of this model has this endpoint. GET /v1/models lists the endpoints of each model."

    def words(self) -> str:
        name, path = self.facts.get("model"), self.facts.get("endpoint")
        if not name:
            return self.sentence
        return f"No upstream of the model {name} has the endpoint {path}. GET /v1/models lists what each model has."


class ModelUnpriced(BadRequest):
    code = "model_unpriced"
    sentence = (
        "This model has no fixed price, so its cost has no upper bound. "
        "Send provider.max_price with prompt and completion, or use another model."
    )

    def words(self) -> str:
        price, path = self.facts.get("price"), self.facts.get("endpoint")
        if not price:
            return self.sentence
        return (
            f"This model has a price by {price}, which {path} does not count. "
            "Use another endpoint, or ask your operator for a route with another price."
        )


class ExtraUnpriced(BadRequest):
    code = "extra_unpriced"
    advice = "Remove it, or ask your operator to price it in EXTRA_PRICES."
    sentence = f"The request uses an extra that the upstream bills separately and that has no price here. {advice}"


class WeakPassword(BadRequest):
    code = "weak_password"
    sentence = "The password is not allowed. Choose another of 12 to 1,024 characters, such as four unrelated words."
    faults: ClassVar[Mapping[str, str]] = {
        "too_short": "is shorter than 12 characters",
        "too_long": "is longer than 1,024 characters",
        "easy_to_guess": "consists of common words, or of your email or name",
    }

    def words(self) -> str:
        fault = self.faults.get(self.facts.get("reason", ""))
        return f"The password {fault}. Choose another, such as four unrelated words." if fault else self.sentence


class MethodNotAllowed(BadRequest):
    status = 405
    code = "method_not_allowed"
    sentence = "This path does not support this method. See allow for the methods that it supports."


class Unauthenticated(TollgateError):
    status = 401
    type = "authentication_error"
    headers: Mapping[str, str] = {"www-authenticate": "Bearer"}


class MissingApiKey(Unauthenticated):
    code = "missing_api_key"
    sentence = "The request has no API key. Send one as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'."


class InvalidApiKey(Unauthenticated):
    code = "invalid_api_key"
    sentence = "The API key is invalid. Check that it was copied completely."


class KeyDisabled(Unauthenticated):
    code = "key_disabled"
    sentence = "This API key is disabled. Ask your operator to enable it, or use another key."

    def words(self) -> str:
        match self.facts:
            case {"disabled": "org" | "user" as whose}:
                state = "suspended" if whose == "org" else "disabled"
                return f"The {whose} of this API key is {state}. Ask your operator to make it active again."
        return self.sentence


class KeyExpired(Unauthenticated):
    code = "key_expired"
    sentence = "This API key has expired. Create a new key, or use another one."


class KeyRevoked(Unauthenticated):
    code = "key_revoked"
    sentence = "This API key was revoked. Create a new key, or use another one."


class SessionEnded(Unauthenticated):
    code = "session_ended"
    sentence = "The session has ended. Sign in again."


class SignInFailed(TollgateError):
    status = 401
    type = "authentication_error"
    code = "sign_in_failed"
    sentence = "The email and the password do not match. Correct them, or ask an operator for a sign-in link."

    def words(self) -> str:
        if self.facts.get("way") != "supabase":
            return self.sentence
        return "No active user here has the email of this Supabase account. Ask an operator to create one."


class InvalidLink(SignInFailed):
    code = "invalid_link"
    sentence = "The sign-in link was used or has expired. Ask an operator for a new one."


class PaymentRequired(TollgateError):
    status = 402
    type = "insufficient_quota"


class InsufficientCredits(PaymentRequired):
    code = "insufficient_credits"
    sentence = "The balance does not cover this request. Add credits, or request fewer output tokens."

    def words(self) -> str:
        match self.facts:
            case {"available_nanos": available} if available <= 0:
                return "No credits are available. Add credits, or wait until requests in progress end."
            case {"available_nanos": available, "required_nanos": required, **more}:
                may_cost, left = credits_number(required), credits_number(available)
                is_bounded = 0 < more.get("affordable_output_tokens", 1) < UNBOUNDED_TOKENS
                or_less = ", or request fewer output tokens" if is_bounded else ""
                return f"This request may cost {may_cost} credits, and {left} are available. Add credits{or_less}."
        return self.sentence


class KeyBudgetExhausted(PaymentRequired):
    code = "key_budget_exhausted"
    sentence = "The budget of this API key does not cover this request. Raise budget_nanos, or use another key."

    def words(self) -> str:
        match self.facts:
            case {"required_nanos": required, "left_nanos": left, "budget_nanos": limit, "resets_at": resets_at}:
                needs = f"may cost {credits_number(required)} credits"
                budget = f"budget of {credits_number(limit)} credits"
                return _beyond(needs, left and credits_number(left), budget, resets_at, "budget_nanos")
        return self.sentence


class QuotaExhausted(PaymentRequired):
    code = "quota_exhausted"
    sentence = "The token quota of this API key does not cover this request. Raise the quota, or use another key."

    def words(self) -> str:
        match self.facts:
            case {"needed": needed, "left": left, "limit": limit, "period": period, "resets_at": resets_at}:
                setting = "tokens_per_month" if period == "month" else "tokens_in_all"
                return _beyond(f"needs {needed} tokens", left, f"quota of {limit} tokens", resets_at, setting)
        return self.sentence


def _beyond(needs: str, left: str | int, allowance: str, resets_at: str | None, setting: str) -> str:
    until = f" until {resets_at}" if resets_at else ""
    if not left:
        return f"This API key has used up its {allowance}{until}. Raise {setting} of the key, or use another key."
    return (
        f"This request {needs}, and {left} are left of this API key's {allowance}{until}. "
        f"Request fewer tokens, or raise {setting} of the key."
    )


class Forbidden(TollgateError):
    status = 403
    type = "permission_error"


class PermissionDenied(Forbidden):
    code = "permission_denied"
    sentence = "This API key is not allowed to do this. Use a key with the scope that this error names."

    def words(self) -> str:
        if scope := self.facts.get("scope"):
            return f"This API key lacks the scope {scope}. Use a key that has it, or have this one changed."
        if self.param is None:
            return self.sentence
        return (
            f"This API key may not grant {self.param}: a key grants no more than it has itself, and one with a budget, "
            "a quota or limits makes no keys and keeps these. Ask your operator, or use another key."
        )


class ModelNotAllowed(Forbidden):
    code = "model_not_allowed"
    sentence = (
        "This API key is not allowed to use this model. "
        "Use another model, or have this one added to allowed_models of the key."
    )

    def words(self) -> str:
        if self.facts.get("of") != "org":
            return self.sentence
        return (
            "The org of this API key is not allowed to use this model. "
            "Use another model, or have your operator add this one to allowed_models of the org."
        )


class IpNotAllowed(Forbidden):
    code = "ip_not_allowed"
    sentence = "This API key is not allowed from this IP address. Add the address to ip_allowlist of the key."


class CapExceeded(Forbidden):
    code = "cap_exceeded"
    sentence = (
        "The amount exceeds what an operator may move in a day. "
        "Move less, wait until tomorrow, or have GRANT_CAP or GRANT_CAP_PER_DAY raised."
    )

    def words(self) -> str:
        match self.facts:
            case {"amount_nanos": int(amount), "cap_nanos": int(cap)} if amount > cap:
                moves, most = credits_number(amount), credits_number(cap)
                return (
                    f"This would add {moves} credits, and GRANT_CAP allows {most} at once. Add less, or have it raised."
                )
            case {"granted_today_nanos": int(granted), "cap_per_day_nanos": int(cap)}:
                so_far, most = credits_number(granted), credits_number(cap)
                return (
                    f"You have added {so_far} credits today, and GRANT_CAP_PER_DAY allows {most}. "
                    "Add less, wait until tomorrow, or have it raised."
                )
        return self.sentence


class PaidCallsSuspended(Forbidden):
    code = "paid_calls_suspended"
    sentence = (
        "Paid calls of this org are suspended until an operator reviews its usage. "
        "Contact your operator, who resumes them by setting paid_calls of the org to active."
    )


class CrossSiteRequest(Forbidden):
    code = "cross_site_request"
    sentence = (
        "The request does not come from a page of this host. "
        "Send it from the console, with Sec-Fetch-Site or Origin, or use an API key."
    )


class OriginNotAllowed(TollgateError):
    status = 403
    type = "permission_error"
    code = "origin_not_allowed"
    sentence = (
        "Web pages of this origin may not call this server. "
        "Have the origin added to CORS_ORIGINS, or call from a server of your own."
    )


class SignInAgain(Forbidden):
    code = "sign_in_again"
    sentence = "This needs a sign-in within the last 15 minutes. Sign in again and repeat the request."

    def words(self) -> str:
        if self.facts.get("way") != "link":
            return self.sentence
        return (
            "The first password needs a sign-in by link within the last 15 minutes. "
            "Ask an operator for a link, sign in with it and repeat the request."
        )


class RateLimitExceeded(TollgateError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    sentence = "The request does not fit into a limit at the moment. Send it again after the time in Retry-After."
    never: ClassVar[str] = (
        "The request alone exceeds a limit, so waiting does not help. "
        "Request fewer tokens (max_tokens, n, a shorter prompt), or ask your operator for a higher limit."
    )

    def words(self) -> str:
        advice = self.sentence if self.facts.get("retry_after_ms", 0) is not None else self.never
        match self.facts:
            case {"of": of, "limit": limit, "measure": "requests", "window": window}:
                noun = "request" if limit == 1 else "requests"
                return f"This {of} may send {limit} {noun} in any {window}. {advice}"
            case {"of": of, "limit": limit, "left": left, "window": window, "needed": needed}:
                has = f"this {of} may use {limit} tokens in any {window}, of which {left} are left"
                return f"This request needs {needed} tokens, and {has}. {advice}"
        return advice


class TooManyInFlight(TollgateError):
    status = 429
    type = "rate_limit_error"
    code = "too_many_in_flight"
    sentence = (
        "Too many requests are in progress. Send it again when one of them has finished, "
        "or ask your operator for a higher limit."
    )
    headers: Mapping[str, str] = {"retry-after": "1"}

    def words(self) -> str:
        match self.facts:
            case {"of": "org" | "key" as of, "in_flight": in_flight, "limit": limit}:
                return (
                    f"This {of} has as many requests in progress as it may, {in_flight} of {limit}. Send it again when "
                    "one of them has finished, or ask your operator to raise max_concurrent_requests."
                )
        return self.sentence


class TooManySignIns(TollgateError):
    status = 429
    type = "rate_limit_error"
    code = "too_many_sign_ins"
    sentence = (
        "Signing in failed too often. Wait for the time in Retry-After, or sign in with an API key or a link from an "
        "operator."
    )


class TooManyTests(TollgateError):
    status = 429
    type = "rate_limit_error"
    code = "too_many_tests"
    sentence = "Channels were tested too often within a minute. Test again after the time in Retry-After."


class UpstreamError(TollgateError):
    type = "server_error"


class UpstreamUnavailable(UpstreamError):
    status = 502
    code = "upstream_unavailable"
    sentence = "The upstream could not be reached, or rejected our credentials. Nothing was charged. Try again later."


class UpstreamGarbled(UpstreamError):
    status = 502
    code = "upstream_garbled"
    sentence = "The upstream sent a response that could not be parsed. Try again, or use another model."
    headers: Mapping[str, str] = {"x-should-retry": "false"}


class UpstreamCut(UpstreamError):
    status = 502
    code = "upstream_cut"
    sentence = "The upstream broke off before its response was complete. What was received is charged at its cost."
    headers: Mapping[str, str] = {"x-should-retry": "false"}


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"
    sentence = "The upstream did not respond in time. If it did the work, the work is charged at its cost."
    headers: Mapping[str, str] = {"x-should-retry": "false"}

    def words(self) -> str:
        if self.facts.get("phase") != "total":
            return self.sentence
        return f"{self.sentence} Request less output, or ask your operator to raise UPSTREAM_TIMEOUT_SECONDS."


class UpstreamBusy(UpstreamError):
    status = 503
    code = "upstream_busy"
    sentence = "All upstreams of this model are busy or resting after failures. Nothing was charged. Try again shortly."
    headers: Mapping[str, str] = {"retry-after": "2"}


class UpstreamKeyRefused(UpstreamError):
    status = 403
    type = "permission_error"
    code = "upstream_key_refused"
    sentence = (
        "The upstream refused your org's own key. Nothing was charged. "
        "Store a key that works with PUT /user/upstream-keys, or delete it."
    )

    def words(self) -> str:
        match self.facts:
            case {"upstream": upstream, "upstream_status": status}:
                why = "it has no credit left" if status == 402 else f"it answered with status {status}"
                return (
                    f"{upstream} refused your org's own key: {why}. Nothing was charged. "
                    f"Store a key that works with PUT /user/upstream-keys/{upstream}, or delete it."
                )
        return self.sentence


class UpstreamKeyOutdated(UpstreamError):
    status = 403
    type = "permission_error"
    code = "upstream_key_outdated"
    sentence = (
        "Your org's own key was stored for another address of the upstream, or the upstream takes no such keys any "
        "more. Nothing was sent or charged. Store the key again with PUT /user/upstream-keys, or delete it."
    )


class ServerBusy(UpstreamError):
    status = 503
    code = "server_busy"
    sentence = "This server is overloaded. Nothing was sent or charged. Try again shortly."
    headers: Mapping[str, str] = {"retry-after": "1"}


class CatalogUnavailable(UpstreamError):
    status = 503
    code = "catalog_unavailable"
    sentence = "The list of models and prices is unavailable. Nothing was charged. Try again shortly."
    headers: Mapping[str, str] = {"retry-after": "5"}


class ServerRestarting(TollgateError):
    status = 503
    type = "server_error"
    code = "server_restarting"
    sentence = (
        "This server is restarting and could not wait for the end of the response. "
        "The work done so far is charged at its cost. Send the request again: another server takes it."
    )
    headers: Mapping[str, str] = {"retry-after": "1", "x-should-retry": "false"}


class PromptNotSent(TollgateError):
    status = 503
    type = "server_error"
    code = "prompt_not_sent"
    sentence = (
        "The batch ended before this prompt was sent: its time was over, or this server is restarting. "
        "Nothing was charged for the prompt. Send it again in another batch."
    )


class DatabaseUnavailable(TollgateError):
    status = 503
    type = "server_error"
    code = "database_unavailable"
    sentence = "The database is unavailable. Nothing was done or charged. Try again shortly."
    headers: Mapping[str, str] = {"retry-after": "2"}


class SupabaseUnavailable(TollgateError):
    status = 503
    type = "server_error"
    code = "supabase_unavailable"
    sentence = "Supabase Auth is unavailable. Try again shortly, or sign in another way."
    headers: Mapping[str, str] = {"retry-after": "2"}


class VaultLocked(TollgateError):
    status = 503
    type = "server_error"
    code = "vault_locked"
    sentence = (
        "This server cannot encrypt or decrypt stored secrets: VAULT_KEY is not set, or is not the one that the secret "
        "was stored with. Nothing was done or charged. Ask your operator to set it, or store the secret again."
    )
    headers: Mapping[str, str] = {"x-should-retry": "false"}


class AgentRefused(TollgateError):
    """For the agents of hosts. Their requests are not those of a caller with an API key."""


class EnrolmentInvalid(AgentRefused):
    status = 401
    type = "authentication_error"
    code = "enrolment_invalid"
    sentence = (
        "The enrolment token is unknown, was used, or is older than an hour. "
        "Get another with POST /admin/hosts/{id}/enrolments."
    )


class HostKeyInvalid(AgentRefused):
    status = 401
    type = "authentication_error"
    code = "host_key_invalid"
    sentence = (
        "The key of the host is missing or invalid, or was replaced. Enrol the host again: "
        "POST /admin/hosts/{id}/enrolments has the command."
    )


class HostRetired(AgentRefused):
    status = 403
    type = "permission_error"
    code = "host_retired"
    sentence = "This host is retired. Stop its agent, or enrol the machine as a new host."


class HostBusy(AgentRefused):
    status = 409
    type = "invalid_request_error"
    code = "host_busy"
    sentence = (
        "Another run of the agent acts for this host. Stop one of the two; "
        "this one may take over after the time in Retry-After without a sync of the other."
    )


class FleetNotConfigured(TollgateError):
    status = 503
    type = "server_error"
    code = "fleet_not_configured"
    sentence = "Hosts need the setting AGENT_KEY: set it to a secret, such as from `openssl rand -hex 32`, and restart."
    headers: Mapping[str, str] = {"x-should-retry": "false"}


class ReconciliationNotConfigured(TollgateError):
    status = 503
    type = "server_error"
    code = "reconciliation_not_configured"
    sentence = (
        "Reconciliation needs the setting OPENROUTER_MANAGEMENT_KEY: create a management key in the settings of your "
        "OpenRouter account, set it, and restart."
    )
    headers: Mapping[str, str] = {"x-should-retry": "false"}


class ActivityUnavailable(TollgateError):
    status = 502
    type = "server_error"
    code = "activity_unavailable"
    sentence = "OpenRouter did not state what the day cost. Try again later."

    def words(self) -> str:
        reason = self.facts.get("reason")
        return f"OpenRouter did not state what the day cost: {reason}. Try again later." if reason else self.sentence


class HostSilent(TollgateError):
    status = 504
    type = "server_error"
    code = "host_silent"
    sentence = "The host did not answer within 20 seconds. Look at the log of its agent, and try again."


class HostTaskFailed(TollgateError):
    status = 409
    type = "invalid_request_error"
    code = "host_task_failed"
    sentence = "The host could not do this. See reason."

    def words(self) -> str:
        reason = self.facts.get("reason")
        return f"The host could not do this: {reason}" if reason else self.sentence


class InternalError(TollgateError):
    status = 500
    type = "server_error"
    code = "internal_error"
    sentence = "An unexpected error occurred. If it persists, report the x-request-id of this response."


def tree(root: type[TollgateError] = TollgateError) -> Iterator[type[TollgateError]]:
    """The errors that have a code, in the order drawn above."""
    for branch in root.__subclasses__():
        if hasattr(branch, "code"):
            yield branch
        yield from tree(branch)


_BY_CODE = {error.code: error for error in tree()}


def from_code(code: str, facts: Mapping[str, Any]) -> TollgateError:
    """The error for a code by which a database function refused."""
    return _BY_CODE.get(code, InternalError)(**facts)
