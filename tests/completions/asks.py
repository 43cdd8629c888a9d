"""Requests of every kind: what goes up as it is, and what we refuse."""

import json
from typing import Any

from sandbox.serving import a_chat
from tollgate.core.endpoints import ENDPOINTS, Endpoint

TRANSCRIPTIONS, TRANSLATIONS = "/audio/transcriptions", "/audio/translations"
CHAT, TEXT, EMBED = "/chat/completions", "/completions", "/embeddings"
RESPONSES, MESSAGES, COUNT = "/responses", "/messages", "/messages/count_tokens"
GENERATE, BATCH = "/generate", "/generate/batch"
IMAGES, SPEECH, RERANK, MODERATIONS = "/images/generations", "/audio/speech", "/rerank", "/moderations"
RENAMED = {"max_tokens": "max_output_tokens"}
"""Names of a chat completion that Responses have otherwise."""
SAYING = (CHAT, RESPONSES, MESSAGES)
"""The endpoints that answer a conversation. Each is tried with every fault."""
WORDS = 'Grüße an 小さな鳥 🐦 \\ " \n and more'
PIXEL = f"data:image/png;base64,{'iVBORw0KGgoAAAANSUhEUg' * 20}"
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "number"}}},
}
TOOL = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}
OTHER = {"type": "function", "function": {"name": "other", "description": "É", "parameters": {"type": "object"}}}


def asking(path: str, text: str = WORDS, model: str = "sandbox/echo", **more: Any) -> dict[str, Any]:
    """A conversation of one message, as this endpoint wants it."""
    if path.endswith(RESPONSES):
        return {"model": model, "input": text, **{RENAMED.get(name, name): value for name, value in more.items()}}
    if path.endswith(GENERATE):
        bound = {"max_new_tokens": more.pop("max_tokens")} if "max_tokens" in more else {}
        return {"model": model, "prompt": text, **bound, **more}
    return a_chat(text, model, **more)


def said(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": WORDS}, *parts]}]


CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
CALLED = [
    {"role": "user", "content": WORDS},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "Nothing."},
]

