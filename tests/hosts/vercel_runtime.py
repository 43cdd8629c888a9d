"""A built function on its own: a process with Vercel's runtime in it, and the socket through which the two speak."""

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hosts.vercel_build import Function

START = "import vc__handler__python"
"""What Lambda does with the handler's name; the runtime then serves until it is killed."""
PATIENCE_SECONDS = 60.0

Message = dict[str, Any]


class Instance:
    def __init__(self, process: subprocess.Popen[bytes], platform: "Platform", started: float) -> None:
        self.process = process
        self.started = started
        self._platform = platform

    @property
    def address(self) -> str:
        """Known when the runtime has said that its server listens."""
        return f"http://127.0.0.1:{self.told('server-started')['httpPort']}"

    def told(self, kind: str, invocation: str | None = None) -> dict[str, Any]:
        """What the runtime said first of that kind (of that invocation), waited for."""
        return self._platform.told(kind, invocation)

    def has_told(self, kind: str, invocation: str) -> bool:
        return self._platform.first(kind, invocation) is not None


class Platform:
    """The other end of the socket: hears what the runtime says of its server and of each invocation."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._messages: list[Message] = []
        self._changed = threading.Condition()
        self._hearing = threading.Thread(target=self._hear, daemon=True)
        self._hearing.start()

    def told(self, kind: str, invocation: str | None) -> dict[str, Any]:
        with self._changed:
            found = self._changed.wait_for(lambda: self.first(kind, invocation), PATIENCE_SECONDS)
        assert found, f"no {kind} of {invocation}:\n{self.printed()}"
        return dict(found["payload"])

    def printed(self) -> str:
        logs = [message["payload"]["message"] for message in self._messages if message["type"] == "log"]
        return "".join(base64.b64decode(log).decode() for log in logs)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # nobody may have come
            self._listener.shutdown(socket.SHUT_RDWR)
        self._hearing.join()

    def first(self, kind: str, invocation: str | None) -> Message | None:
        for message in self._messages:
            context = message.get("payload", {}).get("context", {})
            if message["type"] == kind and invocation in (None, context.get("invocationId")):
                return message
            if message["type"] == "unrecoverable-error":
                raise AssertionError(message["payload"]["message"])
        return None

    def _hear(self) -> None:
        try:
            runtime, _ = self._listener.accept()
        except OSError:
            return
        with runtime:
            heard = b""
            while piece := runtime.recv(65536):
                *whole, heard = (heard + piece).split(b"\0")
                with self._changed:
                    self._messages += [json.loads(message) for message in whole]
                    self._changed.notify_all()


@contextlib.contextmanager
def instance(function: Function, task_root: Path, environment: Mapping[str, str]) -> Iterator[Instance]:
    """A cold one, of a function that was laid out at `task_root`."""
    with tempfile.TemporaryDirectory(prefix="vc-") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/ipc"
        listener.bind(path)
        listener.listen()
        platform = Platform(listener)
        given = {
            "PATH": os.environ["PATH"],
            "VERCEL": "1",
            "VERCEL_IPC_PATH": path,
            **function.config["environment"],
            **environment,
        }
        started = time.perf_counter()
        process = subprocess.Popen(
            [function.python, "-S", "-c", START],
            cwd=task_root,
            env=given,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield Instance(process, platform, started)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            platform.close()
