"""What the vendor bills beside tokens, by the prices that OpenRouter publishes: searches, fetches, pages, images.

A server tool is called as often as the fault `tool-steps` says, once by itself, and never more than `max_tool_calls`.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tollgate.sandbox.faults import Faults
from tollgate.sandbox.prices import picos
from tollgate.sandbox.refusals import Refusal

Body = Mapping[str, Any]

MOST = 1_000_000
MOST_STEPS = 30
INCLUDED = 10
RESULT_TOKENS = 800
FETCH_TOKENS = 5_000
LINKED_PAGES = 40
"""Of a PDF that is only linked."""
EXA = {"deep-lite": "0.012", "deep": "0.012", "deep-reasoning": "0.015"}
PARALLEL = {"turbo": "0.001", "fast": "0.001"}
EACH_RESULT = picos("0.001")
PAGE = picos("0.002")
FETCH = {"exa": picos("0.001"), "parallel": picos("0.001")}
IMAGE = picos("0.17")
SEARCHES = ("openrouter:web_search", "web_search", "web_search_preview")
FREE = ("openrouter:datetime", "openrouter:tool_search", "openrouter:experimental__search_models")


@dataclass(frozen=True, slots=True)
class Extra:
    """All that comes on top of a generation's own tokens."""

    picos: int = 0
    prompt_tokens: int = 0
    """Read once, or again in each turn of a loop."""
    searches: int = 0
    results: int = 0
    calls: int = 0


def of(body: Body, prompt_tokens: int, faults: Faults) -> Extra:
    once = [*_searched_once(body), *_parsed(body)]
    looped = _looped(body, prompt_tokens, faults)
    return Extra(*(sum(getattr(one, name) for one in (*once, looped)) for name in Extra.__slots__))


def _searched_once(body: Body) -> list[Extra]:
    plugins = [one for one in _objects(body, "plugins") if one.get("enabled") is not False]
    web = [plugin for plugin in plugins if plugin.get("id") == "web"]
    if not web and (body.get("web_search_options") is not None or ":online" in str(body.get("model"))):
        web = [{}]
    return [_search(plugin) for plugin in web]


def _search(settings: Body) -> Extra:
    results = _whole(settings, "max_results") or 5
    engine, mode = settings.get("engine"), str(settings.get("mode"))
    base = EXA.get(mode, "0.007")
    if engine == "parallel":
        base = PARALLEL.get(mode, "0.005")
    elif engine == "perplexity":
        return Extra(picos("0.005"), results * RESULT_TOKENS, 1, results)
    cost = picos(base) + EACH_RESULT * max(0, results - INCLUDED)
    return Extra(cost, results * RESULT_TOKENS, 1, results)


def _looped(body: Body, prompt_tokens: int, faults: Faults) -> Extra:
    tools = [tool for tool in _objects(body, "tools") if tool.get("type") not in (None, "function", "custom")]
    if not tools:
        return Extra()
    steps = min(faults.whole("tool-steps") if "tool-steps" in faults else 1, *_bounds(body, tools))
    calls = [_call(tools[step % len(tools)]) for step in range(steps)]
    read_again = sum((steps - turn) * call.prompt_tokens for turn, call in enumerate(calls))
    return Extra(
        sum(call.picos for call in calls),
        steps * prompt_tokens + read_again,
        sum(call.searches for call in calls),
        sum(call.results for call in calls),
        steps,
    )


def _bounds(body: Body, tools: list[Body]) -> list[int]:
    """Of Messages' own search, the provider runs the loop, which ends after max_uses."""
    if any(_is_native(tool) for tool in tools):
        return [_whole(tool, "max_uses") or MOST for tool in tools]
    conditions = [_whole(one, "step_count") for one in _objects(body, "stop_server_tools_when")]
    return [_whole(body, "max_tool_calls") or MOST_STEPS, MOST_STEPS, *(count + 1 for count in conditions if count)]


def _is_native(tool: Body) -> bool:
    return str(tool.get("type")).startswith("web_search_2")


def _call(tool: Body) -> Extra:
    kind, settings = tool["type"], {**tool, **_object(tool, "parameters")}
    if kind in SEARCHES or _is_native(tool):
        return _search(settings)
    if kind == "openrouter:web_fetch":
        return Extra(
            FETCH.get(str(settings.get("engine", "exa")), 0),
            min(FETCH_TOKENS, _whole(settings, "max_content_tokens") or FETCH_TOKENS),
        )
    if kind == "openrouter:image_generation":
        return Extra(IMAGE, 1_000)
    if kind in FREE:
        return Extra(0, 100)
    raise Refusal(400, f"The sandbox has no server tool {kind}.")


def _parsed(body: Body) -> list[Extra]:
    engines = [
        _object(plugin, "pdf").get("engine")
        for plugin in _objects(body, "plugins")
        if plugin.get("id") == "file-parser"
    ]
    if "mistral-ocr" not in engines:
        return []
    return [Extra(PAGE * pages, 500 * pages) for pages in map(_pages, _files(body))]


def _files(body: Body) -> list[str]:
    contents = [message.get("content") for message in _objects(body, "messages")]
    parts = [part for content in contents if isinstance(content, list) for part in content if isinstance(part, dict)]
    return [str(_object(part, "file").get("file_data", "")) for part in parts if part.get("type") == "file"]


def _pages(payload: str) -> int:
    if "://" in payload[:16]:
        return LINKED_PAGES
    try:
        data = base64.b64decode(payload.partition(",")[2])
    except binascii.Error:
        return 0
    return max(1, data.count(b"/Type /Page") - data.count(b"/Type /Pages"))


def _objects(body: Body, name: str) -> list[Body]:
    listed = body.get(name)
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _object(body: Body, name: str) -> Body:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise Refusal(400, f"Invalid value for '{name}'")
    return value or {}


def _whole(body: Body, name: str) -> int | None:
    value = body.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MOST):
        raise Refusal(400, f"Invalid value for '{name}'")
    return value
