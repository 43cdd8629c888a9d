"""An upstream as this process knows it: its dialect and headers, its load, its breakers and its failures."""

import asyncio
import math
from collections.abc import Mapping
from typing import Final

from pydantic import SecretStr

from tollgate.core.endpoints import ENDPOINTS, Endpoint
from tollgate.core.models import OPENROUTER, Upstream
from tollgate.process import logs
from tollgate.process.clock import Monotonic
from tollgate.process.http_client import USER_AGENT
from tollgate.upstreams import key_variables, rules
from tollgate.upstreams.address_guard import Forbidden, Guard
from tollgate.upstreams.breaker import OF_OPENROUTER, OF_OTHERS, Breakers, Budget, State
from tollgate.upstreams.dialects import DIALECTS

FULL_SECONDS: Final = 2
"""Retry-After when every slot of the upstream is taken."""

SANDBOX_FAULT: Final = "x-sandbox-fault"

log = logs.source("upstream")


class LiveUpstream:
    def __init__(self, upstream: Upstream, secrets: Mapping[str, str], guard: Guard, clock: Monotonic) -> None:
        self.upstream = upstream
        self.dialect = DIALECTS[upstream.dialect]
        self.resolve = None if upstream.trusted else guard.addresses
        self.passed_on = (*self.dialect.headers, SANDBOX_FAULT) if upstream.is_sandbox else self.dialect.headers
        self.is_allowed = True
        """Its address is not forbidden."""
        self.has_key = True
        """It needs no key of ours, or we have it."""
        self.budget = Budget(clock())
        self.in_flight = 0
        self.failures = 0
        self.last_error: str | None = None
        base = upstream.base_url.rstrip("/")
        self.urls = {
            endpoint: base + form.elsewhere.get(upstream.dialect, form.path) for endpoint, form in ENDPOINTS.items()
        }
        self.lookup_url = base + "/generation?id="
        self._clock = clock
        self._headers = {
            "accept": "*/*",
            "accept-encoding": "identity",
            "content-type": "application/json",
            "user-agent": USER_AGENT,
        }
        self.breakers = Breakers(OF_OPENROUTER if upstream.dialect == OPENROUTER else OF_OTHERS)
        self.checkup: asyncio.Task[None] | None = None
        """The health check under way, which all waiting calls share."""
        self._check(guard)
        self._auth = self._our_auth(secrets)

    def is_of(self, upstream: Upstream) -> bool:
        """Whether all settings are the same. A catalog that was read again holds a new object for the same upstream."""
        if self.upstream is not upstream and self.upstream == upstream:
            self.upstream = upstream
        return self.upstream is upstream

    @property
    def is_paid(self) -> bool:
        return self.dialect.is_paid

    @property
    def is_usable(self) -> bool:
        """With our key."""
        return self.is_allowed and self.has_key

    def headers(
        self, clients: Mapping[str, str], endpoint: Endpoint, org_key: SecretStr | None = None
    ) -> dict[str, str]:
        """Ours come last, so that no client can replace our key. A key of the org's own does."""
        auth = self.dialect.auth(org_key.get_secret_value(), endpoint) if org_key else self._auth[endpoint]
        passed_on = self.dialect.forwarded(rules.passed_on(clients, self.passed_on))
        return {**passed_on, **self._headers, **auth}

    def admits(self, model: str, org_id: str) -> bool:
        """Whether one more call may go, if the upstream is usable. Then one of answered, succeeded, failed or abandoned
        must report on it."""
        return not self.is_full and self.breakers.admits(model, org_id, self._clock())

    def why_not(self, model: str, org_id: str, *, is_usable: bool) -> str:
        """Why a call was not admitted."""
        if not is_usable:
            return f"not usable: {self.last_error}"
        if self.is_full:
            return "full"
        return f"breaker {self.breakers.state(model, org_id, self._clock())}"

    def needs_checkup(self, model: str, org_id: str) -> bool:
        """Whether a health check must succeed first. Without a health path, the next call is the check."""
        if self.upstream.health_path is None:
            return False
        return self.breakers.state(model, org_id, self._clock()) == "half"

    def checked(self, *, is_up: bool) -> None:
        self.breakers.checked(self._clock(), is_up=is_up)

    @property
    def is_full(self) -> bool:
        return self.upstream.concurrency is not None and self.in_flight >= self.upstream.concurrency

    def may_repeat(self, model: str, org_id: str) -> bool:
        """Whether a call that is safe to repeat may be repeated here. Takes it from the budget."""
        is_open = self.breakers.state(model, org_id, self._clock()) == "open"
        return not is_open and not self.is_full and self.budget.take(self._clock())

    def seconds_until_free(self, model: str, org_id: str) -> int:
        left = self.breakers.seconds_left(model, org_id, self._clock())
        return max(math.ceil(left), 1) if left else FULL_SECONDS

    def failed(self, model: str, org_id: str, why: str, *, provoked: bool) -> None:
        self.note(why)
        was_open = self.state() == "open"
        self.breakers.failed(model, org_id, self._clock(), provoked=provoked)
        log.warning("upstream_failed", upstream=self.upstream.id, model=model, why=why)
        if self.state() == "open" and not was_open:
            log.warning("breaker_opened", upstream=self.upstream.id, model=model, why=why)

    def note(self, why: str) -> None:
        """For operators; the breakers do not count it."""
        self.failures += 1
        self.last_error = why

    def state(self) -> State:
        return self.breakers.worst(self._clock())

    def was_open(self) -> bool:
        return self.breakers.were_open(self._clock())

    def states(self) -> dict[str, State]:
        """By model, for those that fail."""
        return self.breakers.states(self._clock())

    def refuses_us(self, why: str) -> None:
        """Our key, our credit or the upstream's address is wrong. All calls fail until an operator corrects it."""
        self.note(why)
        told = log.info if self.upstream.is_sandbox else log.error
        told("upstream_refuses_us", upstream=self.upstream.id, why=why)

    def _check(self, guard: Guard) -> None:
        if self.upstream.trusted:
            return
        try:
            guard.check(self.upstream.base_url)
        except Forbidden as error:
            self.is_allowed = False
            self.note(str(error))
            log.error("upstream_forbidden", upstream=self.upstream.id, why=str(error))

    def _our_auth(self, secrets: Mapping[str, str]) -> Mapping[Endpoint, Mapping[str, str]]:
        """By endpoint, since a vendor's endpoints may take the key in different headers."""
        name = key_variables.name_of(self.upstream)
        if name is None:
            return {endpoint: {} for endpoint in ENDPOINTS}
        secret = key_variables.key_of(self.upstream, secrets)
        if secret is None:
            self.has_key = False
            self.note(rules.has_no_key(name))
            log.error("upstream_has_no_key", upstream=self.upstream.id, variable=name)
            return {endpoint: {} for endpoint in ENDPOINTS}
        return {endpoint: self.dialect.auth(secret, endpoint) for endpoint in ENDPOINTS}
