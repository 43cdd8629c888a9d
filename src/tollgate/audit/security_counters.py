"""Counts refusals, networks and spreads in memory until the security reporter writes them.

Only sums are written: a row for each refused request would let an attacker fill the database. Memory is bounded too.
Refusals beyond the bound are counted under `others`; other counts beyond the bound are dropped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple

from cachetools import TTLCache

from tollgate.audit import rules
from tollgate.process.clock import Monotonic

MOST_OF_EACH = 1_000
NETWORKS_REMEMBERED = 10_000
TRIED_REMEMBERED = 10_000
NETWORK_SECONDS = 3600.0
"""How often a network that is in use is written again."""
OTHERS = "others"


class RefusalSource(NamedTuple):
    kind: rules.RefusalKind
    key_id: str | None
    digest: str | None
    """The digest of a key whose id is not known here; the database knows the key."""
    address: str | None
    """For requests without a key."""


@dataclass(slots=True)
class RefusalCount:
    times: int
    first_seen: str
    last_seen: str = ""
    code: str = ""
    address: str | None = None


class RefusedCall(NamedTuple):
    code: str
    key_id: str | None
    digest: str | None
    """The digest of a key whose id is not known here."""
    model: str | None


@dataclass(slots=True)
class RefusedCalls:
    times: int
    first_seen: str
    last_seen: str = ""
    request_id: str | None = None
    facts: Mapping[str, Any] | None = None


@dataclass(slots=True)
class ForbiddenCalls:
    times: int
    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


class SpreadSource(NamedTuple):
    kind: rules.SpreadKind
    key_id: str | None
    digest: str | None
    address: str | None
    """For requests without a key; `installation` where all count together."""
    about: str


@dataclass(slots=True)
class SpreadCount:
    times: int
    marks: int
    last_seen: str = ""


class SecurityCounters:
    def __init__(self, *, now: Callable[[], datetime], clock: Monotonic, mark_key: bytes = b"") -> None:
        """`mark_key` is shared by all servers, so that one thing has one mark."""
        self._now = now
        self._mark_key = mark_key
        self._known: TTLCache[tuple[str, str], bool] = TTLCache(NETWORKS_REMEMBERED, NETWORK_SECONDS, timer=clock)
        self._tried: TTLCache[rules.Spread, bool] = TTLCache(TRIED_REMEMBERED, NETWORK_SECONDS, timer=clock)
        """Addresses that failed, and what they tried, where both were new."""
        self._clear()

    def count(self, method: str, path: str | None, facts: Mapping[str, Any], caller: Mapping[str, Any]) -> None:
        """Counts a request. `facts` are those of its log line (error_code, key_id), `caller` what it says of itself."""
        code, key_id, ip = facts.get("error_code"), facts.get("key_id"), caller.get("ip")
        if code is not None or "model_read" in facts or "replayed" in facts:
            self._count_spreads(rules.spreads(code, facts, caller, self._now), key_id, caller)
        if code is not None and self._is_counted_refusal(code, method, path, facts, caller):
            return
        if key_id is not None and ip is not None:
            self._count_use(key_id, rules.network_of(ip))

    def _is_counted_refusal(
        self, code: str, method: str, path: str | None, facts: Mapping[str, Any], caller: Mapping[str, Any]
    ) -> bool:
        """Counts a refusal, if it is of a kind that is."""
        key_id = facts.get("key_id")
        if code in rules.REFUSED_CALLS and "refusal" in facts:  # of a paid call
            self._count_refused_call(code, facts, caller)
        if code in rules.KINDS:
            self._count_refusal(code, key_id, caller)
        elif key_id is not None and rules.is_forbidden_call(code, path):
            self._count_forbidden_call((key_id, f"{method} {path}"), caller)
        else:
            return False
        return True

    def take(self) -> dict[str, list[dict[str, Any]]] | None:
        """Returns the counts and clears them; None if there are none."""
        taken: dict[str, list[dict[str, Any]]] = {
            "refusals": [{**source._asdict(), **asdict(count)} for source, count in self._refusals.items()],
            "trespasses": [
                {"key_id": key_id, "target": target, **asdict(calls)}
                for (key_id, target), calls in self._forbidden_calls.items()
            ],
            "uses": [
                {"key_id": key_id, "network": network, "seen": seen} for (key_id, network), seen in self._uses.items()
            ],
            "refused_calls": [{**call._asdict(), **asdict(calls)} for call, calls in self._refused_calls.items()],
            "spreads": [
                {**source._asdict(), **asdict(count), "marks": f"{count.marks:0{rules.MARKS // 4}x}"}
                for source, count in self._spreads.items()
            ],
        }
        self._clear()
        return taken if any(taken.values()) else None

    def _clear(self) -> None:
        self._refusals: dict[RefusalSource, RefusalCount] = {}
        self._forbidden_calls: dict[tuple[str, str], ForbiddenCalls] = {}
        self._uses: dict[tuple[str, str], str] = {}
        self._refused_calls: dict[RefusedCall, RefusedCalls] = {}
        self._spreads: dict[SpreadSource, SpreadCount] = {}

    def _count_refusal(self, code: str, key_id: str | None, caller: Mapping[str, Any]) -> None:
        ip = caller.get("ip")
        address = rules.address_of(ip) if ip else None
        kind = rules.KINDS[code]
        digest = None if key_id or code == "invalid_api_key" else next(iter(caller.get("digests", ())), None)
        source = RefusalSource(kind, key_id, digest, None if key_id or digest else address)
        if source not in self._refusals and len(self._refusals) >= MOST_OF_EACH:
            source, address = RefusalSource(kind, None, None, OTHERS), OTHERS
        moment = self._now().isoformat()
        count = self._refusals.setdefault(source, RefusalCount(0, moment))
        count.times += 1
        count.last_seen, count.code, count.address = moment, code, address

    def _count_refused_call(self, code: str, facts: Mapping[str, Any], caller: Mapping[str, Any]) -> None:
        key_id = facts.get("key_id")
        digest = None if key_id else next(iter(caller.get("digests", ())), None)
        call = RefusedCall(code, key_id, digest, facts.get("model"))
        if call not in self._refused_calls and len(self._refused_calls) >= MOST_OF_EACH:
            call = call._replace(model=None)
        if call not in self._refused_calls and len(self._refused_calls) >= 2 * MOST_OF_EACH:
            return
        moment = self._now().isoformat()
        calls = self._refused_calls.setdefault(call, RefusedCalls(0, moment))
        calls.times += 1
        calls.last_seen, calls.request_id, calls.facts = moment, caller.get("request_id"), facts.get("refusal")

    def _count_spreads(self, spreads: Sequence[rules.Spread], key_id: str | None, caller: Mapping[str, Any]) -> None:
        """A failed authentication counts only as a new address with a new key or email: many devices with one wrong key
        are one, and so is one address with many."""
        if any(spread.kind in rules.OF_ALL for spread in spreads):
            if any(spread in self._tried for spread in spreads):
                return
            self._tried.update(dict.fromkeys(spreads, True))
        for spread in spreads:
            self._count_spread(spread, key_id, caller)

    def _count_spread(self, spread: rules.Spread, key_id: str | None, caller: Mapping[str, Any]) -> None:
        ip = caller.get("ip")
        digest = None if key_id else next(iter(caller.get("digests", ())), None)
        address = rules.address_of(ip) if ip and not (key_id or digest) else None
        source = SpreadSource(spread.kind, key_id, digest, address, spread.about)
        if spread.kind in rules.OF_ALL:
            source = SpreadSource(spread.kind, None, None, rules.INSTALLATION, "")
        if source not in self._spreads and len(self._spreads) >= MOST_OF_EACH:
            return
        count = self._spreads.setdefault(source, SpreadCount(0, 0))
        count.times += 1
        count.marks |= rules.mark_of(spread.thing, self._mark_key)
        count.last_seen = self._now().isoformat()

    def _count_forbidden_call(self, target: tuple[str, str], caller: Mapping[str, Any]) -> None:
        if target not in self._forbidden_calls and len(self._forbidden_calls) >= MOST_OF_EACH:
            return
        calls = self._forbidden_calls.setdefault(target, ForbiddenCalls(0))
        calls.times += 1
        calls.ip = caller.get("ip")
        calls.user_agent = caller.get("user_agent")
        calls.request_id = caller.get("request_id")

    def _count_use(self, key_id: str, network: str) -> None:
        use = (key_id, network)
        if use not in self._known and len(self._uses) < MOST_OF_EACH:
            self._known[use] = True
            self._uses[use] = self._now().isoformat()
