"""A generated week: what orgs do in each hour, and the incidents among it. The same for the same seed.

Nine in ten orgs are what they seem: offices behind one address with mornings, Mondays and holidays, services that run
day and night, nightly and weekly jobs, apps and serverless clients on many networks, builds on machines of a pool.
Their mistakes are those of life: stale links, mistyped passwords, retries, a clean-up of deleted ids, a tool that reads
all models at night, a fleet of devices with one wrong key, a move to another office.
"""

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

START = datetime(2026, 3, 2, tzinfo=UTC)
"""A Monday. The week before has habits, and the weeks before that have spend."""
CREDIT = 1_000_000_000
MODELS = 300
COUNTED_DAYS = 8
"""Before the week, for which everything is counted; before that, only spend."""
LEAST_NANOS = CREDIT // 3
"""What a key spends in an hour below this is left out, but at noon: no rule looks at less than a credit."""
KINDS = {
    "office": 45,
    "service": 24,
    "nightly": 12,
    "weekly": 5,
    "app": 4,
    "serverless": 3,
    "builds": 5,
    "evaluation": 2,
}
"""How many of a hundred orgs."""
DAY = [0, 0, 0, 0, 0, 0, 0.1, 0.3, 0.7, 1, 1, 0.9, 0.6, 0.8, 1, 0.9, 0.8, 0.5, 0.2, 0.1, 0.1, 0, 0, 0]
NEVER = 10**9


class Request(NamedTuple):
    """What the security counters are told of one request."""

    facts: Mapping[str, Any]
    caller: Mapping[str, Any]


class Incident(NamedTuple):
    kind: str
    strength: str
    subjects: frozenset[str]
    since: int
    until: int
    """The hour after its last."""


@dataclass
class Org:
    number: int
    kind: str
    peak: float
    """Nanos in its busiest usual hour."""
    shift: int
    """Of its time zone."""
    born: int
    """The hour of its first call."""
    networks: list[str]
    models: list[int]
    job_hour: int
    reads: str = ""
    """How it reads the models: "pages" or "each", each night."""
    cleans: int = NEVER
    """From which day on it looks up deleted ids at night."""
    retries: bool = False
    keys: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"org_week{self.number}"

    @property
    def since(self) -> datetime:
        return START + timedelta(hours=max(self.born, -8760))

    @property
    def user_id(self) -> str:
        return f"usr_week{self.number}"


