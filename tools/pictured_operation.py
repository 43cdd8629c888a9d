"""What the pictures show of the installation itself: days beside OpenRouter's bill, backups, samples of processes."""

import json
import math
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg

from pictured import Names

DAYS = 28
TOLERANCE_PPM = 1000
GIB = 2**30
DAY = """
insert into tollgate.reconciliations (day, reconciled_at, verdict, tolerance_ppm, our_requests, their_requests,
  our_cost_nanos, their_cost_nanos, failed_at, failure)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
MODEL = "insert into tollgate.reconciled_models values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
BACKUP = """
insert into tollgate.backups (digest, file, bytes, created_at, made_here, as_of, schema_version, verified_at, is_sound,
  faults, counts) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
SAMPLE = "insert into tollgate.process_samples (process, sampled_at, sample) values ($1, $2, $3)"
REQUESTS = """
select id, generation_id, cost_nanos, hold_nanos from tollgate.requests
where cost_nanos > 0 order by cost_nanos desc limit 24
"""


async def fill(url: str, names: Names) -> None:
    chance = random.Random(5)  # noqa: S311
    connection = await asyncpg.connect(url)
    requests = [dict(row) for row in await connection.fetch(REQUESTS)]
    today = datetime.now(UTC).date()
    for ago in range(1, DAYS + 1):
        await _day(connection, today - timedelta(days=ago), ago, chance, requests, names.last_model)
    await connection.executemany(BACKUP, list(_backups(chance)))
    await connection.executemany(SAMPLE, list(_samples(chance, names.function)))
    await connection.close()


async def _day(
    connection: asyncpg.Connection,
    day: date,
    ago: int,
    chance: random.Random,
    requests: list[dict[str, Any]],
    last: str,
) -> None:
    """Two days ago the bill differs, five days ago all is explained, and yesterday could not be read."""
    models = list(_models(ago, chance, requests, last))
    ours, theirs = (sum(one[at] for one in models) for at in (6, 7))
    minutes_ago = 20 + 1440 * max(0, ago - 3)  # the last three days are not due again, so the sweeper leaves them
    compared = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    verdict = {2: "differs", 5: "explained"}.get(ago, "agrees")
    failure = "OpenRouter's statement cannot be read: it answered with status 502." if ago == 1 else None
    totals = (verdict, TOLERANCE_PPM, sum(one[2] for one in models), sum(one[3] for one in models), ours, theirs)
    known = (None, *[None] * 6) if failure else (compared, *totals)
    await connection.execute(DAY, day, *known, compared if failure else None, failure)
    if not failure:
        await connection.executemany(MODEL, [(day, *one) for one in models])


def _models(ago: int, chance: random.Random, requests: list[dict[str, Any]], last: str) -> Iterator[tuple[Any, ...]]:
    for model, share in (("openai/gpt-4o-mini", 5), ("anthropic/claude-sonnet-4", 9), ("google/gemini-2.5-flash", 3)):
        count = chance.randrange(800, 1200) * share
        cost = count * chance.randrange(90_000, 110_000)
        yield model, "agrees", count, count, count * 800, count * 800, cost, cost + count // 2, "[]"
    count = chance.randrange(500, 900)
    cost = count * 2_000_000
    if ago in (2, 5):
        named, lost = (4, 4) if ago == 2 else (20, 140)
        explained = [
            _cause("no_record", requests[:named], lost, 0, 61_000_000),
            _cause("estimated", requests[20:23], 3, -18_000_000, 4_200_000),
        ]
        unknown = _cause("unknown_requests", [], 37, 310_000_000, 310_000_000)
        rest = 310_000_000 if ago == 2 else 0
        causes = [*explained, unknown] if rest else explained
        bill = cost + 40_000_000 + rest
        verdict = "differs" if rest else "explained"
        yield last, verdict, count, count + 37, count * 900, count * 930, cost, bill, json.dumps(causes)
    if ago == 2:
        corrected = [_cause("corrected", [], 0, -12_345_678, -12_345_678)]
        sums = 900_000_000, 900_000_000 - 12_345_678
        yield "meta-llama/llama-3.3-70b-instruct", "differs", 410, 410, 82_000, 82_000, *sums, json.dumps(corrected)


