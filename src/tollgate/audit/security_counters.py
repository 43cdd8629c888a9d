"""What this process has seen and not handed over yet: refusals and networks, counted, never listed.

A row for each refused request would let an attacker fill the database, so only sums go there. Memory is bounded: what
is beyond the bound is counted as of others, or left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple

from cachetools import TTLCache

from tollgate.audit import rules
from tollgate.process.clock import Monotonic

MOST_OF_EACH = 1_000
NETWORKS_REMEMBERED = 10_000
NETWORK_SECONDS = 3600.0
"""How often a network in use is handed over again."""
OTHERS = "others"


class Offender(NamedTuple):
    kind: rules.Kind
    key_id: str | None
    digest: str | None
    """Of a key that nobody named; the database knows whose it is."""
    address: str | None
    """Where there is no key."""


@dataclass(slots=True)
class Offences:
    times: int
    first_seen: str
    last_seen: str = ""
    code: str = ""
    address: str | None = None


@dataclass(slots=True)
class Trespass:
    times: int
    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


class SecurityCounters:
    def __init__(self, *, now: Callable[[], datetime], clock: Monotonic) -> None:
        self._now = now
        self._known: TTLCache[tuple[str, str], bool] = TTLCache(NETWORKS_REMEMBERED, NETWORK_SECONDS, timer=clock)
        self._forget()

    def saw(self, method: str, path: str | None, facts: Mapping[str, Any], caller: Mapping[str, Any]) -> None:
        """A request was answered. `facts` are its log line's: error_code, key_id; `caller` what it said of itself."""
        code, key_id, ip = facts.get("error_code", ""), facts.get("key_id"), caller.get("ip")
        if code in rules.KINDS:
            self._refused(code, key_id, caller)
        elif key_id is None:
            return
        elif rules.is_trespass(code, path):
            self._trespassed((key_id, f"{method} {path}"), caller)
        elif ip is not None:
            self._used(key_id, rules.network_of(ip))

    def take(self) -> dict[str, list[dict[str, Any]]] | None:
        """All that was seen since the last time, or None. Whoever takes it hands it over, or it is lost."""
        taken: dict[str, list[dict[str, Any]]] = {
            "refusals": [{**who._asdict(), **asdict(what)} for who, what in self._offences.items()],
            "trespasses": [
                {"key_id": key_id, "target": target, **asdict(what)}
                for (key_id, target), what in self._trespasses.items()
            ],
            "uses": [
                {"key_id": key_id, "network": network, "seen": seen} for (key_id, network), seen in self._uses.items()
            ],
        }
        self._forget()
        return taken if any(taken.values()) else None

    def _forget(self) -> None:
        self._offences: dict[Offender, Offences] = {}
        self._trespasses: dict[tuple[str, str], Trespass] = {}
        self._uses: dict[tuple[str, str], str] = {}

    def _refused(self, code: str, key_id: str | None, caller: Mapping[str, Any]) -> None:
        ip = caller.get("ip")
        address = rules.address_of(ip) if ip else None
        kind = rules.KINDS[code]
        digest = None if key_id or code == "invalid_api_key" else next(iter(caller.get("digests", ())), None)
        who = Offender(kind, key_id, digest, None if key_id or digest else address)
        if who not in self._offences and len(self._offences) >= MOST_OF_EACH:
            who, address = Offender(kind, None, None, OTHERS), OTHERS
        moment = self._now().isoformat()
        offences = self._offences.setdefault(who, Offences(0, moment))
        offences.times += 1
        offences.last_seen, offences.code, offences.address = moment, code, address

    def _trespassed(self, who: tuple[str, str], caller: Mapping[str, Any]) -> None:
        if who not in self._trespasses and len(self._trespasses) >= MOST_OF_EACH:
            return
        trespass = self._trespasses.setdefault(who, Trespass(0))
        trespass.times += 1
        trespass.ip = caller.get("ip")
        trespass.user_agent = caller.get("user_agent")
        trespass.request_id = caller.get("request_id")

    def _used(self, key_id: str, network: str) -> None:
        where = (key_id, network)
        if where not in self._known and len(self._uses) < MOST_OF_EACH:
            self._known[where] = True
            self._uses[where] = self._now().isoformat()
