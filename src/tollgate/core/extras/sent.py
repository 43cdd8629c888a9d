"""The body with the bounds that its extras were priced with."""

import json

from tollgate.core import strict_json
from tollgate.core.extras.requested import FETCH_TOKENS, FETCH_TOOL, SEARCH_TOOLS, Extras


def bounded(body: bytes, extras: Extras) -> bytes:
    """The body with the bounds that its extras were priced with, where the client left them open."""
    if not extras.looped:
        return body
    if strict_json.get(body, "plugins") not in (None, b"null"):
        body = strict_json.with_items(body, "plugins", lambda plugin: _bounded_plugin(plugin, extras.steps))
    if strict_json.get(body, "tools") not in (None, b"null"):
        body = strict_json.with_items(body, "tools", lambda tool: _bounded_tool(tool, extras.steps))
    return strict_json.put(body, "max_tool_calls", str(extras.steps).encode()) if extras.sends_steps else body


def without_search(body: bytes) -> bytes:
    """The body with the web plugin off, which an account's defaults at OpenRouter may have on."""
    off = b'{"id":"web","enabled":false}'
    plugins = (strict_json.get(body, "plugins") or b"[]").strip()
    if b'"web"' in plugins:
        return body  # its client has switched it off
    listed = plugins[1:-1].strip() if plugins.startswith(b"[") else b""
    return strict_json.put(body, "plugins", b"[" + off + (b"," + listed if listed else b"") + b"]")


def _bounded_tool(tool: bytes, steps: int) -> bytes:
    """A search or fetch that is also bounded where a provider runs it by itself."""
    kind = json.loads(strict_json.get(tool, "type") or b'"function"')
    if kind in SEARCH_TOOLS and not kind.startswith("openrouter:"):
        return _with_missing(tool, "max_uses", steps)
    if kind not in SEARCH_TOOLS and kind != FETCH_TOOL:
        return tool
    parameters = strict_json.get(tool, "parameters")
    inside = b"{}" if parameters in (None, b"null") else parameters
    inside = _with_missing(inside, "max_uses", steps)
    if kind == FETCH_TOOL:
        inside = _with_missing(inside, "max_content_tokens", FETCH_TOKENS)
    return strict_json.put(tool, "parameters", inside)


def _bounded_plugin(plugin: bytes, steps: int) -> bytes:
    name = json.loads(strict_json.get(plugin, "id") or b"null")
    if name != "web-fetch":
        return plugin
    return _with_missing(_with_missing(plugin, "max_uses", steps), "max_content_tokens", FETCH_TOKENS)


def _with_missing(body: bytes, name: str, value: int) -> bytes:
    return (
        body if strict_json.get(body, name) not in (None, b"null") else strict_json.put(body, name, str(value).encode())
    )
