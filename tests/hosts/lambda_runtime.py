"""What AWS's runtime does around a handler, as a program: imports it once, calls it with one event after the other.

A line of JSON in, an event; a line of JSON out, what became of it. Beside the answer stands what the process is left
with: its loop, its HTTP clients, its open files, and the tasks that nobody waits for.
"""

import asyncio
import gc
import importlib
import json
import os
import sys
from typing import Any


class Context:
    function_name = "tollgate"
    aws_request_id = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"

    def get_remaining_time_in_millis(self) -> int:
        return int(os.environ.get("FUNCTION_SECONDS", "900")) * 1000


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # standard output is the log's
    module, _, name = os.environ["_HANDLER"].rpartition(".")
    handler = getattr(importlib.import_module(module), name)
    for line in sys.stdin:
        answers.write(json.dumps(_invoked(handler, json.loads(line)) | _left()) + "\n")
        answers.flush()


def _invoked(handler: Any, event: Any) -> dict[str, Any]:
    try:
        return {"answer": handler(event, Context())}
    except Exception as error:  # noqa: BLE001  # as the runtime does: the process lives on
        return {"error": type(error).__name__, "said": str(error)}


def _left() -> dict[str, Any]:
    loop = asyncio.get_event_loop()
    httpx = sys.modules.get("httpx")
    clients = sum(isinstance(thing, httpx.AsyncClient) for thing in gc.get_objects()) if httpx else 0
    running = sorted(str(task.get_coro()).split()[2] for task in asyncio.all_tasks(loop))
    return {"loop": id(loop), "clients": clients, "files": len(os.listdir("/proc/self/fd")), "running": running}


main()
