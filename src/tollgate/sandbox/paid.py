"""The endpoints that say something for money, as plain ASGI: this is the path that a benchmark takes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

from tollgate.sandbox import billing, delivery, extras, speech
from tollgate.sandbox.catalog import TALKING, Model
from tollgate.sandbox.client_connection import ClientConnection, ClientGone, Cut
from tollgate.sandbox.dialects import Dialect
from tollgate.sandbox.encoding import encode_with, utf8
from tollgate.sandbox.extras import Extra
from tollgate.sandbox.generation import Generation
from tollgate.sandbox.job import Job
from tollgate.sandbox.parameters import Body, Parameters
from tollgate.sandbox.prices import Used
from tollgate.sandbox.refusals import PROVIDER_ERROR, Refusal, unavailable
from tollgate.sandbox.request_reading import take
from tollgate.sandbox.speech import Finish, Said
from tollgate.sandbox.state import State
from tollgate.sandbox.stream import BREAKS, ChoicesStream, Script, Stream, events, with_excess

ERRORS = ("mid-stream-error", "finish-error", "vllm-error")
"""The ways to break off for which nothing is charged."""


class Form(Protocol):
    """How an endpoint is asked, and how it answers: Choices, or one of the modules `messages` and `responses`."""

    @property
    def read(self) -> Callable[[Body], Parameters]: ...

    @property
    def whole(self) -> Callable[[Generation, Parameters, Said, dict[str, Any]], str]: ...

    @property
    def Stream(self) -> Callable[[Script], Stream]: ...  # noqa: N802


class Choices:
    """Chat completions and text completions."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.read = dialect.read

    def whole(self, generation: Generation, params: Parameters, said: Said, reported: dict[str, Any]) -> str:
        error = {"error": PROVIDER_ERROR} if said.finish == "error" else {}
        envelope = self._dialect.envelope(generation, of_chunk=False)
        if "no-id" in generation.faults:
            del envelope["id"]
        shown = with_excess(said, generation.faults)
        choices = [
            {
                "index": index,
                **self._dialect.choice(said if index else shown, params, f"{generation.call_id}-{index}"),
                **error,
            }
            for index in range(params.choices)
        ]
        return encode_with(envelope | {"choices": choices}, reported)

    def Stream(self, script: Script) -> Stream:  # noqa: N802
        return ChoicesStream(self._dialect, script)


class Completions:
    def __init__(self, state: State, form: Form) -> None:
        self._state = state
        self._form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with ClientConnection(receive, send) as client:
            job, body = await take(self._state, client, scope, speaks)
            params = self._form.read(body)
            most = min(output_bound(job, params), self._state.habits.most_tokens // params.choices)
            extra = extras.of(body, params.prompt_tokens, job.faults)
            said = speech.BLANK if "blank" in job.faults else speech.say(job.model, params, most)
            generation = self._state.open(job, streamed=params.stream)
            generation.extra = extra
            generation.used = self._prompt(job.model, params, extra)
            answer = self._stream if params.stream else self._whole
            await answer(client, generation, params, said)

    async def _whole(self, client: ClientConnection, generation: Generation, params: Parameters, said: Said) -> None:
        """Once begun it is charged in full, whether or not the client waits for it."""
        broken = generation.faults.any_of("finish-error", "mid-stream-error")
        if broken:
            said = said.cut(generation.faults.after(broken, said.tokens), "error")
        used = spoken(generation.used, said, params)
        try:
            pace = generation.faults.pace(self._state.habits.token_delay_seconds, used.completion)
            seconds = pace * used.completion
            if seconds:
                await client.pause(seconds)
        except ClientGone:
            self._state.end(generation, used, said.finish, cancelled=True)
            raise
        self._state.end(generation, used, said.finish)
        await self._deliver(client, generation, params, self._body(generation, params, said))

    async def _deliver(self, client: ClientConnection, generation: Generation, params: Parameters, body: bytes) -> None:
        await delivery.whole(client, generation, body)

    def _body(self, generation: Generation, params: Parameters, said: Said) -> bytes:
        usage = billing.usage(generation.used, generation.bill, generation.extra, caches=generation.model.caches)
        return utf8(self._form.whole(generation, params, said, billing.reported(usage, generation.faults)))

    async def _stream(self, client: ClientConnection, generation: Generation, params: Parameters, said: Said) -> None:
        faults, habits = generation.faults, self._state.habits
        full = spoken(generation.used, said, params)
        usage = billing.usage(
            full, generation.price(full, said.finish), generation.extra, caches=generation.model.caches
        )
        script = Script(generation, params, said, billing.reported(usage, faults))
        finish: Finish | None = None
        cancelled = True
        try:
            pace = faults.pace(habits.token_delay_seconds, full.completion)
            last = await delivery.streamed(client, generation, events(script, self._form.Stream(script)), pace)
            finish, cancelled = _finish(script), False
        except Cut:
            cancelled = False
            raise
        finally:
            billed_whole = faults.word("bill") if "bill" in faults else habits.bill_cancelled
            used = full if cancelled and billed_whole == "all" else generation.used
            self._state.end(generation, used, finish, cancelled=cancelled)
        await delivery.finish(client, last)

    def _prompt(self, model: Model, params: Parameters, extra: Extra) -> Used:
        cached, written = self._state.prompts.read(params.texts) if model.caches else (0, 0)
        prompt = params.prompt_tokens + extra.prompt_tokens
        return Used(prompt=prompt, cached=cached, written=written, images=params.images, extras=extra.picos)


def speaks(model: Model) -> bool:
    return model.behaviour in TALKING


def spoken(prompt: Used, said: Said, params: Parameters) -> Used:
    return replace(prompt, completion=said.tokens * params.choices, reasoning=len(said.reasoning) * params.choices)


def output_bound(job: Job, params: Parameters) -> int:
    """How many tokens may be said. OpenRouter passes over providers whose cap is lower than what is asked for."""
    model = job.model
    cap = model.max_completion_tokens or model.context_length
    left = model.context_length - params.prompt_tokens
    if params.bound is not None and params.bound > cap:
        message = "No endpoints found that can handle the requested parameters."
        constraint = {"field": "max_tokens", "detail": f"at most {cap}"}
        raise unavailable("constraint_filtered", 404, message, [job.listed.id], constraint=constraint)
    if left < (params.bound or 1):
        raise Refusal(
            400,
            f"This endpoint's maximum context length is {model.context_length} tokens. However, you requested about "
            f"{params.prompt_tokens + (params.bound or 0)} tokens. Please reduce the length of either one.",
            metadata={"error_type": "context_length_exceeded"},
        )
    return min(params.bound or cap, left)


def _finish(script: Script) -> Finish | None:
    broken = script.faults.any_of(*BREAKS)
    if broken in ERRORS:
        return "error"
    return None if broken else script.said.finish
