"""What the server holds of a large answer: a speech of so many megabytes, to clients that read it fast and slowly.

    python bench/large_answers.py [--megabytes 50] [--at-once 4]

Starts what `flat_memory.py` starts. Prints by how much the peak of the server's resident memory was above its memory
before the answers, in MB, and ends with 1 when it was 2 MB or more for each.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from flat_memory import KEY, forget_peak, peak, resident, server

MOST = 2.0
"""MB for each answer."""
WINDOW = 4 * 1024 * 1024
"""A slow client reads so much and then rests."""
REST_SECONDS = 0.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--at-once", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (pid, port):
        asyncio.run(passed(pid, port, 1, 1, rest=0.0))  # so that everything is imported and connected
        small = [
            asyncio.run(passed(pid, port, options.megabytes, 1, rest=0.0)),
            asyncio.run(passed(pid, port, options.megabytes, 1, rest=REST_SECONDS)),
            asyncio.run(passed(pid, port, options.megabytes, options.at_once, rest=REST_SECONDS)),
        ]
    return 0 if all(small) else 1


async def passed(pid: int, port: int, size: int, at_once: int, *, rest: float) -> bool:
    forget_peak(pid)
    before = resident(pid)
    async with asyncio.TaskGroup() as group:
        reads = [group.create_task(read(port, size, rest)) for _ in range(at_once)]
    if any(task.result() < size * 1_000_000 for task in reads):
        raise RuntimeError("an answer is too short")
    grown = peak(pid) - before
    print(f"{at_once} x {size} MB, {'slowly' if rest else 'fast'}: {before:.1f} MB and {grown:.1f} more", flush=True)
    return grown < MOST * at_once


async def read(port: int, size: int, rest: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"model": "sandbox/voice", "input": "x" * 100, "response_format": "pcm"}).encode()
    writer.write(
        f"POST /v1/audio/speech HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
        f"x-sandbox-fault: gigantic={size + 1}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
        + body
    )
    length = since = 0
    while piece := await reader.read(256 * 1024):
        length += len(piece)
        since += len(piece)
        if rest and since > WINDOW:
            since = 0
            await asyncio.sleep(rest)
    writer.close()
    return length


if __name__ == "__main__":
    sys.exit(main())
