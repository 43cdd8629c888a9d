"""The endpoints that say something for money, as plain ASGI: this is the path that a benchmark takes."""

from dataclasses import replace

from starlette.types import Receive, Scope, Send

from tollgate.sandbox import billing, delivery, extras, speech
from tollgate.sandbox.asked import Asked
from tollgate.sandbox.catalog import Model
from tollgate.sandbox.dialects import Dialect
from tollgate.sandbox.encoding import encode_with, utf8
from tollgate.sandbox.extras import Extra
from tollgate.sandbox.generation import Generation
from tollgate.sandbox.line import ClientGone, Cut, Line
from tollgate.sandbox.order import Order
from tollgate.sandbox.prices import Used
from tollgate.sandbox.refusals import Refusal, unavailable
from tollgate.sandbox.request_reading import take
from tollgate.sandbox.speech import Finish, Said
from tollgate.sandbox.state import House
from tollgate.sandbox.stream import BREAKS, PROVIDER_ERROR, Script, events, gigantic

ERRORS = ("mid-stream-error", "finish-error", "vllm-error")
"""The ways to break off for which nothing is charged."""


class Completions:
    def __init__(self, house: House, dialect: Dialect) -> None:
        self._house = house
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with Line(receive, send) as line:
            order, body = await take(self._house, line, scope, speaks)
            asked = self._dialect.read(body)
            most = min(room(order, asked), self._house.habits.most_tokens // asked.choices)
            extra = extras.of(body, asked.prompt_tokens, order.faults)
            said = speech.BLANK if "blank" in order.faults else speech.say(order.model, asked, most)
            generation = self._house.open(order, streamed=asked.stream)
            generation.extra = extra
            generation.used = self._prompt(order.model, asked, extra)
            answer = self._stream if asked.stream else self._whole
            await answer(line, generation, asked, said)

    async def _whole(self, line: Line, generation: Generation, asked: Asked, said: Said) -> None:
        """Once begun it is charged in full, whether or not the client waits for it."""
        broken = generation.faults.any_of("finish-error", "mid-stream-error")
        if broken:
            said = said.cut(generation.faults.after(broken, said.tokens), "error")
        used = spoken(generation.used, said, asked)
        try:
            pace = generation.faults.pace(self._house.habits.token_delay_seconds, used.completion)
            seconds = pace * used.completion
            if seconds:
                await line.pause(seconds)
        except ClientGone:
            self._house.end(generation, used, said.finish, cancelled=True)
            raise
        self._house.end(generation, used, said.finish)
        await delivery.whole(line, generation, self._body(generation, asked, said))

    def _body(self, generation: Generation, asked: Asked, said: Said) -> bytes:
        excess = gigantic(generation.faults)
        shown = replace(said, content=[*said.content, excess]) if excess else said
        error = {"error": PROVIDER_ERROR} if said.finish == "error" else {}
        envelope = self._dialect.envelope(generation, of_chunk=False)
        if "no-id" in generation.faults:
            del envelope["id"]
        choices = [
            {
                "index": index,
                **self._dialect.choice(said if index else shown, asked, f"{generation.call_id}-{index}"),
                **error,
            }
            for index in range(asked.choices)
        ]
        usage = billing.usage(generation.used, generation.bill, generation.extra, caches=generation.model.caches)
        reported = billing.reported(usage, generation.faults)
        return utf8(encode_with(envelope | {"choices": choices}, reported))

    async def _stream(self, line: Line, generation: Generation, asked: Asked, said: Said) -> None:
        faults, habits = generation.faults, self._house.habits
        full = spoken(generation.used, said, asked)
        usage = billing.usage(
            full, generation.price(full, said.finish), generation.extra, caches=generation.model.caches
        )
        script = Script(self._dialect, generation, asked, said, billing.reported(usage, faults))
        finish: Finish | None = None
        cancelled = True
        try:
            pace = faults.pace(habits.token_delay_seconds, full.completion)
            await delivery.streamed(line, generation, events(script), pace)
            finish, cancelled = _finish(script), False
        except Cut:
            cancelled = False
            raise
        finally:
            billed_whole = faults.word("bill") if "bill" in faults else habits.bill_cancelled
            used = full if cancelled and billed_whole == "all" else generation.used
            self._house.end(generation, used, finish, cancelled=cancelled)

    def _prompt(self, model: Model, asked: Asked, extra: Extra) -> Used:
        cached, written = self._house.prompts.read(asked.texts) if model.caches else (0, 0)
        prompt = asked.prompt_tokens + extra.prompt_tokens
        return Used(prompt=prompt, cached=cached, written=written, images=asked.images, extras=extra.picos)


def speaks(model: Model) -> bool:
    return model.behaviour != "embed"


def spoken(prompt: Used, said: Said, asked: Asked) -> Used:
    return replace(prompt, completion=said.tokens * asked.choices, reasoning=len(said.reasoning) * asked.choices)


def room(order: Order, asked: Asked) -> int:
    """How many tokens may be said. OpenRouter passes over providers whose cap is lower than what is asked for."""
    model = order.model
    cap = model.max_completion_tokens or model.context_length
    left = model.context_length - asked.prompt_tokens
    if asked.bound is not None and asked.bound > cap:
        message = "No endpoints found that can handle the requested parameters."
        constraint = {"field": "max_tokens", "detail": f"at most {cap}"}
        raise unavailable("constraint_filtered", 404, message, [order.listed.id], constraint=constraint)
    if left < (asked.bound or 1):
        raise Refusal(
            400,
            f"This endpoint's maximum context length is {model.context_length} tokens. However, you requested about "
            f"{asked.prompt_tokens + (asked.bound or 0)} tokens. Please reduce the length of either one.",
            metadata={"error_type": "context_length_exceeded"},
        )
    return min(asked.bound or cap, left)


def _finish(script: Script) -> Finish | None:
    broken = script.faults.any_of(*BREAKS)
    if broken in ERRORS:
        return "error"
    return None if broken else script.said.finish
