"""The ingress: the one way in to a host's engines. It asks for the host's key, counts what is in flight, waits for a
model that loads, and passes bytes on as they come."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final

import httpx
from pydantic import ValidationError

from tollgate import __version__
from tollgate.agent.deployment import Deployment
from tollgate.agent.host_keys import HostKeys
from tollgate.agent.schemas import Task
from tollgate.agent.supervisor import Supervisor
from tollgate.agent.tasks import TaskFailed
from tollgate.agent.traffic import Flight
from tollgate.process import logs

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

PAID: Final = re.compile(r"/d/([A-Za-z0-9_-]{1,64})(/v1/.*)")
LOGS: Final = re.compile(r"/agent/logs/([A-Za-z0-9_-]{1,64})")
MOST_TASK_BYTES: Final = 64 * 1024
OF_ONE_CONNECTION: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"upgrade")
) | {b"transfer-encoding"}
NOT_SENT_ON: Final = OF_ONE_CONNECTION | {b"authorization", b"host", b"x-api-key", b"cookie", b"expect"}

log = logs.source("upstream")


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after


class ClientGone(Exception):
    pass


class Ingress:
    def __init__(
        self,
        supervisor: Supervisor,
        keys: HostKeys,
        perform: Callable[[Task], Awaitable[Any]],
        wake: Callable[[], None],
    ) -> None:
        """`wake` has the control loop sync now."""
        self._supervisor = supervisor
        self._keys = keys
        self._perform = perform
        self._wake = wake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if not self._keys.open_to(given):
                raise Refused(401, "host_key_invalid", "The key is not this host's. Tollgate sends it by itself.")
            await self._answer(scope, receive, send)
        except Refused as refused:
            await _send_json(send, refused.status, _error(refused), refused.retry_after)
        except TaskFailed as failed:
            await _send_json(send, 422, _error(Refused(422, "task_failed", str(failed))))
        except ClientGone:
            pass

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["raw_path"].decode("latin-1")
        if ".." in path or "%2e" in path.lower():
            raise _not_found()
        if paid := PAID.fullmatch(path):
            await self._pass_on(self._deployment(paid[1]), paid[2], scope, receive, send)
        elif (method, path) == ("GET", "/agent/health"):
            phases = {id_: one.phase for id_, one in self._supervisor.deployments.items()}
            await _send_json(send, 200, {"status": "ok", "version": __version__, "phases": phases})
        elif method == "GET" and (wanted := LOGS.fullmatch(path)):
            count = re.search(rb"(?:^|&)lines=(\d{1,5})(?:&|$)", scope["query_string"])
            task = Task(
                id="", kind="logs", arguments={"deployment_id": wanted[1], "lines": int(count[1]) if count else 200}
            )
            await _send_json(send, 200, await self._perform(task))
        elif (method, path) == ("POST", "/agent/wake"):
            self._wake()
            await _send_json(send, 200, {})
        elif (method, path) == ("POST", "/agent/tasks"):
            await _send_json(send, 200, await self._perform(await _task(receive)))
        else:
            raise _not_found()

    def _deployment(self, id_: str) -> Deployment:
        found = self._supervisor.deployments.get(id_)
        if found is None:
            raise Refused(503, "model_stopped", "The model is not on this host. Another route may have it.", 10)
        return found

    # The paid path

    async def _pass_on(self, deployment: Deployment, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        await self._running(deployment)
        run = deployment.run
        if run is None:
            raise _stopped(deployment)
        query = scope["query_string"].decode("latin-1")
        body = _Body(receive)
        with deployment.traffic.flight() as flight:
            request = run.client.http.build_request(
                scope["method"],
                f"{path}?{query}" if query else path,
                headers=[*_sent_on(scope["headers"]), *run.client.headers],
                content=body.parts() if _has_body(scope) else None,
            )
            passing = asyncio.create_task(self._pass(deployment, flight, request, send))
            leaving = asyncio.create_task(body.left(has_body=_has_body(scope)))
            try:
                await asyncio.wait({passing, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not passing.done():
                    raise ClientGone
                await passing
            finally:
                await _end(passing, leaving)

    async def _pass(self, deployment: Deployment, flight: Flight, request: httpx.Request, send: Send) -> None:
        run = deployment.run
        assert run  # noqa: S101
        try:
            answer = await run.client.http.send(request, stream=True)
        except httpx.HTTPError as error:
            log.warning("engine_unreachable", deployment=deployment.id, error=type(error).__name__)
            self._supervisor.wake()
            raise Refused(503, "model_stopped", "The engine does not answer. Try again.", 5) from None
        try:
            headers = [(name.lower(), value) for name, value in answer.headers.raw]
            kept = [(name, value) for name, value in headers if name not in OF_ONE_CONNECTION]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
            async for part in answer.aiter_raw():
                deployment.traffic.passed(flight)
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await answer.aclose()

    async def _running(self, deployment: Deployment) -> None:
        """Waits while the model loads, if that is known to take no longer than a client may wait."""
        desired = deployment.desired
        if deployment.phase == "running":
            return
        if desired is None or not deployment.is_kept or deployment.phase == "failed":
            raise _stopped(deployment)
        if desired.wanted == "on_demand":
            deployment.demanded = True
        self._supervisor.wake()
        if deployment.files.state != "verified" and deployment.phase == "downloading":
            raise _loading(deployment)
        if (deployment.load_seconds or 0) > desired.load_seconds:
            raise _loading(deployment)
        with deployment.traffic.wait():
            try:
                async with asyncio.timeout(desired.load_seconds):
                    await deployment.running_or_failed()
            except TimeoutError:
                raise _loading(deployment) from None
        if deployment.run is None or not deployment.run.answered:
            raise _stopped(deployment)


class _Body:
    """The request's body, as it comes. When it has come, the client can only wait or leave."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._has_come = asyncio.Event()
        self._is_gone = asyncio.Event()

    async def parts(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._is_gone.set()
                await asyncio.Event().wait()  # until it is cancelled: the engine must not take this for the end
            if part := message.get("body"):
                yield part
            if not message.get("more_body"):
                self._has_come.set()
                return

    async def left(self, *, has_body: bool) -> None:
        """Until the client is gone."""
        if has_body:
            gone, come = asyncio.create_task(self._is_gone.wait()), asyncio.create_task(self._has_come.wait())
            try:
                await asyncio.wait({gone, come}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                gone.cancel()
                come.cancel()
            if self._is_gone.is_set():
                return
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _has_body(scope: Scope) -> bool:
    names = {name for name, _ in scope["headers"]}
    return b"content-length" in names or b"transfer-encoding" in names


def _sent_on(headers: Headers) -> Iterable[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name not in NOT_SENT_ON]


async def _end(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # one that failed was already awaited


def _not_found() -> Refused:
    return Refused(404, "not_found", "There is no such path on a host's ingress.")


def _stopped(deployment: Deployment) -> Refused:
    why = deployment.detail if deployment.phase == "failed" and deployment.detail else "It is stopped."
    return Refused(503, "model_stopped", f"The model does not run on this host. {why}", deployment.retry_after())


def _loading(deployment: Deployment) -> Refused:
    return Refused(503, "model_loading", "The model is being loaded. Try again later.", deployment.retry_after())


def _error(refused: Refused) -> dict[str, Any]:
    kind = (
        "authentication_error"
        if refused.status == 401
        else "api_error"
        if refused.status >= 500
        else "invalid_request_error"
    )
    return {"error": {"message": refused.message, "type": kind, "code": refused.code, "param": None}}


async def _task(receive: Receive) -> Task:
    read = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        read += message.get("body", b"")
        if len(read) > MOST_TASK_BYTES:
            raise Refused(413, "request_too_large", f"A task has at most {MOST_TASK_BYTES} bytes.")
        if not message.get("more_body"):
            break
    try:
        return Task.model_validate({"id": "", **json.loads(read)})
    except (ValueError, TypeError, ValidationError):
        raise Refused(400, "invalid_request", "A task is an object with a kind and arguments.") from None


async def _send_json(send: Send, status: int, body: Any, retry_after: int | None = None) -> None:
    encoded = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(encoded)).encode())]
    if retry_after is not None:
        headers.append((b"retry-after", str(retry_after).encode()))
    with contextlib.suppress(OSError):
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": encoded})
