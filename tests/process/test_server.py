import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from sandbox.serving import PATIENCE_SECONDS
from tollgate.process.connection_limits import MALFORMED, Limits, Unfinished
from tollgate.process.server import PortTaken, address, bind

get = partial(httpx.get, timeout=PATIENCE_SECONDS)
post = partial(httpx.post, timeout=PATIENCE_SECONDS)

PROGRAM = """
import asyncio, contextlib, json, os, pathlib, signal, sys, threading, time
from fastapi import Request, Response
from tollgate.app import create_app
from tollgate import settings
from tollgate.process import connection_limits, server
from tollgate.process.connection_limits import Limits

connection_limits.DISCARD_SECONDS = 60.0

class Refusing:
    async def call(self, function, **arguments): raise AssertionError
    async def close(self): print('"closed"', flush=True)

app = create_app(settings.read({"MAX_ADMIN_BODY_BYTES": "2048"}), door=Refusing())

@app.get("/peer")
async def peer(request: Request):
    return {"peer": request.client.host, "scheme": request.url.scheme}

@app.post("/echo")
async def echo(body: dict):
    return body

@app.get("/header")
async def header(value: str):
    return Response(headers={"x-value": value})

@app.get("/slow")
async def slow():
    print('"started"', flush=True)
    while not pathlib.Path("release").exists():
        await asyncio.sleep(0.01)
    return {"finished": True}

@app.get("/defect")
async def defect():
    raise RuntimeError("hunter2")

def interrupt_the_end():
    while not any("_do_shutdown" in thread.name for thread in threading.enumerate()):  # which waits for this function
        time.sleep(0.001)
    for _ in range(20):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.001)

@app.get("/interrupted-end")
async def interrupted_end():
    asyncio.get_running_loop().run_in_executor(None, interrupt_the_end)

signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
listener = server.bind("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
with contextlib.suppress(KeyboardInterrupt):
    server.run(app, listener, limits=Limits(**json.loads(sys.argv[1])))
"""


class Running:
    def __init__(self, folder: Path, **limits: float) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(limits)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.port = int(self.line())

    def line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return line.strip()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)

    def say(self, *parts: bytes) -> bytes:
        """What comes back on one connection until the server ends it."""
        with self.connected() as connection:
            for part in parts:
                connection.sendall(part)
            answer = b""
            while data := connection.recv(65536):
                answer += data
            return answer

    def stop(self) -> tuple[str, str]:
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=PATIENCE_SECONDS)

    def listens(self) -> bool:
        with contextlib.suppress(ConnectionError):
            socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS).close()
            return True
        return False


@contextlib.contextmanager
def running(folder: Path, **limits: float) -> Iterator[Running]:
    server = Running(folder, **limits)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("server")) as server:
        yield server


def test_a_taken_port_is_told_in_one_line_that_says_what_to_do() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(PortTaken) as refusal:
            bind("127.0.0.1", port)
    assert str(refusal.value) == f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another with PORT"


def test_a_port_is_free_again_once_its_server_is_gone() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
    with bind("127.0.0.1", port) as second:
        assert second.getsockname()[1] == port


@pytest.mark.parametrize("host", ["192.0.2.1", "256.256.256.256.invalid", "http://0.0.0.0", "a..b", "h" * 64])
def test_an_address_that_is_not_ours_to_listen_on_is_told_in_one_line(host: str) -> None:
    with pytest.raises(PortTaken) as refusal:
        bind(host, 0)
    assert str(refusal.value).startswith(f"cannot listen on {host}:0: ")
    assert "\n" not in str(refusal.value)


def test_the_port_is_held_from_the_moment_it_is_bound() -> None:
    with (
        bind("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname(), timeout=PATIENCE_SECONDS) as caller,
    ):
        assert caller.getpeername() == listener.getsockname()


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")]
)
def test_the_address_shown_is_one_that_can_be_called(host: str, shown: str) -> None:
    with bind(host, 0) as listener:
        port = listener.getsockname()[1]
        assert address(listener) == f"http://{shown}:{port}"
        socket.create_connection((shown.strip("[]"), port), timeout=PATIENCE_SECONDS).close()


