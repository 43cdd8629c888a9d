"""How many Python instructions a paid call takes, by the room or the library that they are in.

    python bench/instructions.py [--requests 100]

Starts a sandbox upstream and a database of its own; the app runs in this process, without its HTTP server, and calls
follow each other. The instructions of our rooms do not depend on the load of the machine. Those of Python's library do:
asyncio's event loop looks more often at a database that is slow. So measure the share of the cache where it is quiet.

It also tells what the completion cache costs a call that does not wish it. An instruction counts as the cache's if its
line is in the room of the cache or in a function that serves it, or mentions it. Ends with 1 where they are more than
1 %.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from functools import cache
from linecache import getline
from pathlib import Path
from types import CodeType
from typing import Any

from flat_memory import BODY, KEY, enrich, free_port, running, wait_for

from tollgate import settings
from tollgate.app import create_app
from tollgate.database import embedded, migrations

MOST = 0.01
ROOMS_SHOWN = 20
WARM_UP = 50
TOOL = sys.monitoring.PROFILER_ID
OF_THE_CACHE = re.compile(r"cach|wish", re.IGNORECASE)
FUNCTIONS = ("_wish", "wished", "in_header", "by_setting", "learn")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100)
    options = parser.parse_args()
    upstream = free_port()
    sandbox = ["uvicorn", "--factory", "tollgate.sandbox.app:create_sandbox", "--port", str(upstream)]
    with tempfile.TemporaryDirectory() as folder, embedded.running(Path(folder)) as url:
        base = f"http://127.0.0.1:{upstream}/api/v1"
        environment = {
            "DATABASE_URL": url, "LOG_LEVEL": "error", "OPENROUTER_BASE_URL": base, "OPENROUTER_API_KEY": "sandbox",
            "SANDBOX_BASE_URL": base,
        }  # fmt: skip
        asyncio.run(migrations.migrate(url))
        command = [sys.executable, "-m", "tollgate", "seed-key", KEY]
        subprocess.run(command, env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL)
        asyncio.run(enrich(url))
        with running([*sandbox, "--log-level", "error"], {**os.environ, **environment}):
            wait_for(f"http://127.0.0.1:{upstream}/sandbox/ledger")
            seen = asyncio.run(counted(environment, options.requests))
    own = sum(count for (code, line), count in seen.items() if is_of_the_cache(code, line))
    total = sum(seen.values())
    rooms: Counter[str] = Counter()
    for (code, _), count in seen.items():
        rooms[room_of(code)] += count
    print(f"{total / options.requests:8,.0f} instructions a call")
    for room, count in rooms.most_common(ROOMS_SHOWN):
        print(f"{count / options.requests:8,.0f} {room}")
    print(f"{own / options.requests:8,.0f} of the cache, which are {own / total:.2%}")
    return 0 if own <= total * MOST else 1


async def counted(environment: dict[str, str], requests: int) -> Counter[tuple[CodeType, int]]:
    """How often each line ran, in instructions."""
    seen: Counter[tuple[CodeType, int]] = Counter()
    app: Any = create_app(settings.read(environment), environ=environment)
    async with app.router.lifespan_context(app):
        for _ in range(WARM_UP):
            await ask(app)
        sys.monitoring.use_tool_id(TOOL, "instructions")
        sys.monitoring.register_callback(
            TOOL, sys.monitoring.events.INSTRUCTION, lambda code, offset: seen.update(((code, line_of(code, offset)),))
        )
        sys.monitoring.set_events(TOOL, sys.monitoring.events.INSTRUCTION)
        for _ in range(requests):
            await ask(app)
        sys.monitoring.set_events(TOOL, sys.monitoring.events.NO_EVENTS)
        sys.monitoring.free_tool_id(TOOL)
    return seen


async def ask(app: Any) -> None:
    body = json.dumps(BODY).encode()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json", "content-length": str(len(body))}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/v1/chat/completions", "raw_path": b"/v1/chat/completions", "query_string": b"", "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1), "server": ("localhost", 80),
    }  # fmt: skip
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])
    statuses = []

    async def receive() -> dict[str, Any]:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        statuses.append(message.get("status"))

    await app(scope, receive, send)
    if statuses[0] != 200:
        raise RuntimeError(statuses)


@cache
def line_of(code: CodeType, offset: int) -> int:
    return next((line or 0 for start, end, line in code.co_lines() if start <= offset < end), 0)


@cache
def room_of(code: CodeType) -> str:
    """A room of ours, or a library."""
    for start in ("/src/tollgate/", "/site-packages/"):
        _, found, path = code.co_filename.rpartition(start)
        if found:
            return path.split("/")[0]
    return "Python's library"


@cache
def is_of_the_cache(code: CodeType, line: int) -> bool:
    path = code.co_filename.rpartition("/tollgate/")[2]
    if path.startswith("cache/") or (path.startswith("completions/") and code.co_name in FUNCTIONS):
        return True
    return path.startswith("completions/") and OF_THE_CACHE.search(getline(code.co_filename, line)) is not None


if __name__ == "__main__":
    sys.exit(main())