CHATS: dict[str, dict[str, Any]] = {
    "plain": {},
    "n": {"n": 3},
    "stop": {"stop": ["and"]},
    "one stop": {"stop": "🐦"},
    "max_tokens": {"max_tokens": 3},
    "max_completion_tokens": {"max_completion_tokens": 3},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "nulls": {"n": None, "max_tokens": None, "stop": None, "user": None, "tools": None},
    "sampling": {
        "temperature": 0.7,
        "top_p": 1,
        "top_k": 5,
        "min_p": 0.1,
        "top_a": 0.2,
        "seed": 42,
        "logit_bias": {"7": -100},
    },
    "penalties": {"frequency_penalty": -0.5, "presence_penalty": 2, "repetition_penalty": 1.5},
    "tools": {"model": "sandbox/tools", "tools": [TOOL, OTHER], "parallel_tool_calls": False},
    "tool_choice": {
        "model": "sandbox/tools",
        "tools": [TOOL, OTHER],
        "tool_choice": {"type": "function", "function": {"name": "other"}},
    },
    "no tool": {"model": "sandbox/tools", "tools": [TOOL], "tool_choice": "none"},
    "a tool's answer": {"model": "sandbox/tools", "tools": [TOOL], "messages": CALLED},
    "json_object": {"response_format": {"type": "json_object"}},
    "json_schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
    },
    "usage wanted": {"stream_options": {"include_usage": True}, "usage": {"include": True}},
    "usage not wanted": {"stream_options": {"include_usage": False}},
    "reasoning": {"model": "sandbox/reasoner", "reasoning": {"effort": "high", "max_tokens": 100}},
    "no reasoning": {"model": "sandbox/reasoner", "reasoning": {"enabled": False}, "include_reasoning": False},
    "reasoning_effort": {"model": "sandbox/reasoner", "reasoning_effort": "none"},
    "provider": {
        "provider": {
            "order": ["FakeProvider"],
            "allow_fallbacks": False,
            "sort": "price",
            "max_price": {"prompt": 1, "completion": 2},
        }
    },
    "plugins": {"plugins": [{"id": "response-healing"}, {"id": "web", "max_results": 1}], "transforms": ["middle-out"]},
    "image": {
        "model": "sandbox/image",
        "messages": said({"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}),
    },
    "image by link": {
        "model": "sandbox/image",
        "messages": said({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}),
    },
    "audio": {
        "messages": said({"type": "input_audio", "input_audio": {"data": "UklGRg" * 50, "format": "wav"}}),
        "modalities": ["text"],
    },
    "file": {
        "messages": said(
            {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,aGVsbG8="}}
        )
    },
    "video": {"messages": said({"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}})},
    "fallbacks": {"model": "sandbox/fault-status=502", "models": ["sandbox/fault-moderation", "sandbox/words"]},
    "models alone": {"model": None, "models": ["sandbox/fault-moderation", "sandbox/words"]},
    "suffix": {"model": "sandbox/echo:nitro"},
    "alias": {"model": "~sandbox/echo-latest"},
    "free": {"model": "sandbox/free:free"},
    "router": {"model": "sandbox/router", "provider": {"max_price": {"prompt": 1, "completion": 5}}},
    "many messages": {
        "messages": [
            {"role": role, "content": f"{role} said {WORDS}", "name": "x"}
            for role in ("system", "developer", "user", "assistant")
        ]
        * 5
    },
    "other words": {
        "user": "u-1",
        "metadata": {"a": "b"},
        "session_id": "s",
        "service_tier": "flex",
        "prediction": {"type": "content", "content": "x"},
    },
    "of tomorrow": {"tomorrow": {"deep": [[{"er": None}], 1e-7, True]}, "x-y": "", "": 0, "🐦": "🐦"},
    "a context too long": {"messages": [{"role": "user", "content": "x" * 600_000}]},
    "more than the model can": {"max_tokens": 100_000},
    "bad stop": {"stop": 5},
    "bad top_logprobs": {"logprobs": True, "top_logprobs": 99},
    "a model for embeddings": {"model": "sandbox/embed"},
}

OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": (TEXT, {"model": "sandbox/echo", "prompt": WORDS}),
    "text, bounded": (
        TEXT,
        {"model": "sandbox/words", "prompt": WORDS, "max_tokens": 5, "n": 2, "echo": False, "suffix": "x"},
    ),
    "text, streamed": (TEXT, {"model": "sandbox/echo", "prompt": WORDS, "stream": True}),
    "prompts": (TEXT, {"model": "sandbox/echo", "prompt": [WORDS, "and"]}),
    "embedding": (EMBED, {"model": "sandbox/embed", "input": WORDS}),
    "embeddings": (
        EMBED,
        {"model": "sandbox/embed", "input": [WORDS, "b"], "encoding_format": "base64", "dimensions": 16},
    ),
    "tokens": (EMBED, {"model": "sandbox/embed", "input": [[1, 2, 3], [4]], "input_type": "x"}),
    "bad dimensions": (EMBED, {"model": "sandbox/embed", "input": "x", "dimensions": 0}),
    "a model for chats": (EMBED, {"model": "sandbox/echo", "input": "x"}),
}

MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "an image": (IMAGES, {"model": "sandbox/painter", "prompt": WORDS}),
    "images": ("/images", {"model": "sandbox/painter", "prompt": WORDS, "n": 3, "size": "4K", "quality": "high"}),
    "a streamed image": (IMAGES, {"model": "sandbox/painter", "prompt": WORDS, "stream": True}),
    "documents": (RERANK, {"model": "sandbox/rank", "query": "and more", "documents": ["more", {"text": WORDS}]}),
    "many documents": (RERANK, {"model": "sandbox/rank", "query": "bird", "documents": ["a bird"] * 250, "top_n": 2}),
}
"""Priced by units, and answered with their cost."""
SPOKEN: dict[str, Any] = {"model": "sandbox/voice", "input": WORDS, "voice": "x", "speed": 1.25}
"""Answered with bytes, which state no cost."""
HEARD: dict[str, Any] = {
    "model": "sandbox/ear",
    "input_audio": {"data": "UklGRiQAAABXQVZFZm10", "format": "wav"},
}

CALLS: dict[Endpoint, dict[str, Any]] = {
    "chat": asking(CHAT),
    "completions": {"model": "sandbox/echo", "prompt": WORDS},
    "embeddings": {"model": "sandbox/embed", "input": WORDS},
    "responses": asking(RESPONSES),
    "messages": asking(MESSAGES),
    "count_tokens": asking(COUNT),
    "generate": asking(GENERATE),
    "images": MADE["an image"][1],
    "speech": SPOKEN,
    "rerank": MADE["documents"][1],
    "moderations": {"model": "sandbox/guard", "input": WORDS},
    "transcriptions": HEARD,
    "translations": HEARD,
}
"""A call of each endpoint, with the sandbox's model for it. The suites of the paid path make these calls."""
STREAMED: dict[Endpoint, dict[str, Any]] = {
    name: body | {"stream": True}
    for name, body in CALLS.items()
    if ENDPOINTS[name].generates or ENDPOINTS[name].streams
}
"""The same, answered in events."""
AT_OPENROUTER = [name for name, form in ENDPOINTS.items() if "openrouter" in form.dialects or form.is_translated]
"""The endpoints that OpenRouter answers, some of them by a chat completion."""


def path_of(endpoint: Endpoint) -> str:
    return f"/v1{ENDPOINTS[endpoint].path}"


FLAT_TOOL = {"type": "function", "name": "look", "parameters": SCHEMA}
CUSTOM_TOOL = {"name": "look", "input_schema": SCHEMA}

TYPED: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"response, {name}": (RESPONSES, changed)
        for name, changed in {
            "plain": {"input": WORDS},
            "bounded": {"input": WORDS, "max_output_tokens": 16, "model": "sandbox/words"},
            "parts": {
                "input": [
                    {
                        "type": "message",
                        "role": "user",
                        "content": [
                            {"type": "input_text", "text": WORDS},
                            {"type": "input_image", "image_url": PIXEL, "detail": "low"},
                        ],
                    }
                ],
                "model": "sandbox/image",
                "instructions": "Be kind",
            },
            "tools": {"input": WORDS, "model": "sandbox/tools", "tools": [FLAT_TOOL], "parallel_tool_calls": False},
            "a tool's answer": {
                "model": "sandbox/tools",
                "tools": [FLAT_TOOL],
                "input": [
                    {"role": "user", "content": WORDS},
                    {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "call_1", "output": "Nothing."},
                ],
            },
            "reasoning": {
                "input": WORDS,
                "model": "sandbox/reasoner",
                "reasoning": {"effort": "high"},
                "include": ["reasoning.encrypted_content"],
            },
            "settings": {
                "input": WORDS,
                "store": False,
                "background": None,
                "temperature": 0.5,
                "metadata": {"type": "message_stop", "usage": "no"},
                "truncation": "auto",
                "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
            },
            "fallbacks": {"input": WORDS, "model": "sandbox/fault-status=502", "models": ["sandbox/words"]},
            "too long": {"input": "x" * 600_000},
        }.items()
    },
    **{
        f"message, {name}": (
            MESSAGES,
            {"max_tokens": 4096, "messages": [{"role": "user", "content": WORDS}], **changed},
        )
        for name, changed in {
            "plain": {},
            "bounded": {"max_tokens": 2},
            "no bound": {"max_tokens": None},
            "system": {"system": [{"type": "text", "text": "Be kind", "cache_control": {"type": "ephemeral"}}]},
            "parts": {
                "model": "sandbox/image",
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": WORDS},
                            {
                                "type": "image",
                                "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGg" * 50},
                            },
                        ],
                    }
                ],
            },
            "tools": {"model": "sandbox/tools", "tools": [CUSTOM_TOOL], "tool_choice": {"type": "any"}},
            "tool_choice": {
                "model": "sandbox/tools",
                "tools": [CUSTOM_TOOL],
                "tool_choice": {"type": "tool", "name": "look"},
            },
            "a tool's answer": {
                "model": "sandbox/tools",
                "tools": [CUSTOM_TOOL],
                "messages": [
                    {"role": "user", "content": WORDS},
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"a": "é"}}],
                    },
                    {
                        "role": "user",
                        "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "Nothing."}],
                    },
                ],
            },
            "thinking": {"model": "sandbox/reasoner", "thinking": {"type": "enabled", "budget_tokens": 1024}},
            "cached": {"model": "sandbox/cached"},
            "stop": {"stop_sequences": ["and"], "metadata": {"user_id": "u"}, "service_tier": "standard_only"},
            "edits": {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}, "speed": "standard"},
        }.items()
    },
}
"""Each is sent with sandbox/echo where it names no other model."""