@pytest.mark.parametrize(
    "noise",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: \xb2\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nnot a size\r\n",
        b"GET /healthz HTTP/1.1\r\nhost : a\r\n\r\n",
    ],
    ids=["words", "TLS", "version", "length", "chunk", "header"],
)
def test_what_is_not_http_is_answered_in_our_shape(noise: bytes, shared: Running) -> None:
    head, _, body = shared.say(noise).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head.lower()
    assert b"connection: close" in head.lower()
    assert body == MALFORMED
    assert json.loads(body)["error"]["code"] == "invalid_request"
    assert get(f"{shared.url}/healthz").status_code == 200


def test_a_body_in_chunks_that_grows_too_large_is_refused_in_our_shape(shared: Running) -> None:
    chunk = b"3e8\r\n" + b" " * 1000 + b"\r\n"
    answer = shared.say(
        b"POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n", chunk * 3
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert json.loads(body)["error"]["code"] == "body_too_large"


def test_a_body_announced_too_large_is_refused_before_it_is_sent(shared: Running) -> None:
    answer = shared.say(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\nexpect: 100-continue\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert json.loads(body)["error"]["limit_bytes"] == 2048


LARGE = b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n"


def test_a_client_that_sends_on_can_read_why_it_is_refused(shared: Running) -> None:
    with shared.connected() as client:
        client.sendall(LARGE)
        assert client.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 413"
        for _ in range(8):
            client.sendall(b" " * 100_000)
        head, _, body = b"".join(iter(partial(client.recv, 65536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert json.loads(body)["error"]["code"] == "body_too_large"


def test_a_client_that_never_stops_is_cut_off(shared: Running) -> None:
    with shared.connected() as client:
        client.sendall(LARGE)
        assert client.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 413"
        with pytest.raises(ConnectionError):
            client.sendall(b" " * 99_999_999)


def test_a_head_request_is_answered_without_a_body(shared: Running) -> None:
    answer = shared.say(b"HEAD /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")


def test_requests_on_one_connection_have_ids_of_their_own(shared: Running) -> None:
    with httpx.Client(base_url=shared.url) as http:
        told = [http.get("/healthz").headers["x-request-id"] for _ in range(3)]
    assert len(set(told)) == 3


def test_what_the_caller_says_about_itself_is_not_the_peer(shared: Running) -> None:
    forged = {"x-forwarded-for": "198.51.100.66", "x-forwarded-proto": "https", "x-real-ip": "198.51.100.66"}
    assert get(f"{shared.url}/peer", headers=forged).json() == {"peer": "127.0.0.1", "scheme": "http"}


@pytest.mark.parametrize("end", [b"%0d%0a", b"%0a", b"%0d", b"%00"])
def test_no_header_can_add_another(end: bytes, shared: Running) -> None:
    assert get(f"{shared.url}/header?value=plain").headers["x-value"] == "plain"
    answer = shared.say(b"GET /header?value=a" + end + b"x-forged:b HTTP/1.1\r\nhost: a\r\n\r\n")
    assert b"x-forged" not in answer


def test_the_server_does_not_say_what_it_is_made_of(shared: Running) -> None:
    assert "server" not in get(f"{shared.url}/healthz").headers


def test_a_request_to_upgrade_is_answered_as_an_ordinary_one(shared: Running) -> None:
    answer = shared.say(
        b"GET /healthz HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade, close\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_sigterm_lets_a_running_request_finish_and_takes_no_new_one(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(get(f"{server.url}/slow")))
        asking.start()
        assert server.line() == '"started"'
        server.process.send_signal(signal.SIGTERM)
        while server.listens():
            os.sched_yield()
        assert server.process.poll() is None
        tmp_path.joinpath("release").touch()
        asking.join(PATIENCE_SECONDS)
        out, err = server.process.communicate(timeout=PATIENCE_SECONDS)
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"finished": True})]
    assert server.process.returncode == 0
    assert '"closed"' in out.splitlines()
    assert err == ""


def test_ctrl_c_again_does_not_interrupt_how_the_event_loop_is_closed(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        assert get(f"{server.url}/interrupted-end").status_code == 200
        _, errors = server.stop()
        assert (server.process.returncode, errors) == (0, "")


def test_all_that_the_server_writes_is_json_one_line_each(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        get(f"{server.url}/healthz")
        assert get(f"{server.url}/defect").status_code == 500
        server.say(b"not http\r\n\r\n")
        out, err = server.stop()
    lines = [json.loads(line) for line in out.splitlines() if line != '"closed"']
    assert [line["event"] for line in lines if line["event"] != "loop_blocked"] == [  # on a busy machine
        "request",
        "unexpected_error",
        "request",
        "Invalid HTTP request received.",
    ]
    assert [line["library"] for line in lines if "library" in line] == ["uvicorn.error"]
    assert err == ""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With little patience and little room."""
    limits = {"head_bytes": 4096, "head_seconds": 1.0, "body_idle_seconds": 1.0, "unfinished_bytes": 1500}
    with running(tmp_path_factory.mktemp("strict"), **limits) as server:
        yield server


def refused(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]["code"]


HEAD = b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 1900\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        [b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 5000],
        [b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 3000, b"a" * 3000],
        [b"GET /" + b"a" * 5000],
        [b"GET /healthz HTTP/1.1\r\n" + b"x: a\r\n" * 1000 + b"\r\n"],
    ],
    ids=["a header", "in pieces", "an address", "many headers"],
)
def test_a_head_that_is_too_large_is_refused_whether_or_not_it_ends(strict: Running, parts: list[bytes]) -> None:
    assert refused(strict.say(*parts)) == (431, "head_too_large")


UNFINISHED: list[list[bytes]] = [
    [], [b"GET /healthz HT"], [b"GET /healthz HTTP/1.1\r\nhost: a\r\n"], [HEAD + b"\r\n"], [HEAD + b"\r\n", b"{"],
]  # fmt: skip


def test_what_a_client_does_not_finish_is_ended(strict: Running) -> None:
    """All at once: the server looks at its deadlines once a second."""
    with ThreadPoolExecutor() as clients:
        for answer in clients.map(lambda parts: strict.say(*parts), UNFINISHED):
            assert refused(answer) == (408, "request_timeout")


def test_a_body_of_which_a_byte_comes_now_and_then_is_ended(strict: Running) -> None:
    """No pause in it is as long as one may be."""
    answer = b""
    with strict.connected() as connection:
        connection.sendall(HEAD + b"\r\n")
        connection.settimeout(0.1)
        while not answer:
            connection.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(65536)
    assert refused(answer) == (408, "request_timeout")


def test_a_request_that_is_not_finished_on_a_connection_that_was_used_is_ended_too(strict: Running) -> None:
    answer = strict.say(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nGET /healthz HT")
    first, _, second = answer.partition(b"HTTP/1.1 408")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert b"request_timeout" in second


def test_an_answer_that_takes_longer_than_a_body_may_is_not_cut_off(tmp_path: Path) -> None:
    with running(tmp_path, head_seconds=1.0, body_idle_seconds=1.0) as server:
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(get(f"{server.url}/slow")))
        asking.start()
        assert '"started"' in iter(server.line, "")  # on a busy machine after a line about the blocked loop
        # Somebody who is cut off shows that the server has looked at its deadlines. Only the idle time can end this
        # one soon: so many bytes are fast enough for a minute.
        head = b"GET /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n"
        assert refused(server.say(head, b" " * 60_000)) == (408, "request_timeout")
        tmp_path.joinpath("release").touch()
        asking.join(PATIENCE_SECONDS)
    assert [answer.status_code for answer in answers] == [200]


@pytest.mark.parametrize("limit", ["unfinished_bytes", "unfinished_bytes_of_one"])
def test_a_body_for_which_there_is_no_room_is_refused_and_its_room_is_free_again(tmp_path: Path, limit: str) -> None:
    with running(tmp_path, **{limit: 1500}) as server:
        assert refused(server.say(HEAD + b"\r\n", b" " * 1501)) == (503, "server_busy")
        for _ in range(3):
            assert post(f"{server.url}/echo", json={"a": "x" * 1000}).status_code == 200


def test_the_bytes_of_all_bodies_count_together_until_they_are_given_back() -> None:
    unfinished = Unfinished(Limits(unfinished_bytes=100, unfinished_bytes_of_one=60))
    assert unfinished.take("192.0.2.1", 60)
    assert not unfinished.take("192.0.2.1", 1)
    unfinished.give_back("192.0.2.1", 1)
    assert unfinished.take("192.0.2.2", 40)
    assert not unfinished.take("192.0.2.3", 1)
    unfinished.give_back("192.0.2.3", 1)
    unfinished.give_back("192.0.2.1", 60)
    assert unfinished.take("192.0.2.3", 60)


def test_behind_a_proxy_its_address_has_no_limit_of_its_own() -> None:
    unfinished = Unfinished(Limits(unfinished_bytes=100, unfinished_bytes_of_one=None))
    assert unfinished.take("192.0.2.1", 100)
    assert not unfinished.take("192.0.2.1", 1)