def _cause(cause: str, examples: list[dict[str, Any]], requests: int, least: int, most: int) -> dict[str, Any]:
    return {
        "cause": cause,
        "requests": requests,
        "least_nanos": least,
        "most_nanos": most,
        "examples": [
            {**one, "generation_id": f"gen-{one['id'][4:]}", "cost_nanos": 0, "hold_nanos": one["cost_nanos"]}
            for one in examples
        ],
    }


def _backups(chance: random.Random) -> Iterator[tuple[Any, ...]]:
    """One a night, the newest not verified; one that was cut, and one of Supabase that is not sound."""
    now = datetime.now(UTC)
    for ago in range(6):
        at = now - timedelta(days=ago, hours=4)
        counts = {"orgs": 1204 - ago, "transfers": 8_120_331 - ago * 90_000, "requests": 7_950_112 - ago * 88_000}
        verified = (at + timedelta(minutes=12), True) if ago else (None, None)
        faults: list[str] = []
        file, is_known = f"tollgate-{at:%Y%m%dT%H%M%SZ}.dump", bool(ago)
        if ago == 3:
            verified, is_known = (at + timedelta(minutes=2), False), False
            faults = ["could not read from input file: end of file"]
        if ago == 5:
            file = "db_cluster-26-11-2026@03-12-44.backup-of-a-long-name-" + "m" * 60 + ".sql.gz"
            verified = (at + timedelta(minutes=2), False)
            faults = [f"a row of the books does not agree: chain trf_{chance.getrandbits(64):016x}" for _ in range(9)]
        seen = (at, "20261130000000", *verified) if is_known else (None, None, *verified)
        size = 9_400_000_000 - ago * 110_000_000
        digest, found = f"{chance.getrandbits(256):064x}", json.dumps(counts) if is_known else None
        yield digest, file, size, at, ago != 5, *seen, json.dumps(faults), found


def _samples(chance: random.Random, function: str) -> Iterator[tuple[str, datetime, str]]:
    """A day of minutes, with an hour missing; of the function a single one. All seem to be seen now."""
    end = datetime.now(UTC) + timedelta(minutes=9)
    for process, kind, number in (("web.1:12", "server", 0), ("web.2:14", "server", 1), (function, "lambda", 2)):
        for minute in range(1 if kind == "lambda" else 1440):
            if 700 < minute < 760:
                continue
            busy = 0.5 + 0.4 * math.sin(minute / 200 + number) + chance.random() / 10
            limit = {"lambda": GIB, "server": (4 + 12 * number) * GIB}[kind]
            sample = {
                "kind": kind,
                "version": "0.1.0",
                "started_at": (end - timedelta(hours=31 + number)).isoformat(),
                "cpu_count": 4,
                "cpu_percent": round(60 * busy, 1),
                "process_cpu_percent": round(45 * busy, 1),
                "memory_total_bytes": limit,
                "memory_used_bytes": int(limit * (0.3 + busy / 3)),
                "memory_source": {"lambda": "function", "server": ("container", "machine")[number % 2]}[kind],
                "process_memory_bytes": int((180 + 20 * busy) * 2**20),
                "disk_total_bytes": 80 * GIB,
                "disk_used_bytes": int((52 + busy) * GIB),
                "network_received_bps": int(8_000_000 * busy),
                "network_sent_bps": int(21_000_000 * busy),
                "loop_delay_ms": round(chance.lognormvariate(1.2, 0.7), 1),
            }
            if kind == "lambda":
                del sample["loop_delay_ms"], sample["cpu_percent"]
            yield process, end - timedelta(minutes=minute), json.dumps(sample)
