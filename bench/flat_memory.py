"""Whether memory stays flat: many requests, then many streams that their clients leave, and what the server holds.

    python bench/flat_memory.py [--requests 100000] [--cuts 10000]

Starts a sandbox upstream and a server with a database of its own, each a process, on loopback. Prints the server's
memory (its proportional share, in MB) after each tenth, and ends with 1 when it grew by more than a tenth after the
first tenth of either.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from tollgate.database import embedded

KEY = "a-key-of-the-memory-benchmark"
CONNECTIONS = 16
GROWTH = 1.10
START_SECONDS = 60
BODY = {"model": "sandbox/words", "messages": [{"role": "user", "content": "Say something. " * 20}], "max_tokens": 40}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--cuts", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (pid, port):
        flat = [
            asyncio.run(measured(f"{options.requests} requests", pid, options.requests, Caller(port).whole)),
            asyncio.run(measured(f"{options.cuts} cut streams", pid, options.cuts, Caller(port).cut)),
        ]
    return 0 if all(flat) else 1


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, int]]:
    """A server and its database, and the sandbox as a process of its own: it remembers what it was asked."""
    upstream, port = free_port(), free_port()
    sandbox = ["uvicorn", "--factory", "tollgate.sandbox.app:create_sandbox", "--port", str(upstream)]
    url = f"http://127.0.0.1:{upstream}/api/v1"
    environment = {
        **os.environ, "PORT": str(port), "TOLLGATE_DATA_DIR": str(folder), "LOG_LEVEL": "error",
        "OPENROUTER_BASE_URL": url, "OPENROUTER_API_KEY": "sandbox", "SANDBOX_BASE_URL": url,
    }  # fmt: skip
    with running([*sandbox, "--log-level", "error"], environment), running(["tollgate", "serve"], environment) as pid:
        wait_for(f"http://127.0.0.1:{port}/readyz")
        subprocess.run(
            [sys.executable, "-m", "tollgate", "seed-key", KEY], env=environment, check=True, stdout=subprocess.DEVNULL
        )
        asyncio.run(enrich(embedded.url(folder)))
        yield pid, port


@contextmanager
def running(module: list[str], environment: dict[str, str]) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-m", *module], env=environment)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def wait_for(url: str) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url)
        except OSError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.2)
        else:
            return


async def enrich(url: str) -> None:
    connection = await asyncpg.connect(url)
    grant = "select public.tollgate_grant($1, 'org_operators', 1000000000000, 'funding', '', 'memory')"
    await connection.fetchval(grant, '{"console": "bench"}')
    await connection.close()


class Caller:
    def __init__(self, port: int) -> None:
        self._port = port

    async def whole(self, turns: int) -> None:
        """One connection, one request after the other."""
        request = self._request(stream=False)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for _ in range(turns):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode())
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
        writer.close()

    async def cut(self, turns: int) -> None:
        """A connection for each stream, which is left when it has begun to speak."""
        request = self._request(stream=True)
        for _ in range(turns):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(request)
            await reader.readuntil(b"data: ")
            writer.transport.abort()

    def _request(self, *, stream: bool) -> bytes:
        body = json.dumps(BODY | {"stream": stream} | ({"max_tokens": 5000} if stream else {})).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


async def measured(what: str, pid: int, total: int, call: object) -> bool:
    sizes = []
    for _ in range(10):
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(call(total // 10 // CONNECTIONS))
        sizes.append(megabytes(pid))
    flat = max(sizes[1:]) <= sizes[0] * GROWTH
    print(f"{what}: {' '.join(f'{size:.1f}' for size in sizes)} MB, {'flat' if flat else 'GROWING'}", flush=True)
    return flat


def forget_peak(pid: int) -> None:
    """From now on, `peak` is the most since now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def resident(pid: int) -> float:
    return _stated(pid, "VmRSS")


def peak(pid: int) -> float:
    return _stated(pid, "VmHWM")


def _stated(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) / 1024


def megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
