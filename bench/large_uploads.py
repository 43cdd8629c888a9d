"""What the server holds of a large upload: a recording of so many megabytes, from clients that send it fast and slowly.

    python bench/large_uploads.py [--megabytes 25] [--at-once 4]

Starts what `flat_memory.py` starts. Prints by how much the peak of the server's resident memory was above its memory
before the uploads, in MB, and ends with 1 when it was 2 MB or more for each.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from flat_memory import KEY, forget_peak, peak, resident, server
from large_answers import MOST, REST_SECONDS, WINDOW

PIECE = 64 * 1024
MEGABYTE = 1024 * 1024
HEAD = (
    b"RIFF\xff\xff\xff\xffWAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x80\x3e\x00\x00\x00\x7d\x00\x00\x02\x00\x10\x00"
    b"data\xff\xff\xff\xff"
)
"""Of a WAV file: 16 kHz in 16 bits, so that 25 MB are 14 minutes."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=25)
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
        for _ in range(at_once):
            group.create_task(send(port, size, rest))
    grown = peak(pid) - before
    print(f"{at_once} x {size} MB, {'slowly' if rest else 'fast'}: {before:.1f} MB and {grown:.1f} more", flush=True)
    return grown < MOST * at_once


async def send(port: int, size: int, rest: float) -> None:
    """The model comes after the file, so that nothing can be decided before."""
    opening = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + HEAD
    closing = b'\r\n--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nsandbox/ear\r\n--b--\r\n'
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: multipart/form-data; boundary=b\r\nconnection: close\r\n"
        f"content-length: {len(opening) + size * MEGABYTE + len(closing)}\r\n\r\n".encode()
        + opening
    )
    for place in range(0, size * MEGABYTE, PIECE):
        writer.write(bytes(PIECE))
        await writer.drain()
        if rest and place % WINDOW == 0:
            await asyncio.sleep(rest)
    writer.write(closing)
    answer = await reader.read()
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(answer.decode())


if __name__ == "__main__":
    sys.exit(main())