WRITTEN = {
    "spaced": b' \n{ "stream" : false ,\t"messages" : [ {"content" : "hi" , "role":"user"} ] ,\r\n'
    b' "model":"sandbox/echo" } \n',
    "escaped": b'{"\\u006dodel":"sandbox\\/echo",'
    b'"messages":[{"role":"user","content":"\\ud83d\\udc26 \\u0000 \\u00e9"}]}',
    "numbers": b'{"model":"sandbox/echo","messages":[{"role":"user","content":"hi"}],'
    b'"a":1.0,"b":1E2,"c":-0,"d":12345678901234567890}',
    "wordy": b'{"model":"sandbox/echo","messages":[{"role":"user","content":"%b"}]}' % ("小" * 5000).encode(),
}

REFUSED = {
    "no JSON": (b"{", 400, "invalid_request"),
    "no object": (b"[]", 400, "invalid_request"),
    "nothing": (b"", 400, "invalid_request"),
    "NaN": (b'{"model":"sandbox/echo","messages":[{"role":"user","content":"x"}],"top_p":NaN}', 400, "invalid_request"),
    "a name twice": (b'{"model":"a","model":"sandbox/echo","messages":[{"role":"user"}]}', 400, "invalid_request"),
    "half a letter": (b'{"model":"sandbox/echo","messages":[{"content":"\\ud83d"}]}', 400, "invalid_request"),
    **{
        name: (json.dumps(a_chat(**changed)).encode(), 400, "invalid_request")
        for name, changed in {
            "no messages": {"messages": []},
            "bound of zero": {"max_tokens": 0},
            "two bounds": {"max_tokens": 1, "max_completion_tokens": 1},
            "no number": {"n": "many"},
            "no flag": {"stream": "yes"},
            "key": {"api_key": "sk-mine"},
            "address": {"base_url": "https://example.com"},
            "headers": {"extra_headers": {}},
            "fallbacks": {"fallbacks": ["sandbox/echo"]},
            "another bound": {"num_predict": 5},
        }.items()
    },
    "unknown model": (json.dumps(a_chat(model="nobody/knows")).encode(), 404, "model_not_found"),
    "expired model": (json.dumps(a_chat(model="sandbox/old")).encode(), 404, "model_not_found"),
    "unknown fallback": (json.dumps(a_chat(models=["nobody/knows"])).encode(), 404, "model_not_found"),
    "no price": (json.dumps(a_chat(model="sandbox/router")).encode(), 400, "model_unpriced"),
}