class Week:
    def __init__(
        self, seed: int, *, orgs: int = 1000, days: int = 7, history_days: int = 28, incidents: int = 20
    ) -> None:
        self.chance = random.Random(seed)  # noqa: S311  # the same week each time
        self.hours = days * 24
        self.first = -history_days * 24
        self.counted_from = -min(COUNTED_DAYS, history_days) * 24
        self.holidays = {self.chance.randrange(-history_days, 0), self.chance.randrange(days)}
        self.orgs = [self._org(number) for number in range(orgs)]
        self.fleet_hour = self.chance.randrange(self.hours)
        """In which 200 devices send one wrong key."""
        self.incidents: list[Incident] = []
        self._planted: dict[int, list[Request]] = defaultdict(list)
        self._spent: dict[int, list[tuple[Org, str, int, int]]] = defaultdict(list)
        """By hour: org, key, model, nanos."""
        kinds = [*PLANTS] * math.ceil(incidents / len(PLANTS))
        for kind in kinds[:incidents]:
            self._plant(kind)

    def _org(self, number: int) -> Org:
        chance = self.chance
        kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
        size = {"app": chance.randrange(500, 4000), "serverless": chance.randrange(30, 150), "builds": 3000}
        networks = [self._network() for _ in range(size.get(kind, chance.choice((1, 1, 1, 2, 3))))]
        luck = chance.random()
        born = chance.randrange(self.hours) if luck < 0.03 else chance.randrange(-480, 0) if luck < 0.08 else -NEVER
        org = Org(
            number, kind, math.exp(chance.gauss(-1.2, 1.6)) * CREDIT, chance.choice((-8, -5, 0, 1, 1, 2, 5, 9)), born,
            networks, chance.sample(range(MODELS), chance.randrange(1, 8)), chance.randrange(24),
        )  # fmt: skip
        luck = chance.random()
        org.reads = "pages" if luck < 0.1 else "each" if luck < 0.11 else ""
        luck = chance.random()
        org.cleans = -COUNTED_DAYS if luck < 0.01 else chance.randrange(self.hours // 24) if luck < 0.012 else NEVER
        org.retries = chance.random() < 0.1
        org.keys = [f"key_week{number}k{k}" for k in range(chance.choice((1, 1, 2, 3)))]
        return org

    def _network(self) -> str:
        return f"{self.chance.randrange(1, 224)}.{self.chance.randrange(256)}.{self.chance.randrange(256)}.9"

    # What is usual.

    def level(self, org: Org, hour: int) -> float:
        """How much an org uses in an hour, as a share of its peak, but for chance."""
        local = START + timedelta(hours=hour + org.shift)
        at, weekday = local.hour, local.weekday()
        is_off = weekday > 4 or hour // 24 in self.holidays
        match org.kind:
            case "office":
                peak = 1.8 if weekday == 0 and at in (9, 10) else 1
                return 0.05 * DAY[at] if is_off else peak * DAY[at]
            case "service":
                return 0.7 + 0.3 * math.sin(at / 24 * math.tau)
            case "nightly":
                runs_on = (at - 1) % 24 == org.job_hour and self.chance.random() < 0.5
                return 1.0 if at == org.job_hour or runs_on else 0.02
            case "weekly":
                return 1.0 if weekday == 0 and at in (org.job_hour, (org.job_hour + 1) % 24) else 0.03
            case "evaluation":
                return 1.0 if at == org.job_hour else 0.01
            case "builds":
                return 0.1 * DAY[at] if is_off else DAY[at] * self.chance.random()
        return 0.3 + 0.7 * math.exp(-((at - 20) ** 2) / 18)  # apps in the evening, every day

    def spent(self, hour: int) -> list[tuple[Org, str, int, int]]:
        """Org, key, model and nanos of an hour."""
        chance, rows = self.chance, list(self._spent[hour])
        for org in self.orgs:
            if hour < org.born or not (level := self.level(org, hour)):
                continue
            burst = 1 + 2 * chance.random() if chance.random() < 0.02 else 1
            nanos = org.peak * level * burst * math.exp(chance.gauss(0, 0.35))
            if org.kind == "evaluation" and level == 1:
                rows += [
                    (org, org.keys[0], model, int(nanos / 50))
                    for model in range(org.number % 200, org.number % 200 + 50)
                ]
                continue
            for place, key in enumerate(org.keys):
                share = int(nanos * (0.7 if place == 0 else 0.3 / place))
                if share >= LEAST_NANOS or (hour + org.shift) % 24 == 12:
                    rows.append((org, key, chance.choice(org.models), share))
        return rows

    def requests(self, hour: int) -> Iterator[Request]:
        """What is counted of an hour: networks, and what is refused or listed."""
        yield from self._planted[hour]
        yield from self._strangers(hour)
        for org in self.orgs:
            if hour >= org.born and (level := self.level(org, hour)) > 0.01:
                yield from self._usual(org, hour, level)

    def _strangers(self, hour: int) -> Iterator[Request]:
        """Scanners, mistyped passwords in the hours of work, and once a fleet with one wrong key."""
        chance = self.chance
        for _ in range(chance.randrange(3, 15)):
            address = self._network()
            for _ in range(chance.randrange(1, 4)):
                yield wrong_key(address, chance.getrandbits(64))
        monday = 2 if (START + timedelta(hours=hour)).weekday() == 0 else 1
        for _ in range(int(len(self.orgs) / 60 * DAY[hour % 24] * monday * chance.random())):
            address, email = self._network(), chance.getrandbits(64)
            for _ in range(chance.randrange(1, 4)):
                yield wrong_password(address, email)
        if hour == self.fleet_hour:
            for _ in range(200):
                yield wrong_key(self._network(), 1)

    def _usual(self, org: Org, hour: int, level: float) -> Iterator[Request]:
        chance, key = self.chance, org.keys[0]
        local = START + timedelta(hours=hour + org.shift)
        fixed = 1 if chance.random() < 0.2 else 0  # a network is known for a day
        for _ in range({"app": 12, "serverless": 8, "builds": 3}.get(org.kind, fixed)):
            yield used(key, chance.choice(org.networks))
        if org.kind == "office" and chance.random() < 0.02:
            yield used(key, self._network())  # somebody travels
        if chance.random() < 0.001:
            for network in [self._network() for _ in range(chance.randrange(2, 5))]:
                yield used(key, network)  # a conference, or another office
        if chance.random() < 0.03:
            for _ in range(chance.randrange(1, 5)):
                yield missing(key, org.networks[0], f"{chance.getrandbits(64)}")
        if org.number % 100 == 3:
            for _ in range(80):
                yield missing(key, org.networks[0], "7")  # polls for one that is gone
        at_night = local.hour == org.job_hour
        if at_night and hour // 24 >= org.cleans:
            for _ in range(chance.randrange(80, 300)):
                made_at = START - timedelta(days=chance.randrange(30, 200))
                old = f"req_{int(made_at.timestamp() * 1000):012x}{chance.getrandbits(64):016x}"
                yield missing(key, org.networks[0], old)
        if org.reads == "pages" and hour % (1 + org.number % 6) == 0:
            for page in range(1, 7):
                yield reads(key, org.networks[0], f"?offset={50 * page}&limit=50")
        if org.reads == "each" and at_night:
            for model in range(MODELS):
                yield reads(key, org.networks[0], f"maker/model-{model}")
        if org.retries:
            for _ in range(chance.randrange(4)):
                request_id = f"req_{chance.getrandbits(64)}"
                for _ in range(chance.randrange(1, 4)):
                    yield replayed(key, chance.choice(org.networks), request_id)
            if chance.random() < 0.05:
                for _ in range(chance.randrange(1, 8)):
                    yield reused(key, org.networks[0], f"req_{chance.getrandbits(64)}")

    # What is not.

    def _plant(self, kind: str) -> None:
        since = self.chance.randrange(2, self.hours - 6)
        strength, hours, subjects = PLANTS[kind](self, since)
        self.incidents.append(Incident(kind, strength, frozenset(subjects), since, since + hours))

    def _victim(self, *kinds: str) -> Org:
        """An old org, of these kinds, that has no incident yet."""
        taken = {subject for incident in self.incidents for subject in incident.subjects}
        return self.chance.choice(
            [org for org in self.orgs if org.born < 0 and org.id not in taken and (not kinds or org.kind in kinds)]
        )

    def _stuffing(self, since: int) -> tuple[str, int, list[str]]:
        addresses, hours = self.chance.choice((120, 300, 1000)), self.chance.randrange(1, 4)
        for hour in range(hours):
            for _ in range(addresses):
                address = self._network()
                for _ in range(self.chance.randrange(1, 3)):
                    self._planted[since + hour].append(wrong_password(address, self.chance.getrandbits(64)))
        return f"{addresses} addresses an hour for {hours} h", hours, ["installation"]

    def _enumeration(self, since: int) -> tuple[str, int, list[str]]:
        org, ids, hours = self._victim(), self.chance.choice((70, 200, 1500)), self.chance.randrange(1, 5)
        form = self.chance.choice(("{n}", "key_{random:028x}", "maker/model-{n}"))
        for hour in range(hours):
            for n in range(hour * ids, (hour + 1) * ids):
                tried = form.format(n=n, random=self.chance.getrandbits(112))
                self._planted[since + hour].append(missing(org.keys[0], org.networks[0], tried))
        return f"{ids} ids like {form} an hour for {hours} h", hours, [org.id, *org.keys]

    def _reading(self, since: int) -> tuple[str, int, list[str]]:
        org, models = self._victim(), self.chance.choice((120, 200, 300))
        for model in self.chance.sample(range(MODELS), models):
            for _ in range(self.chance.randrange(1, 4)):
                self._planted[since].append(reads(org.keys[0], org.networks[0], f"maker/model-{model}"))
        return f"{models} models", 1, [org.id, *org.keys]

    def _asking(self, since: int) -> tuple[str, int, list[str]]:
        org, models, hours = self._victim("office", "service", "nightly"), self.chance.choice((50, 90)), 2
        for hour in range(hours):
            asked = self.chance.sample(range(MODELS), models)
            self._spent[since + hour] += [(org, org.keys[0], model, CREDIT // 200) for model in asked]
        return f"{models} models an hour for {hours} h", hours, [org.id, *org.keys]

    def _reuse(self, since: int) -> tuple[str, int, list[str]]:
        org, times = self._victim(), self.chance.choice((25, 60, 400))
        for _ in range(times):
            request_id = f"req_{self.chance.randrange(times // 3)}"
            self._planted[since].append(reused(org.keys[0], org.networks[0], request_id))
        return f"{times} times", 1, [org.id, *org.keys]

    def _replaying(self, since: int) -> tuple[str, int, list[str]]:
        org, networks = self._victim("office", "service", "nightly"), self.chance.choice((5, 8, 30))
        for _ in range(networks):
            self._planted[since].append(replayed(org.keys[0], self._network(), "req_copied"))
        return f"{networks} networks", 1, [org.id, *org.keys]

    def _sharing(self, since: int) -> tuple[str, int, list[str]]:
        org = self._victim("office", "service", "nightly", "weekly")
        networks, hours = self.chance.choice(((6, 3), (4, 6), (15, 4), (40, 2)))
        for hour in range(hours):
            for _ in range(networks):
                self._planted[since + hour].append(used(org.keys[0], self._network()))
        return f"{networks} networks an hour for {hours} h", hours, [org.id, *org.keys]

    def _stolen(self, since: int) -> tuple[str, int, list[str]]:
        org, times, hours = (
            self._victim("office", "service"),
            self.chance.choice((20, 40, 100)),
            self.chance.randrange(1, 4),
        )
        nanos = int(max(times * org.peak, times * CREDIT))
        for hour in range(hours):
            self._spent[since + hour].append((org, org.keys[0], org.models[0], nanos))
        return (
            f"{nanos / CREDIT:.0f} credits an hour for {hours} h, usually {org.peak / CREDIT:.1f}",
            hours,
            [org.id, *org.keys],
        )

    def _org_runs_away(self, since: int) -> tuple[str, int, list[str]]:
        org, times = self._victim("office", "service", "nightly", "app"), self.chance.choice((8, 12, 25))
        hours = 3
        nanos = int(max(times * 1.8 * org.peak, times * CREDIT) / len(org.keys))
        for hour in range(hours):
            self._spent[since + hour] += [(org, key, org.models[0], nanos) for key in org.keys]
        return f"{times} times its peak for {hours} h", hours, [org.id, *org.keys]

    def _new_and_dear(self, since: int) -> tuple[str, int, list[str]]:
        org = self._victim()
        org.born, org.peak = since, 0.0
        nanos = self.chance.choice((150, 400, 1000)) * CREDIT
        for hour in range(3):
            self._spent[since + hour].append((org, org.keys[0], org.models[0], nanos))
        return f"{nanos // CREDIT} credits an hour for 3 h, from its first", 3, [org.id, *org.keys]


PLANTS = {
    "credential stuffing": Week._stuffing,
    "key sharing": Week._sharing,
    "enumeration of ids": Week._enumeration,
    "stolen key": Week._stolen,
    "models read": Week._reading,
    "models asked": Week._asking,
    "reuse of Idempotency-Keys": Week._reuse,
    "a request replayed": Week._replaying,
    "an org runs away": Week._org_runs_away,
    "a new org spends": Week._new_and_dear,
}


def used(key: str, ip: str) -> Request:
    return Request({"key_id": key}, {"ip": ip})


def missing(key: str, ip: str, what: str) -> Request:
    return Request({"key_id": key, "error_code": "not_found", "missing": what}, {"ip": ip})


def reads(key: str, ip: str, what: str) -> Request:
    return Request({"key_id": key, "model_read": what}, {"ip": ip})


def replayed(key: str, ip: str, request_id: str) -> Request:
    return Request({"key_id": key, "replayed": request_id}, {"ip": ip})


def reused(key: str, ip: str, request_id: str) -> Request:
    refusal = {"request_id": request_id}
    return Request({"key_id": key, "error_code": "idempotency_key_reused", "refusal": refusal}, {"ip": ip})


def wrong_key(ip: str, key: int) -> Request:
    return Request({"error_code": "invalid_api_key"}, {"ip": ip, "digests": [f"{key:x}"]})


def wrong_password(ip: str, email: int) -> Request:
    return Request({"error_code": "sign_in_failed", "account": f"{email:x}"}, {"ip": ip})
