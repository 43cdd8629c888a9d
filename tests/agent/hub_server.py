"""A look-alike of the Hugging Face hub, as a real HTTP server: lists, digests, ranges, gates, redirects, and faults."""

import contextlib
import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import unquote

COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_good"
LARGE = 1_000_000
"""Bytes from which a file has a sha256, as with Git LFS."""
PIECE = 64 * 1024


class Fault(NamedTuple):
    """What happens to one request for a large file."""

    kind: str
    """cut: closes after `after` bytes. hold: sends so many and then waits. corrupt, no_range, status."""
    after: int = 0


class HubServer:
    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.lists: dict[str, list[dict[str, Any]]] = {}
        """Lists that differ from the files."""
        self.gated: set[str] = set()
        self.faults: deque[Fault] = deque()
        self.elsewhere: HubServer | None = None
        """Where files are redirected to."""
        self.sent = 0
        """Bytes of large files."""
        self.asked: list[tuple[str, str | None, str | None]] = []
        """Path, range and authorization of each request for a file."""
        self.release = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def counts(self, many: int) -> None:
        with self._lock:
            self.sent += many

    @contextlib.contextmanager
    def running(self) -> "Iterator[HubServer]":
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.release.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def listed(path: str, data: bytes) -> dict[str, Any]:
    large = {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}} if len(data) >= LARGE else {}
    return {"type": "file", "path": path, "size": len(data), "oid": git_id(data), **large}


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path):
            self._list(*found.groups())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._file(*found.groups())
        else:
            self._refuse(404, "EntryNotFound")

    def _list(self, repo: str, kind: str, revision: str) -> None:
        files = self.hub.repos.get(repo)
        if files is None:
            self._refuse(401, "RepoNotFound")
            return
        if revision not in {"main", COMMIT}:
            self._refuse(404, "RevisionNotFound")
            return
        if kind == "revision":
            self._answer(json.dumps({"id": repo, "sha": COMMIT}).encode())
            return
        whole = self.hub.lists.get(repo) or [listed(name, data) for name, data in files.items()]
        half = len(whole) // 2
        if "page=2" in self.path or not half:
            self._answer(json.dumps(whole[half:]).encode())
            return
        following = f'<{self.hub.url}{self.path}&page=2>; rel="next"'
        self._answer(json.dumps(whole[:half]).encode(), {"link": following})

    def _file(self, repo: str, name: str) -> None:
        authorization = self.headers.get("authorization")
        self.hub.asked.append((name, self.headers.get("range"), authorization))
        if repo in self.hub.gated and authorization != f"Bearer {TOKEN}":
            self._refuse(403 if authorization else 401, "GatedRepo")
        elif self.hub.elsewhere:
            self._answer(b"", {"location": f"{self.hub.elsewhere.url}{self.path}"}, 302)
        elif data := self.hub.repos.get(repo, {}).get(name):
            self._send(data, self.hub.faults.popleft() if len(data) >= LARGE and self.hub.faults else Fault("none"))
        else:
            self._refuse(404, "EntryNotFound")

    def _send(self, data: bytes, fault: Fault) -> None:
        if fault.kind == "status":
            self._refuse(503, "")
            return
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("range") or "") or [0, 0])[1])
        if fault.kind == "no_range":
            start = 0
        if fault.kind == "corrupt":
            data = data[:-1] + b"!"
        self.send_response(206 if start else 200)
        self.send_header("content-length", str(len(data) - start))
        if start:
            self.send_header("content-range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        end = start + fault.after if fault.kind in {"cut", "hold"} else len(data)
        for at in range(start, min(end, len(data)), PIECE):
            piece = data[at : min(at + PIECE, end)]
            if len(data) >= LARGE:
                self.hub.counts(len(piece))  # before: the client may have all of it before this thread goes on
            self.wfile.write(piece)
        if fault.kind == "hold":
            self.hub.release.wait(60)
        self.close_connection = fault.kind in {"cut", "hold"}

    def _refuse(self, status: int, code: str) -> None:
        self._answer(b'{"error": "refused"}', {"x-error-code": code}, status)

    def _answer(self, body: bytes, extra: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **(extra or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
