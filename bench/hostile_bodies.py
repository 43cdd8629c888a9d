"""How long one client's worst bodies keep others waiting: sends them to a running server on this machine, one kind
after the other, and asks /healthz every few milliseconds meanwhile. The upstream has to run in a process of its own.

    python bench/hostile_bodies.py http://127.0.0.1:8000 KEY

Prints a table for docs/performance.md: what came back, and the longest that /healthz took. The first row is /healthz
alone: what this machine does by itself.
"""

import asyncio
import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

MB = 1_000_000
TIMES = 3
PROBE_SECONDS = 0.002
START = b'{"model":"sandbox/echo","max_tokens":1,"messages":[{"role":"user","content":"hi"}],"metadata":'


def bodies() -> Iterator[tuple[str, bytes]]:
    yield (
        "an image of 20 MB",
        START[:-12].replace(
            b'"hi"',
            b'[{"type":"image_url","image_url":{"url":"data:image/png;base64,' + b"iVBORw0K" * (20 * MB // 8) + b'"}}]',
        )
        + b"}",
    )
    yield "20 MB of Chinese text", START.replace(b"hi", "漢字".encode() * (19 * MB // 6)) + b"1}"
    yield "nested brackets, 20 MB", START + b"[" * (20 * MB)
    yield "pairs of brackets, 20 MB", START + b"[" + b"[]," * (20 * MB // 3) + b"1]}"
    yield "2 million numbers", START + b"[" + b"1," * (2 * MB) + b"1]}"
    yield "390,000 numbers with a fraction", START + b"[" + b"1.5," * 390_000 + b"1]}"
    yield "66,000 numbers of 300 digits", START + b"[" + (b"9" * 300 + b",") * 66_000 + b"1]}"
    yield "one number of 20 million digits", START + b"9" * (20 * MB) + b"}"
    yield "90,000 different names", START + b"{" + b",".join(b'"%d":1' % n for n in range(90_000)) + b"}}"
    yield "90,000 times the same name", START + b"{" + b'"a":1,' * 90_000 + b'"a":1}}'
    yield "5,000 unknown members", START + b"1," + b",".join(b'"x%d":1' % n for n in range(5_000)) + b"}"
    yield "1.9 million escapes", START + b'"' + b"x\\n" * 1_900_000 + b'"}'
    yield "1.9 million escaped characters", START + b'"' + rb"\u6f22" * 1_900_000 + b'"}'
    yield "10 million escapes", START + b'"' + b"\\n" * (10 * MB - 200) + b'"}'
    part = b'{"type":"image_url","image_url":{"url":"data:' + b"x" * 700 + b'"}}'
    yield "24,000 media parts", START.replace(b'"hi"', b"[" + b",".join([part] * 24_000) + b"]") + b"1}"
    yield "quotes, 20 MB", START + b'"' * (20 * MB)


class Probe:
    def __init__(self, address: str) -> None:
        self.worst = 0.0
        self._host, self._port = urlsplit(address).hostname, urlsplit(address).port

    async def for_ever(self) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        while True:
            started = time.perf_counter()
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
            await reader.readuntil(b"}")
            self.worst = max(self.worst, time.perf_counter() - started)
            await asyncio.sleep(PROBE_SECONDS)


def post(address: str, key: str, body: bytes) -> tuple[int, str]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=120)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", body, headers)
    answer = connection.getresponse()
    said = json.loads(answer.read())
    connection.close()
    return answer.status, said["error"]["code"] if answer.status >= 400 else "served"


def main(address: str, key: str) -> None:
    probe = Probe(address)
    threading.Thread(target=asyncio.run, args=(probe.for_ever(),), daemon=True).start()
    print("| body | answer | /healthz at worst |\n|---|---|---|")
    post(address, key, START + b"1}")  # what a first call imports is no hostile body's work
    time.sleep(2)
    probe.worst = 0.0
    time.sleep(2)
    print(f"| none | – | {probe.worst * 1000:.0f} ms |")
    for name, body in bodies():
        time.sleep(0.5)
        probe.worst = 0.0
        status, code = [post(address, key, body) for _ in range(TIMES)][-1]
        print(f"| {name} | {status} {code} | {probe.worst * 1000:.0f} ms |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
