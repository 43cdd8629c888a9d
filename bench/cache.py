"""What the completion cache costs and saves: latency and CPU of calls without it, of misses and hits, and a hit rate.

    python bench/cache.py [--requests 2000] [--off]

Starts a sandbox upstream and a server with a database of its own on loopback; with REDIS_URL, Redis is its second
level. One call at a time. CPU is the server's, without Postgres. --off only makes calls that do not wish the cache:
for comparison with another version (PYTHONPATH).
"""

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flat_memory import KEY, server

PROMPTS = 200
"""Of the mixture: the nth is asked for with a weight of 1/n."""
WARM_UP = 100
LONG = {"model": "sandbox/words", "max_tokens": 8000}
SHORT = {"model": "sandbox/echo"}


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pid: int) -> None:
        self._reader = reader
        self._writer = writer
        self._pid = pid

    async def ask(self, body: dict[str, Any]) -> str:
        """What became of the look-up."""
        content = json.dumps(body).encode()
        self._writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n".encode()
            + content
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        if not head.startswith("HTTP/1.1 200"):
            raise RuntimeError(head)
        headers = dict(line.lower().split(": ", 1) for line in head.strip().split("\r\n")[1:])
        await self._reader.readexactly(int(headers["content-length"]))
        return headers.get("x-tollgate-cache", "off")

    async def measure(self, what: str, bodies: Iterable[dict[str, Any]]) -> None:
        seconds: list[float] = []
        seen: Counter[str] = Counter()
        began = self._cpu_seconds()
        for body in bodies:
            start = time.perf_counter()
            seen[await self.ask(body)] += 1
            seconds.append(time.perf_counter() - start)
        cpu = (self._cpu_seconds() - began) / len(seconds)
        seconds.sort()
        p50, p99 = (seconds[int(len(seconds) * share)] * 1000 for share in (0.5, 0.99))
        print(f"{what:28} p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  CPU {cpu * 1000:5.2f} ms  {dict(seen)}", flush=True)

    def _cpu_seconds(self) -> float:
        user, system = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def asked(kind: dict[str, Any], number: int, **more: Any) -> dict[str, Any]:
    return {**kind, "messages": [{"role": "user", "content": f"{number}. Say something. " * 20}], **more}


async def run(pid: int, port: int, requests: int, *, off_only: bool) -> None:
    client = Client(*await asyncio.open_connection("127.0.0.1", port, limit=2**24), pid)
    for number in range(WARM_UP):
        await client.ask(asked(SHORT, number))
    await client.measure("without the cache", (asked(SHORT, 0) for _ in range(requests)))
    if off_only:
        return
    for name, kind in (("short", SHORT), ("long", LONG)):
        many = requests if kind is SHORT else requests // 10
        await client.measure(f"misses, {name}", (asked(kind, number, cache=True) for number in range(many)))
        await client.measure(f"hits, {name}", (asked(kind, 0, cache=True) for _ in range(many)))
    chance = random.Random(1)  # noqa: S311
    drawn = chance.choices(range(PROMPTS), [1 / (rank + 1) for rank in range(PROMPTS)], k=requests)
    await client.measure(f"a mixture of {PROMPTS}", (asked(SHORT, -1 - number, cache=True) for number in drawn))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--off", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (pid, port):
        asyncio.run(run(pid, port, options.requests, off_only=options.off))


if __name__ == "__main__":
    main()
