"""A look-alike of the control plane: a real HTTP server with the agent's endpoints, and one host."""

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE_SECONDS = 50.0


class ControlPlane:
    def __init__(self) -> None:
        self.tokens = {"enrol-me"}
        self.host_keys: list[str] = []
        """Those of its agent; the first is the newest."""
        self.used_key: str | None = None
        self.version = 1
        self.deployments: dict[str, dict[str, Any]] = {}
        self.host = {"state": "active", "base_dir": None}
        self.tasks: list[dict[str, Any]] = []
        self.hub_tokens: dict[str, str] = {}
        self.poll_seconds = 0.3
        self.is_away = False
        self.loses_answers = 0
        """So many syncs are heard and not answered."""
        self.syncs: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.observations: dict[str, dict[str, Any]] = {}
        self.failures: list[dict[str, Any]] = []
        self.results: dict[str, dict[str, Any]] = {}
        self.samples: list[dict[str, Any]] = []
        self.capabilities: dict[str, Any] = {}
        self._lease_seconds = 45.0
        self._lease: tuple[str, float] | None = None
        self._seq: dict[str, int] = {}
        self._lock = threading.Lock()
        self.address = ""

    @property
    def host_key(self) -> str:
        return self.host_keys[0]

    # What an operator does

    def want(self, id_: str, spec: dict[str, Any], wanted: str = "running", **more: Any) -> None:
        before = self.deployments.get(id_)
        same = before is not None and before["spec"] == spec
        generation = before["generation"] + (0 if same else 1) if before else 1
        self.deployments[id_] = {
            **{"id": id_, "generation": generation, "wanted": wanted, "spec": spec, "drain_seconds": 5},
            **{"idle_seconds": None, "minimum_stay_seconds": 0, "load_seconds": 20},
            **more,
        }
        self.version += 1

    def stop(self, id_: str) -> None:
        self.deployments[id_] = {**self.deployments[id_], "wanted": "stopped"}
        self.version += 1

    def ask(self, kind: str, **arguments: Any) -> dict[str, Any]:
        """A task, and its result."""
        task = {"id": f"task_{secrets.token_hex(4)}", "kind": kind, "arguments": arguments}
        self.tasks.append(task)
        until(lambda: task["id"] in self.results)
        return self.results[task["id"]]

    def end_lease(self) -> None:
        """As if its time were over. A sync that is still being read begins a short one."""
        with self._lock:
            self._lease, self._lease_seconds = None, 2.0

    def phase(self, id_: str) -> str | None:
        return self.observations.get(id_, {}).get("phase")

    def becomes(self, id_: str, phase: str) -> dict[str, Any]:
        until(lambda: self.phase(id_) == phase, lambda: f"{id_} is {self.observations.get(id_)}, not {phase}")
        return self.observations[id_]

    # What an agent asks

    def answer(self, path: str, key: str | None, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.is_away:
            return 503, {"error": {"code": "upstream_unavailable", "message": "away"}}
        with self._lock:
            return self._enrol(body) if path == "/agent/enrol" else self._sync(key, body)

    def _enrol(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["token"] not in self.tokens:
            return 401, {"error": {"code": "enrolment_invalid", "message": "The token is unknown or used."}}
        self.tokens.remove(body["token"])
        self.host_keys = [f"tgh_hst_1_1_{secrets.token_hex(32)}"]
        self.capabilities = body["capabilities"]
        return 201, {"host_id": "hst_1", "host_key": self.host_key, "poll_seconds": self.poll_seconds}

    def _sync(self, key: str | None, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if key not in self.host_keys:
            return self._refuse(401, "host_key_invalid")
        self.used_key = key
        if self.host["state"] == "retired":
            return self._refuse(403, "host_retired")
        incarnation, now = body["incarnation"], time.monotonic()
        if self._lease and self._lease[0] != incarnation and now < self._lease[1]:
            return self._refuse(409, "host_busy")
        self._lease = incarnation, now + self._lease_seconds
        if body["seq"] > self._seq.get(incarnation, 0):
            self._seq[incarnation] = body["seq"]
            self._note(body)
        changed = body["known_version"] != self.version
        return 200, {
            "desired_version": self.version,
            "deployments": list(self.deployments.values()) if changed else None,
            "host": self.host,
            "tasks": [task for task in self.tasks if task["id"] not in self.results],
            "host_keys": self.host_keys,
            "hub_tokens": self.hub_tokens,
            "poll_seconds": self.poll_seconds,
        }

    def _note(self, body: dict[str, Any]) -> None:
        self.syncs.append(body)
        self.observations = {one["deployment_id"]: one for one in body["observations"]}
        self.failures += [one for one in body["observations"] if one["log_tail"] is not None]
        self.results |= {one["task_id"]: one for one in body["task_results"]}
        self.capabilities = body["capabilities"] or self.capabilities
        if body["sample"]:
            self.samples.append(body["sample"])

    def _refuse(self, status: int, code: str) -> tuple[int, dict[str, Any]]:
        self.refused.append(code)
        return status, {"error": {"code": code, "message": code}}


@contextlib.contextmanager
def serving() -> Iterator[ControlPlane]:
    plane = ControlPlane()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            read = json.loads(self.rfile.read(int(self.headers["content-length"])))
            key = (self.headers["authorization"] or "").removeprefix("Bearer ") or None
            status, body = plane.answer(self.path, key, read)
            if status == 200 and plane.loses_answers:
                plane.loses_answers -= 1
                self.close_connection = True
                return
            encoded = json.dumps(body).encode()
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(encoded)))
                self.end_headers()
                self.wfile.write(encoded)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """An agent that is killed leaves its connection in the middle."""

    server = Server(("127.0.0.1", 0), Handler)
    plane.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield plane
    finally:
        server.shutdown()
        server.server_close()


def until(condition: Callable[[], Any], told: Callable[[], str] = lambda: "it did not happen") -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(told())
        time.sleep(0.02)
